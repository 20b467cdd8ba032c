//! `/api/v1/clients`: who is connected, who has a session, how far behind each is; and sending one away.

use std::net::SocketAddr;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{self, Path, Query};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::State;
use super::problem::Problem;
use super::records::rfc3339;
use crate::mqtt::codec::Version;
use crate::mqtt::{ClientInfo, ClientQuery, ClientState, ConnectionInfo, KickError, SessionInfo, Totals};

/// Clients in one page, unless asked otherwise.
const LIMIT: usize = 100;
/// Most clients in one page.
const LIMIT_MAX: usize = 1000;

/// What may be asked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    #[serde(default)]
    prefix: String,
    online: Option<bool>,
    after: Option<String>,
    limit: Option<usize>,
}

/// How a client is to be sent away.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KickParams {
    #[serde(default)]
    end_session: bool,
}

/// The answer.
#[derive(Serialize)]
pub(super) struct Page {
    clients: Vec<Client>,
    /// What to ask with as `after` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A client. In a list without its subscriptions.
#[derive(Serialize)]
pub(super) struct Client {
    client: String,
    online: bool,
    /// Since when it is that.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// When the session of one that is offline ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
    /// Why there is no more to tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    connection: Option<Connection>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    session: Option<Session>,
}

#[derive(Serialize)]
struct Connection {
    user: Option<String>,
    address: SocketAddr,
    listener: String,
    version: &'static str,
    keep_alive_s: u16,
    /// Bytes that wait for its socket.
    waiting_bytes: usize,
    messages_in: u64,
    messages_out: u64,
    bytes_in: u64,
    bytes_out: u64,
}

#[derive(Serialize)]
struct Session {
    /// Seconds it outlives its connection; null is for ever.
    session_expiry_s: Option<u32>,
    /// Messages to the client that it has not acknowledged.
    in_flight: usize,
    /// Messages from the client that are not acknowledged.
    in_flight_in: usize,
    subscription_count: usize,
    /// Entries behind, of all subscriptions together.
    lag: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscriptions: Option<Vec<Subscription>>,
}

#[derive(Serialize)]
struct Subscription {
    filter: String,
    qos: u8,
    queue: u64,
    cursor: u64,
    lag: u64,
}

impl Client {
    fn new(info: ClientInfo, with_subscriptions: bool) -> Self {
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
            version,
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

/// A page of clients by identifier.
pub(super) async fn list(
    extract::State(state): extract::State<State>,
    params: Result<Query<Params>, QueryRejection>,
) -> Result<Json<Page>, Problem> {
    let Query(Params { prefix, online, after, limit }) = params?;
    let limit = limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
    let page = state.broker.clients(&ClientQuery { prefix, online, after, limit }).await;
    let clients = page.clients.into_iter().map(|client| Client::new(client, false)).collect();
    Ok(Json(Page { clients, next: page.next }))
}

/// One client, with its subscriptions.
pub(super) async fn show(
    extract::State(state): extract::State<State>,
    client: Result<Path<String>, PathRejection>,
) -> Result<Json<Client>, Problem> {
    let Path(client) = client?;
    match state.broker.client(&client).await {
        Some(found) => Ok(Json(Client::new(found, true))),
        None => Err(KickError::Unknown(client).into()),
    }
}

/// Closes a client's connection, and ends its session if that is asked for.
pub(super) async fn kick(
    extract::State(state): extract::State<State>,
    client: Result<Path<String>, PathRejection>,
    params: Result<Query<KickParams>, QueryRejection>,
) -> Result<StatusCode, Problem> {
    let Path(client) = client?;
    let Query(KickParams { end_session }) = params?;
    state.broker.kick(&client, end_session).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<KickError> for Problem {
    fn from(error: KickError) -> Self {
        let (status, hint) = match &error {
            KickError::Unknown(_) => (StatusCode::NOT_FOUND, "/api/v1/clients lists them"),
            KickError::Offline(_) => (StatusCode::CONFLICT, "end_session=true ends its session"),
            KickError::Failed { .. } => (StatusCode::SERVICE_UNAVAILABLE, "/readyz says how the store is"),
        };
        Problem::new(status, error.to_string()).hint(hint)
    }
}
