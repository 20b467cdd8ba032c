//! The lines of an answer: read, encoded and sent a batch at a time, only as fast as the client takes them.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{self, Query};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tidemill_store::{ReadBatch, ReadRequest, StoreError, Watcher};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::filter;
use super::params::Params;
use super::source::Source;
use super::view::RecordView;
use crate::api::State;
use crate::api::problem::Problem;

/// Records and bytes read in one step.
const STEP_RECORDS: usize = 256;
const STEP_BYTES: usize = 256 << 10;

/// One answer while it is being sent. Dropped when the client goes.
struct Lines {
    state: State,
    source: Source,
    next: u64,
    /// Records still to be sent, if that was limited.
    left: Option<u64>,
    wait: Duration,
    watcher: Watcher,
    _permit: OwnedSemaphorePermit,
}

/// Records as JSON lines.
pub(in crate::api) async fn stream(
    extract::State(state): extract::State<State>,
    params: Result<Query<Params>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(params) = params?;
    let wait = params.wait()?;
    let permit = std::sync::Arc::clone(&state.tails).try_acquire_owned().map_err(|_| {
        let error =
            format!("{} requests for records are running, and more are not allowed at once", state.tails_max);
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, error).hint("try again later, or raise http.tails_max")
    })?;
    let source = Source::find(&state.store, &params).await?;
    let headers = [
        (header::CONTENT_TYPE.as_str(), "application/x-ndjson".to_owned()),
        ("tidemill-queue", source.queue.id.0.to_string()),
        ("tidemill-offset", source.start.to_string()),
    ];
    let next = source.start;
    let lines =
        Lines { state, source, next, left: params.limit, wait, watcher: Watcher::new(), _permit: permit };
    let body = futures_util::stream::unfold(lines, |mut lines| async move {
        let chunk = lines.chunk().await?;
        Some((Ok::<_, StoreError>(chunk), lines))
    });
    Ok((headers, Body::from_stream(body)).into_response())
}

impl Lines {
    /// The next lines; `None` when the answer is complete.
    async fn chunk(&mut self) -> Option<Bytes> {
        let mut until = Instant::now() + self.wait;
        loop {
            if self.left == Some(0) || self.state.stop.is_cancelled() {
                return None;
            }
            let read = match self.read().await {
                Ok(read) => read,
                Err(error) => return self.failed(&error),
            };
            if read.records.is_empty() {
                if !self.more(until).await {
                    return None;
                }
                continue;
            }
            self.next = read.next;
            let chunk = self.encode(&read);
            if !chunk.is_empty() {
                return Some(chunk);
            }
            // Records came, only none that was asked for.
            until = Instant::now() + self.wait;
        }
    }

    async fn read(&self) -> Result<ReadBatch, StoreError> {
        let request = ReadRequest {
            queue: self.source.queue.id,
            from: self.next,
            records_max: STEP_RECORDS,
            bytes_max: STEP_BYTES,
            durable: true,
        };
        self.state.store.read(request).await
    }

    fn encode(&mut self, read: &ReadBatch) -> Bytes {
        let mut chunk = Vec::new();
        for (offset, record) in &read.records {
            if self.left == Some(0) {
                break;
            }
            if self.source.filter.as_ref().is_some_and(|filter| !filter::matches(filter, &record.topic)) {
                continue;
            }
            let view = RecordView::new(record).at(self.source.queue.id, *offset);
            if serde_json::to_writer(&mut chunk, &view).is_ok() {
                chunk.push(b'\n');
                self.left = self.left.map(|left| left - 1);
            }
        }
        chunk.into()
    }

    /// Waits for the queue to grow; whether it did.
    async fn more(&self, until: Instant) -> bool {
        let queue = self.source.queue.id;
        if self.wait.is_zero() || self.state.store.watch(queue, self.next, true, &self.watcher, 0).is_err() {
            return false;
        }
        tokio::select! {
            _ = self.watcher.ready() => true,
            () = tokio::time::sleep_until(until) => false,
            () = self.state.stop.cancelled() => false,
        }
    }

    /// The head of the answer has gone out, so an error can only be its last line.
    fn failed(&mut self, error: &StoreError) -> Option<Bytes> {
        self.left = Some(0);
        let line = serde_json::json!({ "error": error.to_string(), "offset": self.next });
        Some(Bytes::from(format!("{line}\n")))
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.state.store.unwatch(self.source.queue.id, &self.watcher);
    }
}
