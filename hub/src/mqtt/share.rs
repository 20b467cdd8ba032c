//! Shared subscriptions (4.8.2): a group is one cursor over the queue of its filter, and its members take turns.
//!
//! A member says how many messages it has room for whenever it asks ([`Group::pull`]). Whoever asks reads for all: what
//! was read goes round the members that have room, one each, and they are told. A message is done when its
//! member has acknowledged it. What a member with QoS 1 leaves behind goes to the others ([`Group::leave`]); a QoS 2
//! message that was sent stays with its session (MQTT-4.8.2-4, -5). With no member connected, the
//! cursor stands still and nothing is lost.
//!
//! After a restart the group reads on at its durable cursor: what was in flight is sent again, QoS 2 too.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use foldhash::HashMap;
use parking_lot::Mutex;
use tidemill_store::{
    CursorKey, CursorPlace, Pointer, QueueInfo, ReadRequest, Record, Start, Store, StoreError,
};
use tracing::warn;

use super::registry::Mail;
use super::session::{Cursor, InFlight, Session, Step, Subscription, SubscriptionKey};
use super::sessions;

/// Records read for a group at a time.
const RECORDS_MAX: usize = 64;
/// Bytes read for a group at a time; one record always fits.
const BYTES_MAX: usize = 256 << 10;

/// The groups of a broker.
#[derive(Default)]
pub(super) struct Groups {
    all: Mutex<HashMap<CursorKey, Arc<Group>>>,
    /// Held while a group comes into being or ends.
    changes: tokio::sync::Mutex<()>,
}

/// One group.
pub(super) struct Group {
    key: CursorKey,
    state: Mutex<State>,
    /// Held by the member that reads for all.
    reading: tokio::sync::Mutex<()>,
}

struct State {
    /// Subscriptions of this group, with a connection or without.
    subscribers: usize,
    cursor: Cursor,
    /// Given back by members that left, by offset.
    again: BTreeMap<u64, Pointer>,
    members: Vec<Member>,
    /// Whose turn it is.
    turn: usize,
}

/// A connected member.
struct Member {
    mail: Arc<Mail>,
    /// How many more messages it can take.
    room: usize,
    /// Its messages that it has not fetched yet.
    assigned: VecDeque<(u64, Record)>,
}

/// Names the cursor of a group.
fn group_key(group: &str, queue: tidemill_store::QueueId) -> CursorKey {
    CursorKey { owner: format!("share/{group}"), queue }
}

impl Groups {
    /// A subscription joins a group. If it is the group's first, the group starts at the queue's end, unless
    /// (`fresh` is false) it is being recovered.
    pub(super) async fn enlist(
        &self,
        store: &Store,
        group: &str,
        queue: &QueueInfo,
        fresh: bool,
    ) -> Result<(), StoreError> {
        let _changes = self.changes.lock().await;
        let key = group_key(group, queue.id);
        if let Some(group) = self.all.lock().get(&key) {
            group.state.lock().subscribers += 1;
            return Ok(());
        }
        let end = CursorPlace { offset: queue.end, sequence: 0 };
        let cursor = if fresh {
            sessions::new_cursor(store, key.clone(), end).await?
        } else {
            Cursor::kept(store.open_cursor(key.clone(), Start::Offset(end.offset)).await?)
        };
        let state = State { subscribers: 1, cursor, again: BTreeMap::new(), members: Vec::new(), turn: 0 };
        let group =
            Group { key: key.clone(), state: Mutex::new(state), reading: tokio::sync::Mutex::default() };
        self.all.lock().insert(key, Arc::new(group));
        Ok(())
    }

    /// A subscription is gone. The last one takes the group with it.
    pub(super) async fn withdraw(&self, store: &Store, gone: &Subscription) {
        let _changes = self.changes.lock().await;
        let Some(group) = self.find(gone) else { return };
        let last = {
            let mut state = group.state.lock();
            state.subscribers = state.subscribers.saturating_sub(1);
            state.subscribers == 0
        };
        if last {
            self.all.lock().remove(&group.key);
            if let Err(error) = store.delete_cursor(&group.key).await {
                warn!(owner = group.key.owner, %error, "could not delete the cursor of a shared subscription");
            }
        }
    }

    /// The group of a subscription.
    pub(super) fn find(&self, subscription: &Subscription) -> Option<Arc<Group>> {
        let key = group_key(subscription.group()?, subscription.queue);
        self.all.lock().get(&key).cloned()
    }

    /// The delivery of a message has ended, or will never: if it came from a group, the group's cursor may move.
    pub(super) fn finish(&self, store: &Store, session: &Session, done: &InFlight) {
        for source in &done.sources {
            if let Some(subscription) = session.subscriptions.get(source.subscription)
                && subscription.is_shared()
                && let Some(group) = self.find(subscription)
            {
                group.done(store, source.offset);
            }
        }
    }

    /// Subscriptions of a session without a connection are about to go: the QoS 2 messages in flight from them are completed
    /// there (3.10.4), without telling their groups, whose cursors would wait for them for ever.
    pub(super) fn let_go(&self, store: &Store, session: &Session, gone: &[SubscriptionKey]) {
        if gone.is_empty() {
            return;
        }
        for (_, sent) in session.window.in_order() {
            // What has QoS 1 was given back when its connection ended.
            if sent.step != Step::Puback
                && sent.sources.iter().any(|source| gone.contains(&source.subscription))
            {
                self.finish(store, session, &sent);
            }
        }
    }
}

impl Group {
    /// Its place in the queue.
    pub(super) fn place(&self) -> CursorPlace {
        self.state.lock().cursor.place()
    }

    /// A member is connected.
    pub(super) fn join(&self, mail: &Arc<Mail>) {
        let member = Member { mail: Arc::clone(mail), room: 0, assigned: VecDeque::new() };
        self.state.lock().members.push(member);
    }

    /// A member is gone; what it did not finish goes to the others.
    pub(super) fn leave(&self, mail: &Arc<Mail>, unfinished: impl IntoIterator<Item = (u64, Pointer)>) {
        let mut state = self.state.lock();
        if let Some(index) = state.members.iter().position(|member| Arc::ptr_eq(&member.mail, mail)) {
            let member = state.members.remove(index);
            state.again.extend(member.assigned.iter().map(|(offset, record)| (*offset, record.pointer())));
        }
        state.again.extend(unfinished);
        if !state.again.is_empty() {
            state.members.iter().for_each(|member| member.mail.nudge_share());
        }
    }

    /// The delivery of a message has ended.
    pub(super) fn done(&self, store: &Store, offset: u64) {
        let mut state = self.state.lock();
        state.cursor.done(offset);
        if let (Some(id), Some(place)) = (state.cursor.id(), state.cursor.take_moved()) {
            store.commit(id, place);
        }
    }

    /// Up to `room` messages for a member. When none come, `Err` is the offset to watch the queue from. Counts those that are
    /// gone from the log.
    pub(super) async fn pull(
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
        let (wanted, again, from) = {
            let state = self.state.lock();
            let wanted = state.members.iter().map(|member| member.room).sum::<usize>().min(RECORDS_MAX);
            let again: Vec<(u64, Pointer)> =
                state.again.iter().take(wanted).map(|(offset, pointer)| (*offset, *pointer)).collect();
            (wanted, again, state.cursor.next())
        };
        if wanted == 0 {
            return Ok(Err(from));
        }
        if !again.is_empty() {
            let records = store.fetch(again.iter().map(|(_, pointer)| *pointer).collect()).await?;
            let mut state = self.state.lock();
            for ((offset, _), record) in again.into_iter().zip(records) {
                let Some(record) = record else {
                    // Retention has deleted it.
                    *skipped += 1;
                    state.again.remove(&offset);
                    state.cursor.done(offset);
                    continue;
                };
                if !state.assign(offset, record) {
                    break;
                }
                state.again.remove(&offset);
            }
            return Ok(Ok(state.fetch(mail, room).unwrap_or_default()));
        }
        let request = ReadRequest {
            queue: self.key.queue,
            from,
            records_max: wanted,
            bytes_max: BYTES_MAX,
            durable: false,
        };
        let batch = store.read(request).await?;
        *skipped += batch.skipped;
        let mut state = self.state.lock();
        if batch.records.is_empty() {
            state.cursor.skip_to(batch.next);
            return Ok(if batch.next < batch.end { Ok(Vec::new()) } else { Err(batch.next) });
        }
        for (offset, record) in batch.records {
            let sequence = record.sequence;
            let pointer = record.pointer();
            state.cursor.take(offset, sequence);
            // A member may have left while it was read for.
            if !state.assign(offset, record) {
                state.again.insert(offset, pointer);
            }
        }
        Ok(Ok(state.fetch(mail, room).unwrap_or_default()))
    }
}

impl State {
    /// Gives a message to the next member in turn that has room.
    fn assign(&mut self, offset: u64, record: Record) -> bool {
        let count = self.members.len();
        for step in 0..count {
            let index = (self.turn + step) % count;
            if let Some(member) = self.members.get_mut(index)
                && member.room > 0
            {
                member.room -= 1;
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
        let taken = member.assigned.len().min(room);
        let mine: Vec<_> = member.assigned.drain(..taken).collect();
        member.room = (room - taken).saturating_sub(member.assigned.len());
        (!mine.is_empty()).then_some(mine)
    }
}

/// Takes what a client with QoS 1 has in flight from shared subscriptions out of its session, by subscription: it is
/// for other members now.
pub(super) fn give_back(session: &mut Session) -> Vec<(SubscriptionKey, u64, Pointer)> {
    let mut given = Vec::new();
    for (id, sent) in session.window.in_order() {
        // What comes from a shared subscription comes from that one only.
        let [source] = sent.sources[..] else { continue };
        let shared = session.subscriptions.get(source.subscription).is_some_and(Subscription::is_shared);
        if shared && sent.step == Step::Puback {
            session.window.abandon(id);
            given.push((source.subscription, source.offset, sent.pointer));
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tidemill_store::{Position, Retain};

    use super::super::codec::{Qos, SubscriptionOptions};
    use super::super::session::{Source, Sources};
    use super::*;
    use crate::message;

    fn record(offset: u64) -> Record {
        Record {
            position: Position::from_u64(offset),
            sequence: offset,
            time_ms: 0,
            topic: "a".into(),
            properties: Bytes::new(),
            payload: Bytes::new(),
            attributes: 0,
            retain: Retain::No,
            kept: false,
            size: 1,
        }
    }

    fn group() -> Group {
        let cursor = Cursor::at(CursorPlace { offset: 0, sequence: 0 });
        let (again, members) = (BTreeMap::new(), Vec::new());
        Group {
            key: group_key("g", tidemill_store::QueueId(1)),
            state: Mutex::new(State { subscribers: 1, cursor, again, members, turn: 0 }),
            reading: tokio::sync::Mutex::default(),
        }
    }

    fn offsets(fetched: Option<Vec<(u64, Record)>>) -> Vec<u64> {
        fetched.unwrap_or_default().iter().map(|(offset, _)| *offset).collect()
    }

    #[test]
    fn members_take_turns_as_far_as_they_have_room() {
        let group = group();
        let (a, b) = (Arc::new(Mail::default()), Arc::new(Mail::default()));
        group.join(&a);
        group.join(&b);
        let mut state = group.state.lock();
        assert!(!state.assign(0, record(0)), "nobody has room");
        assert!(state.fetch(&a, 3).is_none());
        assert!(state.fetch(&b, 1).is_none());
        assert_eq!((0..5).filter(|offset| state.assign(*offset, record(*offset))).count(), 4);
        assert!(a.share_nudged() && b.share_nudged());
        assert_eq!(offsets(state.fetch(&a, 2)), [0, 2], "no more than there is room for now");
        assert_eq!(offsets(state.fetch(&a, 2)), [3]);
        assert_eq!(offsets(state.fetch(&b, 1)), [1]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_member_completes_on_its_own_holds_no_group_up() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(tidemill_store::Options::new(dir.path())).unwrap();
        let (groups, mail) = (Groups::default(), Arc::new(Mail::default()));
        let queue = store.open_filter("a").await.unwrap();
        groups.enlist(&store, "g", &queue, true).await.unwrap();
        let append = |qos| message::record("a".into(), Bytes::new(), Bytes::new(), qos, false);
        store
            .append([Qos::ExactlyOnce, Qos::ExactlyOnce, Qos::AtLeastOnce].map(append).to_vec())
            .await
            .unwrap();

        let mut session = Session::new("c".into(), 60);
        let cursor = Cursor::at(CursorPlace { offset: queue.end, sequence: 0 });
        let subscription =
            Subscription::new("$share/g/a".into(), SubscriptionOptions::default(), None, queue.id, cursor);
        let key = session.subscriptions.insert(subscription.unwrap());
        let group = groups.find(session.subscriptions.get(key).unwrap()).unwrap();
        group.join(&mail);
        let pulled = group.pull(&store, &mail, 3, &mut 0).await.unwrap().unwrap();
        let first = pulled[0].0;
        for ((offset, record), qos) in
            pulled.iter().zip([Qos::ExactlyOnce, Qos::ExactlyOnce, Qos::AtLeastOnce])
        {
            let sources = Sources::from_buf([Source { subscription: key, offset: *offset }]);
            session.window.send(sources, record.pointer(), qos, false).unwrap();
        }
        group.leave(&mail, []);
        groups.let_go(&store, &session, &[]);
        assert_eq!(group.place().offset, first);
        groups.let_go(&store, &session, &[key]);
        assert_eq!(group.place().offset, first + 2, "the one with QoS 1 is for others");
        store.close().await.unwrap();
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
            assert!(state.assign(4, record(4)) && state.assign(5, record(5)));
        }
        a.share_nudged();
        group.leave(&a, [(2, record(2).pointer())]);
        assert!(b.share_nudged() && !a.share_nudged());
        let state = group.state.lock();
        assert_eq!(state.again.keys().copied().collect::<Vec<_>>(), [2, 4, 5]);
        assert_eq!(state.members.len(), 1);
    }
}
