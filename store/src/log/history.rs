//! The log read from any position on, without a queue: what `tail` and `explain` need.

use std::sync::Arc;

use super::Log;
use super::age::first_record;
use super::format::SEGMENT_HEADER_BYTES;
use super::merge::Merge;
use super::scan::{Scanner, Step};
use super::segment::Segment;
use super::shard::Shard;
use crate::queue::filter;
use crate::{Position, Record, Result, ScanBatch, ScanRequest, StoreError};

/// A shard while it is scanned.
struct Part {
    shard: u16,
    durable_end: u64,
    segments: Vec<Arc<Segment>>,
    from: u64,
}

impl Log {
    /// See [`crate::Store::scan`]. Blocks.
    pub(crate) fn scan(&self, request: &ScanRequest) -> Result<ScanBatch> {
        if let Some(unknown) = request.from.iter().find(|from| self.shard(from.shard()).is_none()) {
            return Err(StoreError::NoRecord(*unknown));
        }
        let parts: Vec<Part> = self.shards().iter().map(|shard| Part::of(shard, &request.from)).collect();
        let walks = parts.iter().map(|part| (part.shard, &part.segments[..], part.from, part.durable_end));
        let mut merge = Merge::new(walks.collect());
        let mut records = Vec::new();
        let mut looked_at = 0;
        while records.len() < request.records_max && looked_at < request.bytes_max as u64 {
            let next = merge.next(|shard, step| {
                let part = parts.get(usize::from(shard));
                part.map_or(Ok(()), |part| part.ended(&request.from, step))
            })?;
            let Some(decoded) = next else { break };
            let record = decoded.record;
            looked_at += u64::from(record.size);
            let matches = |filter: &String| filter::matches(filter, &record.topic);
            if !record.kept && request.filter.as_ref().is_none_or(matches) {
                records.push(record);
            }
        }
        let next: Vec<Position> = merge.places().collect();
        let at_end = next.iter().zip(&parts).all(|(next, part)| next.offset() >= part.durable_end);
        Ok(ScanBatch { records, next, at_end })
    }

    /// See [`crate::Store::position_at`]. Blocks.
    pub(crate) fn position_at(&self, time_ms: i64) -> Result<Vec<Position>> {
        self.shards().iter().map(|shard| shard.position_at(time_ms)).collect()
    }

    /// See [`crate::Store::record_at`]. Blocks.
    pub(crate) fn record_at(&self, position: Position) -> Result<Option<Record>> {
        let Some(shard) = self.shard(position.shard()) else { return Ok(None) };
        let segments = shard.segments.read().clone();
        if segments.first().is_some_and(|first| position.offset() < first.first) {
            return Err(StoreError::Gone(position));
        }
        if position.offset() >= shard.end() {
            return Ok(None);
        }
        let mut scanner = Scanner::new(shard.number, &segments, position.offset());
        Ok(match scanner.step()? {
            Step::Record(decoded) if decoded.record.position == position => Some(decoded.record),
            _ => None,
        })
    }
}

impl Part {
    fn of(shard: &Shard, from: &[Position]) -> Self {
        // In this order: a segment that is begun in between then lies behind the end that is looked for.
        let durable_end = shard.durable_end();
        let segments = shard.segments.read().clone();
        let first = segments.first().map_or(0, |segment| segment.first) + SEGMENT_HEADER_BYTES;
        let named = from.iter().find(|from| from.shard() == shard.number);
        let from = named.map_or(first, |from| from.offset().max(first));
        Part { shard: shard.number, durable_end, segments, from }
    }

    /// What it means that the reading ended there.
    fn ended(&self, from: &[Position], step: Step) -> Result<()> {
        let (at, what) = match step {
            // The header of a segment that has no record yet is before the durable end.
            Step::End { at } if at >= self.durable_end => return Ok(()),
            Step::End { at } => (at, "nothing was written here, and the log goes on".into()),
            Step::Bad { at, what } => (at, what),
            Step::Record(_) => return Ok(()),
        };
        let position = Position::new(self.shard, at);
        if from.contains(&position) {
            return Err(StoreError::NoRecord(position));
        }
        Err(StoreError::Corrupt { position, what })
    }
}

impl Shard {
    fn position_at(&self, time_ms: i64) -> Result<Position> {
        let durable_end = self.durable_end();
        let end = self.position(durable_end);
        let segments = self.segments.read().clone();
        // Time only grows along the log: the record is in the last segment that begins before it, or begins the next one.
        let mut low = 0;
        let mut high = segments.len();
        while low < high {
            let middle = low + (high - low) / 2;
            match first_record(self.number, &segments, middle)? {
                Some(record) if record.stored_ms < time_ms => low = middle + 1,
                _ => high = middle,
            }
        }
        let start = segments.get(low.saturating_sub(1)).map_or(0, |segment| segment.first);
        let mut scanner = Scanner::new(self.number, &segments, start);
        loop {
            match scanner.step()? {
                Step::Record(decoded) if decoded.record.position >= end => return Ok(end),
                Step::Record(decoded) if decoded.stored_ms >= time_ms => return Ok(decoded.record.position),
                Step::Record(_) => {}
                Step::End { .. } => return Ok(end),
                Step::Bad { at, .. } if at >= durable_end => return Ok(end),
                Step::Bad { at, what } => {
                    return Err(StoreError::Corrupt { position: self.position(at), what });
                }
            }
        }
    }
}
