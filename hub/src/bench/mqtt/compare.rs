//! `tidemill bench mqtt --compare`: Tidemill beside mosquitto, under the same load on the same machine, run by turns.

use super::broker::{Broker, Brokers, Kind};
use super::outcome::Outcome;
use super::scenario::{Scenario, Size};
use super::{Stop, Target, kill, measure};
use crate::bench::Result;
use crate::bench::measure::median;
use crate::bench::report::{Line, Must, number};
use crate::mqtt::codec::Version;

/// A row of the table: a figure of a scenario, and what is required of it.
struct Row {
    name: &'static str,
    scenario: Scenario,
    figure: &'static str,
    /// Which Tidemill the value is of.
    of: Kind,
    must: Must,
}

const fn row(name: &'static str, scenario: Scenario, figure: &'static str, must: Must) -> Row {
    Row { name, scenario, figure, of: Kind::Tidemill, must }
}

const ROWS: &[Row] = &[
    row("fan-in-qos0", Scenario::FanInQos0, "rate", Must::OfLimit(4.2)),
    row("fan-in-qos1", Scenario::FanInQos1, "rate", Must::OfLimit(4.4)),
    row("fan-out-qos0", Scenario::FanOutQos0, "rate", Must::OfLimit(6.6)),
    row("fan-out-qos1", Scenario::FanOutQos1, "rate", Must::OfLimit(9.0)),
    row("pairs-qos1", Scenario::PairsQos1, "rate", Must::OfLimit(4.4)),
    row("paced-p99", Scenario::PacedQos1, "p99", Must::UpTo(2.0)),
    Row { of: Kind::TidemillAsync, ..row("paced-p99-async", Scenario::PacedQos1, "p99", Must::UpTo(1.2)) },
    row("connect", Scenario::Connect, "rate", Must::OfLimit(2.6)),
    row("idle-memory", Scenario::Connect, "idle-memory", Must::AtMost(4096.0)),
    row("offline-publish", Scenario::Offline, "publish-rate", Must::OfLimit(130.0)),
    row("offline-drain", Scenario::Offline, "drain-rate", Must::OfLimit(4.1)),
    row("offline-memory", Scenario::Offline, "memory-growth", Must::AtMost(16.0)),
    row("offline-disk", Scenario::Offline, "disk-growth", Must::AtMost(2.0)),
    row("kill-lost", Scenario::Kill, "lost", Must::AtMost(0.0)),
];

/// Figures of which is told how busy broker and load were: with a load that was busy all the time, they may be the load's.
const LIMITED: [&str; 3] = ["rate", "p99", "drain-rate"];

/// The tail of latencies is made of the machine's pauses, and a broker's queue of connections runs over or does not: what depends so much on
/// chance is measured so many times as often.
const CHANCY_RUNS: usize = 3;

/// What is compared, and how.
pub(super) struct Compare {
    pub(super) brokers: Brokers,
    pub(super) size: Size,
    pub(super) version: Version,
    pub(super) runs: usize,
    pub(super) stop: Stop,
}

impl Compare {
    /// The rows of a scenario. What Tidemill has promised and not kept is added to `broken`.
    pub(super) fn lines(&self, scenario: Scenario, broken: &mut Vec<String>) -> Result<Vec<Line>> {
        let rows = || ROWS.iter().filter(|row| row.scenario == scenario);
        let mut kinds = vec![Kind::Tidemill];
        kinds.extend(self.brokers.mosquitto.as_ref().map(|_| Kind::Mosquitto));
        if rows().any(|row| row.of == Kind::TidemillAsync) {
            kinds.push(Kind::TidemillAsync);
        }
        let mut outcomes: Vec<(Kind, Outcome)> = Vec::new();
        let runs = match scenario {
            Scenario::PacedQos1 | Scenario::Connect => self.runs * CHANCY_RUNS,
            _ => self.runs,
        };
        for run in 0..runs {
            for kind in &kinds {
                eprintln!("bench: {scenario}: run {} of {runs}: {kind}", run + 1);
                let outcome = self.once(*kind, scenario)?;
                if let Some(what) = outcome.broken() {
                    eprintln!("bench: {kind}: {what}");
                    if *kind != Kind::Mosquitto {
                        broken.push(format!("{kind}: {what}"));
                    }
                }
                outcomes.push((*kind, outcome));
            }
        }
        Ok(rows().filter_map(|row| line(row, &outcomes)).collect())
    }

    /// One scenario with a broker that has just started, on an empty directory.
    fn once(&self, kind: Kind, scenario: Scenario) -> Result<Outcome> {
        let mut broker: Broker = self.brokers.start(kind, &self.stop)?;
        let mut target = Target {
            address: broker.address(),
            version: self.version,
            pid: Some(broker.pid()),
            data_dir: Some(broker.data_dir()),
            stop: self.stop.clone(),
        };
        if scenario == Scenario::Kill {
            return kill::measure(&self.brokers, &mut broker, &mut target, &self.size);
        }
        measure(scenario, &target, &self.size)
    }
}

/// The median of a figure of one broker; `None` if it has none.
fn value(kind: Kind, figure: &str, outcomes: &[(Kind, Outcome)]) -> Option<f64> {
    let own = outcomes.iter().filter(|(of, _)| *of == kind);
    let values: Vec<f64> = own.filter_map(|(_, outcome)| outcome.value(figure)).collect();
    (!values.is_empty()).then(|| median(&values))
}

fn line(row: &Row, outcomes: &[(Kind, Outcome)]) -> Option<Line> {
    let (_, outcome) = outcomes.first()?;
    let unit = outcome.figures.iter().find(|figure| figure.name == row.figure)?.unit;
    let line = Line::new(row.name, value(row.of, row.figure, outcomes)?, unit, row.must);
    let line = match value(Kind::Mosquitto, row.figure, outcomes) {
        Some(limit) => line.limit(limit),
        None => line,
    };
    if !LIMITED.contains(&row.figure) {
        return Some(line);
    }
    let busy = |kind| {
        let cpu = |figure| value(kind, figure, outcomes).map(number);
        let (broker, load) = cpu("broker-cpu").zip(cpu("load-cpu"))?;
        Some(format!("{kind} {broker} %, load {load} %"))
    };
    let notes: Vec<String> = [row.of, Kind::Mosquitto].into_iter().filter_map(busy).collect();
    Some(line.note(notes.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(values: &[(Kind, f64)]) -> Vec<(Kind, Outcome)> {
        let outcome = |value: f64| {
            let mut outcome = Outcome::new(Scenario::FanInQos0);
            outcome.push("rate", value, "deliveries/s");
            outcome.push("load-cpu", 50.0, "% of a core");
            outcome.push("broker-cpu", 100.0, "% of a core");
            outcome
        };
        values.iter().map(|(kind, value)| (*kind, outcome(*value))).collect()
    }

    #[test]
    fn medians_are_held_against_each_other() {
        let outcomes = outcomes(&[
            (Kind::Tidemill, 430.0),
            (Kind::Mosquitto, 90.0),
            (Kind::Tidemill, 100.0),
            (Kind::Mosquitto, 100.0),
            (Kind::Tidemill, 500.0),
            (Kind::Mosquitto, 200.0),
        ]);
        let line = line(&ROWS[0], &outcomes).unwrap();
        assert_eq!((line.value, line.limit, line.ok()), (430.0, Some(100.0), Some(true)));
        assert_eq!(line.note, "Tidemill 100 %, load 50 %; mosquitto 100 %, load 50 %");
    }

    #[test]
    fn without_mosquitto_nothing_is_held_against_it() {
        let line = line(&ROWS[0], &outcomes(&[(Kind::Tidemill, 430.0)])).unwrap();
        assert_eq!((line.value, line.limit, line.ok()), (430.0, None, None));
    }

    #[test]
    fn every_scenario_has_a_row() {
        use clap::ValueEnum;
        for scenario in Scenario::value_variants() {
            assert!(ROWS.iter().any(|row| row.scenario == *scenario), "{scenario}");
        }
    }
}
