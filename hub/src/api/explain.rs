//! `/api/v1/explain?position=…`: what became of one record, rule by rule and target by target: "why did this
//! message not reach Kafka?"

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{self, Query};
use serde::{Deserialize, Serialize};
use tidemill_rules::{Context, Rule};
use tidemill_store::{DeadLetter, Position, QueueInfo, ReadRequest, Record, Store, StoreError};

use super::State;
use super::problem::Problem;
use super::records::{RecordView, matches};
use crate::delivery::{State as TargetState, TargetHandle};
use crate::flow::View;
use crate::identity::EventIds;
use crate::message;

/// Dead letters looked through in one step, and in all for one target.
const LETTERS_PAGE: usize = 1000;
const LETTERS_MAX: usize = 100_000;

/// What may be asked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    position: String,
}

/// The answer.
#[derive(Serialize)]
pub(super) struct Explanation {
    record: RecordView,
    /// The CloudEvents `id` under which it leaves the hub.
    event_id: String,
    rules: Vec<RuleVerdict>,
}

#[derive(Serialize)]
struct RuleVerdict {
    rule: String,
    /// `matched`, `waiting`, `filter`, `pattern`, `not json`, `later`.
    verdict: &'static str,
    reason: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    targets: Vec<TargetVerdict>,
}

#[derive(Serialize)]
struct TargetVerdict {
    target: String,
    destination: String,
    /// `delivered`, `waiting`, `dead letter`.
    verdict: &'static str,
    reason: String,
}

/// Follows one record.
pub(super) async fn explain(
    extract::State(state): extract::State<State>,
    params: Result<Query<Params>, QueryRejection>,
) -> Result<Json<Explanation>, Problem> {
    let Query(params) = params?;
    let position: Position = params.position.parse().map_err(Problem::bad_request)?;
    let (store, view) = (&state.store, state.view());
    let (union_offset, record) = locate(store, &view.queues.union, position).await?.ok_or_else(|| {
        Problem::not_found(format!("no rule reads a record at position {position}"))
            .hint("positions are those that `tidemill tail` prints; topics outside every rule's `from` are not indexed")
    })?;
    let routed = union_offset < view.router.snapshot().cursor;
    let now = now(&view, &record, &EventIds::of(store).id(position));
    let mut rules = Vec::with_capacity(view.set.rules.len());
    for (index, rule) in view.set.rules.iter().enumerate() {
        let entry = match view.queues.rules.get(index) {
            Some(queue) => locate(store, queue, position).await?.map(|(offset, _)| offset),
            None => None,
        };
        let mut targets = Vec::new();
        if let Some(offset) = entry {
            for target in view.targets_of(index) {
                targets.push(follow(store, target, offset, position).await?);
            }
        }
        let (verdict, reason) =
            verdict(rule, &record, entry, routed, now.matched.contains(&index), now.not_json);
        rules.push(RuleVerdict { rule: rule.name.clone(), verdict, reason, targets });
    }
    let event_id = EventIds::of(store).id(position);
    Ok(Json(Explanation { record: RecordView::new(&record), event_id, rules }))
}

/// What the rules of this moment say of the record.
#[derive(Default)]
struct Now {
    matched: Vec<usize>,
    not_json: bool,
}

fn now(view: &View, record: &Record, id: &str) -> Now {
    let mut now = Now::default();
    if let Ok(seen) = message::view(record) {
        let message = seen.message(id);
        now.not_json = view.set.matches(&mut Context::new(&message), &mut now.matched).not_json;
    }
    now
}

fn verdict(
    rule: &Rule,
    record: &Record,
    entry: Option<u64>,
    routed: bool,
    matches_now: bool,
    not_json: bool,
) -> (&'static str, String) {
    if let Some(offset) = entry {
        return ("matched", format!("it is entry {offset} of the rule's queue"));
    }
    if !rule.filters.iter().any(|filter| matches(filter, &record.topic)) {
        return (
            "filter",
            format!("topic `{}` matches none of `{}`", record.topic, rule.filters.join("`, `")),
        );
    }
    match (routed, matches_now) {
        (false, _) => ("waiting", "the router has not come to it yet".to_owned()),
        (true, true) => {
            ("later", "it matches now; when it was routed the rule was not there or was another".to_owned())
        }
        (true, false) if not_json => {
            ("not json", "the rule looks into `data`, and the payload is not JSON".to_owned())
        }
        (true, false) => ("pattern", "it does not meet the rule's `where`".to_owned()),
    }
}

async fn follow(
    store: &Store,
    target: &TargetHandle,
    offset: u64,
    position: Position,
) -> Result<TargetVerdict, StoreError> {
    let now = target.snapshot(store);
    let (verdict, reason) = if offset >= now.cursor {
        let before = offset - now.cursor;
        let because = match (now.state, now.last_error) {
            (TargetState::Running, _) | (_, None) => String::new(),
            (TargetState::Retrying, Some(error)) => format!("; the target is being retried: {error}"),
            (TargetState::Stopped, Some(error)) => format!("; the target is stopped: {error}"),
        };
        ("waiting", format!("{before} entries are before it{because}"))
    } else if let Some(letter) = dead_letter(store, &target.owner, position).await? {
        ("dead letter", format!("given up after {} attempts: {}", letter.attempts, letter.error))
    } else {
        (
            "delivered",
            "the destination confirmed it, or it was stored before the target was configured".to_owned(),
        )
    };
    Ok(TargetVerdict { target: target.name.clone(), destination: target.describe.clone(), verdict, reason })
}

/// The dead letter of a record, among the first [`LETTERS_MAX`] of an owner.
async fn dead_letter(
    store: &Store,
    owner: &str,
    position: Position,
) -> Result<Option<DeadLetter>, StoreError> {
    let (mut from, mut seen) = (0, 0);
    while seen < LETTERS_MAX {
        let page = store.dead_letters(owner, from, LETTERS_PAGE).await?;
        let Some((last, _)) = page.last() else { break };
        from = last + 1;
        seen += page.len();
        let found =
            page.into_iter().map(|(_, letter)| letter).find(|letter| letter.pointer.position == position);
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Finds a record's entry in a queue: positions grow with offsets, so a few reads find it among any number.
async fn locate(
    store: &Store,
    queue: &QueueInfo,
    position: Position,
) -> Result<Option<(u64, Record)>, StoreError> {
    let QueueInfo { id, first, end, .. } = store.queue(queue.id)?;
    let (mut low, mut high) = (first, end);
    while low < high {
        let middle = low + (high - low) / 2;
        let request = ReadRequest { queue: id, from: middle, records_max: 1, bytes_max: 1, durable: true };
        let read = store.read(request).await?;
        match read.records.into_iter().next() {
            Some((offset, record)) if record.position == position => return Ok(Some((offset, record))),
            Some((offset, record)) if record.position < position => low = offset + 1,
            _ => high = middle,
        }
    }
    Ok(None)
}
