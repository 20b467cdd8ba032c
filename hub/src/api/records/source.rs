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
    /// Nothing before this position is read any more.
    next: Position,
}

enum Reader {
    /// The log, by topic filter.
    Log(String),
    /// A queue, from the entry of this offset on.
    Queue(QueueId, u64),
}

/// What one step found.
pub(super) struct Batch {
    /// In the log's order.
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
                let next = begin(store, from).await?;
                Ok(Source { reader: Reader::Log(text.clone()), next })
            }
            (None, Some(name)) => {
                let queue = named(store, name)?.ok_or_else(|| {
                    Problem::not_found(format!("there is no queue `{name}`"))
                        .hint("/api/v1/queues lists them")
                })?;
                let next = begin(store, from).await?;
                let (offset, _) = first_entry(store, queue.id, next).await?;
                Ok(Source { reader: Reader::Queue(queue.id, offset), next })
            }
            _ => {
                Err(Problem::bad_request("which records? neither or both of `filter` and `queue` were given")
                    .hint("ask with one of them: ?filter=vehicles/%2B/telemetry or ?queue=rule/overheat"))
            }
        }
    }

    /// The position to go on from after everything that was read.
    pub(super) fn next(&self) -> Position {
        self.next
    }

    /// The next records.
    pub(super) async fn step(&mut self, store: &Store) -> Result<Batch, StoreError> {
        match &mut self.reader {
            // So that waiting costs one comparison.
            Reader::Log(_) if self.next >= store.durable_end() => {
                Ok(Batch { records: Vec::new(), at_end: true })
            }
            Reader::Log(filter) => {
                let request = ScanRequest {
                    from: self.next,
                    filter: filter.clone(),
                    records_max: STEP_RECORDS,
                    bytes_max: STEP_BYTES,
                };
                let scanned = store.scan(request).await?;
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
                let records: Vec<Record> = read.filter(|record| record.position >= self.next).collect();
                self.next = records.last().map_or(self.next, after);
                Ok(Batch { records, at_end })
            }
        }
    }
}

/// The position after a record.
pub(super) fn after(record: &Record) -> Position {
    Position::new(record.position.shard(), record.position.offset() + u64::from(record.size))
}

/// Where to begin, as a position.
async fn begin(store: &Store, from: From) -> Result<Position, Problem> {
    match from {
        From::Earliest => Ok(Position::ZERO),
        From::Latest => Ok(store.durable_end()),
        From::Time(time_ms) => Ok(store.position_at(time_ms).await?),
        From::Position(position) => {
            let end = store.durable_end();
            if position > end {
                let error = format!("from: position {position} is past the log's end, {end}");
                return Err(Problem::bad_request(error)
                    .hint("take a position that `tidemill tail` has printed, or from=latest"));
            }
            Ok(position)
        }
    }
}

/// The queue of a name.
fn named(store: &Store, name: &str) -> Result<Option<QueueInfo>, StoreError> {
    let (mut after, mut seen) = (None, 0);
    while seen < SEARCHED_MAX {
        let page = store.queues(after, PAGE)?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        seen += page.len();
        if let Some(found) = page.into_iter().find(|queue| queue.name == name) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The first entry of a queue at or after a position, as its offset and its record's position; without one, the offset
/// that such an entry will have. Positions grow with offsets, so a few reads find it among any number.
pub(in crate::api) async fn first_entry(
    store: &Store,
    queue: QueueId,
    position: Position,
) -> Result<(u64, Option<Position>), StoreError> {
    let QueueInfo { first, end, .. } = store.queue(queue)?;
    let (mut low, mut high, mut found) = (first, end, None);
    while low < high {
        let middle = low + (high - low) / 2;
        let request = ReadRequest { queue, from: middle, records_max: 1, bytes_max: 1, durable: true };
        match store.read(request).await?.records.first() {
            Some((offset, record)) if record.position < position => low = offset + 1,
            Some((offset, record)) => {
                found = Some((*offset, Some(record.position)));
                high = middle;
            }
            // What is there is not durable yet.
            None => high = middle,
        }
    }
    Ok(found.unwrap_or((low, None)))
}
