//! One request and its answer.

use std::sync::Arc;

use http::{HeaderMap, Method};
use reqwest::{Client, Response, Url};

use super::config::{ConnectionConfig, TargetConfig};
use super::encode::{self, Encoded};
use super::status;
use crate::text::{SHOWN_BYTES_MAX, chain};
use crate::{Follow, OutEvent, SendError};

/// Bytes of an answer read so that its socket can be used again; a longer answer costs the socket.
const DRAIN_BYTES_MAX: usize = 64 * 1024;

/// Sends requests for one target.
pub(super) struct Caller {
    client: Client,
    connection: Arc<ConnectionConfig>,
    pub(super) config: Arc<TargetConfig>,
    /// The URL and the configured headers, secrets and all; looked up again after a refusal.
    prepared: Option<Arc<Prepared>>,
}

pub(super) struct Prepared {
    url: Url,
    headers: HeaderMap,
}

/// A failed request.
pub(super) struct Refusal {
    pub(super) error: SendError,
    pub(super) cause: Cause,
}

/// Where a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// No connection came about.
    Connect,
    /// The time was up.
    Timeout,
    /// The connection was lost.
    Lost,
    /// The answer says so; 413 and the other 4xx concern what was in the document.
    Answer,
    /// Nothing was sent: the event makes no request.
    Event,
}

impl Caller {
    pub(super) fn new(client: Client, connection: Arc<ConnectionConfig>, config: Arc<TargetConfig>) -> Self {
        Self { client, connection, config, prepared: None }
    }

    /// The URL and headers, looked up when needed.
    pub(super) fn prepared(&mut self) -> Result<Arc<Prepared>, SendError> {
        if let Some(prepared) = &self.prepared {
            return Ok(Arc::clone(prepared));
        }
        let prepared =
            Arc::new(Prepared { url: self.connection.url()?, headers: self.connection.headers()? });
        self.prepared = Some(Arc::clone(&prepared));
        Ok(prepared)
    }

    /// Forgets looked-up secrets: the destination refused them, and a new one may be there by the next attempt.
    pub(super) fn forget_secrets(&mut self) {
        self.prepared = None;
    }

    /// The URL of an event.
    pub(super) fn url(&self, prepared: &Prepared, event: &OutEvent) -> Result<Url, Refusal> {
        encode::url(&prepared.url, &self.config.path, event)
            .map_err(|error| Refusal { error, cause: Cause::Event })
    }

    /// Sends a request; `Ok` is an answer 2xx.
    pub(super) async fn call(&self, prepared: &Prepared, url: Url, encoded: Encoded) -> Result<(), Refusal> {
        let mut headers = encoded.headers;
        headers.extend(prepared.headers.clone());
        let request = self
            .client
            .request(self.config.method.clone(), url)
            .headers(headers)
            .body(encoded.body)
            .timeout(self.config.timeout);
        let response = request.send().await.map_err(|error| self.failed(error))?;
        let code = response.status();
        let answer_headers = response.headers().clone();
        let body = read(response).await;
        if code.is_success() {
            return Ok(());
        }
        let follow = status::follow(code, self.config.mode, self.config.address_varies());
        let error = status::error(&self.place(), code, follow, &answer_headers, &body);
        Err(Refusal { error, cause: Cause::Answer })
    }

    /// Asks with `OPTIONS`, which changes nothing, at the connection's URL. Any answer will do that does not say the
    /// server fails or refuses this client.
    pub(super) async fn ask(&self, prepared: &Prepared) -> Result<(), SendError> {
        let request =
            self.client.request(Method::OPTIONS, prepared.url.clone()).headers(prepared.headers.clone());
        let response =
            request.timeout(self.config.timeout).send().await.map_err(|error| self.failed(error).error)?;
        let code = response.status();
        let follow = match code.as_u16() {
            // A server that does not know the method is there all the same.
            501 => return Ok(()),
            401 | 403 | 407 => Follow::Stop,
            500..=599 => Follow::Retry,
            _ => return Ok(()),
        };
        let headers = response.headers().clone();
        Err(status::error(&self.place(), code, follow, &headers, &read(response).await))
    }

    fn place(&self) -> String {
        format!("connection `{}`: {}", self.connection.name, super::place(&self.connection, &self.config))
    }

    fn failed(&self, error: reqwest::Error) -> Refusal {
        // The URL may hold secrets.
        let error = error.without_url();
        let why = match error.is_timeout() {
            true => format!("no answer within {:?}", self.config.timeout),
            false => chain(&error),
        };
        let cause = match (error.is_connect(), error.is_timeout()) {
            (true, _) => Cause::Connect,
            (false, true) => Cause::Timeout,
            (false, false) => Cause::Lost,
        };
        Refusal { error: SendError::retry(format!("{}: {why}", self.place())), cause }
    }
}

/// The beginning of an answer's body. The rest is read and thrown away, within bounds.
async fn read(mut response: Response) -> String {
    let mut text = Vec::new();
    let mut total = 0;
    while total < DRAIN_BYTES_MAX {
        // An answer that breaks off has still said its status.
        let Ok(Some(chunk)) = response.chunk().await else { break };
        total += chunk.len();
        let room = SHOWN_BYTES_MAX.saturating_sub(text.len());
        text.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
    }
    String::from_utf8_lossy(&text).into_owned()
}
