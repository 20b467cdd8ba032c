//! Retained messages: where each topic's is in the log.
//!
//! ```text
//! key    5 ‖ topic
//! value  position (u64) ‖ size (u32), little-endian
//! ```

use bytes::{Buf, BufMut};
use bytestring::ByteString;
use rocksdb::WriteBatch;

use super::{Meta, bad_value, prefix};
use crate::queue::filter;
use crate::{Pointer, Position, Result};

fn row_key(topic: &str) -> Vec<u8> {
    let mut out = vec![prefix::RETAINED];
    out.extend_from_slice(topic.as_bytes());
    out
}

fn encode(pointer: Pointer) -> Vec<u8> {
    let mut out = Vec::with_capacity(12);
    out.put_u64_le(pointer.position.to_u64());
    out.put_u32_le(pointer.size);
    out
}

fn decode(mut value: &[u8]) -> Option<Pointer> {
    let position = Position::from_u64(value.try_get_u64_le().ok()?);
    let size = value.try_get_u32_le().ok()?;
    value.is_empty().then_some(Pointer { position, size })
}

impl Meta {
    /// Writes what changed; `None` clears.
    pub(crate) fn put_retained(&self, changes: &[(ByteString, Option<Pointer>)]) -> Result<()> {
        let mut batch = WriteBatch::default();
        for (topic, pointer) in changes {
            match pointer {
                Some(pointer) => batch.put(row_key(topic), encode(*pointer)),
                None => batch.delete(row_key(topic)),
            }
        }
        // The index's checkpoint, which says that these need not be dispatched again, must not outlive them.
        self.write_synced(batch)
    }

    /// A topic's retained message, as far as it was written here.
    pub(crate) fn retained_of(&self, topic: &str) -> Result<Option<Pointer>> {
        let key = row_key(topic);
        let value = self.get(&key)?;
        value.map(|value| decode(&value).ok_or_else(|| bad_value("a retained message", &key))).transpose()
    }

    /// Up to `limit` retained messages that `wanted` wants, in topic order after `after`, each with its topic.
    pub(crate) fn retained_where(
        &self,
        wanted: impl Fn(Pointer) -> bool,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Pointer)>> {
        let mut found = Vec::new();
        let from = row_key(after.unwrap_or_default());
        self.scan(&[prefix::RETAINED], &from, after.is_some(), |key, value| {
            let bad = || bad_value("a retained message", key);
            let pointer = decode(value).ok_or_else(bad)?;
            if wanted(pointer) {
                let topic = key.get(1..).and_then(|topic| std::str::from_utf8(topic).ok()).ok_or_else(bad)?;
                found.push((topic.to_owned(), pointer));
            }
            Ok(found.len() < limit)
        })?;
        Ok(found)
    }

    /// Hands on every retained message, in the order of topics.
    pub(crate) fn every_retained(&self, mut each: impl FnMut(&str, Pointer)) -> Result<()> {
        let all = row_key("");
        self.scan(&all, &all, false, |key, value| {
            let topic = key.get(1..).and_then(|topic| std::str::from_utf8(topic).ok());
            let (topic, pointer) =
                topic.zip(decode(value)).ok_or_else(|| bad_value("a retained message", key))?;
            each(topic, pointer);
            Ok(true)
        })
    }

    /// Up to `limit` retained messages whose topic matches, in topic order after `after`.
    pub(crate) fn retained(
        &self,
        pattern: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Pointer)>> {
        let mut found = Vec::new();
        let literal = row_key(filter::literal_prefix(pattern));
        let from = after.map(row_key).filter(|after| *after > literal).unwrap_or_else(|| literal.clone());
        self.scan(&literal, &from, false, |key, value| {
            let topic = key.get(1..).and_then(|topic| std::str::from_utf8(topic).ok());
            let topic = topic.ok_or_else(|| bad_value("a retained message", key))?;
            if after.is_none_or(|after| topic > after) && filter::matches(pattern, topic) {
                let pointer = decode(value).ok_or_else(|| bad_value("a retained message", key))?;
                found.push((topic.to_owned(), pointer));
            }
            Ok(found.len() < limit)
        })?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips(position: u64, size: u32) {
            let pointer = Pointer { position: Position::from_u64(position), size };
            prop_assert_eq!(decode(&encode(pointer)), Some(pointer));
        }

        #[test]
        fn any_bytes_are_refused_or_read(value: Vec<u8>) {
            let _ = decode(&value);
        }
    }
}
