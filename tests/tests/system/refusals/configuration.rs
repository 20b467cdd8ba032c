//! Configurations that `tidemill check` and `tidemill serve` refuse, with the place and a hint.

use std::fs;

use tidemill_tests::pki::Authority;
use tidemill_tests::place::{Marked, marked};
use tidemill_tests::ports;
use tidemill_tests::services::tidemill::tidemill;

/// What is wrong, the file with `«` before the place, and words of the message and of the hint.
const BAD: &[(&str, &str, &[&str])] = &[
    (
        "malformed YAML",
        r#"
connections:
  hook: { http: { url: "http://127.0.0.1:1/" } }
rules:
  - name: one
    from: { mqtt: ["a/#"«
"#,
        &[],
    ),
    (
        "a key that is there twice",
        r#"
rules:
  - name: one
    from: { mqtt: ["a/#"] }
    «name: two
"#,
        &["name"],
    ),
    (
        "an unknown connection",
        r#"
connections:
  hook: { http: { url: "http://127.0.0.1:1/" } }
rules:
  - name: one
    from: { mqtt: ["a/#"] }
    event: { type: t, source: /s }
    to: [ «hoook: {} ]
"#,
        &["hoook", "`hook`"],
    ),
    (
        "an operator that does not exist",
        r#"
connections:
  hook: { http: { url: "http://127.0.0.1:1/" } }
rules:
  - name: one
    from: { mqtt: ["a/#"] }
    event: { type: t, source: /s }
    where: { data: { kind: [ { «prefx: "x" } ] } }
    to: [ hook: {} ]
"#,
        &["prefx", "prefix"],
    ),
    (
        "an operator with the wrong kind of value",
        r#"
connections:
  hook: { http: { url: "http://127.0.0.1:1/" } }
rules:
  - name: one
    from: { mqtt: ["a/#"] }
    event: { type: t, source: /s }
    where: { data: { temp: [ { numeric: [">", «"hot"] } ] } }
    to: [ hook: {} ]
"#,
        &["number"],
    ),
    (
        "two rules of one name",
        r#"
connections:
  hook: { http: { url: "http://127.0.0.1:1/" } }
rules:
  - name: one
    from: { mqtt: ["a/#"] }
    event: { type: t, source: /s }
    to: [ hook: {} ]
  - name: «one
    from: { mqtt: ["b/#"] }
    event: { type: t, source: /s }
    to: [ hook: {} ]
"#,
        &["one"],
    ),
    (
        "a topic filter that cannot be",
        r#"
connections:
  hook: { http: { url: "http://127.0.0.1:1/" } }
rules:
  - name: one
    from: { mqtt: [«"a/#/b"] }
    event: { type: t, source: /s }
    to: [ hook: {} ]
"#,
        &["a/#/b"],
    ),
    (
        "a template that does not end",
        r#"
connections:
  hook: { http: { url: "http://127.0.0.1:1/" } }
rules:
  - name: one
    from: { mqtt: ["a/#"] }
    event: { type: t, source: "/s/«{{ topic[1] " }
    to: [ hook: {} ]
"#,
        &["{{"],
    ),
    (
        "a kind of connection that does not exist",
        r#"
connections:
  hook: { «htp: { url: "http://127.0.0.1:1/" } }
rules: []
"#,
        &["htp", "http"],
    ),
    (
        "a key that a target does not have",
        r#"
connections:
  lake: { kafka: { brokers: "127.0.0.1:1" } }
rules:
  - name: one
    from: { mqtt: ["a/#"] }
    event: { type: t, source: /s }
    to: [ lake: { «topik: x } ]
"#,
        &["topik", "topic"],
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_names_the_place_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    for (what, text, words) in BAD {
        let Marked { text, line, column } = marked(text);
        fs::write(dir.path().join("bad.yaml"), text).unwrap();
        let ended = tidemill(dir.path(), &["check", "bad.yaml"]).await;
        assert_eq!(ended.status.code(), Some(1), "{what}: {}", ended.output());
        let output = ended.output();
        // Where malformed YAML stops making sense is the parser's to say, within the last lines.
        let place = format!("bad.yaml:{line}:{column}");
        let found = match words.is_empty() {
            true => {
                output.contains(&format!("bad.yaml:{line}:"))
                    || output.contains(&format!("bad.yaml:{}:", line + 1))
            }
            false => output.contains(&place),
        };
        assert!(found, "{what}: {place} is not in: {output}");
        for word in *words {
            assert!(output.contains(word), "{what}: {word:?} is not in: {output}");
        }
        assert!(output.contains("help:"), "{what}: no hint in: {output}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_reports_all_problems_of_all_files_at_once() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("good.yaml"), "rules: []\n").unwrap();
    let two = "rules:\n  - name: one\n    from: { mqtt: [\"a/#/b\"] }\n  - name: two\n    from: {}\n";
    fs::write(dir.path().join("bad.yaml"), two).unwrap();
    let ended = tidemill(dir.path(), &["check", "good.yaml", "bad.yaml", "missing.yaml"]).await;
    assert_eq!(ended.status.code(), Some(1));
    let output = ended.output();
    for place in ["good.yaml: ok", "bad.yaml:3:", "bad.yaml:5:", "missing.yaml"] {
        assert!(output.contains(place), "{place} is not in: {output}");
    }
    let ended = tidemill(dir.path(), &["check", "good.yaml"]).await;
    assert!(ended.status.success(), "{}", ended.output());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serve_refuses_the_same_and_touches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for (what, text, _) in BAD {
        let Marked { text, line, .. } = marked(text);
        fs::write(dir.path().join("bad.yaml"), text).unwrap();
        let mqtt = ports::free_address().to_string();
        let arguments =
            ["serve", "--data-dir", "data", "--mqtt", &mqtt, "--http", "127.0.0.1:0", "--rules", "bad.yaml"];
        let ended = tidemill(dir.path(), &arguments).await;
        assert_eq!(ended.status.code(), Some(1), "{what}: {}", ended.output());
        let place = format!("bad.yaml:{line}:");
        let found =
            ended.output().contains(&place) || ended.output().contains(&format!("bad.yaml:{}:", line + 1));
        assert!(found, "{what}: {place} is not in: {}", ended.output());
        assert_eq!(ended.stdout, "", "{what}: nothing is ready");
        assert!(!dir.path().join("data").exists(), "{what}: a data directory was made");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serve_listens_on_loopback_only_unless_told_in_so_many_words() {
    let dir = tempfile::tempdir().unwrap();
    let ended = tidemill(dir.path(), &["serve", "--data-dir", "data", "--mqtt", "0.0.0.0:0"]).await;
    assert_eq!(ended.status.code(), Some(1), "{}", ended.output());
    assert!(ended.output().contains("0.0.0.0:0"), "{}", ended.output());
    assert!(ended.output().contains("--allow-anonymous"), "{}", ended.output());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_reads_the_certificates_that_a_listener_names() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("servers");
    authority.server(1).write(dir.path(), "one");
    authority.server(2).write(dir.path(), "two");
    authority.expired().write(dir.path(), "old");
    for (name, certificate, key, good, words) in [
        ("good", "one.pem", "one.key", true, "ok"),
        ("missing", "none.pem", "one.key", false, "cannot read `none.pem`"),
        (
            "mixed up",
            "one.pem",
            "two.key",
            false,
            "the key `two.key` is not that of the certificate `one.pem`",
        ),
        ("swapped", "one.key", "one.pem", false, "`one.key` has no certificate"),
        ("expired", "old.pem", "old.key", true, "warning: "),
    ] {
        let text = format!(
            "mqtt:\n  listeners:\n    - name: a\n      address: 127.0.0.1:0\n      tls:\n        \
             certificate: {certificate}\n        key: {key}\n"
        );
        fs::write(dir.path().join("tls.yaml"), text).unwrap();
        let ended = tidemill(dir.path(), &["check", "tls.yaml"]).await;
        assert_eq!(ended.status.success(), good, "{name}: {}", ended.output());
        assert!(ended.output().contains(words), "{name}: {}", ended.output());
        if !good {
            let line = if words.contains("key `") { 7 } else { 6 };
            assert!(ended.output().contains(&format!("tls.yaml:{line}:")), "{name}: {}", ended.output());
        }
    }
}
