//! [`Track`]: which numbers of a sequence were seen: exactly, and at the cost of one counter as long as they come in order.

use std::collections::BTreeMap;
use std::ops::Range;

/// What is new about a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The next one, or one further on; those in between are missing for now.
    Ahead,
    /// One that was missing: it comes after one that is behind it in the sequence.
    Late,
    /// One that was there before.
    Again,
}

/// The numbers from 0 that were seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Track {
    /// One more than the highest that was seen.
    end: u64,
    /// What is missing below `end`: where each range begins, and its end. They do not touch.
    missing: BTreeMap<u64, u64>,
    /// Numbers that came late.
    late: u64,
    /// Numbers that came again.
    again: u64,
}

impl Track {
    pub(super) fn see(&mut self, number: u64) -> Seen {
        if number >= self.end {
            if number > self.end {
                self.missing.insert(self.end, number);
            }
            self.end = number + 1;
            return Seen::Ahead;
        }
        match self.missing_around(number) {
            Some(range) => {
                self.missing.remove(&range.start);
                if range.start < number {
                    self.missing.insert(range.start, number);
                }
                if number + 1 < range.end {
                    self.missing.insert(number + 1, range.end);
                }
                self.late += 1;
                Seen::Late
            }
            None => {
                self.again += 1;
                Seen::Again
            }
        }
    }

    fn missing_around(&self, number: u64) -> Option<Range<u64>> {
        let (start, end) = self.missing.range(..=number).next_back()?;
        (number < *end).then_some(*start..*end)
    }

    /// Whether a number was seen.
    pub(super) fn has(&self, number: u64) -> bool {
        number < self.end && self.missing_around(number).is_none()
    }

    /// The lowest number that was not seen.
    pub(super) fn first_missing(&self) -> u64 {
        self.missing.first_key_value().map_or(self.end, |(start, _)| *start)
    }

    /// The numbers below `end` that were not seen.
    pub(super) fn missing_below(&self, end: u64) -> impl Iterator<Item = u64> {
        let inside = self.missing.iter().map(|(start, end)| *start..*end);
        inside
            .chain(std::iter::once(self.end..u64::MAX))
            .flat_map(move |range| range.start..range.end.min(end))
    }

    pub(super) fn late(&self) -> u64 {
        self.late
    }

    pub(super) fn again(&self) -> u64 {
        self.again
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lost_late_and_duplicated_are_told_apart() {
        let mut track = Track::default();
        let seen: Vec<Seen> = [0, 1, 4, 3, 3, 0, 7].map(|number| track.see(number)).to_vec();
        assert_eq!(
            seen,
            [Seen::Ahead, Seen::Ahead, Seen::Ahead, Seen::Late, Seen::Again, Seen::Again, Seen::Ahead]
        );
        assert_eq!(track.missing_below(10).collect::<Vec<_>>(), [2, 5, 6, 8, 9]);
        assert_eq!((track.late(), track.again(), track.first_missing()), (1, 2, 2));
        assert!(track.has(4) && !track.has(2) && !track.has(8));
    }

    proptest! {
        #[test]
        fn it_knows_what_a_set_knows(numbers in prop::collection::vec(0_u64..60, 0..200)) {
            let (mut track, mut set) = (Track::default(), HashSet::new());
            for number in numbers {
                let highest = set.iter().max().copied();
                let expected = match (set.insert(number), highest) {
                    (false, _) => Seen::Again,
                    (true, Some(highest)) if number < highest => Seen::Late,
                    (true, _) => Seen::Ahead,
                };
                prop_assert_eq!(track.see(number), expected);
            }
            let missing: Vec<u64> = (0..70).filter(|number| !set.contains(number)).collect();
            prop_assert_eq!(track.first_missing(), missing[0]);
            prop_assert_eq!(track.missing_below(70).collect::<Vec<_>>(), missing);
            prop_assert!((0..70).all(|number| track.has(number) == set.contains(&number)));
        }
    }
}
