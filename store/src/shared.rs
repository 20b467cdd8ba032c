//! [`Shared`]: what the store's threads have in common.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::Semaphore;

use crate::catalogue::LiveNames;
use crate::directory::Directory;
use crate::documents::Waiting;
use crate::log::Log;
use crate::log::cut::Cut;
use crate::log::format;
use crate::log::layout::{Entering, Layout};
use crate::meta::Meta;
use crate::meta::cursor::Cursors;
use crate::queue::alive::Alive;
use crate::queue::block;
use crate::queue::filter;
use crate::queue::index::Index;
use crate::queue::indexer::{FlushedCut, IndexerSignal};
use crate::queue::routes::Routes;
use crate::queue::table::{Fill, Found, Table};
use crate::retention::RetentionSignal;
use crate::{Options, Pointer, QueueId, ReadBatch, ReadRequest, Record, Result, Retain, StoreError};

/// Entries added to queues under one lock of the table, about.
const STEP_ENTRIES: usize = 4096;

/// Retained messages looked at under one lock of the table.
const STEP_RETAINED: usize = 512;

/// More records than memory has room for while they wait.
const WAITING_RECORDS_MAX: u64 = 1 << 32;
const _: () = assert!(WAITING_RECORDS_MAX.is_multiple_of(block::BLOCK_ENTRIES));

/// What the store's threads have in common.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) log: Log,
    pub(crate) table: RwLock<Table>,
    /// Changed by the log writer only, between two appends.
    pub(crate) routes: RwLock<Routes>,
    pub(crate) alive: Arc<Alive>,
    pub(crate) live_names: RwLock<LiveNames>,
    /// Queues whose references did not get to who asked for them.
    pub(crate) returned: Mutex<Vec<QueueId>>,
    pub(crate) index: Index,
    /// Up to where the index has the log.
    pub(crate) flushed_cut: FlushedCut,
    pub(crate) meta: Meta,
    pub(crate) cursors: Cursors,
    pub(crate) documents: Waiting,
    pub(crate) indexer: IndexerSignal,
    /// Signalled after each flush of the index.
    pub(crate) index_room: Condvar,
    pub(crate) index_waiting: Mutex<()>,
    /// Why the last checkpoint could not be written.
    pub(crate) index_fault: Mutex<Option<StoreError>>,
    /// Kibibytes that the log writer's mailbox still takes.
    pub(crate) mailbox_room: Semaphore,
    /// One queue is filled with history at a time, and nothing is deleted meanwhile.
    pub(crate) filling: Arc<tokio::sync::Mutex<()>>,
    pub(crate) retention: RetentionSignal,
    /// Last, so that the databases are closed before another process may open them.
    pub(crate) _directory: Directory,
}

impl Shared {
    /// Blocks while too many index entries wait for RocksDB; an error if they wait because it cannot be written.
    pub(crate) fn wait_for_index_room(&self) -> Result<()> {
        self.wait_for_index(|| self.has_too_many_entries())
    }

    /// The same, and while with a batch of so many bytes too much of the log would be dispatched again after a crash. For the log writer, between
    /// two batches: what it has dispatched only in part no flush has in full.
    pub(crate) fn wait_for_log_room(&self, batch: u64) -> Result<()> {
        self.wait_for_index(|| self.log_room_is_short(batch))
    }

    /// Whether [`Shared::wait_for_log_room`] would wait.
    pub(crate) fn log_room_is_short(&self, batch: u64) -> bool {
        self.flushed_cut.is_behind(self.log.shards(), batch) || self.has_too_many_entries()
    }

    fn has_too_many_entries(&self) -> bool {
        self.table.read().waiting_bytes() > self.options.index_buffer_bytes
    }

    fn wait_for_index(&self, is_behind: impl Fn() -> bool) -> Result<()> {
        while is_behind() {
            if let Some(error) = self.log.poisoned().or_else(|| self.index_fault.lock().clone()) {
                return Err(error);
            }
            self.indexer.wake();
            let mut waiting = self.index_waiting.lock();
            self.index_room.wait_for(&mut waiting, Duration::from_millis(50));
        }
        Ok(())
    }

    /// Enters the records of a batch, which follow each other from `cut` on, into their queues; moves `cut` along.
    pub(crate) fn dispatch(&self, batch: &[&mut Layout], pointers: &[Pointer], cut: &mut Cut) {
        let records = batch.iter().flat_map(|layout| layout.entries());
        let mut records = records.zip(pointers).peekable();
        while records.peek().is_some() {
            let durable = self.log.durable_ends();
            let mut entries = 0;
            let mut table = self.table.write();
            for (Entering { retain, record, queues, ahead }, pointer) in records.by_ref() {
                table.approach(ahead);
                queues.iter().for_each(|queue| table.push(*queue, *pointer));
                entries += queues.len();
                if retain != Retain::No {
                    table.note_retained(retain, format::topic_of(record), *pointer);
                }
                cut.advance(*pointer);
                if entries >= STEP_ENTRIES {
                    break;
                }
            }
            table.dispatched(cut.clone(), &durable);
            drop(table);
            if records.peek().is_some() {
                // These records are in the log and can no longer be refused: while the index cannot be written, memory takes them. The
                // index waits for them to be durable, and nobody has asked for that yet.
                self.log.sync_written();
                let _ = self.wait_for_index_room();
            }
        }
    }

    /// Answers from memory, or `None` where the disk must be asked.
    pub(crate) fn read_hot(&self, request: ReadRequest) -> Option<Result<ReadBatch>> {
        let (end, found) = {
            let table = self.table.read();
            let Some(end) = table.end(request.queue) else {
                return Some(Err(StoreError::NoQueue(request.queue)));
            };
            (end, table.find(request.queue, request.from, request.records_max)?)
        };
        let Found::Recent(found) = found else { return None };
        let nothing = found.is_empty();
        let picked = self.pick(request, found, end);
        if !nothing && picked.pointers.is_empty() && !picked.undurable {
            return None;
        }
        let records = self.log.read_hot(&picked.pointers)?;
        Some(records.map(|records| picked.with(records)))
    }

    /// Answers from wherever it is. Blocks.
    pub(crate) fn read(&self, request: ReadRequest) -> Result<ReadBatch> {
        let mut from = request.from;
        loop {
            let (end, found) = {
                let table = self.table.read();
                let end = table.end(request.queue).ok_or(StoreError::NoQueue(request.queue))?;
                (end, table.find(request.queue, from, request.records_max))
            };
            let (entries, recent_from) = match found {
                Some(Found::Older { before }) => {
                    (self.index.entries(request.queue, from, request.records_max)?, before)
                }
                Some(Found::Recent(entries)) => (entries, from),
                None => (Vec::new(), from),
            };
            let nothing_older = entries.is_empty();
            let picked = self.pick(ReadRequest { from, ..request }, entries, end);
            let next = if nothing_older { recent_from } else { picked.next };
            if picked.pointers.is_empty() {
                if picked.undurable || next <= from {
                    return Ok(picked.after(request.from, from).with(Vec::new()));
                }
                // All of them are gone: what comes after? Very many may be gone that compaction has not dropped yet.
                from = self.first_from(request.queue, next)?.max(next);
                continue;
            }
            match self.log.read(&picked.pointers) {
                // Retention was faster: now that is known.
                Err(StoreError::Gone(_)) => {}
                records => return records.map(|records| picked.after(request.from, from).with(records)),
            }
        }
    }

    /// Records by pointer; `None` where retention has deleted one. Blocks.
    pub(crate) fn fetch(&self, pointers: &[Pointer]) -> Result<Vec<Option<Record>>> {
        loop {
            // Asked once of each: a moment later the answer may be another.
            let there: Vec<bool> =
                pointers.iter().map(|pointer| !self.alive.gone(pointer.position)).collect();
            let left = pointers.iter().zip(&there).filter(|(_, there)| **there);
            let left: Vec<Pointer> = left.map(|(pointer, _)| *pointer).collect();
            match self.log.read(&left) {
                Err(StoreError::Gone(_)) => {}
                records => {
                    let mut records = records?.into_iter();
                    let found = there.into_iter().map(|there| if there { records.next() } else { None });
                    return Ok(found.collect());
                }
            }
        }
    }

    /// The retained message of a topic. Reads the disk.
    pub(crate) fn retained_of(&self, topic: &str) -> Result<Option<Pointer>> {
        // In this order: what leaves the table is in the database before.
        let recent = self.table.read().recent_retained_of(topic);
        recent.map_or_else(|| self.meta.retained_of(topic), Ok)
    }

    /// Hands on retained messages that the meta database does not have yet, in the order of topics from a place on, until told to stop.
    /// Lets the table go now and then: what leaves it meanwhile is in the database.
    pub(crate) fn each_recent_retained(
        &self,
        from: Bound<&str>,
        mut each: impl FnMut(&ByteString, Option<Pointer>) -> bool,
    ) {
        let mut last: Option<ByteString> = None;
        loop {
            let table = self.table.read();
            let from = last.as_deref().map_or(from, Bound::Excluded);
            let mut seen = 0;
            let mut reached = None;
            for (topic, pointer) in table.recent_retained(from).take(STEP_RETAINED) {
                if !each(topic, pointer) {
                    return;
                }
                seen += 1;
                reached = Some(topic);
            }
            let reached = reached.cloned();
            drop(table);
            if seen < STEP_RETAINED {
                return;
            }
            last = reached;
        }
    }

    /// Up to `limit` of those whose topic matches a filter, in topic order after `after`.
    pub(crate) fn recent_retained(
        &self,
        pattern: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Vec<(String, Option<Pointer>)> {
        let literal = filter::literal_prefix(pattern);
        let from = after.filter(|after| *after >= literal).map_or(Bound::Included(literal), Bound::Excluded);
        let mut found = Vec::new();
        self.each_recent_retained(from, |topic, pointer| {
            if filter::matches(pattern, topic) {
                found.push((topic.to_string(), pointer));
            }
            found.len() < limit && topic.starts_with(literal)
        });
        found
    }

    /// Picks the entries whose records are there and that the request allows.
    fn pick(&self, request: ReadRequest, entries: Vec<(u64, Pointer)>, end: u64) -> Picked {
        let durable = request.durable.then(|| self.log.durable_ends());
        let mut picked = Picked { next: request.from, end, ..Picked::default() };
        let mut bytes = 0;
        for (offset, pointer) in entries {
            if durable.as_ref().is_some_and(|durable| !durable.contains(pointer.position)) {
                picked.undurable = true;
                picked.end = offset;
                break;
            }
            if !self.alive.gone(pointer.position) {
                bytes += pointer.size as usize;
                if bytes > request.bytes_max && !picked.pointers.is_empty() {
                    break;
                }
                picked.pointers.push(pointer);
                picked.offsets.push(offset);
            }
            picked.next = offset + 1;
        }
        picked.skipped = picked.next - request.from - picked.pointers.len() as u64;
        picked
    }

    /// Offset of the first entry of a queue that is still there.
    pub(crate) fn first(&self, queue: QueueId) -> Result<u64> {
        self.first_from(queue, 0)
    }

    /// The same of the entries from an offset on; the queue's end if there is none.
    fn first_from(&self, queue: QueueId, from: u64) -> Result<u64> {
        let counts = |pointer: Pointer| !self.alive.gone(pointer.position);
        let table = self.table.read();
        let (end, fill) = (table.end(queue).ok_or(StoreError::NoQueue(queue))?, table.fill(queue));
        let recent = table.recent_first(queue, from, counts);
        drop(table);
        if fill != Some(Fill::Live)
            && let Some(first) = self.index.first(queue, from, counts)?
        {
            return Ok(first);
        }
        Ok(recent.unwrap_or(end))
    }

    /// The first offset whose record `after` says is late enough; records must be so in order. Blocks.
    pub(crate) fn search(&self, queue: QueueId, after: impl Fn(&Record) -> bool) -> Result<u64> {
        let mut low = self.first(queue)?;
        let mut high = self.table.read().end(queue).ok_or(StoreError::NoQueue(queue))?;
        while low < high {
            let middle = low + (high - low) / 2;
            let request = ReadRequest { queue, from: middle, records_max: 1, bytes_max: 0, durable: false };
            match self.read(request)?.records.first() {
                // Where entries are gone, a later one is found.
                Some((offset, record)) if !after(record) => low = offset + 1,
                _ => high = middle,
            }
        }
        Ok(low)
    }

    /// An offset with room before it for every record there ever was, and those that wait for the log writer.
    pub(crate) fn room_for_history(&self) -> u64 {
        block::base_of(self.log.next_sequence()) + WAITING_RECORDS_MAX
    }
}

/// Entries that a read returns.
#[derive(Default)]
struct Picked {
    offsets: Vec<u64>,
    pointers: Vec<Pointer>,
    next: u64,
    skipped: u64,
    end: u64,
    /// There are more, which are not durable yet.
    undurable: bool,
}

impl Picked {
    /// As the answer to who asked from an offset on, when everything up to `from` is gone.
    fn after(mut self, asked: u64, from: u64) -> Self {
        self.skipped += from - asked;
        self
    }

    fn with(self, records: Vec<Record>) -> ReadBatch {
        let Picked { offsets, next, skipped, end, .. } = self;
        ReadBatch { records: offsets.into_iter().zip(records).collect(), next, skipped, end }
    }
}

/// Handle to the store's threads.
pub(crate) type SharedRef = Arc<Shared>;
