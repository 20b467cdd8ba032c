//! [`Cut`]: a place in the whole log, over all shards.

use bytes::{Buf, BufMut};

use crate::{Pointer, Position};

const VERSION: u8 = 1;

/// A place in the log: what was dispatched before it, and nothing after.
///
/// ```text
///  0  version   1  1
///  1  sequence  8  u64; of the next record
///  9  time      8  i64; of the last record before, in milliseconds since the Unix epoch
/// 17  count     2  u16
/// 19  ends         for each shard, by number: shard (u16), offset (u64)
/// ```
/// Little-endian. The shards are named one by one, so that one that is added later begins at its begin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Cut {
    /// The next one.
    pub(crate) sequence: u64,
    /// Time of the last record.
    pub(crate) time_ms: i64,
    /// Shard and offset, by shard.
    pub(crate) ends: Vec<(u16, u64)>,
}

impl Cut {
    /// Where a shard is cut; 0 when it is not named.
    pub(crate) fn end(&self, shard: u16) -> u64 {
        let index = self.ends.binary_search_by_key(&shard, |(shard, _)| *shard);
        index.ok().and_then(|index| self.ends.get(index)).map_or(0, |(_, end)| *end)
    }

    /// Whether the record at a position is before it.
    pub(crate) fn holds(&self, position: Position) -> bool {
        position.offset() < self.end(position.shard())
    }

    /// Moves it past the record of the next sequence.
    pub(crate) fn advance(&mut self, pointer: Pointer) {
        let index = self.ends.binary_search_by_key(&pointer.position.shard(), |(shard, _)| *shard);
        if let Some((_, end)) = index.ok().and_then(|index| self.ends.get_mut(index)) {
            *end = pointer.position.offset() + u64::from(pointer.size);
        }
        self.sequence += 1;
    }

    /// Bytes of the log from here to a later place.
    pub(crate) fn bytes_to(&self, later: &Cut) -> u64 {
        later.ends.iter().map(|(shard, end)| end.saturating_sub(self.end(*shard))).sum()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.put_u64_le(self.sequence);
        out.put_i64_le(self.time_ms);
        out.put_u16_le(self.ends.len() as u16);
        for (shard, end) in &self.ends {
            out.put_u16_le(*shard);
            out.put_u64_le(*end);
        }
        out
    }

    pub(crate) fn decode(mut value: &[u8]) -> Option<Self> {
        if value.try_get_u8().ok()? != VERSION {
            return None;
        }
        let sequence = value.try_get_u64_le().ok()?;
        let time_ms = value.try_get_i64_le().ok()?;
        let count = value.try_get_u16_le().ok()?;
        let ends = (0..count)
            .map(|_| Some((value.try_get_u16_le().ok()?, value.try_get_u64_le().ok()?)))
            .collect::<Option<Vec<_>>>()?;
        let sorted = ends.is_sorted_by(|(before, _), (after, _)| before < after);
        (sorted && value.is_empty()).then_some(Cut { sequence, time_ms, ends })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips(sequence: u64, time_ms: i64, ends in prop::collection::btree_map(any::<u16>(), any::<u64>(), 0..9)) {
            let cut = Cut { sequence, time_ms, ends: ends.clone().into_iter().collect() };
            prop_assert_eq!(Cut::decode(&cut.encode()), Some(cut.clone()));
            for shard in 0..20 {
                prop_assert_eq!(cut.end(shard), ends.get(&shard).copied().unwrap_or(0));
            }
        }

        #[test]
        fn any_bytes_are_refused_or_read(mut value: Vec<u8>) {
            let _ = Cut::decode(&value);
            value.insert(0, VERSION);
            let _ = Cut::decode(&value);
        }
    }
}
