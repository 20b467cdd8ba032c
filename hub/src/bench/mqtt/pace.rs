//! [`Pace`]: when each message is to be sent, whatever became of those before it.

/// An even pace. What could not be sent in time stays due from when it was meant to be sent: a broker that stalls is not given
/// time by the load that waits for it (no coordinated omission).
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    began_ns: u64,
    per_s: u64,
    /// Messages sent.
    sent: u64,
}

const SECOND_NS: u64 = 1_000_000_000;

impl Pace {
    /// Messages a second, the first one at once. At least one.
    pub(super) fn new(began_ns: u64, per_s: u64) -> Pace {
        Pace { began_ns, per_s: per_s.max(1), sent: 0 }
    }

    /// When the next message is to be sent.
    pub(super) fn next_ns(&self) -> u64 {
        let after = u128::from(self.sent) * u128::from(SECOND_NS) / u128::from(self.per_s);
        self.began_ns + after as u64
    }

    /// The next message's number and when it was to be sent, if that has come.
    pub(super) fn due(&self, now_ns: u64) -> Option<(u64, u64)> {
        let next_ns = self.next_ns();
        (next_ns <= now_ns).then_some((self.sent, next_ns))
    }

    /// The one that was due is sent.
    pub(super) fn sent(&mut self) {
        self.sent += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_due_evenly_and_without_drift() {
        let mut pace = Pace::new(500, 3);
        let due: Vec<u64> = (0..7)
            .map(|_| {
                let next = pace.next_ns();
                pace.sent();
                next
            })
            .collect();
        let third = SECOND_NS / 3;
        assert_eq!(due[..3], [500, 500 + third, 500 + 2 * third]);
        assert_eq!(due[6], 500 + 2 * SECOND_NS, "fractions do not add up");
    }

    #[test]
    fn a_stall_does_not_move_what_was_due() {
        let mut pace = Pace::new(0, 1_000);
        assert_eq!(pace.due(0), Some((0, 0)));
        pace.sent();
        assert_eq!(pace.due(999_999), None);
        let mut caught_up = Vec::new();
        while let Some((number, intended_ns)) = pace.due(3_000_000) {
            caught_up.push((number, intended_ns));
            pace.sent();
        }
        assert_eq!(caught_up, [(1, 1_000_000), (2, 2_000_000), (3, 3_000_000)]);
    }
}
