//! What one match costs, by the number of rules: `cargo run --release -p tidemill-rules --example matcher_cost`.
//!
//! Each event is matched by one rule. The rules differ in a value of the payload, in a numeric range, or in their topic.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tidemill_rules::yaml::{self, Source};
use tidemill_rules::{Context, Message, RuleSet};

const MATCHES: u32 = 100_000;

/// The keys of the rule of a number.
type Body = fn(usize) -> String;

fn main() {
    let kinds: [(&str, Body); 3] = [
        ("by value", |n| {
            format!(
                "from: {{ mqtt: ['v/+/t'] }}, where: {{ data: {{ kind: [telemetry], vehicle: [v{n}] }} }}"
            )
        }),
        ("by range", |n| {
            format!(
                "from: {{ mqtt: ['v/+/t'] }}, where: {{ data: {{ position: [{{ numeric: ['>=', {n}, '<', {n}.5] }}] }} }}"
            )
        }),
        ("by topic", |n| {
            format!(
                "from: {{ mqtt: ['v/v{n}/t'] }}, where: {{ data: {{ temp_c: [{{ numeric: ['>', 90] }}] }} }}"
            )
        }),
    ];
    println!("{:<10} {:>8} {:>12}", "rules", "count", "ns/match");
    for (name, body) in kinds {
        for count in [10, 100, 1_000, 10_000] {
            println!("{name:<10} {count:>8} {:>12.0}", nanoseconds(&rules(count, body)));
        }
    }
}

fn rules(count: usize, body: Body) -> RuleSet {
    let list: String =
        (0..count).map(|n| format!("- {{ name: r{n}, {}, to: [{{ c: }}] }}\n", body(n))).collect();
    let text = format!("connections: {{ c: {{ file: {{}} }} }}\nrules:\n{list}");
    let node = yaml::parse(Arc::new(Source { name: "rules.yaml".into(), text })).expect("parses");
    tidemill_rules::load(&[node]).expect("loads")
}

fn nanoseconds(rules: &RuleSet) -> f64 {
    let payload = Bytes::from_static(
        br#"{"kind":"telemetry","vehicle":"v7","position":7.25,"temp_c":93.5,"speed":51.2,"faults":[],"battery":{"volts":12.6}}"#,
    );
    let message = Message {
        id: "log/7",
        topic: "v/v7/t",
        payload: &payload,
        time_ms: 0,
        client: "v7",
        user: None,
        qos: 1,
        retain: false,
        content_type: None,
        user_properties: &[],
    };
    let mut out = Vec::new();
    let start = Instant::now();
    for _ in 0..MATCHES {
        rules.matches(&mut Context::new(black_box(&message)), &mut out);
        assert_eq!(black_box(&out).len(), 1);
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(MATCHES)
}
