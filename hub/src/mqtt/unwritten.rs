//! [`Unwritten`]: what could not be written of sessions without a connection, until it can be.
//!
//! Such a session is its document. If that cannot be written, because the disk is full, it waits here, and is what
//! [`sessions::load`] finds; what cannot be deleted is not found any more. It is tried again every other second. Only if the process
//! ends before that succeeds, the document is what it was.
//!
//! A client that is here has no connection whose session is in the store: nobody gets a CONNACK before that is written. Whoever
//! changes something here holds the client's gate.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use foldhash::HashMap;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tidemill_store::{Collection, QueueId, StoreError};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info, warn};

use super::guard::alone;
use super::session::{Session, Stored};
use super::sessions::{self, Loaded, SessionError};
use super::shared::{Shared, now_ms};
use super::told::seldom;

/// How often it is tried again.
pub(super) const AGAIN: Duration = Duration::from_secs(2);
/// Bytes of documents that may wait; of further ones an older state stays.
const BYTES_MAX: usize = 64 << 20;
/// Sessions written at a time.
const AT_ONCE: usize = 64;

/// What is to be written of a session.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// This document.
    Put(Bytes),
    /// Since when it has no connection, in milliseconds since the Unix epoch. All else is as it was written.
    Since(i64),
    /// It has ended: its document is to be deleted, and then its cursors in these queues.
    Delete(Vec<QueueId>),
}

impl Change {
    fn bytes(&self) -> usize {
        match self {
            Change::Put(document) => document.len(),
            Change::Since(_) => 0,
            Change::Delete(queues) => size_of_val(&**queues),
        }
    }
}

/// See the module's text.
#[derive(Default)]
pub(super) struct Unwritten(Mutex<Changes>);

#[derive(Default)]
struct Changes {
    by_client: HashMap<ByteString, Change>,
    bytes: usize,
    /// Whether it was told that sessions cannot be written.
    is_told: bool,
}

impl Changes {
    fn remove(&mut self, client: &str) -> Option<Change> {
        let gone = self.by_client.remove(client)?;
        self.bytes -= gone.bytes();
        Some(gone)
    }
}

impl Unwritten {
    /// What is to be written of a session.
    pub(super) fn of(&self, client: &str) -> Option<Change> {
        self.0.lock().by_client.get(client).cloned()
    }

    /// It is written, or is to be something else.
    pub(super) fn take(&self, client: &str) -> Option<Change> {
        self.0.lock().remove(client)
    }

    /// Whether there is room for it.
    fn put(&self, client: &ByteString, change: Change) -> bool {
        let mut changes = self.0.lock();
        let before = changes.by_client.get(client).map_or(0, Change::bytes);
        let bytes = changes.bytes - before + change.bytes();
        if bytes > BYTES_MAX && change.bytes() > before {
            return false;
        }
        changes.bytes = bytes;
        changes.by_client.insert(client.clone(), change);
        true
    }

    /// Whether it is to be told, for the first time since all were written, that sessions cannot be.
    fn is_news(&self) -> bool {
        !std::mem::replace(&mut self.0.lock().is_told, true)
    }

    /// Whether all are written, for the first time since it was told that they cannot be.
    fn is_over(&self) -> bool {
        let mut changes = self.0.lock();
        changes.by_client.is_empty() && std::mem::take(&mut changes.is_told)
    }

    fn clients(&self) -> Vec<ByteString> {
        self.0.lock().by_client.keys().cloned().collect()
    }

    /// How many sessions are here.
    pub(super) fn len(&self) -> usize {
        self.0.lock().by_client.len()
    }
}

/// A session without a connection cannot be written for now.
pub(super) fn put_off(shared: &Shared, session: &Session, why: &dyn std::fmt::Display) {
    let document = Stored::of(session).encode();
    if !shared.unwritten.put(&session.client, Change::Put(document)) {
        seldom!(warn, client = &*session.client, error = %why, "could not write a session, and too many wait in memory already; an older state of it stays");
        shared.unwritten.put(&session.client, Change::Since(session.offline_since_ms.unwrap_or_else(now_ms)));
    } else if shared.unwritten.is_news() {
        warn!(
            client = &*session.client, error = %why,
            "could not write a session; it waits in memory, with those that may follow, and is tried again every {AGAIN:?}: is there room \
             in the data directory?"
        );
    } else {
        debug!(client = &*session.client, error = %why, "could not write a session; it waits in memory");
    }
}

/// A session is further than its document, and about to be written: if that fails, it is this one.
pub(super) fn put_ahead(shared: &Shared, session: &Session) {
    shared.unwritten.put(&session.client, Change::Put(Stored::of(session).encode()));
}

/// Notes since when a session has no connection, if its document cannot say so.
pub(super) fn put_since(shared: &Shared, client: &ByteString, since_ms: i64) {
    if shared.unwritten.of(client).is_none() {
        shared.unwritten.put(client, Change::Since(since_ms));
    }
}

/// A session has ended, and its document cannot be deleted for now.
pub(super) fn put_end(shared: &Shared, client: &ByteString, cursors: Vec<QueueId>, error: &StoreError) {
    if !shared.unwritten.put(client, Change::Delete(cursors)) {
        seldom!(warn, client = &**client, %error, "could not delete a session; it will be back after a restart");
    } else if shared.unwritten.is_news() {
        warn!(
            client = &**client, %error,
            "could not delete a session that has ended; it is tried again every {AGAIN:?}, and would be back after a restart before that: is \
             there room in the data directory?"
        );
    } else {
        debug!(client = &**client, %error, "could not delete a session that has ended; it is tried again");
    }
}

/// Deletes the cursors of a session that has ended.
pub(super) async fn delete_cursors(shared: &Shared, client: &str, queues: &[QueueId]) {
    for queue in queues {
        if let Err(error) = shared.store.delete_cursor(&sessions::cursor_key(client, *queue)).await {
            seldom!(warn, client, queue = queue.0, %error, "could not delete a cursor");
        }
    }
}

/// Tries to write what is here, for as long as the broker runs.
pub(super) async fn watch(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(AGAIN).await;
        write_all(&shared, Instant::now()).await;
    }
}

/// Tries to write what is here now. Until `until`, it waits for others who are at it.
pub(super) async fn write_all(shared: &Shared, until: Instant) {
    if let Some(error) = try_all(shared, until).await {
        debug!(sessions = shared.unwritten.len(), %error, "sessions still cannot be written");
    } else if shared.unwritten.is_over() {
        info!("the sessions that could not be written are written now");
    }
}

/// The same; why one could not be written.
async fn try_all(shared: &Shared, until: Instant) -> Option<SessionError> {
    let mut clients = shared.unwritten.clients().into_iter();
    let mut failed = None;
    // One by one until one is written: as long as the store takes nothing from anybody, the others need not be tried.
    for client in clients.by_ref() {
        match write_alone(shared, client, until).await {
            Some(Ok(true)) => break,
            Some(Err(error)) if error.is_for_all() => return Some(error),
            Some(Err(error)) => failed = Some(error),
            Some(Ok(false)) | None => {}
        }
    }
    let mut writing =
        stream::iter(clients).map(|client| write_alone(shared, client, until)).buffer_unordered(AT_ONCE);
    while let Some(written) = writing.next().await {
        failed = failed.or(written.and_then(Result::err));
    }
    failed
}

/// Tries one; `None` if that fails with a panic, which is nobody else's matter.
async fn write_alone(
    shared: &Shared,
    client: ByteString,
    until: Instant,
) -> Option<Result<bool, SessionError>> {
    alone(&client, "its session, tried again", write(shared, client.clone(), until)).await
}

/// Tries one, unless somebody else is at it until `until`; whether nobody was.
async fn write(shared: &Shared, client: ByteString, until: Instant) -> Result<bool, SessionError> {
    let _gate = match shared.registry.try_gate(&client) {
        Some(gate) => gate,
        None => match timeout_at(until, shared.registry.gate(&client)).await {
            Ok(gate) => gate,
            Err(_) => return Ok(false),
        },
    };
    let failed = |error| SessionError::Store { client: client.clone(), error };
    match shared.unwritten.of(&client) {
        None => {}
        Some(Change::Put(_) | Change::Since(_)) => match sessions::load(shared, &client).await? {
            Some(Loaded { mut session, listed_ms }) => {
                sessions::save(shared, &mut session, None, listed_ms).await.map_err(failed)?;
            }
            None => drop(shared.unwritten.take(&client)),
        },
        Some(Change::Delete(cursors)) => {
            shared.store.delete_document(Collection::Sessions, &client, None).await.map_err(failed)?;
            shared.unwritten.take(&client);
            delete_cursors(shared, &client, &cursors).await;
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_that_wait_are_bounded_and_all_else_is_noted() {
        let unwritten = Unwritten::default();
        let document = |bytes| Change::Put(Bytes::from(vec![0; bytes]));
        let (a, b) = (ByteString::from("a"), ByteString::from("b"));
        assert!(unwritten.put(&a, document(BYTES_MAX - 10)));
        assert!(!unwritten.put(&b, document(11)) && unwritten.put(&b, document(10)));
        assert!(!unwritten.put(&b, document(11)), "what was there stays");
        assert!(matches!(unwritten.of("b"), Some(Change::Put(document)) if document.len() == 10));
        assert!(unwritten.put(&ByteString::from("c"), Change::Since(1)));
        assert!(unwritten.put(&a, Change::Delete(vec![QueueId(1)])) && unwritten.put(&b, document(11)));
        assert!(unwritten.take("a").is_some() && unwritten.take("a").is_none());
        assert_eq!((unwritten.len(), unwritten.0.lock().bytes), (2, 11));
    }
}
