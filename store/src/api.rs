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

/// How long records are kept. Without a bound, for ever. Whole segments go, never the one that is appended to; a retained message
/// outlives its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Retention {
    /// Records older than this may go.
    pub time: Option<Duration>,
    /// The oldest records may go when a shard has more bytes than this.
    pub bytes: Option<u64>,
}

/// A part of the log with its own shards and promises: what is published to certain topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// Names it for good: its shards are found by it.
    pub name: String,
    /// A topic belongs to the first stream one of whose filters matches it, else to the default stream.
    pub filters: Vec<String>,
    /// In how many shards its topics are spread.
    pub shards: u16,
    /// See [`Flush`].
    pub flush: Flush,
    /// See [`Retention`].
    pub retention: Retention,
}

/// How to open a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory; created when it is missing.
    pub dir: PathBuf,
    /// See [`Flush`]; of the default stream.
    pub flush: Flush,
    /// In how many shards the topics of the default stream are spread.
    pub shards: u16,
    /// See [`Retention`]; of the default stream, and of streams that are not configured any more.
    pub retention: Retention,
    /// Streams beside the default one.
    pub streams: Vec<StreamOptions>,
    /// Bytes of one log segment file.
    pub segment_bytes: u64,
    /// Bytes of the newest records kept in memory for readers that follow the tail, of all shards together.
    pub tail_cache_bytes: usize,
    /// Bytes of records that may wait for the log writer; appends wait past it.
    pub append_queue_bytes: usize,
    /// Bytes of index entries that may wait for RocksDB; the log writer waits past it.
    pub index_buffer_bytes: usize,
    /// Bytes of blocks of the index that RocksDB keeps in memory.
    pub index_cache_bytes: usize,
    /// Bytes of entries that live queues keep together, about; the busiest ones forget their oldest past it.
    pub live_queues_bytes: usize,
    /// How long a durable filter queue is kept that nobody refers to any more.
    pub queue_ttl: Duration,
    /// How often cursors that moved are written out.
    pub checkpoint_interval: Duration,
    /// With [`Flush::Async`]: how often the log is synced all the same.
    pub async_flush_interval: Duration,
    /// How often the store looks for what is over its time: records past their retention, queues past `queue_ttl`.
    pub retention_interval: Duration,
    /// Largest record in bytes (topic, properties and payload together).
    pub record_bytes_max: u32,
}

impl Options {
    /// The defaults, for the data directory `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Options {
            dir: dir.into(),
            flush: Flush::Sync,
            shards: 1,
            retention: Retention::default(),
            streams: Vec::new(),
            segment_bytes: 256 << 20,
            tail_cache_bytes: 16 << 20,
            append_queue_bytes: 16 << 20,
            index_buffer_bytes: 32 << 20,
            index_cache_bytes: 16 << 20,
            live_queues_bytes: 64 << 20,
            queue_ttl: Duration::from_secs(60),
            checkpoint_interval: Duration::from_millis(100),
            async_flush_interval: Duration::from_millis(20),
            retention_interval: Duration::from_secs(1),
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

/// How a filter queue is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Keep {
    /// Its entries are as durable as the log: for consumers that come back.
    #[default]
    Durable,
    /// Its newest entries are in memory and nowhere else: for consumers that are lost with their connection. One that falls behind what is kept
    /// misses the rest ([`ReadBatch::skipped`]).
    Live,
}

/// What a new filter queue has from before it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum History {
    /// Nothing.
    #[default]
    None,
    /// Every matching record that is still in the log.
    Earliest,
    /// Every matching record stored at or after a time, in milliseconds since the Unix epoch.
    Since(i64),
}

/// A filter queue that should be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterRequest {
    /// The topic filter, which is the queue's name.
    pub filter: String,
    /// See [`Keep`].
    pub keep: Keep,
    /// See [`History`]; durable queues only.
    pub history: History,
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
    /// Records of this sequence and later ones come behind `end`; earlier ones do not. Of a queue that is derived from another it says
    /// nothing: it gets its records later.
    pub sequence: u64,
    /// Its entries are in memory only ([`Keep::Live`]).
    pub live: bool,
}

/// What to read.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    /// The queue.
    pub queue: QueueId,
    /// Offset to start at; one before the queue's first entry starts there.
    pub from: u64,
    /// Most records to return; at least one is.
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
    /// How many offsets from the one asked for up to `next` have no record any more: retention, or a live queue's bound, took them.
    pub skipped: u64,
    /// The queue's end when it was read (with `durable`, the end that was visible).
    pub end: u64,
}

/// What to read of the log itself.
#[derive(Clone, Debug)]
pub struct ScanRequest {
    /// Where to start, one for each shard; a shard that is not named begins at its first record.
    pub from: Vec<Position>,
    /// Records whose topic matches this filter; `None` is every record.
    pub filter: Option<String>,
    /// Stop after this many of them.
    pub records_max: usize,
    /// Look at no more than about this many bytes of the log.
    pub bytes_max: usize,
}

/// What a scan found.
#[derive(Clone, Debug, Default)]
pub struct ScanBatch {
    /// Records by their sequence.
    pub records: Vec<Record>,
    /// Where to go on, one for each shard.
    pub next: Vec<Position>,
    /// Whether those are the durable ends of the log.
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

/// The store's number for a cursor, by which it is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CursorId(pub u64);

/// A cursor as it was found or made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// See [`CursorId`].
    pub id: CursorId,
    /// Where it is.
    pub place: CursorPlace,
}

/// A cursor's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CursorPlace {
    /// Lowest offset not yet done.
    pub offset: u64,
    /// Sequence of the record of the last entry that is done: every entry up to and including it is. It outlives a queue
    /// that is derived again, whose offsets may differ when its rule changed in between.
    /// 0 when nothing is done yet.
    pub sequence: u64,
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
    /// What a broker keeps beside its sessions.
    Broker = 2,
    /// What groups of shared subscriptions have done.
    Groups = 3,
}

/// A page of documents: key and value.
pub type Documents = Vec<(String, Bytes)>;

/// When something is due for a document, in milliseconds since the Unix epoch: the store lists documents by it
/// ([`crate::Store::documents_due`]), and changes that in the same write as the document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// As it was said when the document was written last.
    pub was: Option<i64>,
    /// As it is from now on.
    pub is: Option<i64>,
}

/// An acknowledged append: one position for each record, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Positions of the records of the batch.
    pub positions: Vec<Position>,
    /// [`Record::sequence`] of the first of them; the others follow one by one.
    pub sequence: u64,
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
    /// Segments that retention deleted.
    pub deleted_segments: u64,
    /// Bytes of the log that went with them.
    pub deleted_bytes: u64,
    /// Retained messages that were written again so that they outlive their segment.
    pub retained_kept: u64,
    /// Index entries assigned.
    pub entries: u64,
    /// Bytes of index entries waiting for RocksDB.
    pub index_buffer_bytes: u64,
    /// Bytes of entries that live queues hold.
    pub live_queues_bytes: u64,
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

/// A shard of the log as it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardInfo {
    /// Its number.
    pub shard: u16,
    /// Bytes of its part of the log.
    pub log_bytes: u64,
    /// Its segments, the one that is appended to included.
    pub segments: u64,
    /// When its oldest record was written, in milliseconds since the Unix epoch; `None` while it has none.
    pub oldest_ms: Option<i64>,
    /// Bytes that a power cut could still take.
    pub undurable_bytes: u64,
}
