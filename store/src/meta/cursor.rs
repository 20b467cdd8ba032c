//! Cursors: a named consumer's place in a queue.
//!
//! ```text
//! key    3 ‖ owner ‖ 0 ‖ queue (u64, big-endian)
//! value  cursor (u64), little-endian
//!
//! key    9 ‖ row (u64, big-endian)
//! value  for each cursor with a number from row * 256 on:
//!          place   varint; the number, counted from the row's first, times 2; plus 1: the cursor is deleted
//!          offset     varint; not of a deleted one
//!          sequence   varint; not of a deleted one
//!
//! key    10
//! value  number of the next cursor (u64), little-endian
//! ```
//! An owner's cursors are neighbours: a session is opened and deleted with one scan. Their places, which change all the time, are apart from
//! that and many to a row: a checkpoint of a million of them writes four thousand rows. It writes only those that moved; RocksDB merges them into
//! the row ([`merge`]). In version 1 the value of a cursor was its place: offset (u64) ‖ position (u64).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Buf, BufMut};
use foldhash::HashSet;
use parking_lot::Mutex;
use rocksdb::WriteBatch;

use super::places::{Places, ROW_CURSORS};
use super::{Meta, bad_value, prefix};
use crate::queue::varint;
use crate::{Cursor, CursorId, CursorKey, CursorPlace, QueueId, Result, Start};

/// Rows written in one batch.
const BATCH_ROWS: usize = 256;
/// Numbers are reserved in steps, so that most new cursors cost one write.
const RESERVE: u64 = 1024;

/// `owner ‖ 0 ‖ queue`, without the type of key.
pub(crate) fn encode_key(key: &CursorKey) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.owner.len() + 10);
    out.put_slice(key.owner.as_bytes());
    out.put_u8(0);
    out.put_u64(key.queue.0);
    out
}

fn name_key(key: &CursorKey) -> Vec<u8> {
    let mut out = vec![prefix::CURSOR];
    out.extend(encode_key(key));
    out
}

fn decode_name_key(key: &[u8]) -> Option<CursorKey> {
    decode_key(key.get(1..)?)
}

/// What [`encode_key`] gave.
pub(crate) fn decode_key(key: &[u8]) -> Option<CursorKey> {
    let (owner, mut queue) = key.split_at_checked(key.len().checked_sub(9)?)?;
    if queue.try_get_u8().ok()? != 0 {
        return None;
    }
    let queue = QueueId(queue.try_get_u64().ok()?);
    Some(CursorKey { owner: String::from_utf8(owner.to_vec()).ok()?, queue })
}

/// A place by itself, as consumers that derive queues have it: offset (u64) ‖ sequence (u64), little-endian.
pub(crate) fn encode_place(place: CursorPlace) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&place.offset.to_le_bytes());
    out[8..].copy_from_slice(&place.sequence.to_le_bytes());
    out
}

/// What [`encode_place`] gave.
pub(crate) fn decode_place(mut value: &[u8]) -> Option<CursorPlace> {
    let offset = value.try_get_u64_le().ok()?;
    let sequence = value.try_get_u64_le().ok()?;
    value.is_empty().then_some(CursorPlace { offset, sequence })
}

fn row_key(cursor: CursorId) -> [u8; 9] {
    let mut key = [prefix::CURSOR_PLACES; 9];
    key[1..].copy_from_slice(&(cursor.0 / ROW_CURSORS).to_be_bytes());
    key
}

/// Places of one row; `None`: deleted.
type Row = BTreeMap<u64, Option<CursorPlace>>;

fn put_entry(out: &mut Vec<u8>, number: u64, place: Option<CursorPlace>) {
    varint::put(out, number % ROW_CURSORS * 2 + u64::from(place.is_none()));
    if let Some(place) = place {
        varint::put(out, place.offset);
        varint::put(out, place.sequence);
    }
}

/// Adds the entries of a row, or of a part of one, to those before it.
fn read_row(mut value: &[u8], row: &mut Row) -> Result<(), &'static str> {
    while !value.is_empty() {
        let number = varint::get(&mut value)?;
        if number >= 2 * ROW_CURSORS {
            return Err("a cursor is not of this row");
        }
        let is_deleted = number % 2 == 1;
        let place = match is_deleted {
            true => None,
            false => {
                Some(CursorPlace { offset: varint::get(&mut value)?, sequence: varint::get(&mut value)? })
            }
        };
        row.insert(number / 2, place);
    }
    Ok(())
}

/// One row of several parts: later ones replace earlier ones. With `whole`, nothing is before them, and the deleted ones
/// need not be remembered. Parts that cannot be read are kept as they are, so that the row cannot be read either.
pub(super) fn merge<'a>(parts: impl Iterator<Item = &'a [u8]> + Clone, whole: bool) -> Vec<u8> {
    let mut row = Row::new();
    for part in parts.clone() {
        if read_row(part, &mut row).is_err() {
            return parts.flatten().copied().collect();
        }
    }
    let mut out = Vec::with_capacity(row.len() * 8);
    for (number, place) in row.into_iter().filter(|(_, place)| place.is_some() || !whole) {
        put_entry(&mut out, number, place);
    }
    out
}

/// Cursors that moved and are not in the database yet. Only the last place of each is kept.
#[derive(Debug, Default)]
pub(crate) struct Cursors {
    moved: Mutex<Moved>,
    /// Held while rows are written (a batch of them), made or deleted, so that a checkpoint neither brings a deleted cursor back nor
    /// undoes a new one. Never on an async thread.
    rows: Mutex<()>,
}

#[derive(Debug, Default)]
struct Moved {
    places: Places,
    /// Those that the checkpoint in progress writes.
    writing: Arc<Places>,
    /// Those of them that were deleted since it began.
    deleted: HashSet<CursorId>,
}

impl Cursors {
    pub(crate) fn set(&self, cursor: CursorId, place: CursorPlace) {
        self.moved.lock().places.set(cursor, place);
    }

    /// Deletes a cursor.
    pub(crate) fn delete(&self, meta: &Meta, key: &CursorKey) -> Result<()> {
        let _rows = self.rows.lock();
        let Some(cursor) = meta.cursor_id(key)? else { return Ok(()) };
        // First there: one that could not be deleted keeps its place.
        meta.delete_cursor(key, cursor)?;
        let mut moved = self.moved.lock();
        moved.places.remove(cursor);
        if moved.writing.get(cursor).is_some() {
            moved.deleted.insert(cursor);
        }
        Ok(())
    }

    /// Finds cursors, or makes them at the places that `start` gives, all in one write; each with whether it was found.
    pub(crate) fn find_or_create(
        &self,
        meta: &Meta,
        keys: &[(CursorKey, Start)],
        mut start: impl FnMut(&CursorKey, Start) -> Result<CursorPlace>,
        wait_durable: impl FnOnce() -> Result<()>,
    ) -> Result<Vec<(Cursor, bool)>> {
        let _rows = self.rows.lock();
        let mut found = Vec::with_capacity(keys.len());
        let mut new: Vec<(&CursorKey, CursorPlace)> = Vec::new();
        for (key, at) in keys {
            found.push(match meta.cursor_id(key)? {
                Some(id) => Some(Cursor { id, place: self.place(meta, id)? }),
                None => {
                    new.push((key, start(key, *at)?));
                    None
                }
            });
        }
        if !new.is_empty() {
            // After a power cut, other records would have the offsets that these cursors have passed.
            wait_durable()?;
        }
        let mut made =
            (meta.put_cursors(&new)?..).map(CursorId).zip(new).map(|(id, (_, place))| Cursor { id, place });
        let all = found
            .into_iter()
            .map(|found| found.map(|cursor| (cursor, true)).or_else(|| Some((made.next()?, false))));
        Ok(all.flatten().collect())
    }

    fn get(&self, cursor: CursorId) -> Option<CursorPlace> {
        let moved = self.moved.lock();
        let writing = || moved.writing.get(cursor).filter(|_| !moved.deleted.contains(&cursor));
        moved.places.get(cursor).or_else(writing)
    }

    /// Where a cursor is.
    pub(crate) fn place(&self, meta: &Meta, cursor: CursorId) -> Result<CursorPlace> {
        match self.get(cursor) {
            Some(place) => Ok(place),
            None => Ok(meta
                .cursor_row(cursor)?
                .get(&(cursor.0 % ROW_CURSORS))
                .copied()
                .flatten()
                .unwrap_or_default()),
        }
    }

    /// Cursors of owners that begin with `owner_prefix`, after `after`.
    pub(crate) fn page(
        &self,
        meta: &Meta,
        owner_prefix: &str,
        after: Option<&CursorKey>,
        limit: usize,
    ) -> Result<Vec<(CursorKey, CursorPlace)>> {
        // A cursor of version 1 gets its number here.
        let _rows = self.rows.lock();
        let mut rows = Rows::default();
        let mut found = Vec::new();
        for (key, id) in meta.cursors(owner_prefix, after, limit)? {
            let place = match self.get(id) {
                Some(moved) => Some(moved),
                None => rows.place(meta, id)?,
            };
            found.push((key, place.unwrap_or_default()));
        }
        Ok(found)
    }

    /// Writes those that are done with durable records only; the others wait.
    pub(crate) fn write(&self, meta: &Meta, durable_sequence: u64) -> Result<()> {
        let writing = {
            let mut moved = self.moved.lock();
            if moved.places.is_empty() {
                return Ok(());
            }
            // Whoever commits meanwhile waits for this exchange only, not for the rows.
            moved.writing = Arc::new(std::mem::take(&mut moved.places));
            moved.writing.clone()
        };
        let is_ready = |place: CursorPlace| place.sequence < durable_sequence;
        let result = writing.rows().chunks(BATCH_ROWS).try_for_each(|rows| {
            let _rows = self.rows.lock();
            let deleted = self.moved.lock().deleted.clone();
            let mut batch = WriteBatch::default();
            let mut part = Vec::new();
            for row in rows {
                part.clear();
                let ready =
                    writing.of_row(*row).filter(|(id, place)| is_ready(*place) && !deleted.contains(id));
                ready.for_each(|(id, place)| put_entry(&mut part, id.0, Some(place)));
                if !part.is_empty() {
                    batch.merge(row_key(CursorId(row * ROW_CURSORS)), &part);
                }
            }
            meta.write_relaxed(batch)
        });
        let mut moved = self.moved.lock();
        let deleted = std::mem::take(&mut moved.deleted);
        moved.writing = Arc::default();
        let kept = writing
            .iter()
            .filter(|(id, place)| (result.is_err() || !is_ready(*place)) && !deleted.contains(id));
        for (id, place) in kept {
            // It may have moved on meanwhile.
            if moved.places.get(id).is_none() {
                moved.places.set(id, place);
            }
        }
        result
    }
}

/// The row read last: cursors made one after the other share one.
#[derive(Debug, Default)]
struct Rows(Option<(u64, Row)>);

impl Rows {
    fn place(&mut self, meta: &Meta, cursor: CursorId) -> Result<Option<CursorPlace>> {
        let number = cursor.0 / ROW_CURSORS;
        let (_, row) = match self.0.take().filter(|(row, _)| *row == number) {
            Some(row) => self.0.insert(row),
            None => self.0.insert((number, meta.cursor_row(cursor)?)),
        };
        Ok(row.get(&(cursor.0 % ROW_CURSORS)).copied().flatten())
    }
}

/// Numbers for new cursors.
#[derive(Debug, Default)]
pub(super) struct CursorIds {
    next: u64,
    /// Those below are written down as taken.
    reserved: u64,
}

impl Meta {
    pub(super) fn load_next_cursor(&self) -> Result<()> {
        let key = [prefix::NEXT_CURSOR];
        let next = match self.get(key)? {
            None => 0,
            Some(value) => u64::from_le_bytes(
                value.try_into().map_err(|_| bad_value("the number of the next cursor", &key))?,
            ),
        };
        *self.cursor_ids.lock() = CursorIds { next, reserved: next };
        Ok(())
    }

    /// Makes cursors, as durably as the store promises, all or none. The number of the first; the others follow.
    fn put_cursors(&self, cursors: &[(&CursorKey, CursorPlace)]) -> Result<u64> {
        let mut batch = WriteBatch::default();
        let mut ids = self.cursor_ids.lock();
        let first = ids.next;
        if cursors.is_empty() {
            return Ok(first);
        }
        let end = first + cursors.len() as u64;
        let reserved = if end > ids.reserved { end + RESERVE } else { ids.reserved };
        if reserved > ids.reserved {
            // In the same write as the first of them: they cannot be there without it.
            batch.put([prefix::NEXT_CURSOR], reserved.to_le_bytes());
        }
        // Whatever becomes of the write: what a disk has of one that failed is not known.
        ids.next = end;
        let mut part = Vec::new();
        for (id, (key, place)) in (first..).zip(cursors) {
            batch.put(name_key(key), id.to_le_bytes());
            part.clear();
            put_entry(&mut part, id, Some(*place));
            batch.merge(row_key(CursorId(id)), &part);
        }
        // Under the lock: a number that is reserved is so before another one of its step is used.
        self.write(batch)?;
        ids.reserved = reserved;
        Ok(first)
    }

    fn cursor_id(&self, key: &CursorKey) -> Result<Option<CursorId>> {
        let row = name_key(key);
        let Some(value) = self.get(&row)? else { return Ok(None) };
        if let Some(place) = decode_place(&value) {
            // As version 1 wrote it.
            return self.put_cursors(&[(key, place)]).map(|id| Some(CursorId(id)));
        }
        let id = value.try_into().map_err(|_| bad_value("a cursor", &row))?;
        Ok(Some(CursorId(u64::from_le_bytes(id))))
    }

    fn cursor_row(&self, cursor: CursorId) -> Result<Row> {
        let key = row_key(cursor);
        let mut row = Row::new();
        if let Some(value) = self.get(key)? {
            read_row(&value, &mut row).map_err(|_| bad_value("places of cursors", &key))?;
        }
        Ok(row)
    }

    fn delete_cursor(&self, key: &CursorKey, cursor: CursorId) -> Result<()> {
        let mut batch = WriteBatch::default();
        batch.delete(name_key(key));
        let mut part = Vec::new();
        put_entry(&mut part, cursor.0, None);
        batch.merge(row_key(cursor), part);
        self.write_relaxed(batch)
    }

    /// Hands on every cursor, in the order of owners.
    pub(crate) fn every_cursor(&self, mut each: impl FnMut(CursorKey, CursorPlace)) -> Result<()> {
        let all = [prefix::CURSOR];
        let mut rows = Rows::default();
        self.scan(&all, &all, false, |key, value| {
            let bad = || bad_value("a cursor", key);
            // Version 1 wrote the place itself.
            let place = match (decode_place(value), value.try_into()) {
                (Some(place), _) => Some(place),
                (None, Ok(id)) => rows.place(self, CursorId(u64::from_le_bytes(id)))?,
                (None, Err(_)) => return Err(bad()),
            };
            each(decode_name_key(key).ok_or_else(bad)?, place.unwrap_or_default());
            Ok(true)
        })
    }

    /// Cursors of owners that begin with `owner_prefix`, after `after`.
    fn cursors(
        &self,
        owner_prefix: &str,
        after: Option<&CursorKey>,
        limit: usize,
    ) -> Result<Vec<(CursorKey, CursorId)>> {
        let mut all = vec![prefix::CURSOR];
        all.extend_from_slice(owner_prefix.as_bytes());
        let from = after.map_or_else(|| all.clone(), name_key);
        let mut keys = Vec::new();
        self.scan(&all, &from, after.is_some(), |key, _| {
            if keys.len() == limit {
                return Ok(false);
            }
            keys.push(decode_name_key(key).ok_or_else(|| bad_value("a cursor", key))?);
            Ok(true)
        })?;
        let ids =
            keys.into_iter().filter_map(|key| Some(self.cursor_id(&key).transpose()?.map(|id| (key, id))));
        ids.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Point, fail_nth};
    use proptest::prelude::*;

    fn any_row() -> impl Strategy<Value = Row> {
        let place =
            (any::<u64>(), any::<u64>()).prop_map(|(offset, sequence)| CursorPlace { offset, sequence });
        prop::collection::btree_map(0..ROW_CURSORS, prop::option::of(place), 0..20)
    }

    fn packed(row: &Row) -> Vec<u8> {
        let mut out = Vec::new();
        row.iter().for_each(|(number, place)| put_entry(&mut out, *number, *place));
        out
    }

    proptest! {
        #[test]
        fn round_trips(owner in "[^\0]{0,20}", queue: u64, offset: u64, sequence: u64) {
            let key = CursorKey { owner, queue: QueueId(queue) };
            prop_assert_eq!(decode_name_key(&name_key(&key)), Some(key));
            let place = CursorPlace { offset, sequence };
            prop_assert_eq!(decode_place(&encode_place(place)), Some(place));
        }

        #[test]
        fn rows_round_trip_and_the_last_place_counts(parts in prop::collection::vec(any_row(), 1..5)) {
            let packed: Vec<Vec<u8>> = parts.iter().map(packed).collect();
            let mut expected = Row::new();
            parts.iter().for_each(|part| expected.extend(part.clone()));
            let read = |value: &[u8]| {
                let mut row = Row::new();
                read_row(value, &mut row).map(|()| row)
            };
            let part = merge(packed.iter().map(Vec::as_slice), false);
            prop_assert_eq!(read(&part), Ok(expected.clone()));
            let whole = merge(packed.iter().map(Vec::as_slice), true);
            expected.retain(|_, place| place.is_some());
            prop_assert_eq!(read(&whole), Ok(expected.clone()));
            prop_assert_eq!(merge([part.as_slice()].into_iter(), true), whole);
        }

        #[test]
        fn any_bytes_are_refused_or_read(bytes: Vec<u8>) {
            let _ = (decode_name_key(&bytes), decode_place(&bytes), read_row(&bytes, &mut Row::new()));
            let _ = merge([bytes.as_slice(), &bytes].into_iter(), true);
        }
    }

    #[test]
    fn a_cursor_of_version_1_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let meta = Meta::open(dir.path(), crate::Flush::Sync).unwrap();
        let key = CursorKey { owner: "a".into(), queue: QueueId(7) };
        let place = CursorPlace { offset: 3, sequence: 48 };
        let mut batch = WriteBatch::default();
        batch.put(name_key(&key), encode_place(place));
        meta.write(batch).unwrap();
        let cursors = Cursors::default();
        assert_eq!(cursors.page(&meta, "", None, 9).unwrap(), [(key.clone(), place)]);
        let found = cursors
            .find_or_create(&meta, &[(key, Start::Latest)], |_, _| unreachable!(), || unreachable!())
            .unwrap();
        assert_eq!((found[0].0.place, found[0].1), (place, true));
    }

    fn key(owner: &str) -> CursorKey {
        CursorKey { owner: owner.into(), queue: QueueId(7) }
    }

    fn create(cursors: &Cursors, meta: &Meta, owner: &str) -> Result<Cursor> {
        let start = |_: &_, _| Ok(CursorPlace::default());
        let made = cursors.find_or_create(meta, &[(key(owner), Start::Latest)], start, || Ok(()))?;
        Ok(made[0].0)
    }

    #[test]
    fn no_two_cursors_have_one_number_whatever_could_not_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let cursors = Cursors::default();
        let mut seen = HashSet::default();
        for round in 0..3 {
            let meta = Meta::open(dir.path(), crate::Flush::Sync).unwrap();
            {
                // This one would have reserved numbers.
                let fault = fail_nth(dir.path(), Point::MetaWrite, 1, 5);
                create(&cursors, &meta, "never").unwrap_err();
                assert!(fault.struck());
            }
            for n in 0..3 {
                let cursor = create(&cursors, &meta, &format!("{round}/{n}")).unwrap();
                assert!(seen.insert(cursor.id), "{cursor:?} of round {round} is another's too");
            }
        }
    }

    #[test]
    fn a_cursor_that_could_not_be_deleted_keeps_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let meta = Meta::open(dir.path(), crate::Flush::Sync).unwrap();
        let cursors = Cursors::default();
        let cursor = create(&cursors, &meta, "a").unwrap();
        let place = CursorPlace { offset: 3, sequence: 48 };
        cursors.set(cursor.id, place);
        {
            let _fault = fail_nth(dir.path(), Point::MetaWrite, 1, 5);
            cursors.delete(&meta, &key("a")).unwrap_err();
        }
        assert_eq!(cursors.place(&meta, cursor.id).unwrap(), place);
        cursors.delete(&meta, &key("a")).unwrap();
        cursors.write(&meta, u64::MAX).unwrap();
        assert_eq!(cursors.page(&meta, "", None, 9).unwrap(), []);
    }
}
