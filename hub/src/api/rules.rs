//! `/api/v1/rules`: each rule with what it matched and how its targets are doing.

use axum::Json;
use axum::extract;
use serde::Serialize;
use tidemill_store::Store;

use super::State;
use super::records::rfc3339;
use crate::delivery::{State as TargetState, TargetHandle};
use crate::router::RouterSnapshot;

/// The answer.
#[derive(Serialize)]
pub(super) struct Rules {
    router: Router,
    rules: Vec<Rule>,
}

#[derive(Serialize)]
struct Router {
    #[serde(flatten)]
    snapshot: RouterSnapshot,
    /// Records that the router has still to look at.
    lag: u64,
}

#[derive(Serialize)]
struct Rule {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    filters: Vec<String>,
    /// Number of the rule's queue.
    queue: u64,
    /// Records matched since the rules were loaded.
    matched: u64,
    targets: Vec<Target>,
}

#[derive(Serialize)]
struct Target {
    name: String,
    /// Where it goes, for people.
    destination: String,
    state: TargetState,
    /// Since when.
    since: String,
    /// The last failure, which may be over.
    last_error: Option<String>,
    last_error_at: Option<String>,
    /// Events confirmed since the rules were loaded.
    delivered: u64,
    /// Events sent again since the rules were loaded, each time counted.
    retries: u64,
    /// Dead letters ever.
    dead_letters: u64,
    /// Lowest offset of the rule's queue not yet done.
    cursor: u64,
    /// End of the rule's queue.
    end: u64,
    /// Entries between the two.
    lag: u64,
    /// Age of the oldest record in flight that is not done, in milliseconds.
    oldest_age_ms: u64,
}

impl Target {
    fn new(target: &TargetHandle, store: &Store) -> Self {
        let now = target.snapshot(store);
        Target {
            name: target.name.clone(),
            destination: target.describe.clone(),
            state: now.state,
            since: rfc3339(now.since_ms),
            last_error: now.last_error,
            last_error_at: now.last_error_ms.map(rfc3339),
            delivered: now.delivered,
            retries: now.retries,
            dead_letters: now.dead_letters,
            cursor: now.cursor,
            end: now.end,
            lag: now.lag,
            oldest_age_ms: now.oldest_age_ms,
        }
    }
}

/// All rules. There are as many as somebody wrote into a file, so the answer is not paged.
pub(super) async fn list(extract::State(state): extract::State<State>) -> Json<Rules> {
    let view = state.view();
    let rules =
        view.set.rules.iter().zip(&view.queues.rules).enumerate().map(|(index, (rule, queue))| Rule {
            name: rule.name.clone(),
            description: rule.description.clone(),
            filters: rule.filters.clone(),
            queue: queue.id.0,
            matched: view.router.matched(index),
            targets: view.targets_of(index).map(|target| Target::new(target, &state.store)).collect(),
        });
    let router = Router { snapshot: view.router.snapshot(), lag: view.router_lag(&state.store) };
    Json(Rules { router, rules: rules.collect() })
}
