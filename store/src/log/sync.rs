//! The threads that make the log durable, one for each shard: one `fdatasync` for all that was written since the last one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Log;
use super::receipt::Receipt;
use super::segment::Segment;
use super::shard::Shard;
use crate::{Result, StoreError};

/// Where records come while others are synced, those behind them are gathered for so many times what a sync takes, and no longer than
/// this: where a sync takes less than a message does to come, there would be one for each.
const GATHER_SYNCS: u32 = 3;
const GATHER_MAX: Duration = Duration::from_micros(200);

/// What was written to a shard and is not durable yet.
#[derive(Debug, Default)]
pub(crate) struct SyncQueue {
    state: Mutex<State>,
    wake: Condvar,
    synced: Condvar,
}

#[derive(Debug, Default)]
struct State {
    end: u64,
    /// Of the first record that is not written yet.
    sequence: u64,
    unsynced: Vec<Arc<Segment>>,
    waiting: Vec<Receipt>,
    /// Someone waits: no pause before the next sync.
    urgent: bool,
    syncing: bool,
    stop: bool,
}

impl SyncQueue {
    /// Says that the shard reaches to `end` now, before the record `sequence`, that `segment` has writes to be synced, and who
    /// waits for it.
    pub(crate) fn written(&self, end: u64, sequence: u64, segment: &Arc<Segment>, waiting: Vec<Receipt>) {
        let mut state = self.state.lock();
        (state.end, state.sequence) = (end, sequence);
        let was_idle = state.unsynced.is_empty();
        if state.unsynced.last().is_none_or(|last| !Arc::ptr_eq(last, segment)) {
            state.unsynced.push(segment.clone());
        }
        state.waiting.extend(waiting);
        drop(state);
        // In its pause it need not hear of each batch.
        if was_idle {
            self.wake.notify_one();
        }
    }

    /// Asks for a sync without a pause before it.
    pub(crate) fn hurry(&self) {
        self.state.lock().urgent = true;
        self.wake.notify_one();
    }

    /// Ends the thread after a last sync.
    pub(crate) fn stop(&self) {
        self.state.lock().stop = true;
        self.wake.notify_one();
    }

    /// Blocks until everything before `end` of the shard is durable.
    pub(crate) fn wait_durable(&self, log: &Log, shard: &Shard, end: u64) -> Result<()> {
        if shard.durable_end() >= end {
            return Ok(());
        }
        let mut state = self.state.lock();
        while shard.durable_end() < end {
            if let Some(error) = log.poisoned() {
                return Err(error);
            }
            if state.stop && state.unsynced.is_empty() && !state.syncing {
                return Err(StoreError::Closed);
            }
            state.urgent = true;
            self.wake.notify_one();
            self.synced.wait_for(&mut state, Duration::from_millis(100));
        }
        Ok(())
    }

    /// The thread. `pause` is how long to gather before each sync when nobody waits for it; `advanced` is called
    /// after the durable end has moved.
    pub(crate) fn run(&self, log: &Log, shard: &Shard, pause: Option<Duration>, advanced: impl Fn()) {
        let mut gather_time = Duration::ZERO;
        loop {
            let mut state = self.state.lock();
            let gather = (!state.unsynced.is_empty()).then_some(gather_time);
            while state.unsynced.is_empty() && !state.stop {
                self.wake.wait(&mut state);
            }
            if state.unsynced.is_empty() {
                return;
            }
            if let Some(pause) = pause.or(gather) {
                let until = Instant::now() + pause;
                while !state.stop && !state.urgent && !self.wake.wait_until(&mut state, until).timed_out() {}
            }
            state.urgent = false;
            state.syncing = true;
            let (end, sequence) = (state.end, state.sequence);
            let segments = std::mem::take(&mut state.unsynced);
            let waiting = std::mem::take(&mut state.waiting);
            drop(state);

            let began = Instant::now();
            let synced = sync_all(log, &segments);
            gather_time = GATHER_MAX.min(began.elapsed() * GATHER_SYNCS);
            match synced {
                Ok(()) => {
                    shard.set_durable(end, sequence);
                    waiting.into_iter().for_each(Receipt::confirm);
                    advanced();
                }
                Err(error) => waiting.into_iter().for_each(|receipt| receipt.fail(error.clone())),
            }
            self.state.lock().syncing = false;
            self.synced.notify_all();
        }
    }
}

fn sync_all(log: &Log, segments: &[Arc<Segment>]) -> Result<()> {
    if let Some(error) = log.poisoned() {
        return Err(error);
    }
    for segment in segments {
        // A second fdatasync after a failed one may report success for pages that the kernel has dropped.
        segment.sync().map_err(|failed| log.poison(failed.to_string()))?;
    }
    log.counters.syncs.fetch_add(segments.len() as u64, Ordering::Relaxed);
    Ok(())
}
