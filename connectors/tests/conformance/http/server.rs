//! A function that answers as it is told to.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use cloudevents::Event;
use percent_encoding::percent_decode_str;
use tokio::net::TcpListener;

use crate::subject::Received;

/// A request as the function saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) events: Vec<Received>,
}

/// What to answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
    pub(crate) wait: Duration,
}

impl Answer {
    pub(crate) fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new(), wait: Duration::ZERO }
    }
}

type Script = Box<dyn Fn(&Seen) -> Answer + Send + Sync>;

#[derive(Default)]
struct Shared {
    seen: Mutex<Vec<Seen>>,
    /// Events of requests answered 2xx.
    taken: Mutex<Vec<Received>>,
    script: Mutex<Option<Script>>,
    running: AtomicUsize,
    running_max: AtomicUsize,
}

/// The server.
pub(crate) struct Server {
    pub(crate) address: String,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let app = Router::new().fallback(handle).with_state(Arc::clone(&shared));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, shared, task }
    }

    /// How requests are answered from now on.
    pub(crate) fn script(&self, script: impl Fn(&Seen) -> Answer + Send + Sync + 'static) {
        *self.shared.script.lock().unwrap() = Some(Box::new(script));
    }

    /// Requests since the last call.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.shared.seen.lock().unwrap())
    }

    /// Events taken since the last call.
    pub(crate) fn taken(&self) -> Vec<Received> {
        std::mem::take(&mut self.shared.taken.lock().unwrap())
    }

    /// Most requests that were under way at once.
    pub(crate) fn running_max(&self) -> usize {
        self.shared.running_max.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let running = shared.running.fetch_add(1, Ordering::SeqCst) + 1;
    shared.running_max.fetch_max(running, Ordering::SeqCst);
    let answer = answer(&shared, request).await;
    tokio::time::sleep(answer.wait).await;
    shared.running.fetch_sub(1, Ordering::SeqCst);
    let mut response = Response::builder().status(StatusCode::from_u16(answer.status).unwrap());
    for (name, value) in &answer.headers {
        response = response.header(*name, value);
    }
    response.body(Body::from(answer.body)).unwrap()
}

async fn answer(shared: &Shared, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 16 * 1024 * 1024).await.unwrap();
    let options = parts.method == "OPTIONS";
    let seen = Seen {
        method: parts.method.to_string(),
        path: parts.uri.to_string(),
        events: if options { Vec::new() } else { events(&parts.headers, &body) },
        headers: parts.headers,
    };
    let answer = match &*shared.script.lock().unwrap() {
        Some(script) => script(&seen),
        None => Answer::status(if options { 405 } else { 204 }),
    };
    if (200..300).contains(&answer.status) {
        shared.taken.lock().unwrap().extend(seen.events.clone());
    }
    shared.seen.lock().unwrap().push(seen);
    answer
}

/// The events of a request in any of the three modes.
fn events(headers: &HeaderMap, body: &Bytes) -> Vec<Received> {
    let text = |value: &axum::http::HeaderValue| value.to_str().unwrap().to_owned();
    let media_type = headers.get("content-type").map(text);
    match media_type.as_deref() {
        Some("application/cloudevents+json") => vec![Received::structured(body)],
        Some("application/cloudevents-batch+json") => {
            let events: Vec<Event> = serde_json::from_slice(body).unwrap();
            events.iter().map(Received::of).collect()
        }
        _ => {
            let mut attributes: BTreeMap<_, _> = headers
                .iter()
                .filter_map(|(name, value)| {
                    Some((name.as_str().strip_prefix("ce-")?.to_owned(), text(value)))
                })
                .map(|(name, value)| (name, percent_decode_str(&value).decode_utf8().unwrap().into_owned()))
                .collect();
            attributes.extend(media_type.map(|text| ("datacontenttype".to_owned(), text)));
            vec![Received { attributes, data: body.to_vec() }]
        }
    }
}
