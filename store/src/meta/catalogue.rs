//! The catalogue: which queues there are.
//!
//! ```text
//! key    1 ‖ queue (u64, big-endian)
//! value  version (2) ‖ kind (u8) ‖ name ‖ base (u64) ‖ history (u8) ‖ since (i64) ‖ count of filters (u32) ‖ for each: filter ‖ start (u64)
//!
//! key    8 ‖ kind (u8) ‖ name
//! value  queue (u64)
//! ```
//! Texts are a length (u32) and UTF-8; numbers in values are little-endian. `start` is the sequence from which on records enter the
//! queue by this filter: re-dispatch after a crash must not put older ones there. `base` is where the first of them went. `history` is 1 while
//! the queue is still to be filled with records from before, stored at or after `since`, and 2 once it was. Version 1 had no base and no history (both were 0),
//! and no rows of names.

use bytes::{Buf, BufMut};
use rocksdb::WriteBatch;

use super::{Meta, bad_value, prefix};
use crate::database;
use crate::fault::{self, Point};
use crate::queue::filter;
use crate::{QueueId, Record, Result};

const VERSION: u8 = 2;
/// Queues rewritten in one batch.
const BATCH_QUEUES: usize = 4096;
const FILTER: u8 = 1;
const UNION: u8 = 2;
const DERIVED: u8 = 3;
/// Numbers of queues are reserved in steps, so that most new queues cost one write.
const RESERVE: u64 = 1024;

/// Numbers for new queues.
#[derive(Debug, Default)]
pub(super) struct QueueIds {
    next: u64,
    /// Those below are written down as taken.
    reserved: u64,
}

/// A queue as the catalogue has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: QueueId,
    pub(crate) kind: Kind,
    pub(crate) name: String,
    /// Offset of the first entry that its routes gave it.
    pub(crate) base: u64,
    /// What it has, or should have, from before its routes counted.
    pub(crate) past: Option<Past>,
    /// Filters, each with the sequence of the first record that it counts for.
    pub(crate) routes: Vec<(String, u64)>,
}

/// Records from before a queue's routes counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Past {
    /// Those stored at or after this time.
    pub(crate) since_ms: i64,
    /// They are in the queue.
    pub(crate) filled: bool,
}

/// See [`crate::QueueKind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Filter,
    Union,
    Derived,
}

impl Kind {
    fn to_u8(self) -> u8 {
        match self {
            Kind::Filter => FILTER,
            Kind::Union => UNION,
            Kind::Derived => DERIVED,
        }
    }
}

/// Whether a record enters a queue by one of its filters, each with the sequence from which on it counts.
pub(crate) fn enters(routes: &[(String, u64)], record: &Record) -> bool {
    routes.iter().any(|(filter, start)| record.sequence >= *start && filter::matches(filter, &record.topic))
}

impl Entry {
    fn key(id: QueueId) -> [u8; 9] {
        let mut key = [prefix::CATALOGUE; 9];
        key[1..].copy_from_slice(&id.0.to_be_bytes());
        key
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.put_u8(self.kind.to_u8());
        put_text(&mut out, &self.name);
        out.put_u64_le(self.base);
        out.put_u8(self.past.map_or(0, |past| 1 + u8::from(past.filled)));
        out.put_i64_le(self.past.map_or(0, |past| past.since_ms));
        out.put_u32_le(self.routes.len() as u32);
        for (filter, start) in &self.routes {
            put_text(&mut out, filter);
            out.put_u64_le(*start);
        }
        out
    }

    fn decode(key: &[u8], mut value: &[u8]) -> Option<Self> {
        let id = QueueId(u64::from_be_bytes(key.get(1..)?.try_into().ok()?));
        let version = value.try_get_u8().ok()?;
        let kind = match value.try_get_u8().ok()? {
            FILTER => Kind::Filter,
            UNION => Kind::Union,
            DERIVED => Kind::Derived,
            _ => return None,
        };
        let name = get_text(&mut value)?;
        let (base, past) = match version {
            1 => (0, None),
            VERSION => {
                let base = value.try_get_u64_le().ok()?;
                let history = value.try_get_u8().ok()?;
                let since_ms = value.try_get_i64_le().ok()?;
                (base, (history > 0).then_some(Past { since_ms, filled: history == 2 }))
            }
            _ => return None,
        };
        let count = value.try_get_u32_le().ok()?;
        let routes = (0..count)
            .map(|_| Some((get_text(&mut value)?, value.try_get_u64_le().ok()?)))
            .collect::<Option<_>>()?;
        value.is_empty().then_some(Entry { id, kind, name, base, past, routes })
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.put_u32_le(text.len() as u32);
    out.put_slice(text.as_bytes());
}

fn get_text(value: &mut &[u8]) -> Option<String> {
    let length = value.try_get_u32_le().ok()? as usize;
    let (text, rest) = value.split_at_checked(length)?;
    *value = rest;
    String::from_utf8(text.to_vec()).ok()
}

fn name_key(kind: Kind, name: &str) -> Vec<u8> {
    let mut key = vec![prefix::QUEUE_NAME, kind.to_u8()];
    key.extend_from_slice(name.as_bytes());
    key
}

impl Meta {
    /// Hands on all queues, in the order of their numbers.
    pub(crate) fn catalogue(&self, mut each: impl FnMut(Entry) -> Result<()>) -> Result<()> {
        let start = [prefix::CATALOGUE];
        self.scan(&start, &start, false, |key, value| {
            each(Entry::decode(key, value).ok_or_else(|| bad_value("a queue of the catalogue", key))?)?;
            Ok(true)
        })
    }

    /// Writes all queues again, as this version does: version 1 had no rows of names.
    pub(crate) fn rewrite_catalogue(&self) -> Result<()> {
        let mut after = None;
        loop {
            let page = self.queues(after, BATCH_QUEUES)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.id);
            self.put_queues(&page)?;
        }
    }

    /// Up to `limit` queues by number after `after`.
    pub(crate) fn queues(&self, after: Option<QueueId>, limit: usize) -> Result<Vec<Entry>> {
        let mut found = Vec::new();
        let from = after.map_or([prefix::CATALOGUE].to_vec(), |after| Entry::key(after).to_vec());
        self.scan(&[prefix::CATALOGUE], &from, after.is_some(), |key, value| {
            if found.len() == limit {
                return Ok(false);
            }
            found.push(Entry::decode(key, value).ok_or_else(|| bad_value("a queue of the catalogue", key))?);
            Ok(true)
        })?;
        Ok(found)
    }

    pub(crate) fn queue(&self, id: QueueId) -> Result<Option<Entry>> {
        let key = Entry::key(id);
        match self.get(key)? {
            None => Ok(None),
            Some(value) => Entry::decode(&key, &value)
                .map(Some)
                .ok_or_else(|| bad_value("a queue of the catalogue", &key)),
        }
    }

    /// The queue of a name.
    pub(crate) fn queue_named(&self, kind: Kind, name: &str) -> Result<Option<Entry>> {
        let key = name_key(kind, name);
        let Some(value) = self.get(&key)? else { return Ok(None) };
        let id = value.try_into().map_err(|_| bad_value("a queue's name", &key))?;
        self.queue(QueueId(u64::from_le_bytes(id)))
    }

    /// Up to `limit` queues of a kind whose names begin with `name_prefix`, by name after `after`.
    pub(crate) fn queues_named(
        &self,
        kind: Kind,
        name_prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Entry>> {
        let all = name_key(kind, name_prefix);
        let from = all.clone().max(name_key(kind, after.unwrap_or_default()));
        let is_behind = after.is_some_and(|after| after >= name_prefix);
        let mut found = Vec::new();
        self.scan(&all, &from, is_behind, |key, value| {
            if found.len() == limit {
                return Ok(false);
            }
            let id = value.try_into().map_err(|_| bad_value("a queue's name", key))?;
            found.extend(self.queue(QueueId(u64::from_le_bytes(id)))?);
            Ok(true)
        })?;
        Ok(found)
    }

    /// Writes queues, all or none.
    pub(crate) fn put_queues(&self, entries: &[Entry]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        fault::hit(Point::QueueRows, self.db.path())
            .map_err(|error| database::error("meta", error.to_string()))?;
        let mut batch = WriteBatch::default();
        for entry in entries {
            batch.put(Entry::key(entry.id), entry.encode());
            batch.put(name_key(entry.kind, &entry.name), entry.id.0.to_le_bytes());
        }
        self.write(batch)
    }

    /// Deletes queues from the catalogue, all or none.
    pub(crate) fn delete_queues(&self, entries: &[Entry]) -> Result<()> {
        let mut batch = WriteBatch::default();
        for entry in entries {
            batch.delete(Entry::key(entry.id));
            let name = name_key(entry.kind, &entry.name);
            if self.get(&name)?.is_some_and(|id| id == entry.id.0.to_le_bytes()) {
                batch.delete(name);
            }
        }
        self.write(batch)
    }

    pub(super) fn load_next_queue(&self) -> Result<()> {
        let key = [prefix::NEXT_QUEUE];
        let next = match self.get(key)? {
            None => 1,
            Some(value) => u64::from_le_bytes(
                value.try_into().map_err(|_| bad_value("the number of the next queue", &key))?,
            ),
        };
        *self.queue_ids.lock() = QueueIds { next, reserved: next };
        Ok(())
    }

    /// `count` numbers no queue ever had, from this one on.
    pub(crate) fn new_queues(&self, count: u64) -> Result<u64> {
        let mut ids = self.queue_ids.lock();
        if ids.next + count > ids.reserved {
            let reserved = ids.next + count.max(RESERVE);
            let mut batch = WriteBatch::default();
            batch.put([prefix::NEXT_QUEUE], reserved.to_le_bytes());
            // Entries of a queue may outlive a power cut that the reservation would not.
            self.write_synced(batch)?;
            ids.reserved = reserved;
        }
        ids.next += count;
        Ok(ids.next - count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips(id: u64, kind in 0..3usize, name: String, base: u64, past: Option<(i64, bool)>, routes: Vec<(String, u64)>) {
            let kind = [Kind::Filter, Kind::Union, Kind::Derived][kind];
            let past = past.map(|(since_ms, filled)| Past { since_ms, filled });
            let entry = Entry { id: QueueId(id), kind, name, base, past, routes };
            prop_assert_eq!(Entry::decode(&Entry::key(entry.id), &entry.encode()), Some(entry));
        }

        #[test]
        fn any_bytes_are_refused_or_read(key: Vec<u8>, mut value: Vec<u8>) {
            let _ = Entry::decode(&key, &value);
            let _ = Entry::decode(&Entry::key(QueueId(1)), &value);
            value.splice(0..0, [VERSION, UNION]);
            let _ = Entry::decode(&Entry::key(QueueId(1)), &value);
        }
    }

    #[test]
    fn version_1_is_read() {
        let mut value = vec![1, FILTER];
        put_text(&mut value, "a/b");
        value.put_u32_le(1);
        put_text(&mut value, "a/b");
        value.put_u64_le(48);
        let entry = Entry::decode(&Entry::key(QueueId(7)), &value).unwrap();
        assert_eq!((entry.base, entry.past), (0, None));
        assert_eq!(entry.routes, [("a/b".to_owned(), 48)]);
    }
}
