//! The queues a rule set needs, and what becomes of those it no longer needs.
//!
//! A rule or target that leaves the configuration gets nothing new from then on, so its queue does not grow.
//! What it had not delivered yet is somebody's data, and a file forgotten on the command line must not cost it:
//! - nothing undelivered: the queue (or the target's cursor) is deleted, and a log line says so;
//! - something undelivered: it is kept, a warning names it and its lag, and it goes on where it stopped when the
//!   rule or target comes back. `DELETE /api/v1/queues/{id}` drops it for good.
//!
//! A renamed rule is a removed one and a new one.

use std::collections::HashSet;

use tidemill_rules::RuleSet;
use tidemill_store::{CursorKey, CursorPlace, QueueId, QueueInfo, Store, StoreError};
use tracing::{info, warn};

/// Owner of the router's cursor.
pub const OWNER: &str = "router";
/// Name of the union queue that the router tails.
pub const UNION: &str = "router";
/// What the names of rule queues begin with.
pub const RULE_PREFIX: &str = "rule/";
/// Queues and cursors looked at in one step.
const PAGE: usize = 256;

/// Owner of the cursor, and of the dead letters, of one target of a rule.
#[must_use]
pub fn target_owner(rule: &str, target: &str) -> String {
    format!("target/{rule}/{target}")
}

/// The queues of a rule set.
#[derive(Clone, Debug)]
pub struct RuleQueues {
    /// Everything any rule may want.
    pub union: QueueInfo,
    /// One for each rule, in the set's order.
    pub rules: Vec<QueueInfo>,
}

/// Filters of all rules of these sets.
fn filters<'a>(sets: impl Iterator<Item = &'a RuleSet>) -> Vec<String> {
    let rules = sets.flat_map(|set| &set.rules);
    let mut filters: Vec<String> = rules.flat_map(|rule| rule.filters.iter().cloned()).collect();
    filters.sort_unstable();
    filters.dedup();
    filters
}

/// Finds or makes the queues of a rule set. A new rule's queue is filled from here on. What the rules `before` want goes on entering the
/// union, in case they are at work again soon; [`narrow`] ends that.
pub async fn open(store: &Store, set: &RuleSet, before: Option<&RuleSet>) -> Result<RuleQueues, StoreError> {
    let union = store.open_union(UNION, &filters(before.into_iter().chain([set]))).await?;
    let mut rules = Vec::with_capacity(set.rules.len());
    for rule in &set.rules {
        rules.push(store.open_derived(&format!("{RULE_PREFIX}{}", rule.name)).await?);
    }
    // After a crash the router goes on from a durable place: never from one before these rules, whose records other
    // rules have judged.
    store.checkpoint().await?;
    Ok(RuleQueues { union, rules })
}

/// Leaves out of the union what no rule of a set wants. It may fail: more in the union costs time only.
pub async fn narrow(store: &Store, set: &RuleSet) {
    if let Err(error) = store.open_union(UNION, &filters([set].into_iter())).await {
        warn!(%error, "the router goes on reading what the rules from before wanted");
    }
}

/// Deletes the queues of removed rules and the cursors of removed targets that have nothing left to deliver, and
/// warns about those that have.
pub async fn retire(store: &Store, set: &RuleSet) -> Result<(), StoreError> {
    let kept: HashSet<&str> = set.rules.iter().map(|rule| rule.name.as_str()).collect();
    let mut after: Option<String> = None;
    loop {
        let page = store.derived_queues(RULE_PREFIX, after.as_deref(), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.name.clone());
        for queue in &page {
            let rule = queue.name.strip_prefix(RULE_PREFIX).unwrap_or_default();
            if !kept.contains(rule) {
                retire_rule(store, queue, rule).await?;
            }
        }
    }
    for rule in &set.rules {
        let targets: HashSet<&str> = rule.targets.iter().map(|target| target.name.as_str()).collect();
        for (key, place, name) in target_cursors(store, &rule.name).await? {
            if !targets.contains(name.as_str()) {
                retire_target(store, &rule.name, &name, &key, place).await?;
            }
        }
    }
    Ok(())
}

/// Deletes the queue of a rule and the cursors of its targets.
pub async fn delete(store: &Store, queue: QueueId, rule: &str) -> Result<(), StoreError> {
    for (key, _, _) in target_cursors(store, rule).await? {
        store.delete_cursor(&key).await?;
    }
    store.delete_queue(queue).await
}

async fn retire_rule(store: &Store, queue: &QueueInfo, rule: &str) -> Result<(), StoreError> {
    let mut lag = 0;
    for (_, place, target) in target_cursors(store, rule).await? {
        let behind = queue.end.saturating_sub(place.offset);
        if behind > 0 {
            warn!(
                rule,
                target,
                lag = behind,
                queue = queue.id.0,
                "the rule is no longer configured, and its target has not received everything; the queue is kept \
                 until the rule is back or DELETE /api/v1/queues/{} drops it",
                queue.id.0
            );
        }
        lag = lag.max(behind);
    }
    if lag == 0 {
        delete(store, queue.id, rule).await?;
        info!(
            rule,
            entries = queue.end - queue.first,
            "deleted the queue of a rule that is no longer configured"
        );
    }
    Ok(())
}

async fn retire_target(
    store: &Store,
    rule: &str,
    target: &str,
    key: &CursorKey,
    place: CursorPlace,
) -> Result<(), StoreError> {
    let end = store.queue_end(key.queue).unwrap_or_default();
    let lag = end.saturating_sub(place.offset);
    if lag == 0 {
        store.delete_cursor(key).await?;
        info!(rule, target, "deleted the cursor of a target that is no longer configured");
    } else {
        warn!(
            rule,
            target,
            lag,
            "the target is no longer configured and has not received everything; it goes on from there when it is back"
        );
    }
    Ok(())
}

/// The cursors of a rule's targets, with the targets' names.
async fn target_cursors(
    store: &Store,
    rule: &str,
) -> Result<Vec<(CursorKey, CursorPlace, String)>, StoreError> {
    let prefix = target_owner(rule, "");
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = store.cursors(&prefix, after, PAGE).await?;
        let Some((last, _)) = page.last() else { return Ok(found) };
        after = Some(last.clone());
        found.extend(page.into_iter().filter_map(|(key, place)| {
            let name = key.owner.strip_prefix(&prefix)?.to_owned();
            Some((key, place, name))
        }));
    }
}
