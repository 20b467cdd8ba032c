//! [`HttpFunction`]: an HTTP endpoint that records what it receives, and fails when told to.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::wait;

/// What the function received.
#[derive(Clone, Debug)]
pub struct Received {
    /// The method.
    pub method: Method,
    /// The path.
    pub path: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// What was answered.
    pub answered: StatusCode,
}

impl Received {
    /// A header as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// Decides what to answer.
type Judge = Box<dyn Fn(&Received) -> (StatusCode, Bytes) + Send + Sync>;

#[derive(Default)]
struct Shared {
    received: Mutex<Vec<Received>>,
    judges: Mutex<HashMap<String, Judge>>,
}

/// An HTTP endpoint at every path of a loopback port. Answers 204 unless told otherwise.
pub struct HttpFunction {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl HttpFunction {
    /// Starts it.
    ///
    /// # Panics
    /// When no port can be had.
    pub async fn start() -> HttpFunction {
        let listener = TcpListener::bind(crate::ports::free_address()).await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let shared = Arc::new(Shared::default());
        let router =
            Router::new().fallback(receive).layer(DefaultBodyLimit::disable()).with_state(shared.clone());
        let task = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("axum serves until it is dropped");
        });
        HttpFunction { address, shared, task }
    }

    /// The URL of a path (which starts with `/`).
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, requests to `path` are answered as `judge` says.
    ///
    /// # Panics
    /// When another test thread panicked with the lock.
    pub fn answer(&self, path: &str, judge: impl Fn(&Received) -> StatusCode + Send + Sync + 'static) {
        self.reply(path, move |received| (judge(received), Bytes::new()));
    }

    /// From now on, requests to `path` get the status and the body that `judge` says.
    ///
    /// # Panics
    /// When another test thread panicked with the lock.
    pub fn reply(
        &self,
        path: &str,
        judge: impl Fn(&Received) -> (StatusCode, Bytes) + Send + Sync + 'static,
    ) {
        self.shared.judges.lock().expect("no panic while locked").insert(path.to_owned(), Box::new(judge));
    }

    /// From now on, requests to `path` get this status.
    pub fn answer_all(&self, path: &str, status: StatusCode) {
        self.answer(path, move |_| status);
    }

    /// What was received at `path` so far, in order.
    ///
    /// # Panics
    /// When another test thread panicked with the lock.
    #[must_use]
    pub fn received(&self, path: &str) -> Vec<Received> {
        let received = self.shared.received.lock().expect("no panic while locked");
        received.iter().filter(|request| request.path == path).cloned().collect()
    }

    /// What was received at `path` and answered with success, in order.
    #[must_use]
    pub fn accepted(&self, path: &str) -> Vec<Received> {
        let mut received = self.received(path);
        received.retain(|request| request.answered.is_success());
        received
    }

    /// Waits until at least `count` requests to `path` were answered with success.
    ///
    /// # Panics
    /// When they were not within `limit`.
    pub async fn until_accepted(&self, path: &str, count: usize, limit: Duration) -> Vec<Received> {
        let what = format!("{count} requests to {path}");
        wait::until(&what, limit, async || {
            Some(self.accepted(path)).filter(|accepted| accepted.len() >= count)
        })
        .await
    }
}

impl Drop for HttpFunction {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn receive(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, Bytes) {
    let path = uri.path().to_owned();
    let mut received = Received { method, path, headers, body, answered: StatusCode::NO_CONTENT };
    let mut reply = Bytes::new();
    if let Some(judge) = shared.judges.lock().expect("no panic while locked").get(&received.path) {
        (received.answered, reply) = judge(&received);
    }
    let answered = received.answered;
    shared.received.lock().expect("no panic while locked").push(received);
    (answered, reply)
}
