//! `/api/v1/rules`: each rule with what it matched and how its targets are doing.

use axum::Json;
use axum::extract;
use serde::Serialize;

use super::State;
use crate::delivery::TargetSnapshot;
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
    #[serde(flatten)]
    snapshot: TargetSnapshot,
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
            targets: view
                .targets_of(index)
                .map(|target| Target {
                    name: target.name.clone(),
                    destination: target.describe.clone(),
                    snapshot: target.snapshot(&state.store),
                })
                .collect(),
        });
    let router = Router { snapshot: view.router.snapshot(), lag: view.router_lag(&state.store) };
    Json(Rules { router, rules: rules.collect() })
}
