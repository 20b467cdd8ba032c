//! What `/api/v1/clients` answers: [`Page`] and [`Client`], written by the hub and read by `tidemill clients`.

use std::borrow::Cow;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::super::records::rfc3339;
use crate::mqtt::codec::Version;
use crate::mqtt::{ClientInfo, ClientState, ConnectionInfo, SessionInfo, Totals};

/// Some clients, in the order of their identifiers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Page {
    pub(crate) clients: Vec<Client>,
    /// What to ask with as `after` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

/// A client. In a list without its subscriptions.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Client {
    pub(crate) client: String,
    pub(crate) online: bool,
    /// Since when it is that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<String>,
    /// When the session of one that is offline ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires: Option<String>,
    /// Why there is no more to tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) connection: Option<Connection>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<Session>,
}

/// A connection.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Connection {
    pub(crate) user: Option<String>,
    pub(crate) address: SocketAddr,
    pub(crate) listener: String,
    /// Of MQTT: `3.1.1` or `5.0`.
    pub(crate) version: Cow<'static, str>,
    pub(crate) keep_alive_s: u16,
    /// Bytes that wait for its socket.
    pub(crate) waiting_bytes: usize,
    pub(crate) messages_in: u64,
    pub(crate) messages_out: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

/// A session.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Session {
    /// Seconds it outlives its connection; null is for ever.
    pub(crate) session_expiry_s: Option<u32>,
    /// Messages to the client that it has not acknowledged.
    pub(crate) in_flight: usize,
    /// Messages from the client that are not acknowledged.
    pub(crate) in_flight_in: usize,
    pub(crate) subscription_count: usize,
    /// Entries behind, of all subscriptions together.
    pub(crate) lag: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) subscriptions: Option<Vec<Subscription>>,
}

/// A subscription.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Subscription {
    pub(crate) filter: String,
    pub(crate) qos: u8,
    pub(crate) queue: u64,
    pub(crate) cursor: u64,
    pub(crate) lag: u64,
}

impl Client {
    pub(super) fn new(info: ClientInfo, with_subscriptions: bool) -> Self {
        let mut client = Client {
            client: info.client,
            online: matches!(info.state, ClientState::Online(_) | ClientState::Busy),
            since: None,
            expires: None,
            error: None,
            connection: None,
            session: info.session.map(|session| Session::new(session, with_subscriptions)),
        };
        match info.state {
            ClientState::Online(connection) => {
                client.since = Some(rfc3339(connection.since_ms));
                client.connection = Some(Connection::new(connection));
            }
            ClientState::Busy => client.error = Some("it waits for the store and did not answer".to_owned()),
            ClientState::Offline { since_ms, expires_ms } => {
                client.since = since_ms.map(rfc3339);
                client.expires = expires_ms.map(rfc3339);
            }
            ClientState::Unreadable(error) => client.error = Some(error),
        }
        client
    }
}

impl Connection {
    fn new(connection: ConnectionInfo) -> Self {
        let ConnectionInfo { user, address, listener, version, keep_alive_s, waiting_bytes, totals, .. } =
            connection;
        let Totals { messages_in, messages_out, bytes_in, bytes_out } = totals;
        let version = match version {
            Version::V311 => "3.1.1",
            Version::V5 => "5.0",
        };
        Connection {
            user,
            address,
            listener,
            version: version.into(),
            keep_alive_s,
            waiting_bytes,
            messages_in,
            messages_out,
            bytes_in,
            bytes_out,
        }
    }
}

impl Session {
    fn new(session: SessionInfo, with_subscriptions: bool) -> Self {
        let SessionInfo { expiry_s, in_flight, in_flight_in, subscriptions } = session;
        Session {
            session_expiry_s: expiry_s,
            in_flight,
            in_flight_in,
            subscription_count: subscriptions.len(),
            lag: subscriptions.iter().map(|subscription| subscription.lag).sum(),
            subscriptions: with_subscriptions.then(|| {
                let shown = subscriptions.into_iter().map(|subscription| Subscription {
                    filter: subscription.filter,
                    qos: subscription.qos.bits(),
                    queue: subscription.queue,
                    cursor: subscription.cursor,
                    lag: subscription.lag,
                });
                shown.collect()
            }),
        }
    }
}
