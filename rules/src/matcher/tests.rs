//! The matcher against a plain reading of what a pattern says, on random patterns and events; and single cases.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::pattern::{Num, Scalar, Test};
use crate::topic::filter_matches;
use crate::yaml::{self, Source};
use crate::{Context, Matched, Message, RuleSet};

/// Rules of `(filters, where)`; JSON is YAML.
fn rules(rules: &[(Vec<&str>, Option<Value>)]) -> RuleSet {
    let list: Vec<Value> = rules
        .iter()
        .enumerate()
        .map(|(at, (filters, pattern))| {
            let mut rule =
                json!({ "name": format!("r{at}"), "from": { "mqtt": filters }, "to": [{ "c": {} }] });
            if let Some(pattern) = pattern {
                rule["where"] = pattern.clone();
            }
            rule
        })
        .collect();
    let text = json!({ "connections": { "c": { "file": {} } }, "rules": list }).to_string();
    let node = yaml::parse(Arc::new(Source { name: "t".into(), text })).expect("parses");
    crate::load(&[node]).expect("loads")
}

fn run(rules: &RuleSet, topic: &str, payload: &str) -> (Vec<usize>, Matched) {
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    let message = Message {
        id: "log/7",
        topic,
        payload: &payload,
        time_ms: 1_714_564_800_000,
        client: "c1",
        user: None,
        qos: 1,
        retain: false,
        content_type: None,
        user_properties: &[("k", "v1"), ("k", "v2"), ("ip", "10.1.2.3")],
    };
    let mut out = vec![99];
    let matched = rules.matches(&mut Context::new(&message), &mut out);
    (out, matched)
}

fn matches(pattern: Value, payload: Value) -> bool {
    run(&rules(&[(vec!["#"], Some(pattern))]), "a/b", &payload.to_string()).0 == [0]
}

/// A data pattern against a payload.
fn data(pattern: Value, payload: Value) -> bool {
    matches(json!({ "data": pattern }), payload)
}

#[test]
fn exact_values() {
    assert!(data(json!({ "a": ["x"] }), json!({ "a": "x" })));
    assert!(!data(json!({ "a": ["x"] }), json!({ "a": "X" })));
    assert!(data(json!({ "a": [1] }), json!({ "a": 1.0 })));
    assert!(data(json!({ "a": [1.0] }), json!({ "a": 1 })));
    assert!(!data(json!({ "a": [1] }), json!({ "a": "1" })));
    assert!(data(json!({ "a": [true, null] }), json!({ "a": null })));
    assert!(!data(json!({ "a": [null] }), json!({})));
    assert!(data(json!([5]), json!(5)));
    assert!(data(json!({ "a": { "b": ["x"] }, "c": [1] }), json!({ "c": 1, "a": { "z": 0, "b": "x" } })));
}

#[test]
fn operators() {
    for (alternative, yes, no) in [
        (json!({ "prefix": "ab" }), vec![json!("ab"), json!("abc")], vec![json!("a"), json!(5), json!(null)]),
        (json!({ "suffix": ".de" }), vec![json!("x.de")], vec![json!("x.De"), json!("de")]),
        (json!({ "prefix": { "equals-ignore-case": "ÄB" } }), vec![json!("äbc")], vec![json!("bc")]),
        (json!({ "suffix": { "equals-ignore-case": ".DE" } }), vec![json!("x.de")], vec![json!("de")]),
        (json!({ "equals-ignore-case": "AbC" }), vec![json!("aBc")], vec![json!("abcd"), json!("ab")]),
        (json!({ "wildcard": "a*c" }), vec![json!("ac"), json!("abc")], vec![json!("abcd")]),
        (json!({ "wildcard": "*b*" }), vec![json!("abc")], vec![json!("ac"), json!(1)]),
        (
            json!({ "numeric": [">", 0, "<=", 5] }),
            vec![json!(0.1), json!(5)],
            vec![json!(0), json!(5.1), json!("3")],
        ),
        (json!({ "numeric": ["=", 3] }), vec![json!(3.0)], vec![json!(3.5)]),
        (json!({ "numeric": ["<", -1.5] }), vec![json!(-2)], vec![json!(-1.5)]),
        (
            json!({ "cidr": "10.0.0.0/8" }),
            vec![json!("10.2.3.4")],
            vec![json!("11.0.0.1"), json!("::ffff:10.0.0.1"), json!("x")],
        ),
        (
            json!({ "exists": true }),
            vec![json!(null), json!(0), json!(["x"])],
            vec![json!({}), json!([]), json!({ "b": 1 })],
        ),
        (
            json!({ "exists": false }),
            vec![json!({}), json!([]), json!({ "b": 1 })],
            vec![json!(null), json!(0)],
        ),
        (
            json!({ "anything-but": "x" }),
            vec![json!("y"), json!(1), json!(null), json!(["x", "y"])],
            vec![json!("x"), json!({}), json!(["x"])],
        ),
        (json!({ "anything-but": ["x", 1] }), vec![json!("y"), json!(2)], vec![json!("x"), json!(1.0)]),
        (
            json!({ "anything-but": { "prefix": ["a", "b"] } }),
            vec![json!("c")],
            vec![json!("ax"), json!("bx")],
        ),
        (json!({ "anything-but": { "suffix": "a" } }), vec![json!("ab")], vec![json!("ba")]),
        (json!({ "anything-but": { "wildcard": "a*" } }), vec![json!("ba")], vec![json!("ab")]),
        (json!({ "anything-but": { "equals-ignore-case": "a" } }), vec![json!("b")], vec![json!("A")]),
    ] {
        for (values, expected) in [(yes, true), (no, false)] {
            for value in values {
                let pattern = json!({ "a": [alternative] });
                assert_eq!(data(pattern.clone(), json!({ "a": value })), expected, "{pattern} {value}");
            }
        }
    }
    assert!(!data(json!({ "a": [{ "anything-but": "x" }] }), json!({ "b": 1 })));
    assert!(data(json!({ "a": [{ "exists": false }] }), json!({ "b": 1 })));
    assert!(data(json!({ "a": [5, { "exists": false }] }), json!({ "b": 1 })));
    assert!(data(json!({ "a": [5, { "exists": false }] }), json!({ "a": 5 })));
    assert!(!data(json!({ "a": [5, { "exists": false }] }), json!({ "a": 6 })));
}

#[test]
fn or() {
    let pattern = json!({ "x": [1], "$or": [{ "a": [1] }, { "b": { "c": [2] } }] });
    assert!(data(pattern.clone(), json!({ "x": 1, "a": 1 })));
    assert!(data(pattern.clone(), json!({ "x": 1, "b": { "c": 2 } })));
    assert!(!data(pattern.clone(), json!({ "x": 1 })));
    assert!(!data(pattern, json!({ "a": 1 })));
    let across = json!({ "$or": [{ "data": { "a": [1] } }, { "mqtt": { "client": ["c1"] } }] });
    assert!(matches(across, json!("not an object")));
}

#[test]
fn conditions_meet_in_one_element() {
    let pattern = json!({ "x": { "a": [1], "b": [2] } });
    assert!(data(pattern.clone(), json!({ "x": [{ "a": 0 }, { "a": 1, "b": 2 }] })));
    assert!(!data(pattern.clone(), json!({ "x": [{ "a": 1 }, { "b": 2 }] })));
    assert!(!data(pattern.clone(), json!({ "x": [{ "a": 1, "b": 3 }, { "a": 3, "b": 2 }] })));
    assert!(data(pattern.clone(), json!({ "x": [[{ "a": 3 }], [[{ "a": 1, "b": 2 }]]] })));
    assert!(data(json!({ "a": [1], "b": [2] }), json!([{ "a": 1 }, { "a": 1, "b": 2 }])));
    // In objects in objects in lists, and in lists of values.
    let deep = json!({ "x": { "y": { "a": [1] }, "b": [2] } });
    assert!(data(deep.clone(), json!({ "x": [{ "y": [{ "a": 0 }, { "a": 1 }], "b": 2 }] })));
    assert!(!data(deep, json!({ "x": [{ "y": [{ "a": 0 }], "b": 2 }, { "y": [{ "a": 1 }] }] })));
    assert!(data(json!({ "t": ["b"], "$or": [{ "t": ["a"] }] }), json!({ "t": ["a", "b"] })));
    // Nothing left in the chosen element; with nothing chosen, in none.
    let absent = json!({ "x": { "a": [1], "b": [{ "exists": false }] } });
    assert!(data(absent.clone(), json!({ "x": [{ "a": 1 }, { "b": 2 }] })));
    assert!(!data(absent, json!({ "x": [{ "a": 1, "b": 0 }, { "a": 2 }] })));
    assert!(!data(json!({ "x": { "b": [{ "exists": false }] } }), json!({ "x": [{ "a": 1 }, { "b": 2 }] })));
}

#[test]
fn the_last_of_equal_keys_counts() {
    let rules = rules(&[(vec!["#"], Some(json!({ "data": { "a": { "b": [1] } } })))]);
    assert_eq!(run(&rules, "t", r#"{"a":{"b":1},"a":{"b":2}}"#).0, [0; 0]);
    assert_eq!(run(&rules, "t", r#"{"a":{"b":2},"a":{"b":1}}"#).0, [0]);
    assert_eq!(run(&rules, "t", r#"{"a":{"b":2,"b":1}}"#).0, [0]);
    assert_eq!(run(&rules, "t", r#"[{"a":{"b":1}},{"a":{"b":2}}]"#).0, [0]);
    assert_eq!(run(&rules, "t", r#"{"\u0061":{"b":1}}"#).0, [0]);
}

#[test]
fn the_publish_and_the_attributes() {
    for (pattern, expected) in [
        (json!({ "mqtt": { "topic": ["a/b"] } }), true),
        (json!({ "mqtt": { "levels": ["b"] } }), true),
        (json!({ "mqtt": { "levels": { "0": ["a"], "-1": ["b"] } } }), true),
        (json!({ "mqtt": { "levels": { "2": [{ "exists": false }] } } }), true),
        (json!({ "mqtt": { "levels": { "1": ["a"] } } }), false),
        (json!({ "mqtt": { "client": ["c1"], "user": [{ "exists": false }] } }), true),
        (json!({ "mqtt": { "user": [{ "exists": true }] } }), false),
        (json!({ "mqtt": { "qos": [{ "numeric": [">=", 1] }], "retain": [false] } }), true),
        (json!({ "mqtt": { "properties": { "k": ["v2"], "ip": [{ "cidr": "10.0.0.0/8" }] } } }), true),
        (json!({ "mqtt": { "properties": { "k": ["v3"] } } }), false),
        (json!({ "mqtt": { "content_type": [{ "exists": false }] } }), true),
        (json!({ "type": ["io.tidemill.mqtt.publish"], "source": ["/tidemill"], "subject": ["a/b"] }), true),
        (json!({ "id": [{ "prefix": "log/" }], "time": [{ "prefix": "2024-05-01T12:00:00" }] }), true),
        (json!({ "type": ["com.example"] }), false),
    ] {
        assert_eq!(matches(pattern.clone(), json!(null)), expected, "{pattern}");
    }
}

#[test]
fn topics_come_first() {
    let rules = rules(&[
        (vec!["a/+"], None),
        (vec!["#"], Some(json!({ "data": { "x": [1] } }))),
        (vec!["a/b", "a/+"], Some(json!({ "data": { "x": [1] } }))),
        (vec!["$SYS/#"], None),
        (vec!["z"], Some(json!({ "data": { "x": [1] } }))),
    ]);
    assert_eq!(run(&rules, "a/b", r#"{"x":1}"#).0, [0, 1, 2]);
    assert_eq!(run(&rules, "c", r#"{"x":1}"#).0, [1]);
    assert_eq!(run(&rules, "$SYS/load", r#"{"x":1}"#).0, [3]);
    assert_eq!(run(&rules, "$SYS/load", "nothing"), (vec![3], Matched { not_json: false }));
}

#[test]
fn a_payload_that_is_no_json_is_counted_and_matches_nothing() {
    let set = rules(&[
        (vec!["a"], Some(json!({ "data": { "x": [{ "exists": false }] } }))),
        (vec!["a"], Some(json!({ "mqtt": { "client": ["c1"] } }))),
        (vec!["b"], Some(json!({ "mqtt": { "client": ["other"] }, "data": { "x": [1] } }))),
    ]);
    let deep = format!("{}1{}", "{\"x\":".repeat(200), "}".repeat(200));
    for payload in ["", "nothing", "{", r#"{"x":1} trailing"#, r#"{"x":01}"#, "{\"a\":}"] {
        assert_eq!(run(&set, "a", payload), (vec![1], Matched { not_json: true }), "{payload}");
    }
    assert_eq!(run(&set, "a", "{}"), (vec![0, 1], Matched { not_json: false }));
    assert_eq!(run(&set, "a", &deep), (vec![1], Matched { not_json: true }));
    // Nothing looks at it: the envelope alone decides against the rule.
    assert_eq!(run(&set, "b", "nothing"), (vec![], Matched { not_json: false }));
    let bytes = Bytes::from_static(b"\"\xff\"");
    let message = Message { payload: &bytes, ..message(&bytes) };
    assert!(set.matches(&mut Context::new(&message), &mut Vec::new()).not_json);
}

fn message(payload: &Bytes) -> Message<'_> {
    Message {
        id: "i",
        topic: "a",
        payload,
        time_ms: 0,
        client: "c1",
        user: None,
        qos: 0,
        retain: false,
        content_type: None,
        user_properties: &[],
    }
}

/// Ten thousand rules must not cost much more than ten, whatever they are told apart by. The cost is counted, not
/// timed: how many conjunctions are looked at for an event that few rules match.
#[test]
fn the_cost_does_not_grow_with_the_rules() {
    let payload = r#"{"kind":"telemetry","vehicle":"v5","temp":105,"ip":"10.0.0.5","name":"n5-x"}"#;
    type Make = fn(usize) -> (String, Value);
    let kinds: [(&str, Make); 8] = [
        ("by topic", |n| (format!("v/v{n}/t"), json!({ "data": { "kind": ["telemetry"] } }))),
        ("by value", |n| {
            ("v/+/t".into(), json!({ "data": { "kind": ["telemetry"], "vehicle": [format!("v{n}")] } }))
        }),
        ("by range", |n| {
            ("v/+/t".into(), json!({ "data": { "temp": [{ "numeric": [">=", n + 100, "<", n + 102] }] } }))
        }),
        ("by prefix", |n| ("v/+/t".into(), json!({ "data": { "name": [{ "prefix": format!("n{n}-") }] } }))),
        ("by suffix", |n| {
            ("v/+/t".into(), json!({ "mqtt": { "topic": [{ "suffix": format!("v{n}/t") }] } }))
        }),
        ("by wildcard", |n| {
            ("v/+/t".into(), json!({ "data": { "name": [{ "wildcard": format!("n{n}-*") }] } }))
        }),
        ("by network", |n| {
            (
                "v/+/t".into(),
                json!({ "data": { "ip": [{ "cidr": format!("10.0.{}.{}/32", n / 250, n % 250) }] } }),
            )
        }),
        ("by case", |n| {
            ("v/+/t".into(), json!({ "data": { "vehicle": [{ "equals-ignore-case": format!("V{n}") }] } }))
        }),
    ];
    for (name, make) in kinds {
        for count in [10, 10_000] {
            let made: Vec<(String, Value)> = (0..count).map(make).collect();
            let list: Vec<(Vec<&str>, Option<Value>)> =
                made.iter().map(|(topic, pattern)| (vec![topic.as_str()], Some(pattern.clone()))).collect();
            let set = rules(&list);
            let (hits, _) = run(&set, "v/v5/t", payload);
            let looked_at = super::SCRATCH.with_borrow(|scratch| {
                scratch.conjunction_stamps.iter().filter(|stamp| **stamp == scratch.stamp).count()
            });
            assert!(hits.contains(&5) && hits.len() <= 2, "{name}: {hits:?}");
            assert!(looked_at <= 3, "{name}: {looked_at} of {count} conjunctions were looked at");
        }
    }
}

// ---- the plain reading -----------------------------------------------------------------------------------------

/// A leaf, and the element it is in of each list of objects around it: (place of the list in the event, index).
struct PlainLeaf<'e> {
    path: Vec<String>,
    elements: Vec<(String, usize)>,
    value: &'e Value,
}

fn plain_leaves<'e>(
    value: &'e Value,
    path: &[String],
    place: &str,
    lists: &[(String, usize)],
    objects: usize,
    out: &mut Vec<PlainLeaf<'e>>,
) {
    match value {
        Value::Object(entries) => {
            for (key, inner) in entries {
                let path: Vec<String> = path.iter().cloned().chain([key.clone()]).collect();
                plain_leaves(inner, &path, &format!("{place}.{key}"), lists, lists.len(), out);
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                let lists: Vec<(String, usize)> =
                    lists.iter().cloned().chain([(place.to_owned(), at)]).collect();
                plain_leaves(item, path, &format!("{place}[{at}]"), &lists, objects, out);
            }
        }
        // Only lists whose elements are objects count: those around the innermost object.
        leaf => out.push(PlainLeaf { path: path.to_vec(), elements: lists[..objects].to_vec(), value: leaf }),
    }
}

fn agree(a: &[(String, usize)], b: &[(String, usize)]) -> bool {
    a.iter().all(|(place, at)| b.iter().all(|(other, index)| place != other || at == index))
}

fn plain_test(alternative: &Value, leaf: &Value) -> bool {
    let scalar = match leaf {
        Value::Null => Scalar::Null,
        Value::Bool(value) => Scalar::Bool(*value),
        Value::Number(value) => Scalar::Number(Num::from(value)),
        Value::String(text) => Scalar::Text(text),
        _ => unreachable!("a leaf"),
    };
    let literal = |value: &Value| match value {
        Value::Null => Test::Null,
        Value::Bool(value) => Test::Bool(*value),
        Value::Number(value) => Test::Number(Num::from(value)),
        Value::String(text) => Test::Text(text.clone()),
        _ => unreachable!("a literal"),
    };
    let Some((operator, operand)) = alternative.as_object().and_then(|map| map.iter().next()) else {
        return literal(alternative).passes(scalar);
    };
    let text = leaf.as_str();
    let operand_text = operand.as_str().unwrap_or_default();
    match operator.as_str() {
        "exists" => operand == &json!(true),
        "prefix" => text.is_some_and(|text| text.starts_with(operand_text)),
        "suffix" => text.is_some_and(|text| text.ends_with(operand_text)),
        "equals-ignore-case" => text.is_some_and(|text| text.to_lowercase() == operand_text.to_lowercase()),
        "numeric" => leaf.as_f64().is_some_and(|number| {
            operand.as_array().expect("a list").chunks(2).all(|pair| {
                let bound = pair[1].as_f64().expect("a number");
                match pair[0].as_str().expect("a comparison") {
                    ">" => number > bound,
                    "<=" => number <= bound,
                    _ => unreachable!(),
                }
            })
        }),
        "anything-but" => match operand.as_array() {
            Some(values) => !values.iter().any(|value| literal(value).passes(scalar)),
            None => !plain_test(operand, leaf),
        },
        other => unreachable!("{other}"),
    }
}

/// Calls `then` for every way to meet the patterns that are left, with the elements chosen and the paths that must be
/// absent; true as soon as it is.
fn ways(
    left: &[(Vec<String>, &Value)],
    leaves: &[PlainLeaf<'_>],
    chosen: &[(String, usize)],
    absent: &[Vec<String>],
) -> bool {
    let Some(((path, pattern), rest)) = left.split_first() else {
        return absent
            .iter()
            .all(|path| !leaves.iter().any(|leaf| leaf.path == *path && agree(&leaf.elements, chosen)));
    };
    match pattern {
        Value::Array(alternatives) => alternatives.iter().any(|alternative| {
            if alternative == &json!({ "exists": false }) {
                let absent: Vec<Vec<String>> = absent.iter().cloned().chain([path.clone()]).collect();
                return ways(rest, leaves, chosen, &absent);
            }
            leaves
                .iter()
                .filter(|leaf| {
                    leaf.path == *path && agree(&leaf.elements, chosen) && plain_test(alternative, leaf.value)
                })
                .any(|leaf| {
                    let chosen: Vec<(String, usize)> = chosen.iter().chain(&leaf.elements).cloned().collect();
                    ways(rest, leaves, &chosen, absent)
                })
        }),
        Value::Object(entries) => {
            // One entry of each `$or` at a time; everything else as it is.
            let or = entries.get("$or").and_then(Value::as_array);
            let branches: Vec<Option<&Value>> = or.map_or(vec![None], |or| or.iter().map(Some).collect());
            branches.iter().any(|branch| {
                let mut left: Vec<(Vec<String>, &Value)> = entries
                    .iter()
                    .filter(|(key, _)| *key != "$or")
                    .map(|(key, value)| (path.iter().cloned().chain([key.clone()]).collect(), value))
                    .collect();
                left.extend(branch.map(|branch| (path.clone(), branch)));
                left.extend(rest.iter().cloned());
                ways(&left, leaves, chosen, absent)
            })
        }
        _ => unreachable!("a pattern"),
    }
}

fn plain_match(pattern: &Value, topic: &str, payload: &Value) -> bool {
    let mqtt = json!({ "topic": topic, "client": "c1", "qos": 1, "retain": false, "properties": { "k": ["v1", "v2"] } });
    let event = json!({ "data": payload, "mqtt": mqtt, "subject": topic });
    let mut leaves = Vec::new();
    plain_leaves(&event, &[], "", &[], 0, &mut leaves);
    ways(&[(Vec::new(), pattern)], &leaves, &[], &[])
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!(null)),
        Just(json!(true)),
        (0..3).prop_map(|n| json!(n)),
        Just(json!(1.0)),
        Just(json!(1.5)),
        prop::sample::select(vec!["", "a", "A", "ab", "ba", "ä"]).prop_map(|text| json!(text)),
    ]
}

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["p", "q", "r"]).prop_map(str::to_owned)
}

fn payload() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(5, 24, 3, |inner| {
        prop_oneof![
            3 => prop::collection::btree_map(key(), inner.clone(), 0..4).prop_map(|map| json!(map)),
            2 => prop::collection::vec(inner, 0..4).prop_map(Value::from),
        ]
    })
}

fn alternative() -> impl Strategy<Value = Value> {
    let text = || prop::sample::select(vec!["", "a", "A", "b", "ä"]);
    prop_oneof![
        4 => scalar(),
        1 => any::<bool>().prop_map(|exists| json!({ "exists": exists })),
        1 => text().prop_map(|text| json!({ "prefix": text })),
        1 => text().prop_map(|text| json!({ "suffix": text })),
        1 => text().prop_map(|text| json!({ "equals-ignore-case": text })),
        1 => (0..2).prop_map(|n| json!({ "numeric": [">", n] })),
        1 => (0..2).prop_map(|n| json!({ "numeric": [">", n, "<=", n + 1] })),
        1 => prop::collection::vec(scalar(), 1..3).prop_map(|values| json!({ "anything-but": values })),
        1 => text().prop_map(|text| json!({ "anything-but": { "prefix": text } })),
    ]
}

fn data_pattern() -> impl Strategy<Value = Value> {
    let leaf = || prop::collection::vec(alternative(), 1..4).prop_map(Value::from);
    let map = |inner: BoxedStrategy<Value>| {
        prop::collection::btree_map(key(), inner, 1..4).prop_map(|map| json!(map))
    };
    leaf().prop_recursive(3, 12, 3, move |inner| {
        let with_or = (map(inner.clone().boxed()), prop::collection::vec(map(inner.clone().boxed()), 1..3))
            .prop_map(|(mut pattern, or)| {
                pattern["$or"] = Value::from(or);
                pattern
            });
        prop_oneof![3 => map(inner.boxed()), 1 => with_or, 2 => prop::collection::vec(alternative(), 1..3).prop_map(Value::from)]
    })
}

fn mqtt_pattern() -> impl Strategy<Value = Value> {
    let some = |values: Vec<Value>| {
        prop::sample::subsequence(values.clone(), 1..=values.len()).prop_map(Value::from)
    };
    prop_oneof![
        some(vec![json!("a"), json!({ "prefix": "a/" }), json!({ "suffix": "x" })])
            .prop_map(|list| json!({ "topic": list })),
        some(vec![json!("c1"), json!("c2"), json!({ "exists": false })])
            .prop_map(|list| json!({ "client": list })),
        some(vec![json!(0), json!(1.0), json!({ "numeric": [">", 1] })])
            .prop_map(|list| json!({ "qos": list })),
        some(vec![json!({ "exists": false }), json!(5)]).prop_map(|list| json!({ "user": list })),
        some(vec![json!("v2"), json!({ "anything-but": ["v1", "v2"] })])
            .prop_map(|list| json!({ "properties": { "k": list } })),
    ]
}

/// Patterns over everything: the payload, the publish, an attribute, and alternatives across them.
fn pattern() -> impl Strategy<Value = Value> {
    let one = || {
        prop_oneof![
            4 => data_pattern().prop_map(|pattern| json!({ "data": pattern })),
            1 => mqtt_pattern().prop_map(|pattern| json!({ "mqtt": pattern })),
            1 => prop::sample::select(vec!["a", "a/b"]).prop_map(|topic| json!({ "subject": [topic] })),
        ]
    };
    let with = |name: &'static str| {
        move |(mut pattern, more): (Value, Value)| {
            pattern[name] = more;
            pattern
        }
    };
    prop_oneof![
        3 => one(),
        1 => (one(), mqtt_pattern()).prop_map(with("mqtt")),
        1 => (one(), prop::collection::vec(one(), 1..3).prop_map(Value::from)).prop_map(with("$or")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn agrees_with_the_plain_reading(
        patterns in prop::collection::vec((prop::sample::select(vec!["#", "a", "a/+", "$x"]), pattern()), 1..8),
        payloads in prop::collection::vec(payload(), 1..4),
    ) {
        let list: Vec<(Vec<&str>, Option<Value>)> =
            patterns.iter().map(|(filter, pattern)| (vec![*filter], Some(pattern.clone()))).collect();
        let set = rules(&list);
        for payload in &payloads {
            for topic in ["a", "a/b", "$x"] {
                let (found, _) = run(&set, topic, &payload.to_string());
                let wanted: Vec<usize> = (0..patterns.len())
                    .filter(|at| filter_matches(patterns[*at].0, topic) && plain_match(&patterns[*at].1, topic, payload))
                    .collect();
                prop_assert_eq!(found, wanted, "{} {}", topic, payload);
            }
        }
    }

    #[test]
    fn any_payload_is_survived(payload in "\\PC*", json in "[\\[\\]{}\",:0-9a-z\\\\ ]{0,40}") {
        let set = rules(&[
            (vec!["#"], Some(json!({ "data": { "a": { "b": [1] }, "c": [{ "exists": false }] } }))),
            (vec!["#"], Some(json!({ "data": [{ "exists": true }] }))),
        ]);
        for payload in [payload, json] {
            let (_, matched) = run(&set, "t", &payload);
            if serde_json::from_str::<Value>(&payload).is_ok() {
                prop_assert!(!matched.not_json);
            }
        }
    }
}
