//! `rules`.

use std::collections::HashMap;

use super::{FILTERS_MAX, RULES_MAX, check_keys, check_name, place, targets};
use crate::mapping::Mapping;
use crate::pattern::{self, Conjunction};
use crate::topic::check_filter;
use crate::yaml::Node;
use crate::{ConnectionDef, Diagnostic, Rule};

/// Keys of a rule.
pub(crate) const RULE_KEYS: [&str; 7] = ["name", "description", "from", "where", "event", "data", "to"];

/// A rule, and `where` as alternatives; one without conditions where there is no `where`.
pub(super) struct Loaded {
    pub(super) rule: Rule,
    pub(super) pattern: Vec<Conjunction>,
}

/// The rules of all files that are good.
pub(super) fn load(
    documents: &[Node],
    connections: &[ConnectionDef],
    errors: &mut Vec<Diagnostic>,
) -> Vec<Loaded> {
    let mut rules = Vec::new();
    let mut first: HashMap<String, Node> = HashMap::new();
    let by_name = targets::by_name(connections);
    for document in documents {
        let Some(section) = document.get("rules").filter(|section| !section.is_null()) else { continue };
        let Some(items) = section.as_seq() else {
            errors.push(section.expected("a list of rules").with_hint("each rule begins with `- name: …`"));
            continue;
        };
        for node in items {
            if first.len() >= RULES_MAX {
                errors.push(node.diagnostic(format!("more than {RULES_MAX} rules")));
                return rules;
            }
            if let Some((key, name)) =
                node.entry("name").and_then(|(_, value)| Some((value, value.as_str()?)))
            {
                if let Some(first) = first.get(name) {
                    let message = format!("a rule `{name}` is there already");
                    errors.push(
                        key.diagnostic(message).with_hint(format!("the first one is at {}", place(first))),
                    );
                } else {
                    first.insert(name.to_owned(), key.clone());
                }
            }
            rules.extend(rule(node, &by_name, errors));
        }
    }
    rules
}

/// One rule, if there is nothing wrong with it.
fn rule(node: &Node, connections: &targets::ByName<'_>, errors: &mut Vec<Diagnostic>) -> Option<Loaded> {
    if node.as_map().is_none() {
        errors.push(node.expected("a rule: a map with `name`, `from` and `to`"));
        return None;
    }
    check_keys(node, &RULE_KEYS, errors);
    let name = required(node, "name", errors).and_then(|node| keep(check_name(node, "rule"), errors));
    let description = match node.get("description") {
        Some(node) => {
            keep(node.as_str().map(str::to_owned).ok_or_else(|| node.expected("text")), errors).map(Some)
        }
        None => Some(None),
    };
    let filters = required(node, "from", errors).and_then(|node| from(node, errors));
    let pattern = match node.get("where") {
        Some(node) => keep_all(pattern::parse(node), errors),
        None => Some(vec![Conjunction::default()]),
    };
    let mapping = keep_all(Mapping::parse(node.get("event"), node.get("data")), errors);
    let targets = required(node, "to", errors).and_then(|node| targets::load(node, connections, errors));
    let rule = Rule {
        name: name?,
        filters: filters?,
        description: description?,
        targets: targets?,
        mapping: mapping?,
    };
    Some(Loaded { rule, pattern: pattern? })
}

/// `mqtt: [filters]`
fn from(node: &Node, errors: &mut Vec<Diagnostic>) -> Option<Vec<String>> {
    const HINT: &str = "as in `from: { mqtt: [\"vehicles/+/telemetry\"] }`";
    if node.as_map().is_none() {
        errors.push(node.expected("a map with `mqtt`").with_hint(HINT));
        return None;
    }
    check_keys(node, &["mqtt"], errors);
    let list = required(node, "mqtt", errors)?;
    let Some(items) = list.as_seq() else {
        errors.push(list.expected("a list of topic filters").with_hint(HINT));
        return None;
    };
    if items.is_empty() {
        errors.push(list.diagnostic("a rule needs at least one topic filter").with_hint(HINT));
        return None;
    }
    if items.len() > FILTERS_MAX {
        errors.push(list.diagnostic(format!("more than {FILTERS_MAX} topic filters in one rule")));
        return None;
    }
    let before = errors.len();
    let mut filters: Vec<String> = Vec::with_capacity(items.len());
    for item in items {
        match item.as_str() {
            None => errors.push(item.expected("a topic filter").with_hint("put it in quotes")),
            Some(filter) => match check_filter(filter) {
                Ok(()) if filters.iter().any(|other| other == filter) => {}
                Ok(()) => filters.push(filter.to_owned()),
                Err(error) => errors.push(item.diagnostic(error.to_string()).with_hint_if(error.hint())),
            },
        }
    }
    (errors.len() == before).then_some(filters)
}

fn required<'n>(node: &'n Node, key: &str, errors: &mut Vec<Diagnostic>) -> Option<&'n Node> {
    let value = node.get(key);
    if value.is_none() {
        errors.push(node.diagnostic(format!("the key `{key}` is missing")));
    }
    value
}

fn keep<T>(result: Result<T, Diagnostic>, errors: &mut Vec<Diagnostic>) -> Option<T> {
    result.map_err(|error| errors.push(error)).ok()
}

fn keep_all<T>(result: Result<T, Vec<Diagnostic>>, errors: &mut Vec<Diagnostic>) -> Option<T> {
    result.map_err(|more| errors.extend(more)).ok()
}
