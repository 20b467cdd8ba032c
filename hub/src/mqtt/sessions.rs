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
use tracing::{error, warn};

use super::accounts::Mark;
use super::registry::{Holder, Mail};
use super::session::{Cursor, DocumentError, Kept, Session, Stored, Subscription, Will};
use super::shared::{Shared, now_ms};
use crate::message::{self, Properties};

/// Sessions for which what is due is done at a time.
const AT_ONCE: usize = 64;
/// When one whose gate is held is looked at again, in milliseconds.
const BUSY_MS: i64 = 20;

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
        Err(error) => warn!(queue = queue.0, %error, "could not give a queue back"),
    }
}

/// Reads a session that nobody has.
pub(super) async fn load(shared: &Shared, client: &ByteString) -> Result<Option<Session>, SessionError> {
    let store = &shared.store;
    let failed = |error| SessionError::Store { client: client.clone(), error };
    let broken = |error| SessionError::Document { client: client.clone(), error };
    let Some(document) = store.document(Collection::Sessions, client).await.map_err(failed)? else {
        return Ok(None);
    };
    let stored = Stored::decode(document).map_err(broken)?;
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
    shared.accounts.settle(&session.client, rest);
    Ok(())
}

/// Ends a subscription: its cursor and its share of the queue go. (It is not in the document any more.)
pub(super) async fn end_subscription(shared: &Shared, client: &str, gone: &Subscription, durable: bool) {
    if gone.is_shared() {
        shared.groups.withdraw(&shared.store, gone).await;
    } else if durable && let Err(error) = shared.store.delete_cursor(&cursor_key(client, gone.queue)).await {
        warn!(client, queue = gone.queue.0, %error, "could not delete a cursor");
    }
    release(&shared.store, gone.queue).await;
    shared.counters.unsubscribed();
}

/// Ends a session: first the document, so that a crash in between leaves only what recovery sweeps up.
pub(super) async fn end(shared: &Shared, session: &Session) {
    let durable = session.kept == Kept::Whole;
    // A message that was sent with QoS 2 ends with its session, and is for nobody else (MQTT-4.8.2-5).
    for (_, sent) in session.window.in_order() {
        shared.groups.finish(&shared.store, session, &sent);
    }
    if let Err(error) = shared.groups.keep(&shared.store, session.subscriptions.values()).await {
        warn!(client = &*session.client, %error, "a group cannot be written; after a crash, what it gave to a session that ended may come again");
    }
    if session.kept != Kept::Nothing
        && let Err(error) = shared.store.delete_document(Collection::Sessions, &session.client).await
    {
        warn!(client = &*session.client, %error, "could not delete a session; it will be back after a restart");
        return;
    }
    if durable {
        shared.counters.forget_session();
    }
    shared.accounts.settle(&session.client, None);
    for subscription in session.subscriptions.values() {
        end_subscription(shared, &session.client, subscription, durable).await;
    }
}

/// Publishes a will.
pub(super) async fn publish_will(shared: &Shared, client: &ByteString, will: Box<Will>) {
    let Will { last_will, user } = *will;
    let encoded = Properties::of_will(client.clone(), user, last_will.properties)
        .and_then(|properties| properties.encode());
    let properties = match encoded {
        Ok(properties) => properties,
        Err(error) => {
            error!(client = &**client, %error, "a will cannot be written, and is lost");
            return;
        }
    };
    let record =
        message::record(last_will.topic, properties, last_will.payload, last_will.qos, last_will.retain);
    if let Err(error) = shared.store.append(vec![record]).await {
        error!(client = &**client, %error, "a will could not be stored, and is lost");
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
                        if let Some(due_ms) = registry.due(&client) {
                            acting.push(act(&shared, client, due_ms, gate));
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
async fn act(shared: &Shared, client: ByteString, due_ms: i64, _gate: MutexGuard<'_, ()>) {
    let client = &client;
    let mut session = match load(shared, client).await {
        Ok(Some(session)) => session,
        Ok(None) => {
            shared.registry.remove(client);
            return;
        }
        Err(error) => {
            error!(%error, "a session cannot be read; its will and its expiry are left alone");
            shared.registry.offline(client, None);
            return;
        }
    };
    if session.offline_since_ms.is_none() {
        // It could not be written when its connection ended: when that was follows from what is due now.
        session.offline_since_ms = Some(0);
        session.offline_since_ms = next_due(&session).map(|after_ms| due_ms - after_ms);
    }
    let now = now_ms();
    if session.will_due_ms().is_some_and(|due| due <= now)
        && let Some(will) = session.will.take()
    {
        publish_will(shared, client, will).await;
        if let Err(error) = save(shared, &mut session, None).await {
            warn!(%error, client = &**client, "could not write a session; its will may come twice");
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
    match load(shared, client).await {
        Ok(Some(mut session)) => {
            session.offline_since_ms.get_or_insert_with(now_ms);
            shared.registry.offline(client, next_due(&session));
        }
        Ok(None) => shared.registry.remove(client),
        Err(error) => {
            error!(%error, "a session cannot be read; its will and its expiry are left alone");
            shared.registry.offline(client, None);
        }
    }
}

/// A connection is gone and has not said what becomes of its session. Takes the gate.
pub(super) async fn abandoned(shared: &Shared, client: &ByteString, mail: &Arc<Mail>) {
    let _gate = shared.registry.gate(client).await;
    // Whoever came in the meantime has found out by itself.
    if matches!(shared.registry.holder(client), Holder::Connection(held) if Arc::ptr_eq(&held, mail)) {
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
