//! [`Appender`]: the log writer's hand on one shard.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::Log;
use super::format::{self, SEGMENT_HEADER_BYTES, Stamp};
use super::layout::Laid;
use super::segment::Segment;
use super::shard::Shard;
use crate::{Pointer, Result, StoreError};

/// Larger memory than this, which only a large append needs, goes back.
const REUSED_BYTES_MAX: usize = 1 << 20;

/// What the log writer knows of one shard, and the records of a batch that go there.
pub(super) struct Appender {
    number: u16,
    segment: Arc<Segment>,
    /// Bytes of the segment's file that have their place on disk.
    reserved: u64,
    /// Where the next record goes: the shard's own end, and perhaps the header of a segment that was begun since.
    end: u64,
    /// A failed write may have left bytes after the end.
    dirty: bool,
    /// The segment has its last record. A file of the next one may be there already, so that nothing may come between.
    sealed: bool,
    /// Bytes of the batch that go here.
    bytes: usize,
    buffer: BytesMut,
}

impl Appender {
    pub(super) fn new(shard: &Shard) -> Result<Self> {
        let segment = shard.segments.read().last().cloned().ok_or(StoreError::Closed)?;
        let reserved = segment.file_bytes()?;
        Ok(Appender {
            number: shard.number,
            segment,
            reserved,
            end: shard.end(),
            dirty: false,
            sealed: false,
            bytes: 0,
            buffer: BytesMut::new(),
        })
    }

    /// Says that a record of so many bytes comes; whether it is the first of the batch.
    pub(super) fn expect(&mut self, bytes: usize) -> bool {
        let first = self.bytes == 0;
        self.bytes += bytes;
        first
    }

    /// Whether nothing is left of a failed write.
    pub(super) fn is_clean(&self) -> bool {
        !self.dirty
    }

    /// Whether so many bytes have their place in the active segment already.
    pub(super) fn has_room(&self, bytes: usize, segment_bytes: u64) -> bool {
        let needed = self.end - self.segment.first + bytes as u64;
        !self.sealed && needed <= self.reserved.min(segment_bytes)
    }

    /// Cuts what a failed write left: it could be taken for records after a restart.
    pub(super) fn clean(&mut self) -> Result<()> {
        if self.dirty {
            let end = self.end - self.segment.first;
            self.segment.cut(end)?;
            self.reserved = end;
            self.dirty = false;
        }
        Ok(())
    }

    /// Sees to it that what was expected fits into the active segment and has its place on disk.
    pub(super) fn make_room(&mut self, log: &Log, segment_bytes: u64, sequence: u64) -> Result<()> {
        let bytes = self.bytes as u64;
        let used = self.end - self.segment.first;
        if self.sealed || (used > SEGMENT_HEADER_BYTES && used + bytes > segment_bytes) {
            self.begin_segment(log, sequence)?;
        }
        let used = self.end - self.segment.first;
        self.reserved = self.segment.reserve(self.reserved, used + bytes, !log.ballast.is_given_up())?;
        Ok(())
    }

    /// Seals the active segment, if it has a record, and begins the next.
    pub(super) fn roll(&mut self, log: &Log, sequence: u64) -> Result<()> {
        self.clean()?;
        if self.sealed || self.end - self.segment.first > SEGMENT_HEADER_BYTES {
            self.begin_segment(log, sequence)?;
        }
        Ok(())
    }

    fn begin_segment(&mut self, log: &Log, sequence: u64) -> Result<()> {
        let used = self.end - self.segment.first;
        // Sealed means durable and cut to its length: recovery relies on both.
        self.sealed = true;
        self.segment.cut(used)?;
        self.reserved = used;
        let shard = log.shard(self.number).ok_or(StoreError::Closed)?;
        let next = Arc::new(Segment::create(&log.dir, log.id, shard.position(self.end), sequence)?);
        shard.segments.write().push(next.clone());
        self.segment = next;
        self.reserved = self.segment.file_bytes()?;
        self.end += SEGMENT_HEADER_BYTES;
        self.sealed = false;
        Ok(())
    }

    /// Takes records of the batch, which get this time and sequences from this one on; adds where they are.
    pub(super) fn push(
        &mut self,
        shard: &Shard,
        records: &[Laid],
        bytes: &[u8],
        (first_sequence, time_ms): (u64, i64),
        pointers: &mut Vec<Pointer>,
    ) {
        if self.buffer.is_empty() {
            // What stays in memory is counted by what is in it: a small batch in a large buffer would not be.
            if self.buffer.capacity() / 2 > self.bytes {
                self.buffer = BytesMut::new();
            }
            self.buffer.reserve(self.bytes);
        }
        let durable = shard.durable_end();
        let mut offset = self.end + self.buffer.len() as u64;
        let at = self.buffer.len();
        self.buffer.extend_from_slice(bytes);
        let mut rest = &mut self.buffer[at..];
        for (sequence, laid) in (first_sequence..).zip(records) {
            let (record, later) = rest.split_at_mut(laid.size as usize);
            rest = later;
            let position = shard.position(offset);
            let undurable = u32::try_from(offset - durable).unwrap_or(u32::MAX);
            format::stamp(record, laid.crc, &Stamp { position, sequence, time_ms, undurable });
            pointers.push(Pointer { position, size: laid.size });
            offset += u64::from(laid.size);
        }
    }

    /// Writes what it took.
    pub(super) fn write(&mut self) -> Result<()> {
        self.segment.write(&self.buffer, self.end - self.segment.first)
    }

    /// The batch counts: what was written becomes the tail. How many bytes it was.
    pub(super) fn accept(&mut self, shard: &Shard) -> u64 {
        let written: Bytes = std::mem::take(&mut self.buffer).freeze();
        let (start, bytes) = (self.end, written.len() as u64);
        self.end += bytes;
        self.bytes = 0;
        let gone = shard.tail.write().push(start, written);
        // Its memory again, if nobody reads it any more: new memory costs as much as writing a record does.
        let free = gone.and_then(|gone| gone.try_into_mut().ok());
        self.buffer = free.filter(|free| free.capacity() <= REUSED_BYTES_MAX).unwrap_or_default();
        self.buffer.clear();
        shard.set_end(self.end);
        bytes
    }

    /// The batch does not count. `written`: some of it may be in the file.
    pub(super) fn reject(&mut self, written: bool) {
        self.buffer = BytesMut::new();
        self.bytes = 0;
        self.dirty |= written;
    }

    pub(super) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }
}
