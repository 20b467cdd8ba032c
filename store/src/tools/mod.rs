//! Tools for a data directory that no hub has open: what is in it, is it whole, what is at a position, derive the index again.
//!
//! All of them block, lock the directory while they run, and return plain data. All but [`rebuild_index`] change nothing in it,
//! not even a torn tail.
//!
//! # Layout
//! - `stats`: sizes, counts, lag; `dump`: one record; `verify`: is everything whole?; `rebuild`: the index derived again
//! - `data`: a data directory opened to be looked at; `walk`: its log, past what is damaged; `queues`: which queues a record belongs to
//! - `follow`: entries of queues beside the records that they point at; `sums`: all entries of a queue in one number

mod data;
mod dump;
mod follow;
mod queues;
mod rebuild;
mod stats;
mod sums;
#[cfg(test)]
mod tests;
mod verify;
mod walk;

use std::fmt;

use crate::{CursorKey, Position, QueueId};

pub use self::dump::{Dump, Dumped, InQueue, dump};
pub use self::rebuild::{Rebuilt, rebuild_index};
pub use self::stats::{Lag, QueueCount, ShardStats, StoreStats, stats};
pub use self::verify::{Verified, verify};

/// How far a tool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What it does now, as in `reading the log`.
    pub what: &'static str,
    /// Bytes done.
    pub done: u64,
    /// Bytes there are to do; 0 when that is not known.
    pub total: u64,
}

/// Is told from time to time how far a tool is.
pub type Watch<'a> = &'a mut dyn FnMut(Progress);

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What, as a sentence without its place.
    pub what: String,
}

/// Where a problem is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the log.
    Log(Position),
    /// In the index: an entry of a queue.
    Entry {
        /// The queue.
        queue: QueueId,
        /// The entry.
        offset: u64,
    },
    /// In the index: no entry in particular.
    Index,
    /// A cursor.
    Cursor(CursorKey),
    /// The retained message of this topic.
    Retained(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Log(position) => write!(f, "log, position {position}"),
            Place::Entry { queue, offset } => write!(f, "queue {}, offset {offset}", queue.0),
            Place::Index => write!(f, "index"),
            Place::Cursor(key) => write!(f, "cursor of `{}` in queue {}", key.owner, key.queue.0),
            Place::Retained(topic) => write!(f, "retained message of `{topic}`"),
        }
    }
}

/// What was found, the first of it in full.
#[derive(Debug)]
struct Findings {
    problems: Vec<Problem>,
    problems_max: usize,
    count: u64,
    notes: Vec<String>,
}

impl Findings {
    fn new(problems_max: usize) -> Self {
        Findings { problems: Vec::new(), problems_max, count: 0, notes: Vec::new() }
    }

    fn problem(&mut self, place: Place, what: impl Into<String>) {
        self.count += 1;
        if self.problems.len() < self.problems_max {
            self.problems.push(Problem { place, what: what.into() });
        }
    }

    fn note(&mut self, what: impl Into<String>) {
        // As bounded as the problems: there are few kinds of them, and one for each segment at the most.
        if self.notes.len() < NOTES_MAX {
            self.notes.push(what.into());
        }
    }
}

/// Notes that are kept.
const NOTES_MAX: usize = 1000;
