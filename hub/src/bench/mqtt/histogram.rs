//! [`Histogram`]: latencies by the hundred million, in 60 KiB and within one part in 128.

/// Buckets for each power of two.
const STEPS: u64 = 128;
const STEPS_LOG2: u32 = STEPS.ilog2();
/// Values below [`STEPS`] have a bucket each; then come `STEPS` buckets for each power of two up to 2^63.
const BUCKETS: usize = ((64 - STEPS_LOG2 as usize) + 1) * STEPS as usize;

/// How often values came, in buckets whose width grows with the value.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    counts: Box<[u64]>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: vec![0; BUCKETS].into(), total: 0, max: 0 }
    }
}

fn bucket(value: u64) -> usize {
    if value < STEPS {
        return value as usize;
    }
    let shift = value.ilog2() - STEPS_LOG2;
    // The leading one of the shifted value is STEPS itself.
    (u64::from(shift) * STEPS + (value >> shift)) as usize
}

/// The highest value of a bucket.
fn highest(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let shift = bucket / STEPS - 1;
    let next = (bucket - shift * STEPS + 1) as u128;
    ((next << shift) - 1).min(u128::from(u64::MAX)) as u64
}

impl Histogram {
    pub(super) fn record(&mut self, value: u64) {
        if let Some(count) = self.counts.get_mut(bucket(value)) {
            *count += 1;
        }
        self.total += 1;
        self.max = self.max.max(value);
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.counts.fill(0);
        (self.total, self.max) = (0, 0);
    }

    /// A value that so many of a hundred values do not exceed; 0 if there are none.
    pub(super) fn percentile(&self, percent: f64) -> u64 {
        let rank = (percent / 100.0 * self.total as f64).ceil().max(1.0) as u64;
        let mut below = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            below += count;
            if below >= rank {
                return highest(bucket).min(self.max);
            }
        }
        self.max
    }

    pub(super) fn max(&self) -> u64 {
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_a_bucket_that_is_narrow_enough() {
        for shift in 0..64 {
            for value in [1_u64 << shift, (1 << shift) + (1 << shift) / 3, (1_u64 << shift) - 1] {
                let index = bucket(value);
                assert!(index < BUCKETS, "{value}");
                let top = highest(index);
                assert!(top >= value && top - value <= value / STEPS, "{value}: {top}");
                assert_eq!(bucket(top), index);
            }
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut histogram = Histogram::default();
        (1..=100_000).for_each(|value| histogram.record(value));
        for (percent, exact) in [(50.0, 50_000), (99.0, 99_000), (99.9, 99_900), (100.0, 100_000)] {
            let found = histogram.percentile(percent);
            assert!(found >= exact && found <= exact + exact / STEPS, "{percent}: {found}");
        }
        assert_eq!(histogram.max(), 100_000);
        histogram.clear();
        assert_eq!((histogram.percentile(50.0), histogram.max()), (0, 0));
    }
}
