//! [`Aliases`]: topics that the client knows by a number (3.3.2.3.4). They end with the connection, as this does.

use bytestring::ByteString;
use foldhash::HashMap;

use super::super::super::codec::PublishHead;

/// Topics shorter than this are said in full: a number takes three bytes.
const TOPIC_BYTES_MIN: usize = 8;
/// Topics longer than this are said in full: both sides have to remember what has a number.
const TOPIC_BYTES_MAX: usize = 1024;
/// A number is given to another topic when so many messages came since its own was last sent. Below that, topics that
/// come in turn would take the numbers from each other, and none would ever be used.
const IDLE_MESSAGES: u64 = 1024;

/// Topics by their numbers. Nothing is kept for a client that allows none, or was sent nothing yet.
#[derive(Debug, Default)]
pub(super) struct Aliases(Option<Box<Known>>);

#[derive(Debug, Default)]
struct Known {
    numbers: HashMap<ByteString, u16>,
    /// By number less one.
    topics: Vec<Topic>,
    /// Messages so far.
    messages: u64,
    /// Whose turn it is to be looked at when a topic wants a number.
    hand: usize,
}

#[derive(Debug)]
struct Topic {
    name: ByteString,
    /// The message that was last sent to it.
    used: u64,
}

impl Aliases {
    /// Puts the number of the topic into its place if the client knows it. Otherwise gives it one with this packet, where one of `max`
    /// is to be had; that counts once it was [`Aliases::sent`].
    pub(super) fn shorten(&mut self, head: &mut PublishHead<'_>, max: u16) {
        if max == 0 || !(TOPIC_BYTES_MIN..=TOPIC_BYTES_MAX).contains(&head.topic.len()) {
            return;
        }
        let known = self.0.get_or_insert_default();
        known.messages += 1;
        if let Some(number) = known.numbers.get(head.topic) {
            if let Some(topic) = known.topics.get_mut(usize::from(*number) - 1) {
                topic.used = known.messages;
            }
            head.topic_alias = Some(*number);
            head.topic = "";
        } else {
            head.topic_alias = known.free(max);
        }
    }

    /// A packet is on its way; if it gave its topic a number, the client knows it now.
    pub(super) fn sent(&mut self, head: &PublishHead<'_>) {
        if let Some(number) = head.topic_alias
            && !head.topic.is_empty()
            && let Some(known) = &mut self.0
        {
            known.learn(number, head.topic);
        }
    }
}

impl Known {
    /// A number that stands for nothing, or for nothing that was sent for long.
    fn free(&mut self, max: u16) -> Option<u16> {
        if self.topics.len() < usize::from(max) {
            return u16::try_from(self.topics.len() + 1).ok();
        }
        self.hand = (self.hand + 1) % self.topics.len();
        let topic = self.topics.get(self.hand)?;
        (self.messages - topic.used > IDLE_MESSAGES).then_some(self.hand as u16 + 1)
    }

    fn learn(&mut self, number: u16, topic: &str) {
        // A copy: the record's own topic is a part of a larger buffer.
        let name = ByteString::from(topic);
        let new = Topic { name: name.clone(), used: self.messages };
        match self.topics.get_mut(usize::from(number) - 1) {
            Some(old) => {
                self.numbers.remove(&std::mem::replace(old, new).name);
            }
            None => self.topics.push(new),
        }
        self.numbers.insert(name, number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::codec::Qos;

    fn head(topic: &str) -> PublishHead<'_> {
        PublishHead {
            dup: false,
            qos: Qos::AtMostOnce,
            retain: false,
            topic,
            id: None,
            message_expiry_s: None,
            topic_alias: None,
            subscription_ids: &[],
            forwarded: &[],
            payload_bytes: 0,
        }
    }

    /// Sends to a topic as a client sees it.
    fn send<'a>(aliases: &mut Aliases, topic: &'a str, max: u16) -> (&'a str, Option<u16>) {
        let mut head = head(topic);
        aliases.shorten(&mut head, max);
        aliases.sent(&head);
        (head.topic, head.topic_alias)
    }

    #[test]
    fn a_topic_is_said_once_and_then_by_its_number() {
        let mut aliases = Aliases::default();
        assert_eq!(send(&mut aliases, "vehicles/1", 0), ("vehicles/1", None));
        assert!(aliases.0.is_none(), "nothing is kept where none is allowed");
        assert_eq!(send(&mut aliases, "short", 2), ("short", None));
        assert_eq!(send(&mut aliases, "vehicles/1", 2), ("vehicles/1", Some(1)));
        assert_eq!(send(&mut aliases, "vehicles/1", 2), ("", Some(1)));
        assert_eq!(send(&mut aliases, "vehicles/2", 2), ("vehicles/2", Some(2)));
        assert_eq!(send(&mut aliases, "vehicles/3", 2), ("vehicles/3", None));
        assert_eq!(send(&mut aliases, "vehicles/2", 2), ("", Some(2)));
    }

    #[test]
    fn what_was_not_sent_is_not_known() {
        let mut aliases = Aliases::default();
        let mut lost = head("vehicles/1");
        aliases.shorten(&mut lost, 2);
        assert_eq!((lost.topic, lost.topic_alias), ("vehicles/1", Some(1)));
        assert_eq!(send(&mut aliases, "vehicles/2", 2), ("vehicles/2", Some(1)));
        assert_eq!(send(&mut aliases, "vehicles/1", 2), ("vehicles/1", Some(2)));
    }

    #[test]
    fn topics_in_turn_do_not_take_numbers_from_each_other_and_new_ones_follow_old_ones() {
        let mut aliases = Aliases::default();
        let topics: Vec<String> = (0..100).map(|number| format!("vehicles/{number}")).collect();
        let mut short = 0;
        for _ in 0..50 {
            for topic in &topics {
                short += usize::from(send(&mut aliases, topic, 16).0.is_empty());
            }
        }
        assert_eq!(short, 49 * 16);
        let others: Vec<String> = (0..16).map(|number| format!("trains/{number:02}")).collect();
        for _ in 0..200 {
            for topic in &others {
                send(&mut aliases, topic, 16);
            }
        }
        assert!(others.iter().all(|topic| send(&mut aliases, topic, 16).0.is_empty()));
        let known = aliases.0.unwrap();
        assert_eq!((known.topics.len(), known.numbers.len()), (16, 16));
    }
}
