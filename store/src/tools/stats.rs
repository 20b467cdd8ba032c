//! [`stats`]: how much there is of everything.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::Path;

use foldhash::HashMap;

use super::Findings;
use super::data::{Chain, Data};
use crate::log::format::Decoded;
use crate::log::scan::{Scanner, Step};
use crate::log::segment::io_error;
use crate::meta::catalogue::Kind;
use crate::{CursorKey, Position, QueueId, Result};

/// What [`stats`] counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Shards of the log, by number.
    pub shards: Vec<ShardStats>,
    /// Filter queues.
    pub filters: QueueCount,
    /// Union queues.
    pub unions: QueueCount,
    /// Derived queues.
    pub derived: QueueCount,
    /// Bytes of the index's files.
    pub index_bytes: u64,
    /// Bytes of the log that are not in the index yet: the next start enters them into their queues.
    pub unindexed_bytes: u64,
    /// Bytes of the meta database's files.
    pub meta_bytes: u64,
    /// Retained messages.
    pub retained: u64,
    /// Cursors.
    pub cursors: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// When the oldest record was stored, in milliseconds since the Unix epoch.
    pub oldest_ms: Option<i64>,
    /// The cursors with the largest lag, largest first.
    pub lags: Vec<Lag>,
    /// What is not as usual.
    pub notes: Vec<String>,
}

/// A shard of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// Its number.
    pub shard: u16,
    /// The stream that it belongs to; empty for the default one.
    pub stream: String,
    /// Its segments.
    pub segments: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// The first record.
    pub first: Option<Position>,
    /// The last record.
    pub last: Option<Position>,
    /// When the first record was stored, in milliseconds since the Unix epoch.
    pub oldest_ms: Option<i64>,
    /// When the last record was stored, in milliseconds since the Unix epoch.
    pub newest_ms: Option<i64>,
}

/// Queues of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCount {
    /// How many there are.
    pub queues: u64,
    /// Entries of all of them that are in the index and whose records are in the log.
    pub entries: u64,
}

/// A cursor that is behind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lag {
    /// Entries from the cursor to the end of its queue in the index.
    pub entries: u64,
    /// Whose cursor it is, and in which queue.
    pub cursor: CursorKey,
    /// The queue's name.
    pub queue: String,
}

/// Counts everything in a data directory; of the cursors, the `top` with the largest lag are named. Reads of each shard its first and last
/// segment.
///
/// # Errors
/// The directory is none, is in use, or something in it cannot be read.
pub fn stats(dir: &Path, top: usize) -> Result<StoreStats> {
    let mut findings = Findings::new(0);
    let data = Data::open(dir, &mut findings)?;
    let index = data.index.as_ref().map_err(Clone::clone)?;
    let cut = index.cut()?;
    let mut streams: HashMap<u16, String> = HashMap::default();
    for (name, shards) in data.meta.streams()? {
        streams.extend(shards.into_iter().map(|shard| (shard, name.clone())));
    }
    let mut found = StoreStats::default();
    for chain in &data.chains {
        let stream = streams.remove(&chain.shard).unwrap_or_default();
        let (shard, end) = shard_stats(chain, stream)?;
        found.unindexed_bytes += end.saturating_sub(cut.end(chain.shard).max(chain.start()));
        found.shards.push(shard);
    }
    found.oldest_ms = found.shards.iter().filter_map(|shard| shard.oldest_ms).min();

    // By queue: its kind, where its entries begin and end.
    let mut queues: HashMap<QueueId, (Kind, u64, u64)> = HashMap::default();
    data.meta.catalogue(|entry| {
        queues.insert(entry.id, (entry.kind, u64::MAX, entry.base));
        Ok(())
    })?;
    index.ends(|queue, end| {
        if let Some(found) = queues.get_mut(&queue) {
            found.2 = end;
        }
    })?;
    let starts = data.starts();
    let is_there =
        |at: Position| starts.get(usize::from(at.shard())).is_some_and(|start| at.offset() >= *start);
    index.firsts(
        |pointer| is_there(pointer.position),
        |queue, first| {
            if let Some(found) = queues.get_mut(&queue) {
                found.1 = first;
            }
        },
    )?;
    for (kind, first, end) in queues.values() {
        let count = match kind {
            Kind::Filter => &mut found.filters,
            Kind::Union => &mut found.unions,
            Kind::Derived => &mut found.derived,
        };
        count.queues += 1;
        count.entries += end.saturating_sub(*first);
    }

    let mut lags: BinaryHeap<Reverse<(u64, CursorKey)>> = BinaryHeap::new();
    data.meta.every_cursor(|key, place| {
        found.cursors += 1;
        let Some((_, _, end)) = queues.get(&key.queue) else { return };
        let behind = end.saturating_sub(place.offset);
        if behind == 0 {
            return;
        }
        lags.push(Reverse((behind, key)));
        if lags.len() > top {
            lags.pop();
        }
    })?;
    for Reverse((entries, cursor)) in lags.into_sorted_vec() {
        let queue = data.meta.queue(cursor.queue)?.map(|entry| entry.name).unwrap_or_default();
        found.lags.push(Lag { entries, cursor, queue });
    }
    data.meta.every_retained(|_, _| found.retained += 1)?;
    found.dead_letters = data.meta.every_dead_letter()?;
    found.index_bytes = bytes_of(&data.directory.index_path())?;
    found.meta_bytes = bytes_of(&data.directory.part("meta"))?;
    let problems = findings.problems.len() as u64 + findings.count;
    if problems > 0 {
        found
            .notes
            .push("segments of the log are missing or damaged: see `tidemill store verify`".to_owned());
    }
    found.notes.extend(findings.notes);
    Ok(found)
}

/// A shard, and where its last record ends.
fn shard_stats(chain: &Chain, stream: String) -> Result<(ShardStats, u64)> {
    let first = chain.segments.iter().find_map(|segment| {
        let mut scanner = Scanner::new(chain.shard, std::slice::from_ref(segment), segment.first);
        match scanner.step() {
            Ok(Step::Record(decoded)) => Some(Ok(decoded)),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        }
    });
    let first = first.transpose()?;
    let mut last: Option<Box<Decoded>> = None;
    for segment in chain.segments.iter().rev() {
        let mut scanner = Scanner::new(chain.shard, std::slice::from_ref(segment), segment.first);
        while let Step::Record(decoded) = scanner.step()? {
            last = Some(decoded);
        }
        if last.is_some() {
            break;
        }
    }
    let bytes = chain.segments.iter().map(|segment| segment.file_bytes()).sum::<Result<u64>>()?;
    let end = last
        .as_ref()
        .map_or(chain.start(), |last| last.record.position.offset() + u64::from(last.record.size));
    let shard = ShardStats {
        shard: chain.shard,
        stream,
        segments: chain.segments.len() as u64,
        bytes,
        first: first.as_ref().map(|first| first.record.position),
        last: last.as_ref().map(|last| last.record.position),
        oldest_ms: first.map(|first| first.stored_ms),
        newest_ms: last.map(|last| last.stored_ms),
    };
    Ok((shard, end))
}

/// Bytes of the files in a directory.
fn bytes_of(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir).map_err(|e| io_error("list", dir, &e))? {
        let found = entry.and_then(|entry| entry.metadata()).map_err(|e| io_error("list", dir, &e))?;
        bytes += if found.is_file() { found.len() } else { 0 };
    }
    Ok(bytes)
}
