//! `streams:`: topics with shards and promises of their own, and how long records are kept.

use serde::Deserialize;
use tidemill_rules::Diagnostic;
use tidemill_rules::yaml::Node;
use tidemill_store::{Options, StreamOptions, filter};

use super::load::decode;
use super::sense::at;
use super::settings::{FlushSetting, RetentionSettings};

/// Shards that all streams have together, as far as the store goes.
const SHARDS_MAX: usize = 256;
/// What a stream looks like, for those who wrote something else.
const EXAMPLE: &str = "as in `- { name: telemetry, filters: [\"vehicles/#\"], retention: { time: 7d } }`";

/// One entry of `streams:`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StreamSettings {
    name: Option<String>,
    filters: Vec<String>,
    shards: Option<u16>,
    flush: Option<FlushSetting>,
    retention: Option<RetentionSettings>,
}

/// The streams of a configuration. What one does not say is as in `store`.
pub(super) fn read(main: &Node, store: &Options, problems: &mut Vec<Diagnostic>) -> Vec<StreamOptions> {
    let found = entries(main, store, problems);
    problems.extend(too_many(main, store, &found));
    found
}

fn entries(main: &Node, store: &Options, problems: &mut Vec<Diagnostic>) -> Vec<StreamOptions> {
    let Some(streams) = main.get("streams") else { return Vec::new() };
    let Some(entries) = streams.as_seq() else {
        problems.push(streams.diagnostic("`streams` is a list").with_hint(EXAMPLE));
        return Vec::new();
    };
    let mut found: Vec<StreamOptions> = Vec::with_capacity(entries.len());
    for entry in entries {
        if entry.as_map().is_none() {
            problems.push(entry.diagnostic("a stream is a map").with_hint(EXAMPLE));
            continue;
        }
        let name = entry.get("name").and_then(Node::as_str).unwrap_or_default();
        let mut own = Vec::new();
        let settings: StreamSettings = decode(entry, &mut own);
        if own.is_empty() {
            own.extend(check(entry, name, &settings));
            if !name.is_empty() && found.iter().any(|before| before.name == name) {
                let place = entry.get("name").unwrap_or(entry);
                own.push(place.diagnostic("another stream before has this name"));
            }
        }
        problems.extend(own.into_iter().map(|problem| named(problem, name)));
        found.push(StreamOptions {
            name: name.to_owned(),
            filters: settings.filters,
            shards: settings.shards.unwrap_or(1),
            flush: settings.flush.map_or(store.flush, Into::into),
            retention: settings.retention.map_or(store.retention, Into::into),
        });
    }
    found
}

/// More shards than there can be.
fn too_many(main: &Node, store: &Options, streams: &[StreamOptions]) -> Option<Diagnostic> {
    let own = usize::from(store.shards);
    let shards = streams.iter().map(|stream| usize::from(stream.shards)).sum::<usize>();
    let (node, message) = if own > SHARDS_MAX {
        (at(main, "log", "shards"), format!("`log.shards` is {own}, which is more than {SHARDS_MAX}"))
    } else if own + shards > SHARDS_MAX {
        let message =
            format!("{shards} shards of streams and {own} of `log.shards` are more than {SHARDS_MAX}");
        (main.get("streams").unwrap_or(main), message)
    } else {
        return None;
    };
    Some(node.diagnostic(message).with_hint("hundreds of shards do not make a disk faster"))
}

/// The values of a `retention` with which nothing is kept. `what` names it.
pub(super) fn useless(node: &Node, what: &str, retention: &RetentionSettings) -> Vec<Diagnostic> {
    let problem = |key| {
        let message = format!("`{key}` of {what} is 0, with which nothing is kept");
        node.get(key).unwrap_or(node).diagnostic(message).with_hint("leave it out to keep everything")
    };
    retention.useless().into_iter().map(problem).collect()
}

/// What is wrong with a stream whose values are of the right kinds.
fn check(entry: &Node, name: &str, settings: &StreamSettings) -> Vec<Diagnostic> {
    let at = |key| entry.get(key).unwrap_or(entry);
    let mut problems = Vec::new();
    if name.is_empty() {
        problems.push(at("name").diagnostic("it has no name; its shards are found by it").with_hint(EXAMPLE));
    }
    if settings.filters.is_empty() {
        problems.push(
            at("filters").diagnostic("it has no `filters`, so that no topic is its").with_hint(EXAMPLE),
        );
    }
    for node in at("filters").as_seq().unwrap_or_default() {
        let text = node.as_str().unwrap_or_default();
        if text == "$share" || text.starts_with("$share/") {
            let problem = node.diagnostic("shared subscriptions (`$share/…`) are not for streams");
            problems.push(problem.with_hint("write the filter alone: a stream is made of topics"));
        } else if let Err(what) = filter::check(text) {
            problems.push(node.diagnostic(format!("topic filter `{text}`: {what}")));
        }
    }
    if settings.shards == Some(0) {
        let problem = at("shards").diagnostic("`shards` is 0, and it needs at least one");
        problems.push(problem.with_hint("leave it out for one"));
    }
    if let Some(retention) = &settings.retention {
        problems.extend(useless(at("retention"), "`retention`", retention));
    }
    problems
}

/// Says which stream it is: there may be many, in many lines.
fn named(mut problem: Diagnostic, name: &str) -> Diagnostic {
    if !name.is_empty() {
        problem.message = format!("stream `{name}`: {}", problem.message);
    }
    problem
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidemill_store::{Flush, Retention};

    use crate::config::Flags;
    use crate::config::inline::{inline, problems};

    #[test]
    fn a_stream_has_what_it_says_and_else_what_the_log_has() {
        let text = "log: { retention: { bytes: 1GB } }\nstreams:\n\
                    - { name: fast, filters: [\"f/#\", \"g/+\"], shards: 3, flush: async, retention: { time: 1h } }\n\
                    - { name: other, filters: [\"o\"] }\n";
        let store = inline(text, Flags::default()).unwrap_or_else(|error| panic!("{}", error.render())).store;
        let [fast, other] = &store.streams[..] else { panic!("{:?}", store.streams) };
        assert_eq!((&*fast.name, fast.shards, fast.flush), ("fast", 3, Flush::Async));
        assert_eq!(fast.filters, ["f/#", "g/+"]);
        assert_eq!(fast.retention, Retention { time: Some(Duration::from_secs(3600)), bytes: None });
        assert_eq!((other.shards, other.flush, other.retention), (1, Flush::Sync, store.retention));
        assert_eq!(store.retention.bytes, Some(1_000_000_000));
    }

    #[test]
    fn every_problem_of_a_stream_names_it() {
        let text = "log: { shards: 0, retention: { time: 0s }, retention_interval: 0s }\nstreams:\n\
                    - { filters: [\"a\"] }\n\
                    - { name: a, filters: [\"x/#/y\", \"fine\"], shards: 0, retention: { bytes: 0B } }\n\
                    - { name: a, filters: [] }\n\
                    - { name: b, filters: [\"b\"], shrads: 2, flush: often, retention: { time: 7 } }\n\
                    - nothing\n\
                    - { name: c, filters: [\"c\"], shards: 300 }\n";
        insta::assert_snapshot!(problems(text));
        let shared = "streams: [ { name: a, filters: [\"$share/g/x\"] } ]\n";
        let told = problems(shared);
        assert!(told.contains("are not for streams") && told.contains("tidemill.yaml:1:33"), "{told}");
        let told = problems("streams: { a: {} }\n");
        assert!(told.contains("`streams` is a list") && told.contains("tidemill.yaml:1:10"), "{told}");
    }

    #[test]
    fn more_shards_than_there_can_be_are_refused_without_streams_too() {
        let told = problems("log: { segment_bytes: 1MiB,\n  shards: 257 }\n");
        assert!(told.contains("`log.shards` is 257, which is more than 256"), "{told}");
        assert!(told.contains("tidemill.yaml:2:11"), "{told}");
        assert!(inline("log: { shards: 256 }\n", Flags::default()).is_ok());
        let both = "log: { shards: 256 }\nstreams: [ { name: a, filters: [a] } ]\n";
        assert!(inline(both, Flags::default()).is_err());
    }
}
