//! Records by pointer: from the tails in memory, or from the files in as few reads as they allow.

use bytes::Bytes;
use smallvec::SmallVec;

use super::format::SEGMENT_VERSION;
use super::{Log, format};
use crate::{Pointer, Record, Result, StoreError};

/// Records nearer to each other than this are read together: reading the gap costs less than a call.
const GAP_BYTES: u64 = 4 << 10;
/// Most bytes of one read.
const READ_BYTES_MAX: u64 = 1 << 20;

impl Log {
    /// The records, from wherever they are. Blocks.
    pub(crate) fn read(&self, pointers: &[Pointer]) -> Result<Vec<Record>> {
        self.read_hot(pointers).unwrap_or_else(|| self.read_cold(pointers))
    }

    /// The records, if the tails in memory have all of them.
    pub(crate) fn read_hot(&self, pointers: &[Pointer]) -> Option<Result<Vec<Record>>> {
        let bytes: Vec<Bytes> = {
            // Each tail is locked once, however its records are mixed with others.
            let mut tails: SmallVec<[_; 8]> = self.shards().iter().map(|_| None).collect();
            let bytes = pointers.iter().map(|pointer| {
                let shard = self.shard(pointer.position.shard())?;
                let tail = tails.get_mut(usize::from(shard.number))?;
                tail.get_or_insert_with(|| shard.tail.read()).get(*pointer)
            });
            bytes.collect::<Option<_>>()?
        };
        // These bytes never left memory since their checksum was made, by this program.
        let records = bytes.into_iter().zip(pointers);
        Some(records.map(|(bytes, pointer)| record(SEGMENT_VERSION, &bytes, *pointer, false)).collect())
    }

    /// The records, read from the files; [`StoreError::Gone`] if retention has deleted one. Blocks.
    pub(crate) fn read_cold(&self, pointers: &[Pointer]) -> Result<Vec<Record>> {
        let mut records = Vec::with_capacity(pointers.len());
        let mut rest = pointers;
        while let Some(first) = rest.first() {
            let (number, start) = (first.position.shard(), first.position.offset());
            let Some(shard) = self.shard(number) else {
                let what = "there is no such shard".into();
                return Err(StoreError::Corrupt { position: first.position, what });
            };
            let found = {
                let segments = shard.segments.read();
                let next = segments.partition_point(|s| s.first <= start);
                let segment = next.checked_sub(1).and_then(|i| segments.get(i)).cloned();
                segment.map(|segment| (segment, segments.get(next).map_or(u64::MAX, |s| s.first)))
            };
            let Some((segment, limit)) = found else { return Err(StoreError::Gone(first.position)) };
            let mut end = start + u64::from(first.size);
            let mut count = 1;
            for pointer in rest.iter().skip(1) {
                let at = pointer.position.offset();
                let to = at + u64::from(pointer.size);
                if pointer.position.shard() != number
                    || at < end
                    || at - end > GAP_BYTES
                    || to - start > READ_BYTES_MAX
                    || at >= limit
                {
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
                records.push(record(segment.version, &run.slice(from..to), *pointer, true)?);
            }
            rest = later;
        }
        Ok(records)
    }
}

fn record(version: u32, bytes: &Bytes, pointer: Pointer, check: bool) -> Result<Record> {
    format::decode(version, bytes, pointer.position, check)
        .map(|decoded| decoded.record)
        .map_err(|what| StoreError::Corrupt { position: pointer.position, what })
}
