//! [`Queues`]: which queues a record belongs to, by the catalogue.

use crate::meta::Meta;
use crate::meta::catalogue::{Kind, Past, enters};
use crate::queue::trie::Trie;
use crate::{QueueId, Record, Result};

/// Every queue of the catalogue, by number.
pub(super) struct Queues {
    pub(super) queues: Vec<Queue>,
    trie: Trie,
}

/// What decides about the entries of a queue. There may be a million.
pub(super) struct Queue {
    pub(super) id: QueueId,
    pub(super) kind: Kind,
    pub(super) base: u64,
    pub(super) past: Option<Past>,
    /// The smallest sequence that a filter counts from.
    pub(super) start: u64,
    /// The filters of one that has several, each with the sequence it counts from.
    filters: Option<Box<[(String, u64)]>>,
}

impl Queue {
    /// Whether the queue has its history.
    pub(super) fn is_filled(&self) -> bool {
        self.past.is_some_and(|past| past.filled)
    }

    /// The offset of the first entry that counts: what a fill that was interrupted left before it does not.
    pub(super) fn counts_from(&self) -> u64 {
        if self.past.is_some_and(|past| !past.filled) { self.base } else { 0 }
    }

    /// Whether a record with a topic that matches entered by one of the present filters when it was stored.
    pub(super) fn entered(&self, record: &Record) -> bool {
        match &self.filters {
            None => record.sequence >= self.start,
            Some(filters) => enters(filters, record),
        }
    }

    /// Whether a record with a topic that matches, which was stored before the filters counted, is of the queue's history.
    pub(super) fn has_in_history(&self, record: &Record) -> bool {
        self.past.is_some_and(|past| past.filled && record.time_ms >= past.since_ms)
    }
}

impl Queues {
    pub(super) fn load(meta: &Meta) -> Result<Self> {
        let mut found = Queues { queues: Vec::new(), trie: Trie::default() };
        meta.catalogue(|entry| {
            let place = found.queues.len() as u32;
            for (filter, _) in &entry.routes {
                found.trie.add(filter, place);
            }
            let start = entry.routes.iter().map(|(_, start)| *start).min().unwrap_or(0);
            let filters = (entry.kind == Kind::Union).then(|| entry.routes.into_boxed_slice());
            let (id, kind, base, past) = (entry.id, entry.kind, entry.base, entry.past);
            found.queues.push(Queue { id, kind, base, past, start, filters });
            Ok(())
        })?;
        Ok(found)
    }

    /// Sets `found` to the places of the queues with a filter that a topic matches, in order.
    pub(super) fn matching(&self, topic: &str, found: &mut Vec<u32>) {
        found.clear();
        self.trie.find(topic, found);
    }

    /// The place of a queue.
    pub(super) fn place(&self, id: QueueId) -> Option<usize> {
        self.queues.binary_search_by_key(&id, |queue| queue.id).ok()
    }

    pub(super) fn get(&self, place: u32) -> Option<&Queue> {
        self.queues.get(place as usize)
    }
}
