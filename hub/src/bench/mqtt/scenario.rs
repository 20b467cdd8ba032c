//! [`Scenario`]: what is measured, by its name, and how large.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;

use super::drive::Until;

/// A scenario, in the order in which they are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Scenario {
    /// 100 publishers, 1 subscriber, QoS 0
    FanInQos0,
    /// 100 publishers, 1 subscriber, QoS 1
    FanInQos1,
    /// 1 publisher, 500 subscribers, QoS 0
    FanOutQos0,
    /// 1 publisher, 500 subscribers, QoS 1
    FanOutQos1,
    /// 100 publishers with a subscriber each, QoS 1
    PairsQos1,
    /// Latency at a steady pace, 100 publishers, 1 subscriber, QoS 1
    PacedQos1,
    /// 10,000 connections; with --pid, the memory of each with one subscription
    Connect,
    /// 1,000 messages of 1 KB for 2,000 sessions that are away, QoS 1
    Offline,
    /// SIGKILL under QoS 1 load; only with --compare, which can start a broker again
    Kill,
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// The scenarios to measure, each once and in their order; all if none is named.
pub(super) fn selected(named: &[Scenario], compare: bool) -> Vec<Scenario> {
    let all = Scenario::value_variants().iter().copied();
    let possible = all.filter(|scenario| compare || *scenario != Scenario::Kill || named.contains(scenario));
    possible.filter(|scenario| named.is_empty() || named.contains(scenario)).collect()
}

/// How large the load is.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Size {
    /// How long each scenario publishes
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = tidemill_rules::units::parse_duration)]
    duration: Duration,
    /// How many messages each scenario publishes, in place of a duration; `offline` publishes 1,000 otherwise
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(10..=1_000_000_000))]
    messages: Option<u64>,
    /// Messages a second of `paced-qos1`
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rate: u64,
    /// Bytes of a payload; `offline` has 1,000
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(24..=65_536))]
    payload: u32,
    /// Small sizes, some seconds: shows that it works
    #[arg(long)]
    pub(super) quick: bool,
}

/// Publishing takes this long with `--quick`.
const QUICK: Duration = Duration::from_millis(500);

impl Size {
    /// `full`, or `quick` with `--quick`.
    pub(super) fn scale<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    pub(super) fn until(&self) -> Until {
        match self.messages {
            Some(count) => Until::Sent(count),
            None => Until::Elapsed(self.length()),
        }
    }

    /// How long to publish where it is by time.
    pub(super) fn length(&self) -> Duration {
        if self.quick { QUICK.min(self.duration) } else { self.duration }
    }

    pub(super) fn rate(&self) -> u64 {
        self.rate
    }

    pub(super) fn payload_bytes(&self) -> usize {
        self.payload as usize
    }

    /// Messages for sessions that are away.
    pub(super) fn offline_messages(&self) -> u64 {
        self.messages.unwrap_or(self.scale(1000, 100))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_are_measured_once_and_in_their_order() {
        use Scenario::{Connect, FanInQos0, Kill};
        assert_eq!(selected(&[Connect, FanInQos0, Connect], false), [FanInQos0, Connect]);
        let all = Scenario::value_variants().len();
        assert_eq!([selected(&[], true).len(), selected(&[], false).len()], [all, all - 1]);
        assert_eq!(selected(&[Kill], false), [Kill], "what is asked for by name is refused by name");
        assert_eq!(Scenario::from_str("fan-in-qos0", false), Ok(FanInQos0));
        assert_eq!(FanInQos0.to_string(), "fan-in-qos0");
    }
}
