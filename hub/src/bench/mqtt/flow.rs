//! [`Flow`]: messages from publishers to subscribers, and the exact account of them.

use super::histogram::Histogram;
use super::net::{Net, Receive, Session};
use super::shape::Shape;
use super::stamp::Stamp;
use super::track::{Seen, Track};
use super::wire::{Delivery, Template, put_puback};
use crate::bench::{Error, Result};
use crate::mqtt::codec::{Qos, ReasonCode, Version};

/// Packet identifiers are given in turn, all but 0.
const PACKET_IDS: u64 = u16::MAX as u64;
/// Messages of one publisher that may be without an answer, whatever the pace: well below the number of packet
/// identifiers, so that an answer says which message it is for.
const UNANSWERED_MAX: u64 = PACKET_IDS / 2;

/// What became of the messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) sent: u64,
    /// With QoS 1: messages that the broker has acknowledged.
    pub(super) acknowledged: u64,
    /// Messages that arrived, each counted once for each subscriber.
    pub(super) delivered: u64,
    /// Messages that did not arrive, though they were acknowledged (QoS 1) or sent (QoS 0).
    pub(super) lost: u64,
    /// Deliveries of what had arrived before.
    pub(super) duplicated: u64,
    /// Messages that arrived after one that their publisher sent later.
    pub(super) reordered: u64,
}

struct Publisher {
    connection: usize,
    template: Template,
    sent: u64,
    acknowledged: Track,
    acknowledged_count: u64,
    /// First arrivals at any subscriber, with all copies of what is written off in place of those that arrived.
    delivered: u64,
    /// Messages below this are written off: whether they still arrive or not, nothing waits for them.
    written_off: u64,
}

struct Subscriber {
    /// The first publisher whose messages it gets; the following ones have a track each.
    first: usize,
    tracks: Vec<Track>,
}

#[derive(Clone, Copy)]
enum Role {
    Publisher(usize),
    Subscriber(usize),
}

/// How messages flow, and what was seen of it.
pub(super) struct Flow {
    run: u32,
    shape: Shape,
    qos: Qos,
    payload_bytes: usize,
    version: Version,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    /// What each connection is for, by its number.
    roles: Vec<Role>,
    /// First arrivals.
    delivered: u64,
    /// First arrivals and acknowledgements: what changes while anything happens.
    events: u64,
    /// From a message's intended time to its arrival, in nanoseconds.
    pub(super) latency: Histogram,
}

impl Flow {
    /// Nothing is connected yet.
    pub(super) fn new(shape: Shape, qos: Qos, payload_bytes: usize, version: Version) -> Flow {
        let subscribers = (0..shape.subscribers()).map(|number| {
            let publishers = shape.publishers_of(number);
            Subscriber { first: publishers.start, tracks: vec![Track::default(); publishers.len()] }
        });
        Flow {
            run: rand::random(),
            shape,
            qos,
            payload_bytes,
            version,
            publishers: Vec::with_capacity(shape.publishers()),
            subscribers: subscribers.collect(),
            roles: Vec::new(),
            delivered: 0,
            events: 0,
            latency: Histogram::default(),
        }
    }

    /// The session of a subscriber, which it comes back to under the same name if it is not `clean`.
    pub(super) fn subscriber(&self, number: usize, clean: bool) -> Session {
        let Flow { run, shape, qos, .. } = *self;
        Session {
            client_id: format!("bench-{run:08x}-s{number}"),
            clean,
            subscribe: Some((shape.filter(run, number), qos)),
        }
    }

    /// The session of a subscriber that comes back to it.
    pub(super) fn returning(&self, number: usize) -> Session {
        Session { subscribe: None, ..self.subscriber(number, false) }
    }

    /// The connections of another net: none.
    pub(super) fn disconnected(&mut self) {
        self.roles.clear();
    }

    /// The next connection is this subscriber's.
    pub(super) fn expect_subscriber(&mut self, number: usize) {
        self.roles.push(Role::Subscriber(number));
    }

    /// Connects all subscribers and waits until they have subscribed.
    pub(super) fn connect_subscribers(&mut self, net: &mut Net, clean: bool) -> Result<()> {
        let count = self.subscribers.len();
        (0..count).for_each(|number| self.expect_subscriber(number));
        let sessions: Vec<Session> = (0..count).map(|number| self.subscriber(number, clean)).collect();
        net.open_all(sessions, self)
    }

    /// Connects all publishers.
    pub(super) fn connect_publishers(&mut self, net: &mut Net) -> Result<()> {
        let Flow { run, shape, .. } = *self;
        let mut sessions = Vec::new();
        for number in 0..shape.publishers() {
            let topic = shape.topic(run, number);
            self.publishers.push(Publisher {
                connection: self.roles.len(),
                template: Template::new(&topic, self.qos, self.payload_bytes, self.version)?,
                sent: 0,
                acknowledged: Track::default(),
                acknowledged_count: 0,
                delivered: 0,
                written_off: 0,
            });
            self.roles.push(Role::Publisher(number));
            sessions.push(Session {
                client_id: format!("bench-{run:08x}-p{number}"),
                clean: true,
                subscribe: None,
            });
        }
        net.open_all(sessions, self)
    }

    /// Sends what fits into each publisher's window of messages that are not through: not acknowledged (QoS 1), or not
    /// delivered to all, if `until_delivered`. At most `left` messages; how many.
    pub(super) fn fill(&mut self, net: &mut Net, window: u64, until_delivered: bool, left: u64) -> u64 {
        let copies = self.shape.copies();
        let mut filled = 0;
        for (number, publisher) in self.publishers.iter_mut().enumerate() {
            let mut through = u64::MAX;
            if until_delivered {
                through = publisher.delivered / copies;
            }
            if self.qos != Qos::AtMostOnce {
                through = through.min(publisher.acknowledged.first_missing());
            }
            let room = window.saturating_sub(publisher.sent.saturating_sub(through)).min(left - filled);
            if room == 0 {
                continue;
            }
            let now_ns = net.now_ns();
            let Some(out) = net.output(publisher.connection) else { continue };
            for _ in 0..room {
                publisher.send(out, self.run, number, now_ns);
            }
            filled += room;
        }
        filled
    }

    /// Sends the message of this number among all publishers', which take turns; whether there was room for it.
    pub(super) fn send(&mut self, net: &mut Net, number: u64, intended_ns: u64) -> bool {
        let index = (number % self.publishers.len() as u64) as usize;
        let Some(publisher) = self.publishers.get_mut(index) else { return false };
        let answered = match self.qos {
            Qos::AtMostOnce => publisher.sent,
            _ => publisher.acknowledged.first_missing(),
        };
        let Some(out) =
            net.output(publisher.connection).filter(|_| publisher.sent - answered < UNANSWERED_MAX)
        else {
            return false;
        };
        publisher.send(out, self.run, index, intended_ns);
        true
    }

    /// Whether everything that was sent is acknowledged and delivered.
    pub(super) fn complete(&self) -> bool {
        let sent = self.sent();
        self.delivered == sent * self.shape.copies() && self.acknowledged_count() == sent
    }

    /// Whether everything that was acknowledged has arrived everywhere.
    pub(super) fn acknowledged_arrived(&self) -> bool {
        self.account().lost == 0
    }

    /// With QoS 1, messages that are acknowledged; with QoS 0, those that are sent.
    pub(super) fn acknowledged_count(&self) -> u64 {
        match self.qos {
            Qos::AtMostOnce => self.sent(),
            _ => self.publishers.iter().map(|publisher| publisher.acknowledged_count).sum(),
        }
    }

    pub(super) fn sent(&self) -> u64 {
        self.publishers.iter().map(|publisher| publisher.sent).sum()
    }

    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// A number that changes while anything happens.
    pub(super) fn events(&self) -> u64 {
        self.events
    }

    /// Whether messages may be dropped that were sent: QoS 0.
    pub(super) fn drops(&self) -> bool {
        self.qos == Qos::AtMostOnce
    }

    /// Waits no more for what was sent: with QoS 0, messages may be dropped, and the window is not to shrink by them.
    pub(super) fn write_off(&mut self) {
        let copies = self.shape.copies();
        for publisher in &mut self.publishers {
            publisher.delivered = publisher.sent * copies;
            publisher.written_off = publisher.sent;
        }
    }

    pub(super) fn account(&self) -> Account {
        let mut account = Account {
            sent: self.sent(),
            acknowledged: self.acknowledged_count(),
            delivered: self.delivered,
            ..Account::default()
        };
        for subscriber in &self.subscribers {
            let publishers = self.publishers.iter().skip(subscriber.first);
            for (track, publisher) in subscriber.tracks.iter().zip(publishers) {
                let counts =
                    |number: &u64| self.qos == Qos::AtMostOnce || publisher.acknowledged.has(*number);
                account.lost += track.missing_below(publisher.sent).filter(counts).count() as u64;
                account.duplicated += track.again();
                account.reordered += track.late();
            }
        }
        account
    }

    fn role(&self, connection: usize) -> Result<Role> {
        let role = self.roles.get(connection).copied();
        role.ok_or_else(|| Error::Other(format!("connection {connection} has nothing to do with messages")))
    }
}

impl Publisher {
    fn send(&mut self, out: &mut Vec<u8>, run: u32, number: usize, intended_ns: u64) {
        let id = (self.sent % PACKET_IDS) as u16 + 1;
        let stamp = Stamp { run, publisher: number as u32, sequence: self.sent, intended_ns };
        self.template.put(out, id, stamp);
        self.sent += 1;
    }

    /// Which message a packet identifier stands for: the first one from the oldest that waits for an answer on.
    fn acknowledge(&mut self, id: u16) -> Result<()> {
        let oldest = self.acknowledged.first_missing();
        let ahead = (u64::from(id) + 2 * PACKET_IDS - 1 - oldest % PACKET_IDS) % PACKET_IDS;
        let sequence = oldest + ahead;
        if id == 0 || sequence >= self.sent || self.acknowledged.see(sequence) == Seen::Again {
            return Err(Error::Other(format!(
                "the broker acknowledged packet {id}, which did not wait for it"
            )));
        }
        self.acknowledged_count += 1;
        Ok(())
    }
}

impl Receive for Flow {
    fn delivery(
        &mut self,
        connection: usize,
        delivery: Delivery<'_>,
        out: &mut Vec<u8>,
        now_ns: u64,
    ) -> Result<()> {
        let Role::Subscriber(number) = self.role(connection)? else {
            return Err(Error::Other(format!(
                "connection {connection} got a message and has not subscribed"
            )));
        };
        let stamp = Stamp::of(delivery.payload).filter(|stamp| stamp.run == self.run);
        let Some(stamp) = stamp else {
            return Err(Error::Other(format!(
                "connection {connection} got a message of {} bytes that this run did not publish; does something \
                 else publish to bench/#?",
                delivery.payload.len()
            )));
        };
        let index = stamp.publisher as usize;
        let publisher = self.publishers.get_mut(index).filter(|publisher| stamp.sequence < publisher.sent);
        let subscriber = self.subscribers.get_mut(number);
        let track = subscriber.and_then(|s| s.tracks.get_mut(index.checked_sub(s.first)?));
        let (Some(publisher), Some(track)) = (publisher, track) else {
            return Err(Error::Other(format!(
                "subscriber {number} got {stamp:?}, which was not published or not for it"
            )));
        };
        if track.see(stamp.sequence) != Seen::Again {
            if stamp.sequence >= publisher.written_off {
                publisher.delivered += 1;
            }
            self.delivered += 1;
            self.events += 1;
            self.latency.record(now_ns.saturating_sub(stamp.intended_ns));
        }
        if let Some(id) = delivery.id {
            put_puback(out, id);
        }
        Ok(())
    }

    fn acknowledged(&mut self, connection: usize, id: u16, reason: ReasonCode) -> Result<()> {
        let publisher = match self.role(connection)? {
            Role::Publisher(number) => self.publishers.get_mut(number),
            Role::Subscriber(_) => None,
        };
        let Some(publisher) = publisher else {
            return Err(Error::Other(format!(
                "connection {connection} got PUBACK {id} and has published nothing"
            )));
        };
        if reason.is_error() {
            return Err(Error::Other(format!(
                "the broker refused message {id} of connection {connection}: {reason}"
            )));
        }
        self.events += 1;
        publisher.acknowledge(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::mqtt::shape::Shape;

    #[test]
    fn what_was_written_off_does_not_count_again_when_it_comes() {
        let mut flow = Flow::new(Shape::FanOut(2), Qos::AtMostOnce, 64, Version::V5);
        (0..2).for_each(|number| flow.expect_subscriber(number));
        flow.publishers.push(Publisher {
            connection: 2,
            template: Template::new("t", Qos::AtMostOnce, 64, Version::V5).unwrap(),
            sent: 0,
            acknowledged: Track::default(),
            acknowledged_count: 0,
            delivered: 0,
            written_off: 0,
        });
        let run = flow.run;
        let arrive = |flow: &mut Flow, subscriber, sequence| {
            let stamp = Stamp { run, publisher: 0, sequence, intended_ns: 0 }.to_bytes();
            flow.delivery(subscriber, Delivery { id: None, payload: &stamp }, &mut Vec::new(), 1).unwrap();
        };
        flow.publishers[0].sent = 10;
        arrive(&mut flow, 0, 0);
        flow.write_off();
        assert_eq!(flow.publishers[0].delivered, 20);
        for sequence in 0..10 {
            arrive(&mut flow, 1, sequence);
        }
        assert_eq!(flow.publishers[0].delivered, 20, "the window stays what it was");
        flow.publishers[0].sent = 12;
        arrive(&mut flow, 0, 11);
        assert_eq!(flow.publishers[0].delivered, 21);
        assert_eq!((flow.account().delivered, flow.account().lost), (12, 12));
        flow.write_off();
        assert_eq!(flow.publishers[0].delivered, 24);
    }
}
