//! `/api/v1/clients`: who is connected, who has a session, how far behind each is; and sending one away.
//!
//! # Layout
//! - this file: what may be asked
//! - [`answer`]: what is answered, which `tidemill clients` reads

pub(crate) mod answer;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{self, Path, Query};
use axum::http::StatusCode;
use serde::Deserialize;

use self::answer::{Client, Page};
use super::State;
use super::problem::Problem;
use crate::mqtt::{ClientQuery, KickError};

/// Clients in one page, unless asked otherwise.
const LIMIT: usize = 100;
/// Most clients in one page.
pub(crate) const LIMIT_MAX: usize = 1000;

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

/// A page of clients by identifier.
pub(super) async fn list(
    extract::State(state): extract::State<State>,
    params: Result<Query<Params>, QueryRejection>,
) -> Result<Json<Page>, Problem> {
    let Query(Params { prefix, online, after, limit }) = params?;
    let limit = limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
    let page = state.broker.clients(&ClientQuery { prefix, online, after, limit }).await?;
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
            KickError::Unknown(_) => {
                (StatusCode::NOT_FOUND, "`tidemill clients list`, or /api/v1/clients, lists them")
            }
            KickError::Offline(_) => {
                (StatusCode::CONFLICT, "--end-session, or end_session=true, ends its session")
            }
            KickError::Failed { .. } => (StatusCode::SERVICE_UNAVAILABLE, "/readyz says how the store is"),
        };
        Problem::new(status, error.to_string()).hint(hint)
    }
}
