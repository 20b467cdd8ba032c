//! `/api/v1/dead-letters`: what a target gave up on, and why.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{self, Query};
use serde::{Deserialize, Serialize};

use super::State;
use super::problem::Problem;
use super::records::{RecordView, rfc3339};

/// Dead letters in one page, unless asked otherwise.
const LIMIT: usize = 100;
/// Most dead letters in one page. Each one's record is read.
const LIMIT_MAX: usize = 500;

/// What may be asked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    rule: String,
    target: String,
    #[serde(default)]
    from: u64,
    limit: Option<usize>,
}

/// The answer.
#[derive(Serialize)]
pub(super) struct Page {
    rule: String,
    target: String,
    /// Dead letters the target has in all.
    count: u64,
    dead_letters: Vec<Letter>,
    /// What to ask with as `from` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
}

#[derive(Serialize)]
struct Letter {
    number: u64,
    /// When it was given up.
    time: String,
    attempts: u32,
    error: String,
    position: String,
    /// Its offset in the rule's queue.
    offset: u64,
    /// The message, as long as the log has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<RecordView>,
    /// Why the log does not have it any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    gone: Option<&'static str>,
}

/// Dead letters of one target by number.
pub(super) async fn list(
    extract::State(state): extract::State<State>,
    params: Result<Query<Params>, QueryRejection>,
) -> Result<Json<Page>, Problem> {
    let Query(params) = params?;
    let limit = params.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
    // Dead letters outlive the target that left them, so the names are not checked against the configuration.
    let owner = crate::router::target_owner(&params.rule, &params.target);
    let found = state.store.dead_letters(&owner, params.from, limit).await?;
    let next = found.last().filter(|_| found.len() == limit).map(|(number, _)| number + 1);
    let count = state.store.dead_letter_count(&owner).await?;
    if count == 0 && !known(&state, &params) {
        let error =
            format!("rule `{}` has no target `{}`, and no dead letters of one", params.rule, params.target);
        return Err(Problem::not_found(error).hint("/api/v1/rules lists rules and targets"));
    }
    let mut dead_letters = Vec::with_capacity(found.len());
    for (number, letter) in found {
        let fetched =
            state.store.fetch(vec![letter.pointer]).await.map(|mut records| records.pop().flatten());
        let gone = matches!(fetched, Ok(None)).then_some("deleted by retention");
        let record = fetched.ok().flatten();
        dead_letters.push(Letter {
            number,
            time: rfc3339(letter.time_ms),
            attempts: letter.attempts,
            error: letter.error,
            position: letter.pointer.position.to_string(),
            offset: letter.offset,
            record: record.as_ref().map(RecordView::new),
            gone,
        });
    }
    Ok(Json(Page { rule: params.rule, target: params.target, count, dead_letters, next }))
}

fn known(state: &State, params: &Params) -> bool {
    let view = state.view();
    view.set.rules.iter().any(|rule| {
        rule.name == params.rule && rule.targets.iter().any(|target| target.name == params.target)
    })
}
