//! [`Intervals`]: numeric ranges, to find those around a number.

use std::cmp::Ordering;

use crate::pattern::{Num, Range};

/// Numeric ranges, to find those around a number without looking at all of them: sorted by their lower bounds, as
/// an implicit balanced tree in which each node knows the highest upper bound below it.
#[derive(Debug, Default)]
pub(super) struct Intervals {
    items: Vec<Interval>,
}

#[derive(Debug)]
struct Interval {
    /// `None` is without bound.
    lower: Option<Num>,
    upper: Upper,
    /// The highest `upper` of the half-open slice that this item is the middle of.
    highest: Upper,
    conjunction: u32,
}

/// An upper bound; `None` is without, and above all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Upper(Option<Num>);

impl Ord for Upper {
    fn cmp(&self, other: &Upper) -> Ordering {
        match (self.0, other.0) {
            (Some(a), Some(b)) => a.cmp(&b),
            (a, b) => a.is_none().cmp(&b.is_none()),
        }
    }
}

impl PartialOrd for Upper {
    fn partial_cmp(&self, other: &Upper) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Intervals {
    pub(super) fn insert(&mut self, range: &Range, conjunction: u32) {
        let upper = Upper(range.upper.map(|bound| bound.value));
        let lower = range.lower.map(|bound| bound.value);
        self.items.push(Interval { lower, upper, highest: upper, conjunction });
    }

    /// To be called after the last [`Intervals::insert`].
    pub(super) fn finish(&mut self) {
        self.items.sort_by_key(|item| item.lower);
        raise(&mut self.items);
    }

    /// Appends the conjunctions whose range has the number in it, or at one of its ends.
    pub(super) fn look_up(&self, number: Num, out: &mut Vec<u32>) {
        collect(&self.items, number, out);
    }
}

/// Sets `highest` in a slice, and gives it.
fn raise(items: &mut [Interval]) -> Option<Upper> {
    let middle = items.len() / 2;
    let (left, rest) = items.split_at_mut(middle);
    let (item, right) = rest.split_first_mut()?;
    let highest = [Some(item.upper), raise(left), raise(right)].into_iter().flatten().max()?;
    item.highest = highest;
    Some(highest)
}

fn collect(items: &[Interval], number: Num, out: &mut Vec<u32>) {
    let (left, rest) = items.split_at(items.len() / 2);
    let Some((item, right)) = rest.split_first() else { return };
    let wanted = Upper(Some(number));
    if item.highest < wanted {
        return;
    }
    collect(left, number, out);
    if item.lower.is_none_or(|lower| lower <= number) {
        if item.upper >= wanted {
            out.push(item.conjunction);
        }
        collect(right, number, out);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pattern::Bound;

    proptest! {
        #[test]
        fn finds_what_a_look_at_all_finds(
            ranges in prop::collection::vec((prop::option::of(-9_i64..9), prop::option::of(-9_i64..9)), 0..40),
            number in -10_i64..10,
        ) {
            let bound = |value: i64| Bound { value: Num::from(value), included: true };
            let ranges: Vec<Range> = ranges
                .into_iter()
                .map(|(lower, upper)| Range { lower: lower.map(bound), upper: upper.map(bound) })
                .collect();
            let mut intervals = Intervals::default();
            for (at, range) in ranges.iter().enumerate() {
                intervals.insert(range, at as u32);
            }
            intervals.finish();
            let mut found = Vec::new();
            intervals.look_up(Num::from(number), &mut found);
            found.sort_unstable();
            let wanted: Vec<u32> = (0..ranges.len() as u32)
                .filter(|at| ranges[*at as usize].contains(Num::from(number)))
                .collect();
            prop_assert_eq!(found, wanted);
        }
    }
}
