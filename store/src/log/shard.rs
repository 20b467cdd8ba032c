//! [`Shard`]: one chain of segments, and how far it is written and durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::age::oldest_ms;
use super::cut::Cut;
use super::recovery::RecoveredShard;
use super::segment::Segment;
use super::sync::SyncQueue;
use super::tail::TailCache;
use crate::streams::ShardOptions;
use crate::{Flush, Position, Result, Retention, ShardInfo};

/// One chain of segments: what the records of some topics are appended to.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) number: u16,
    pub(crate) flush: Flush,
    /// How long its records are kept.
    pub(crate) retention: Retention,
    pub(crate) segments: RwLock<Vec<Arc<Segment>>>,
    pub(super) tail: RwLock<TailCache>,
    end: AtomicU64,
    durable_end: AtomicU64,
    durable_sequence: AtomicU64,
    pub(crate) sync: SyncQueue,
}

impl Shard {
    /// A shard as it was found, all of it durable; `sequence` is that of the next record.
    pub(super) fn new(
        number: u16,
        options: &ShardOptions,
        tail_bytes_max: usize,
        found: RecoveredShard,
        sequence: u64,
    ) -> Self {
        Shard {
            number,
            flush: options.flush,
            retention: options.retention,
            segments: RwLock::new(found.segments),
            tail: RwLock::new(TailCache::new(tail_bytes_max)),
            end: AtomicU64::new(found.end),
            durable_end: AtomicU64::new(found.end),
            durable_sequence: AtomicU64::new(sequence),
            sync: SyncQueue::default(),
        }
    }

    /// The position of an offset.
    pub(crate) fn position(&self, offset: u64) -> Position {
        Position::new(self.number, offset)
    }

    /// Where the last record ends.
    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// Everything before is on disk.
    pub(crate) fn durable_end(&self) -> u64 {
        self.durable_end.load(Ordering::Acquire)
    }

    /// The records of this shard with a smaller sequence are on disk.
    pub(super) fn durable_sequence(&self) -> u64 {
        self.durable_sequence.load(Ordering::Acquire)
    }

    pub(super) fn set_end(&self, end: u64) {
        self.end.store(end, Ordering::Release);
    }

    /// Says that everything up to `end` is on disk, which is every record before `sequence`.
    pub(super) fn set_durable(&self, end: u64, sequence: u64) {
        self.durable_sequence.store(sequence, Ordering::Release);
        self.durable_end.store(end, Ordering::Release);
    }

    /// How it stands. Reads the first record of a segment once.
    pub(crate) fn info(&self) -> Result<ShardInfo> {
        let segments = self.segments.read().clone();
        // In this order: the log only grows.
        let (durable_end, end) = (self.durable_end(), self.end());
        Ok(ShardInfo {
            shard: self.number,
            log_bytes: end.saturating_sub(segments.first().map_or(0, |segment| segment.first)),
            segments: segments.len() as u64,
            oldest_ms: oldest_ms(self.number, &segments, 0)?,
            undurable_bytes: end.saturating_sub(durable_end),
        })
    }

    /// The first offset still there.
    pub(crate) fn start(&self) -> u64 {
        self.segments.read().first().map_or(0, |segment| segment.first)
    }
}

/// Up to where each shard was durable at one moment.
#[derive(Debug, Default)]
pub(crate) struct DurableEnds(smallvec::SmallVec<[u64; 8]>);

impl DurableEnds {
    pub(super) fn new(ends: impl Iterator<Item = u64>) -> Self {
        DurableEnds(ends.collect())
    }

    /// What a log is that was just recovered: durable to its end.
    pub(crate) fn of(cut: &Cut) -> Self {
        DurableEnds(cut.ends.iter().map(|(_, end)| *end).collect())
    }

    /// Whether the record at a position is durable.
    pub(crate) fn contains(&self, position: Position) -> bool {
        self.0.get(usize::from(position.shard())).is_some_and(|end| position.offset() < *end)
    }
}
