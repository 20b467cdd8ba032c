//! [`Cursor`]: how far a queue was read, and how far it is done.

use std::collections::VecDeque;

use tidemill_store::{CursorId, CursorPlace};

/// Entries of [`Cursor::open`] that are done and behind one that is not are left there up to this many.
const DONE_MIN: u32 = 64;

/// A subscription's place in its queue.
///
/// Offsets below `next` were read. Those in `open` are on their way to the client; every other one is
/// done: acknowledged, sent with QoS 0, expired, too large. So the place that is kept durably
/// is the first open offset.
///
/// What is acknowledged before the first is marked, and swept out when it is more than half of `open`. So a cursor
/// remembers at most twice what is in flight, and `DONE_MIN`, however long its first message is not acknowledged: the
/// windows of those it delivers to bound it.
#[derive(Clone, Debug)]
pub struct Cursor {
    /// Where to read on.
    next: u64,
    /// Sequence of the record last read: everything up to it is read.
    last: u64,
    /// In the order of offsets.
    open: VecDeque<Open>,
    /// How many of `open` are done.
    done: u32,
    /// Whether the durable place is behind this one.
    moved: bool,
    /// The store's number for the durable place, if there is one.
    id: Option<CursorId>,
}

/// A message on its way.
#[derive(Clone, Copy, Debug)]
struct Open {
    offset: u64,
    /// Sequence of the record read before it: when this is the first open one, all up to there is done.
    before: u64,
    done: bool,
}

impl Cursor {
    /// A cursor whose consumer has done everything before `place`.
    #[must_use]
    pub fn at(place: CursorPlace) -> Self {
        Cursor {
            next: place.offset,
            last: place.sequence,
            open: VecDeque::new(),
            done: 0,
            moved: false,
            id: None,
        }
    }

    /// A cursor that the store keeps.
    #[must_use]
    pub fn kept(cursor: tidemill_store::Cursor) -> Self {
        Cursor { id: Some(cursor.id), ..Cursor::at(cursor.place) }
    }

    /// The store's number for the durable place, if there is one.
    #[must_use]
    pub fn id(&self) -> Option<CursorId> {
        self.id
    }

    /// Puts back what a session document says: everything before `next` was read, and `open` is on its way.
    /// What the durable place has passed since is left out; the offsets that are still open are returned.
    pub fn restore(&mut self, next: u64, open: &[u64]) -> Vec<u64> {
        let done = self.next;
        let mut still_open: Vec<u64> =
            open.iter().copied().filter(|offset| (done..next).contains(offset)).collect();
        still_open.sort_unstable();
        still_open.dedup();
        let before = self.last;
        self.open = still_open.iter().map(|offset| Open { offset: *offset, before, done: false }).collect();
        self.done = 0;
        self.next = next.max(done);
        still_open
    }

    /// What was read and is not done, in the order of offsets.
    pub fn open(&self) -> impl Iterator<Item = u64> {
        self.open.iter().filter(|open| !open.done).map(|open| open.offset)
    }

    /// Where to read on.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The record at `offset` was read and is on its way.
    pub fn take(&mut self, offset: u64, sequence: u64) {
        self.open.push_back(Open { offset, before: self.last, done: false });
        self.moved |= self.open.len() == 1;
        self.next = offset + 1;
        self.last = sequence;
    }

    /// The record at `offset` was read and needs nothing further.
    pub fn pass(&mut self, offset: u64, sequence: u64) {
        self.next = offset + 1;
        self.last = sequence;
        self.moved |= self.open.is_empty();
    }

    /// The queue has nothing before `offset`: retention took it.
    pub fn skip_to(&mut self, offset: u64) {
        if offset > self.next {
            self.next = offset;
            self.moved |= self.open.is_empty();
        }
    }

    /// The delivery of `offset` has ended. Does nothing if it is not on its way.
    pub fn done(&mut self, offset: u64) {
        let Ok(index) = self.open.binary_search_by_key(&offset, |open| open.offset) else { return };
        if let Some(open @ Open { done: false, .. }) = self.open.get_mut(index) {
            open.done = true;
            self.done += 1;
        }
        while self.open.front().is_some_and(|open| open.done) {
            self.open.pop_front();
            self.done -= 1;
            self.moved = true;
        }
        if self.done > DONE_MIN && self.done as usize > self.open.len() / 2 {
            self.open.retain(|open| !open.done);
            self.done = 0;
        }
    }

    /// The place to keep durably: nothing at or after it is done in full.
    #[must_use]
    pub fn place(&self) -> CursorPlace {
        match self.open.front() {
            Some(first) => CursorPlace { offset: first.offset, sequence: first.before },
            None => CursorPlace { offset: self.next, sequence: self.last },
        }
    }

    /// The place, if it has moved since this was last asked.
    pub fn take_moved(&mut self) -> Option<CursorPlace> {
        std::mem::take(&mut self.moved).then(|| self.place())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sequence(offset: u64) -> u64 {
        offset * 100
    }

    fn start(offset: u64) -> Cursor {
        Cursor::at(CursorPlace { offset, sequence: sequence(offset - 1) })
    }

    #[test]
    fn the_place_stays_at_the_first_open_offset() {
        let mut cursor = start(10);
        cursor.take(10, sequence(10));
        cursor.pass(11, sequence(11));
        cursor.take(12, sequence(12));
        cursor.done(12);
        assert_eq!(cursor.place(), CursorPlace { offset: 10, sequence: sequence(9) });
        cursor.done(10);
        assert_eq!(cursor.place(), CursorPlace { offset: 13, sequence: sequence(12) });
        assert!(cursor.take_moved().is_some() && cursor.take_moved().is_none());
        cursor.done(10);
        assert_eq!(cursor.take_moved(), None, "done twice moves nothing");
    }

    #[test]
    fn passing_behind_an_open_offset_moves_nothing() {
        let mut cursor = start(1);
        cursor.take(1, sequence(1));
        cursor.take_moved();
        cursor.pass(2, sequence(2));
        assert_eq!(cursor.take_moved(), None);
        cursor.skip_to(9);
        assert_eq!((cursor.next(), cursor.place().offset), (9, 1));
        cursor.done(1);
        assert_eq!(cursor.place().offset, 9);
    }

    #[test]
    fn a_document_older_than_the_durable_place_does_not_bring_done_messages_back() {
        let mut cursor = start(15);
        assert_eq!(cursor.restore(13, &[10, 12]), Vec::<u64>::new());
        assert_eq!(cursor.next(), 15);
        let mut cursor = start(15);
        assert_eq!(cursor.restore(20, &[18, 12, 16]), vec![16, 18]);
        assert_eq!((cursor.next(), cursor.place().offset), (20, 16));
    }

    #[test]
    fn what_is_done_behind_the_first_is_not_remembered_for_ever() {
        let mut cursor = start(1);
        cursor.take(1, sequence(1));
        for offset in 2..100_000 {
            cursor.take(offset, sequence(offset));
            cursor.take_moved();
            // Always ten in flight, and acknowledged twice.
            for done in
                [offset.saturating_sub(9), offset.saturating_sub(9)].into_iter().filter(|done| *done > 1)
            {
                cursor.done(done);
            }
            assert!(cursor.open.len() <= 2 * 10 + 1 + DONE_MIN as usize);
        }
        assert_eq!((cursor.place().offset, cursor.take_moved()), (1, None));
        cursor.done(1);
        assert_eq!(cursor.place(), CursorPlace { offset: 99_991, sequence: sequence(99_990) });
        (99_991..100_000).for_each(|offset| cursor.done(offset));
        assert_eq!((cursor.place().offset, cursor.open.len(), cursor.done), (100_000, 0, 0));
    }

    proptest! {
        /// Against a model that remembers every offset.
        #[test]
        fn like_a_set_of_offsets(steps in proptest::collection::vec((0..5_u8, 0..200_u64), 1..800)) {
            let mut cursor = start(1);
            let (mut end, mut open) = (1_u64, std::collections::BTreeSet::new());
            for (step, argument) in steps {
                let before = cursor.place();
                match step {
                    0 => {
                        cursor.take(end, sequence(end));
                        open.insert(end);
                        end += 1;
                    }
                    1 => {
                        cursor.pass(end, sequence(end));
                        end += 1;
                    }
                    _ => {
                        cursor.done(argument);
                        open.remove(&argument);
                    }
                }
                let offset = open.first().copied().unwrap_or(end);
                prop_assert_eq!(cursor.place(), CursorPlace { offset, sequence: sequence(offset - 1) });
                prop_assert_eq!(cursor.next(), end);
                prop_assert!(cursor.place().offset == before.offset || cursor.take_moved().is_some());
            }
        }
    }
}
