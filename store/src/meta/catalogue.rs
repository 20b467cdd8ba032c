//! The catalogue: which queues there are.
//!
//! ```text
//! key    1 ‖ queue (u64, big-endian)
//! value  version (1) ‖ kind (u8) ‖ name ‖ count of filters (u32) ‖ for each: filter ‖ start (u64)
//! ```
//! Texts are a length (u32) and UTF-8; numbers in values are little-endian. `start` is the log offset from which on records enter the
//! queue by this filter: re-dispatch after a crash must not put older ones there.

use bytes::{Buf, BufMut};
use rocksdb::WriteBatch;

use super::{Meta, bad_value, prefix};
use crate::{QueueId, QueueKind, Result};

const VERSION: u8 = 1;
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
    /// Filters, each with the log offset from which on it counts.
    pub(crate) routes: Vec<(String, u64)>,
}

/// See [`QueueKind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Filter,
    Union,
    Derived,
}

impl Entry {
    pub(crate) fn queue_kind(&self) -> QueueKind {
        match self.kind {
            Kind::Filter => QueueKind::Filter,
            Kind::Union => QueueKind::Union(self.routes.iter().map(|(filter, _)| filter.clone()).collect()),
            Kind::Derived => QueueKind::Derived,
        }
    }

    fn key(id: QueueId) -> [u8; 9] {
        let mut key = [prefix::CATALOGUE; 9];
        key[1..].copy_from_slice(&id.0.to_be_bytes());
        key
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.put_u8(match self.kind {
            Kind::Filter => FILTER,
            Kind::Union => UNION,
            Kind::Derived => DERIVED,
        });
        put_text(&mut out, &self.name);
        out.put_u32_le(self.routes.len() as u32);
        for (filter, start) in &self.routes {
            put_text(&mut out, filter);
            out.put_u64_le(*start);
        }
        out
    }

    fn decode(key: &[u8], mut value: &[u8]) -> Option<Self> {
        let id = QueueId(u64::from_be_bytes(key.get(1..)?.try_into().ok()?));
        if value.try_get_u8().ok()? != VERSION {
            return None;
        }
        let kind = match value.try_get_u8().ok()? {
            FILTER => Kind::Filter,
            UNION => Kind::Union,
            DERIVED => Kind::Derived,
            _ => return None,
        };
        let name = get_text(&mut value)?;
        let count = value.try_get_u32_le().ok()?;
        let routes = (0..count)
            .map(|_| Some((get_text(&mut value)?, value.try_get_u64_le().ok()?)))
            .collect::<Option<_>>()?;
        value.is_empty().then_some(Entry { id, kind, name, routes })
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

impl Meta {
    /// All queues.
    pub(crate) fn catalogue(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let start = [prefix::CATALOGUE];
        self.scan(&start, &start, false, |key, value| {
            entries
                .push(Entry::decode(key, value).ok_or_else(|| bad_value("a queue of the catalogue", key))?);
            Ok(true)
        })?;
        Ok(entries)
    }

    pub(crate) fn put_queue(&self, entry: &Entry) -> Result<()> {
        self.put(Entry::key(entry.id), entry.encode())
    }

    /// Deletes a queue from the catalogue.
    pub(crate) fn delete_queue(&self, id: QueueId) -> Result<()> {
        let mut batch = WriteBatch::default();
        batch.delete(Entry::key(id));
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

    /// A number no queue ever had.
    pub(crate) fn new_queue(&self) -> Result<QueueId> {
        let mut ids = self.queue_ids.lock();
        if ids.next >= ids.reserved {
            let reserved = ids.next + RESERVE;
            let mut batch = WriteBatch::default();
            batch.put([prefix::NEXT_QUEUE], reserved.to_le_bytes());
            // Entries of a queue may outlive a power cut that the reservation would not.
            self.write_synced(batch)?;
            ids.reserved = reserved;
        }
        ids.next += 1;
        Ok(QueueId(ids.next - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips(id: u64, kind in 0..3usize, name: String, routes: Vec<(String, u64)>) {
            let entry = Entry { id: QueueId(id), kind: [Kind::Filter, Kind::Union, Kind::Derived][kind], name, routes };
            prop_assert_eq!(Entry::decode(&Entry::key(entry.id), &entry.encode()), Some(entry));
        }

        #[test]
        fn any_bytes_are_refused_or_read(value: Vec<u8>) {
            let _ = Entry::decode(&Entry::key(QueueId(1)), &value);
        }
    }
}
