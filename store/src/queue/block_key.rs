//! The key of a block of entries.

use crate::QueueId;

/// First byte of every block key.
pub(crate) const PREFIX: u8 = 1;
const LENGTH: usize = 1 + 8 + 2 + 8;

/// Where a block is kept:
///
/// ```text
///  0  prefix       1  1
///  1  queue        8  u64
///  9  shard        2  u16
/// 11  base offset  8  u64; offset of the block's first entry
/// ```
/// Big-endian, so that the order of bytes is the order of a queue's entries, and that one search finds the
/// block which holds an offset, or the queue's last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BlockKey {
    pub(crate) queue: QueueId,
    pub(crate) shard: u16,
    pub(crate) base: u64,
}

impl BlockKey {
    pub(crate) fn encode(&self) -> [u8; LENGTH] {
        let mut key = [0; LENGTH];
        key[0] = PREFIX;
        key[1..9].copy_from_slice(&self.queue.0.to_be_bytes());
        key[9..11].copy_from_slice(&self.shard.to_be_bytes());
        key[11..].copy_from_slice(&self.base.to_be_bytes());
        key
    }

    pub(crate) fn decode(key: &[u8]) -> Option<Self> {
        let key: &[u8; LENGTH] = key.try_into().ok()?;
        (key[0] == PREFIX).then(|| BlockKey {
            queue: QueueId(u64::from_be_bytes(*key[1..].first_chunk().unwrap_or(&[0; 8]))),
            shard: u16::from_be_bytes([key[9], key[10]]),
            base: u64::from_be_bytes(*key[11..].first_chunk().unwrap_or(&[0; 8])),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips_in_order(a: (u64, u16, u64), b: (u64, u16, u64)) {
            let key = |(queue, shard, base)| BlockKey { queue: QueueId(queue), shard, base };
            prop_assert_eq!(BlockKey::decode(&key(a).encode()), Some(key(a)));
            prop_assert_eq!(key(a).encode().cmp(&key(b).encode()), key(a).cmp(&key(b)));
        }
    }
}
