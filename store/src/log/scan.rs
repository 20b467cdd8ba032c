//! [`Scanner`]: reads the log from a position on, record by record, and stops at the first that is not good.

use std::sync::Arc;

use bytes::Bytes;

use super::format::{self, Decoded, SEGMENT_HEADER_BYTES};
use super::segment::Segment;
use crate::{Position, Result};

/// Bytes read at a time.
const WINDOW_BYTES: usize = 1 << 20;
/// The same where many shards are read side by side.
const WINDOW_BYTES_MIN: usize = 64 << 10;

/// What a scan met.
#[derive(Debug)]
pub(crate) enum Step {
    /// A good record.
    Record(Box<Decoded>),
    /// The end: nothing was written from here on.
    End {
        /// Offset of the end.
        at: u64,
    },
    /// Something that is not a record.
    Bad {
        /// Offset where it begins.
        at: u64,
        /// Why it is not.
        what: String,
    },
}

/// A walk over segments, which must be sorted and adjoin.
pub(crate) struct Scanner<'a> {
    shard: u16,
    segments: &'a [Arc<Segment>],
    index: usize,
    at: u64,
    window: Bytes,
    window_at: u64,
    window_bytes: usize,
    /// Bytes of the file of segment `index`.
    file_bytes: Option<u64>,
}

impl<'a> Scanner<'a> {
    /// Starts at `from`, the offset of a record, or of the end.
    pub(crate) fn new(shard: u16, segments: &'a [Arc<Segment>], from: u64) -> Self {
        let index = segments.partition_point(|s| s.first <= from).saturating_sub(1);
        let (window, window_bytes) = (Bytes::new(), WINDOW_BYTES);
        Scanner { shard, segments, index, at: from, window, window_at: 0, window_bytes, file_bytes: None }
    }

    /// The same, as one of `others` that share the memory.
    pub(crate) fn among(self, others: usize) -> Self {
        Scanner { window_bytes: (WINDOW_BYTES / others.max(1)).max(WINDOW_BYTES_MIN), ..self }
    }

    /// The next record, or why there is none.
    pub(crate) fn step(&mut self) -> Result<Step> {
        let Some(mut segment) = self.segments.get(self.index) else {
            return Ok(Step::End { at: self.at });
        };
        let mut sealed_end = self.segments.get(self.index + 1).map(|next| next.first);
        while let Some(next) = self.segments.get(self.index + 1)
            && self.at >= next.first
        {
            self.index += 1;
            self.file_bytes = None;
            segment = next;
            sealed_end = self.segments.get(self.index + 1).map(|next| next.first);
        }
        self.at = self.at.max(segment.first + SEGMENT_HEADER_BYTES);
        let at = self.at;
        let bad = |what: String| Ok(Step::Bad { at, what });

        let version = segment.version;
        let header_bytes = format::header_bytes(version);
        let head = self.bytes(segment, at, header_bytes)?;
        if head.len() < header_bytes && head.iter().all(|b| *b == 0) {
            return match sealed_end {
                None => Ok(Step::End { at }),
                Some(end) => bad(format!("the segment should go on to {end} and ends here")),
            };
        }
        let file_bytes = match self.file_bytes {
            Some(bytes) if segment.first + bytes >= at + self.window_bytes as u64 => bytes,
            _ => *self.file_bytes.insert(segment.file_bytes()?),
        };
        let room = (segment.first + file_bytes).saturating_sub(at);
        let length = match format::peek_length(version, &head, room) {
            Ok(0) if sealed_end.is_none() => return Ok(Step::End { at }),
            Ok(0) => return bad("nothing was written here, and records follow in the next segment".into()),
            Ok(length) => length,
            Err(what) => return bad(what),
        };
        if sealed_end.is_some_and(|end| at + length as u64 > end) {
            return bad(format!("length {length} reaches into the next segment"));
        }
        let bytes = self.bytes(segment, at, length)?;
        match format::decode(version, &bytes, Position::new(self.shard, at), true) {
            Ok(decoded) => {
                self.at = at + length as u64;
                Ok(Step::Record(Box::new(decoded)))
            }
            Err(what) => bad(what),
        }
    }

    /// `length` bytes at `at`, or fewer where the file ends.
    fn bytes(&mut self, segment: &Segment, at: u64, length: usize) -> Result<Bytes> {
        let inside = at.checked_sub(self.window_at).map(|from| from as usize);
        if let Some(from) = inside
            && from + length <= self.window.len()
        {
            return Ok(self.window.slice(from..from + length));
        }
        self.window = segment.read(at - segment.first, length.max(self.window_bytes))?;
        self.window_at = at;
        Ok(self.window.slice(..length.min(self.window.len())))
    }
}

/// Searches the rest of a segment after something bad at `bad` for a record which proves that `bad` was durable
/// once: then it is corruption. Returns that record's offset.
pub(crate) fn proof_of_corruption(shard: u16, segment: &Segment, bad: u64) -> Result<Option<u64>> {
    good_after(shard, segment, bad, |good| good.durable_before > bad)
}

/// Searches the rest of a segment after something bad at `bad` for a good record that `counts`. Returns its offset.
pub(crate) fn good_after(
    shard: u16,
    segment: &Segment,
    bad: u64,
    counts: impl Fn(&Decoded) -> bool,
) -> Result<Option<u64>> {
    let length = segment.file_bytes()?.saturating_sub(bad - segment.first) as usize;
    // What follows the last good record is at most the space reserved ahead and the batches in flight.
    let rest = segment.read(bad - segment.first, length)?;
    let version = segment.version;
    let mut from = 1;
    while from + format::header_bytes(version) <= rest.len() {
        let candidate = rest.slice(from..);
        // Most places are ruled out without a checksum, so that random bytes do not cost one each.
        if format::plausible(version, &candidate)
            && let Ok(length) = format::peek_length(version, &candidate, candidate.len() as u64)
            && length != 0
        {
            let at = bad + from as u64;
            let candidate = candidate.slice(..length);
            if let Ok(good) = format::decode(version, &candidate, Position::new(shard, at), true) {
                if counts(&good) {
                    return Ok(Some(at));
                }
                from += length;
                continue;
            }
        }
        from += 1;
    }
    Ok(None)
}

/// Bytes of the segment from `at` up to the last that is not zero.
pub(crate) fn written_after(segment: &Segment, at: u64) -> Result<u64> {
    let mut offset = at - segment.first;
    let mut last = 0;
    loop {
        let window = segment.read(offset, WINDOW_BYTES)?;
        if window.is_empty() {
            return Ok(last);
        }
        if let Some(index) = window.iter().rposition(|b| *b != 0) {
            last = offset + index as u64 + 1 - (at - segment.first);
        }
        offset += window.len() as u64;
    }
}
