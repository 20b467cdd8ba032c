//! [`Busy`]: who was at work, the load or the broker. A figure of a load that was busy all the time says little of the broker.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::Target;
use crate::bench::{Result, measure};

/// Processor time used up to a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    at: Instant,
    /// By this thread, which is the load.
    load: Duration,
    /// By the broker, if it is known which process that is.
    broker: Option<Duration>,
}

/// Parts of a core that were used between two moments.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Busy {
    pub(super) load: f64,
    pub(super) broker: Option<f64>,
}

impl Used {
    pub(super) fn now(target: &Target) -> Result<Used> {
        let load = Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default();
        Ok(Used { at: Instant::now(), load, broker: target.pid.map(measure::cpu_of).transpose()? })
    }

    pub(super) fn until(&self, later: &Used) -> Busy {
        let took = self.took(later).as_secs_f64();
        let part = |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64() / took;
        let broker = self.broker.zip(later.broker);
        Busy { load: part(self.load, later.load), broker: broker.map(|(from, to)| part(from, to)) }
    }

    pub(super) fn took(&self, later: &Used) -> Duration {
        later.at.duration_since(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_told_from_waiting() {
        let target = Target::unknown(std::process::id());
        let began = Used::now(&target).unwrap();
        while began.at.elapsed() < Duration::from_millis(50) {
            std::hint::black_box(began);
        }
        let worked = Used::now(&target).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        let slept = worked.until(&Used::now(&target).unwrap());
        assert!(began.until(&worked).load > 2.0 * slept.load && slept.broker.is_some());
    }
}
