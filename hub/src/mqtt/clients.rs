//! Clients as people who run the hub see them: looked at, and sent away.
//!
//! Nothing is kept for this. A connection is asked through its mail and answers between its packets; a session without
//! one is what its document and its cursors say, and is found by its document's key.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use futures_util::{StreamExt, stream};
use tidemill_store::{Collection, Store, StoreError};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::Broker;
use super::codec::{Qos, Version};
use super::registry::Holder;
use super::session::{NEVER, Session};
use super::sessions::{self, Loaded};
use super::share::Groups;
use super::shared::Shared;
use super::wills;

/// Clients looked at together.
const AT_ONCE: usize = 64;
/// How long a connection, or the store, may take to answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);
/// How long a connection may take to end: what it sent is stored, and its session written.
const KICK_TIME_MAX: Duration = Duration::from_secs(10);
/// How often a session is looked for whose connection has just ended.
const TRIES: usize = 3;

/// Which clients.
#[derive(Clone, Debug, Default)]
pub struct ClientQuery {
    /// What their identifiers begin with.
    pub prefix: String,
    /// Those with a connection, or those without; `None` is both.
    pub online: Option<bool>,
    /// Those after this one, in the order of their identifiers.
    pub after: Option<String>,
    /// At most so many.
    pub limit: usize,
}

/// Clients in the order of their identifiers.
#[derive(Clone, Debug, Default)]
pub struct ClientPage {
    /// The clients.
    pub clients: Vec<ClientInfo>,
    /// What to ask for as `after` to go on; `None` when there are no more.
    pub next: Option<String>,
}

/// A client identifier with a session.
#[derive(Clone, Debug)]
pub struct ClientInfo {
    /// The client identifier.
    pub client: String,
    /// Whether there is a connection.
    pub state: ClientState,
    /// What is known of the session; `None` if it could not be looked at.
    pub session: Option<SessionInfo>,
}

/// Whether there is a connection.
#[derive(Clone, Debug)]
pub enum ClientState {
    /// There is.
    Online(ConnectionInfo),
    /// There is, but it did not answer in time: it waits for the store.
    Busy,
    /// There is none since then, in milliseconds since the Unix epoch; when the session expires, if it does.
    Offline {
        /// When the connection ended.
        since_ms: Option<i64>,
        /// When the session ends.
        expires_ms: Option<i64>,
    },
    /// There is none, and the session cannot be read.
    Unreadable(String),
}

/// A connection.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// User name.
    pub user: Option<String>,
    /// Where it comes from.
    pub address: SocketAddr,
    /// Name of the listener it came to.
    pub listener: String,
    /// MQTT version.
    pub version: Version,
    /// When it was accepted, in milliseconds since the Unix epoch.
    pub since_ms: i64,
    /// Keep alive in seconds; 0 is none.
    pub keep_alive_s: u16,
    /// Bytes that wait for its socket.
    pub waiting_bytes: usize,
    /// What went over it.
    pub totals: Totals,
}

/// What went over a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Messages from the client that were stored.
    pub messages_in: u64,
    /// Messages to the client.
    pub messages_out: u64,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
}

/// A session.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// Seconds it outlives its connection; `None` is for ever.
    pub expiry_s: Option<u32>,
    /// QoS 1 and 2 messages to the client that it has not acknowledged in full.
    pub in_flight: usize,
    /// QoS 1 and 2 messages from the client that are not acknowledged in full. (Without a connection nothing counts.)
    pub in_flight_in: usize,
    /// What it subscribes to.
    pub subscriptions: Vec<SubscriptionInfo>,
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionInfo {
    /// The filter as the client wrote it, `$share/…` included.
    pub filter: String,
    /// Granted QoS.
    pub qos: Qos,
    /// Number of the filter's queue.
    pub queue: u64,
    /// Lowest offset of the queue not yet done; of a shared subscription, that of its group.
    pub cursor: u64,
    /// Entries of the queue from there on.
    pub lag: u64,
}

impl SessionInfo {
    /// A session as it stands.
    pub(super) fn of(session: &Session, store: &Store, groups: &Groups) -> Self {
        let subscriptions = session.subscriptions.iter().map(|(_, subscription)| {
            let group = subscription.is_shared().then(|| groups.find(subscription)).flatten();
            let place = group.map_or_else(|| subscription.cursor.place(), |group| group.place());
            let end = store.queue_end(subscription.queue).unwrap_or(place.offset);
            SubscriptionInfo {
                filter: subscription.requested.to_string(),
                qos: subscription.options.qos,
                queue: subscription.queue.0,
                cursor: place.offset,
                lag: end.saturating_sub(place.offset),
            }
        });
        SessionInfo {
            expiry_s: (session.expiry_s != NEVER).then_some(session.expiry_s),
            in_flight: session.window.len(),
            in_flight_in: session.inbound.in_flight(),
            subscriptions: subscriptions.collect(),
        }
    }
}

/// Why a client was not sent away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KickError {
    /// There is no such session.
    #[error("there is no client `{0}`")]
    Unknown(String),
    /// It has a session and no connection, and the session was to stay.
    #[error("client `{0}` is not connected")]
    Offline(String),
    /// The connection did not end in time, or the session cannot be read.
    #[error("client `{client}`: {what}")]
    Failed {
        /// The client identifier.
        client: String,
        /// Why.
        what: String,
    },
}

impl Broker {
    /// Clients in the order of their identifiers.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn clients(&self, query: &ClientQuery) -> Result<ClientPage, StoreError> {
        let shared = &*self.shared;
        let names = names(shared, query).await?;
        let next = names.last().filter(|_| names.len() == query.limit).cloned();
        let deadline = Instant::now() + ANSWER_TIME_MAX;
        // In order, and those that are gone by now left out.
        let found = stream::iter(names).map(|client| look(shared, client.into(), deadline)).buffered(AT_ONCE);
        Ok(ClientPage { clients: found.filter_map(std::future::ready).collect().await, next })
    }

    /// One client, if it has a session.
    pub async fn client(&self, client: &str) -> Option<ClientInfo> {
        look(&self.shared, client.into(), Instant::now() + ANSWER_TIME_MAX).await
    }

    /// Closes a client's connection (reason 0x98), as a loss of the network would: its will is published. With
    /// `end_session`, ends its session, whether it is connected or not.
    ///
    /// # Errors
    /// There is no such client, or nothing to do for it, or it takes too long.
    pub async fn kick(&self, client: &str, end_session: bool) -> Result<(), KickError> {
        let failed = |what: &str| KickError::Failed { client: client.to_owned(), what: what.to_owned() };
        let deadline = Instant::now() + KICK_TIME_MAX;
        let kicking = async {
            for _ in 0..TRIES {
                match self.shared.registry.holder(client) {
                    Holder::Nobody => return Err(KickError::Unknown(client.to_owned())),
                    Holder::Connection(mail) => {
                        if mail.kick(end_session).await.is_ok() {
                            info!(client, end_session, "a client was sent away on request");
                            return Ok(());
                        }
                        // It is just going: what it leaves is there when its gate is open.
                        drop(self.shared.registry.gate(client).await);
                    }
                    Holder::Document => {
                        // Begun, it goes on whether or not anybody waits for it: half of it would be there for ever.
                        let ending = end_offline(Arc::clone(&self.shared), client.into(), end_session);
                        let ending =
                            tokio::spawn(ending).await.unwrap_or_else(|error| Err(error.to_string()));
                        match ending.map_err(|error| failed(&error))? {
                            Ending::Unknown => return Err(KickError::Unknown(client.to_owned())),
                            Ending::Left => return Err(KickError::Offline(client.to_owned())),
                            Ending::Ended => {
                                info!(
                                    client,
                                    "the session of a client without a connection was ended on request"
                                );
                                return Ok(());
                            }
                            Ending::Online => {}
                        }
                    }
                }
            }
            Err(failed("its connections come and go too fast"))
        };
        timeout_at(deadline, kicking).await.unwrap_or_else(|_| {
            warn!(client, "a client that was to be sent away is still there");
            Err(failed("it did not end in time; it will when the store answers it"))
        })
    }
}

/// Identifiers of the clients that are asked for, those with a connection and those with a document alike.
async fn names(shared: &Shared, query: &ClientQuery) -> Result<Vec<String>, StoreError> {
    let ClientQuery { prefix, online, after, limit } = query;
    let mut names = BTreeSet::new();
    if *online != Some(false) {
        names.extend(shared.registry.page(prefix, after.as_deref(), *limit));
    }
    if *online == Some(true) {
        return Ok(names.into_iter().collect());
    }
    if online.is_none() {
        // Whoever has a connection by now, or has none any more, was in one of both all the same.
        let keys = shared.store.document_keys(Collection::Sessions, prefix, after.as_deref(), *limit).await?;
        names.extend(keys);
        return Ok(names.into_iter().take(*limit).collect());
    }
    let mut after = after.clone();
    while names.len() < *limit {
        let store = &shared.store;
        let keys = store.document_keys(Collection::Sessions, prefix, after.as_deref(), *limit).await?;
        after = keys.last().cloned();
        let is_last = keys.len() < *limit;
        for client in keys {
            if !matches!(shared.registry.holder(&client), Holder::Connection(_)) {
                names.insert(client);
            }
        }
        if is_last {
            break;
        }
    }
    Ok(names.into_iter().take(*limit).collect())
}

/// Looks at a client; `None` if there is none.
async fn look(shared: &Shared, client: ByteString, deadline: Instant) -> Option<ClientInfo> {
    let name = client.to_string();
    match timeout_at(deadline, look_at(shared, client)).await {
        Ok(found) => found,
        Err(_) => Some(ClientInfo { client: name, state: ClientState::Busy, session: None }),
    }
}

async fn look_at(shared: &Shared, client: ByteString) -> Option<ClientInfo> {
    for _ in 0..TRIES {
        match shared.registry.holder(&client) {
            Holder::Nobody => return None,
            Holder::Connection(mail) => {
                if let Ok(told) = mail.ask().await {
                    return Some(told);
                }
                drop(shared.registry.gate(&client).await);
            }
            Holder::Document => {
                let _gate = shared.registry.gate(&client).await;
                if matches!(shared.registry.holder(&client), Holder::Document) {
                    return offline(shared, &client).await;
                }
            }
        }
    }
    Some(ClientInfo { client: client.to_string(), state: ClientState::Busy, session: None })
}

/// A session without a connection. Its gate is held.
async fn offline(shared: &Shared, client: &ByteString) -> Option<ClientInfo> {
    let (state, session) = match sessions::load(shared, client).await {
        Ok(None) => return None,
        Ok(Some(Loaded { session, .. })) => {
            let (since_ms, expires_ms) = (session.offline_since_ms, session.expires_ms());
            let told = SessionInfo::of(&session, &shared.store, &shared.groups);
            (ClientState::Offline { since_ms, expires_ms }, Some(told))
        }
        Err(error) => (ClientState::Unreadable(error.to_string()), None),
    };
    Some(ClientInfo { client: client.to_string(), state, session })
}

/// What became of a session that was to end and has no connection.
enum Ending {
    /// There is none.
    Unknown,
    /// It has a connection by now.
    Online,
    /// It was to stay.
    Left,
    /// It is no more.
    Ended,
}

/// Ends the session of a client without a connection, if it is to end.
async fn end_offline(shared: Arc<Shared>, client: ByteString, end_session: bool) -> Result<Ending, String> {
    let shared = &*shared;
    let _gate = shared.registry.gate(&client).await;
    match shared.registry.holder(&client) {
        Holder::Nobody => return Ok(Ending::Unknown),
        Holder::Connection(_) => return Ok(Ending::Online),
        Holder::Document => {}
    }
    match sessions::load(shared, &client).await.map_err(|error| error.to_string())? {
        None => Ok(Ending::Unknown),
        Some(_) if !end_session => Ok(Ending::Left),
        Some(Loaded { mut session, listed_ms }) => {
            if let Some(will) = session.will.take() {
                wills::publish(shared, &client, will).await;
            }
            sessions::end(shared, &session, listed_ms).await;
            Ok(Ending::Ended)
        }
    }
}
