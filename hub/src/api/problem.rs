//! [`Problem`]: an error as the API answers it: JSON problem details (RFC 9457) with a hint.

use std::error::Error;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tidemill_store::StoreError;

/// What went wrong with a request.
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    #[serde(serialize_with = "as_number")]
    status: StatusCode,
    /// The status in words (RFC 9457, section 3.1.3).
    title: &'static str,
    /// The thing, the value, and what is wrong with it.
    error: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

fn as_number<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl Problem {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Problem {
            status,
            title: status.canonical_reason().unwrap_or("Error"),
            error: error.into(),
            hint: None,
        }
    }

    pub(super) fn bad_request(error: impl Into<String>) -> Self {
        Problem::new(StatusCode::BAD_REQUEST, error)
    }

    pub(super) fn not_found(error: impl Into<String>) -> Self {
        Problem::new(StatusCode::NOT_FOUND, error)
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).unwrap_or_default();
        (self.status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let status = match &error {
            StoreError::NoQueue(_) => StatusCode::NOT_FOUND,
            StoreError::Gone(_) => StatusCode::GONE,
            StoreError::BadFilter { .. } => StatusCode::BAD_REQUEST,
            StoreError::Closed => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Problem::new(status, error.to_string())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Problem::bad_request(format!("query string: {}", innermost(&rejection)))
            .hint("parameters are written `?name=value&name=value`, with values percent-encoded")
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Problem::bad_request(format!("path: {}", innermost(&rejection)))
            .hint("queues are named by their numbers, clients by their identifiers, percent-encoded")
    }
}

/// What is behind an error: the framework says around it in which of its steps it arose.
fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a dyn Error {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error
}
