//! [`dump`]: the record at a position.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Findings;
use super::data::{Chain, Data};
use crate::log::format::Decoded;
use crate::log::scan::{Scanner, Step, good_after};
use crate::log::segment::Segment;
use crate::meta::catalogue::{Entry, Kind};
use crate::queue::index::Index;
use crate::{Position, QueueId, Record, Result, StoreError, filter};

/// What is at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dump {
    /// A record.
    Record(Box<Dumped>),
    /// No record begins there.
    Nothing {
        /// The last record of the shard before it.
        before: Option<Position>,
        /// The first record of the shard after it.
        after: Option<Position>,
    },
}

/// A record, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dumped {
    /// The record.
    pub record: Record,
    /// When it was written, in milliseconds since the Unix epoch; for a retained message that was written again later than
    /// [`Record::time_ms`].
    pub written_ms: i64,
    /// Everything of the shard before this position was on disk when it was written.
    pub durable_before: Position,
    /// The format of its segment.
    pub format: u32,
    /// The file it is in.
    pub segment: PathBuf,
    /// Bytes of that file before it.
    pub segment_offset: u64,
    /// Queues that have it, or will once the index has it.
    pub queues: Vec<InQueue>,
}

/// A queue that has a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InQueue {
    /// The queue.
    pub id: QueueId,
    /// Its name.
    pub name: String,
    /// The entry's offset; nothing if the index does not have it.
    pub offset: Option<u64>,
}

/// Finds the record at a position and the queues that have it.
///
/// # Errors
/// The directory is none, is in use, has no such shard, or cannot be read.
pub fn dump(dir: &Path, position: Position) -> Result<Dump> {
    let data = Data::open(dir, &mut Findings::new(0))?;
    let chain = data.chains.get(usize::from(position.shard())).ok_or(StoreError::NoRecord(position))?;
    let Some((decoded, segment)) = record_at(chain, position.offset())? else {
        return nearest(chain, position.offset());
    };
    let Decoded { record, stored_ms, durable_before } = decoded;
    let mut queues = Vec::new();
    data.meta.catalogue(|entry| {
        if let Some(queue) = in_queue(&data, entry, &record)? {
            queues.push(queue);
        }
        Ok(())
    })?;
    Ok(Dump::Record(Box::new(Dumped {
        written_ms: stored_ms,
        durable_before: Position::new(position.shard(), durable_before),
        format: segment.version,
        segment: segment.path.clone(),
        segment_offset: position.offset() - segment.first,
        queues,
        record,
    })))
}

/// The segment that has an offset, and its place in the chain.
fn segment_of(chain: &Chain, offset: u64) -> Option<(usize, &Arc<Segment>)> {
    let place = chain.segments.partition_point(|segment| segment.first <= offset).checked_sub(1)?;
    chain.segments.get(place).map(|segment| (place, segment))
}

fn record_at(chain: &Chain, offset: u64) -> Result<Option<(Decoded, &Arc<Segment>)>> {
    let Some((_, segment)) = segment_of(chain, offset) else { return Ok(None) };
    // A checksum covers the position as well: what is good here was written here.
    let mut scanner = Scanner::new(chain.shard, std::slice::from_ref(segment), offset);
    Ok(match scanner.step()? {
        Step::Record(decoded) if decoded.record.position.offset() == offset => Some((*decoded, segment)),
        _ => None,
    })
}

/// The records around an offset where none begins.
fn nearest(chain: &Chain, offset: u64) -> Result<Dump> {
    let place = segment_of(chain, offset).map_or(0, |(place, _)| place);
    let (mut before, mut after) = (None, None);
    // Backwards until there is a record before it, then forwards until there is one after it.
    let earlier = chain.segments.iter().take(place + 1).rev();
    for segment in earlier.chain(chain.segments.iter().skip(place + 1)) {
        let is_later = segment.first > offset;
        if (before.is_some() && !is_later) || after.is_some() {
            continue;
        }
        around(chain.shard, segment, offset, &mut before, &mut after)?;
    }
    Ok(Dump::Nothing { before, after })
}

fn around(
    shard: u16,
    segment: &Arc<Segment>,
    offset: u64,
    before: &mut Option<Position>,
    after: &mut Option<Position>,
) -> Result<()> {
    let mut scanner = Scanner::new(shard, std::slice::from_ref(segment), segment.first);
    loop {
        match scanner.step()? {
            Step::Record(decoded) if decoded.record.position.offset() < offset => {
                *before = (*before).max(Some(decoded.record.position));
            }
            Step::Record(decoded) => {
                after.get_or_insert(decoded.record.position);
                return Ok(());
            }
            Step::Bad { at, .. } => match good_after(shard, segment, at, |_| true)? {
                Some(good) => scanner = Scanner::new(shard, std::slice::from_ref(segment), good),
                None => return Ok(()),
            },
            Step::End { .. } => return Ok(()),
        }
    }
}

/// The queue, if it has the record or should.
fn in_queue(data: &Data, entry: Entry, record: &Record) -> Result<Option<InQueue>> {
    let matching = || entry.routes.iter().filter(|(filter, _)| filter::matches(filter, &record.topic));
    let entered = !record.kept && matching().any(|(_, start)| record.sequence >= *start);
    // Older entries may be history, or of filters that a union had.
    let may_have = entry.kind != Kind::Filter || (!record.kept && matching().next().is_some());
    if !may_have {
        return Ok(None);
    }
    let offset = match &data.index {
        Ok(index) => find(data, index, (entry.id, entry.base), record)?,
        Err(_) => None,
    };
    Ok((entered || offset.is_some()).then_some(InQueue { id: entry.id, name: entry.name, offset }))
}

/// The offset of a record in a queue, whose entries are in the order of their records' sequences.
fn find(data: &Data, index: &Index, (queue, base): (QueueId, u64), record: &Record) -> Result<Option<u64>> {
    let mut low = 0;
    // Without a row, there can be history, which ends where the others would begin.
    let mut high = index.end(queue)?.unwrap_or(base);
    while low < high {
        let middle = low + (high - low) / 2;
        let Some((offset, pointer)) = index.entries(queue, middle, 1)?.pop() else {
            high = middle;
            continue;
        };
        if pointer.position == record.position {
            return Ok(Some(offset));
        }
        let at = pointer.position;
        let sequence = match data.chains.get(usize::from(at.shard())) {
            Some(chain) if at.offset() >= chain.start() => {
                record_at(chain, at.offset())?.map(|(found, _)| found.sequence())
            }
            // Its record is gone: it was before.
            _ => Some(0),
        };
        match sequence {
            Some(sequence) if sequence < record.sequence => low = offset + 1,
            Some(_) => high = middle,
            // Its record cannot be read: this one is not found either.
            None => return Ok(None),
        }
    }
    Ok(None)
}
