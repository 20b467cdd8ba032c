//! What one target counts and says of itself.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tidemill_store::{QueueId, Store};

/// How a target is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It delivers, or waits for something to deliver.
    Running,
    /// The last attempt failed; the next one comes by itself.
    Retrying,
    /// A person has to change something; it is tried again slowly.
    Stopped,
}

/// Counters of a target since its rules were loaded. Written by its task, read by the API.
#[derive(Debug)]
pub struct TargetStatus {
    delivered: AtomicU64,
    retries: AtomicU64,
    skipped: AtomicU64,
    dead_letters: AtomicU64,
    cursor: AtomicU64,
    /// When the oldest undelivered record in flight was stored; 0 when nothing is in flight.
    oldest_ms: AtomicI64,
    state: Mutex<Told>,
}

#[derive(Clone, Debug)]
struct Told {
    state: State,
    since_ms: i64,
    last_error: Option<String>,
    last_error_ms: Option<i64>,
}

/// A target at one moment.
#[derive(Clone, Debug)]
pub struct TargetSnapshot {
    /// How it is doing.
    pub state: State,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: i64,
    /// The last failure, which may be over.
    pub last_error: Option<String>,
    /// When that was, in milliseconds since the Unix epoch.
    pub last_error_ms: Option<i64>,
    /// Events confirmed since the rules were loaded.
    pub delivered: u64,
    /// Events sent again since the rules were loaded, each time counted.
    pub retries: u64,
    /// Records that retention deleted before the target had them.
    pub skipped: u64,
    /// Dead letters ever.
    pub dead_letters: u64,
    /// Lowest offset of the rule's queue not yet done.
    pub cursor: u64,
    /// End of the rule's queue.
    pub end: u64,
    /// Entries between the two.
    pub lag: u64,
    /// Age of the oldest record that is not done, in milliseconds; 0 when none is in flight.
    pub oldest_age_ms: u64,
}

impl TargetStatus {
    /// A target whose cursor and dead letters the store has so.
    pub(super) fn new(cursor: u64, dead_letters: u64) -> Self {
        TargetStatus {
            delivered: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            dead_letters: AtomicU64::new(dead_letters),
            cursor: AtomicU64::new(cursor),
            oldest_ms: AtomicI64::new(0),
            state: Mutex::new(Told {
                state: State::Running,
                since_ms: now_ms(),
                last_error: None,
                last_error_ms: None,
            }),
        }
    }

    pub(super) fn delivered(&self, events: u64) {
        self.delivered.fetch_add(events, Relaxed);
    }

    pub(super) fn retried(&self, events: u64) {
        self.retries.fetch_add(events, Relaxed);
    }

    pub(super) fn skipped(&self, records: u64) {
        self.skipped.fetch_add(records, Relaxed);
    }

    pub(super) fn buried(&self, dead_letters: u64) {
        self.dead_letters.store(dead_letters, Relaxed);
    }

    pub(super) fn moved(&self, cursor: u64) {
        self.cursor.store(cursor, Relaxed);
    }

    pub(super) fn oldest(&self, time_ms: Option<i64>) {
        self.oldest_ms.store(time_ms.unwrap_or(0), Relaxed);
    }

    /// Notes a failure; whether the state changed.
    pub(crate) fn failed(&self, state: State, error: &str) -> bool {
        let mut told = self.state.lock();
        told.last_error = Some(error.to_owned());
        told.last_error_ms = Some(now_ms());
        change(&mut told, state)
    }

    /// Notes a success; for how long it had been failing, in milliseconds, if it had.
    pub(super) fn works(&self) -> Option<i64> {
        let mut told = self.state.lock();
        let since = told.since_ms;
        change(&mut told, State::Running).then(|| told.since_ms - since)
    }

    /// Nothing is left to deliver, and so nothing that could fail. What failed last is kept.
    pub(super) fn idle(&self) {
        self.oldest(None);
        change(&mut self.state.lock(), State::Running);
    }

    /// Lowest offset not yet done.
    #[must_use]
    pub fn cursor(&self) -> u64 {
        self.cursor.load(Relaxed)
    }

    /// Everything, with how far the target's `queue` goes.
    #[must_use]
    pub fn snapshot(&self, store: &Store, queue: QueueId) -> TargetSnapshot {
        let told = self.state.lock().clone();
        let cursor = self.cursor();
        let end = store.queue_end(queue).unwrap_or_default().max(cursor);
        let oldest = self.oldest_ms.load(Relaxed);
        let age = if oldest == 0 { 0 } else { now_ms().saturating_sub(oldest) };
        TargetSnapshot {
            state: told.state,
            since_ms: told.since_ms,
            last_error: told.last_error,
            last_error_ms: told.last_error_ms,
            delivered: self.delivered.load(Relaxed),
            retries: self.retries.load(Relaxed),
            skipped: self.skipped.load(Relaxed),
            dead_letters: self.dead_letters.load(Relaxed),
            cursor,
            end,
            lag: end - cursor,
            oldest_age_ms: u64::try_from(age).unwrap_or(0),
        }
    }
}

fn change(told: &mut Told, state: State) -> bool {
    let news = told.state != state;
    if news {
        told.state = state;
        told.since_ms = now_ms();
    }
    news
}

/// Milliseconds since the Unix epoch.
pub(super) fn now_ms() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}
