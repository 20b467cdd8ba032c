//! [`Outcome`]: the figures of a scenario and its account, as a table for people and as JSON for programs.

use std::fmt::Write;

use serde_json::json;

use super::busy::Busy;
use super::flow::{Account, Flow};
use super::scenario::Scenario;
use crate::bench::report::number;

/// What a scenario found.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) scenario: Scenario,
    pub(super) figures: Vec<Figure>,
    /// Whether every message was acknowledged by the broker, so that none may be lost or out of order.
    promised: bool,
    account: Option<Account>,
}

/// A measured value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) value: f64,
    pub(super) unit: &'static str,
}

impl Outcome {
    pub(super) fn new(scenario: Scenario) -> Outcome {
        Outcome { scenario, figures: Vec::new(), promised: false, account: None }
    }

    pub(super) fn push(&mut self, name: &'static str, value: f64, unit: &'static str) {
        self.figures.push(Figure { name, value, unit });
    }

    /// The value of a figure.
    pub(super) fn value(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value)
    }

    /// From intended time to arrival.
    pub(super) fn push_latency(&mut self, flow: &Flow) {
        let ms = |ns: u64| ns as f64 / 1e6;
        let latency = &flow.latency;
        self.push("p50", ms(latency.percentile(50.0)), "ms");
        self.push("p99", ms(latency.percentile(99.0)), "ms");
        self.push("p99.9", ms(latency.percentile(99.9)), "ms");
        self.push("max", ms(latency.max()), "ms");
    }

    /// How busy load and broker were.
    pub(super) fn push_busy(&mut self, busy: Busy) {
        self.push("load-cpu", busy.load * 100.0, "% of a core");
        if let Some(broker) = busy.broker {
            self.push("broker-cpu", broker * 100.0, "% of a core");
        }
    }

    pub(super) fn push_account(&mut self, flow: &Flow) {
        let account = flow.account();
        self.push("sent", account.sent as f64, "messages");
        if !flow.drops() {
            self.push("acknowledged", account.acknowledged as f64, "messages");
        }
        self.push("delivered", account.delivered as f64, "messages");
        self.push("lost", account.lost as f64, "messages");
        self.push("duplicated", account.duplicated as f64, "messages");
        self.push("reordered", account.reordered as f64, "messages");
        self.promised = !flow.drops();
        self.account = Some(account);
    }

    /// What the broker promised and did not keep, if anything.
    pub(super) fn broken(&self) -> Option<String> {
        let account = self.account.filter(|_| self.promised)?;
        let unacknowledged = account.sent - account.acknowledged;
        let mut broken = Vec::new();
        for (count, what) in [
            (account.lost, "acknowledged messages were lost"),
            (account.reordered, "messages were out of order"),
        ] {
            if count > 0 {
                broken.push(format!("{} {what}", number(count as f64)));
            }
        }
        if unacknowledged > 0 && self.scenario != Scenario::Kill {
            broken.push(format!("{} messages were never acknowledged", number(unacknowledged as f64)));
        }
        (!broken.is_empty()).then(|| format!("{}: {}", self.scenario, broken.join(", ")))
    }

    /// A JSON object and a line's end for each figure.
    pub(super) fn json(&self) -> String {
        let line = |figure: &Figure| {
            let Figure { name, value, unit } = figure;
            json!({ "scenario": self.scenario.to_string(), "figure": name, "value": value, "unit": unit })
                .to_string()
                + "\n"
        };
        self.figures.iter().map(line).collect()
    }
}

/// The table for people.
pub(super) fn table(outcomes: &[Outcome]) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(out, "{:<13} {:<16} {:>14} unit", "scenario", "figure", "value");
    for outcome in outcomes {
        for Figure { name, value, unit } in &outcome.figures {
            let _ = writeln!(
                out,
                "{:<13} {name:<16} {:>14} {unit}",
                outcome.scenario.to_string(),
                number(*value)
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(account: Account) -> Outcome {
        let mut outcome = Outcome::new(Scenario::FanInQos1);
        outcome.push("rate", 123_456.7, "messages/s");
        outcome.push("p99", 1.25, "ms");
        Outcome { promised: true, account: Some(account), ..outcome }
    }

    #[test]
    fn the_table_and_the_json_say_the_same() {
        let outcome = outcome(Account::default());
        assert_eq!(
            table(std::slice::from_ref(&outcome)),
            "scenario      figure                    value unit\n\
             fan-in-qos1   rate                    123,457 messages/s\n\
             fan-in-qos1   p99                        1.25 ms\n"
        );
        assert_eq!(
            outcome.json(),
            "{\"figure\":\"rate\",\"scenario\":\"fan-in-qos1\",\"unit\":\"messages/s\",\"value\":123456.7}\n\
             {\"figure\":\"p99\",\"scenario\":\"fan-in-qos1\",\"unit\":\"ms\",\"value\":1.25}\n"
        );
        assert_eq!(outcome.value("p99"), Some(1.25));
    }

    #[test]
    fn what_was_promised_is_held_against_what_came() {
        let good = Account { sent: 10, acknowledged: 10, delivered: 10, duplicated: 3, ..Account::default() };
        assert_eq!(outcome(good).broken(), None, "duplicates are allowed and counted");
        let bad = Account { lost: 2, reordered: 1, acknowledged: 9, ..good };
        let told = "fan-in-qos1: 2 acknowledged messages were lost, 1 messages were out of order, 1 messages were never acknowledged";
        assert_eq!(outcome(bad).broken().as_deref(), Some(told));
        assert_eq!(Outcome { promised: false, ..outcome(bad) }.broken(), None, "QoS 0 promises nothing");
    }
}
