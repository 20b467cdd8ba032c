//! [`Model`]: what a store should have.

use std::collections::BTreeMap;

use bytes::Bytes;
use tidemill_store::{CursorKey, CursorPlace, DeadLetter, Flush, QueueId, QueueKind, Record, Retain, filter};

/// A queue as it should be.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    pub(crate) kind: QueueKind,
    pub(crate) name: String,
    pub(crate) live: bool,
    pub(crate) references: usize,
    /// Offset of the first entry it ever had.
    pub(crate) first: u64,
    /// Places in [`Model::records`].
    pub(crate) entries: Vec<usize>,
    /// So many first entries came while it was live: they may go with the process.
    pub(crate) soft: usize,
}

impl Queue {
    pub(crate) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn wants(&self, topic: &str) -> bool {
        match &self.kind {
            QueueKind::Filter => filter::matches(&self.name, topic),
            QueueKind::Union(filters) => filters.iter().any(|filter| filter::matches(filter, topic)),
            QueueKind::Derived => false,
        }
    }
}

/// One [`tidemill_store::Store::derive`].
#[derive(Clone, Debug)]
pub(crate) struct Derivation {
    pub(crate) place: CursorPlace,
    pub(crate) entries: Vec<(QueueId, usize)>,
}

/// What a store should have.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) flush: Flush,
    pub(crate) records: Vec<Record>,
    /// By shard: retention has deleted the records before this offset.
    pub(crate) starts: BTreeMap<u16, u64>,
    /// Retained messages that were written again, by the sequence that they had first.
    pub(crate) kept: BTreeMap<u64, Record>,
    /// Sequence of the next record.
    pub(crate) sequence: u64,
    pub(crate) queues: BTreeMap<QueueId, Queue>,
    /// Places that each cursor had since it was surely written, the last one being its own.
    pub(crate) cursors: BTreeMap<CursorKey, Vec<CursorPlace>>,
    pub(crate) documents: BTreeMap<String, Bytes>,
    /// When something is due for a document, of those that have such a time.
    pub(crate) due: BTreeMap<String, i64>,
    pub(crate) letters: BTreeMap<String, BTreeMap<u64, DeadLetter>>,
    /// What was derived from the one source of derived queues.
    pub(crate) derivations: Vec<Derivation>,
    /// So many of them are surely written.
    pub(crate) derived_surely: usize,
}

impl Model {
    pub(crate) fn new(flush: Flush) -> Self {
        Model {
            flush,
            records: Vec::new(),
            starts: BTreeMap::new(),
            kept: BTreeMap::new(),
            sequence: 1,
            queues: BTreeMap::new(),
            cursors: BTreeMap::new(),
            documents: BTreeMap::new(),
            due: BTreeMap::new(),
            letters: BTreeMap::new(),
            derivations: Vec::new(),
            derived_surely: 0,
        }
    }

    /// Enters a record that was stored.
    pub(crate) fn store(&mut self, record: Record) {
        for queue in self.queues.values_mut().filter(|queue| queue.wants(&record.topic)) {
            queue.entries.push(self.records.len());
        }
        self.sequence = record.sequence + 1;
        self.records.push(record);
    }

    /// Whether a record is still in the log.
    pub(crate) fn has(&self, record: &Record) -> bool {
        self.starts.get(&record.position.shard()).is_none_or(|start| record.position.offset() >= *start)
    }

    /// Records that are still in the log.
    pub(crate) fn there(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(|record| self.has(record))
    }

    /// The queue of a name.
    pub(crate) fn named(&self, kind: &QueueKind, name: &str) -> Option<QueueId> {
        let is = |queue: &Queue| {
            queue.name == name && std::mem::discriminant(&queue.kind) == std::mem::discriminant(kind)
        };
        self.queues.iter().find(|(_, queue)| is(queue)).map(|(id, _)| *id)
    }

    /// Records that match a filter and are still there.
    pub(crate) fn matching(&self, text: &str) -> Vec<usize> {
        let all = self.records.iter().enumerate().filter(|(_, record)| self.has(record));
        all.filter(|(_, record)| filter::matches(text, &record.topic)).map(|(place, _)| place).collect()
    }

    /// Offset and record of all entries of a queue whose record is still there.
    pub(crate) fn entries(&self, queue: QueueId) -> impl Iterator<Item = (u64, &Record)> {
        let queue = &self.queues[&queue];
        let all = (queue.first..).zip(queue.entries.iter().map(|place| &self.records[*place]));
        all.filter(|(_, record)| self.has(record))
    }

    /// Offset of a queue's first entry that is still there; its end if there is none.
    pub(crate) fn first(&self, queue: QueueId) -> u64 {
        self.entries(queue).next().map_or(self.queues[&queue].end(), |(offset, _)| offset)
    }

    /// Whether an offset is where a search may end: before it everything is too early, from it on nothing is. Entries that are gone are neither.
    pub(crate) fn divides(&self, queue: QueueId, offset: u64, is_late: impl Fn(&Record) -> bool) -> bool {
        let end = self.queues[&queue].end();
        offset <= end && self.entries(queue).all(|(at, record)| is_late(record) == (at >= offset))
    }

    /// The retained messages, by topic.
    pub(crate) fn retained(&self) -> BTreeMap<&str, &Record> {
        let mut retained = BTreeMap::new();
        for record in &self.records {
            match record.retain {
                Retain::No => {}
                Retain::Set => {
                    let newest = self.kept.get(&record.sequence).unwrap_or(record);
                    retained.insert(&*record.topic, newest);
                }
                Retain::Clear => drop(retained.remove(&*record.topic)),
            }
        }
        retained
    }

    /// Whether a found cursor may be at this place: in a derived queue it follows its record.
    pub(crate) fn may_be_found(&self, key: &CursorKey, place: CursorPlace, found: CursorPlace) -> bool {
        match self.queues.get(&key.queue) {
            Some(queue) if queue.kind == QueueKind::Derived && place.sequence > 0 => {
                let is_late = |record: &Record| record.sequence > place.sequence;
                found.sequence == place.sequence && self.divides(key.queue, found.offset, is_late)
            }
            _ => found == place,
        }
    }

    /// Forgets all but the first derivations.
    pub(crate) fn derived_only(&mut self, count: usize) {
        for derivation in self.derivations.drain(count..) {
            for (id, _) in derivation.entries {
                if let Some(queue) = self.queues.get_mut(&id) {
                    queue.entries.pop();
                }
            }
        }
        self.derived_surely = count;
    }

    /// After an orderly end everything is written.
    pub(crate) fn closed(&mut self) {
        self.derived_surely = self.derivations.len();
        self.queues.values_mut().for_each(|queue| queue.soft = 0);
        self.cursors.values_mut().for_each(|places| drop(places.drain(..places.len() - 1)));
        self.reopened();
    }

    /// What is left after the store was opened again: nobody refers to anything, and what was in memory only is gone.
    pub(crate) fn reopened(&mut self) {
        self.queues.retain(|_, queue| !queue.live);
        self.queues.values_mut().for_each(|queue| queue.references = 0);
    }
}
