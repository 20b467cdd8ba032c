//! [`Appender`]: the log writer's hand on one shard.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::Log;
use super::format::{self, SEGMENT_HEADER_BYTES, Stamp};
use super::segment::Segment;
use super::shard::Shard;
use crate::{NewRecord, Pointer, Result, StoreError};

/// A record on its way into the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Incoming<'a> {
    pub(super) record: &'a NewRecord,
    /// Of a retained message that is written again: when it was stored first.
    pub(super) kept: Option<i64>,
}

impl Incoming<'_> {
    /// Bytes that it takes in the log.
    pub(super) fn size(&self) -> usize {
        format::encoded_size(self.record) + self.kept.map_or(0, |_| format::KEPT_BYTES)
    }
}

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

    /// Encodes a record of the batch.
    pub(super) fn push(
        &mut self,
        shard: &Shard,
        Incoming { record, kept }: Incoming<'_>,
        sequence: u64,
        time_ms: i64,
    ) -> Pointer {
        let at = self.buffer.len();
        if at == 0 {
            self.buffer.reserve(self.bytes);
        }
        let position = shard.position(self.end + at as u64);
        let undurable = position.offset() - shard.durable_end();
        let undurable = u32::try_from(undurable).unwrap_or(u32::MAX);
        let stamp = Stamp { position, sequence, time_ms, undurable, kept };
        format::encode(record, &stamp, &mut self.buffer);
        Pointer { position, size: (self.buffer.len() - at) as u32 }
    }

    /// Writes what was encoded.
    pub(super) fn write(&mut self) -> Result<()> {
        self.segment.write(&self.buffer, self.end - self.segment.first)
    }

    /// The batch counts: what was written becomes the tail. How many bytes it was.
    pub(super) fn accept(&mut self, shard: &Shard) -> u64 {
        let written: Bytes = std::mem::take(&mut self.buffer).freeze();
        let (start, bytes) = (self.end, written.len() as u64);
        self.end += bytes;
        self.bytes = 0;
        shard.tail.write().push(start, written);
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
