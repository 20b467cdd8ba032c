//! The lines of an answer: read, encoded and sent a step at a time, only as fast as the client takes them.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{self, Query};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tidemill_store::{Position, Record, StoreError};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::params::Params;
use super::source::{Source, pass, written};
use super::view::RecordView;
use crate::api::State;
use crate::api::problem::Problem;

/// A chunk of lines is sent when it has this many bytes.
const CHUNK_BYTES: usize = 64 << 10;
/// How often it is looked whether there is more. Looking costs a comparison; a queue for each stream would make every
/// message that it matches dearer.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// A longer wait is as good as this one.
const WAIT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// The header that says where the answer begins.
const NEXT_HEADER: &str = "tidemill-next";

/// One answer while it is being sent. Dropped when the client goes.
struct Lines {
    state: State,
    source: Source,
    /// What was read and not yet sent.
    read: std::vec::IntoIter<Record>,
    /// Whether nothing was there after that.
    at_end: bool,
    /// Where to go on from after what was sent.
    next: Vec<Position>,
    /// Records still to be sent, if that was limited.
    left: Option<u64>,
    wait: Duration,
    _permit: OwnedSemaphorePermit,
}

/// Records as JSON lines.
pub(in crate::api) async fn stream(
    extract::State(state): extract::State<State>,
    params: Result<Query<Params>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(params) = params?;
    let wait = params.wait()?.min(WAIT_MAX);
    let permit = Arc::clone(&state.tails).try_acquire_owned().map_err(|_| {
        let error =
            format!("{} requests for records are running, and more are not allowed at once", state.tails_max);
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, error).hint("try again later, or raise http.tails_max")
    })?;
    let source = Source::find(&state.store, &params).await?;
    let next = source.next().to_vec();
    let begin = written(&next);
    let (read, left) = (Vec::new().into_iter(), params.limit);
    let mut lines = Lines { state, source, read, at_end: false, next, left, wait, _permit: permit };
    // The first step tells whether a record begins there, while the answer can still be another.
    lines.step().await.map_err(|error| match error {
        StoreError::NoRecord(_) => Problem::bad_request(error.to_string()),
        error => error.into(),
    })?;
    let headers = [(header::CONTENT_TYPE.as_str(), "application/x-ndjson".to_owned()), (NEXT_HEADER, begin)];
    let body = futures_util::stream::unfold(lines, |mut lines| async move {
        let chunk = lines.chunk().await?;
        Some((Ok::<_, StoreError>(chunk), lines))
    });
    Ok((headers, Body::from_stream(body)).into_response())
}

impl Lines {
    /// The next lines; `None` when the answer is complete.
    async fn chunk(&mut self) -> Option<Bytes> {
        let mut until = None;
        loop {
            if self.left == Some(0) {
                return None;
            }
            if self.state.stop.is_cancelled() {
                return self.broken_off("the hub is stopping");
            }
            let chunk = self.encode();
            if !chunk.is_empty() {
                return Some(chunk);
            }
            if self.at_end {
                // Only from here on nothing comes; before, much may have been read that the filter leaves out.
                let until = *until.get_or_insert_with(|| Instant::now() + self.wait);
                if Instant::now() >= until {
                    return None;
                }
                tokio::select! {
                    () = tokio::time::sleep_until(until.min(Instant::now() + LOOK_AGAIN)) => {}
                    () = self.state.stop.cancelled() => continue,
                }
            }
            if let Err(error) = self.step().await {
                return self.broken_off(&error.to_string());
            }
        }
    }

    async fn step(&mut self) -> Result<(), StoreError> {
        let batch = self.source.step(&self.state.store).await?;
        self.read = batch.records.into_iter();
        self.at_end = batch.at_end;
        Ok(())
    }

    /// Lines of what was read, as many as go into one chunk.
    fn encode(&mut self) -> Bytes {
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK_BYTES && self.left != Some(0) {
            let Some(record) = self.read.next() else {
                self.next = self.source.next().to_vec();
                break;
            };
            pass(&mut self.next, &record);
            let view = RecordView::new(&record).followed_by(written(&self.next));
            if serde_json::to_writer(&mut chunk, &view).is_ok() {
                chunk.push(b'\n');
                self.left = self.left.map(|left| left - 1);
            }
        }
        chunk.into()
    }

    /// The head of the answer has gone out, so why it ends early can only be its last line.
    fn broken_off(&mut self, error: &str) -> Option<Bytes> {
        self.left = Some(0);
        let line = serde_json::json!({ "error": error, "next": written(&self.next) });
        Some(Bytes::from(format!("{line}\n")))
    }
}
