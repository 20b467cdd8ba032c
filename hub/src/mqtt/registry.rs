//! [`Registry`]: which client identifiers have a session, and who has it. Of a session without a connection only a few bits of its
//! name's hash are here, so that who has none is let in without asking the disk; all else is its document.

use std::collections::BinaryHeap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytestring::ByteString;
use foldhash::HashMap;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use parking_lot::{Mutex, MutexGuard};
use tidemill_store::Watcher;
use tokio::sync::oneshot;

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
    /// The session is in the store as well.
    has_document: bool,
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
    /// For a connection whose session belongs to this user, and has a document or not.
    pub(super) fn of(owner: Option<Arc<str>>, has_document: bool) -> Self {
        Mail { owner, has_document, ..Mail::default() }
    }

    /// Rings the bell, once until the connection looks.
    pub(super) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.bell.ring(MAIL);
        }
    }

    /// Whether the bell was rung with [`MAIL`], and the connection has not looked yet.
    pub(super) fn has_rung(&self) -> bool {
        self.rung.load(Ordering::Relaxed)
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

    /// Gives the session to who wants it, and closes the mail in one: whoever gets the session and fails is not to find that it still
    /// is somebody's. The session again if nobody takes it.
    pub(super) fn hand_over(&self, reply: oneshot::Sender<Session>, session: Session) -> Option<Session> {
        let mut letters = self.letters.lock();
        let untaken = reply.send(session).err();
        if untaken.is_none() {
            *letters = Letters { closed: true, ..Letters::default() };
        }
        untaken
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

/// By how much of a client identifier's hash it is known that it may have a document. Two may have the same.
type Fingerprint = u32;

/// Sessions by client identifier.
#[derive(Default)]
struct Sessions {
    online: HashMap<ByteString, Arc<Mail>>,
    /// How many of those have no document.
    undocumented: usize,
    /// One of each document in the store.
    documents: HashTable<Fingerprint>,
}

impl Sessions {
    /// Puts a connection in the place of the one before, or of none.
    fn replace(&mut self, client: &ByteString, mail: Option<Arc<Mail>>) {
        let is_undocumented = |mail: &Arc<Mail>| usize::from(!mail.has_document);
        self.undocumented += mail.as_ref().map_or(0, is_undocumented);
        let before = match mail {
            Some(mail) => self.online.insert(client.clone(), mail),
            None => self.online.remove(client),
        };
        self.undocumented -= before.as_ref().map_or(0, is_undocumented);
    }
}

/// Who had a session.
pub(super) enum Holder {
    /// Nobody: there is none.
    Nobody,
    /// A connection.
    Connection(Arc<Mail>),
    /// The store, if it has its document: once in a million, there is none either.
    Document,
}

/// See the module's text.
pub(super) struct Registry {
    sessions: Box<[Mutex<Sessions>]>,
    gates: Box<[tokio::sync::Mutex<()>]>,
    hasher: RandomState,
    reviews: AtomicU64,
}

impl Registry {
    pub(super) fn new() -> Self {
        Registry {
            sessions: (0..MAPS).map(|_| Mutex::default()).collect(),
            gates: (0..GATES).map(|_| tokio::sync::Mutex::new(())).collect(),
            hasher: RandomState::default(),
            reviews: AtomicU64::new(0),
        }
    }

    /// The maps that have the session of a client identifier, if there is one, and its fingerprint.
    fn sessions(&self, client: &str) -> (MutexGuard<'_, Sessions>, Fingerprint) {
        let hash = self.hasher.hash_one(client);
        // Of the fingerprint's bits none say which maps.
        let index = (hash >> 32) as usize % MAPS;
        // The index is within by construction.
        match self.sessions.get(index) {
            Some(sessions) => (sessions.lock(), hash as Fingerprint),
            None => unreachable!("{index} of {MAPS} maps"),
        }
    }

    /// Where a fingerprint is found among others.
    fn place(&self, fingerprint: Fingerprint) -> u64 {
        self.hasher.hash_one(fingerprint)
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
        let index = self.hasher.hash_one(client) as usize % GATES;
        // The index is within by construction.
        match self.gates.get(index) {
            Some(gate) => gate,
            None => unreachable!("{index} of {GATES} gates"),
        }
    }

    /// Who has the session.
    pub(super) fn holder(&self, client: &str) -> Holder {
        let (sessions, fingerprint) = self.sessions(client);
        match sessions.online.get(client) {
            Some(mail) => Holder::Connection(Arc::clone(mail)),
            None if sessions.documents.find(self.place(fingerprint), |it| *it == fingerprint).is_some() => {
                Holder::Document
            }
            None => Holder::Nobody,
        }
    }

    /// The first document of a session was written.
    pub(super) fn documented(&self, client: &str) {
        let (mut sessions, fingerprint) = self.sessions(client);
        sessions.documents.insert_unique(self.place(fingerprint), fingerprint, |it| self.place(*it));
    }

    /// The document of a session is not there any more.
    pub(super) fn undocumented(&self, client: &str) {
        let (mut sessions, fingerprint) = self.sessions(client);
        let found = sessions.documents.find_entry(self.place(fingerprint), |it| *it == fingerprint);
        debug_assert!(found.is_ok(), "`{client}` had no document");
        if let Ok(found) = found {
            found.remove();
        }
    }

    /// A connection has the session from now on.
    pub(super) fn online(&self, client: &ByteString, mail: Arc<Mail>) {
        self.sessions(client).0.replace(client, Some(mail));
    }

    /// No connection has the session any more: its document is all there is, if there is one.
    pub(super) fn offline(&self, client: &ByteString) {
        self.sessions(client).0.replace(client, None);
    }

    /// Rings every connection's bell.
    pub(super) fn ring_all(&self) {
        for sessions in &self.sessions {
            sessions.lock().online.values().for_each(|mail| mail.ring());
        }
    }

    /// How many sessions there are.
    pub(super) fn len(&self) -> usize {
        let count = |sessions: &Sessions| sessions.documents.len() + sessions.undocumented;
        self.sessions.iter().map(|sessions| count(&sessions.lock())).sum()
    }

    /// Up to `limit` identifiers of clients with a connection that begin with `prefix`, in their order after `after`. Looks at all.
    pub(super) fn page(&self, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
        // The largest of those found so far is the first to make room.
        let mut found: BinaryHeap<String> = BinaryHeap::new();
        for sessions in &self.sessions {
            for client in sessions.lock().online.keys().map(|client| &**client) {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(has_document: bool) -> Arc<Mail> {
        Arc::new(Mail::of(None, has_document))
    }

    #[test]
    fn a_session_is_where_it_was_put_and_counts_once() {
        let registry = Registry::new();
        let holders = || {
            ["a", "b", "c"].map(|client| match registry.holder(client) {
                Holder::Nobody => 0,
                Holder::Connection(_) => 1,
                Holder::Document => 2,
            })
        };
        let [a, b] = ["a", "b"].map(ByteString::from);
        registry.online(&a, mail(false));
        registry.documented("b");
        registry.online(&b, mail(true));
        assert_eq!((holders(), registry.len()), ([1, 1, 0], 2));
        // Another connection in the place of each.
        registry.online(&a, mail(false));
        registry.online(&b, mail(true));
        assert_eq!((holders(), registry.len()), ([1, 1, 0], 2));
        registry.offline(&a);
        registry.offline(&b);
        assert_eq!((holders(), registry.len()), ([0, 2, 0], 1));
        registry.undocumented("b");
        assert_eq!((holders(), registry.len()), ([0, 0, 0], 0));
    }

    #[test]
    fn documents_with_one_fingerprint_are_as_many_as_they_are() {
        let registry = Registry::new();
        // As if they were two clients.
        registry.documented("a");
        registry.documented("a");
        registry.undocumented("a");
        assert!(matches!(registry.holder("a"), Holder::Document));
        registry.undocumented("a");
        assert!(matches!(registry.holder("a"), Holder::Nobody));
    }

    #[test]
    fn a_million_documents_take_few_bytes_and_are_found() {
        const DOCUMENTS: usize = 300_000;
        let registry = Registry::new();
        for number in 0..DOCUMENTS {
            registry.documented(&format!("client-{number:07}"));
            if number % 1000 == 0 && number >= 100_000 {
                let bytes: usize =
                    registry.sessions.iter().map(|of| of.lock().documents.allocation_size()).sum();
                assert!(bytes / number <= 12, "{bytes} bytes for {number}");
            }
        }
        let is_held =
            |number: usize| !matches!(registry.holder(&format!("client-{number:07}")), Holder::Nobody);
        assert!((0..DOCUMENTS).all(is_held));
        let wrong = (DOCUMENTS..2 * DOCUMENTS).filter(|number| is_held(*number)).count();
        assert!(wrong <= 20, "{wrong} of those that there are not would be looked for on the disk");
    }

    #[test]
    fn a_page_is_in_order_and_only_of_what_was_asked_for() {
        let registry = Registry::new();
        for number in 0..100 {
            let client = ByteString::from(format!("{}/{number:02}", if number % 2 == 0 { "a" } else { "b" }));
            registry.online(&client, Arc::default());
        }
        let page = |prefix: &str, after, limit| registry.page(prefix, after, limit);
        assert_eq!(page("", None, 3), ["a/00", "a/02", "a/04"]);
        assert_eq!(page("", Some("a/96"), 3), ["a/98", "b/01", "b/03"]);
        assert_eq!(page("b", Some("b/45"), 3), ["b/47", "b/49", "b/51"]);
        assert_eq!(page("", None, 1000).len(), 100);
        assert!(page("c", None, 10).is_empty() && page("", None, 0).is_empty());
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
