//! [`Table`]: all queues: where each one ends, its entries that are not in RocksDB yet, and who refers to it.
//!
//! It is locked once for a batch, never for a record. A queue that nobody writes to takes one [`Slot`] and its number's place in a
//! hash table; nothing is read from RocksDB to add to it.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;

use bytestring::ByteString;
use foldhash::HashMap;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use smallvec::SmallVec;
use std::hash::BuildHasher;

use super::watches::Watches;
use crate::log::cut::Cut;
use crate::log::shard::DurableEnds;
use crate::{CursorKey, CursorPlace, Pointer, QueueId, Result, Retain, StoreError, Watcher};

/// Where a queue is in the table; what the trie leads to. Used again for another queue once its own is deleted.
pub(crate) type SlotIndex = u32;

/// A queue.
#[derive(Debug)]
struct Slot {
    id: QueueId,
    /// Offset of the next entry.
    end: u64,
    /// Which of [`Recents`] it has: entries `[end - their count, end)`, of a durable queue those that are not in RocksDB yet, of a live
    /// one all there are.
    recent: RecentIndex,
    /// The flush that has it listed in [`Table::changed`].
    listed: u32,
    references: u32,
    fill: Fill,
    /// Someone in [`Watches`] waits for it.
    watched: bool,
    /// Listed in [`Table::touched`].
    touched: bool,
}

/// How a queue is filled and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fill {
    /// Nobody's slot.
    Free,
    /// By the log writer, in memory only.
    Live,
    /// By the log writer; derived from the log again after a crash.
    Routed,
    /// By whoever derives it from another queue.
    Derived,
}

/// Entries of queues that have any in memory: most of a million have none.
type RecentIndex = u32;

/// No entries.
const NO_RECENT: RecentIndex = u32::MAX;

/// Entries of queues in memory, each queue's in one place.
#[derive(Debug, Default)]
struct Recents {
    lists: Vec<SmallVec<[Pointer; 1]>>,
    free: Vec<RecentIndex>,
}

impl Recents {
    fn of(&self, slot: &Slot) -> &[Pointer] {
        self.lists.get(slot.recent as usize).map_or(&[], |list| list)
    }

    /// Offset of the first entry in memory; the end if there is none.
    fn first(&self, slot: &Slot) -> u64 {
        slot.end - self.of(slot).len() as u64
    }

    /// Appends an entry; how many there are then.
    fn push(&mut self, slot: &mut Slot, pointer: Pointer) -> usize {
        slot.end += 1;
        if let Some(list) = self.lists.get_mut(slot.recent as usize) {
            list.push(pointer);
            return list.len();
        }
        slot.recent = match self.free.pop() {
            Some(free) => free,
            None => {
                self.lists.push(SmallVec::new());
                (self.lists.len() - 1) as RecentIndex
            }
        };
        if let Some(list) = self.lists.get_mut(slot.recent as usize) {
            list.push(pointer);
        }
        1
    }

    /// Whether there is an entry at an offset, and if that is asked for, a durable one.
    fn is_ready(&self, slot: &Slot, offset: u64, wants_durable: bool, durable: &DurableEnds) -> bool {
        if offset >= slot.end {
            return false;
        }
        // What is in RocksDB was durable before it was written there.
        let index = offset.checked_sub(self.first(slot));
        !wants_durable
            || index
                .and_then(|index| self.of(slot).get(index as usize))
                .is_none_or(|pointer| durable.contains(pointer.position))
    }

    /// Takes away the first `count` entries.
    fn forget(&mut self, slot: &mut Slot, count: usize) {
        let Some(list) = self.lists.get_mut(slot.recent as usize) else { return };
        if count < list.len() {
            list.drain(..count);
            list.shrink_to_fit();
            return;
        }
        *list = SmallVec::new();
        self.free.push(std::mem::replace(&mut slot.recent, NO_RECENT));
        if self.free.len() == self.lists.len() {
            *self = Recents::default();
        }
    }
}

/// Entries found in memory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// These, each with its offset, from the one asked for on or the first there is; none at the end.
    Recent(Vec<(u64, Pointer)>),
    /// Those before this offset are in RocksDB.
    Older { before: u64 },
}

/// What a flush writes, beside the entries that the table still holds.
#[derive(Debug, Default)]
pub(crate) struct Flush {
    /// Queues with new entries, and how many entries of a derived one belong to this flush.
    pub(crate) queues: Vec<(SlotIndex, QueueId, Option<usize>)>,
    pub(crate) places: Vec<(CursorKey, CursorPlace)>,
    pub(crate) retained: Vec<(ByteString, Option<Pointer>)>,
    /// The log is dispatched up to here.
    pub(crate) cut: Cut,
}

/// All queues.
#[derive(Debug)]
pub(crate) struct Table {
    slots: Vec<Slot>,
    recents: Recents,
    /// Slots by the queue's number.
    by_id: HashTable<SlotIndex>,
    free: Vec<SlotIndex>,
    watches: Watches,
    touched: Vec<SlotIndex>,
    /// Queues with entries that the next flush writes.
    changed: Vec<SlotIndex>,
    /// Number of the next flush; a slot listed by it is in `changed`.
    flush: u32,
    places: HashMap<CursorKey, CursorPlace>,
    changed_places: Vec<CursorKey>,
    /// Retained messages that changed and are not in the meta database yet; `None`: cleared.
    retained: BTreeMap<ByteString, Option<Pointer>>,
    /// Those that the flush in progress writes.
    retained_writing: BTreeMap<ByteString, Option<Pointer>>,
    dispatched: Cut,
    entries: u64,
    waiting_entries: usize,
    live_queues: usize,
    live_entries: usize,
    live_entries_max: usize,
    retained_bytes: usize,
    retained_writing_bytes: usize,
}

/// Bytes that one entry takes in memory until RocksDB has it.
pub(crate) const ENTRY_BYTES: usize = size_of::<Pointer>();
/// Bytes that a retained message takes beside its topic, about.
const RETAINED_EXTRA_BYTES: usize = 80;
/// A live queue keeps so many entries whatever the others take, or its share of what there is, if that is less.
const LIVE_ENTRIES_FAIR: usize = 256;

const _: () = assert!(size_of::<Slot>() <= 32, "a million idle queues are a normal day");

fn hash(id: QueueId) -> u64 {
    FixedState::default().hash_one(id.0)
}

impl Table {
    /// A table without queues, whose live ones together keep up to about `live_bytes_max` bytes of entries.
    pub(crate) fn new(live_bytes_max: usize) -> Self {
        Table {
            slots: Vec::new(),
            recents: Recents::default(),
            by_id: HashTable::new(),
            free: Vec::new(),
            watches: Watches::default(),
            touched: Vec::new(),
            changed: Vec::new(),
            flush: 1,
            places: HashMap::default(),
            changed_places: Vec::new(),
            retained: BTreeMap::new(),
            retained_writing: BTreeMap::new(),
            dispatched: Cut::default(),
            entries: 0,
            waiting_entries: 0,
            live_queues: 0,
            live_entries: 0,
            live_entries_max: live_bytes_max / ENTRY_BYTES,
            retained_bytes: 0,
            retained_writing_bytes: 0,
        }
    }

    /// Adds a queue that ends at `end`.
    pub(crate) fn insert(&mut self, id: QueueId, fill: Fill, end: u64) -> SlotIndex {
        let slot = Slot {
            id,
            end,
            recent: NO_RECENT,
            listed: 0,
            references: 0,
            fill,
            watched: false,
            touched: false,
        };
        self.live_queues += usize::from(fill == Fill::Live);
        let index = match self.free.pop() {
            Some(index) => index,
            None => self.slots.len() as SlotIndex,
        };
        match self.slots.get_mut(index as usize) {
            Some(free) => *free = slot,
            None => self.slots.push(slot),
        }
        let slots = &self.slots;
        self.by_id.insert_unique(hash(id), index, |index| {
            slots.get(*index as usize).map_or(0, |slot| hash(slot.id))
        });
        index
    }

    /// Sets where a queue ends that has nothing in memory.
    pub(crate) fn set_end(&mut self, id: QueueId, end: u64) {
        if let Some((_, slot)) = self.slot_mut(id) {
            slot.end = end;
        }
    }

    /// Where a queue is.
    pub(crate) fn index(&self, id: QueueId) -> Option<SlotIndex> {
        let is = |index: &SlotIndex| self.slots.get(*index as usize).is_some_and(|slot| slot.id == id);
        self.by_id.find(hash(id), is).copied()
    }

    /// The queue in a slot.
    pub(crate) fn at(&self, index: SlotIndex) -> Option<(QueueId, Fill)> {
        self.slots.get(index as usize).filter(|slot| slot.fill != Fill::Free).map(|slot| (slot.id, slot.fill))
    }

    fn slot(&self, id: QueueId) -> Option<&Slot> {
        self.slots.get(self.index(id)? as usize)
    }

    fn slot_mut(&mut self, id: QueueId) -> Option<(SlotIndex, &mut Slot)> {
        let index = self.index(id)?;
        Some((index, self.slots.get_mut(index as usize)?))
    }

    /// How a queue is filled, if there is such a queue.
    pub(crate) fn fill(&self, id: QueueId) -> Option<Fill> {
        self.slot(id).map(|slot| slot.fill)
    }

    /// Makes a live queue durable: its next flush writes what it has. Its end, and the sequence of the next record that may
    /// enter it: a flush that does not have the queue yet is of a cut before that.
    pub(crate) fn promote(&mut self, id: QueueId) -> Option<(u64, u64)> {
        let sequence = self.dispatched.sequence;
        let index = self.index(id)?;
        let slot = self.slots.get_mut(index as usize)?;
        let end = slot.end;
        if slot.fill == Fill::Live {
            slot.fill = Fill::Routed;
            let entries = self.recents.of(slot).len();
            self.live_entries -= entries;
            self.live_queues -= 1;
            self.waiting_entries += entries;
            self.list(index);
        }
        Some((end, sequence))
    }

    /// Takes a reference to a queue.
    pub(crate) fn refer(&mut self, id: QueueId) {
        if let Some((_, slot)) = self.slot_mut(id) {
            slot.references += 1;
        }
    }

    /// Gives a reference back; whether it was the last.
    pub(crate) fn release(&mut self, id: QueueId) -> bool {
        let Some((_, slot)) = self.slot_mut(id) else { return false };
        let was_last = slot.references == 1;
        slot.references = slot.references.saturating_sub(1);
        was_last
    }

    /// Whether anyone refers to a queue.
    pub(crate) fn is_referred_to(&self, id: QueueId) -> bool {
        self.slot(id).is_some_and(|slot| slot.references > 0)
    }

    /// Queues that the log writer fills and nobody refers to.
    pub(crate) fn unreferenced(&self) -> Vec<QueueId> {
        let routed = |slot: &&Slot| matches!(slot.fill, Fill::Routed | Fill::Live);
        self.slots.iter().filter(routed).filter(|slot| slot.references == 0).map(|slot| slot.id).collect()
    }

    /// How many queues there are.
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Looks at queues that are about to get entries. Where there are very many queues, each look waits for memory; here they wait
    /// together, as none depends on another.
    pub(crate) fn approach(&self, queues: &[SlotIndex]) {
        let slots = queues.iter().filter_map(|index| self.slots.get(*index as usize));
        std::hint::black_box(slots.fold(0, |ends, slot| ends ^ slot.end));
    }

    /// Appends an entry.
    pub(crate) fn push(&mut self, index: SlotIndex, pointer: Pointer) {
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        let count = self.recents.push(slot, pointer);
        self.entries += 1;
        if slot.watched && !std::mem::replace(&mut slot.touched, true) {
            self.touched.push(index);
        }
        match slot.fill {
            Fill::Live => {
                self.live_entries += 1;
                let fair = (self.live_entries_max / self.live_queues.max(1)).clamp(1, LIVE_ENTRIES_FAIR);
                if self.live_entries > self.live_entries_max && count > fair {
                    // Whoever has most to lose notices least; halving makes the moves cheap.
                    let gone = count / 2;
                    self.recents.forget(slot, gone);
                    self.live_entries -= gone;
                }
            }
            Fill::Routed | Fill::Derived => {
                self.waiting_entries += 1;
                if slot.listed != self.flush {
                    slot.listed = self.flush;
                    self.changed.push(index);
                }
            }
            Fill::Free => {}
        }
    }

    fn list(&mut self, index: SlotIndex) {
        if let Some(slot) = self.slots.get_mut(index as usize)
            && slot.listed != self.flush
        {
            slot.listed = self.flush;
            self.changed.push(index);
        }
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

    /// Retained messages that the meta database does not have yet, in the order of topics from a place on.
    pub(crate) fn recent_retained(
        &self,
        from: Bound<&str>,
    ) -> impl Iterator<Item = (&ByteString, Option<Pointer>)> {
        let mut writing = self.retained_writing.range::<str, _>((from, Bound::Unbounded)).peekable();
        let mut newer = self.retained.range::<str, _>((from, Bound::Unbounded)).peekable();
        let next = move || match (writing.peek(), newer.peek()) {
            (Some((one, _)), Some((other, _))) => match one.cmp(other) {
                Ordering::Less => writing.next(),
                Ordering::Equal => {
                    writing.next();
                    newer.next()
                }
                Ordering::Greater => newer.next(),
            },
            (Some(_), None) => writing.next(),
            (None, _) => newer.next(),
        };
        std::iter::from_fn(next).map(|(topic, pointer)| (topic, *pointer))
    }

    /// What the last records made of a topic's retained message, if the meta database does not have it yet.
    pub(crate) fn recent_retained_of(&self, topic: &str) -> Option<Option<Pointer>> {
        self.retained.get(topic).or_else(|| self.retained_writing.get(topic)).copied()
    }

    /// Says that the log is dispatched up to a cut, and rings whoever waited for what came.
    pub(crate) fn dispatched(&mut self, cut: Cut, durable: &DurableEnds) {
        self.dispatched = cut;
        self.ring_touched(durable);
    }

    /// Rings whoever waited for entries that came.
    pub(crate) fn ring_touched(&mut self, durable: &DurableEnds) {
        for index in std::mem::take(&mut self.touched) {
            if let Some(slot) = self.slots.get_mut(index as usize) {
                slot.touched = false;
            }
            self.ring(index, durable);
        }
    }

    /// Rings those who waited for a durable end to move.
    pub(crate) fn durable_ends_moved(&mut self, durable: &DurableEnds) {
        for index in self.watches.durable() {
            self.ring(index, durable);
        }
    }

    fn ring(&mut self, index: SlotIndex, durable: &DurableEnds) {
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        let recents = &self.recents;
        slot.watched = self
            .watches
            .ring(index, |offset, wants_durable| recents.is_ready(slot, offset, wants_durable, durable));
    }

    /// See [`crate::Store::watch`].
    pub(crate) fn watch(
        &mut self,
        id: QueueId,
        (offset, wants_durable): (u64, bool),
        durable: &DurableEnds,
        watcher: &Watcher,
        token: u64,
    ) -> Result<()> {
        let index = self.index(id).ok_or(StoreError::NoQueue(id))?;
        let slot = self.slots.get_mut(index as usize).ok_or(StoreError::NoQueue(id))?;
        if self.recents.is_ready(slot, offset, wants_durable, durable) {
            self.watches.disarm(index, watcher, Some(token));
            watcher.ring(token);
        } else {
            slot.watched = true;
            self.watches.arm(index, (offset, wants_durable), watcher, token);
        }
        Ok(())
    }

    /// Takes away the watches of a watcher, or the one with `token`.
    pub(crate) fn unwatch(&mut self, id: QueueId, watcher: &Watcher, token: Option<u64>) {
        if let Some(index) = self.index(id) {
            self.watches.disarm(index, watcher, token);
        }
    }

    /// The queue's end.
    pub(crate) fn end(&self, id: QueueId) -> Option<u64> {
        self.slot(id).map(|slot| slot.end)
    }

    /// The first entry in memory from an offset on that `counts`.
    pub(crate) fn recent_first(
        &self,
        id: QueueId,
        from: u64,
        counts: impl Fn(Pointer) -> bool,
    ) -> Option<u64> {
        let slot = self.slot(id)?;
        let mut recent = (self.recents.first(slot)..).zip(self.recents.of(slot));
        recent.find(|(offset, pointer)| *offset >= from && counts(**pointer)).map(|(offset, _)| offset)
    }

    /// Up to `entries_max` entries from an offset on, as far as they are in memory.
    pub(crate) fn find(&self, id: QueueId, from: u64, entries_max: usize) -> Option<Found> {
        let slot = self.slot(id)?;
        let first = self.recents.first(slot);
        if from < first && slot.fill != Fill::Live {
            return Some(Found::Older { before: first });
        }
        let skip = from.saturating_sub(first) as usize;
        let recent = (first + skip as u64..).zip(self.recents.of(slot).iter().skip(skip).copied());
        Some(Found::Recent(recent.take(entries_max).collect()))
    }

    /// Forgets a queue and rings those who wait for it.
    pub(crate) fn delete(&mut self, id: QueueId) {
        let Some(index) = self.index(id) else { return };
        let is = |found: &SlotIndex| *found == index;
        if let Ok(entry) = self.by_id.find_entry(hash(id), is) {
            entry.remove();
        }
        if let Some(slot) = self.slots.get_mut(index as usize) {
            let entries = self.recents.of(slot).len();
            self.recents.forget(slot, entries);
            match slot.fill {
                Fill::Live => {
                    self.live_entries -= entries;
                    self.live_queues -= 1;
                }
                _ => self.waiting_entries -= entries,
            }
            slot.fill = Fill::Free;
            slot.touched = false;
            slot.watched = false;
        }
        self.free.push(index);
        // Whoever waits looks again, and finds that the queue is gone.
        self.watches.ring(index, |_, _| true);
        self.places.retain(|key, _| key.queue != id);
    }

    /// Sets the place of a consumer that derives queues.
    pub(crate) fn set_place(&mut self, key: CursorKey, place: CursorPlace) {
        self.changed_places.push(key.clone());
        self.places.insert(key, place);
    }

    pub(crate) fn place(&self, key: &CursorKey) -> Option<CursorPlace> {
        self.places.get(key).copied()
    }

    /// Begins a flush. [`Table::written`] and [`Table::flushed`] end it, or [`Table::not_flushed`].
    pub(crate) fn begin_flush(&mut self) -> Flush {
        // Who has an entry from now on is listed for the flush after this one. 0 is nobody's.
        self.flush = self.flush.checked_add(1).unwrap_or(1);
        let changed = std::mem::take(&mut self.changed);
        let queues = changed.into_iter().filter_map(|index| {
            // It may have been listed for a queue that was deleted since, and have another one now, which is in memory only.
            let kept = |slot: &&Slot| matches!(slot.fill, Fill::Routed | Fill::Derived);
            let slot = self.slots.get(index as usize).filter(kept)?;
            // A derived queue may get entries of records from before the cut while it is written; those come with a later place.
            let entries = (slot.fill == Fill::Derived).then(|| self.recents.of(slot).len());
            Some((index, slot.id, entries))
        });
        let mut flush = Flush { queues: queues.collect(), cut: self.dispatched.clone(), ..Flush::default() };
        let mut places = std::mem::take(&mut self.changed_places);
        places.sort();
        places.dedup();
        flush.places =
            places.into_iter().filter_map(|key| self.places.get(&key).map(|p| (key, *p))).collect();
        self.retained_writing = std::mem::take(&mut self.retained);
        self.retained_writing_bytes = std::mem::take(&mut self.retained_bytes);
        flush.retained =
            self.retained_writing.iter().map(|(topic, pointer)| (topic.clone(), *pointer)).collect();
        flush
    }

    /// The entries of a queue that a flush writes, and the offset of the first.
    pub(crate) fn of_flush(
        &self,
        (index, id, entries): (SlotIndex, QueueId, Option<usize>),
        cut: &Cut,
    ) -> Option<(u64, &[Pointer])> {
        let slot = self.slots.get(index as usize).filter(|slot| slot.id == id && slot.fill != Fill::Free)?;
        let recent = self.recents.of(slot);
        let count = entries.unwrap_or_else(|| recent.partition_point(|pointer| cut.holds(pointer.position)));
        Some((self.recents.first(slot), recent.get(..count)?))
    }

    /// So many first entries of a queue are in RocksDB and need not be kept.
    pub(crate) fn written(&mut self, index: SlotIndex, id: QueueId, entries: usize) {
        if let Some(slot) = self.slots.get_mut(index as usize)
            && slot.id == id
            && slot.fill != Fill::Free
        {
            self.recents.forget(slot, entries);
            self.waiting_entries -= entries;
        }
    }

    /// All of a flush is written.
    pub(crate) fn flushed(&mut self) {
        self.retained_writing = BTreeMap::new();
        self.retained_writing_bytes = 0;
    }

    /// The flush could not be written: the next one holds it again.
    pub(crate) fn not_flushed(&mut self, flush: Flush) {
        for (index, id, _) in flush.queues {
            if self.slots.get(index as usize).is_some_and(|slot| slot.id == id && slot.fill != Fill::Free) {
                self.list(index);
            }
        }
        self.changed_places.extend(flush.places.into_iter().map(|(key, _)| key));
        for (topic, pointer) in std::mem::take(&mut self.retained_writing) {
            self.retained.entry(topic).or_insert(pointer);
        }
        self.retained_bytes += std::mem::take(&mut self.retained_writing_bytes);
    }

    /// Whether places of deriving consumers wait for RocksDB.
    pub(crate) fn has_places(&self) -> bool {
        !self.changed_places.is_empty()
    }

    /// Up to where the log is dispatched.
    pub(crate) fn cut(&self) -> &Cut {
        &self.dispatched
    }

    /// Entries assigned since the store was opened.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// Bytes of entries and retained topics that RocksDB does not have yet.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting_entries * ENTRY_BYTES + self.retained_bytes + self.retained_writing_bytes
    }

    /// Bytes of entries that live queues hold.
    pub(crate) fn live_bytes(&self) -> usize {
        self.live_entries * ENTRY_BYTES
    }
}
