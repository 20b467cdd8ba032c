//! [`Table`]: where each queue ends, its entries that are not in RocksDB yet, and who waits for more.
//!
//! It is locked once for a batch, never for a record.

use bytestring::ByteString;
use foldhash::HashMap;
use smallvec::SmallVec;

use super::index::Index;
use crate::{CursorKey, CursorPlace, Pointer, QueueId, Result, Retain, Watcher};

/// A queue that was used since the store was opened.
#[derive(Debug)]
struct Queue {
    /// Offset of the next entry.
    end: u64,
    /// Entries `[end - recent.len(), end)`: those not in RocksDB yet.
    recent: Vec<Pointer>,
    /// Listed in [`Table::changed`].
    changed: bool,
    /// Someone in [`Table::watches`] waits for it.
    watched: bool,
    /// Listed in [`Table::touched`].
    touched: bool,
}

impl Queue {
    fn recent_first(&self) -> u64 {
        self.end - self.recent.len() as u64
    }
}

/// Someone who waits for an offset.
#[derive(Debug)]
struct Watch {
    offset: u64,
    durable: bool,
    watcher: Watcher,
    token: u64,
}

/// Entries found in memory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// These, beginning at the offset asked for; none when it is the end.
    Recent(Vec<Pointer>),
    /// Those before this offset are in RocksDB.
    Older { before: u64 },
}

/// What the next checkpoint writes.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// Queue, offset of the first entry, entries.
    pub(crate) entries: Vec<(QueueId, u64, Vec<Pointer>)>,
    pub(crate) deleted: Vec<QueueId>,
    pub(crate) places: Vec<(CursorKey, CursorPlace)>,
    pub(crate) retained: Vec<(ByteString, Option<Pointer>)>,
    /// The log is dispatched up to here.
    pub(crate) dispatched: u64,
    /// Time of the last record before it.
    pub(crate) time_ms: i64,
}

/// All queues.
#[derive(Debug, Default)]
pub(crate) struct Table {
    queues: HashMap<u64, Queue>,
    watches: HashMap<u64, SmallVec<[Watch; 1]>>,
    /// Queues with watches that wait for the durable end, and how many: so that a sync looks at no others.
    durable_watches: HashMap<u64, usize>,
    touched: Vec<u64>,
    changed: Vec<u64>,
    deleted: Vec<QueueId>,
    places: HashMap<CursorKey, CursorPlace>,
    changed_places: Vec<CursorKey>,
    /// Retained messages that changed and are not in the meta database yet; `None`: cleared.
    retained: HashMap<ByteString, Option<Pointer>>,
    /// Those that the checkpoint in progress writes.
    retained_writing: HashMap<ByteString, Option<Pointer>>,
    dispatched: u64,
    /// Time of the last record dispatched.
    time_ms: i64,
    entries: u64,
    waiting_entries: usize,
    retained_bytes: usize,
    retained_writing_bytes: usize,
}

/// Bytes that one entry takes in memory until RocksDB has it.
pub(crate) const ENTRY_BYTES: usize = size_of::<Pointer>();
/// Bytes that a retained message takes beside its topic, about.
const RETAINED_EXTRA_BYTES: usize = 80;

impl Table {
    fn load(&mut self, index: &Index, id: u64) -> Result<&mut Queue> {
        use std::collections::hash_map::Entry;
        match self.queues.entry(id) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let end = index.end(QueueId(id))?;
                Ok(entry.insert(Queue {
                    end,
                    recent: Vec::new(),
                    changed: false,
                    watched: false,
                    touched: false,
                }))
            }
        }
    }

    /// Makes sure that a queue is in memory, so that [`Table::push`] cannot fail.
    pub(crate) fn prepare(&mut self, index: &Index, id: u64) -> Result<()> {
        self.load(index, id).map(drop)
    }

    /// Appends an entry.
    pub(crate) fn push(&mut self, index: &Index, id: u64, pointer: Pointer) -> Result<()> {
        let queue = self.load(index, id)?;
        queue.recent.push(pointer);
        queue.end += 1;
        let changed = !std::mem::replace(&mut queue.changed, true);
        let touched = queue.watched && !std::mem::replace(&mut queue.touched, true);
        if changed {
            self.changed.push(id);
        }
        if touched {
            self.touched.push(id);
        }
        self.entries += 1;
        self.waiting_entries += 1;
        Ok(())
    }

    /// Notes what a record does to the retained message of its topic.
    pub(crate) fn note_retained(&mut self, retain: Retain, topic: &str, pointer: Pointer) {
        let pointer = match retain {
            Retain::No => return,
            Retain::Set => Some(pointer),
            Retain::Clear => None,
        };
        // A copy: the record's own topic is a part of a larger buffer.
        let topic = ByteString::from(topic);
        let bytes = topic.len() + RETAINED_EXTRA_BYTES;
        if self.retained.insert(topic, pointer).is_none() {
            self.retained_bytes += bytes;
        }
    }

    /// Retained messages that the meta database does not have yet.
    pub(crate) fn recent_retained(&self) -> impl Iterator<Item = (&ByteString, Option<Pointer>)> {
        // Later ones win: they come second.
        self.retained_writing.iter().chain(&self.retained).map(|(topic, pointer)| (topic, *pointer))
    }

    /// Says that the log is dispatched up to `offset`, and rings whoever waited for what came.
    pub(crate) fn dispatched(&mut self, (offset, time_ms): (u64, i64), durable_end: u64) {
        self.dispatched = self.dispatched.max(offset);
        self.time_ms = self.time_ms.max(time_ms);
        self.ring_touched(durable_end);
    }

    /// Rings whoever waited for entries that came.
    pub(crate) fn ring_touched(&mut self, durable_end: u64) {
        for id in std::mem::take(&mut self.touched) {
            if let Some(queue) = self.queues.get_mut(&id) {
                queue.touched = false;
            }
            self.ring(id, durable_end);
        }
    }

    /// Rings those who waited for the durable end to move.
    pub(crate) fn durable_end_moved(&mut self, durable_end: u64) {
        let waiting: SmallVec<[u64; 16]> = self.durable_watches.keys().copied().collect();
        for id in waiting {
            self.ring(id, durable_end);
        }
    }

    fn ring(&mut self, id: u64, durable_end: u64) {
        let (Some(queue), Some(watches)) = (self.queues.get_mut(&id), self.watches.get_mut(&id)) else {
            return;
        };
        let mut rung = 0;
        watches.retain(|watch| {
            let ready = is_ready(queue, watch.offset, watch.durable, durable_end);
            if ready {
                watch.watcher.ring(watch.token);
                rung += usize::from(watch.durable);
            }
            !ready
        });
        if watches.is_empty() {
            queue.watched = false;
            self.watches.remove(&id);
        }
        self.fewer_durable(id, rung);
    }

    fn fewer_durable(&mut self, id: u64, fewer: usize) {
        if let Some(count) = self.durable_watches.get_mut(&id) {
            *count = count.saturating_sub(fewer);
            if *count == 0 {
                self.durable_watches.remove(&id);
            }
        }
    }

    /// See [`crate::Store::watch`].
    pub(crate) fn watch(
        &mut self,
        index: &Index,
        id: QueueId,
        (offset, durable, durable_end): (u64, bool, u64),
        watcher: &Watcher,
        token: u64,
    ) -> Result<()> {
        self.unwatch(id, watcher, Some(token));
        let queue = self.load(index, id.0)?;
        if is_ready(queue, offset, durable, durable_end) {
            watcher.ring(token);
            return Ok(());
        }
        queue.watched = true;
        if durable {
            *self.durable_watches.entry(id.0).or_default() += 1;
        }
        let watch = Watch { offset, durable, watcher: watcher.clone(), token };
        self.watches.entry(id.0).or_default().push(watch);
        Ok(())
    }

    /// Takes away the watches of a watcher, or the one with `token`.
    pub(crate) fn unwatch(&mut self, id: QueueId, watcher: &Watcher, token: Option<u64>) {
        let Some(watches) = self.watches.get_mut(&id.0) else { return };
        let mut fewer = 0;
        watches.retain(|watch| {
            let gone = watch.watcher.same(watcher) && token.is_none_or(|token| token == watch.token);
            if gone {
                fewer += usize::from(watch.durable);
            }
            !gone
        });
        if watches.is_empty() {
            self.watches.remove(&id.0);
            if let Some(queue) = self.queues.get_mut(&id.0) {
                queue.watched = false;
            }
        }
        self.fewer_durable(id.0, fewer);
    }

    /// The queue's end, if the queue is in memory.
    pub(crate) fn loaded_end(&self, id: QueueId) -> Option<u64> {
        self.queues.get(&id.0).map(|queue| queue.end)
    }

    /// The queue's end.
    pub(crate) fn end(&mut self, index: &Index, id: QueueId) -> Result<u64> {
        self.load(index, id.0).map(|queue| queue.end)
    }

    /// Offset of the first entry that is not in RocksDB, if the queue is in memory.
    pub(crate) fn recent_first(&self, id: QueueId) -> Option<u64> {
        self.queues.get(&id.0).map(Queue::recent_first)
    }

    /// Up to `entries_max` entries from an offset on, as far as they are in memory.
    pub(crate) fn find(&self, id: QueueId, from: u64, entries_max: usize) -> Option<Found> {
        let queue = self.queues.get(&id.0)?;
        let first = queue.recent_first();
        if from < first {
            return Some(Found::Older { before: first });
        }
        let recent = queue.recent.iter().skip((from - first) as usize).take(entries_max);
        Some(Found::Recent(recent.copied().collect()))
    }

    /// Forgets a queue and rings those who wait for it; the next checkpoint deletes its entries.
    pub(crate) fn delete(&mut self, id: QueueId) {
        if let Some(queue) = self.queues.remove(&id.0) {
            self.waiting_entries -= queue.recent.len();
        }
        // Whoever waits looks again, and finds that the queue is gone.
        for watch in self.watches.remove(&id.0).into_iter().flatten() {
            watch.watcher.ring(watch.token);
        }
        self.durable_watches.remove(&id.0);
        self.places.retain(|key, _| key.queue != id);
        self.deleted.push(id);
    }

    /// Sets the place of a consumer that derives queues.
    pub(crate) fn set_place(&mut self, key: CursorKey, place: CursorPlace) {
        self.changed_places.push(key.clone());
        self.places.insert(key, place);
    }

    pub(crate) fn place(&self, key: &CursorKey) -> Option<CursorPlace> {
        self.places.get(key).copied()
    }

    /// Begins a checkpoint. [`Table::written`] or [`Table::not_written`] ends it.
    pub(crate) fn snapshot(&mut self) -> Snapshot {
        let mut snapshot =
            Snapshot { dispatched: self.dispatched, time_ms: self.time_ms, ..Snapshot::default() };
        for id in std::mem::take(&mut self.changed) {
            if let Some(queue) = self.queues.get_mut(&id) {
                queue.changed = false;
                snapshot.entries.push((QueueId(id), queue.recent_first(), queue.recent.clone()));
            }
        }
        snapshot.deleted = std::mem::take(&mut self.deleted);
        let mut places = std::mem::take(&mut self.changed_places);
        places.sort();
        places.dedup();
        snapshot.places =
            places.into_iter().filter_map(|key| self.places.get(&key).map(|p| (key, *p))).collect();
        self.retained_writing = std::mem::take(&mut self.retained);
        self.retained_writing_bytes = std::mem::take(&mut self.retained_bytes);
        snapshot.retained =
            self.retained_writing.iter().map(|(topic, pointer)| (topic.clone(), *pointer)).collect();
        snapshot
    }

    /// The snapshot is in RocksDB: its entries need not be kept.
    pub(crate) fn written(&mut self, snapshot: &Snapshot) {
        self.retained_writing.clear();
        self.retained_writing_bytes = 0;
        for (id, first, entries) in &snapshot.entries {
            if let Some(queue) = self.queues.get_mut(&id.0)
                // A queue that was deleted and looked at again since has none of them.
                && queue.recent_first() == *first
                && queue.recent.len() >= entries.len()
            {
                queue.recent.drain(..entries.len());
                if queue.recent.is_empty() {
                    queue.recent = Vec::new();
                }
                self.waiting_entries -= entries.len();
            }
        }
    }

    /// The snapshot could not be written: the next one holds it again.
    pub(crate) fn not_written(&mut self, snapshot: Snapshot) {
        for (id, _, _) in snapshot.entries {
            if let Some(queue) = self.queues.get_mut(&id.0)
                && !std::mem::replace(&mut queue.changed, true)
            {
                self.changed.push(id.0);
            }
        }
        self.deleted.extend(snapshot.deleted);
        self.changed_places.extend(snapshot.places.into_iter().map(|(key, _)| key));
        for (topic, pointer) in std::mem::take(&mut self.retained_writing) {
            self.retained.entry(topic).or_insert(pointer);
        }
        self.retained_bytes += std::mem::take(&mut self.retained_writing_bytes);
    }

    /// Entries assigned since the store was opened.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// Bytes of entries and retained topics that RocksDB does not have yet.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting_entries * ENTRY_BYTES + self.retained_bytes + self.retained_writing_bytes
    }
}

fn is_ready(queue: &Queue, offset: u64, durable: bool, durable_end: u64) -> bool {
    if offset >= queue.end {
        return false;
    }
    // What is in RocksDB was durable before it was written there.
    let index = offset.checked_sub(queue.recent_first());
    !durable
        || index
            .and_then(|index| queue.recent.get(index as usize))
            .is_none_or(|pointer| pointer.position.offset() < durable_end)
}
