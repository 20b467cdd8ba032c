//! [`Backoff`]: how long to wait before the next attempt.

use std::time::Duration;

use rand::Rng;

/// Longest wait that a destination can ask for with Retry-After.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Exponential back-off with jitter: the wait doubles from `first` to `max`, and half of it is random, so that
/// targets that failed together do not come back together.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    first: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits from `first` to `max`.
    pub(super) fn new(first: Duration, max: Duration) -> Self {
        Backoff { first: first.min(max), max, failures: 0 }
    }

    /// The destination works: the next failure waits `first` again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait after one more failure; at least what the destination asked for.
    pub(super) fn failed(&mut self, retry_after: Option<Duration>, random: &mut impl Rng) -> Duration {
        let doubled = self.first.saturating_mul(1u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1).min(31);
        let asked = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
        jittered(doubled.min(self.max), random).max(asked)
    }

    /// The wait when a person has to change something first.
    pub(super) fn stopped(&self, random: &mut impl Rng) -> Duration {
        jittered(self.max, random)
    }
}

/// Between half of `wait` and all of it.
fn jittered(wait: Duration, random: &mut impl Rng) -> Duration {
    wait.mul_f64(random.random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn doubles_to_the_maximum_with_jitter_below() {
        let mut random = StdRng::seed_from_u64(1);
        let mut backoff = Backoff::new(100 * MS, 3000 * MS);
        for step in 0..100 {
            let full = (100 * MS).saturating_mul(1 << step.min(20)).min(3000 * MS);
            let wait = backoff.failed(None, &mut random);
            assert!(wait >= full / 2 && wait <= full, "step {step}: {wait:?} of {full:?}");
        }
        backoff.reset();
        assert!(backoff.failed(None, &mut random) <= 100 * MS);
    }

    #[test]
    fn two_targets_do_not_wait_alike() {
        let waits = |seed| Backoff::new(MS * 1000, MS * 1000).failed(None, &mut StdRng::seed_from_u64(seed));
        assert_ne!(waits(1), waits(2));
    }

    #[test]
    fn retry_after_is_kept_up_to_an_hour() {
        let mut random = StdRng::seed_from_u64(1);
        let mut backoff = Backoff::new(100 * MS, 3000 * MS);
        assert_eq!(backoff.failed(Some(Duration::from_secs(20)), &mut random), Duration::from_secs(20));
        assert_eq!(backoff.failed(Some(Duration::from_secs(99_999)), &mut random), RETRY_AFTER_MAX);
    }
}
