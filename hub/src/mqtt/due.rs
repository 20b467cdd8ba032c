//! What is due for sessions while nobody is connected: their wills, and their ends.
//!
//! When that is stands in the store, which lists the documents by it: nothing is kept in memory of a session, however many there
//! are. [`Schedule`] has only when somebody has to look at that list next.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytestring::ByteString;
use foldhash::HashMap;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tidemill_store::{Collection, StoreError};
use tokio::sync::{MutexGuard, Notify, Semaphore, SemaphorePermit};

use super::guard::alone;
use super::registry::{Holder, Registry};
use super::sessions::{self, Loaded};
use super::shared::{Shared, now_ms};
use super::told::seldom;
use super::{unwritten, wills};

/// Sessions for which what is due is done at a time, beside those whose gates somebody else had.
const AT_ONCE: usize = 64;
/// Sessions that may wait for that, or for their gates.
const WAITING_MAX: usize = 1024;
/// Rows of the store's list read at a time.
const PAGE: usize = 256;
/// When the list is looked at again that could not be read, in milliseconds.
const RETRY_MS: i64 = 1000;
/// After what time at most it is looked again how late it is: the clock may have been set, or the machine have slept.
const NAP_MAX: Duration = Duration::from_secs(10);

/// [`Schedule::next_ms`] where nothing is due.
const NEVER_MS: i64 = i64::MAX;

/// See the module's text.
pub(super) struct Schedule {
    /// Nothing that nobody has looked at is due before.
    next_ms: AtomicI64,
    /// Rung when something is due sooner than that.
    sooner: Notify,
    /// What is due for sessions that could not be written, so that the store does not list it.
    unlisted: Mutex<Unlisted>,
}

impl Default for Schedule {
    fn default() -> Self {
        // What is listed from before is looked at first.
        let next_ms = AtomicI64::new(i64::MIN);
        Schedule { next_ms, sooner: Notify::new(), unlisted: Mutex::default() }
    }
}

impl Schedule {
    /// Something is due that the store lists.
    pub(super) fn note(&self, due_ms: i64) {
        if self.next_ms.fetch_min(due_ms, Ordering::AcqRel) > due_ms {
            self.sooner.notify_one();
        }
    }

    /// Something is due for a session that could not be written.
    pub(super) fn note_unlisted(&self, due_ms: i64, client: ByteString) {
        self.unlisted.lock().put(due_ms, client);
        self.note(due_ms);
    }

    /// A session that could not be written is written, with what is due for it, if anything is.
    pub(super) fn listed(&self, due_ms: Option<i64>, client: &ByteString) {
        self.unlisted.lock().remove(client);
        if let Some(due_ms) = due_ms {
            self.note(due_ms);
        }
    }

    /// From when on the list is to be looked at. What is noted from here on is looked at after that.
    fn begin(&self) -> i64 {
        self.next_ms.swap(NEVER_MS, Ordering::AcqRel)
    }

    /// Takes what is due by `now_ms` and not listed, and notes when the next will be.
    fn take_unlisted(&self, now_ms: i64) -> Vec<(i64, ByteString)> {
        let mut unlisted = self.unlisted.lock();
        let due = unlisted.take(now_ms);
        if let Some((due_ms, _)) = unlisted.in_order.first() {
            self.note(*due_ms);
        }
        due
    }
}

/// When something is due for clients, once for each.
#[derive(Default)]
struct Unlisted {
    in_order: BTreeSet<(i64, ByteString)>,
    by_client: HashMap<ByteString, i64>,
}

impl Unlisted {
    /// In the place of what was there for the client.
    fn put(&mut self, due_ms: i64, client: ByteString) {
        self.remove(&client);
        self.by_client.insert(client.clone(), due_ms);
        self.in_order.insert((due_ms, client));
    }

    fn remove(&mut self, client: &ByteString) {
        if let Some(due_ms) = self.by_client.remove(client) {
            self.in_order.remove(&(due_ms, client.clone()));
        }
    }

    /// What is due by `now_ms`.
    fn take(&mut self, now_ms: i64) -> Vec<(i64, ByteString)> {
        let later = self.in_order.split_off(&(now_ms.saturating_add(1), ByteString::new()));
        let due = std::mem::replace(&mut self.in_order, later);
        for (_, client) in &due {
            self.by_client.remove(client);
        }
        due.into_iter().collect()
    }
}

/// Publishes wills and ends sessions when they are due, for as long as the broker runs. Nobody is waited for: whose gate is held
/// has its turn later, and the others meanwhile.
pub(super) async fn watch(shared: Arc<Shared>) {
    let schedule = &shared.due;
    let room = Semaphore::new(AT_ONCE);
    let mut acting = FuturesUnordered::new();
    // From when on the list could not be read.
    let mut unread_ms = NEVER_MS;
    loop {
        let sooner = schedule.sooner.notified();
        let next_ms = schedule.next_ms.load(Ordering::Acquire);
        if let Some(nap) = nap(next_ms, now_ms()) {
            tokio::select! {
                Some(()) = acting.next() => {}
                () = sooner => {}
                () = tokio::time::sleep(nap) => {}
            }
            continue;
        }
        let mut list = List { from_ms: schedule.begin().min(unread_ms), after: None };
        unread_ms = NEVER_MS;
        let mut page = schedule.take_unlisted(now_ms());
        loop {
            for (due_ms, client) in page {
                while acting.len() >= WAITING_MAX {
                    acting.next().await;
                }
                acting.push(act(&shared, &room, client, due_ms));
            }
            page = match beside(&mut acting, list.page(&shared)).await {
                Ok(page) if page.is_empty() => break,
                Ok(page) => page,
                Err(StoreError::Closed) => return,
                Err(error) => {
                    seldom!(warn, %error, "what is due for sessions cannot be read; it is tried again");
                    unread_ms = list.from_ms;
                    schedule.note(now_ms() + RETRY_MS);
                    break;
                }
            };
        }
    }
}

/// Waits for something while all goes on that is being done.
async fn beside<T>(
    acting: &mut FuturesUnordered<impl Future<Output = ()>>,
    awaited: impl Future<Output = T>,
) -> T {
    let mut awaited = std::pin::pin!(awaited);
    loop {
        tokio::select! {
            done = &mut awaited => return done,
            Some(()) = acting.next() => {}
        }
    }
}

/// How long nothing is to be done that is due at `next_ms`; `None` if it is due.
fn nap(next_ms: i64, now_ms: i64) -> Option<Duration> {
    let wait_ms = u64::try_from(next_ms.saturating_sub(now_ms)).unwrap_or(0);
    (wait_ms > 0).then(|| Duration::from_millis(wait_ms).min(NAP_MAX))
}

/// A walk through the store's list, up to what is not due yet.
struct List {
    from_ms: i64,
    /// The last one found of that time.
    after: Option<ByteString>,
}

impl List {
    /// The next ones, none at the end; notes when the first is due that is not yet.
    async fn page(&mut self, shared: &Shared) -> Result<Vec<(i64, ByteString)>, StoreError> {
        let after = self.after.as_deref();
        let found = shared.store.documents_due(Collection::Sessions, self.from_ms, after, PAGE).await?;
        let found = found.into_iter().map(|(due_ms, client)| (due_ms, ByteString::from(client)));
        let mut page: Vec<_> = found.collect();
        let now = now_ms();
        let due = page.partition_point(|(due_ms, _)| *due_ms <= now);
        if let Some((due_ms, _)) = page.drain(due..).next() {
            shared.due.note(due_ms);
        }
        if let Some((due_ms, client)) = page.last() {
            (self.from_ms, self.after) = (*due_ms, Some(client.clone()));
        }
        Ok(page)
    }
}

/// Does what was due for a client, when nobody else is at its session.
async fn act(shared: &Shared, room: &Semaphore, client: ByteString, due_ms: i64) {
    let Some(_turn) = turn(&shared.registry, room, &client).await else { return };
    // Nothing that is tried again and again if it fails.
    alone(&client, "its will and its expiry", Box::pin(act_for(shared, &client, due_ms))).await;
}

/// Waits for a place and the client's gate. Who finds the gate held waits for it alone, and has the place no more: so a slow client
/// keeps up none of the others, and they, who wait for a place without a gate, keep nobody from connecting. The gate it gets then is kept, for
/// others may wait behind it, and needs no place: it was held before.
async fn turn<'a>(
    registry: &'a Registry,
    room: &'a Semaphore,
    client: &str,
) -> Option<(MutexGuard<'a, ()>, Option<SemaphorePermit<'a>>)> {
    let place = room.acquire().await.ok()?;
    if let Some(gate) = registry.try_gate(client) {
        return Some((gate, Some(place)));
    }
    drop(place);
    Some((registry.gate(client).await, None))
}

async fn act_for(shared: &Shared, client: &ByteString, due_ms: i64) {
    match shared.registry.holder(client) {
        Holder::Connection(_) => return,
        Holder::Document => {}
        Holder::Nobody => {
            // It may be listed still, after a write that failed.
            if let Ok(None) = sessions::load(shared, client).await {
                let _ = shared.store.delete_document(Collection::Sessions, client, Some(due_ms)).await;
            }
            return;
        }
    }
    let Some(Loaded { mut session, mut listed_ms }) = sessions::look_at(shared, client).await else { return };
    // It may be listed twice, or under what is over, after a write that failed.
    if listed_ms.is_none_or(|listed_ms| listed_ms > due_ms) {
        listed_ms = Some(due_ms);
    }
    let now = now_ms();
    if session.will_due_ms().is_some_and(|due| due <= now)
        && let Some(will) = session.will.take()
    {
        alone(client, "its will", wills::publish(shared, client, will)).await;
    }
    if session.expires_ms().is_some_and(|due| due <= now) {
        sessions::end(shared, &session, listed_ms).await;
        shared.counters.expire_session();
        return;
    }
    match sessions::save(shared, &mut session, None, listed_ms).await {
        Ok(()) => listed_ms = session.due_ms(),
        Err(error) => {
            // So that the will does not come twice.
            unwritten::put_off(shared, &session, &error);
            listed_ms = None;
        }
    }
    sessions::let_go(shared, &session, listed_ms);
}

#[cfg(test)]
impl Schedule {
    /// How many there are that are not listed.
    pub(super) fn unlisted_len(&self) -> usize {
        let unlisted = self.unlisted.lock();
        assert_eq!(unlisted.in_order.len(), unlisted.by_client.len());
        unlisted.in_order.len()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn who_waits_for_a_place_has_no_gate_and_who_waits_for_a_gate_no_place() {
        let (registry, room) = (Registry::new(), Semaphore::new(1));
        let place = room.try_acquire().unwrap();
        let mut waits = Box::pin(turn(&registry, &room, "c"));
        assert!(waits.as_mut().now_or_never().is_none());
        let gate = registry.try_gate("c").unwrap();
        drop(place);
        assert!(waits.as_mut().now_or_never().is_none() && room.available_permits() == 1);
        drop(gate);
        assert!(waits.now_or_never().flatten().is_some());
    }

    #[test]
    fn all_who_wait_for_a_gate_have_their_turn() {
        let (registry, room) = (Registry::new(), Semaphore::new(AT_ONCE));
        let gate = registry.try_gate("c").unwrap();
        let mut waiting: FuturesUnordered<_> =
            (0..5).map(|_| async { turn(&registry, &room, "c").await.is_some() }).collect();
        assert_eq!(waiting.next().now_or_never(), None);
        drop(gate);
        for left in (0..5).rev() {
            assert_eq!((waiting.next().now_or_never(), waiting.len()), (Some(Some(true)), left));
        }
    }

    #[test]
    fn what_is_noted_is_looked_at_once() {
        let schedule = Schedule::default();
        assert_eq!((schedule.begin(), schedule.begin()), (i64::MIN, NEVER_MS));
        schedule.note(50);
        schedule.note(70);
        assert_eq!((schedule.begin(), schedule.begin()), (50, NEVER_MS));
    }

    #[test]
    fn a_clock_that_is_set_is_noticed_soon() {
        assert_eq!((nap(50, 50), nap(i64::MIN, 50)), (None, None));
        assert_eq!(nap(60, 50), Some(Duration::from_millis(10)));
        assert_eq!((nap(3_600_000, 50), nap(NEVER_MS, 50)), (Some(NAP_MAX), Some(NAP_MAX)));
    }

    #[test]
    fn what_is_being_done_goes_on_while_the_list_is_read() {
        let (says, hears) = tokio::sync::oneshot::channel();
        let mut acting = FuturesUnordered::new();
        acting.push(async { says.send(1).unwrap() });
        assert_eq!(beside(&mut acting, hears).now_or_never(), Some(Ok(1)));
        assert_eq!(beside(&mut acting, std::future::ready(2)).now_or_never(), Some(2));
    }

    #[test]
    fn what_is_not_listed_is_taken_when_it_is_due() {
        let schedule = Schedule::default();
        schedule.begin();
        for (due_ms, client) in [(30, "c"), (20, "b"), (20, "a")] {
            schedule.note_unlisted(due_ms, client.into());
        }
        assert_eq!(schedule.begin(), 20);
        assert_eq!(schedule.take_unlisted(19).len(), 0);
        assert_eq!(schedule.begin(), 20);
        let taken: Vec<_> = schedule.take_unlisted(20).into_iter().map(|(_, client)| client).collect();
        assert_eq!(taken, ["a", "b"]);
        assert_eq!(schedule.begin(), 30);
        assert_eq!(schedule.take_unlisted(i64::MAX - 1).len(), 1);
        assert_eq!(schedule.begin(), NEVER_MS);
        // Once for each client, until it is listed.
        for due_ms in [40, 50] {
            schedule.note_unlisted(due_ms, "a".into());
        }
        assert_eq!((schedule.unlisted_len(), schedule.begin()), (1, 40));
        schedule.listed(Some(60), &"a".into());
        assert_eq!((schedule.unlisted_len(), schedule.begin()), (0, 60));
    }
}
