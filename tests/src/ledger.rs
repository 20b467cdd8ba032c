//! What was published against what arrived. A message of these tests is known by its publisher and its number, which are
//! in its payload, and each publisher counts from 0 without gaps.

use std::fmt;

use bytes::Bytes;
use serde::Deserialize;

/// A message: who published it, and as its how-manieth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
pub struct Message {
    /// The publisher, from 0.
    #[serde(rename = "p")]
    pub publisher: u32,
    /// Its number, from 0.
    #[serde(rename = "n")]
    pub number: u32,
}

impl Message {
    /// Its payload: JSON of exactly `bytes` bytes, or the shortest if that is longer.
    #[must_use]
    pub fn payload(self, bytes: usize) -> Bytes {
        let mut text = format!(r#"{{"p":{},"n":{},"fill":""#, self.publisher, self.number);
        let fill = bytes.saturating_sub(text.len() + 2);
        // Letters that differ from message to message, so that nothing looks small because it compresses well.
        text.extend((0..fill).map(|at| {
            let mixed = (at as u32 ^ self.number).wrapping_mul(2_654_435_761) >> 27;
            char::from(b'A' + (mixed % 26) as u8)
        }));
        text.push_str("\"}");
        Bytes::from(text)
    }

    /// The message of a payload.
    ///
    /// # Panics
    /// When it is not the payload of a message.
    #[must_use]
    pub fn of(payload: &[u8]) -> Message {
        serde_json::from_slice(payload).unwrap_or_else(|error| {
            panic!(
                "not a message of ours ({error}): {}",
                String::from_utf8_lossy(&payload[..payload.len().min(200)])
            )
        })
    }
}

/// The topic of a publisher.
#[must_use]
pub fn topic(publisher: u32) -> String {
    format!("load/{publisher}")
}

/// What arrived at one place.
#[derive(Clone, Debug, Default)]
pub struct Arrivals {
    publishers: Vec<OfPublisher>,
    total: u64,
}

#[derive(Clone, Debug, Default)]
struct OfPublisher {
    /// How often each number arrived.
    counts: Vec<u16>,
    /// The number that arrived last for the first time.
    newest: Option<u32>,
    /// First arrivals of a number after the first arrival of a higher one.
    misordered: Vec<u32>,
}

impl Arrivals {
    /// Notes an arrival; whether it is the message's first.
    pub fn note(&mut self, message: Message) -> bool {
        self.total += 1;
        let (publisher, number) = (message.publisher as usize, message.number as usize);
        if self.publishers.len() <= publisher {
            self.publishers.resize_with(publisher + 1, OfPublisher::default);
        }
        let of = &mut self.publishers[publisher];
        if of.counts.len() <= number {
            of.counts.resize(number + 1, 0);
        }
        of.counts[number] = of.counts[number].saturating_add(1);
        let first = of.counts[number] == 1;
        if first {
            if of.newest.is_some_and(|newest| newest > message.number) {
                of.misordered.push(message.number);
            }
            of.newest = of.newest.max(Some(message.number));
        }
        first
    }

    /// How often a message arrived.
    #[must_use]
    pub fn count(&self, message: Message) -> u16 {
        let of = self.publishers.get(message.publisher as usize);
        of.and_then(|of| of.counts.get(message.number as usize)).copied().unwrap_or(0)
    }

    /// The first message that arrived a different number of times here and at `other`, with the two numbers.
    #[must_use]
    pub fn first_difference(&self, other: &Arrivals) -> Option<(Message, u16, u16)> {
        let numbers = |arrivals: &Arrivals, publisher: usize| {
            arrivals.publishers.get(publisher).map_or(0, |of| of.counts.len())
        };
        let publishers = self.publishers.len().max(other.publishers.len());
        let all = (0..publishers).flat_map(|publisher| {
            let count = numbers(self, publisher).max(numbers(other, publisher));
            (0..count).map(move |number| Message { publisher: publisher as u32, number: number as u32 })
        });
        let counted = all.map(|message| (message, self.count(message), other.count(message)));
        counted.into_iter().find(|(_, here, there)| here != there)
    }

    /// Compares with what was published: `published[p]` messages of publisher `p`, all of them acknowledged.
    #[must_use]
    pub fn verdict(&self, published: &[u32]) -> Verdict {
        let all = published.iter().enumerate().flat_map(|(publisher, &count)| {
            (0..count).map(move |number| Message { publisher: publisher as u32, number })
        });
        let missing: Vec<Message> = all.filter(|message| self.count(*message) == 0).collect();
        let misordered = self.publishers.iter().enumerate().flat_map(|(publisher, of)| {
            of.misordered.iter().map(move |&number| Message { publisher: publisher as u32, number })
        });
        let distinct =
            self.publishers.iter().flat_map(|of| &of.counts).filter(|count| **count > 0).count() as u64;
        Verdict {
            published: published.iter().map(|count| u64::from(*count)).sum(),
            distinct,
            repeated: self.total - distinct,
            missing,
            misordered: misordered.collect(),
        }
    }
}

/// What a comparison found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Messages that were published and acknowledged.
    pub published: u64,
    /// Messages that arrived.
    pub distinct: u64,
    /// Arrivals of messages that had arrived before.
    pub repeated: u64,
    /// Messages that were acknowledged and did not arrive.
    pub missing: Vec<Message>,
    /// Messages that first arrived after a later one of the same publisher.
    pub misordered: Vec<Message>,
}

impl Verdict {
    /// Nothing lost, nothing out of order, and nothing arrived that was not published.
    ///
    /// # Panics
    /// When that is not so, naming `place` and the first messages concerned.
    pub fn assert_good(&self, place: &str) {
        let first = |messages: &[Message]| {
            messages.iter().take(10).map(|m| (m.publisher, m.number)).collect::<Vec<_>>()
        };
        assert!(
            self.missing.is_empty() && self.misordered.is_empty() && self.distinct == self.published,
            "{place}: {self}; first missing (publisher, number): {:?}; first out of order: {:?}",
            first(&self.missing),
            first(&self.misordered)
        );
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "acknowledged {}, arrived {}, lost {}, out of order {}, repeated {}",
            self.published,
            self.distinct,
            self.missing.len(),
            self.misordered.len(),
            self.repeated
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(numbers: &[u32]) -> Arrivals {
        let mut arrivals = Arrivals::default();
        for &number in numbers {
            arrivals.note(Message { publisher: 1, number });
        }
        arrivals
    }

    #[test]
    fn payloads_have_their_size_and_come_back() {
        let message = Message { publisher: 3, number: 12 };
        let payload = message.payload(256);
        assert_eq!(payload.len(), 256);
        assert_eq!(Message::of(&payload), message);
        assert_ne!(payload.slice(20..), Message { publisher: 3, number: 13 }.payload(256).slice(20..));
    }

    #[test]
    fn redeliveries_are_no_disorder() {
        let verdict = arrivals(&[0, 1, 2, 1, 2, 3]).verdict(&[0, 4]);
        assert_eq!((verdict.distinct, verdict.repeated), (4, 2));
        verdict.assert_good("here");
    }

    #[test]
    fn differences_are_found_from_both_sides() {
        let (some, more) = (arrivals(&[0, 1]), arrivals(&[0, 1, 1]));
        let message = Message { publisher: 1, number: 1 };
        assert_eq!(some.first_difference(&some), None);
        assert_eq!(some.first_difference(&more), Some((message, 1, 2)));
        assert_eq!(
            more.first_difference(&Arrivals::default()),
            Some((Message { number: 0, ..message }, 1, 0))
        );
    }

    #[test]
    fn loss_disorder_and_ghosts_are_seen() {
        assert_eq!(arrivals(&[0, 2]).verdict(&[0, 3]).missing, [Message { publisher: 1, number: 1 }]);
        assert_eq!(arrivals(&[0, 2, 1]).verdict(&[0, 3]).misordered, [Message { publisher: 1, number: 1 }]);
        let ghost = arrivals(&[0, 1]).verdict(&[0, 1]);
        assert!(std::panic::catch_unwind(|| ghost.assert_good("here")).is_err());
    }
}
