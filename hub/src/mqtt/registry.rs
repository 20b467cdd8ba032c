//! [`Registry`]: which client identifiers have a session, who has it, and when something is due for those
//! that have no connection. Of a session without a connection only its name and its time are here, and the rest is its document.

use std::collections::{BTreeSet, BinaryHeap};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytestring::ByteString;
use foldhash::HashMap;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use parking_lot::{Mutex, MutexGuard};
use tidemill_store::Watcher;
use tokio::sync::{Notify, oneshot};

use super::clients::ClientInfo;
use super::session::Session;

/// Client identifiers are spread over this many gates.
const GATES: usize = 1024;
/// Sessions are spread over this many maps, so that looking through all of them holds nobody up for long.
const MAPS: usize = 64;
/// Questions that may wait for a connection's answer; one more gets none.
const QUESTIONS_MAX: usize = 16;

/// What [`Mail::bell`] is rung with when there is mail. Subscriptions have smaller tokens.
pub(super) const MAIL: u64 = u64::MAX;

/// How others reach a connection.
#[derive(Debug, Default)]
pub(super) struct Mail {
    /// The connection's bell: rung with [`MAIL`], and by the store with the tokens of subscriptions.
    pub(super) bell: Watcher,
    /// [`Session::owner`] of the session that the connection has.
    pub(super) owner: Option<Arc<str>>,
    /// Whether the bell was rung with [`MAIL`], and the connection has not looked yet.
    rung: AtomicBool,
    letters: Mutex<Letters>,
    share: AtomicBool,
    document: AtomicBool,
    review: AtomicBool,
}

#[derive(Debug, Default)]
struct Letters {
    /// Nobody reads this mail any more.
    closed: bool,
    take_over: Option<oneshot::Sender<Session>>,
    kick: Option<Kick>,
    questions: Vec<oneshot::Sender<ClientInfo>>,
}

/// Somebody wants the connection to end, or several do.
#[derive(Debug, Default)]
pub(super) struct Kick {
    /// Whether its session is to end as well: it is if one of them wants it.
    pub(super) end_session: bool,
    /// Told when that is done.
    pub(super) done: Vec<oneshot::Sender<()>>,
}

impl Mail {
    /// For a connection whose session belongs to this user.
    pub(super) fn of(owner: Option<Arc<str>>) -> Self {
        Mail { owner, ..Mail::default() }
    }

    /// Rings the bell, once until the connection looks.
    pub(super) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.bell.ring(MAIL);
        }
    }

    /// The connection is about to look: what is left from here on rings again.
    pub(super) fn look(&self) {
        // Taken with what was put before the ring that this one answers; a mere store would not see it.
        self.rung.swap(false, Ordering::AcqRel);
    }

    /// Asks the connection to go and to hand its session over. The answer fails if it is gone already.
    pub(super) fn take_over(&self) -> oneshot::Receiver<Session> {
        self.write(|letters, reply| letters.take_over = Some(reply))
    }

    /// Asks the connection to go, and its session too if it is to end. The answer comes when that is done, and
    /// fails if the connection is gone already, or if too many have asked.
    pub(super) fn kick(&self, end_session: bool) -> oneshot::Receiver<()> {
        self.write(|letters, done| {
            let kick = letters.kick.get_or_insert_default();
            kick.end_session |= end_session;
            if kick.done.len() < QUESTIONS_MAX {
                kick.done.push(done);
            }
        })
    }

    /// Asks the connection how it is doing. The answer fails if it is gone, or if too many have asked.
    pub(super) fn ask(&self) -> oneshot::Receiver<ClientInfo> {
        self.write(|letters, reply| {
            if letters.questions.len() < QUESTIONS_MAX {
                letters.questions.push(reply);
            }
        })
    }

    fn write<T>(&self, put: impl FnOnce(&mut Letters, oneshot::Sender<T>)) -> oneshot::Receiver<T> {
        let (reply, answer) = oneshot::channel();
        let mut letters = self.letters.lock();
        if !letters.closed {
            put(&mut letters, reply);
            self.ring();
        }
        answer
    }

    /// Nobody reads this mail any more; whoever waits for an answer is told so.
    pub(super) fn close(&self) {
        *self.letters.lock() = Letters { closed: true, ..Letters::default() };
    }

    /// Whether nobody reads this mail any more.
    pub(super) fn is_closed(&self) -> bool {
        self.letters.lock().closed
    }

    /// Says that a shared subscription has something for this connection.
    pub(super) fn nudge_share(&self) {
        self.share.store(true, Ordering::Release);
        self.ring();
    }

    /// Asks the connection to write its session down.
    pub(super) fn ask_to_write(&self) {
        self.document.store(true, Ordering::Release);
        self.ring();
    }

    /// Whether the session should be written down.
    pub(super) fn asked_to_write(&self) -> bool {
        self.document.swap(false, Ordering::AcqRel)
    }

    /// Says that what the client may do may have changed.
    pub(super) fn nudge_review(&self) {
        self.review.store(true, Ordering::Release);
        self.ring();
    }

    /// Whether what the client may do may have changed.
    pub(super) fn review_nudged(&self) -> bool {
        self.review.swap(false, Ordering::AcqRel)
    }

    /// Whether somebody wants the session.
    pub(super) fn taken_over(&self) -> Option<oneshot::Sender<Session>> {
        self.letters.lock().take_over.take()
    }

    /// Whether somebody wants the connection to end.
    pub(super) fn kicked(&self) -> Option<Kick> {
        self.letters.lock().kick.take()
    }

    /// Who wants to know how the connection is doing.
    pub(super) fn questions(&self) -> Vec<oneshot::Sender<ClientInfo>> {
        std::mem::take(&mut self.letters.lock().questions)
    }

    /// Whether a shared subscription has something.
    pub(super) fn share_nudged(&self) -> bool {
        self.share.swap(false, Ordering::AcqRel)
    }
}

/// A client identifier's session, as others see it.
enum Entry {
    /// A connection has it.
    Online(Arc<Mail>),
    /// Only its document is there. When something is due for it, in milliseconds since the Unix epoch.
    Offline(Option<i64>),
}

/// [`Offline::due_ms`] where nothing is due.
const NOTHING_DUE: i64 = i64::MAX;

/// A session that only its document is left of. There may be millions: the name is here once, and nowhere else in memory.
struct Offline {
    client: Box<str>,
    due_ms: i64,
}

const _: () = assert!(size_of::<Offline>() <= 24, "a million offline sessions are a normal day");

/// Sessions by client identifier.
#[derive(Default)]
struct Sessions {
    online: HashMap<ByteString, Arc<Mail>>,
    /// By [`Registry::hash`].
    offline: HashTable<Offline>,
}

impl Sessions {
    fn find_offline(&self, hash: u64, client: &str) -> Option<&Offline> {
        self.offline.find(hash, |offline| *offline.client == *client)
    }

    /// Takes one away that has no connection; when something was due for it.
    fn remove_offline(&mut self, hash: u64, client: &str) -> i64 {
        let found = self.offline.find_entry(hash, |offline| *offline.client == *client);
        found.map_or(NOTHING_DUE, |found| found.remove().0.due_ms)
    }
}

/// Who had a session.
pub(super) enum Holder {
    /// Nobody: there is none.
    Nobody,
    /// A connection.
    Connection(Arc<Mail>),
    /// The store.
    Document,
}

/// See the module's text.
pub(super) struct Registry {
    sessions: Box<[Mutex<Sessions>]>,
    /// What is due when, by the hash of the client identifier. Locked after the sessions if both are.
    due: Mutex<BTreeSet<(i64, u64)>>,
    gates: Box<[tokio::sync::Mutex<()>]>,
    hasher: RandomState,
    reviews: AtomicU64,
    /// Rung when something may be due sooner than it was.
    pub(super) sooner: Notify,
}

impl Registry {
    pub(super) fn new() -> Self {
        Registry {
            sessions: (0..MAPS).map(|_| Mutex::default()).collect(),
            due: Mutex::default(),
            gates: (0..GATES).map(|_| tokio::sync::Mutex::new(())).collect(),
            hasher: RandomState::default(),
            reviews: AtomicU64::new(0),
            sooner: Notify::new(),
        }
    }

    fn hash(&self, client: &str) -> u64 {
        self.hasher.hash_one(client)
    }

    /// The maps that have the session of a client identifier with this hash, if there is one.
    fn sessions(&self, hash: u64) -> MutexGuard<'_, Sessions> {
        // Other bits than those by which it is found there.
        let index = (hash >> 32) as usize % MAPS;
        // The index is within by construction.
        match self.sessions.get(index) {
            Some(sessions) => sessions.lock(),
            None => unreachable!("{index} of {MAPS} maps"),
        }
    }

    /// Waits for the right to change who has the session of a client identifier. Whoever changes it, and reads
    /// or writes the document, holds this.
    pub(super) async fn gate(&self, client: &str) -> tokio::sync::MutexGuard<'_, ()> {
        self.gate_of(client).lock().await
    }

    /// The same, unless somebody else has it.
    pub(super) fn try_gate(&self, client: &str) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        self.gate_of(client).try_lock().ok()
    }

    fn gate_of(&self, client: &str) -> &tokio::sync::Mutex<()> {
        let index = self.hash(client) as usize % GATES;
        // The index is within by construction.
        match self.gates.get(index) {
            Some(gate) => gate,
            None => unreachable!("{index} of {GATES} gates"),
        }
    }

    /// Who has the session.
    pub(super) fn holder(&self, client: &str) -> Holder {
        let hash = self.hash(client);
        let sessions = self.sessions(hash);
        match sessions.online.get(client) {
            Some(mail) => Holder::Connection(Arc::clone(mail)),
            None if sessions.find_offline(hash, client).is_some() => Holder::Document,
            None => Holder::Nobody,
        }
    }

    fn put(&self, client: &ByteString, entry: Option<Entry>) {
        let hash = self.hash(client);
        let mut sessions = self.sessions(hash);
        let old_due = sessions.remove_offline(hash, client);
        let new_due = match entry {
            Some(Entry::Online(mail)) => {
                sessions.online.insert(client.clone(), mail);
                NOTHING_DUE
            }
            Some(Entry::Offline(due)) => {
                sessions.online.remove(client);
                let due_ms = due.unwrap_or(NOTHING_DUE);
                let offline = Offline { client: Box::from(&**client), due_ms };
                sessions.offline.insert_unique(hash, offline, |offline| self.hash(&offline.client));
                due_ms
            }
            None => {
                sessions.online.remove(client);
                NOTHING_DUE
            }
        };
        if old_due == new_due {
            return;
        }
        let mut due = self.due.lock();
        if old_due != NOTHING_DUE {
            due.remove(&(old_due, hash));
        }
        if new_due != NOTHING_DUE {
            due.insert((new_due, hash));
            drop(due);
            drop(sessions);
            self.sooner.notify_one();
        }
    }

    /// A connection has the session from now on.
    pub(super) fn online(&self, client: &ByteString, mail: Arc<Mail>) {
        self.put(client, Some(Entry::Online(mail)));
    }

    /// The document is all there is from now on, and something is due at `due_ms`.
    pub(super) fn offline(&self, client: &ByteString, due_ms: Option<i64>) {
        self.put(client, Some(Entry::Offline(due_ms)));
    }

    /// There is no session any more.
    pub(super) fn remove(&self, client: &ByteString) {
        self.put(client, None);
    }

    /// Rings every connection's bell.
    pub(super) fn ring_all(&self) {
        for sessions in &self.sessions {
            sessions.lock().online.values().for_each(|mail| mail.ring());
        }
    }

    /// How many sessions there are.
    pub(super) fn len(&self) -> usize {
        let count = |sessions: &Sessions| sessions.online.len() + sessions.offline.len();
        self.sessions.iter().map(|sessions| count(&sessions.lock())).sum()
    }

    /// Up to `limit` client identifiers in their order, after `after`: those that begin with `prefix` and, if that
    /// is asked for, have a connection or have none. Looks through all sessions.
    pub(super) fn page(
        &self,
        prefix: &str,
        online: Option<bool>,
        after: Option<&str>,
        limit: usize,
    ) -> Vec<ByteString> {
        // The largest of those found so far is the first to make room.
        let mut found: BinaryHeap<ByteString> = BinaryHeap::new();
        for sessions in &self.sessions {
            let sessions = sessions.lock();
            let with = sessions.online.keys().map(|client| &**client).filter(|_| online != Some(false));
            let without = sessions.offline.iter().map(|offline| &*offline.client);
            for client in with.chain(without.filter(|_| online != Some(true))) {
                let wanted = client.starts_with(prefix) && after.is_none_or(|after| client > after);
                if !wanted || (found.len() >= limit && found.peek().is_none_or(|last| client > &**last)) {
                    continue;
                }
                if found.len() >= limit {
                    found.pop();
                }
                found.push(client.into());
            }
        }
        found.into_sorted_vec()
    }

    /// How often all connections were told to look again at what they may do.
    pub(super) fn reviews(&self) -> u64 {
        self.reviews.load(Ordering::Acquire)
    }

    /// Tells all connections to look again at what they may do. Who is about to become one compares [`Registry::reviews`]
    /// from before it was admitted once it is here.
    pub(super) fn review_all(&self) {
        self.reviews.fetch_add(1, Ordering::AcqRel);
        for sessions in &self.sessions {
            sessions.lock().online.values().for_each(|mail| mail.nudge_review());
        }
    }

    /// When something is due for a session without a connection, if anything is.
    pub(super) fn due(&self, client: &str) -> Option<i64> {
        let hash = self.hash(client);
        let due_ms = self.sessions(hash).find_offline(hash, client)?.due_ms;
        (due_ms != NOTHING_DUE).then_some(due_ms)
    }

    /// What is due for a session without a connection has to wait until then.
    pub(super) fn postpone(&self, client: &str, until_ms: i64) {
        let hash = self.hash(client);
        let mut sessions = self.sessions(hash);
        let found = sessions.offline.find_mut(hash, |offline| *offline.client == *client);
        if let Some(offline) = found.filter(|offline| offline.due_ms != NOTHING_DUE) {
            let mut due = self.due.lock();
            due.remove(&(offline.due_ms, hash));
            due.insert((until_ms, hash));
            offline.due_ms = until_ms;
        }
    }

    /// The client identifier for which something is due by `now_ms`, or when the next will be.
    pub(super) fn next_due(&self, now_ms: i64) -> Result<ByteString, Option<i64>> {
        loop {
            let Some((due_ms, hash)) = self.due.lock().first().copied() else { return Err(None) };
            if due_ms > now_ms {
                return Err(Some(due_ms));
            }
            let sessions = self.sessions(hash);
            let is_it = |offline: &Offline| offline.due_ms == due_ms && self.hash(&offline.client) == hash;
            if let Some(found) = sessions.offline.find(hash, is_it) {
                return Ok(found.client.as_ref().into());
            }
            // It has come back since.
            self.due.lock().remove(&(due_ms, hash));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_follows_the_entry() {
        let registry = Registry::new();
        let (a, b) = (ByteString::from("a"), ByteString::from("b"));
        registry.offline(&a, Some(50));
        registry.offline(&b, Some(40));
        assert_eq!(registry.next_due(10), Err(Some(40)));
        assert_eq!(registry.next_due(45), Ok(b.clone()));
        registry.online(&b, Arc::default());
        assert_eq!(registry.next_due(45), Err(Some(50)));
        registry.offline(&a, Some(70));
        assert_eq!(registry.next_due(60), Err(Some(70)));
        registry.remove(&a);
        assert_eq!((registry.next_due(100), registry.len()), (Err(None), 1));
        assert!(matches!(registry.holder("b"), Holder::Connection(_)));
        assert!(matches!(registry.holder("a"), Holder::Nobody));
    }

    #[test]
    fn what_is_due_comes_in_its_order_and_what_came_back_is_left_out() {
        let registry = Registry::new();
        let clients: Vec<_> = (0..2_000).map(|number| ByteString::from(format!("c{number}"))).collect();
        for (client, number) in clients.iter().zip(0_i64..) {
            // Ten at a time, and of those two that are back again.
            registry.offline(client, Some(number / 10));
            match number % 10 {
                0 => registry.online(client, Arc::default()),
                1 => registry.remove(client),
                _ => {}
            }
        }
        assert_eq!(registry.len(), 1_800);
        for due_ms in 0..200 {
            let mut found = Vec::new();
            while let Ok(client) = registry.next_due(due_ms) {
                assert!(matches!(registry.holder(&client), Holder::Document));
                registry.remove(&client);
                found.push(client);
            }
            found.sort();
            let start = due_ms as usize * 10;
            let mut expected = clients[start + 2..start + 10].to_vec();
            expected.sort();
            assert_eq!(found, expected);
        }
        assert_eq!((registry.next_due(i64::MAX - 1), registry.len()), (Err(None), 200));
    }

    #[test]
    fn a_page_is_in_order_and_only_of_what_was_asked_for() {
        let registry = Registry::new();
        for number in 0..100 {
            let client = ByteString::from(format!("{}/{number:02}", if number % 2 == 0 { "a" } else { "b" }));
            if number < 50 {
                registry.online(&client, Arc::default());
            } else {
                registry.offline(&client, None);
            }
        }
        let page = |prefix: &str, online, after, limit| -> Vec<String> {
            registry.page(prefix, online, after, limit).iter().map(ToString::to_string).collect()
        };
        assert_eq!(page("", None, None, 3), ["a/00", "a/02", "a/04"]);
        assert_eq!(page("", None, Some("a/96"), 3), ["a/98", "b/01", "b/03"]);
        assert_eq!(page("b", Some(true), Some("b/45"), 3), ["b/47", "b/49"]);
        assert_eq!(page("a", Some(false), None, 2), ["a/50", "a/52"]);
        assert_eq!(page("", None, None, 1000).len(), 100);
        assert!(page("c", None, None, 10).is_empty() && page("", None, None, 0).is_empty());
    }

    #[tokio::test]
    async fn questions_are_bounded_and_not_left_without_an_end() {
        let mail = Mail::default();
        let mut answers: Vec<_> = (0..=QUESTIONS_MAX).map(|_| mail.ask()).collect();
        assert!(answers.pop().unwrap().await.is_err(), "one too many");
        assert_eq!(mail.questions().len(), QUESTIONS_MAX);
        let kicked = mail.kick(true);
        assert!(mail.kicked().is_some_and(|kick| kick.end_session) && mail.kicked().is_none());
        assert!(kicked.await.is_err(), "the connection was gone before it was done");
        mail.close();
        assert!(mail.ask().await.is_err() && mail.kick(false).await.is_err());
    }

    #[tokio::test]
    async fn all_who_want_a_connection_to_end_are_told_and_the_session_ends_if_one_wants_it() {
        let mail = Mail::default();
        let (first, second, third) = (mail.kick(false), mail.kick(true), mail.kick(false));
        let Kick { end_session, done } = mail.kicked().unwrap();
        assert!(end_session && mail.kicked().is_none());
        done.into_iter().for_each(|done| done.send(()).unwrap());
        assert!(first.await.is_ok() && second.await.is_ok() && third.await.is_ok());
        let mut asked: Vec<_> = (0..=QUESTIONS_MAX).map(|_| mail.kick(false)).collect();
        assert!(asked.pop().unwrap().await.is_err(), "one too many");
        assert_eq!(mail.kicked().unwrap().done.len(), QUESTIONS_MAX);
    }

    #[tokio::test]
    async fn a_session_is_handed_over_or_the_answer_fails() {
        let mail = Mail::default();
        let answer = mail.take_over();
        mail.bell.ready().await;
        let reply = mail.taken_over().unwrap();
        assert!(reply.send(Session::new("c".into(), 5)).is_ok());
        assert_eq!(answer.await.unwrap().expiry_s, 5);
        let answer = mail.take_over();
        mail.close();
        assert!(answer.await.is_err());
        assert!(mail.take_over().await.is_err());
        assert!(Mail::default().taken_over().is_none());
    }
}
