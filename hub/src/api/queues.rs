//! `/api/v1/queues`: queues with their readers and how far behind each one is.

use std::collections::HashMap;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{self, Path, Query};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use tidemill_store::{CursorKey, QueueId, QueueInfo, QueueKind, StoreError};
use tracing::warn;

use super::State;
use super::problem::Problem;
use crate::router::{self, OWNER, RULE_PREFIX};

/// Queues in one page, unless asked otherwise.
const LIMIT: usize = 100;
/// Most queues in one page.
const LIMIT_MAX: usize = 1000;
/// Cursors read from the store in one step.
const CURSORS_PAGE: usize = 1000;
/// Most cursors looked at for one answer; past them `readers_complete` is false.
const CURSORS_MAX: usize = 100_000;

/// What may be asked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    after: Option<u64>,
    limit: Option<usize>,
}

/// The answer.
#[derive(Serialize)]
pub(super) struct Page {
    queues: Vec<Queue>,
    /// False when there are so many cursors that not all were looked at.
    readers_complete: bool,
    /// What to ask with as `after` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
}

#[derive(Serialize)]
struct Queue {
    id: u64,
    kind: &'static str,
    name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    filters: Vec<String>,
    first: u64,
    end: u64,
    readers: Vec<Reader>,
}

#[derive(Clone, Serialize)]
struct Reader {
    owner: String,
    cursor: u64,
    lag: u64,
}

/// A page of queues by number.
pub(super) async fn list(
    extract::State(state): extract::State<State>,
    params: Result<Query<Params>, QueryRejection>,
) -> Result<Json<Page>, Problem> {
    let Query(params) = params?;
    let limit = params.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
    let found = state.store.queues(params.after.map(QueueId), limit).await?;
    let next = found.last().filter(|_| found.len() == limit).map(|queue| queue.id.0);
    let (mut readers, readers_complete) = readers(&state, &found).await?;
    let queues = found
        .into_iter()
        .map(|queue| {
            let (kind, filters) = match queue.kind {
                QueueKind::Filter => ("filter", Vec::new()),
                QueueKind::Union(filters) => ("union", filters),
                QueueKind::Derived => ("derived", Vec::new()),
            };
            let readers = readers.remove(&queue.id).unwrap_or_default();
            Queue {
                id: queue.id.0,
                kind,
                name: queue.name,
                filters,
                first: queue.first,
                end: queue.end,
                readers,
            }
        })
        .collect();
    Ok(Json(Page { queues, readers_complete, next }))
}

/// The cursors in these queues.
async fn readers(
    state: &State,
    queues: &[QueueInfo],
) -> Result<(HashMap<QueueId, Vec<Reader>>, bool), StoreError> {
    let ends: HashMap<QueueId, u64> = queues.iter().map(|queue| (queue.id, queue.end)).collect();
    let mut readers: HashMap<QueueId, Vec<Reader>> = HashMap::new();
    let mut add = |key: CursorKey, cursor: u64| {
        if let Some(end) = ends.get(&key.queue) {
            let reader = Reader { owner: key.owner, cursor, lag: end.saturating_sub(cursor) };
            readers.entry(key.queue).or_default().push(reader);
        }
    };
    // Those at work know better than the last checkpoint.
    let running = running(state);
    for (key, cursor) in &running {
        add(key.clone(), *cursor);
    }
    let (mut after, mut seen) = (None, 0);
    while seen < CURSORS_MAX {
        let page = state.store.cursors("", after, CURSORS_PAGE).await?;
        let Some((last, _)) = page.last() else { return Ok((readers, true)) };
        after = Some(last.clone());
        seen += page.len();
        for (key, place) in page {
            if !running.contains_key(&key) {
                add(key, place.offset);
            }
        }
    }
    Ok((readers, false))
}

/// The cursors of the router and of all targets, as they stand in memory.
fn running(state: &State) -> HashMap<CursorKey, u64> {
    let view = state.view();
    let router = CursorKey { owner: OWNER.to_owned(), queue: view.queues.union.id };
    let targets = view.targets.iter().map(|target| {
        (CursorKey { owner: target.owner.clone(), queue: target.queue }, target.status.cursor())
    });
    targets.chain([(router, view.router.snapshot().cursor)]).collect()
}

/// Deletes the queue of a rule that is no longer configured, with what was not delivered from it.
pub(super) async fn drop_orphan(
    extract::State(state): extract::State<State>,
    id: Result<Path<u64>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let Path(id) = id?;
    let queue = state.store.queue(QueueId(id)).await?;
    let rule = orphan(&state, &queue)?;
    let entries = queue.end.saturating_sub(queue.first);
    router::delete(&state.store, queue.id, rule).await?;
    warn!(
        rule,
        entries, "deleted the queue of a removed rule on request, with what was not delivered from it"
    );
    Ok(StatusCode::NO_CONTENT)
}

/// The rule whose queue it is, if it is one's that nobody needs any more.
fn orphan<'a>(state: &State, queue: &'a QueueInfo) -> Result<&'a str, Problem> {
    let refused = |error: String| Problem::new(StatusCode::CONFLICT, error);
    let rule = queue.name.strip_prefix(RULE_PREFIX).filter(|_| queue.kind == QueueKind::Derived).ok_or_else(
        || {
            refused(format!("queue {} (`{}`) is not the queue of a rule", queue.id.0, queue.name))
                .hint("filter queues go by themselves when nobody subscribes any more")
        },
    )?;
    if state.view().set.rules.iter().any(|known| known.name == rule) {
        return Err(refused(format!("queue {} is the queue of rule `{rule}`, which is at work", queue.id.0))
            .hint("take the rule out of the configuration first"));
    }
    Ok(rule)
}
