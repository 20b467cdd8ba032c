//! `/api/v1/explain?position=…`: what became of one record, rule by rule and target by target: "why did this
//! message not reach Kafka?" Any record of the log can be asked about, also one that no rule has ever read.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{self, Query};
use serde::{Deserialize, Serialize};
use tidemill_rules::{Context, Rule};
use tidemill_store::{DeadLetter, Position, QueueInfo, Record, Store, StoreError, filter};

use super::State;
use super::problem::Problem;
use super::records::{RecordView, first_entry};
use crate::delivery::{State as TargetState, TargetHandle};
use crate::flow::View;
use crate::identity::EventIds;
use crate::message;

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
    /// `matched`, `waiting`, `filter`, `pattern`, `not json`, `unreadable`, `earlier`, `later`.
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
    let record = store.record_at(position).await?.ok_or_else(|| {
        Problem::not_found(format!("no record begins at position {position}"))
            .hint("positions are those that `tidemill tail` prints")
    })?;
    let seen = seen(store, &view, &record).await?;
    let now = now(&view, &record, &EventIds::of(store).id(position));
    let mut rules = Vec::with_capacity(view.set.rules.len());
    for (index, rule) in view.set.rules.iter().enumerate() {
        let entry = match view.queues.rules.get(index) {
            Some(queue) => locate(store, queue, &record).await?,
            None => None,
        };
        let mut targets = Vec::new();
        if let Some(offset) = entry {
            for target in view.targets_of(index) {
                targets.push(follow(store, target, offset, position).await?);
            }
        }
        let (verdict, reason) = verdict(rule, &record, entry, seen, now.of(index));
        rules.push(RuleVerdict { rule: rule.name.clone(), verdict, reason, targets });
    }
    let event_id = EventIds::of(store).id(position);
    Ok(Json(Explanation { record: RecordView::new(&record), event_id, rules }))
}

/// How far the router is with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// It has looked at it.
    Routed,
    /// It has not come to it yet.
    NotYet,
    /// It never will: when it was stored, no rule read its topic.
    Never,
}

async fn seen(store: &Store, view: &View, record: &Record) -> Result<Seen, StoreError> {
    // What is durable is in every queue it will ever be in. So the end is asked for first.
    let durable = store.is_durable(record.position);
    Ok(match locate(store, &view.queues.union, record).await? {
        Some(offset) if offset < view.router.snapshot().cursor => Seen::Routed,
        None if durable => Seen::Never,
        Some(_) | None => Seen::NotYet,
    })
}

/// What the rules of this moment say of the record.
#[derive(Default)]
struct Now {
    matched: Vec<usize>,
    not_json: bool,
    unreadable: Option<String>,
}

/// What one rule says of it now.
enum Match {
    Yes,
    /// Its `where` is not met.
    No,
    /// The payload is not JSON, and some rule looks into it.
    NotJson,
    /// What the publisher said beside the payload cannot be read, and why.
    Unreadable(String),
}

impl Now {
    fn of(&self, rule: usize) -> Match {
        match &self.unreadable {
            Some(error) => Match::Unreadable(error.clone()),
            None if self.matched.contains(&rule) => Match::Yes,
            None if self.not_json => Match::NotJson,
            None => Match::No,
        }
    }
}

fn now(view: &View, record: &Record, id: &str) -> Now {
    let mut now = Now::default();
    match message::view(record) {
        Ok(seen) => {
            let message = seen.message(id);
            now.not_json = view.set.matches(&mut Context::new(&message), &mut now.matched).not_json;
        }
        Err(error) => now.unreadable = Some(error.to_string()),
    }
    now
}

fn verdict(
    rule: &Rule,
    record: &Record,
    entry: Option<u64>,
    seen: Seen,
    now: Match,
) -> (&'static str, String) {
    if let Some(offset) = entry {
        return ("matched", format!("it is entry {offset} of the rule's queue"));
    }
    if !rule.filters.iter().any(|wanted| filter::matches(wanted, &record.topic)) {
        return (
            "filter",
            format!("topic `{}` matches none of `{}`", record.topic, rule.filters.join("`, `")),
        );
    }
    let (verdict, reason) = match (seen, now) {
        (Seen::NotYet, _) => ("waiting", "the router has not come to it yet"),
        (Seen::Never, Match::Yes) => ("earlier", "it matches, but was stored before the rule was loaded"),
        (Seen::Routed, Match::Yes) => {
            ("later", "it matches now; when it was routed the rule was not there or was another")
        }
        (_, Match::NotJson) => ("not json", "the rule looks into `data`, and the payload is not JSON"),
        (_, Match::No) => ("pattern", "it does not meet the rule's `where`"),
        (_, Match::Unreadable(error)) => {
            return ("unreadable", format!("its properties cannot be read, so no rule matches: {error}"));
        }
    };
    (verdict, reason.to_owned())
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
        let place = match before {
            0 => "it is next".to_owned(),
            1 => "1 entry is before it".to_owned(),
            _ => format!("{before} entries are before it"),
        };
        ("waiting", format!("{place}{because}"))
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

/// The dead letter of a record, if an owner gave it up.
async fn dead_letter(
    store: &Store,
    owner: &str,
    position: Position,
) -> Result<Option<DeadLetter>, StoreError> {
    let page = store.dead_letters(owner, position.to_u64(), 1).await?;
    Ok(page.into_iter().map(|(_, letter)| letter).find(|letter| letter.pointer.position == position))
}

/// The offset of a record's entry in a queue, if it has one there.
async fn locate(store: &Store, queue: &QueueInfo, record: &Record) -> Result<Option<u64>, StoreError> {
    let wanted = record.sequence;
    let (offset, found) = first_entry(store, queue.id, |entry| entry.sequence >= wanted).await?;
    Ok((found == Some(wanted)).then_some(offset))
}
