//! [`TailCache`]: the newest batches as they were written, for readers that follow the log's end.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::Pointer;

/// The newest batches of the log, whole, up to a number of bytes. Readers share them instead of copying.
#[derive(Debug)]
pub(crate) struct TailCache {
    batches: VecDeque<(u64, Bytes)>,
    bytes: usize,
    bytes_max: usize,
}

impl TailCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        TailCache { batches: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Adds the batch written at `offset` and lets the oldest go. The newest always stays. The last one that went.
    pub(crate) fn push(&mut self, offset: u64, batch: Bytes) -> Option<Bytes> {
        self.bytes += batch.len();
        self.batches.push_back((offset, batch));
        let mut last = None;
        while self.bytes > self.bytes_max && self.batches.len() > 1 {
            if let Some((_, gone)) = self.batches.pop_front() {
                self.bytes -= gone.len();
                last = Some(gone);
            }
        }
        last
    }

    /// The bytes of a record, if its batch is still here.
    pub(crate) fn get(&self, pointer: Pointer) -> Option<Bytes> {
        let offset = pointer.position.offset();
        let index = self.batches.partition_point(|(start, _)| *start <= offset).checked_sub(1)?;
        let (start, batch) = self.batches.get(index)?;
        let from = usize::try_from(offset - start).ok()?;
        let to = from.checked_add(pointer.size as usize)?;
        (to <= batch.len()).then(|| batch.slice(from..to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Position;

    fn at(offset: u64, size: u32) -> Pointer {
        Pointer { position: Position::new(0, offset), size }
    }

    #[test]
    fn finds_what_is_here_and_forgets_the_oldest() {
        let mut tail = TailCache::new(8);
        assert_eq!(tail.push(100, Bytes::from_static(b"abcd")), None);
        assert_eq!(tail.push(104, Bytes::from_static(b"efgh")), None);
        assert_eq!(tail.get(at(101, 2)).as_deref(), Some(&b"bc"[..]));
        assert_eq!(tail.get(at(104, 4)).as_deref(), Some(&b"efgh"[..]));
        assert_eq!(tail.get(at(99, 1)), None);
        assert_eq!(tail.get(at(106, 4)), None, "past the end");
        assert_eq!(tail.push(108, Bytes::from_static(b"i")).as_deref(), Some(&b"abcd"[..]));
        assert_eq!(tail.get(at(101, 2)), None, "the oldest went");
        assert_eq!(tail.get(at(108, 1)).as_deref(), Some(&b"i"[..]));
    }
}
