//! Sessions in the store: opening, writing down, ending, and what is due while nobody is connected.
//!
//! Whoever calls these holds the gate of the client identifier ([`super::registry::Registry::gate`]), where they do not say that
//! they take it.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tidemill_store::{
    Collection, CursorKey, CursorPlace, FilterRequest, History, Keep, QueueId, Start, Store, StoreError,
};
use tokio::sync::MutexGuard;
use tracing::error;

use super::accounts::Mark;
use super::guard::alone;
use super::registry::Holder;
use super::session::{Cursor, DocumentError, Kept, Session, Stored, Subscription};
use super::shared::{Shared, now_ms};
use super::told::seldom;
use super::unwritten::{self, Change};
use super::wills;

/// Sessions for which what is due is done at a time.
const AT_ONCE: usize = 64;
/// When one whose gate is held is looked at again, in milliseconds.
const BUSY_MS: i64 = 20;

/// When one that cannot be read is looked at again, in milliseconds.
const UNREAD_MS: i64 = 10_000;

/// Why a session could not be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error("session of client `{client}`: {error}")]
    Store { client: ByteString, error: StoreError },
    #[error("session of client `{client}`: {error}")]
    Document { client: ByteString, error: DocumentError },
}

/// The cursor of a client in a queue.
pub(super) fn cursor_key(client: &str, queue: QueueId) -> CursorKey {
    CursorKey { owner: format!("session/{client}"), queue }
}

/// Opens the queue of a filter and a cursor at its end, for a client that just asked for it.
pub(super) async fn open_queue(
    store: &Store,
    client: &str,
    filter: &str,
    durable: bool,
) -> Result<(QueueId, Cursor), StoreError> {
    // What a session that ends with its connection has not read then, nobody will.
    let keep = if durable { Keep::Durable } else { Keep::Live };
    let request = FilterRequest { filter: filter.to_owned(), keep, history: History::None };
    let info = store.open_filters(vec![request]).await?.pop().ok_or(StoreError::Closed)?;
    let place = CursorPlace { offset: info.end, sequence: 0 };
    if !durable {
        return Ok((info.id, Cursor::at(place)));
    }
    match new_cursor(store, cursor_key(client, info.id), place).await {
        Ok(cursor) => Ok((info.id, cursor)),
        Err(error) => {
            release(store, info.id).await;
            Err(error)
        }
    }
}

/// Makes a cursor at a place. One that a crash left behind is moved there: what it missed, nobody asked for.
pub(super) async fn new_cursor(
    store: &Store,
    key: CursorKey,
    place: CursorPlace,
) -> Result<Cursor, StoreError> {
    let found = store.open_cursor(key, Start::Offset(place.offset)).await?;
    if found.place.offset != place.offset {
        store.commit(found.id, place);
    }
    Ok(Cursor::kept(tidemill_store::Cursor { place, ..found }))
}

/// Gives a queue back.
pub(super) async fn release(store: &Store, queue: QueueId) {
    match store.release_filters(vec![queue]).await {
        Ok(()) | Err(StoreError::Closed) => {}
        Err(error) => seldom!(warn, queue = queue.0, %error, "could not give a queue back"),
    }
}

/// Reads a session that nobody has.
pub(super) async fn load(shared: &Shared, client: &ByteString) -> Result<Option<Session>, SessionError> {
    let store = &shared.store;
    let failed = |error| SessionError::Store { client: client.clone(), error };
    let broken = |error| SessionError::Document { client: client.clone(), error };
    let unwritten = shared.unwritten.of(client);
    let document = match &unwritten {
        Some(Change::Put(document)) => Some(document.clone()),
        Some(Change::Delete(_)) => None,
        Some(Change::Since(_)) | None => {
            store.document(Collection::Sessions, client).await.map_err(failed)?
        }
    };
    let Some(document) = document else { return Ok(None) };
    let mut stored = Stored::decode(document).map_err(broken)?;
    if let Some(Change::Since(since_ms)) = unwritten {
        stored.offline_since_ms.get_or_insert(since_ms);
    }
    // The place of a shared subscription is its group's.
    let own = stored.subscriptions.iter().filter(|subscription| !subscription.is_shared());
    let keys = own.map(|own| (cursor_key(client, own.queue), Start::Offset(own.next)));
    let cursors = store.open_cursors(keys.collect()).await.map_err(failed)?;
    stored.into_session(client.clone(), cursors).map(Some).map_err(broken)
}

/// Writes a session down. It accounts for the QoS 2 messages in the log but those appended behind `rest`, whose receipts have
/// not come yet. What it had in flight from groups and has not any more, they write down first.
pub(super) async fn save(
    shared: &Shared,
    session: &mut Session,
    rest: Option<Mark>,
) -> Result<(), StoreError> {
    shared.groups.keep(&shared.store, session.subscriptions.values()).await?;
    let document = Stored::of(session).encode();
    shared.store.put_document(Collection::Sessions, &session.client, document).await?;
    session.take_changed();
    // One that has ended before it, and could not be deleted.
    if let Some(Change::Delete(cursors)) = shared.unwritten.take(&session.client) {
        unwritten::delete_cursors(shared, &session.client, &cursors).await;
    }
    shared.accounts.settle(&session.client, rest);
    Ok(())
}

/// Ends a subscription: its cursor and its share of the queue go. (It is not in the document any more.)
pub(super) async fn end_subscription(shared: &Shared, client: &str, gone: &Subscription, durable: bool) {
    if gone.is_shared() {
        shared.groups.withdraw(&shared.store, gone).await;
    } else if durable {
        unwritten::delete_cursors(shared, client, &[gone.queue]).await;
    }
    shared.counters.unsubscribed();
    release(&shared.store, gone.queue).await;
}

/// Ends a session: first the document, so that a crash in between leaves only what recovery sweeps up. If that cannot be deleted now, it is
/// later, and all else goes.
pub(super) async fn end(shared: &Shared, session: &Session) {
    let client = &session.client;
    let durable = session.kept == Kept::Whole;
    // A message that was sent with QoS 2 ends with its session, and is for nobody else (MQTT-4.8.2-5).
    for (_, sent) in session.window.in_order() {
        shared.groups.finish(&shared.store, session, &sent);
    }
    if let Err(error) = shared.groups.keep(&shared.store, session.subscriptions.values()).await {
        seldom!(warn, client = &**client, %error, "a group cannot be written; after a crash, what it gave to a session that ended may come again");
    }
    let mut has_cursors = durable;
    if session.kept != Kept::Nothing {
        match shared.store.delete_document(Collection::Sessions, client).await {
            Ok(()) => drop(shared.unwritten.take(client)),
            Err(error) => {
                let own = session.subscriptions.values().filter(|own| durable && !own.is_shared());
                unwritten::put_end(shared, client, own.map(|own| own.queue).collect(), &error);
                has_cursors = false;
            }
        }
    }
    if durable {
        shared.counters.forget_session();
    }
    shared.accounts.settle(client, None);
    for subscription in session.subscriptions.values() {
        let ending = end_subscription(shared, client, subscription, has_cursors);
        alone(client, "the end of a subscription", ending).await;
    }
}

/// Publishes wills and ends sessions when they are due, for as long as the broker runs. Nobody is waited for: whose gate is held
/// has its turn later, and the others meanwhile.
pub(super) async fn watch_due(shared: Arc<Shared>) {
    let registry = &shared.registry;
    let mut acting = FuturesUnordered::new();
    loop {
        let sooner = registry.sooner.notified();
        let due_ms = match registry.next_due(now_ms()) {
            Ok(client) if acting.len() < AT_ONCE => {
                match registry.try_gate(&client) {
                    Some(gate) => {
                        if registry.due(&client).is_some() {
                            acting.push(act(&shared, client, gate));
                        }
                    }
                    // It may be one of those that are at work.
                    None => registry.postpone(&client, now_ms() + BUSY_MS),
                }
                continue;
            }
            // One of those that are at work has to be done first.
            Ok(_) => None,
            Err(due_ms) => due_ms,
        };
        let wait_ms = due_ms.map(|due_ms| u64::try_from(due_ms - now_ms()).unwrap_or(0));
        // Not at once again on a clock of whole milliseconds.
        let wait = Duration::from_millis(wait_ms.unwrap_or(0) + 1);
        tokio::select! {
            Some(()) = acting.next() => {}
            () = sooner => {}
            () = tokio::time::sleep(wait), if wait_ms.is_some() => {}
        }
    }
}

/// Does what was due for a client, and lets go of its gate.
async fn act(shared: &Shared, client: ByteString, _gate: MutexGuard<'_, ()>) {
    if alone(&client, "its will and its expiry", act_for(shared, &client)).await.is_none() {
        // Nothing that is tried again and again.
        shared.registry.offline(&client, None);
    }
}

async fn act_for(shared: &Shared, client: &ByteString) {
    let Some(mut session) = look_at(shared, client).await else { return };
    let now = now_ms();
    if session.will_due_ms().is_some_and(|due| due <= now)
        && let Some(will) = session.will.take()
    {
        alone(client, "its will", wills::publish(shared, client, will)).await;
        if let Err(error) = save(shared, &mut session, None).await {
            // So that it does not come twice.
            unwritten::put_off(shared, &session, &error);
        }
    }
    if session.expires_ms().is_some_and(|due| due <= now) {
        end(shared, &session).await;
        shared.counters.expire_session();
        shared.registry.remove(client);
    } else {
        shared.registry.offline(client, next_due(&session));
    }
}

/// Leaves a session to its document as it was written last, for who had it could not write it or is not there any more. If that
/// does not say since when nobody has it, it is from now on.
pub(super) async fn leave(shared: &Shared, client: &ByteString) {
    if let Some(session) = look_at(shared, client).await {
        shared.registry.offline(client, next_due(&session));
    }
}

/// Reads a session that is without a connection, now if that is not written of it. One that cannot be read is looked at again later, if it can
/// be read then.
async fn look_at(shared: &Shared, client: &ByteString) -> Option<Session> {
    match load(shared, client).await {
        Ok(Some(mut session)) => {
            if session.offline_since_ms.is_none() {
                session.offline_since_ms = Some(now_ms());
                unwritten::put_since(shared, client, now_ms());
            }
            Some(session)
        }
        Ok(None) => {
            shared.registry.remove(client);
            None
        }
        Err(error @ SessionError::Store { .. }) => {
            seldom!(warn, %error, "a session cannot be read; its will and its expiry wait until it can");
            unwritten::put_since(shared, client, now_ms());
            shared.registry.offline(client, Some(now_ms() + UNREAD_MS));
            None
        }
        Err(error @ SessionError::Document { .. }) => {
            error!(%error, "a session cannot be read; its will and its expiry are left alone");
            shared.registry.offline(client, None);
            None
        }
    }
}

/// A connection is gone, and may not have said what becomes of the session that it has. Takes the gate.
pub(super) async fn abandoned(shared: &Shared, client: &ByteString) {
    let _gate = shared.registry.gate(client).await;
    // Whoever came in the meantime has found out by itself, and reads its mail.
    if matches!(shared.registry.holder(client), Holder::Connection(mail) if mail.is_closed()) {
        leave(shared, client).await;
    }
}

/// When something is next due for a session nobody has.
pub(super) fn next_due(session: &Session) -> Option<i64> {
    match (session.will_due_ms(), session.expires_ms()) {
        (Some(will), Some(expires)) => Some(will.min(expires)),
        (will, expires) => will.or(expires),
    }
}
