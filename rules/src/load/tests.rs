use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::Retry;
use crate::yaml::{self, Source};

fn node(name: &str, text: &str) -> Result<Node, Vec<Diagnostic>> {
    yaml::parse(Arc::new(Source { name: name.into(), text: text.into() }))
}

fn load_text(text: &str) -> Result<RuleSet, String> {
    let listed =
        |errors: Vec<Diagnostic>| errors.iter().map(|e| format!("{e:?}")).collect::<Vec<_>>().join("\n");
    load(&[node("rules.yaml", text).map_err(listed)?]).map_err(listed)
}

/// What is wrong with a rule of these keys.
fn wrong(keys: &str) -> String {
    let text = format!(
        "connections: {{ lake: {{ kafka: {{}} }}, alerts: {{ http: {{}} }} }}\nrules:\n- name: r\n{keys}"
    );
    load_text(&text).expect_err(keys)
}

const EXAMPLE: &str = r#"
connections:
  lake:   { kafka: { brokers: "localhost:9092" } }
  alerts: { http:  { url: "https://functions.example.com/overheat" } }
rules:
  - name: overheat
    description: Engines that run hot
    from: { mqtt: ["vehicles/+/telemetry"] }
    event: { type: com.example.overheat, source: "/vehicles/{{ topic[1] }}", subject: "{{ topic[1] }}" }
    where: { data: { engine: { temp_c: [ { numeric: [">", 110] } ] } } }
    data:  { vehicle: "{{ topic[1] }}", temp_c: "{{ data.engine.temp_c }}" }
    to:
      - lake:   { topic: overheat, key: "{{ topic[1] }}" }
      - alerts: { mode: structured, timeout: 5s, retry: { attempts: 10, for: 1h } }
"#;

#[test]
fn the_example_of_the_design() {
    let set = load_text(EXAMPLE).expect("loads");
    let names: Vec<(&str, &str)> =
        set.connections.iter().map(|c| (c.name.as_str(), c.kind.as_str())).collect();
    assert_eq!(names, [("lake", "kafka"), ("alerts", "http")]);
    let [rule] = set.rules.as_slice() else { panic!("one rule") };
    assert_eq!(rule.name, "overheat");
    assert_eq!(rule.description.as_deref(), Some("Engines that run hot"));
    assert_eq!(rule.filters, ["vehicles/+/telemetry"]);
    let [lake, alerts] = rule.targets.as_slice() else { panic!("two targets") };
    assert_eq!((lake.name.as_str(), lake.retry), ("lake", Retry::default()));
    assert_eq!(lake.body.get("topic").and_then(Node::as_str), Some("overheat"));
    assert_eq!(alerts.retry.attempts, Some(10));
    assert_eq!(alerts.retry.for_, Some(Duration::from_secs(3_600)));
    assert_eq!(alerts.retry.first, Duration::from_millis(100));
    assert!(alerts.body.get("retry").is_none());
    assert_eq!(alerts.body.as_map().map(<[_]>::len), Some(2));
}

#[test]
fn files_merge() {
    let connections =
        node("a.yaml", "connections: { c: { file: { path: x } } }\nmqtt: { listen: x }").expect("parses");
    let rules = node(
        "b.yaml",
        "rules: [{ name: r, from: { mqtt: [a, b, a] }, to: [{ c: }, { c: {} }, { c: { name: c-2 } }, { c: {} }] }]",
    );
    let set =
        load(&[connections, rules.expect("parses"), node("c.yaml", "").expect("parses")]).expect("loads");
    assert_eq!(set.rules[0].filters, ["a", "b"]);
    let names: Vec<&str> = set.rules[0].targets.iter().map(|target| target.name.as_str()).collect();
    assert_eq!(names, ["c", "c-3", "c-2", "c-4"]);
    assert!(set.rules[0].targets[0].body.as_map().is_some_and(<[_]>::is_empty));
}

#[test]
fn nothing_is_a_rule_set_too() {
    let set = load(&[]).expect("loads");
    assert!(set.rules.is_empty() && set.connections.is_empty());
    assert!(load_text("connections:\nrules:\n").is_ok());
}

#[test]
fn names_are_unique_over_all_files() {
    let rule =
        "connections: { c: { file: {} } }\nrules:\n  - { name: r, from: { mqtt: [a] }, to: [{ c: {} }] }\n";
    let errors = load(&[node("a.yaml", rule).expect("parses"), node("b.yaml", rule).expect("parses")])
        .expect_err("twice");
    let errors: Vec<String> = errors.iter().map(|error| format!("{error:?}")).collect();
    insta::assert_snapshot!(errors.join("\n"), @r"
    b.yaml:1:16: a connection `c` is there already (the first one is at a.yaml:1:16)
    b.yaml:3:13: a rule `r` is there already (the first one is at a.yaml:3:13)
    ");
}

#[test]
fn all_problems_are_reported() {
    let text = "
connections:
  lake: { kafka: {}, http: {} }
  'bad name': { file: {} }
rules:
  - name: one
    frm: { mqtt: [a] }
    to: [{ lak: {} }]
  - from: { mqtt: ['a/#/b', '$share/g/a', ''] }
    where: { data: { a: 5 } }
    data: { a: '{{ b }}' }
    to: []
  - 5
";
    insta::assert_snapshot!(load_text(text).expect_err("many"), @r#"
    rules.yaml:3:9: a connection has exactly one kind (as in `lake: { kafka: { brokers: "localhost:9092" } }`)
    rules.yaml:4:3: `bad name` cannot be the name of a connection (letters a-z and A-Z, digits, `-`, `_` and `.`, at most 100)
    rules.yaml:6:5: the key `from` is missing
    rules.yaml:7:5: unknown key `frm` (did you mean `from`?)
    rules.yaml:8:12: there is no connection `lak` (did you mean `lake`?)
    rules.yaml:9:5: the key `name` is missing
    rules.yaml:9:20: `#` must be the last level, and the whole of it (as in `vehicles/#`)
    rules.yaml:9:29: shared subscriptions (`$share/…`) are not for rules (write the filter alone: a rule reads each message once, however many hubs there are)
    rules.yaml:9:43: a topic filter must not be empty (`#` matches every topic)
    rules.yaml:10:25: expected a list of alternatives or a map, found a number (put it in brackets: `[5]`)
    rules.yaml:11:20: unknown `b` (there is `topic`, `topic[1]`, `data`, `data.a.b[0]`, `payload`, `client`, `user`, `qos`, `retain`, `content_type`, `property.NAME`, `id`, `time`; fields of the payload begin with `data.`)
    rules.yaml:12:9: a rule needs at least one target (as in `- lake: { topic: overheat }`)
    rules.yaml:13:5: expected a rule: a map with `name`, `from` and `to`, found a number
    "#);
}

#[test]
fn a_diagnostic_with_its_snippet() {
    let text = EXAMPLE.replace("- alerts:", "- alert: ");
    let errors = load(&[node("rules.yaml", &text).expect("parses")]).expect_err("unknown");
    let rendered: Vec<String> = errors.iter().map(Diagnostic::render).collect();
    insta::assert_snapshot!(rendered.join("\n"), @r#"
     × there is no connection `alert`
       ╭─[rules.yaml:14:9]
    13 │       - lake:   { topic: overheat, key: "{{ topic[1] }}" }
    14 │       - alert:  { mode: structured, timeout: 5s, retry: { attempts: 10, for: 1h } }
       ·         ─────
       ╰────
     help: did you mean `alerts`?
    "#);
}

#[test]
fn rules() {
    let errors = [
        "  from: a\n  to: [{ lake: }]",
        "  from: { mqtt: a }\n  to: [{ lake: }]",
        "  from: { kafka: [a] }\n  to: [{ lake: }]",
        "  from: { mqtt: [5, 'a+'] }\n  to: [{ lake: }]",
        "  from: { mqtt: [a] }\n  filters: []\n  sql: x\n  to: [{ lake: }]",
        "  from: { mqtt: [a] }\n  description: 5\n  to: lake",
        "  from: { mqtt: [a] }\n  to: [lake, { lake: {}, alerts: {} }, { lake: 5 }]",
        "  from: { mqtt: [a] }\n  to: [{ lake: { name: x } }, { alerts: { name: x } }, { lake: { name: a/b } }]",
        "  from: { mqtt: [a] }\n  to: [{ lake: { retry: { attempt: 3 } } }]",
        "  from: { mqtt: [a] }\n  to: [{ lake: { retry: { attempts: 0, first: 0s } } }]",
        "  from: { mqtt: [a] }\n  to: [{ lake: { retry: { for: 5 } } }]",
        "  from: { mqtt: [a] }\n  to: [{ lake: { retry: { first: 1m, max: 1s } } }]",
        "  from: { mqtt: [a] }\n  to: [{ lake: { retry: { attempts: -1 } } }]",
    ]
    .map(wrong);
    insta::assert_snapshot!(errors.join("\n"), @r#"
    rules.yaml:4:9: expected a map with `mqtt`, found text (as in `from: { mqtt: ["vehicles/+/telemetry"] }`)
    rules.yaml:4:17: expected a list of topic filters, found text (as in `from: { mqtt: ["vehicles/+/telemetry"] }`)
    rules.yaml:4:9: the key `mqtt` is missing
    rules.yaml:4:11: unknown key `kafka` (known here: `mqtt`)
    rules.yaml:4:18: expected a topic filter, found a number (put it in quotes)
    rules.yaml:4:21: `+` must be a whole level (as in `vehicles/+/telemetry`)
    rules.yaml:5:3: unknown key `filters` (known here: `name`, `description`, `from`, `where`, `event`, `data`, `to`)
    rules.yaml:6:3: unknown key `sql` (known here: `name`, `description`, `from`, `where`, `event`, `data`, `to`)
    rules.yaml:5:16: expected text, found a number
    rules.yaml:6:7: expected a list of targets, found text (as in `- lake: { topic: overheat }`)
    rules.yaml:5:8: expected a map of one connection, found text (as in `- lake: { topic: overheat }`)
    rules.yaml:5:14: a target is a map of exactly one connection (as in `- lake: { topic: overheat }`)
    rules.yaml:5:48: expected a map, found a number
    rules.yaml:5:49: a target `x` is in this rule already (the first one is at rules.yaml:5:24)
    rules.yaml:5:72: `a/b` cannot be the name of a target (letters a-z and A-Z, digits, `-`, `_` and `.`, at most 100)
    rules.yaml:5:27: unknown key `attempt` (did you mean `attempts`?)
    rules.yaml:5:37: `attempts` must be at least 1 (leave it out to try for ever; 1 is one attempt and no other)
    rules.yaml:5:47: `first` must be longer than 0
    rules.yaml:5:32: `5` is not a duration; write a number with ms, s, m, h or d, as in `100ms`, `5s`, `1h`
    rules.yaml:5:43: `max` is shorter than `first`
    rules.yaml:5:37: expected a whole number from 0 to 4294967295, found `-1`
    "#);
}

#[test]
fn patterns() {
    let errors = [
        "{}",
        "[]",
        "{ dat: { a: [1] } }",
        "{ engine: { a: [1] } }",
        "{ data: 5 }",
        "{ data: { a: x } }",
        "{ data: { a: [] } }",
        "{ data: { a: [[1]] } }",
        "{ data: { a: [{ prefx: x }] } }",
        "{ data: { a: [{ prefix: x, suffix: y }] } }",
        "{ data: { a: [{ prefix: 5 }] } }",
        "{ data: { a: [{ prefix: { suffix: x } }] } }",
        "{ data: { a: [{ exists: maybe }] } }",
        "{ data: { a: [{ wildcard: 'a**b' }] } }",
        "{ data: { a: [{ cidr: 10.0.0.0 }] } }",
        "{ data: { a: [{ numeric: ['>'] }] } }",
        "{ data: { a: [{ numeric: ['!=', 5] }] } }",
        "{ data: { a: [{ numeric: ['=>', 5] }] } }",
        "{ data: { a: [{ numeric: ['>', x] }] } }",
        "{ data: { a: [{ numeric: ['>', 5, '<', 5] }] } }",
        "{ data: { a: [{ numeric: ['>', 5, '>=', 6] }] } }",
        "{ data: { a: [{ anything-but: [] }] } }",
        "{ data: { a: [{ anything-but: { cidr: x } }] } }",
        "{ data: { a: [{ anything-but: [{ prefix: x }] }] } }",
        "{ data: { $or: { a: [1] } } }",
        "{ data: { $or: [{ a: 1 }, 5, {}] } }",
        "{ mqtt: [a] }",
        "{ mqtt: { cliend: [a] } }",
        "{ mqtt: { topic: { a: [1] } } }",
        "{ mqtt: { levels: { x: [1] } } }",
        "{ mqtt: { properties: [x] } }",
        "{ type: { a: [1] } }",
    ]
    .map(|pattern| wrong(&format!("  from: {{ mqtt: [a] }}\n  to: [{{ lake: }}]\n  where: {pattern}")));
    insta::assert_snapshot!(errors.join("\n"), @r#"
    rules.yaml:6:10: an empty pattern (leave it out to match everything)
    rules.yaml:6:10: expected a map, found a list
    rules.yaml:6:12: unknown key `dat` in a pattern (did you mean `data`? fields of the payload stand under `data`)
    rules.yaml:6:12: unknown key `engine` in a pattern (known here: `data`, `mqtt`, `id`, `source`, `type`, `subject`, `time`, `$or`; fields of the payload stand under `data`)
    rules.yaml:6:18: expected a list of alternatives or a map, found a number (put it in brackets: `[5]`)
    rules.yaml:6:23: expected a list of alternatives or a map, found text (put it in brackets: `["x"]`)
    rules.yaml:6:23: an empty list of alternatives is met by nothing
    rules.yaml:6:24: a list cannot stand in a list of alternatives (remove the inner brackets)
    rules.yaml:6:26: unknown operator `prefx` (did you mean `prefix`?)
    rules.yaml:6:24: an alternative has exactly one operator (alternatives are separate items of the list: `[{ prefix: a }, { suffix: b }]`)
    rules.yaml:6:34: expected text, found a number
    rules.yaml:6:36: only `equals-ignore-case` can stand here
    rules.yaml:6:34: expected `true` or `false`, found text
    rules.yaml:6:36: bad wildcard: two `*` in a row (`*` is any text, `\*` an asterisk, `\\` a backslash)
    rules.yaml:6:32: `10.0.0.0` is not a network (as in `10.0.0.0/8` or `2001:db8::/32`; for one address `10.0.0.1/32`)
    rules.yaml:6:35: `numeric` takes pairs of a comparison and a number (as in `[">", 0, "<=", 5]` or `["=", 5]`)
    rules.yaml:6:36: `!=` is not a comparison of `numeric` (`{ anything-but: 5 }`)
    rules.yaml:6:36: expected one of `=`, `<`, `<=`, `>`, `>=` (as in `[">", 0, "<=", 5]` or `["=", 5]`)
    rules.yaml:6:41: expected a number, found text (as in `[">", 0, "<=", 5]` or `["=", 5]`)
    rules.yaml:6:35: no number is in this range
    rules.yaml:6:44: this bound is given twice (as in `[">", 0, "<=", 5]` or `["=", 5]`)
    rules.yaml:6:40: an empty list under `anything-but` (for any value: `{ exists: true }`)
    rules.yaml:6:42: `cidr` cannot stand under `anything-but` (known here: `prefix`, `suffix`, `equals-ignore-case`, `wildcard`)
    rules.yaml:6:41: expected a value, found a map
    rules.yaml:6:25: expected a list of maps, as in `$or: [{ a: [1] }, { b: [2] }]`, found a map
    rules.yaml:6:31: expected a list of alternatives or a map, found a number (put it in brackets: `[1]`)
    rules.yaml:6:36: expected a map, found a number
    rules.yaml:6:39: an empty pattern (leave it out to match everything)
    rules.yaml:6:18: expected a map, found a list
    rules.yaml:6:20: unknown key `cliend` under `mqtt` (did you mean `client`?)
    rules.yaml:6:27: expected a list of alternatives, found a map
    rules.yaml:6:30: `x` is not the number of a topic level (levels count from 0, or from -1 at the end)
    rules.yaml:6:32: expected a map, found a list
    rules.yaml:6:18: expected a list of alternatives, found a map
    "#);
}

#[test]
fn lists_of_a_rule_have_bounds() {
    let filters = format!("  from: {{ mqtt: [{}] }}\n  to: [{{ lake: }}]", "a,".repeat(FILTERS_MAX + 1));
    assert!(wrong(&filters).contains("more than 1000 topic filters"));
    let targets = format!("  from: {{ mqtt: [a] }}\n  to: [{}]", "{ lake: },".repeat(TARGETS_MAX + 1));
    assert!(wrong(&targets).contains("more than 64 targets"));
}

#[test]
fn patterns_have_bounds() {
    let refused =
        |pattern: String| wrong(&format!("  from: {{ mqtt: [a] }}\n  to: [{{ lake: }}]\n  where: {pattern}"));
    let or = "$or: [{ a: [1] }, { b: [1] }]";
    let nested = (0..11).fold(String::from("[1]"), |inner, n| format!("{{ {or}, k{n}: {inner} }}"));
    let too_many = refused(format!("{{ data: {nested} }}"));
    assert!(too_many.contains("too many combinations"), "{too_many}");
    let deep = format!("{{ data: {}[1]{} }}", "{ a: ".repeat(33), " }".repeat(33));
    assert!(refused(deep).contains("nested deeper than 32 levels"));
    let long = format!("{{ data: {{ a: [{}] }} }}", "x".repeat(5_000));
    assert!(refused(long).contains("this text has 5000 bytes"));
    let many = format!("{{ data: {{ a: [{}] }} }}", "1,".repeat(10_001));
    assert!(refused(many).contains("more than 10000 alternatives"));
}

mod never_panics {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn on_any_text(text in "\\PC*") {
            let _ = load_text(&text);
        }

        /// Pieces of a rule file, put together at random.
        #[test]
        fn on_what_is_nearly_a_file(pieces in prop::collection::vec(prop::sample::select(vec![
            "connections:", "rules:", "- ", "  ", "\n", "name: r", "from: ", "{ mqtt: [a] }", "where: ", "data: ", "{", "}",
            "[", "]", "a: ", "$or: ", "prefix: x", "numeric: ", "\">\", 5", "to: ", "lake: ", "kafka: ", ",", "'", "\"",
            "{{ topic }}", "event: ", "type: t", "&x ", "*x ", "!t ", "|", ">", "#", "\t", "exists: false",
        ]), 0..60)) {
            let _ = load_text(&pieces.concat());
        }

        /// A pattern of any shape.
        #[test]
        fn on_any_pattern(pattern in any_yaml()) {
            let _ = load_text(&format!(
                "connections: {{ c: {{ file: {{}} }} }}\nrules: [{{ name: r, from: {{ mqtt: [a] }}, to: [{{ c: }}], where: {pattern} }}]"
            ));
        }
    }

    fn any_yaml() -> impl Strategy<Value = serde_json::Value> {
        use serde_json::{Value, json};
        let word = prop::sample::select(vec![
            "data",
            "mqtt",
            "levels",
            "$or",
            "a",
            "-1",
            "prefix",
            "anything-but",
            "numeric",
            "exists",
            "cidr",
            "wildcard",
            ">",
            "10.0.0.0/8",
        ]);
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            word.clone().prop_map(Value::from)
        ];
        leaf.prop_recursive(5, 32, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(word.clone().prop_map(str::to_owned), inner, 0..4)
                    .prop_map(|map| json!(map)),
            ]
        })
    }
}
