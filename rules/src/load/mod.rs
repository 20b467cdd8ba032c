//! Files to a [`RuleSet`]: everything that can be checked before a message comes.
//!
//! # Layout
//! - `connections` `connections`
//! - `rules`       `rules`, without what has a module of its own: patterns and mappings
//! - `targets`     `to` of a rule

mod connections;
mod rules;
mod targets;

#[cfg(test)]
pub(crate) use rules::RULE_KEYS;
#[cfg(test)]
pub(crate) use targets::RETRY_KEYS;

use crate::diagnostic::did_you_mean;
use crate::matcher;
use crate::yaml::Node;
use crate::{Diagnostic, RuleSet};

/// Connections that all files together may have.
pub(crate) const CONNECTIONS_MAX: usize = 10_000;
/// Rules that all files together may have.
pub(crate) const RULES_MAX: usize = 100_000;
/// Topic filters that one rule may have.
pub(crate) const FILTERS_MAX: usize = 1_000;
/// Targets that one rule may have.
pub(crate) const TARGETS_MAX: usize = 64;
/// Characters of a name.
pub(crate) const NAME_CHARS_MAX: usize = 100;
/// Diagnostics that are worth reading at once.
const DIAGNOSTICS_MAX: usize = 500;

/// Loads the connections and rules of all files together. Of each file only the keys `connections` and `rules` are
/// read.
///
/// # Errors
/// Everything that is wrong in all the files, in the order of the files.
pub fn load(documents: &[Node]) -> Result<RuleSet, Vec<Diagnostic>> {
    let mut errors = Vec::new();
    let connections = connections::load(documents, &mut errors);
    let loaded = rules::load(documents, &connections, &mut errors);
    let conditions =
        |loaded: &rules::Loaded| loaded.pattern.iter().map(|c| c.conditions.len()).sum::<usize>();
    if loaded.iter().map(conditions).sum::<usize>() > matcher::CONDITIONS_MAX
        && let Some(document) = documents.first()
    {
        let message = format!("all rules together have more than {} conditions", matcher::CONDITIONS_MAX);
        errors.push(document.diagnostic(message));
    }
    if !errors.is_empty() {
        let file = |error: &Diagnostic| documents.iter().position(|node| node.source() == &error.source);
        errors.sort_by_key(|error| (file(error), error.line, error.column));
        errors.truncate(DIAGNOSTICS_MAX);
        return Err(errors);
    }
    let matcher =
        matcher::compile(loaded.iter().map(|one| (one.rule.filters.as_slice(), one.pattern.as_slice())));
    let rules = loaded.into_iter().map(|one| one.rule).collect();
    Ok(RuleSet { connections, rules, matcher })
}

/// Reports keys of a map that are not among the known ones.
fn check_keys(node: &Node, known: &[&str], errors: &mut Vec<Diagnostic>) {
    for (key, _) in node.as_map().unwrap_or_default() {
        let name = key.as_str().unwrap_or_default();
        if !known.contains(&name) {
            let hint = did_you_mean(name, known.iter().copied());
            errors.push(key.diagnostic(format!("unknown key `{name}`")).with_hint_if(hint));
        }
    }
}

/// A name of a connection, rule or target: it becomes a part of queue names, metrics and URLs.
fn check_name(node: &Node, what: &str) -> Result<String, Diagnostic> {
    let name = node.as_str().ok_or_else(|| node.expected("text"))?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(allowed) {
        return Err(node
            .diagnostic(format!("`{name}` cannot be the name of a {what}"))
            .with_hint(format!("letters a-z and A-Z, digits, `-`, `_` and `.`, at most {NAME_CHARS_MAX}")));
    }
    Ok(name.to_owned())
}

/// Where something stands, for a hint in another place.
fn place(node: &Node) -> String {
    format!("{}:{}:{}", node.source().name, node.line(), node.column())
}

#[cfg(test)]
mod tests;
