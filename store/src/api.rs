//! The words of the store's interface: requests and answers, all owned, all batch-shaped, so that
//! a remote store could answer them as well.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use crate::{Pointer, Position, Record};

/// How durable a record is before its append is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Flush {
    /// After `fdatasync`: survives a power cut. Appends that wait together share one.
    #[default]
    Sync,
    /// After the write: survives the death of the process, not of the machine.
    Async,
}

/// How to open a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory; created when it is missing.
    pub dir: PathBuf,
    /// See [`Flush`].
    pub flush: Flush,
    /// Bytes of one log segment file.
    pub segment_bytes: u64,
    /// Bytes of the newest records kept in memory for readers that follow the tail.
    pub tail_cache_bytes: usize,
    /// Bytes of records that may wait for the log writer; appends wait past it.
    pub append_queue_bytes: usize,
    /// Bytes of index entries that may wait for RocksDB; the log writer waits past it.
    pub index_buffer_bytes: usize,
    /// How often buffered index entries and cursors are written out.
    pub checkpoint_interval: Duration,
    /// With [`Flush::Async`]: how often the log is synced all the same.
    pub async_flush_interval: Duration,
    /// Largest record in bytes (topic, properties and payload together).
    pub record_bytes_max: u32,
}

impl Options {
    /// The defaults, for the data directory `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Options {
            dir: dir.into(),
            flush: Flush::Sync,
            segment_bytes: 256 << 20,
            tail_cache_bytes: 16 << 20,
            append_queue_bytes: 16 << 20,
            index_buffer_bytes: 32 << 20,
            checkpoint_interval: Duration::from_millis(100),
            async_flush_interval: Duration::from_millis(20),
            record_bytes_max: 16 << 20,
        }
    }
}

/// Names a queue inside the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(pub u64);

/// What fills a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueKind {
    /// Every record whose topic matches the filter that is the queue's name.
    Filter,
    /// Every record whose topic matches any of these filters, once.
    Union(Vec<String>),
    /// Pointers that a consumer of another queue derives ([`crate::Store::derive`]).
    Derived,
}

/// A queue as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueInfo {
    /// The store's number for it.
    pub id: QueueId,
    /// What fills it.
    pub kind: QueueKind,
    /// The filter, or the name the caller gave.
    pub name: String,
    /// Offset of the first entry still there.
    pub first: u64,
    /// Offset that the next entry will get.
    pub end: u64,
}

/// What to read.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    /// The queue.
    pub queue: QueueId,
    /// Offset to start at; one before the queue's first entry starts there.
    pub from: u64,
    /// Most records to return.
    pub records_max: usize,
    /// Stop once this many bytes were read; one record is always returned.
    pub bytes_max: usize,
    /// Only records that `fdatasync` has confirmed.
    pub durable: bool,
}

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct ReadBatch {
    /// Offset and record, in order.
    pub records: Vec<(u64, Record)>,
    /// Where to read on.
    pub next: u64,
    /// The queue's end when it was read (with `durable`, the end that was visible).
    pub end: u64,
}

/// What to read of the log itself.
#[derive(Clone, Debug)]
pub struct ScanRequest {
    /// Where to start; [`Position::ZERO`] is the first record there is.
    pub from: Position,
    /// Records whose topic matches this filter.
    pub filter: String,
    /// Stop after this many of them.
    pub records_max: usize,
    /// Look at no more than about this many bytes of the log.
    pub bytes_max: usize,
}

/// What a scan found.
#[derive(Clone, Debug, Default)]
pub struct ScanBatch {
    /// Records in the log's order.
    pub records: Vec<Record>,
    /// Where to go on.
    pub next: Position,
    /// Whether that is the durable end of the log.
    pub at_end: bool,
}

/// Where a new cursor starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first entry still there.
    Earliest,
    /// After the last entry there is.
    Latest,
    /// At an offset.
    Offset(u64),
}

/// Names a durable cursor: one owner's place in one queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CursorKey {
    /// Who reads: a session, a rule's target, the router.
    pub owner: String,
    /// What is read.
    pub queue: QueueId,
}

/// A cursor's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorPlace {
    /// Lowest offset not yet done.
    pub offset: u64,
    /// The record of the last entry that is done: every entry up to and including this position is. It outlives a queue
    /// that is derived again, whose offsets may differ when its rule changed in between.
    /// [`Position::ZERO`] when nothing is done yet.
    pub position: Position,
}

/// What one target of a rule gave up on: a pointer and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The record.
    pub pointer: Pointer,
    /// Its offset in the queue it was read from.
    pub offset: u64,
    /// When it was given up, in milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// How often it was tried.
    pub attempts: u32,
    /// Why.
    pub error: String,
}

/// Documents of the caller that the store keeps durably and does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Collection {
    /// Persistent sessions by client identifier.
    Sessions = 1,
}

/// A page of documents: key and value.
pub type Documents = Vec<(String, Bytes)>;

/// An acknowledged append: one position for each record, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Positions of the records of the batch.
    pub positions: Vec<Position>,
}

/// Numbers the store counts, since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records appended.
    pub records: u64,
    /// Bytes appended to the log.
    pub bytes: u64,
    /// Batches written to the log.
    pub batches: u64,
    /// `fdatasync` calls on the log.
    pub syncs: u64,
    /// Index entries assigned.
    pub entries: u64,
    /// Bytes of index entries waiting for RocksDB.
    pub index_buffer_bytes: u64,
    /// Bytes of records waiting for the log writer.
    pub append_queue_bytes: u64,
    /// Bytes of the log on disk.
    pub log_bytes: u64,
    /// Queues in the catalogue.
    pub queues: u64,
    /// Records re-dispatched when the store was opened.
    pub redispatched: u64,
    /// Bytes cut from a torn tail when the store was opened.
    pub torn_bytes: u64,
}
