//! [`Shape`]: who publishes to whom.

use std::ops::Range;

/// Publishers, subscribers, and whose messages each subscriber gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// So many publishers, one subscriber to all of them.
    FanIn(usize),
    /// One publisher, so many subscribers.
    FanOut(usize),
    /// So many publishers, each with a subscriber of its own.
    Pairs(usize),
}

impl Shape {
    pub(super) fn publishers(self) -> usize {
        match self {
            Shape::FanIn(count) | Shape::Pairs(count) => count,
            Shape::FanOut(_) => 1,
        }
    }

    pub(super) fn subscribers(self) -> usize {
        match self {
            Shape::FanOut(count) | Shape::Pairs(count) => count,
            Shape::FanIn(_) => 1,
        }
    }

    /// How many subscribers get each message.
    pub(super) fn copies(self) -> u64 {
        match self {
            Shape::FanOut(count) => count as u64,
            Shape::FanIn(_) | Shape::Pairs(_) => 1,
        }
    }

    /// The publishers whose messages a subscriber gets.
    pub(super) fn publishers_of(self, subscriber: usize) -> Range<usize> {
        match self {
            Shape::FanIn(_) | Shape::FanOut(_) => 0..self.publishers(),
            Shape::Pairs(_) => subscriber..subscriber + 1,
        }
    }

    /// What a subscriber subscribes to.
    pub(super) fn filter(self, run: u32, subscriber: usize) -> String {
        match self {
            Shape::FanIn(_) | Shape::FanOut(_) => format!("bench/{run:08x}/+"),
            Shape::Pairs(_) => self.topic(run, subscriber),
        }
    }

    /// What a publisher publishes to.
    pub(super) fn topic(self, run: u32, publisher: usize) -> String {
        format!("bench/{run:08x}/{publisher}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::codec::topic;

    #[test]
    fn filters_match_the_topics_of_their_publishers_and_no_others() {
        for shape in [Shape::FanIn(12), Shape::FanOut(12), Shape::Pairs(12)] {
            let mut copies = 0;
            for subscriber in 0..shape.subscribers() {
                let filter = shape.filter(7, subscriber);
                assert!(topic::is_filter(&filter));
                for publisher in 0..shape.publishers() {
                    let name = shape.topic(7, publisher);
                    topic::check_name(&name).unwrap();
                    let wanted = filter == name || filter.ends_with('+');
                    assert_eq!(wanted, shape.publishers_of(subscriber).contains(&publisher));
                    copies += u64::from(wanted);
                }
            }
            assert_eq!(copies, shape.copies() * shape.publishers() as u64);
        }
    }
}
