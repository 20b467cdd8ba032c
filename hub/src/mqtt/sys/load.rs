//! [`Loads`]: how much there was in a minute, averaged over one, five and fifteen.

use tokio::time::Instant;

use super::super::BrokerStats;

/// Minutes that are averaged over.
const MINUTES: [u32; 3] = [1, 5, 15];

/// A count that only grows.
type Count = fn(&BrokerStats) -> u64;

/// What is averaged: its name below `$SYS/broker/load/`, and the count that it grows with.
const SOURCES: [(&str, Count); 9] = [
    ("messages/received", |stats| stats.packets_in),
    ("messages/sent", |stats| stats.packets_out),
    ("publish/received", |stats| stats.published),
    ("publish/sent", |stats| stats.delivered),
    ("publish/dropped", |stats| stats.dropped()),
    ("bytes/received", |stats| stats.bytes_in),
    ("bytes/sent", |stats| stats.bytes_out),
    ("connections", |stats| stats.accepted),
    ("sockets", |stats| stats.opened),
];

/// Averages that forget exponentially, as those of a Unix system do.
pub(super) struct Loads {
    at: Instant,
    loads: [Load; SOURCES.len()],
}

#[derive(Clone, Copy, Default)]
struct Load {
    count: u64,
    per_minute: [f64; MINUTES.len()],
}

impl Loads {
    pub(super) fn new(stats: &BrokerStats, now: Instant) -> Self {
        let loads = SOURCES.map(|(_, of)| Load { count: of(stats), ..Load::default() });
        Loads { at: now, loads }
    }

    /// Takes in what was counted since the last time.
    pub(super) fn advance(&mut self, stats: &BrokerStats, now: Instant) {
        let passed_min = now.saturating_duration_since(self.at).as_secs_f64() / 60.0;
        if passed_min <= 0.0 {
            return;
        }
        self.at = now;
        for (load, (_, of)) in self.loads.iter_mut().zip(SOURCES) {
            let count = of(stats);
            let rate = count.saturating_sub(load.count) as f64 / passed_min;
            load.count = count;
            for (average, minutes) in load.per_minute.iter_mut().zip(MINUTES) {
                let kept = (-passed_min / f64::from(minutes)).exp();
                *average = rate + kept * (*average - rate);
            }
        }
    }

    /// Every average: the name of what, over how many minutes, how many in a minute.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'static str, u32, f64)> {
        self.loads.iter().zip(SOURCES).flat_map(|(load, (name, _))| {
            load.per_minute.into_iter().zip(MINUTES).map(move |(average, minutes)| (name, minutes, average))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn of<'a>(loads: &'a Loads, name: &'a str) -> impl Iterator<Item = f64> + 'a {
        loads.all().filter(move |(found, ..)| *found == name).map(|(_, _, average)| average)
    }

    #[test]
    fn averages_come_to_the_rate_and_forget_it() {
        let start = Instant::now();
        let stats =
            |seconds: u64| BrokerStats { published: seconds.min(3_600) * 10, ..BrokerStats::default() };
        let mut loads = Loads::new(&stats(0), start);
        for seconds in (10..=3_600).step_by(10) {
            loads.advance(&stats(seconds), start + Duration::from_secs(seconds));
            if seconds == 60 {
                let first: Vec<f64> = of(&loads, "publish/received").collect();
                assert!((first[0] - 600.0 * (1.0 - (-1.0_f64).exp())).abs() < 1e-6, "{first:?}");
                assert!(first[0] > first[1] && first[1] > first[2], "{first:?}");
            }
        }
        // An hour at 600 in a minute.
        assert!(of(&loads, "publish/received").all(|average| (average - 600.0).abs() < 12.0));
        assert!(of(&loads, "publish/sent").all(|average| average == 0.0));
        loads.advance(&stats(9_000), start + Duration::from_secs(9_000));
        assert!(of(&loads, "publish/received").all(|average| average < 2.0));
        loads.advance(&stats(9_000), start);
        assert!(loads.all().all(|(_, _, average)| average.is_finite()), "a clock that stands still");
    }
}
