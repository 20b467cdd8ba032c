//! The append-only sequence of all records, in one or more shards.
//!
//! # Layout
//! - `format`: bytes of a segment's header and of a record
//! - `segment`: one file
//! - `shard`: a chain of segments, how far it is written and durable; `cut`: a place in all of them
//! - `recovery`: opening what is there, cutting a torn tail, refusing corruption
//! - `scan`: reading on from a position, record by record; `merge`: several shards in the order of sequences
//! - `layout`: records made ready by whoever appends them
//! - `ballast`: room that a full disk has for retention
//! - `desk`: where appends are handed in; `writer`: who carries them out; `appender`: its hand on one shard
//! - `sync`: the threads that make it durable, one for each shard; `receipt`: the answer to an append
//! - `tail`: the newest batches in memory
//! - `reader`: records by pointer; `history`: records from a position on; `age`: how old a segment's records are

pub(crate) mod age;
mod appender;
pub(crate) mod ballast;
pub(crate) mod cut;
pub(crate) mod desk;
pub(crate) mod format;
mod history;
pub(crate) mod layout;
mod merge;
mod reader;
pub(crate) mod receipt;
pub(crate) mod recovery;
pub(crate) mod scan;
pub(crate) mod segment;
pub(crate) mod shard;
pub(crate) mod sync;
mod tail;
pub(crate) mod writer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;
use uuid::Uuid;

use self::ballast::Ballast;
use self::cut::Cut;
use self::recovery::Recovered;
use self::shard::{DurableEnds, Shard};
use crate::streams::Streams;
use crate::{Options, Position, Result, StoreError};

/// What all threads share of the log.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) dir: PathBuf,
    pub(crate) id: Uuid,
    /// By number.
    shards: Vec<Shard>,
    next_sequence: AtomicU64,
    /// Time of the last record.
    time_ms: AtomicI64,
    /// Why nothing is acknowledged any more.
    poison: Mutex<Option<StoreError>>,
    /// The disk is full, as the last attempt to append found.
    full: Mutex<Option<StoreError>>,
    ballast: Ballast,
    pub(crate) counters: Counters,
}

/// What the log counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) records: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) syncs: AtomicU64,
    /// Segments that retention deleted, and their bytes.
    pub(crate) deleted_segments: AtomicU64,
    pub(crate) deleted_bytes: AtomicU64,
    /// Retained messages written again.
    pub(crate) kept: AtomicU64,
}

impl Log {
    pub(crate) fn new(
        dir: PathBuf,
        id: Uuid,
        ballast: Ballast,
        options: &Options,
        streams: &Streams,
        recovered: Recovered,
    ) -> Self {
        let Cut { sequence, time_ms, .. } = recovered.cut;
        let tail_bytes_max = options.tail_cache_bytes / recovered.shards.len().max(1);
        let shards = (0..).zip(streams.shards()).zip(recovered.shards);
        let shards = shards
            .map(|((number, options), found)| Shard::new(number, options, tail_bytes_max, found, sequence));
        Log {
            dir,
            id,
            shards: shards.collect(),
            next_sequence: AtomicU64::new(sequence),
            time_ms: AtomicI64::new(time_ms),
            poison: Mutex::new(None),
            full: Mutex::new(None),
            ballast,
            counters: Counters::default(),
        }
    }

    /// All shards, by number.
    pub(crate) fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The shard of this number.
    pub(crate) fn shard(&self, number: u16) -> Option<&Shard> {
        self.shards.get(usize::from(number))
    }

    /// Whether the record at a position is on disk.
    pub(crate) fn is_durable(&self, position: Position) -> bool {
        self.shard(position.shard()).is_some_and(|shard| position.offset() < shard.durable_end())
    }

    /// Up to where each shard is durable now.
    pub(crate) fn durable_ends(&self) -> DurableEnds {
        DurableEnds::new(self.shards.iter().map(Shard::durable_end))
    }

    /// A sequence that no record still there is smaller than.
    pub(crate) fn first_sequence(&self) -> u64 {
        let firsts =
            self.shards.iter().filter_map(|shard| Some(shard.segments.read().first()?.first_sequence));
        firsts.min().unwrap_or_default()
    }

    /// Sequence of the next record.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.next_sequence.load(Ordering::Acquire)
    }

    /// Every record with a smaller sequence is on disk.
    pub(crate) fn durable_sequence(&self) -> u64 {
        // In this order: a record before the next sequence is then before the end of its shard.
        let next = self.next_sequence();
        let behind = self.shards.iter().filter(|shard| shard.durable_end() < shard.end());
        behind.map(Shard::durable_sequence).fold(next, u64::min)
    }

    /// Where the log ends now.
    pub(crate) fn cut(&self) -> Cut {
        // In this order, for the same reason.
        let sequence = self.next_sequence();
        let time_ms = self.time_ms.load(Ordering::Acquire);
        Cut { sequence, time_ms, ends: self.shards.iter().map(|shard| (shard.number, shard.end())).collect() }
    }

    /// Has everything synced that is written.
    pub(crate) fn sync_written(&self) {
        let sequence = self.next_sequence();
        for shard in self.shards.iter().filter(|shard| shard.durable_end() < shard.end()) {
            if let Some(active) = shard.segments.read().last() {
                shard.sync.written(shard.end(), sequence, active, Vec::new());
            }
        }
    }

    /// Blocks until everything before the cut is on disk.
    pub(crate) fn wait_durable(&self, cut: &Cut) -> Result<()> {
        let behind = |shard: &&Shard| shard.durable_end() < cut.end(shard.number);
        // All first: they sync at the same time.
        self.shards.iter().filter(behind).for_each(|shard| shard.sync.hurry());
        self.shards.iter().try_for_each(|shard| shard.sync.wait_durable(self, shard, cut.end(shard.number)))
    }

    /// Why the log takes no records, if it does not.
    pub(crate) fn fault(&self) -> Option<StoreError> {
        self.poisoned().or_else(|| self.full.lock().clone()).or_else(|| self.refuses_records().err())
    }

    pub(crate) fn poisoned(&self) -> Option<StoreError> {
        self.poison.lock().clone()
    }

    /// After this nothing is acknowledged until a restart has looked at what is really on disk.
    fn poison(&self, reason: String) -> StoreError {
        let error = StoreError::Poisoned { reason };
        let mut poison = self.poison.lock();
        if poison.is_none() {
            tracing::error!(%error, "the log stops acknowledging");
            *poison = Some(error.clone());
        }
        error
    }

    /// Bytes of the log on disk, from each shard's first segment to its end.
    pub(crate) fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.end().saturating_sub(shard.start())).sum()
    }
}
