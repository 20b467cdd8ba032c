//! Sessions in the store: opening, writing down, ending.
//!
//! Whoever calls these holds the gate of the client identifier ([`super::registry::Registry::gate`]), where they do not say that
//! they take it.

use bytestring::ByteString;
use tidemill_store::{
    Collection, CursorKey, CursorPlace, Due, FilterRequest, History, Keep, QueueId, Start, Store, StoreError,
};
use tracing::error;

use super::accounts::Mark;
use super::guard::alone;
use super::registry::Holder;
use super::session::{Cursor, DocumentError, Kept, Session, Stored, Subscription};
use super::shared::{Shared, now_ms};
use super::told::seldom;
use super::unwritten::{self, Change};

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

impl SessionError {
    /// Whether it is no matter of this session: the store takes nothing from anybody.
    pub(super) fn is_for_all(&self) -> bool {
        let SessionError::Store { error, .. } = self else { return false };
        matches!(error, StoreError::Full { .. } | StoreError::Poisoned { .. } | StoreError::Closed)
    }
}

/// The cursor of a client in a queue.
pub(super) fn cursor_key(client: &str, queue: QueueId) -> CursorKey {
    CursorKey { owner: format!("session/{client}"), queue }
}

/// Opens the queue of a filter and a cursor at its end, for a client that just asked for it. The records that come behind it have this sequence
/// and later ones.
pub(super) async fn open_queue(
    store: &Store,
    client: &str,
    filter: &str,
    durable: bool,
) -> Result<(QueueId, Cursor, u64), StoreError> {
    // What a session that ends with its connection has not read then, nobody will.
    let keep = if durable { Keep::Durable } else { Keep::Live };
    let request = FilterRequest { filter: filter.to_owned(), keep, history: History::None };
    let info = store.open_filters(vec![request]).await?.pop().ok_or(StoreError::Closed)?;
    let place = CursorPlace { offset: info.end, sequence: 0 };
    if !durable {
        return Ok((info.id, Cursor::at(place), info.sequence));
    }
    match new_cursor(store, cursor_key(client, info.id), place).await {
        Ok(cursor) => Ok((info.id, cursor, info.sequence)),
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

/// A session that nobody has.
pub(super) struct Loaded {
    pub(super) session: Session,
    /// When something is due, as its document in the store has it listed; `None` if it has not, or was not looked at.
    pub(super) listed_ms: Option<i64>,
}

/// Reads a session that nobody has.
pub(super) async fn load(shared: &Shared, client: &ByteString) -> Result<Option<Loaded>, SessionError> {
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
    let listed_ms = stored.listed_ms.filter(|_| !matches!(unwritten, Some(Change::Put(_))));
    if let Some(Change::Since(since_ms)) = unwritten {
        stored.offline_since_ms.get_or_insert(since_ms);
    }
    let keys = stored.with_cursors().map(|own| (cursor_key(client, own.queue), Start::Offset(own.next)));
    let cursors = store.open_cursors(keys.collect()).await.map_err(failed)?;
    let session = stored.into_session(client.clone(), cursors).map_err(broken)?;
    Ok(Some(Loaded { session, listed_ms }))
}

/// Writes a session down. It accounts for the QoS 2 messages in the log but those appended behind `rest`, whose receipts have
/// not come yet. What it had in flight from groups and has not any more, they write down first. `listed_ms` is that of [`Loaded`]: of
/// who has a connection, nothing is listed.
pub(super) async fn save(
    shared: &Shared,
    session: &mut Session,
    rest: Option<Mark>,
    listed_ms: Option<i64>,
) -> Result<(), StoreError> {
    shared.groups.keep(&shared.store, session.subscriptions.values()).await?;
    let stored = Stored::of(session);
    let due = Due { was: listed_ms, is: stored.due_ms() };
    shared.store.put_document(Collection::Sessions, &session.client, stored.encode(), due).await?;
    session.take_changed();
    if let Some(change) = shared.unwritten.take(&session.client) {
        shared.due.listed(due.is, &session.client);
        // One that has ended before it, and could not be deleted.
        if let Change::Delete(cursors) = change {
            unwritten::delete_cursors(shared, &session.client, &cursors).await;
        }
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
/// later, and all else goes. `listed_ms` is that of [`Loaded`].
pub(super) async fn end(shared: &Shared, session: &Session, listed_ms: Option<i64>) {
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
        shared.registry.undocumented(client);
        match shared.store.delete_document(Collection::Sessions, client, listed_ms).await {
            Ok(()) => {
                if shared.unwritten.take(client).is_some() {
                    shared.due.listed(None, client);
                }
            }
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

/// Nobody has a session from now on. `listed_ms`: when something is due, as its document in the store has it listed.
pub(super) fn let_go(shared: &Shared, session: &Session, listed_ms: Option<i64>) {
    match session.due_ms() {
        Some(due_ms) if listed_ms == Some(due_ms) => shared.due.note(due_ms),
        Some(due_ms) => shared.due.note_unlisted(due_ms, session.client.clone()),
        None => {}
    }
    shared.registry.offline(&session.client);
}

/// Leaves a session to its document as it was written last, for who had it could not write it or is not there any more. If that
/// does not say since when nobody has it, it is from now on.
pub(super) async fn leave(shared: &Shared, client: &ByteString) {
    if let Some(Loaded { session, listed_ms }) = look_at(shared, client).await {
        let_go(shared, &session, listed_ms);
    }
}

/// Reads a session that is without a connection, now if that is not written of it. One that cannot be read is looked at again later, if it can
/// be read then.
pub(super) async fn look_at(shared: &Shared, client: &ByteString) -> Option<Loaded> {
    match load(shared, client).await {
        Ok(Some(mut loaded)) => {
            if loaded.session.offline_since_ms.is_none() {
                let since_ms = now_ms();
                loaded.session.offline_since_ms = Some(since_ms);
                unwritten::put_since(shared, client, since_ms);
            }
            Some(loaded)
        }
        Ok(None) => {
            shared.registry.offline(client);
            None
        }
        Err(error @ SessionError::Store { .. }) => {
            seldom!(warn, %error, "a session cannot be read; its will and its expiry wait until it can");
            unwritten::put_since(shared, client, now_ms());
            shared.due.note_unlisted(now_ms() + UNREAD_MS, client.clone());
            shared.registry.offline(client);
            None
        }
        Err(error @ SessionError::Document { .. }) => {
            error!(%error, "a session cannot be read; its will and its expiry are left alone");
            shared.registry.offline(client);
            None
        }
    }
}

/// A connection is gone, and may not have said what becomes of the session that it has. Takes the gate.
pub(super) async fn abandoned(shared: &Shared, client: &ByteString) {
    let _gate = shared.registry.gate(client).await;
    let is_nobody_s = match shared.registry.holder(client) {
        // Whoever came in the meantime has found out by itself, and reads its mail.
        Holder::Connection(mail) => mail.is_closed(),
        // It may have been written for a connection that did not get as far as to have it.
        Holder::Document => true,
        Holder::Nobody => false,
    };
    if is_nobody_s {
        leave(shared, client).await;
    }
}
