//! Records by pointer: from the tail in memory, or from the files in as few reads as they allow.

use bytes::Bytes;

use super::{Log, format};
use crate::{Pointer, Record, Result, StoreError};

/// Records nearer to each other than this are read together: reading the gap costs less than a call.
const GAP_BYTES: u64 = 4 << 10;
/// Most bytes of one read.
const READ_BYTES_MAX: u64 = 1 << 20;

impl Log {
    /// The records, if the tail in memory has all of them.
    pub(crate) fn read_hot(&self, pointers: &[Pointer]) -> Option<Result<Vec<Record>>> {
        let bytes: Vec<Bytes> = {
            let tail = self.tail.read();
            pointers.iter().map(|p| tail.get(*p)).collect::<Option<_>>()?
        };
        // These bytes never left memory since their checksum was made.
        Some(bytes.into_iter().zip(pointers).map(|(bytes, p)| record(&bytes, *p, false)).collect())
    }

    /// The records, read from the files. Blocks.
    pub(crate) fn read_cold(&self, pointers: &[Pointer]) -> Result<Vec<Record>> {
        let mut records = Vec::with_capacity(pointers.len());
        let mut rest = pointers;
        while let Some(first) = rest.first() {
            let start = first.position.offset();
            let (segment, limit) = {
                let segments = self.segments.read();
                let next = segments.partition_point(|s| s.first <= start);
                let segment = next.checked_sub(1).and_then(|i| segments.get(i)).cloned();
                (segment, segments.get(next).map_or(u64::MAX, |s| s.first))
            };
            let Some(segment) = segment else {
                return Err(StoreError::Corrupt {
                    position: first.position,
                    what: "the log does not reach back to it".into(),
                });
            };
            let mut end = start + u64::from(first.size);
            let mut count = 1;
            for pointer in rest.iter().skip(1) {
                let at = pointer.position.offset();
                let to = at + u64::from(pointer.size);
                if at < end || at - end > GAP_BYTES || to - start > READ_BYTES_MAX || at >= limit {
                    break;
                }
                end = to;
                count += 1;
            }
            let run = segment.read(start - segment.first, (end - start) as usize)?;
            let (now, later) = rest.split_at(count);
            for pointer in now {
                let from = (pointer.position.offset() - start) as usize;
                let to = from + pointer.size as usize;
                if to > run.len() {
                    return Err(StoreError::Corrupt {
                        position: pointer.position,
                        what: "the segment ends before it".into(),
                    });
                }
                records.push(record(&run.slice(from..to), *pointer, true)?);
            }
            rest = later;
        }
        Ok(records)
    }
}

fn record(bytes: &Bytes, pointer: Pointer, check: bool) -> Result<Record> {
    format::decode(bytes, pointer.position, check)
        .map(|decoded| decoded.record)
        .map_err(|what| StoreError::Corrupt { position: pointer.position, what })
}
