//! What may go wrong for every client at once is told of one of them at a time: [`seldom`].

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How often a thing is told at most.
const EVERY: Duration = Duration::from_secs(10);

/// Something that may happen again and again.
pub(super) struct Told(Mutex<Last>);

struct Last {
    told: Option<Instant>,
    left_out: u64,
}

impl Told {
    pub(super) const fn new() -> Told {
        Told(Mutex::new(Last { told: None, left_out: 0 }))
    }

    /// Whether it is to be told that it happened at `now`, and how often that was left out before.
    pub(super) fn again(&self, now: Instant) -> Option<u64> {
        let mut last = self.0.lock();
        if last.told.is_some_and(|told| now.duration_since(told) < EVERY) {
            last.left_out += 1;
            return None;
        }
        last.told = Some(now);
        Some(std::mem::take(&mut last.left_out))
    }
}

/// Tells what happened here if it was not told a moment ago, and how often that was left out (`left_out`). All that is left out is
/// told at the level `debug`.
macro_rules! seldom {
    ($level:ident, $($what:tt)+) => {{
        static TOLD: $crate::mqtt::told::Told = $crate::mqtt::told::Told::new();
        match TOLD.again(std::time::Instant::now()) {
            Some(left_out) => tracing::$level!(left_out, $($what)+),
            None => tracing::debug!($($what)+),
        }
    }};
}
pub(super) use seldom;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_again_and_again_is_told_seldom() {
        let (told, began) = (Told::new(), Instant::now());
        assert_eq!(told.again(began), Some(0));
        assert!((0..5).all(|second| told.again(began + Duration::from_secs(second)).is_none()));
        assert_eq!(told.again(began + EVERY), Some(5));
        assert_eq!(told.again(began + EVERY), None);
        assert_eq!(told.again(began + 3 * EVERY), Some(1));
    }
}
