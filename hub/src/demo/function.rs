//! [`Function`]: the HTTP function that receives events, and can be taken down and brought up again.
//!
//! Down means what it means in life: the listener is closed, open connections end, and connecting is refused.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use parking_lot::Mutex;
use rand::Rng;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::expect::Stream;
use super::ledger::{Arrivals, ReportKey};
use super::vehicle;

/// Ports to choose from: below those that the system gives to outgoing connections, one of which could
/// otherwise take the function's port while it is down.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// How often another port is tried, and how often and in what steps the same one when coming up again.
const PORT_TRIES: usize = 100;
const UP_TRIES: usize = 100;
const UP_STEP: Duration = Duration::from_millis(50);
/// Largest request body in bytes.
const BODY_BYTES_MAX: usize = 16 << 20;

/// See the module's documentation.
pub(super) struct Function {
    address: SocketAddr,
    arrivals: Arc<Mutex<Arrivals>>,
    running: Option<Running>,
}

struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Function {
    /// A function on a free loopback port, up.
    pub(super) async fn start() -> io::Result<Function> {
        let mut tries = 0;
        let listener = loop {
            let port = rand::rng().random_range(PORTS);
            match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
                Ok(listener) => break listener,
                Err(error) if tries == PORT_TRIES => return Err(error),
                Err(_) => tries += 1,
            }
        };
        let mut function =
            Function { address: listener.local_addr()?, arrivals: Arc::default(), running: None };
        function.serve(listener);
        Ok(function)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// What has arrived; nothing is left here.
    pub(super) fn take_arrivals(&self) -> Arrivals {
        std::mem::take(&mut *self.arrivals.lock())
    }

    /// Closes the listener and all connections.
    pub(super) async fn down(&mut self) {
        if let Some(Running { stop, task }) = self.running.take() {
            stop.cancel();
            // Requests that are being answered end first; they are short.
            if task.await.is_err() {
                tracing::error!("the demo's HTTP function had failed");
            }
        }
    }

    /// Listens again, on the same port.
    pub(super) async fn up(&mut self) -> io::Result<()> {
        if self.is_up() {
            return Ok(());
        }
        let mut tries = 0;
        let listener = loop {
            match TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                Err(error) if tries == UP_TRIES => return Err(error),
                Err(_) => tries += 1,
            }
            tokio::time::sleep(UP_STEP).await;
        };
        self.serve(listener);
        Ok(())
    }

    fn serve(&mut self, listener: TcpListener) {
        let routes = Router::new()
            .route("/", post(receive))
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .with_state(Arc::clone(&self.arrivals));
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).with_graceful_shutdown(stopped).await {
                tracing::error!(%error, "the demo's HTTP function has ended");
            }
        });
        self.running = Some(Running { stop, task });
    }
}

/// Notes an event, then answers: what is confirmed is in the account.
async fn receive(
    State(arrivals): State<Arc<Mutex<Arrivals>>>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let events = events(&headers, &body);
    let mut arrivals = arrivals.lock();
    let Some(events) = events else {
        arrivals.unreadable();
        return StatusCode::BAD_REQUEST;
    };
    for event in events {
        match read(&event).and_then(|(id, ty, key)| Some((Stream::of_http(ty)?, id, key))) {
            Some((stream, id, key)) => arrivals.arrived(stream, id, key),
            None => arrivals.unreadable(),
        }
    }
    StatusCode::NO_CONTENT
}

/// The events of a request as objects of the JSON event format (CloudEvents HTTP binding, section 3).
fn events(headers: &HeaderMap, body: &[u8]) -> Option<Vec<Value>> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let content_type = text("content-type").unwrap_or_default();
    let body: Value = serde_json::from_slice(body).ok()?;
    if content_type.starts_with("application/cloudevents-batch+json") {
        return match body {
            Value::Array(events) => Some(events),
            _ => None,
        };
    }
    if content_type.starts_with("application/cloudevents+json") {
        return Some(vec![body]);
    }
    Some(vec![serde_json::json!({ "id": text("ce-id")?, "type": text("ce-type")?, "data": body })])
}

/// Id and type of an event, and the report it is about.
pub(super) fn read(event: &Value) -> Option<(&str, &str, ReportKey)> {
    let data = event.get("data")?;
    let vehicle = vehicle::number(data.get("vehicle")?.as_str()?)?;
    let seq = data.get("seq")?;
    let seq = seq.as_u64().or_else(|| seq.as_str()?.parse().ok())?;
    Some((event.get("id")?.as_str()?, event.get("type")?.as_str()?, ReportKey { vehicle, seq }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_structured_and_batched_events_are_read() {
        let data = r#"{"vehicle":"v00007","seq":3}"#;
        let event = format!(r#"{{"id":"i","type":"t","data":{data}}}"#);
        let headers = |content_type: &str| {
            let pairs = [("content-type", content_type), ("ce-id", "i"), ("ce-type", "t")];
            let pairs = pairs.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            HeaderMap::from_iter(pairs)
        };
        let wanted = ("i", "t", ReportKey { vehicle: 7, seq: 3 });
        for (content_type, body) in [
            ("application/json", data.to_owned()),
            ("application/cloudevents+json; charset=utf-8", event.clone()),
            ("application/cloudevents-batch+json", format!("[{event}]")),
        ] {
            let events = events(&headers(content_type), body.as_bytes()).unwrap();
            assert_eq!(events.iter().map(read).collect::<Vec<_>>(), [Some(wanted)], "{content_type}");
        }
        assert!(events(&headers("application/json"), b"nonsense").is_none());
    }

    #[tokio::test]
    async fn down_refuses_and_up_is_the_same_port() {
        let mut function = Function::start().await.unwrap();
        let connect = |address| async move { tokio::net::TcpStream::connect(address).await.is_ok() };
        let address = function.address();
        let kept_open = tokio::net::TcpStream::connect(address).await.unwrap();
        function.down().await;
        assert!(!connect(address).await);
        function.up().await.unwrap();
        assert_eq!(function.address(), address);
        assert!(connect(address).await);
        drop(kept_open);
    }
}
