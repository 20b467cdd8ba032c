//! `tidemill why`: what became of one record, rule by rule and target by target.

use std::fmt::Write;

use serde_json::Value;

use super::api::{Address, shown};
use super::{Failed, print};

/// Tell what became of one record of a running hub
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The record's position, as `tidemill tail` prints it: 0-0000000004d2
    #[arg(value_name = "POSITION")]
    position: String,
    #[command(flatten)]
    hub: Address,
}

pub(super) async fn run(args: Args) -> Result<(), Failed> {
    let response = args.hub.get("/api/v1/explain", &[("position", args.position.clone())]).await?;
    let told: Value =
        response.json().await.map_err(|error| Failed::because(format!("the hub's answer: {error}")))?;
    print(&explained(&told))
}

/// The explanation as indented lines.
fn explained(told: &Value) -> String {
    let text = |value: &Value, key: &str| {
        value.get(key).and_then(Value::as_str).map_or_else(|| "?".to_owned(), shown)
    };
    let list =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let record = told.get("record").unwrap_or(&Value::Null);
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "{} on `{}`, stored {}",
        text(record, "position"),
        text(record, "topic"),
        text(record, "time")
    );
    let _ = writeln!(out, "event id {}", text(told, "event_id"));
    let rules = list(told, "rules");
    if rules.is_empty() {
        out.push_str("the hub has no rules; only MQTT subscribers can get it\n");
    }
    for rule in rules {
        let _ = writeln!(
            out,
            "rule {}: {}: {}",
            text(&rule, "rule"),
            text(&rule, "verdict"),
            text(&rule, "reason")
        );
        for target in list(&rule, "targets") {
            let (name, destination) = (text(&target, "target"), text(&target, "destination"));
            let (verdict, reason) = (text(&target, "verdict"), text(&target, "reason"));
            let _ = writeln!(out, "  {name} ({destination}): {verdict}: {reason}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_like_an_answer() {
        let told = serde_json::json!({
            "record": { "position": "0-0000000004d2", "topic": "vehicles/v1/telemetry", "time": "2026-01-31T12:00:00.000Z" },
            "event_id": "8c7d-0-0000000004d2",
            "rules": [
                { "rule": "overheat", "verdict": "matched", "reason": "it is entry 7 of the rule's queue", "targets": [
                    { "target": "lake", "destination": "kafka topic overheat at localhost:9092", "verdict": "waiting",
                      "reason": "3 entries are before it; the target is being retried: no broker answers" },
                ] },
                { "rule": "faults", "verdict": "filter", "reason": "topic `vehicles/v1/telemetry` matches none of `vehicles/+/fault`" },
            ],
        });
        insta::assert_snapshot!(explained(&told));
    }
}
