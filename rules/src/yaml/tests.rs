use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::*;
use crate::{Diagnostic, Template};

fn parse_text(text: &str) -> Result<Node, Vec<Diagnostic>> {
    parse(Arc::new(Source { name: "t.yaml".into(), text: text.into() }))
}

fn good(text: &str) -> Node {
    parse_text(text).expect("parses")
}

fn listed(errors: &[Diagnostic]) -> String {
    errors.iter().map(|error| format!("{error:?}")).collect::<Vec<_>>().join("\n")
}

#[test]
fn nodes_know_their_places() {
    let root = good("ä:\n  list: [1, 'two', {x: y}]\n  block:\n    - text that is\n      folded\n");
    let inner = root.get("ä").expect("ä");
    let place = |node: &Node| {
        let at = node.diagnostic("");
        (at.line, at.column, at.length)
    };
    assert_eq!(place(&root.entry("ä").expect("ä").0), (1, 1, 1));
    assert_eq!(place(inner), (2, 3, 4));
    let list = inner.get("list").expect("list");
    assert_eq!(place(list), (2, 9, 18));
    let items = list.as_seq().expect("a list");
    assert_eq!(items.iter().map(place).collect::<Vec<_>>(), [(2, 10, 1), (2, 13, 5), (2, 20, 6)]);
    assert_eq!(place(items[2].get("x").expect("x")), (2, 24, 1));
    let folded = &inner.get("block").and_then(Node::as_seq).expect("a list")[0];
    assert_eq!((folded.as_str(), place(folded)), (Some("text that is folded"), (4, 7, 12)));
}

#[test]
fn values() {
    let root = good("{a: 1, b: '1', c: true, d: , e: !!str 5, 6: six, no: yes, f: \"x\\ny\"}");
    assert_eq!(
        root.to_json(),
        serde_json::json!({ "a": 1, "b": "1", "c": true, "d": null, "e": "5", "6": "six", "no": "yes", "f": "x\ny" })
    );
    assert!(good("").is_null());
    assert!(good("# only a comment\n").is_null());
    assert!(good("---\n...\n").is_null());
}

#[test]
fn a_map_without_some_keys() {
    let root = good("{a: 1, b: 2, c: 3}");
    let rest = root.without(&["b", "z"]);
    assert_eq!(rest.to_json(), serde_json::json!({ "a": 1, "c": 3 }));
    assert_eq!((rest.line(), rest.column()), (root.line(), root.column()));
}

#[test]
fn syntax_errors_have_places_and_hints() {
    let errors: Vec<String> = [
        "a: 1\nb: 2\na: 3\nb: 4\n",
        "a:\n\tb: 1\n",
        "a: \"never closed\n",
        "a: [1, 2\n",
        "a: {b: 1\n",
        "a: b: c\n",
        "a: *nothing\n",
        "a: &x [*x]\n",
        "a: 1\n---\nb: 2\n",
        "a: !thing 5\n",
        "a: !!map {}\n",
        "? [1]\n: 2\n",
        "~: 1\n",
        "<<: {a: 1}\n",
        "a: .inf\nb: 99999999999999999999\n",
        "a: 1\n b: 2\n",
        "a: 'x' y\n",
        "@a: 1\n",
        "- a\nb: 1\n",
    ]
    .iter()
    .map(|text| listed(&parse_text(text).expect_err(text)))
    .collect();
    insta::assert_snapshot!(errors.join("\n"), @r"
    t.yaml:3:1: key `a` is written twice in this map (the first one is on line 1)
    t.yaml:4:1: key `b` is written twice in this map (the first one is on line 2)
    t.yaml:2:2: a tab is used for indentation (YAML is indented with spaces)
    t.yaml:2:1: text in quotes goes on here, in a line that is not indented (add the closing quote, or indent the line)
    t.yaml:1:4: this list's `[` is never closed (add the closing `]`)
    t.yaml:1:4: this map's `{` is never closed (add the closing `}`)
    t.yaml:1:5: a `key: value` pair cannot stand here (text that has `: ` in it needs quotes; or the indentation is wrong)
    t.yaml:1:4: this alias refers to no anchor (write `&name` at the value it should stand for)
    t.yaml:1:8: this alias stands inside the value it refers to
    t.yaml:2:1: a second document starts here; a file holds one (remove the `---`, or use two files)
    t.yaml:1:4: the tag `!thing` is not supported (values have the type they are written as; put text in quotes)
    t.yaml:1:4: the tag `!!map` is not supported (values have the type they are written as; put text in quotes)
    t.yaml:1:3: a map key must be a word or text, not a list
    t.yaml:1:1: a map key is missing before the `:`
    t.yaml:1:1: merge keys (`<<`) are not part of YAML 1.2 and are not supported
    t.yaml:1:4: `.inf`: infinite numbers and not-a-number are not supported (put it in quotes if it is meant as text)
    t.yaml:2:4: `99999999999999999999`: the number does not fit into 64 bits (put it in quotes if it is meant as text)
    t.yaml:2:3: a `key: value` pair cannot stand here (text that has `: ` in it needs quotes; or the indentation is wrong)
    t.yaml:1:8: invalid trailing content after single-quoted scalar
    t.yaml:1:1: text without quotes cannot begin with `@` (put it in quotes)
    t.yaml:2:1: expected `- ` for the next item of the list (check the indentation)
    ");
}

#[test]
fn aliases_stand_for_their_anchor_but_not_for_ever() {
    let root = good("a: &x { b: [1, 2] }\nc: *x\n");
    assert_eq!(root.get("c").map(Node::to_json), root.get("a").map(Node::to_json));
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..20 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    assert!(listed(&parse_text(&bomb).expect_err("a bomb")).contains("counting what aliases stand for"));
}

#[test]
fn depth_and_size_are_bounded() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(parse_text(&nested(DEPTH_MAX)).is_ok());
    for text in [nested(DEPTH_MAX + 1), nested(100_000)] {
        assert!(listed(&parse_text(&text).expect_err("deep")).contains("nested deeper"));
    }
    let indented: String = (0..100).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    assert!(listed(&parse_text(&indented).expect_err("deep")).contains("nested deeper"));
    assert!(parse_text(&"x".repeat(SOURCE_BYTES_MAX + 1)).is_err());
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only decoding matters here")]
struct Config {
    brokers: String,
    port: Option<u16>,
    #[serde(default)]
    mode: Mode,
    #[serde(default)]
    headers: BTreeMap<String, Template>,
    #[serde(default)]
    nested: Vec<Inner>,
    #[serde(default, deserialize_with = "crate::units::duration_option")]
    timeout: Option<std::time::Duration>,
    #[serde(default, deserialize_with = "crate::units::size_option")]
    limit: Option<u64>,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    #[default]
    Binary,
    Structured,
    Tuned(Inner),
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Inner {
    value: i8,
}

#[test]
fn decoding() {
    let text = "brokers: b\nport: 9092\nmode: { tuned: { value: -5 } }\nheaders: { a: '{{ topic }}', n: 5 }\nnested: [{ value: 1 }]\ntimeout: 5s\nlimit: 1MiB\n";
    let config: Config = good(text).decode().expect("decodes");
    assert_eq!((config.brokers.as_str(), config.port), ("b", Some(9092)));
    assert_eq!(config.mode, Mode::Tuned(Inner { value: -5 }));
    assert_eq!(config.nested, [Inner { value: 1 }]);
    assert_eq!(config.headers.get("n"), Some(&Template::constant("5")));
    assert_eq!(config.limit, Some(1 << 20));
    let config: Config = good("{ brokers: b, mode: structured, port: ~ }").decode().expect("decodes");
    assert_eq!((config.mode, config.port), (Mode::Structured, None));
}

#[test]
fn decoding_errors_have_the_exact_place() {
    let errors: Vec<String> = [
        "brokers: b\nbroker: c\n",
        "port: 1\n",
        "brokers: 5\n",
        "brokers: b\nport: 70000\n",
        "brokers: b\nport: x\n",
        "brokers: b\nmode: structure\n",
        "brokers: b\nmode: tuned\n",
        "brokers: b\nmode: { binary: 1 }\n",
        "brokers: b\nmode: { tuned: { valu: 1 } }\n",
        "brokers: b\nmode: [binary]\n",
        "brokers: b\nheaders: { a: x, b: '{{ topik }}' }\n",
        "brokers: b\nnested: [{ value: 1 }, { value: 300 }]\n",
        "brokers: b\nnested: { value: 1 }\n",
        "brokers: b\ntimeout: 5\n",
        "brokers: b\nlimit: 5 MB\n",
        "[]",
        "",
    ]
    .iter()
    .map(|text| listed(&good(text).decode::<Config>().expect_err(text)))
    .collect();
    insta::assert_snapshot!(errors.join("\n"), @r"
    t.yaml:2:1: unknown key `broker` (did you mean `brokers`?)
    t.yaml:1:1: the key `brokers` is missing
    t.yaml:1:10: expected text, found `5` (put it in quotes)
    t.yaml:2:7: expected a whole number from 0 to 65535, found `70000`
    t.yaml:2:7: expected a whole number from 0 to 65535, found text
    t.yaml:2:7: unknown value `structure` (did you mean `structured`?)
    t.yaml:2:7: `tuned` needs a value: `tuned: …`
    t.yaml:2:17: `binary` takes no value
    t.yaml:2:18: unknown key `valu` (did you mean `value`?)
    t.yaml:2:7: expected a word or a map of one key, found a list
    t.yaml:2:21: in the template at character 4: unknown `topik`; did you mean `topic`? there is `topic`, `topic[1]`, `data`, `data.a.b[0]`, `payload`, `client`, `user`, `qos`, `retain`, `content_type`, `property.NAME`, `id`, `time`
    t.yaml:2:33: expected a whole number from -128 to 127, found `300`
    t.yaml:2:9: expected a list, found a map
    t.yaml:2:10: `5` is not a duration; write a number with ms, s, m, h or d, as in `100ms`, `5s`, `1h`
    t.yaml:2:8: `5 MB` is not a size; write a number with B, KB, MB, GB, TB, KiB, MiB, GiB or TiB, as in `10B` or `64KiB`
    t.yaml:1:1: expected a map, found a list
    t.yaml:1:1: expected a map, found nothing
    ");
}

#[test]
fn places_within_text() {
    let root = good("plain: abc def\nquoted: 'abc def'\nescaped: \"a\\tc def\"\n");
    let within = |key: &str| {
        let at = root.get(key).expect(key).diagnostic_within(4..7, "");
        (at.line, at.column, at.length)
    };
    assert_eq!(within("plain"), (1, 12, 3));
    assert_eq!(within("quoted"), (2, 14, 3));
    assert_eq!(within("escaped"), (3, 10, 10));
}

mod never_panics {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn on_any_text(text in "\\PC*") {
            if let Err(errors) = parse_text(&text) {
                let _ = errors.iter().map(Diagnostic::render).collect::<Vec<_>>();
            }
        }

        #[test]
        fn on_what_is_nearly_yaml(pieces in prop::collection::vec(prop::sample::select(vec![
            "a", "b: ", "- ", " ", "  ", "\n", "\r\n", "\t", "{", "}", "[", "]", ",", ":", "? ", "&x ", "*x", "!!str ", "!t ", "'", "\"",
            "\\", "|", ">", "#", "---\n", "...\n", "%YAML 1.2\n", "<<", "~", "1.5", "ü", "\u{feff}", "\u{2028}",
        ]), 0..40)) {
            if let Err(errors) = parse_text(&pieces.concat()) {
                let _ = errors.iter().map(Diagnostic::render).collect::<Vec<_>>();
            }
        }
    }
}
