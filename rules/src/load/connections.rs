//! `connections`: names to kinds and their bodies.

use std::collections::HashMap;

use super::{CONNECTIONS_MAX, check_name, place};
use crate::yaml::Node;
use crate::{ConnectionDef, Diagnostic};

/// The connections of all files. One whose body is wrong is still there, so that its targets are not reported too.
pub(super) fn load(documents: &[Node], errors: &mut Vec<Diagnostic>) -> Vec<ConnectionDef> {
    let mut connections: Vec<ConnectionDef> = Vec::new();
    let mut first: HashMap<String, Node> = HashMap::new();
    for document in documents {
        if document.as_map().is_none() && !document.is_null() {
            errors.push(document.expected("a map with `connections` and `rules`"));
            continue;
        }
        let Some(section) = document.get("connections").filter(|section| !section.is_null()) else {
            continue;
        };
        let Some(entries) = section.as_map() else {
            errors.push(section.expected("a map of names to connections"));
            continue;
        };
        for (key, value) in entries {
            let name = match check_name(key, "connection") {
                Ok(name) => name,
                Err(error) => {
                    errors.push(error);
                    continue;
                }
            };
            if let Some(first) = first.get(&name) {
                let message = format!("a connection `{name}` is there already");
                errors
                    .push(key.diagnostic(message).with_hint(format!("the first one is at {}", place(first))));
                continue;
            }
            if connections.len() == CONNECTIONS_MAX {
                errors.push(key.diagnostic(format!("more than {CONNECTIONS_MAX} connections")));
                return connections;
            }
            first.insert(name.clone(), key.clone());
            let (at, body) = body(value, errors);
            let kind = at.as_str().unwrap_or_default().to_owned();
            connections.push(ConnectionDef { name, kind, body, at });
        }
    }
    connections
}

/// The two of `kafka: { … }`.
fn body(node: &Node, errors: &mut Vec<Diagnostic>) -> (Node, Node) {
    match node.as_map() {
        Some([(kind, body)]) => (kind.clone(), body.or_empty_map()),
        Some(_) => {
            let hint = "as in `lake: { kafka: { brokers: \"localhost:9092\" } }`";
            errors.push(node.diagnostic("a connection has exactly one kind").with_hint(hint));
            (node.clone(), node.clone())
        }
        None => {
            let hint = "as in `lake: { kafka: { brokers: \"localhost:9092\" } }`";
            errors.push(node.expected("a map of one kind of connector").with_hint(hint));
            (node.clone(), node.clone())
        }
    }
}
