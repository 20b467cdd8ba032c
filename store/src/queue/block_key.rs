//! The key of a block of entries.

use super::block::base_of;
use crate::QueueId;

/// First byte of every block key.
pub(crate) const PREFIX: u8 = 1;
const LENGTH: usize = 1 + 8 + 8;

/// Where a block is kept:
///
/// ```text
///  0  prefix       1  1
///  1  queue        8  u64
///  9  base offset  8  u64; a multiple of [`super::block::BLOCK_ENTRIES`]
/// ```
/// Big-endian, so that the order of bytes is the order of a queue's entries. The base follows from the offset, so that an
/// entry is found with one look-up, and the entries of a queue with little traffic gather under one key.
///
/// The shard is not in the key: offsets of a queue are counted over all shards, and each entry names its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BlockKey {
    pub(crate) queue: QueueId,
    pub(crate) base: u64,
}

impl BlockKey {
    /// The block that holds an offset.
    pub(crate) fn of(queue: QueueId, offset: u64) -> Self {
        BlockKey { queue, base: base_of(offset) }
    }

    pub(crate) fn encode(&self) -> [u8; LENGTH] {
        let mut key = [0; LENGTH];
        key[0] = PREFIX;
        key[1..9].copy_from_slice(&self.queue.0.to_be_bytes());
        key[9..].copy_from_slice(&self.base.to_be_bytes());
        key
    }

    pub(crate) fn decode(key: &[u8]) -> Option<Self> {
        let (prefix, rest) = key.split_first()?;
        let (queue, base) = rest.split_first_chunk()?;
        let base = base.try_into().ok()?;
        (*prefix == PREFIX)
            .then(|| BlockKey { queue: QueueId(u64::from_be_bytes(*queue)), base: u64::from_be_bytes(base) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips_in_order(a: (u64, u64), b: (u64, u64)) {
            let key = |(queue, base)| BlockKey { queue: QueueId(queue), base };
            prop_assert_eq!(BlockKey::decode(&key(a).encode()), Some(key(a)));
            prop_assert_eq!(key(a).encode().cmp(&key(b).encode()), key(a).cmp(&key(b)));
        }

        #[test]
        fn any_bytes_are_refused_or_read(key: Vec<u8>) {
            let _ = BlockKey::decode(&key);
        }
    }
}
