//! The thread that writes checkpoints: index entries, retained pointers and cursors, many at a time.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::index::IndexBatch;
use super::table::Snapshot;
use crate::shared::Shared;
use crate::{Result, StoreError};

/// The log is dispatched again from the last flush of the index after a crash: at most about this many bytes of it.
const FLUSH_LOG_BYTES: u64 = 32 << 20;
/// How long to wait before a failed checkpoint is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

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
    /// Someone waits for one that is also flushed.
    flush: bool,
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
    /// Asks for a checkpoint soon.
    pub(crate) fn wake(&self) {
        self.state.lock().asked += 1;
        self.wake.notify_one();
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
    // What was dispatched again since the last flush counts, or a process that dies often would never flush.
    let mut flushed_at = shared.index.checkpoint().map_or(0, |(offset, _)| offset);
    loop {
        let (asked, flush, stop) = {
            let mut state = signal.state.lock();
            if state.asked == state.answered && state.stop.is_none() {
                signal.wake.wait_for(&mut state, shared.options.checkpoint_interval);
            }
            (state.asked, std::mem::take(&mut state.flush), state.stop)
        };
        if stop == Some(Stop::Abandon) {
            answer(shared, asked, Some(StoreError::Closed));
            return;
        }
        let mut result = checkpoint(shared);
        let end = shared.log.end().offset();
        if result.is_ok() && (flush || stop.is_some() || end - flushed_at >= FLUSH_LOG_BYTES) {
            result = shared.index.flush();
            flushed_at = end;
        }
        note_fault(shared, result.as_ref().err());
        answer(shared, asked, result.err());
        if stop.is_some() {
            return;
        }
        let mut state = signal.state.lock();
        if state.error.is_some() && state.stop.is_none() {
            signal.wake.wait_for(&mut state, RETRY_PAUSE);
        }
    }
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

fn answer(shared: &Shared, asked: u64, error: Option<StoreError>) {
    let mut state = shared.indexer.state.lock();
    state.answered = asked;
    state.error = error;
    shared.indexer.done.notify_all();
}

fn checkpoint(shared: &Shared) -> Result<()> {
    let snapshot = shared.table.write().snapshot();
    let result = write(shared, &snapshot);
    let mut table = shared.table.write();
    match &result {
        Ok(()) => table.written(&snapshot),
        Err(_) => table.not_written(snapshot),
    }
    drop(table);
    shared.index_room.notify_all();
    result
}

fn write(shared: &Shared, snapshot: &Snapshot) -> Result<()> {
    // Nothing durable may know of records that a power cut can still take.
    shared.sync.wait_durable(&shared.log, snapshot.dispatched)?;
    if !snapshot.retained.is_empty() {
        shared.meta.put_retained(&snapshot.retained)?;
    }
    shared.cursors.write(&shared.meta, shared.log.durable_end())?;
    let nothing = snapshot.entries.is_empty() && snapshot.deleted.is_empty() && snapshot.places.is_empty();
    if nothing && snapshot.dispatched == shared.index.checkpoint()?.0 {
        return Ok(());
    }
    shared.index.write(IndexBatch::of(snapshot))
}
