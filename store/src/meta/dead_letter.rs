//! Dead letters: pointers to what a consumer gave up on, and why.
//!
//! ```text
//! key    6 ‖ owner ‖ 0 ‖ position (u64, big-endian)
//! value  version (1) ‖ position (u64) ‖ size (u32) ‖ offset (u64) ‖ time (i64) ‖ attempts (u32) ‖ error (UTF-8), little-endian
//! ```

use bytes::{Buf, BufMut};
use rocksdb::WriteBatch;

use super::{Meta, bad_value, prefix};
use crate::{DeadLetter, Pointer, Position, Result};

const VERSION: u8 = 1;

fn owner_key(owner: &str) -> Vec<u8> {
    let mut out = vec![prefix::DEAD_LETTER];
    out.extend_from_slice(owner.as_bytes());
    out.push(0);
    out
}

fn row_key(owner: &str, position: u64) -> Vec<u8> {
    let mut out = owner_key(owner);
    out.put_u64(position);
    out
}

fn position(key: &[u8]) -> Option<u64> {
    key.last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes))
}

fn encode(letter: &DeadLetter) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.put_u64_le(letter.pointer.position.to_u64());
    out.put_u32_le(letter.pointer.size);
    out.put_u64_le(letter.offset);
    out.put_i64_le(letter.time_ms);
    out.put_u32_le(letter.attempts);
    out.put_slice(letter.error.as_bytes());
    out
}

fn decode(mut value: &[u8]) -> Option<DeadLetter> {
    if value.try_get_u8().ok()? != VERSION {
        return None;
    }
    let position = Position::from_u64(value.try_get_u64_le().ok()?);
    let size = value.try_get_u32_le().ok()?;
    Some(DeadLetter {
        pointer: Pointer { position, size },
        offset: value.try_get_u64_le().ok()?,
        time_ms: value.try_get_i64_le().ok()?,
        attempts: value.try_get_u32_le().ok()?,
        error: String::from_utf8(value.to_vec()).ok()?,
    })
}

impl Meta {
    fn count_dead_letters(&self, owner: &str) -> Result<u64> {
        let mut count = 0;
        let all = owner_key(owner);
        self.scan(&all, &all, false, |_, _| {
            count += 1;
            Ok(true)
        })?;
        Ok(count)
    }

    /// How many dead letters all owners have.
    pub(crate) fn every_dead_letter(&self) -> Result<u64> {
        let mut count = 0;
        self.scan(&[prefix::DEAD_LETTER], &[prefix::DEAD_LETTER], false, |_, _| {
            count += 1;
            Ok(true)
        })?;
        Ok(count)
    }

    pub(crate) fn put_dead_letters(&self, owner: &str, letters: &[DeadLetter]) -> Result<u64> {
        let mut counts = self.dead_letters.lock();
        let mut count = match counts.get(owner) {
            Some(count) => *count,
            None => self.count_dead_letters(owner)?,
        };
        let mut batch = WriteBatch::default();
        for letter in letters {
            let key = row_key(owner, letter.pointer.position.to_u64());
            // After a crash a consumer may give up again on what it gave up on just before.
            count += u64::from(self.get(&key)?.is_none());
            batch.put(key, encode(letter));
        }
        self.write(batch)?;
        counts.insert(owner.to_owned(), count);
        Ok(count)
    }

    pub(crate) fn dead_letters(
        &self,
        owner: &str,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(u64, DeadLetter)>> {
        let mut found = Vec::new();
        self.scan(&owner_key(owner), &row_key(owner, from), false, |key, value| {
            if found.len() == limit {
                return Ok(false);
            }
            let letter = position(key).zip(decode(value));
            found.push(letter.ok_or_else(|| bad_value("a dead letter", key))?);
            Ok(true)
        })?;
        Ok(found)
    }

    pub(crate) fn dead_letter_count(&self, owner: &str) -> Result<u64> {
        let mut counts = self.dead_letters.lock();
        if let Some(count) = counts.get(owner) {
            return Ok(*count);
        }
        let count = self.count_dead_letters(owner)?;
        counts.insert(owner.to_owned(), count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips(position: u64, size: u32, offset: u64, time_ms: i64, attempts: u32, error: String) {
            let pointer = Pointer { position: Position::from_u64(position), size };
            let letter = DeadLetter { pointer, offset, time_ms, attempts, error };
            prop_assert_eq!(decode(&encode(&letter)), Some(letter));
        }

        #[test]
        fn keys_round_trip(owner: String, at: u64) {
            prop_assert_eq!(position(&row_key(&owner, at)), Some(at));
        }

        #[test]
        fn any_bytes_are_refused_or_read(value: Vec<u8>) {
            let _ = (decode(&value), position(&value));
        }
    }
}
