//! `/healthz`: the process lives. `/readyz`: it can do its work, or why it cannot.

use axum::extract;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::State;
use super::problem::Problem;

/// Answers as long as the process can answer anything.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// The API listens last, so listeners are open when this can be asked.
pub(super) async fn ready(extract::State(state): extract::State<State>) -> Response {
    match reason(&state) {
        None => "ready\n".into_response(),
        Some(reason) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
    }
}

/// Why the hub is not ready. Rules that stand still and go on by themselves are no reason: devices can publish all the
/// same, and nothing is lost.
pub(super) fn reason(state: &State) -> Option<String> {
    let told = state.unready.lock().clone();
    told.or_else(|| state.store.fault().map(|fault| fault.to_string()))
}
