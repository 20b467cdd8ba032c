//! [`Group`]: one cursor over one queue, and the members among whom its messages go round.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tidemill_store::{
    Collection, CursorKey, CursorPlace, Due, ReadBatch, ReadRequest, Record, Store, StoreError,
};

use super::super::registry::Mail;
use super::super::session::{Cursor, Step};
use super::account::Account;
use super::document_key;

/// Records read for a group at a time.
const RECORDS_MAX: usize = 64;
/// Bytes read for a group at a time; one record always fits.
const BYTES_MAX: usize = 256 << 10;

/// One group.
pub(in super::super) struct Group {
    pub(super) key: CursorKey,
    pub(super) state: Mutex<State>,
    /// Held by the member that reads for all.
    reading: tokio::sync::Mutex<()>,
    /// [`State::ended`] when its account was last written; 0 if there is none.
    written: AtomicU64,
    /// Held while its account is written.
    writing: tokio::sync::Mutex<()>,
}

pub(super) struct State {
    /// Subscriptions of this group, with a connection or without.
    pub(super) subscribers: usize,
    cursor: Cursor,
    /// Given back by members that left, and what was with nobody at a restart.
    again: BTreeSet<u64>,
    /// Messages that sessions had in flight before a restart and that were not read since, by offset; whether their delivery
    /// has ended.
    ahead: BTreeMap<u64, bool>,
    members: Vec<Member>,
    /// Whose turn it is.
    turn: usize,
    /// How many deliveries with QoS 2 have ended. Counts on if there was an account before.
    ended: u64,
}

/// A connected member.
struct Member {
    mail: Arc<Mail>,
    /// How many more messages it can take.
    room: usize,
    /// Its messages that it has not fetched yet.
    assigned: VecDeque<(u64, Record)>,
    /// Bytes of their payloads.
    assigned_bytes: usize,
}

impl Member {
    /// Whether it can take one more message: it may have stopped fetching because its socket is full.
    fn has_room(&self) -> bool {
        self.room > 0 && self.assigned_bytes < BYTES_MAX
    }
}

impl Group {
    /// A group with its first subscription, and with what an account says that was written before a restart.
    pub(super) fn new(key: CursorKey, mut cursor: Cursor, account: Option<Account>) -> Self {
        let ended = u64::from(account.is_some());
        let Account { next, open, ahead } = account.unwrap_or_default();
        let again = cursor.restore(next, &open).into_iter().collect();
        let unread = cursor.next();
        let ahead =
            ahead.into_iter().filter(|offset| *offset >= unread).map(|offset| (offset, true)).collect();
        let state = State { subscribers: 1, cursor, again, ahead, members: Vec::new(), turn: 0, ended };
        Group {
            key,
            state: Mutex::new(state),
            reading: tokio::sync::Mutex::default(),
            written: AtomicU64::new(ended),
            writing: tokio::sync::Mutex::default(),
        }
    }

    /// Its place in the queue.
    pub(in super::super) fn place(&self) -> CursorPlace {
        self.state.lock().cursor.place()
    }

    /// After a restart: a session has a QoS 2 message in flight, which nobody else may have.
    pub(super) fn hold(&self, offset: u64) {
        let mut state = self.state.lock();
        state.again.remove(&offset);
        if offset >= state.cursor.next() {
            state.ahead.entry(offset).or_insert(false);
        }
    }

    /// A member is connected.
    pub(in super::super) fn join(&self, mail: &Arc<Mail>) {
        let member = Member { mail: Arc::clone(mail), room: 0, assigned: VecDeque::new(), assigned_bytes: 0 };
        self.state.lock().members.push(member);
    }

    /// A member is gone; what it did not finish goes to the others.
    pub(in super::super) fn leave(&self, mail: &Arc<Mail>, unfinished: impl IntoIterator<Item = u64>) {
        let mut state = self.state.lock();
        if let Some(index) = state.members.iter().position(|member| Arc::ptr_eq(&member.mail, mail)) {
            let member = state.members.remove(index);
            state.again.extend(member.assigned.iter().map(|(offset, _)| offset));
        }
        state.again.extend(unfinished);
        if !state.again.is_empty() {
            state.members.iter().for_each(|member| member.mail.nudge_share());
        }
    }

    /// The delivery of a message has ended that a session had in flight.
    pub(in super::super) fn done(&self, store: &Store, offset: u64, step: Step) {
        let mut state = self.state.lock();
        state.ended += u64::from(step != Step::Puback);
        state.done(offset);
        self.commit(&mut state, store);
    }

    /// A message needs nothing further: it was sent with QoS 0, or is not to be sent.
    pub(in super::super) fn pass(&self, store: &Store, offset: u64) {
        let mut state = self.state.lock();
        state.done(offset);
        self.commit(&mut state, store);
    }

    fn commit(&self, state: &mut State, store: &Store) {
        if let (Some(id), Some(place)) = (state.cursor.id(), state.cursor.take_moved()) {
            store.commit(id, place);
        }
    }

    /// Writes its account down, if a QoS 2 message was done since that was last done.
    pub(super) async fn keep(&self, store: &Store) -> Result<(), StoreError> {
        let ended = self.state.lock().ended;
        if self.written.load(Ordering::Acquire) >= ended {
            return Ok(());
        }
        let _writing = self.writing.lock().await;
        // Whoever wrote while we waited may have written for us.
        if self.written.load(Ordering::Acquire) >= ended {
            return Ok(());
        }
        let (ended, account) = self.state.lock().account();
        store
            .put_document(Collection::Groups, &document_key(&self.key), account.encode(), Due::default())
            .await?;
        self.written.store(ended, Ordering::Release);
        Ok(())
    }

    /// Whether it has an account in the store.
    pub(super) fn has_account(&self) -> bool {
        self.written.load(Ordering::Acquire) > 0
    }

    /// Up to `room` messages for a member. When none come, `Err` is the offset to watch the queue from. Counts those that are
    /// gone from the log.
    pub(in super::super) async fn pull(
        &self,
        store: &Store,
        mail: &Arc<Mail>,
        room: usize,
        skipped: &mut u64,
    ) -> Result<Result<Vec<(u64, Record)>, u64>, StoreError> {
        if let Some(mine) = self.state.lock().fetch(mail, room) {
            return Ok(Ok(mine));
        }
        let _reading = self.reading.lock().await;
        if let Some(mine) = self.state.lock().fetch(mail, room) {
            return Ok(Ok(mine));
        }
        let (wanted, again, next) = {
            let state = self.state.lock();
            let able = state.members.iter().filter(|member| member.has_room());
            let wanted = able.map(|member| member.room).sum::<usize>().min(RECORDS_MAX);
            (wanted, state.first_again(wanted), state.cursor.next())
        };
        if wanted == 0 {
            return Ok(Err(next));
        }
        let (from, records_max) = again.map_or((next, wanted), |(first, count)| (first, count));
        let queue = self.key.queue;
        let request = ReadRequest { queue, from, records_max, bytes_max: BYTES_MAX, durable: false };
        let batch = store.read(request).await?;
        let mut state = self.state.lock();
        if let Some((first, count)) = again {
            *skipped += state.give_again(first, first + count as u64, batch);
            self.commit(&mut state, store);
            return Ok(Ok(state.fetch(mail, room).unwrap_or_default()));
        }
        *skipped += batch.skipped;
        let (is_empty, at_end) = (batch.records.is_empty(), batch.next >= batch.end);
        let next = batch.next;
        state.give(batch);
        if is_empty && at_end {
            return Ok(Err(next));
        }
        Ok(Ok(state.fetch(mail, room).unwrap_or_default()))
    }
}

impl State {
    fn done(&mut self, offset: u64) {
        match self.ahead.get_mut(&offset) {
            Some(ended) => *ended = true,
            None => self.cursor.done(offset),
        }
    }

    /// What is to be written down, and [`State::ended`] of it.
    fn account(&self) -> (u64, Account) {
        let ahead = self.ahead.iter().filter(|(_, ended)| **ended).map(|(offset, _)| *offset);
        let account =
            Account { next: self.cursor.next(), open: self.cursor.open().collect(), ahead: ahead.collect() };
        (self.ended, account)
    }

    /// The first of those to be given again, and how many follow it without a gap, itself included.
    fn first_again(&self, max: usize) -> Option<(u64, usize)> {
        let first = *self.again.first()?;
        let run = self.again.iter().zip(first..).take(max).take_while(|(offset, wanted)| *offset == wanted);
        Some((first, run.count()))
    }

    /// Gives what was read of those from `first` to before `end`, which are to be given again, as far as members have room. How many
    /// retention has deleted.
    fn give_again(&mut self, first: u64, end: u64, batch: ReadBatch) -> u64 {
        let (mut gone, mut expected) = (0, first);
        for (offset, record) in batch.records.into_iter().take_while(|(offset, _)| *offset < end) {
            gone += self.lose(expected..offset);
            if !self.assign(offset, record) {
                return gone;
            }
            self.again.remove(&offset);
            expected = offset + 1;
        }
        gone + self.lose(expected..batch.next.min(end))
    }

    /// Retention has deleted what was to be given again. How many that are.
    fn lose(&mut self, gone: Range<u64>) -> u64 {
        let lost: Vec<u64> = gone.filter(|offset| self.again.remove(offset)).collect();
        lost.iter().for_each(|offset| self.cursor.done(*offset));
        lost.len() as u64
    }

    /// Gives what was read of the queue.
    fn give(&mut self, batch: ReadBatch) {
        for (offset, record) in batch.records {
            self.cursor.take(offset, record.sequence);
            match self.ahead.remove(&offset) {
                Some(true) => self.cursor.done(offset),
                // A session has it.
                Some(false) => {}
                // A member may have left while it was read for.
                None => {
                    if !self.assign(offset, record) {
                        self.again.insert(offset);
                    }
                }
            }
        }
        self.cursor.skip_to(batch.next);
        if self.ahead.first_key_value().is_some_and(|(first, _)| *first < batch.next) {
            // Retention has deleted them.
            self.ahead = self.ahead.split_off(&batch.next);
        }
    }

    /// Gives a message to the next member in turn that has room.
    fn assign(&mut self, offset: u64, record: Record) -> bool {
        let count = self.members.len();
        for step in 0..count {
            let index = (self.turn + step) % count;
            if let Some(member) = self.members.get_mut(index)
                && member.has_room()
            {
                member.room -= 1;
                member.assigned_bytes += record.payload.len();
                member.assigned.push_back((offset, record));
                member.mail.nudge_share();
                self.turn = index + 1;
                return true;
            }
        }
        false
    }

    /// Notes how much room a member has, and takes what is there for it.
    fn fetch(&mut self, mail: &Arc<Mail>, room: usize) -> Option<Vec<(u64, Record)>> {
        let member = self.members.iter_mut().find(|member| Arc::ptr_eq(&member.mail, mail))?;
        let (mut mine, mut bytes) = (Vec::new(), 0);
        while mine.len() < room && bytes < BYTES_MAX {
            let Some(next) = member.assigned.pop_front() else { break };
            bytes += next.1.payload.len();
            mine.push(next);
        }
        member.assigned_bytes -= bytes;
        member.room = (room - mine.len()).saturating_sub(member.assigned.len());
        (!mine.is_empty()).then_some(mine)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;
    use tidemill_store::{CursorPlace, QueueId};

    use super::*;
    use crate::message::empty_record;

    fn group() -> Group {
        let cursor = Cursor::at(CursorPlace { offset: 0, sequence: 0 });
        Group::new(CursorKey { owner: "share/g".to_owned(), queue: QueueId(1) }, cursor, None)
    }

    fn offsets(fetched: Option<Vec<(u64, Record)>>) -> Vec<u64> {
        fetched.unwrap_or_default().iter().map(|(offset, _)| *offset).collect()
    }

    #[test]
    fn a_member_that_does_not_fetch_is_given_so_many_bytes_and_no_more() {
        let group = group();
        let (a, b) = (Arc::new(Mail::default()), Arc::new(Mail::default()));
        group.join(&a);
        group.join(&b);
        let large = |offset| Record { payload: vec![0; BYTES_MAX / 2 + 1].into(), ..empty_record(offset) };
        let mut state = group.state.lock();
        assert!(state.fetch(&a, 100).is_none() && state.fetch(&b, 100).is_none());
        assert_eq!((0..9).filter(|offset| state.assign(*offset, large(*offset))).count(), 4);
        assert_eq!(offsets(state.fetch(&b, 100)), [1, 3]);
        assert_eq!((4..9).filter(|offset| state.assign(*offset, large(*offset))).count(), 2, "all for b");
        assert_eq!(offsets(state.fetch(&a, 100)), [0, 2]);
        assert_eq!(offsets(state.fetch(&b, 100)), [4, 5]);
        // One that is larger than all of it fits.
        let huge = Record { payload: vec![0; 3 * BYTES_MAX].into(), ..empty_record(9) };
        assert!(state.assign(9, huge.clone()) && state.assign(10, huge.clone()) && !state.assign(11, huge));
        assert_eq!(offsets(state.fetch(&a, 100)), [9]);
    }

    #[test]
    fn members_take_turns_as_far_as_they_have_room() {
        let group = group();
        let (a, b) = (Arc::new(Mail::default()), Arc::new(Mail::default()));
        group.join(&a);
        group.join(&b);
        let mut state = group.state.lock();
        assert!(!state.assign(0, empty_record(0)), "nobody has room");
        assert!(state.fetch(&a, 3).is_none());
        assert!(state.fetch(&b, 1).is_none());
        assert_eq!((0..5).filter(|offset| state.assign(*offset, empty_record(*offset))).count(), 4);
        assert!(a.share_nudged() && b.share_nudged());
        assert_eq!(offsets(state.fetch(&a, 2)), [0, 2], "no more than there is room for now");
        assert_eq!(offsets(state.fetch(&a, 2)), [3]);
        assert_eq!(offsets(state.fetch(&b, 1)), [1]);
    }

    #[test]
    fn what_a_member_leaves_is_for_the_others() {
        let group = group();
        let (a, b) = (Arc::new(Mail::default()), Arc::new(Mail::default()));
        group.join(&a);
        group.join(&b);
        {
            let mut state = group.state.lock();
            state.fetch(&a, 2);
            assert!(state.assign(4, empty_record(4)) && state.assign(5, empty_record(5)));
        }
        a.share_nudged();
        group.leave(&a, [2]);
        assert!(b.share_nudged() && !a.share_nudged());
        let state = group.state.lock();
        assert_eq!(Vec::from_iter(state.again.iter().copied()), [2, 4, 5]);
        assert_eq!(state.members.len(), 1);
    }

    /// What a read of a queue answers that has a record at every offset below `end`.
    fn read(from: u64, count: usize, end: u64) -> ReadBatch {
        let next = (from + count as u64).min(end).max(from);
        let records = (from..next).map(|offset| (offset, empty_record(offset))).collect();
        ReadBatch { records, next, skipped: 0, end }
    }

    #[test]
    fn what_retention_deleted_holds_nothing_up() {
        let account = Account { next: 9, open: vec![2, 3, 4, 6], ahead: vec![] };
        let group =
            Group::new(group().key, Cursor::at(CursorPlace { offset: 1, sequence: 0 }), Some(account));
        let mail = Arc::new(Mail::default());
        group.join(&mail);
        group.hold(10);
        let mut state = group.state.lock();
        state.fetch(&mail, 9);
        assert_eq!(state.first_again(9), Some((2, 3)));
        let batch = ReadBatch { records: vec![(4, empty_record(4))], next: 5, skipped: 2, end: 20 };
        assert_eq!(state.give_again(2, 5, batch), 2);
        assert_eq!((state.cursor.place().offset, state.first_again(9)), (4, Some((6, 1))));
        // There is nothing before 12 any more.
        let batch = ReadBatch { records: vec![(12, empty_record(12))], next: 13, skipped: 6, end: 20 };
        assert_eq!(state.give_again(6, 7, batch), 1);
        let batch = ReadBatch { records: vec![(12, empty_record(12))], next: 13, skipped: 3, end: 20 };
        state.give(batch);
        assert!(state.again.is_empty() && state.ahead.is_empty());
        assert_eq!(offsets(state.fetch(&mail, 9)), [4, 12]);
        assert_eq!(Vec::from_iter(state.cursor.open()), [4, 12]);
    }

    proptest! {
        /// Against sessions whose documents are written before they send and some time after they completed, groups that write
        /// their account before that, a durable cursor at any place it ever had, and crashes at any moment: every message is
        /// sent by one session.
        #[test]
        fn nothing_is_given_twice_across_crashes(
            steps in proptest::collection::vec((0..12_u8, 0..40_u64, any::<prop::sample::Index>()), 1..300),
        ) {
            const END: u64 = 200;
            let mail = Arc::new(Mail::default());
            let mut places = vec![CursorPlace { offset: 0, sequence: 0 }];
            let start = |place, account| {
                let group = Group::new(super::super::group_key("g", QueueId(1)), Cursor::at(place), account);
                group.join(&mail);
                group
            };
            let mut group = start(places[0], None);
            // What sessions have in flight, what their documents say, and the group's account.
            let (mut in_flight, mut document) = (BTreeSet::new(), BTreeSet::new());
            let (mut account, mut written) = (None, 0);
            let mut sent = BTreeMap::new();
            let mut steps = steps.into_iter();
            loop {
                let step = steps.next();
                let mut state = group.state.lock();
                match step {
                    // At the end, all that is left.
                    Some((0..5, ..)) | None => {
                        let count = step.map_or(7, |(_, count, _)| count as usize % 7 + 1);
                        state.fetch(&mail, count);
                        match state.first_again(count) {
                            Some((first, run)) => {
                                state.give_again(first, first + run as u64, read(first, run, END));
                            }
                            None => {
                                let batch = read(state.cursor.next(), count, END);
                                state.give(batch);
                            }
                        }
                        let given = offsets(state.fetch(&mail, count));
                        for offset in &given {
                            *sent.entry(*offset).or_insert(0) += 1;
                        }
                        in_flight.extend(given);
                    }
                    Some((5..9, _, which)) if !in_flight.is_empty() => {
                        let offset = *which.get(&Vec::from_iter(&in_flight));
                        let offset = *offset;
                        in_flight.remove(&offset);
                        state.ended += 1;
                        state.done(offset);
                        places.extend(state.cursor.take_moved());
                    }
                    Some((9, ..)) if state.ended > written => {
                        let (ended, new) = state.account();
                        (written, account) = (ended, Some(new));
                    }
                    Some((10, _, which)) => {
                        let place = *which.get(&places);
                        drop(state);
                        group = start(place, account.as_ref().and_then(|account: &Account| Account::decode(account.encode())));
                        written = u64::from(account.is_some());
                        document.iter().for_each(|offset| group.hold(*offset));
                        in_flight.clone_from(&document);
                        continue;
                    }
                    _ => {}
                }
                // What is sent is written first, and what was completed by then is written by the group before.
                if !in_flight.is_subset(&document) {
                    if state.ended > written {
                        let (ended, new) = state.account();
                        (written, account) = (ended, Some(new));
                    }
                    document.clone_from(&in_flight);
                }
                if step.is_none() && state.cursor.next() == END && state.again.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(sent, BTreeMap::from_iter((0..END).map(|offset| (offset, 1))));
        }
    }
}
