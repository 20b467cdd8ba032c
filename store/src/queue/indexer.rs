//! The thread that writes what is in memory out: cursors every moment, index entries and retained pointers once there are
//! enough of them that a file of its own is worth it.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};

use super::index::Index;
use super::table::{self, Table};
use crate::log::cut::Cut;
use crate::log::shard::Shard;
use crate::meta::Meta;
use crate::shared::Shared;
use crate::{Flush, Pointer, QueueId, Result, StoreError};

/// The index is flushed once so many bytes of the log are not in it.
const FLUSH_LOG_BYTES: u64 = 24 << 20;
/// More comes while a flush is written: where records are acknowledged once they are synced, the log writer waits rather than that so many
/// bytes are not in the index. No more than 64 MB are dispatched again after a crash, unless one append alone has more than
/// [`LARGE_BATCH_BYTES`]. Records that are synced later come faster than a disk takes them; it would have to wait for that.
const UNFLUSHED_LOG_BYTES_MAX: u64 = 60 << 20;
const LARGE_BATCH_BYTES: u64 = 16 << 20;
const _: () = assert!(UNFLUSHED_LOG_BYTES_MAX <= 64_000_000);
const _: () = assert!(UNFLUSHED_LOG_BYTES_MAX >= FLUSH_LOG_BYTES + LARGE_BATCH_BYTES, "a flush has time");
/// What is not flushed for want of more is flushed after this time all the same.
const FLUSH_INTERVAL: Duration = Duration::from_secs(10);
/// Queues looked at under one lock of the table.
const STEP_QUEUES: usize = 512;
/// Files of the index that may wait to be merged; flushes wait past it, for this long: cursors wait with them.
const UNMERGED_FILES_MAX: u64 = 40;
const UNMERGED_PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait before a failed checkpoint is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Up to where the index has the log.
#[derive(Debug)]
pub(crate) struct FlushedCut(Mutex<Cut>);

impl FlushedCut {
    pub(crate) fn new(cut: Cut) -> Self {
        FlushedCut(Mutex::new(cut))
    }

    fn set(&self, cut: Cut) {
        *self.0.lock() = cut;
    }

    /// Up to where it has a shard.
    pub(crate) fn end(&self, shard: u16) -> u64 {
        self.0.lock().end(shard)
    }

    /// Whether a batch of so many bytes would leave too much that is not in the index.
    pub(crate) fn is_behind(&self, shards: &[Shard], batch: u64) -> bool {
        let synced = shards.iter().filter(|shard| shard.flush == Flush::Sync);
        self.bytes_behind(synced) + batch.min(LARGE_BATCH_BYTES) > UNFLUSHED_LOG_BYTES_MAX
    }

    /// Whether a flush is due for what the log has.
    pub(crate) fn is_due(&self, shards: &[Shard]) -> bool {
        self.bytes_behind(shards.iter()) >= FLUSH_LOG_BYTES
    }

    fn bytes_behind<'a>(&self, shards: impl Iterator<Item = &'a Shard>) -> u64 {
        let cut = self.0.lock();
        shards.map(|shard| shard.end().saturating_sub(cut.end(shard.number))).sum()
    }

    fn bytes_to(&self, later: &Cut) -> u64 {
        self.0.lock().bytes_to(later)
    }

    fn is(&self, cut: &Cut) -> bool {
        *self.0.lock() == *cut
    }
}

/// How the thread is told what to do.
#[derive(Debug, Default)]
pub(crate) struct IndexerSignal {
    state: Mutex<State>,
    wake: Condvar,
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// A checkpoint was asked for.
    asked: u64,
    /// Checkpoints asked for up to this number are written.
    answered: u64,
    /// Someone waits for one that also flushes the index.
    flush: bool,
    /// A flush is due.
    look: bool,
    /// How the last one ended.
    error: Option<StoreError>,
    stop: Option<Stop>,
}

/// How the thread ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// After a last checkpoint and a flush.
    Orderly,
    /// At once, as if the process had died.
    Abandon,
}

impl IndexerSignal {
    /// Asks for a flush soon.
    pub(crate) fn wake(&self) {
        let mut state = self.state.lock();
        state.asked += 1;
        state.flush = true;
        drop(state);
        self.wake.notify_one();
    }

    /// Says that a flush is due.
    pub(crate) fn look(&self) {
        let mut state = self.state.lock();
        if !std::mem::replace(&mut state.look, true) {
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Asks for a checkpoint and blocks until it is written and flushed.
    pub(crate) fn checkpoint(&self) -> Result<()> {
        let mut state = self.state.lock();
        if state.stop.is_some() {
            return Err(StoreError::Closed);
        }
        state.asked += 1;
        state.flush = true;
        let mine = state.asked;
        self.wake.notify_one();
        while state.answered < mine {
            self.done.wait(&mut state);
        }
        state.error.clone().map_or(Ok(()), Err)
    }

    pub(crate) fn stop(&self, stop: Stop) {
        self.state.lock().stop.get_or_insert(stop);
        self.wake.notify_one();
    }
}

/// The thread.
pub(crate) fn run(shared: &Shared) {
    let signal = &shared.indexer;
    let mut flushed = Instant::now();
    let mut cursors_written = Instant::now();
    loop {
        let (asked, asked_to_flush, stop, is_asked) = {
            let mut state = signal.state.lock();
            if state.asked == state.answered && state.stop.is_none() && !state.look {
                signal.wake.wait_for(&mut state, shared.options.checkpoint_interval);
            }
            state.look = false;
            // What failed is tried again as a whole.
            let is_asked = state.asked != state.answered || state.stop.is_some() || state.error.is_some();
            (state.asked, std::mem::take(&mut state.flush), state.stop, is_asked)
        };
        if stop == Some(Stop::Abandon) {
            over(shared);
            answer(shared, asked, Some(StoreError::Closed));
            return;
        }
        let mut result = Ok(());
        // A flush that is due does not hurry them, however many follow each other.
        if is_asked || cursors_written.elapsed() >= shared.options.checkpoint_interval {
            result = shared.cursors.write(&shared.meta, shared.log.durable_sequence());
            cursors_written = Instant::now();
        }
        if result.is_ok() && (asked_to_flush || stop.is_some() || is_due(shared, flushed)) {
            result = flush(shared);
            flushed = Instant::now();
        }
        note_fault(shared, result.as_ref().err());
        answer(shared, asked, result.err());
        if stop.is_some() {
            over(shared);
            return;
        }
        let until = Instant::now() + RETRY_PAUSE;
        let mut state = signal.state.lock();
        while state.error.is_some()
            && state.stop.is_none()
            && state.asked == state.answered
            && !signal.wake.wait_until(&mut state, until).timed_out()
        {}
    }
}

/// Whether the index should be flushed without being asked.
fn is_due(shared: &Shared, flushed: Instant) -> bool {
    let table = shared.table.read();
    let waiting = table.waiting_bytes();
    let since = shared.flushed_cut.bytes_to(table.cut());
    since >= FLUSH_LOG_BYTES
        || waiting >= shared.options.index_buffer_bytes / 2
        || (flushed.elapsed() >= FLUSH_INTERVAL && (waiting > 0 || since > 0 || table.has_places()))
}

/// Remembers whether the databases can be written, and says so when that changes.
fn note_fault(shared: &Shared, error: Option<&StoreError>) {
    let mut fault = shared.index_fault.lock();
    match error {
        Some(error) if fault.is_none() => {
            tracing::error!(%error, "a checkpoint could not be written; it is tried again");
        }
        None if fault.is_some() => tracing::warn!("checkpoints are written again"),
        _ => {}
    }
    *fault = error.cloned();
}

/// Nothing is written from now on: whoever waits for room hears of it.
fn over(shared: &Shared) {
    shared.index_fault.lock().get_or_insert(StoreError::Closed);
}

fn answer(shared: &Shared, asked: u64, error: Option<StoreError>) {
    let mut state = shared.indexer.state.lock();
    state.answered = asked;
    state.error = error;
    shared.indexer.done.notify_all();
}

/// Writes what the table has into the index, and what it has of retained messages into the meta database.
pub(crate) fn flush(shared: &Shared) -> Result<()> {
    let mut flush = shared.table.write().begin_flush();
    let result = write(shared, &mut flush);
    match &result {
        Ok(()) => shared.table.write().flushed(),
        Err(_) => shared.table.write().not_flushed(flush),
    }
    shared.index_room.notify_all();
    result
}

/// Writes out what the table has while a store is being opened and nothing else runs.
pub(crate) fn write_out(table: &RwLock<Table>, index: &Index, meta: &Meta) -> Result<()> {
    let mut flush = table.write().begin_flush();
    meta.put_retained(&flush.retained)?;
    write_entries(table, index, &mut flush)?;
    table.write().flushed();
    Ok(())
}

fn write(shared: &Shared, flush: &mut table::Flush) -> Result<()> {
    // Nothing durable may know of records that a power cut can still take.
    shared.log.wait_durable(&flush.cut)?;
    if !flush.retained.is_empty() {
        shared.meta.put_retained(&flush.retained)?;
    }
    if flush.queues.is_empty() && flush.places.is_empty() && shared.flushed_cut.is(&flush.cut) {
        return Ok(());
    }
    let patience = Instant::now() + UNMERGED_PATIENCE;
    while shared.index.unmerged_files() > UNMERGED_FILES_MAX && Instant::now() < patience {
        // Readers would look into each of them; the log writer waits once its buffer is full.
        std::thread::sleep(Duration::from_millis(10));
    }
    write_entries(&shared.table, &shared.index, flush)?;
    shared.flushed_cut.set(flush.cut.clone());
    Ok(())
}

/// Writes the entries of a flush, its cut and its places into the index, and has the table forget the entries.
fn write_entries(table: &RwLock<Table>, index: &Index, flush: &mut table::Flush) -> Result<()> {
    flush.queues.sort_unstable_by_key(|(_, id, _)| *id);
    // A slot may be listed twice: for its queue, and for the one before that was deleted.
    flush.queues.dedup_by_key(|(_, id, _)| *id);
    let mut written = Vec::with_capacity(flush.queues.len());
    index.write(|file| {
        let mut ends: Vec<(QueueId, u64)> = Vec::with_capacity(flush.queues.len());
        let mut pointers: Vec<Pointer> = Vec::new();
        let mut found: Vec<(QueueId, u64, usize)> = Vec::with_capacity(STEP_QUEUES);
        for step in flush.queues.chunks(STEP_QUEUES) {
            pointers.clear();
            found.clear();
            let table = table.read();
            for queue in step {
                let Some((from, entries)) = table.of_flush(*queue, &flush.cut) else { continue };
                if entries.is_empty() {
                    continue;
                }
                pointers.extend_from_slice(entries);
                found.push((queue.1, from, entries.len()));
                written.push((queue.0, queue.1, entries.len()));
            }
            drop(table);
            let mut rest = pointers.as_slice();
            for (id, from, count) in &found {
                let (entries, later) = rest.split_at(*count);
                file.entries(*id, *from, entries)?;
                ends.push((*id, from + *count as u64));
                rest = later;
            }
        }
        file.cut(&flush.cut)?;
        file.places(&flush.places)?;
        file.ends(&ends)
    })?;
    for step in written.chunks(STEP_QUEUES) {
        let mut table = table.write();
        for (index, id, entries) in step {
            table.written(*index, *id, *entries);
        }
    }
    Ok(())
}
