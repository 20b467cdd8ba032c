//! `to` of a rule: its targets, and the keys that targets of all kinds share.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde::Deserialize;

use super::{TARGETS_MAX, check_name, place};
use crate::diagnostic::did_you_mean;
use crate::units;
use crate::yaml::Node;
use crate::{ConnectionDef, Diagnostic, Retry, TargetDef};

/// Keys that targets of all kinds share; the rest of the body is the connector's.
const SHARED_KEYS: [&str; 2] = ["name", "retry"];
/// Keys of `retry`.
#[cfg(test)]
pub(crate) const RETRY_KEYS: [&str; 4] = ["attempts", "for", "first", "max"];

/// Connections by their names.
pub(super) type ByName<'c> = HashMap<&'c str, &'c ConnectionDef>;

pub(super) fn by_name(connections: &[ConnectionDef]) -> ByName<'_> {
    connections.iter().map(|connection| (connection.name.as_str(), connection)).collect()
}

/// The targets of a rule, if there is nothing wrong with any.
pub(super) fn load(
    node: &Node,
    connections: &ByName<'_>,
    errors: &mut Vec<Diagnostic>,
) -> Option<Vec<TargetDef>> {
    const HINT: &str = "as in `- lake: { topic: overheat }`";
    let Some(items) = node.as_seq() else {
        errors.push(node.expected("a list of targets").with_hint(HINT));
        return None;
    };
    if items.is_empty() {
        errors.push(node.diagnostic("a rule needs at least one target").with_hint(HINT));
    }
    if items.len() > TARGETS_MAX {
        errors.push(node.diagnostic(format!("more than {TARGETS_MAX} targets in one rule")));
        return None;
    }
    let before = errors.len();
    let mut targets = Vec::with_capacity(items.len());
    let mut given: HashMap<String, Node> = HashMap::new();
    for item in items {
        match item.as_map() {
            Some([(key, body)]) => targets.push(target(key, body, connections, &mut given, errors)),
            Some(_) => {
                errors.push(item.diagnostic("a target is a map of exactly one connection").with_hint(HINT))
            }
            None => errors.push(item.expected("a map of one connection").with_hint(HINT)),
        }
    }
    if errors.len() > before {
        return None;
    }
    name_the_rest(&mut targets, given.into_keys().collect());
    Some(targets)
}

/// One target; its name is empty if the file does not give it.
fn target(
    key: &Node,
    body: &Node,
    connections: &ByName<'_>,
    given: &mut HashMap<String, Node>,
    errors: &mut Vec<Diagnostic>,
) -> TargetDef {
    let connection = key.as_str().unwrap_or_default().to_owned();
    if !connections.contains_key(connection.as_str()) {
        let mut names: Vec<&str> = connections.keys().copied().collect();
        names.sort_unstable();
        let hint =
            did_you_mean(&connection, names).unwrap_or_else(|| "there are no `connections`".to_owned());
        errors.push(key.diagnostic(format!("there is no connection `{connection}`")).with_hint(hint));
    }
    let body = body.or_empty_map();
    if body.as_map().is_none() {
        errors.push(body.expected("a map"));
    }
    let mut name = String::new();
    if let Some(node) = body.get("name") {
        match check_name(node, "target") {
            Err(error) => errors.push(error),
            Ok(chosen) => {
                if let Some(first) = given.get(&chosen) {
                    let message = format!("a target `{chosen}` is in this rule already");
                    errors.push(
                        node.diagnostic(message).with_hint(format!("the first one is at {}", place(first))),
                    );
                }
                given.entry(chosen.clone()).or_insert_with(|| node.clone());
                name = chosen;
            }
        }
    }
    let retry = body.get("retry").map_or_else(Retry::default, |node| retry(node, errors));
    TargetDef { name, connection, body: body.without(&SHARED_KEYS), retry, at: key.clone() }
}

/// `lake`, `lake-2`, `lake-3`: the first that is free.
fn name_the_rest(targets: &mut [TargetDef], mut taken: HashSet<String>) {
    for target in targets.iter_mut().filter(|target| target.name.is_empty()) {
        let numbered = (2..).map(|number| format!("{}-{number}", target.connection));
        let mut candidates = std::iter::once(target.connection.clone()).chain(numbered);
        if let Some(name) = candidates.find(|name| !taken.contains(name)) {
            taken.insert(name.clone());
            target.name = name;
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryConfig {
    attempts: Option<u32>,
    #[serde(default, rename = "for", deserialize_with = "units::duration_option")]
    for_: Option<Duration>,
    #[serde(default, deserialize_with = "units::duration_option")]
    first: Option<Duration>,
    #[serde(default, deserialize_with = "units::duration_option")]
    max: Option<Duration>,
}

fn retry(node: &Node, errors: &mut Vec<Diagnostic>) -> Retry {
    let config: RetryConfig = match node.decode() {
        Ok(config) => config,
        Err(more) => {
            errors.extend(more);
            return Retry::default();
        }
    };
    let default = Retry::default();
    let first = config.first.unwrap_or(default.first);
    let max = config.max.unwrap_or(default.max.max(first));
    let at = |key| node.get(key).unwrap_or(node);
    if config.attempts == Some(0) {
        let hint = "leave it out to try for ever; 1 is one attempt and no other";
        errors.push(at("attempts").diagnostic("`attempts` must be at least 1").with_hint(hint));
    }
    if first.is_zero() {
        errors.push(at("first").diagnostic("`first` must be longer than 0"));
    }
    if first > max {
        errors.push(at("max").diagnostic("`max` is shorter than `first`"));
    }
    Retry { attempts: config.attempts, for_: config.for_, first, max }
}
