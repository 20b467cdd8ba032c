//! [`Bucket`]: a rate with a burst.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SECOND_NS: u64 = 1_000_000_000;

/// When this process first asked a bucket. Times of buckets are nanoseconds since then.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Now.
pub(super) fn now_ns() -> u64 {
    u64::try_from(BEGAN.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// A time as the rest of the program has it.
pub(super) fn instant(at_ns: u64) -> tokio::time::Instant {
    tokio::time::Instant::from_std(*BEGAN + Duration::from_nanos(at_ns))
}

/// Something may be taken so and so often in a second, and what was not taken for a while all at once, up to the burst.
/// What is taken although it is not there is a debt: the next has to wait for longer.
///
/// All it keeps is when it will be full again (the generic cell rate algorithm), so that nothing has to fill it, and
/// many can share it without a lock.
#[derive(Debug)]
pub(in crate::mqtt) struct Bucket {
    per_s: u64,
    /// The burst: how long an empty bucket takes to be full.
    fills_ns: u64,
    full_at_ns: AtomicU64,
}

impl Bucket {
    /// A full bucket; `None` for a rate of 0, which is no limit. It holds what comes in `burst`, and at least one.
    pub(in crate::mqtt) fn new(per_s: u64, burst: Duration) -> Option<Self> {
        if per_s == 0 {
            return None;
        }
        let burst_ns = u64::try_from(burst.as_nanos()).unwrap_or(u64::MAX);
        Some(Bucket { per_s, fills_ns: burst_ns.max(time_ns(1, per_s)), full_at_ns: AtomicU64::new(0) })
    }

    /// Takes `count`, whether they are there or not.
    pub(super) fn take(&self, count: u64, now_ns: u64) {
        let cost_ns = time_ns(count, self.per_s);
        let after = |full_at: u64| Some(full_at.max(now_ns).saturating_add(cost_ns));
        // It always has an answer, so that it is always updated.
        let _ = self.full_at_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after);
    }

    /// When one is there; `None` if one is there now.
    pub(super) fn ready_at(&self, now_ns: u64) -> Option<u64> {
        let one_ns = time_ns(1, self.per_s);
        let full_at_ns = self.full_at_ns.load(Ordering::Relaxed);
        let ready_ns = full_at_ns.saturating_add(one_ns).saturating_sub(self.fills_ns);
        (ready_ns > now_ns).then_some(ready_ns)
    }

    /// Takes one if it is there.
    pub(in crate::mqtt) fn try_take(&self) -> bool {
        let now_ns = now_ns();
        let there = self.ready_at(now_ns).is_none();
        if there {
            self.take(1, now_ns);
        }
        there
    }
}

/// How long `count` take to come.
fn time_ns(count: u64, per_s: u64) -> u64 {
    let time = u128::from(count) * u128::from(SECOND_NS) / u128::from(per_s.max(1));
    u64::try_from(time).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BURST: Duration = Duration::from_secs(1);

    /// How many are there at once, at a time.
    fn there(bucket: &Bucket, now_ns: u64) -> u64 {
        (0..)
            .find(|_| {
                bucket.ready_at(now_ns).is_some() || {
                    bucket.take(1, now_ns);
                    false
                }
            })
            .unwrap_or(0)
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        assert!(Bucket::new(0, BURST).is_none(), "0 is no limit");
        let bucket = Bucket::new(10, BURST).unwrap();
        let start = 5 * SECOND_NS;
        assert_eq!(there(&bucket, start), 10);
        assert_eq!(bucket.ready_at(start), Some(start + SECOND_NS / 10));
        assert_eq!(there(&bucket, start + SECOND_NS / 2), 5);
        assert_eq!(
            there(&bucket, start + 100 * SECOND_NS),
            10,
            "no more than the burst however long it rests"
        );
    }

    #[test]
    fn a_debt_is_waited_for() {
        let bucket = Bucket::new(1_000, BURST).unwrap();
        bucket.take(6_000, 0);
        assert_eq!(bucket.ready_at(0), Some(5 * SECOND_NS + SECOND_NS / 1_000));
        assert_eq!(bucket.ready_at(6 * SECOND_NS), None);
    }

    #[test]
    fn the_shortest_burst_is_one() {
        let bucket = Bucket::new(1, Duration::ZERO).unwrap();
        assert_eq!(there(&bucket, 0), 1);
        assert_eq!((there(&bucket, SECOND_NS - 1), there(&bucket, SECOND_NS)), (0, 1));
        let fast = Bucket::new(u64::MAX, BURST).unwrap();
        fast.take(u64::MAX, 0);
        assert!(fast.ready_at(u64::MAX).is_none());
    }

    proptest! {
        /// Whoever takes only what is there gets the burst and the rate, and not more.
        #[test]
        fn no_more_than_the_rate(per_s in 1..5_000_u64, steps in proptest::collection::vec(0..500_u64, 1..100)) {
            let bucket = Bucket::new(per_s, BURST).unwrap();
            let (mut now_ns, mut taken) = (0, 0);
            for step_ms in steps {
                now_ns += step_ms * 1_000_000;
                if bucket.ready_at(now_ns).is_none() {
                    bucket.take(1, now_ns);
                    taken += 1;
                }
                let most = per_s + (u128::from(per_s) * u128::from(now_ns) / u128::from(SECOND_NS)) as u64 + 1;
                prop_assert!(taken <= most, "{taken} in {now_ns} ns, and no more than {most}");
            }
        }
    }
}
