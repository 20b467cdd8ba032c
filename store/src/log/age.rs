//! How old the records of a segment are, without reading it each time.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::format::Decoded;
use super::scan::{Scanner, Step};
use super::segment::Segment;
use crate::Result;

/// Now, in milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as i64)
}

/// As one of so many scans: a record is read, not a megabyte.
const SMALL_READS: usize = 64;

/// The first record of a segment, if it has one.
pub(super) fn first_record(shard: u16, segments: &[Arc<Segment>], index: usize) -> Result<Option<Decoded>> {
    let Some(segment) = segments.get(index) else { return Ok(None) };
    let mut scanner = Scanner::new(shard, segments, segment.first).among(SMALL_READS);
    Ok(match scanner.step()? {
        Step::Record(decoded) => Some(*decoded),
        _ => None,
    })
}

/// When the first record of a segment was stored, if it has one.
pub(crate) fn oldest_ms(shard: u16, segments: &[Arc<Segment>], index: usize) -> Result<Option<i64>> {
    let Some(segment) = segments.get(index) else { return Ok(None) };
    if let Some(known) = segment.oldest_ms.get() {
        return Ok(Some(*known));
    }
    let first = first_record(shard, segments, index)?;
    Ok(first.map(|first| *segment.oldest_ms.get_or_init(|| first.stored_ms)))
}

/// A time that no record of a sealed segment is newer than. Time only grows along the log, so that the next segment's first record tells it;
/// where there is none yet the segment is read, once.
pub(crate) fn newest_ms(shard: u16, segments: &[Arc<Segment>], index: usize) -> Result<i64> {
    let Some(segment) = segments.get(index) else { return Ok(i64::MAX) };
    if let Some(known) = segment.newest_ms.get() {
        return Ok(*known);
    }
    let newest = match oldest_ms(shard, segments, index + 1)? {
        Some(next) => next,
        None => {
            let mut last = i64::MIN;
            let mut scanner = Scanner::new(shard, segments, segment.first);
            while let Step::Record(decoded) = scanner.step()? {
                last = decoded.stored_ms;
            }
            last
        }
    };
    Ok(*segment.newest_ms.get_or_init(|| newest))
}
