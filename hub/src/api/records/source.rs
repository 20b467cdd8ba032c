//! [`Source`]: where the records of an answer are read: the log itself, or a queue.

use tidemill_store::{
    Position, QueueId, QueueInfo, ReadRequest, Record, ScanRequest, Store, StoreError, filter,
};

use super::params::{From, Params};
use crate::api::problem::Problem;

/// Most records of one step, and most bytes: of log looked at, or of records read from a queue.
const STEP_RECORDS: usize = 1024;
const STEP_BYTES: usize = 4 << 20;
/// Queues looked at in one step, and in all, when one is looked for by its name.
const PAGE: usize = 512;
const SEARCHED_MAX: usize = 65_536;

/// Where records are read, and how far that has come.
pub(super) struct Source {
    reader: Reader,
    /// By shard: nothing before these positions is read any more.
    next: Vec<Position>,
    /// Nor anything before this sequence.
    sequence: u64,
}

enum Reader {
    /// The log, by topic filter.
    Log(String),
    /// A queue, from the entry of this offset on.
    Queue(QueueId, u64),
}

/// What one step found.
pub(super) struct Batch {
    /// By their sequence.
    pub(super) records: Vec<Record>,
    /// Whether that was everything there is so far.
    pub(super) at_end: bool,
}

impl Source {
    /// Finds what was asked for, and where to begin.
    pub(super) async fn find(store: &Store, params: &Params) -> Result<Source, Problem> {
        let from = params.from()?;
        match (&params.filter, &params.queue) {
            (Some(text), None) => {
                filter::check(text).map_err(|what| StoreError::BadFilter { filter: text.clone(), what })?;
                let (next, sequence) = begin(store, from).await?;
                Ok(Source { reader: Reader::Log(text.clone()), next, sequence })
            }
            (None, Some(name)) => {
                let queue = named(store, name).await?.ok_or_else(|| {
                    Problem::not_found(format!("there is no queue `{name}`"))
                        .hint("/api/v1/queues lists them")
                })?;
                let (next, sequence) = begin(store, from).await?;
                let wanted = |record: &Record| record.sequence >= sequence && !is_past(&next, record);
                let (offset, _) = first_entry(store, queue.id, wanted).await?;
                Ok(Source { reader: Reader::Queue(queue.id, offset), next, sequence })
            }
            _ => {
                Err(Problem::bad_request("which records? neither or both of `filter` and `queue` were given")
                    .hint("ask with one of them: ?filter=vehicles/%2B/telemetry or ?queue=rule/overheat"))
            }
        }
    }

    /// The positions to go on from after everything that was read.
    pub(super) fn next(&self) -> &[Position] {
        &self.next
    }

    /// The next records.
    pub(super) async fn step(&mut self, store: &Store) -> Result<Batch, StoreError> {
        match &mut self.reader {
            // So that waiting costs a comparison for each shard.
            Reader::Log(_) if self.next.iter().zip(store.durable_ends()).all(|(next, end)| *next >= end) => {
                Ok(Batch { records: Vec::new(), at_end: true })
            }
            Reader::Log(filter) => {
                let request = ScanRequest {
                    from: self.next.clone(),
                    filter: Some(filter.clone()),
                    records_max: STEP_RECORDS,
                    bytes_max: STEP_BYTES,
                };
                let mut scanned = store.scan(request).await?;
                scanned.records.retain(|record| record.sequence >= self.sequence);
                self.next = scanned.next;
                Ok(Batch { records: scanned.records, at_end: scanned.at_end })
            }
            Reader::Queue(queue, offset) => {
                let request = ReadRequest {
                    queue: *queue,
                    from: *offset,
                    records_max: STEP_RECORDS,
                    bytes_max: STEP_BYTES,
                    durable: true,
                };
                let read = store.read(request).await?;
                *offset = read.next;
                let at_end = read.records.is_empty();
                // A rule's queue may get records later that were stored before the place to begin.
                let read = read.records.into_iter().map(|(_, record)| record);
                let (next, sequence) = (&mut self.next, self.sequence);
                let wanted = read.filter(|record| record.sequence >= sequence && !is_past(next, record));
                let records: Vec<Record> = wanted.collect();
                records.iter().for_each(|record| pass(next, record));
                Ok(Batch { records, at_end })
            }
        }
    }
}

/// Moves the positions to go on from past a record.
pub(super) fn pass(next: &mut [Position], record: &Record) {
    let at = record.position;
    if let Some(next) = next.iter_mut().find(|next| next.shard() == at.shard()) {
        *next = Position::new(at.shard(), at.offset() + u64::from(record.size));
    }
}

/// Whether the positions to go on from are past a record.
fn is_past(next: &[Position], record: &Record) -> bool {
    next.iter().any(|next| next.shard() == record.position.shard() && record.position < *next)
}

/// Positions as they are written outside: `0-0000000004d2`, or several joined by commas.
pub(super) fn written(positions: &[Position]) -> String {
    positions.iter().map(Position::to_string).collect::<Vec<_>>().join(",")
}

/// Where to begin: a position for each shard, and the first sequence.
async fn begin(store: &Store, from: From) -> Result<(Vec<Position>, u64), Problem> {
    match from {
        From::Earliest => {
            let ends = store.durable_ends();
            Ok((ends.into_iter().map(|end| Position::new(end.shard(), 0)).collect(), 0))
        }
        From::Latest => Ok((store.durable_ends(), 0)),
        From::Time(time_ms) => Ok((store.position_at(time_ms).await?, 0)),
        From::Positions(positions) => complete(store, positions).await,
    }
}

/// The named positions, and where the shards begin that are not named.
async fn complete(store: &Store, named: Vec<Position>) -> Result<(Vec<Position>, u64), Problem> {
    let ends = store.durable_ends();
    for position in &named {
        let end = ends.get(usize::from(position.shard()));
        if end.is_none_or(|end| position > end) {
            let error = format!("from: position {position} is past the log's end, {}", written(&ends));
            return Err(Problem::bad_request(error)
                .hint("take a position that `tidemill tail` has printed, or from=latest"));
        }
        if named.iter().filter(|other| other.shard() == position.shard()).count() > 1 {
            return Err(Problem::bad_request(format!("from: shard {} is named twice", position.shard())));
        }
    }
    let (mut next, mut sequence) = (ends, 0);
    if let (Some(first), true) = (named.first(), named.len() < next.len())
        && let Some(record) = store.record_at(*first).await?
    {
        // What was stored from that record on, in the other shards as well.
        next = store.position_at(record.time_ms).await?;
        sequence = record.sequence;
    }
    for position in named {
        if let Some(next) = next.get_mut(usize::from(position.shard())) {
            *next = position;
        }
    }
    Ok((next, sequence))
}

/// The queue of a name.
async fn named(store: &Store, name: &str) -> Result<Option<QueueInfo>, StoreError> {
    let (mut after, mut seen) = (None, 0);
    while seen < SEARCHED_MAX {
        let page = store.queues(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        seen += page.len();
        if let Some(found) = page.into_iter().find(|queue| queue.name == name) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The first entry of a queue from which on its records are `wanted`, as its offset and its record's sequence; without one, the
/// offset that such an entry will have. Sequences grow with offsets, so a few reads find it among any number.
pub(in crate::api) async fn first_entry(
    store: &Store,
    queue: QueueId,
    wanted: impl Fn(&Record) -> bool,
) -> Result<(u64, Option<u64>), StoreError> {
    let QueueInfo { first, end, .. } = store.queue(queue).await?;
    let (mut low, mut high, mut found) = (first, end, None);
    while low < high {
        let middle = low + (high - low) / 2;
        let request = ReadRequest { queue, from: middle, records_max: 1, bytes_max: 1, durable: true };
        match store.read(request).await?.records.first() {
            Some((offset, record)) if !wanted(record) => low = offset + 1,
            Some((offset, record)) => {
                found = Some((*offset, Some(record.sequence)));
                high = middle;
            }
            // What is there is not durable yet.
            None => high = middle,
        }
    }
    Ok(found.unwrap_or((low, None)))
}
