//! Streams: which shards of the log each has. A number is given once, and for good.
//!
//! ```text
//! key    7 ‖ name
//! value  version (1) ‖ count (u16) ‖ numbers (u16 each), little-endian
//! ```

use bytes::{Buf, BufMut};
use rocksdb::WriteBatch;

use super::{Meta, bad_value, prefix};
use crate::Result;

const VERSION: u8 = 1;

fn row_key(name: &str) -> Vec<u8> {
    let mut out = vec![prefix::STREAM];
    out.extend_from_slice(name.as_bytes());
    out
}

fn encode(shards: &[u16]) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.put_u16_le(shards.len() as u16);
    for shard in shards {
        out.put_u16_le(*shard);
    }
    out
}

fn decode(mut value: &[u8]) -> Option<Vec<u16>> {
    if value.try_get_u8().ok()? != VERSION {
        return None;
    }
    let count = value.try_get_u16_le().ok()?;
    let shards = (0..count).map(|_| value.try_get_u16_le().ok()).collect::<Option<_>>()?;
    value.is_empty().then_some(shards)
}

impl Meta {
    /// Every stream there ever was, by name.
    pub(crate) fn streams(&self) -> Result<Vec<(String, Vec<u16>)>> {
        let mut streams = Vec::new();
        let start = [prefix::STREAM];
        self.scan(&start, &start, false, |key, value| {
            let name = key.get(1..).and_then(|name| String::from_utf8(name.to_vec()).ok());
            streams.push(name.zip(decode(value)).ok_or_else(|| bad_value("a stream", key))?);
            Ok(true)
        })?;
        Ok(streams)
    }

    /// Writes streams that got shards.
    pub(crate) fn put_streams(&self, streams: &[(String, Vec<u16>)]) -> Result<()> {
        let mut batch = WriteBatch::default();
        for (name, shards) in streams {
            batch.put(row_key(name), encode(shards));
        }
        // A segment must not outlive a power cut that the number of its shard would not.
        self.write_synced(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips(shards: Vec<u16>) {
            prop_assert_eq!(decode(&encode(&shards)), Some(shards));
        }

        #[test]
        fn any_bytes_are_refused_or_read(mut value: Vec<u8>) {
            let _ = decode(&value);
            value.insert(0, VERSION);
            let _ = decode(&value);
        }
    }
}
