//! [`Registry`]: which client identifiers have a session, who has it, and when something is due for those
//! that have no connection. A session without a connection is only an entry here and a document.

use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytestring::ByteString;
use foldhash::fast::RandomState;
use foldhash::{HashMap, HashMapExt};
use parking_lot::Mutex;
use tokio::sync::{MutexGuard, Notify, oneshot};

use super::session::Session;

/// Client identifiers are spread over this many gates.
const GATES: usize = 1024;

/// How others reach a connection.
#[derive(Debug, Default)]
pub(super) struct Mail {
    /// Rung when there is something below.
    pub(super) bell: Notify,
    take_over: Mutex<TakeOver>,
    share: AtomicBool,
}

#[derive(Debug, Default)]
struct TakeOver {
    /// Nobody reads this mail any more.
    closed: bool,
    reply: Option<oneshot::Sender<Session>>,
}

impl Mail {
    /// Asks the connection to go and to hand its session over. The answer fails if it is gone already.
    pub(super) fn take_over(&self) -> oneshot::Receiver<Session> {
        let (reply, answer) = oneshot::channel();
        let mut take_over = self.take_over.lock();
        if !take_over.closed {
            take_over.reply = Some(reply);
            self.bell.notify_one();
        }
        answer
    }

    /// Nobody reads this mail any more; whoever waits for an answer is told so.
    pub(super) fn close(&self) {
        *self.take_over.lock() = TakeOver { closed: true, reply: None };
    }

    /// Says that a shared subscription has something for this connection.
    pub(super) fn nudge_share(&self) {
        self.share.store(true, Ordering::Release);
        self.bell.notify_one();
    }

    /// Whether somebody wants the session.
    pub(super) fn taken_over(&self) -> Option<oneshot::Sender<Session>> {
        self.take_over.lock().reply.take()
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

/// Who had a session.
pub(super) enum Holder {
    /// Nobody: there is none.
    Nobody,
    /// A connection.
    Connection(Arc<Mail>),
    /// The store.
    Document,
}

struct Inner {
    entries: HashMap<ByteString, Entry>,
    due: BTreeSet<(i64, ByteString)>,
}

/// See the module's text.
pub(super) struct Registry {
    inner: Mutex<Inner>,
    gates: Box<[tokio::sync::Mutex<()>]>,
    hasher: RandomState,
    /// Rung when something may be due sooner than it was.
    pub(super) sooner: Notify,
}

impl Registry {
    pub(super) fn new() -> Self {
        Registry {
            inner: Mutex::new(Inner { entries: HashMap::new(), due: BTreeSet::new() }),
            gates: (0..GATES).map(|_| tokio::sync::Mutex::new(())).collect(),
            hasher: RandomState::default(),
            sooner: Notify::new(),
        }
    }

    /// Waits for the right to change who has the session of a client identifier. Whoever changes it, and reads
    /// or writes the document, holds this.
    pub(super) async fn gate(&self, client: &str) -> MutexGuard<'_, ()> {
        let index = self.hasher.hash_one(client) as usize % GATES;
        // The index is within by construction.
        match self.gates.get(index) {
            Some(gate) => gate.lock().await,
            None => unreachable!("{index} of {GATES} gates"),
        }
    }

    /// Who has the session.
    pub(super) fn holder(&self, client: &str) -> Holder {
        match self.inner.lock().entries.get(client) {
            None => Holder::Nobody,
            Some(Entry::Online(mail)) => Holder::Connection(Arc::clone(mail)),
            Some(Entry::Offline(_)) => Holder::Document,
        }
    }

    fn put(&self, client: &ByteString, entry: Option<Entry>) {
        let mut inner = self.inner.lock();
        let Inner { entries, due } = &mut *inner;
        let new_due = match &entry {
            Some(Entry::Offline(due)) => *due,
            _ => None,
        };
        let old = match entry {
            Some(entry) => entries.insert(client.clone(), entry),
            None => entries.remove(client),
        };
        if let Some(Entry::Offline(Some(old_due))) = old {
            due.remove(&(old_due, client.clone()));
        }
        if let Some(new_due) = new_due {
            due.insert((new_due, client.clone()));
            drop(inner);
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

    /// How many sessions there are.
    pub(super) fn len(&self) -> usize {
        self.inner.lock().entries.len()
    }

    /// The client identifier for which something is due by `now_ms`, or when the next will be.
    pub(super) fn next_due(&self, now_ms: i64) -> Result<ByteString, Option<i64>> {
        let inner = self.inner.lock();
        match inner.due.first() {
            Some((due, client)) if *due <= now_ms => Ok(client.clone()),
            Some((due, _)) => Err(Some(*due)),
            None => Err(None),
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

    #[tokio::test]
    async fn a_session_is_handed_over_or_the_answer_fails() {
        let mail = Mail::default();
        let answer = mail.take_over();
        mail.bell.notified().await;
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
