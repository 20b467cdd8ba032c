//! What one sees: the live view of a terminal, and the lines for everything else. Text only; no I/O.

use std::fmt::Write;
use std::time::Duration;

use super::ledger::Account;
use super::sample::{Sample, TargetSample, per_second};
use crate::delivery::State;

/// What the live view says besides the numbers.
pub(super) struct Phase<'a> {
    /// How many vehicles there are.
    pub(super) vehicles: u32,
    /// What is going on: `publishing, 12 s of 20 s`.
    pub(super) doing: &'a str,
    /// Where MQTT and HTTP of the hub are, for those who want to look for themselves.
    pub(super) addresses: &'a str,
}

/// What somebody who has no terminal should know first.
pub(super) struct Intro<'a> {
    /// How many vehicles there are.
    pub(super) vehicles: u32,
    /// Reports of all of them in a second.
    pub(super) rate: u32,
    /// For how long they publish.
    pub(super) length: Duration,
    /// How many rules the hub has.
    pub(super) rules: usize,
    /// Where MQTT and HTTP of the hub are.
    pub(super) addresses: &'a str,
    /// Directory of the hub's data and the archive.
    pub(super) data: &'a str,
    /// Whether it is still there afterwards.
    pub(super) stays: bool,
}

/// The first lines for those without a terminal.
pub(super) fn intro(intro: &Intro<'_>) -> String {
    let Intro { vehicles, rate, length, rules, addresses, data, stays } = intro;
    let after = if *stays { "stays there" } else { "is removed in the end" };
    format!(
        "demo: a hub with {vehicles} vehicles that publish {rate} reports a second for {length:?}; {addresses}\n\
         demo: {rules} rules send events to an HTTP function and to a file; the data is in {data} and {after}\n"
    )
}

/// The live view.
pub(super) fn frame(before: &Sample, now: &Sample, phase: &Phase<'_>) -> String {
    let mut out = String::new();
    let rate = |number: fn(&Sample) -> u64| grouped(per_second(before, now, number));
    // Writing to a string does not fail.
    let _ = writeln!(out, "tidemill demo · {}", phase.doing);
    let _ = writeln!(out, "{}", phase.addresses);
    let _ = writeln!(out);
    let _ =
        writeln!(out, "{:<12} {:>10} of {}", "vehicles", grouped(now.online), grouped(phase.vehicles.into()));
    let _ =
        writeln!(out, "{:<12} {:>10}/s {:>14}", "published", rate(|s| s.published), grouped(now.published));
    let _ = writeln!(
        out,
        "{:<12} {:>10}/s {:>14}   log {:.1} MiB",
        "stored",
        rate(|s| s.stored),
        grouped(now.stored),
        now.log_bytes as f64 / f64::from(1 << 20)
    );
    let function = if now.function_up { "up" } else { "DOWN" };
    let _ = writeln!(out, "{:<12} {function:>10}", "function");
    let _ = writeln!(out);
    let _ = writeln!(
        out,
        "{:<16} {:>10}   {:<12} {:>12} {:>12} {:>9} {:>8} {:>6}  state",
        "rule", "matched/s", "target", "delivered/s", "delivered", "lag", "retries", "dead"
    );
    for (index, rule) in now.rules.iter().enumerate() {
        let matched = per_second(before, now, |s| s.rules.get(index).map_or(0, |rule| rule.matched));
        for (place, target) in rule.targets.iter().enumerate() {
            let delivered =
                per_second(before, now, |s| target_of(s, index, place).map_or(0, |target| target.delivered));
            let (name, matched) =
                if place == 0 { (&*rule.name, grouped(matched)) } else { ("", String::new()) };
            let _ = writeln!(
                out,
                "{name:<16} {matched:>10}   {:<12} {:>12} {:>12} {:>9} {:>8} {:>6}  {}",
                target.name,
                grouped(delivered),
                grouped(target.delivered),
                grouped(target.lag),
                grouped(target.retries),
                grouped(target.dead_letters),
                state(target.state),
            );
        }
    }
    let _ = writeln!(out);
    let _ = writeln!(out, "o: take the HTTP function down or up    q: stop and account");
    out
}

/// One line for those without a terminal.
pub(super) fn line(before: &Sample, now: &Sample, doing: &str) -> String {
    format!(
        "demo: {doing}: published {}/s, stored {}/s, matched {}/s, delivered {}/s, lag {}, retries {}, dead letters {}, \
         function {}",
        per_second(before, now, |s| s.published),
        per_second(before, now, |s| s.stored),
        per_second(before, now, Sample::matched),
        per_second(before, now, |s| s.total(|target| target.delivered)),
        now.total(|target| target.lag),
        now.total(|target| target.retries),
        now.total(|target| target.dead_letters),
        if now.function_up { "up" } else { "down" },
    )
}

/// The account, its last line the one that scripts read.
pub(super) fn account(account: &Account, matched: u64) -> String {
    let mut out = String::new();
    for stream in &account.streams {
        let _ = write!(
            out,
            "demo: {}: expected {}, arrived {}, lost {}",
            stream.stream.name(),
            stream.expected,
            stream.arrived,
            stream.lost
        );
        let _ = match stream.unexpected {
            0 => writeln!(out),
            unexpected => writeln!(out, ", UNEXPECTED {unexpected}"),
        };
    }
    if account.unreadable > 0 {
        let _ = writeln!(out, "demo: {} arrivals are no events of the demo", account.unreadable);
    }
    if account.unconfirmed > 0 {
        let _ = writeln!(
            out,
            "demo: {} reports were sent and not acknowledged; they may arrive or not",
            account.unconfirmed
        );
    }
    let _ = writeln!(
        out,
        "demo: duplicates {} (sent again after an outage, under the same CloudEvents id)",
        account.duplicates
    );
    let _ = writeln!(
        out,
        "demo: published {}, matched {matched}, delivered {}, lost {}",
        account.published,
        account.delivered(),
        account.lost()
    );
    out
}

fn target_of(sample: &Sample, rule: usize, target: usize) -> Option<&TargetSample> {
    sample.rules.get(rule)?.targets.get(target)
}

fn state(state: State) -> &'static str {
    match state {
        State::Running => "running",
        State::Retrying => "retrying",
        State::Stopped => "stopped",
    }
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::demo::ledger::{Arrivals, Ledger, ReportKey};
    use crate::demo::sample::RuleSample;
    use crate::demo::vehicle::Facts;

    fn sample(at: Instant, factor: u64) -> Sample {
        let target = |name: &str, state| TargetSample {
            name: name.to_owned(),
            delivered: 90 * factor,
            lag: 1234,
            retries: 5,
            dead_letters: 0,
            state,
        };
        Sample {
            at,
            published: 3000 * factor,
            stored: 3000 * factor,
            log_bytes: 3 << 20,
            online: 990,
            router_lag: 0,
            function_up: false,
            rules: vec![RuleSample {
                name: "critical-fault".to_owned(),
                matched: 100 * factor,
                targets: vec![target("function", State::Retrying), target("archive", State::Running)],
            }],
        }
    }

    #[test]
    fn the_live_view_and_the_lines() {
        let start = Instant::now();
        let (before, now) = (sample(start, 4), sample(start + Duration::from_secs(2), 8));
        let phase =
            Phase { vehicles: 1000, doing: "publishing, 8 s of 20 s", addresses: "mqtt 127.0.0.1:1883" };
        insta::assert_snapshot!(frame(&before, &now, &phase));
        insta::assert_snapshot!(line(&before, &now, "8 s of 20 s"));
    }

    #[test]
    fn the_first_lines_say_what_it_is() {
        let told = intro(&Intro {
            vehicles: 1000,
            rate: 3000,
            length: Duration::from_secs(20),
            rules: 4,
            addresses: "mqtt 127.0.0.1:1883   http://127.0.0.1:8080/api/v1/rules",
            data: "/tmp/tidemill-demo-x",
            stays: false,
        });
        insta::assert_snapshot!(told, @r"
        demo: a hub with 1000 vehicles that publish 3000 reports a second for 20s; mqtt 127.0.0.1:1883   http://127.0.0.1:8080/api/v1/rules
        demo: 4 rules send events to an HTTP function and to a file; the data is in /tmp/tidemill-demo-x and is removed in the end
        ");
    }

    #[test]
    fn the_account_ends_with_its_line() {
        let (mut ledger, arrivals) = (Ledger::default(), Arrivals::default());
        let facts = Facts::Fault { code: "P0217", severity: "critical" };
        ledger.acknowledged(ReportKey { vehicle: 1, seq: 1 }, &facts);
        insta::assert_snapshot!(account(&ledger.account(&arrivals), 2));
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
