//! The log read from any position on, without a queue: what `tail` and `explain` need.

use std::sync::Arc;

use super::format::SEGMENT_HEADER_BYTES;
use super::scan::{Scanner, Step};
use super::segment::Segment;
use super::{Log, SHARD};
use crate::queue::filter;
use crate::{Position, Record, Result, ScanBatch, ScanRequest, StoreError};

impl Log {
    /// See [`crate::Store::scan`]. Blocks.
    pub(crate) fn scan(&self, request: &ScanRequest) -> Result<ScanBatch> {
        // In this order: a segment that is begun in between then lies behind the end that is looked for.
        let durable_end = self.durable_end();
        let segments = self.segments.read().clone();
        let first = segments.first().map_or(0, |segment| segment.first) + SEGMENT_HEADER_BYTES;
        let from = if request.from == Position::ZERO { first } else { request.from.offset() };
        let mut batch = ScanBatch { next: Position::new(SHARD, from), ..ScanBatch::default() };
        let mut scanner = Scanner::new(SHARD, &segments, from);
        loop {
            batch.at_end = batch.next >= durable_end;
            let looked_at = batch.next.offset().saturating_sub(from);
            if batch.at_end
                || batch.records.len() >= request.records_max
                || looked_at >= request.bytes_max as u64
            {
                return Ok(batch);
            }
            match scanner.step()? {
                Step::Record(decoded) => {
                    let record = decoded.record;
                    batch.next = Position::new(SHARD, record.position.offset() + u64::from(record.size));
                    if filter::matches(&request.filter, &record.topic) {
                        batch.records.push(record);
                    }
                }
                // The header of a segment that has no record yet is before the durable end.
                Step::End { at } if at >= durable_end.offset() => batch.next = durable_end,
                Step::Bad { at, .. } | Step::End { at } if at == request.from.offset() => {
                    return Err(StoreError::NoRecord(request.from));
                }
                Step::Bad { at, what } => {
                    return Err(StoreError::Corrupt { position: Position::new(SHARD, at), what });
                }
                Step::End { at } => {
                    let what = "nothing was written here, and the log goes on".into();
                    return Err(StoreError::Corrupt { position: Position::new(SHARD, at), what });
                }
            }
        }
    }

    /// See [`crate::Store::position_at`]. Blocks.
    pub(crate) fn position_at(&self, time_ms: i64) -> Result<Position> {
        let end = self.durable_end();
        let segments = self.segments.read().clone();
        // Time only grows along the log: the record is in the last segment that begins before it, or begins the next one.
        let mut low = 0;
        let mut high = segments.len();
        while low < high {
            let middle = low + (high - low) / 2;
            match first_record(&segments, middle)? {
                Some(record) if record.time_ms < time_ms => low = middle + 1,
                _ => high = middle,
            }
        }
        let start = segments.get(low.saturating_sub(1)).map_or(0, |segment| segment.first);
        let mut scanner = Scanner::new(SHARD, &segments, start);
        loop {
            match scanner.step()? {
                Step::Record(decoded) if decoded.record.position >= end => return Ok(end),
                Step::Record(decoded) if decoded.record.time_ms >= time_ms => {
                    return Ok(decoded.record.position);
                }
                Step::Record(_) => {}
                Step::End { .. } => return Ok(end),
                Step::Bad { at, .. } if at >= end.offset() => return Ok(end),
                Step::Bad { at, what } => {
                    return Err(StoreError::Corrupt { position: Position::new(SHARD, at), what });
                }
            }
        }
    }

    /// See [`crate::Store::record_at`]. Blocks.
    pub(crate) fn record_at(&self, position: Position) -> Result<Option<Record>> {
        let segments = self.segments.read().clone();
        let first = segments.first().map_or(0, |segment| segment.first);
        if position.shard() != SHARD || position.offset() < first || position >= self.end() {
            return Ok(None);
        }
        let mut scanner = Scanner::new(SHARD, &segments, position.offset());
        Ok(match scanner.step()? {
            Step::Record(decoded) if decoded.record.position == position => Some(decoded.record),
            _ => None,
        })
    }
}

/// The first record of a segment, if it has one.
fn first_record(segments: &[Arc<Segment>], index: usize) -> Result<Option<Record>> {
    let Some(segment) = segments.get(index) else { return Ok(None) };
    let mut scanner = Scanner::new(SHARD, segments, segment.first);
    Ok(match scanner.step()? {
        Step::Record(decoded) => Some(decoded.record),
        _ => None,
    })
}
