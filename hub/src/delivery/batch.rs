//! [`Batch`]: the events of one target in flight, and what follows from each outcome. No I/O, no clock of its own.
//!
//! Entries stay in the order of the queue. An entry is *done* when the destination confirmed it or its dead letter
//! is written; the cursor may move to the first entry that is not done. What failed is sent again in order, before
//! anything later is read, so one target never holds more than one batch.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use tidemill_connectors::{Fault, Follow, OutEvent, SendError};
use tidemill_rules::Retry;
use tidemill_store::{CursorPlace, DeadLetter, Pointer};

/// Longest error text kept with a dead letter, in bytes.
const ERROR_BYTES_MAX: usize = 1024;

/// One entry of the rule's queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Its offset in the queue.
    pub(super) offset: u64,
    /// Its record.
    pub(super) pointer: Pointer,
    /// The record's sequence.
    pub(super) sequence: u64,
    /// When its record was stored, in milliseconds since the Unix epoch.
    pub(super) time_ms: i64,
}

/// See the module's documentation.
pub(super) struct Batch {
    /// All entries from the cursor on, done ones in the middle included.
    entries: VecDeque<(Entry, bool)>,
    /// Where the queue goes on after this batch.
    next: u64,
    /// What is to be sent, in order, and for each its entry and its attempts so far.
    events: Vec<OutEvent>,
    tries: Vec<Try>,
    /// Given up, and not yet written as dead letters.
    dead: Vec<DeadLetter>,
    /// Sequence of the last entry that left `entries`.
    passed: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Try {
    entry: Entry,
    attempts: u32,
    /// When it was first tried, if that failed.
    since: Option<Instant>,
}

/// One attempt to send: when, and how many events from the front.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) sent: usize,
    pub(super) started: Instant,
    pub(super) ended: Instant,
    /// `ended` in milliseconds since the Unix epoch.
    pub(super) ended_ms: i64,
}

/// What one attempt came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// Events confirmed.
    pub(super) confirmed: u64,
    /// Events that will be sent again.
    pub(super) again: u64,
    /// Events given up.
    pub(super) given_up: u64,
    /// The first failure after which something is sent again.
    pub(super) failure: Option<Failure>,
}

/// Why something has to be sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// For people.
    pub(super) message: String,
    /// A person has to change something first.
    pub(super) stop: bool,
    /// The longest wait that the destination asked for.
    pub(super) retry_after: Option<Duration>,
}

impl Batch {
    /// A batch of nothing, after which the queue goes on at `next`.
    pub(super) fn new(next: u64) -> Self {
        Batch {
            entries: VecDeque::new(),
            next,
            events: Vec::new(),
            tries: Vec::new(),
            dead: Vec::new(),
            passed: None,
        }
    }

    /// Adds an entry with its event. Entries come in the queue's order.
    pub(super) fn push(&mut self, entry: Entry, event: OutEvent) {
        self.entries.push_back((entry, false));
        self.events.push(event);
        self.tries.push(Try { entry, attempts: 0, since: None });
    }

    /// Adds an entry that was done before.
    pub(super) fn push_done(&mut self, entry: Entry) {
        self.entries.push_back((entry, true));
    }

    /// Adds an entry that no attempt can deliver.
    pub(super) fn push_dead(&mut self, entry: Entry, error: &str, now_ms: i64) {
        self.entries.push_back((entry, false));
        self.dead.push(letter(&entry, 0, error, now_ms));
    }

    /// Whether everything is done.
    pub(super) fn is_done(&self) -> bool {
        self.events.is_empty() && self.dead.is_empty()
    }

    /// The events to send now: in order, at least one, and no more than `bytes_max` of data. Empty when none is left.
    pub(super) fn window(&self, bytes_max: usize) -> &[OutEvent] {
        let mut bytes = 0usize;
        let fits = |event: &&OutEvent| {
            bytes = bytes.saturating_add(event.event.data.as_ref().map_or(0, |data| data.len()));
            bytes <= bytes_max
        };
        let count = self.events.iter().take_while(fits).count().max(1);
        self.events.get(..count).unwrap_or_default()
    }

    /// When the oldest record that is not done was stored.
    pub(super) fn oldest_ms(&self) -> Option<i64> {
        self.entries.front().map(|(entry, _)| entry.time_ms)
    }

    /// Takes in the outcomes of an attempt.
    ///
    /// Under [`tidemill_connectors::Sink::send`], the events after a failed one of the same order key were not sent:
    /// they get its outcome, but it does not count as an attempt of theirs.
    pub(super) fn settle(
        &mut self,
        attempt: Attempt,
        outcomes: Vec<Result<(), SendError>>,
        retry: &Retry,
    ) -> Settled {
        let mut settled = Settled::default();
        let mut held = HashSet::new();
        let later = self.events.split_off(attempt.sent.min(self.events.len()));
        let later_tries = self.tries.split_off(self.events.len());
        let mut outcomes = outcomes.into_iter();
        let (events, tries) = (std::mem::take(&mut self.events), std::mem::take(&mut self.tries));
        for (event, mut tried) in events.into_iter().zip(tries) {
            let error = match outcomes.next() {
                Some(Ok(())) => {
                    settled.confirmed += 1;
                    self.done(tried.entry.offset);
                    continue;
                }
                Some(Err(error)) => error,
                None => unanswered(),
            };
            // Whether it was sent, or only held back by an earlier one of its key.
            let sent = error.follow == Follow::GiveUp || held.insert(event.order_key);
            if sent && tried.fails_for_good(&error, attempt, retry) {
                settled.given_up += 1;
                self.dead.push(letter(&tried.entry, tried.attempts, &error.message, attempt.ended_ms));
                continue;
            }
            settled.again += 1;
            note(&mut settled.failure, error);
            self.events.push(event);
            self.tries.push(tried);
        }
        self.events.extend(later);
        self.tries.extend(later_tries);
        settled
    }

    /// Dead letters to write before the cursor can move.
    pub(super) fn dead(&self) -> &[DeadLetter] {
        &self.dead
    }

    /// The dead letters are written: their entries are done.
    pub(super) fn buried(&mut self) {
        for letter in std::mem::take(&mut self.dead) {
            self.done(letter.offset);
        }
    }

    /// Where the cursor may move to: past all done entries at the front.
    pub(super) fn place(&mut self) -> Option<CursorPlace> {
        while let Some((entry, true)) = self.entries.front() {
            self.passed = Some(entry.sequence);
            self.entries.pop_front();
        }
        let offset = self.entries.front().map_or(self.next, |(entry, _)| entry.offset);
        self.passed.map(|sequence| CursorPlace { offset, sequence })
    }

    fn done(&mut self, offset: u64) {
        if let Ok(index) = self.entries.binary_search_by_key(&offset, |(entry, _)| entry.offset) {
            self.entries[index].1 = true;
        }
    }
}

impl Try {
    /// Counts a failed attempt; whether no other is to follow.
    fn fails_for_good(&mut self, error: &SendError, attempt: Attempt, retry: &Retry) -> bool {
        let elapsed = attempt.ended - *self.since.get_or_insert(attempt.started);
        match error.follow {
            Follow::Stop => false,
            Follow::GiveUp => {
                self.attempts = self.attempts.saturating_add(1);
                true
            }
            Follow::Retry => {
                self.attempts = self.attempts.saturating_add(1);
                retry.attempts.is_some_and(|most| self.attempts >= most)
                    || retry.for_.is_some_and(|most| elapsed >= most)
            }
        }
    }
}

/// Remembers the first failure, and the longest wait of all.
fn note(failure: &mut Option<Failure>, error: SendError) {
    let stop = error.follow == Follow::Stop;
    match failure {
        None => *failure = Some(Failure { message: error.message, stop, retry_after: error.retry_after }),
        Some(first) => {
            if stop && !first.stop {
                first.message = error.message;
            }
            first.stop |= stop;
            first.retry_after = first.retry_after.max(error.retry_after);
        }
    }
}

fn letter(entry: &Entry, attempts: u32, error: &str, time_ms: i64) -> DeadLetter {
    let mut end = error.len().min(ERROR_BYTES_MAX);
    while !error.is_char_boundary(end) {
        end -= 1;
    }
    let error = error.get(..end).unwrap_or_default().to_owned();
    DeadLetter { pointer: entry.pointer, offset: entry.offset, time_ms, attempts, error }
}

/// A connector that answers for fewer events than it was given has a fault; nothing is confirmed by silence.
fn unanswered() -> SendError {
    SendError {
        fault: Fault::Ours,
        follow: Follow::Retry,
        message: "the connector gave no outcome for the event".to_owned(),
        retry_after: None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tidemill_rules::CloudEvent;
    use tidemill_store::Position;

    use super::*;

    fn batch(keys: &[u64]) -> Batch {
        let mut batch = Batch::new(10 + keys.len() as u64);
        for (offset, key) in (10..).zip(keys) {
            let pointer = Pointer { position: Position::new(0, offset), size: 1 };
            let event = CloudEvent {
                id: offset.to_string(),
                source: "/s".to_owned(),
                ty: "t".to_owned(),
                subject: None,
                time_ms: None,
                datacontenttype: None,
                dataschema: None,
                extensions: Vec::new(),
                data: Some(Bytes::from_static(b"0123456789")),
            };
            let entry = Entry { offset, pointer, sequence: offset, time_ms: 5 };
            batch.push(entry, OutEvent { event, slots: Vec::new(), order_key: *key });
        }
        batch
    }

    fn attempt(sent: usize) -> Attempt {
        Attempt { sent, started: Instant::now(), ended: Instant::now(), ended_ms: 7 }
    }

    fn error(follow: Follow) -> Result<(), SendError> {
        Err(SendError { fault: Fault::Theirs, follow, message: "no".to_owned(), retry_after: None })
    }

    fn left(batch: &Batch) -> Vec<&str> {
        batch.events.iter().map(|event| event.event.id.as_str()).collect()
    }

    #[test]
    fn the_cursor_moves_only_past_what_is_done_at_the_front() {
        let mut batch = batch(&[1, 2, 3]);
        assert_eq!(batch.place(), None);
        let outcomes = vec![error(Follow::Retry), Ok(()), Ok(())];
        batch.settle(attempt(3), outcomes, &Retry::default());
        assert_eq!((batch.place(), left(&batch)), (None, vec!["10"]));
        batch.settle(attempt(1), vec![Ok(())], &Retry::default());
        assert_eq!(batch.place(), Some(CursorPlace { offset: 13, sequence: 12 }));
        assert!(batch.is_done());
    }

    #[test]
    fn only_what_was_sent_counts_as_tried() {
        let mut batch = batch(&[1, 1, 2]);
        let retry = Retry { attempts: Some(2), ..Retry::default() };
        let down = || vec![error(Follow::Retry), error(Follow::Retry), error(Follow::Retry)];
        batch.settle(attempt(3), down(), &retry);
        let settled = batch.settle(attempt(3), down(), &retry);
        // The second was held back by the first both times, so it has all its attempts left.
        assert_eq!((settled.given_up, left(&batch)), (2, vec!["11"]));
        assert!(!batch.is_done(), "the dead letters are not written yet");
        assert_eq!(batch.place(), None);
        batch.buried();
        assert_eq!(batch.place().map(|place| place.offset), Some(11));
    }

    #[test]
    fn what_is_given_up_holds_nothing_back() {
        let mut batch = batch(&[1, 1]);
        let retry = Retry { attempts: Some(1), ..Retry::default() };
        let settled = batch.settle(attempt(2), vec![error(Follow::GiveUp), error(Follow::Retry)], &retry);
        assert_eq!((settled.given_up, settled.again), (2, 0));
    }

    #[test]
    fn silence_confirms_nothing() {
        let mut batch = batch(&[1, 2]);
        let settled = batch.settle(attempt(2), vec![Ok(())], &Retry::default());
        assert_eq!((settled.confirmed, settled.again, left(&batch)), (1, 1, vec!["11"]));
    }

    #[test]
    fn a_window_has_at_least_one_event_and_otherwise_fits() {
        let mut batch = batch(&[1, 2, 3]);
        assert_eq!([0, 10, 25, 30].map(|bytes| batch.window(bytes).len()), [1, 1, 2, 3]);
        batch.settle(attempt(1), vec![Ok(())], &Retry::default());
        assert_eq!(left(&batch), ["11", "12"], "what was not sent stays, in order");
    }
}
