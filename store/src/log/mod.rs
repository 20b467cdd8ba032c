//! The append-only sequence of all records.
//!
//! # Layout
//! - `format`: bytes of a segment's header and of a record
//! - `segment`: one file
//! - `recovery`: opening what is there, cutting a torn tail, refusing corruption
//! - `scan`: reading on from a position, record by record
//! - `writer`: the thread that appends
//! - `sync`: the thread that makes it durable and lets receipts go
//! - `tail`: the newest batches in memory
//! - `reader`: records by pointer; `history`: records from a position on

pub(crate) mod format;
mod history;
mod reader;
pub(crate) mod recovery;
pub(crate) mod scan;
pub(crate) mod segment;
pub(crate) mod sync;
mod tail;
pub(crate) mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use uuid::Uuid;

use self::segment::Segment;
use self::tail::TailCache;
use crate::{Options, Position, StoreError};

/// The shard there is. Positions carry it so that there can be more.
pub(crate) const SHARD: u16 = 0;

/// What all threads share of the log.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) dir: PathBuf,
    pub(crate) id: Uuid,
    pub(crate) segments: RwLock<Vec<Arc<Segment>>>,
    tail: RwLock<TailCache>,
    end: AtomicU64,
    durable_end: AtomicU64,
    /// Why nothing is acknowledged any more.
    poison: Mutex<Option<StoreError>>,
    /// The disk is full, as the last attempt to append found.
    full: Mutex<Option<StoreError>>,
    pub(crate) counters: Counters,
}

/// What the log counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) records: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) syncs: AtomicU64,
}

impl Log {
    pub(crate) fn new(
        dir: PathBuf,
        id: Uuid,
        options: &Options,
        segments: Vec<Arc<Segment>>,
        end: u64,
    ) -> Self {
        Log {
            dir,
            id,
            segments: RwLock::new(segments),
            tail: RwLock::new(TailCache::new(options.tail_cache_bytes)),
            end: AtomicU64::new(end),
            durable_end: AtomicU64::new(end),
            poison: Mutex::new(None),
            full: Mutex::new(None),
            counters: Counters::default(),
        }
    }

    /// Where the next record goes.
    pub(crate) fn end(&self) -> Position {
        Position::new(SHARD, self.end.load(Ordering::Acquire))
    }

    /// Everything before is on disk.
    pub(crate) fn durable_end(&self) -> Position {
        Position::new(SHARD, self.durable_end.load(Ordering::Acquire))
    }

    /// Why the log takes no records, if it does not.
    pub(crate) fn fault(&self) -> Option<StoreError> {
        self.poisoned().or_else(|| self.full.lock().clone())
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

    /// Bytes of the log on disk, from the first segment's begin to the end.
    pub(crate) fn bytes(&self) -> u64 {
        let first = self.segments.read().first().map_or(0, |s| s.first);
        self.end().offset() - first
    }
}
