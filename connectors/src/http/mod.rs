//! HTTP functions and webhooks, over reqwest.
//!
//! # Layout
//! - `config`  what a connection and a target may say
//! - `encode`  CloudEvents HTTP protocol binding 1.0.2
//! - `send`    a batch: lanes of one order key each, or documents of many events
//! - `request` one request and its answer
//! - `status`  what follows from an answer
//! - `probe`   whether anything answers

mod config;
mod encode;
mod probe;
mod request;
mod send;
mod status;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tidemill_rules::yaml::Node;
use tidemill_rules::{Diagnostic, Template};

use self::config::{ConnectionConfig, Mode, TargetConfig};
use self::request::Caller;
use crate::{BatchMax, Connection, Connector, OutEvent, SendError, Sink, Target};

/// Events of a batch for each request that may be under way at once: enough that a slow answer holds up few.
const BATCH_EVENTS_PER_REQUEST: usize = 16;
/// Most bytes of data of a batch.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most bytes of data of one document in batched mode, unless one event alone has more.
const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;

/// The kind `http`.
pub(crate) struct Http;

impl Connector for Http {
    fn kind(&self) -> &'static str {
        "http"
    }

    fn connection(&self, name: &str, body: &Node) -> Result<Arc<dyn Connection>, Vec<Diagnostic>> {
        let config = Arc::new(ConnectionConfig::check(name, body)?);
        Ok(Arc::new(HttpConnection { config, client: Arc::default() }))
    }
}

/// The client with its pool of sockets, made when the first sink of a connection opens and shared by all.
type SharedClient = Arc<Mutex<Option<reqwest::Client>>>;

struct HttpConnection {
    config: Arc<ConnectionConfig>,
    client: SharedClient,
}

impl Connection for HttpConnection {
    fn target(&self, body: &Node) -> Result<Arc<dyn Target>, Vec<Diagnostic>> {
        let (config, templates) = TargetConfig::check(&self.config, body)?;
        Ok(Arc::new(HttpTarget {
            connection: Arc::clone(&self.config),
            config: Arc::new(config),
            templates,
            client: Arc::clone(&self.client),
        }))
    }
}

struct HttpTarget {
    connection: Arc<ConnectionConfig>,
    config: Arc<TargetConfig>,
    templates: Vec<Template>,
    client: SharedClient,
}

/// Method and address, for people.
fn place(connection: &ConnectionConfig, target: &TargetConfig) -> String {
    let base =
        if target.path.is_empty() { &*connection.shown } else { connection.shown.trim_end_matches('/') };
    format!("{} {base}{}", target.method, target.path_shown)
}

impl Target for HttpTarget {
    fn describe(&self) -> String {
        format!("http {}", place(&self.connection, &self.config))
    }

    fn templates(&self) -> &[Template] {
        &self.templates
    }

    fn batch_max(&self) -> BatchMax {
        let events = match self.config.mode {
            Mode::Batched => self.config.batch_max,
            Mode::Binary | Mode::Structured => self.config.concurrency * BATCH_EVENTS_PER_REQUEST,
        };
        BatchMax { events, bytes: BATCH_BYTES_MAX }
    }

    fn open(&self) -> Result<Box<dyn Sink>, SendError> {
        let mut shared = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        let client = match shared.as_ref() {
            Some(client) => client.clone(),
            None => shared.insert(self.connection.client()?).clone(),
        };
        Ok(Box::new(HttpSink {
            caller: Caller::new(client, Arc::clone(&self.connection), Arc::clone(&self.config)),
        }))
    }
}

struct HttpSink {
    caller: Caller,
}

#[async_trait]
impl Sink for HttpSink {
    async fn send(&mut self, batch: &[OutEvent]) -> Vec<Result<(), SendError>> {
        send::send(&mut self.caller, batch).await
    }

    async fn probe(&mut self) -> Result<(), SendError> {
        probe::probe(&mut self.caller).await
    }
}
