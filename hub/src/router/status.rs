//! What the router counts. Written once a batch, read by the API.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use serde::Serialize;

/// Counters since the rule set was loaded. One writer (the router), any number of readers.
#[derive(Debug)]
pub struct RouterStatus {
    /// Records read and routed.
    pub(super) records: AtomicU64,
    /// Records whose payload is not JSON though a rule looks into it.
    pub(super) not_json: AtomicU64,
    /// Records whose properties this version cannot read.
    pub(super) undecodable: AtomicU64,
    /// Records that retention deleted before they were read.
    pub(super) skipped: AtomicU64,
    /// Lowest offset of the union queue not yet routed.
    pub(super) cursor: AtomicU64,
    /// Matches of each rule, in the set's order.
    pub(super) matched: Vec<AtomicU64>,
    /// Why the router is not getting on, if it is not.
    pub(super) error: Mutex<Option<String>>,
}

/// [`RouterStatus`] at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct RouterSnapshot {
    /// Records read and routed since the rules were loaded.
    pub records: u64,
    /// Of these, records whose payload is not JSON though a rule looks into it: no match for that rule.
    pub not_json: u64,
    /// Of these, records whose properties this version cannot read: no match for any rule.
    pub undecodable: u64,
    /// Records that retention deleted before they were read.
    pub skipped: u64,
    /// Lowest offset of the union queue not yet routed.
    pub cursor: u64,
    /// Why the router is not getting on, if it is not.
    pub error: Option<String>,
}

impl RouterStatus {
    /// Zeros, for a set of `rules` rules.
    #[must_use]
    pub fn new(rules: usize) -> Self {
        RouterStatus {
            records: AtomicU64::new(0),
            not_json: AtomicU64::new(0),
            undecodable: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            cursor: AtomicU64::new(0),
            matched: (0..rules).map(|_| AtomicU64::new(0)).collect(),
            error: Mutex::new(None),
        }
    }

    /// Notes why the router is not getting on; whether that is news.
    pub(crate) fn stalled(&self, reason: &str) -> bool {
        self.error.lock().replace(reason.to_owned()).as_deref() != Some(reason)
    }

    /// Records that a rule has matched since it was loaded.
    #[must_use]
    pub fn matched(&self, rule: usize) -> u64 {
        self.matched.get(rule).map_or(0, |matched| matched.load(Relaxed))
    }

    /// Everything else.
    #[must_use]
    pub fn snapshot(&self) -> RouterSnapshot {
        RouterSnapshot {
            records: self.records.load(Relaxed),
            not_json: self.not_json.load(Relaxed),
            undecodable: self.undecodable.load(Relaxed),
            skipped: self.skipped.load(Relaxed),
            cursor: self.cursor.load(Relaxed),
            error: self.error.lock().clone(),
        }
    }
}
