//! [`Server`]: the listener, its limits, start and stop.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tower_http::timeout::TimeoutLayer;
use tracing::{error, warn};

use super::listener::Limited;
use super::problem::Problem;
use super::site::{self, Names};
use super::{State, clients, dead_letters, explain, health, metrics, queues, records, rules};
use crate::config::HttpSettings;

/// Longest time until a response begins.
const RESPONSE_TIME_MAX: Duration = Duration::from_secs(30);
/// Largest request body in bytes. No request of this API has one.
const BODY_BYTES_MAX: usize = 16 << 10;

/// A listening API.
pub struct Server {
    address: SocketAddr,
    state: State,
    task: JoinHandle<()>,
}

impl Server {
    /// Opens the listener and serves from now on.
    pub async fn start(settings: &HttpSettings, state: State) -> io::Result<Server> {
        let listener = TcpListener::bind(settings.listen).await?;
        let address = listener.local_addr()?;
        let stop = state.stop.clone();
        let listener = Limited::new(listener, settings.connections_max);
        let names = if settings.allow_anonymous { Names::Any } else { Names::Local };
        let routes = routes(state.clone(), names);
        let task = tokio::spawn(async move {
            if let Err(error) =
                axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await
            {
                error!(%error, "the HTTP API has ended");
            }
        });
        Ok(Server { address, state, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on `/readyz` answers no, and why.
    pub fn unready(&self, reason: impl Into<String>) {
        *self.state.unready.lock() = Some(reason.into());
    }

    /// What [`Server::unready`] said is over.
    pub fn ready(&self) {
        *self.state.unready.lock() = None;
    }

    /// Ends streams, lets other requests finish until `deadline`, and closes the listener.
    pub async fn stop(self, deadline: Instant) {
        self.state.stop.cancel();
        let abort = self.task.abort_handle();
        if tokio::time::timeout_at(deadline, self.task).await.is_err() {
            warn!("HTTP requests have not finished in time");
            abort.abort();
        }
    }
}

fn routes(state: State, names: Names) -> Router {
    Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::scrape))
        .route("/api/v1/rules", get(rules::list))
        .route("/api/v1/queues", get(queues::list))
        .route("/api/v1/queues/{id}", delete(queues::drop_orphan))
        .route("/api/v1/clients", get(clients::list))
        .route("/api/v1/clients/{client}", get(clients::show).delete(clients::kick))
        .route("/api/v1/records", get(records::stream))
        .route("/api/v1/dead-letters", get(dead_letters::list))
        .route("/api/v1/explain", get(explain::explain))
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, RESPONSE_TIME_MAX))
        .layer(from_fn_with_state(names, site::guard))
        .with_state(state)
}

/// What there is, for those who asked for something else.
const ROUTES: &str = "GET /healthz, /readyz, /metrics, /api/v1/{rules,queues,clients,records,dead-letters,explain}, \
                      /api/v1/clients/{client}; DELETE /api/v1/queues/{id}, /api/v1/clients/{client}";

async fn unknown(uri: Uri) -> Problem {
    Problem::not_found(format!("there is no `{}`", uri.path())).hint(ROUTES)
}

async fn not_allowed(method: Method, uri: Uri) -> Problem {
    let error = format!("`{}` does not take {method}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, error).hint(ROUTES)
}
