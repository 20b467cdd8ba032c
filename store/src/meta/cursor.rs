//! Cursors: a named consumer's place in a queue.
//!
//! ```text
//! key    3 ‖ owner ‖ 0 ‖ queue (u64, big-endian)
//! value  offset (u64) ‖ position (u64), little-endian
//! ```
//! An owner's cursors are neighbours: a session is opened and deleted with one scan.

use bytes::{Buf, BufMut};
use foldhash::HashMap;
use parking_lot::Mutex;
use rocksdb::WriteBatch;

use super::{Meta, bad_value, prefix};
use crate::{CursorKey, CursorPlace, Position, QueueId, Result};

/// `owner ‖ 0 ‖ queue`, without the type of key.
pub(crate) fn encode_key(key: &CursorKey) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.owner.len() + 10);
    out.put_slice(key.owner.as_bytes());
    out.put_u8(0);
    out.put_u64(key.queue.0);
    out
}

fn row_key(key: &CursorKey) -> Vec<u8> {
    let mut out = vec![prefix::CURSOR];
    out.extend(encode_key(key));
    out
}

fn decode_row_key(key: &[u8]) -> Option<CursorKey> {
    let (owner, mut queue) = key.get(1..)?.split_at_checked(key.len().checked_sub(10)?)?;
    if queue.try_get_u8().ok()? != 0 {
        return None;
    }
    let queue = QueueId(queue.try_get_u64().ok()?);
    Some(CursorKey { owner: String::from_utf8(owner.to_vec()).ok()?, queue })
}

pub(crate) fn encode_place(place: CursorPlace) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&place.offset.to_le_bytes());
    out[8..].copy_from_slice(&place.position.to_u64().to_le_bytes());
    out
}

pub(crate) fn decode_place(mut value: &[u8]) -> Option<CursorPlace> {
    let offset = value.try_get_u64_le().ok()?;
    let position = Position::from_u64(value.try_get_u64_le().ok()?);
    value.is_empty().then_some(CursorPlace { offset, position })
}

/// Cursors that moved and are not in the database yet. Only the last place of each is kept.
#[derive(Debug, Default)]
pub(crate) struct Cursors {
    moved: Mutex<HashMap<CursorKey, CursorPlace>>,
    /// Held while rows are written, made or deleted, so that a checkpoint neither brings a deleted cursor back nor undoes a
    /// new one. Never on an async thread.
    rows: Mutex<()>,
}

impl Cursors {
    pub(crate) fn set(&self, key: &CursorKey, place: CursorPlace) {
        let mut moved = self.moved.lock();
        match moved.get_mut(key) {
            Some(old) => *old = place,
            None => {
                moved.insert(key.clone(), place);
            }
        }
    }

    /// Deletes a cursor.
    pub(crate) fn delete(&self, meta: &Meta, key: &CursorKey) -> Result<()> {
        let _rows = self.rows.lock();
        self.moved.lock().remove(key);
        meta.delete_cursor(key)
    }

    /// Finds a cursor, or makes it at the place that `start` gives; whether it was found.
    pub(crate) fn find_or_create(
        &self,
        meta: &Meta,
        key: &CursorKey,
        start: impl FnOnce() -> Result<CursorPlace>,
    ) -> Result<(CursorPlace, bool)> {
        let _rows = self.rows.lock();
        let found = match self.get(key) {
            Some(place) => Some(place),
            None => meta.cursor(key)?,
        };
        match found {
            Some(place) => Ok((place, true)),
            None => {
                let place = start()?;
                meta.put_cursor(key, place)?;
                Ok((place, false))
            }
        }
    }

    pub(crate) fn get(&self, key: &CursorKey) -> Option<CursorPlace> {
        self.moved.lock().get(key).copied()
    }

    /// Writes those that are not past the durable end; the others wait for it.
    pub(crate) fn write(&self, meta: &Meta, durable_end: Position) -> Result<()> {
        let _rows = self.rows.lock();
        let ready: Vec<(CursorKey, CursorPlace)> = {
            let moved = self.moved.lock();
            moved.iter().filter(|(_, p)| p.position < durable_end).map(|(k, p)| (k.clone(), *p)).collect()
        };
        if ready.is_empty() {
            return Ok(());
        }
        let mut batch = WriteBatch::default();
        for (key, place) in &ready {
            batch.put(row_key(key), encode_place(*place));
        }
        meta.write_relaxed(batch)?;
        let mut moved = self.moved.lock();
        for (key, place) in ready {
            // It may have moved on meanwhile.
            if moved.get(&key) == Some(&place) {
                moved.remove(&key);
            }
        }
        Ok(())
    }
}

impl Meta {
    pub(crate) fn put_cursor(&self, key: &CursorKey, place: CursorPlace) -> Result<()> {
        self.put(row_key(key), encode_place(place))
    }

    pub(crate) fn cursor(&self, key: &CursorKey) -> Result<Option<CursorPlace>> {
        let row = row_key(key);
        match self.get(&row)? {
            None => Ok(None),
            Some(value) => decode_place(&value).map(Some).ok_or_else(|| bad_value("a cursor", &row)),
        }
    }

    pub(crate) fn delete_cursor(&self, key: &CursorKey) -> Result<()> {
        let mut batch = WriteBatch::default();
        batch.delete(row_key(key));
        self.write_relaxed(batch)
    }

    /// Cursors of owners that begin with `owner_prefix`, after `after`.
    pub(crate) fn cursors(
        &self,
        owner_prefix: &str,
        after: Option<&CursorKey>,
        limit: usize,
    ) -> Result<Vec<(CursorKey, CursorPlace)>> {
        let mut all = vec![prefix::CURSOR];
        all.extend_from_slice(owner_prefix.as_bytes());
        let from = after.map_or_else(|| all.clone(), row_key);
        let mut found = Vec::new();
        self.scan(&all, &from, after.is_some(), |key, value| {
            if found.len() == limit {
                return Ok(false);
            }
            let cursor = decode_row_key(key).zip(decode_place(value));
            found.push(cursor.ok_or_else(|| bad_value("a cursor", key))?);
            Ok(true)
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
        fn round_trips(owner in "[^\0]{0,20}", queue: u64, offset: u64, position: u64) {
            let key = CursorKey { owner, queue: QueueId(queue) };
            prop_assert_eq!(decode_row_key(&row_key(&key)), Some(key));
            let place = CursorPlace { offset, position: Position::from_u64(position) };
            prop_assert_eq!(decode_place(&encode_place(place)), Some(place));
        }

        #[test]
        fn any_bytes_are_refused_or_read(bytes: Vec<u8>) {
            let _ = (decode_row_key(&bytes), decode_place(&bytes));
        }
    }
}
