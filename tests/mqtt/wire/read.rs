//! What the server sends, taken apart no further than a test looks at it.

use std::fmt;

use tidemill_tests::mqtt::Level;

use super::build::property;

/// A cursor over a packet. A test fails where the server's bytes end too early.
pub(crate) struct Cut<'a>(pub &'a [u8]);

impl<'a> Cut<'a> {
    pub(crate) fn take(&mut self, count: usize) -> &'a [u8] {
        assert!(count <= self.0.len(), "the server's packet ends in the middle of a field: {:x?}", self.0);
        let (front, rest) = self.0.split_at(count);
        self.0 = rest;
        front
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.take(1)[0]
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.u8(), self.u8()])
    }

    /// A variable byte integer, which has to be in its shortest form ([MQTT-1.5.5-1]).
    pub(crate) fn varint(&mut self) -> usize {
        let mut value = 0;
        for index in 0..4 {
            let byte = self.u8();
            value |= usize::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                assert!(byte > 0 || index == 0, "the server wrote an integer longer than it needs to be");
                return value;
            }
        }
        panic!("the server wrote an integer of more than four bytes")
    }

    pub(crate) fn text(&mut self) -> &'a [u8] {
        let length = self.u16();
        self.take(usize::from(length))
    }

    pub(crate) fn properties(&mut self, level: Level) -> Properties {
        if level == Level::V311 {
            return Properties::default();
        }
        let length = self.varint();
        Properties::read(self.take(length))
    }
}

/// Properties in the order they were sent: identifier and value as it stands on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Properties(pub Vec<(u8, Vec<u8>)>);

impl Properties {
    fn read(bytes: &[u8]) -> Properties {
        let mut cut = Cut(bytes);
        let mut all = Vec::new();
        while !cut.0.is_empty() {
            let id = cut.u8();
            let before = cut.0;
            match id {
                property::PAYLOAD_FORMAT
                | property::REQUEST_PROBLEM
                | property::REQUEST_RESPONSE
                | property::MAXIMUM_QOS
                | property::RETAIN_AVAILABLE
                | property::WILDCARD_AVAILABLE
                | property::SUBSCRIPTION_ID_AVAILABLE
                | property::SHARED_AVAILABLE => drop(cut.take(1)),
                property::SERVER_KEEP_ALIVE
                | property::RECEIVE_MAXIMUM
                | property::TOPIC_ALIAS_MAXIMUM
                | property::TOPIC_ALIAS => drop(cut.take(2)),
                property::MESSAGE_EXPIRY
                | property::SESSION_EXPIRY
                | property::WILL_DELAY
                | property::MAXIMUM_PACKET_SIZE => drop(cut.take(4)),
                property::SUBSCRIPTION_ID => drop(cut.varint()),
                property::CONTENT_TYPE
                | property::RESPONSE_TOPIC
                | property::CORRELATION_DATA
                | property::ASSIGNED_CLIENT
                | property::AUTHENTICATION_METHOD
                | property::AUTHENTICATION_DATA
                | property::RESPONSE_INFORMATION
                | property::SERVER_REFERENCE
                | property::REASON_STRING => drop(cut.text()),
                property::USER_PROPERTY => drop((cut.text(), cut.text())),
                other => panic!("the server sent property {other:#04x}, which does not exist"),
            }
            all.push((id, before[..before.len() - cut.0.len()].to_vec()));
        }
        Properties(all)
    }

    /// The values of a property, in order.
    pub(crate) fn all(&self, id: u8) -> Vec<&[u8]> {
        self.0.iter().filter(|(found, _)| *found == id).map(|(_, value)| value.as_slice()).collect()
    }

    /// The value of a property that may come once.
    pub(crate) fn one(&self, id: u8) -> Option<&[u8]> {
        let all = self.all(id);
        assert!(all.len() < 2, "property {id:#04x} came {} times", all.len());
        all.first().copied()
    }

    pub(crate) fn has(&self, id: u8) -> bool {
        self.one(id).is_some()
    }

    /// The number of a property of one, two or four bytes.
    pub(crate) fn number(&self, id: u8) -> Option<u32> {
        self.one(id).map(|value| value.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    /// Subscription identifiers, in rising order.
    pub(crate) fn subscription_ids(&self) -> Vec<usize> {
        let values = self.all(property::SUBSCRIPTION_ID);
        let mut ids: Vec<usize> = values.into_iter().map(|value| Cut(value).varint()).collect();
        ids.sort_unstable();
        ids
    }
}

/// A CONNACK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Connack {
    pub session_present: bool,
    pub reason: u8,
    pub properties: Properties,
}

impl Connack {
    pub(crate) fn read(level: Level, frame: &[u8]) -> Connack {
        let mut cut = body(frame, 0x20, "CONNACK");
        let flags = cut.u8();
        assert!(flags < 2, "reserved acknowledge flags are set: {flags:#04x}");
        let reason = cut.u8();
        let properties = cut.properties(level);
        assert!(cut.0.is_empty(), "bytes after the CONNACK's last field: {:x?}", cut.0);
        Connack { session_present: flags == 1, reason, properties }
    }
}

/// A PUBLISH.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub dup: bool,
    pub qos: u8,
    pub retain: bool,
    pub topic: String,
    /// 0 with QoS 0.
    pub id: u16,
    pub properties: Properties,
    pub payload: Vec<u8>,
}

impl Message {
    pub(crate) fn read(level: Level, frame: &[u8]) -> Message {
        assert_eq!(frame[0] >> 4, 3, "a PUBLISH was expected, not {frame:x?}");
        let mut cut = body(frame, frame[0], "PUBLISH");
        let qos = frame[0] >> 1 & 3;
        let topic = String::from_utf8(cut.text().to_vec()).expect("a topic that is text");
        let id = if qos > 0 { cut.u16() } else { 0 };
        assert!(qos == 0 || id > 0, "a packet identifier of 0");
        let properties = cut.properties(level);
        let payload = cut.0.to_vec();
        Message { dup: frame[0] & 8 > 0, qos, retain: frame[0] & 1 > 0, topic, id, properties, payload }
    }

    /// The payload as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("a payload that is text")
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Message { dup, qos, retain, topic, id, properties, payload } = self;
        let payload = payload.escape_ascii();
        write!(f, "PUBLISH {topic} QoS {qos} id {id} dup {dup} retain {retain} {properties:?} \"{payload}\"")
    }
}

/// An acknowledgement: PUBACK, PUBREC, PUBREL, PUBCOMP, DISCONNECT or AUTH, whose reason and properties may be
/// left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// 0 where the packet has none.
    pub id: u16,
    pub reason: u8,
    pub properties: Properties,
}

impl Answer {
    pub(crate) fn read(level: Level, frame: &[u8]) -> Answer {
        let mut cut = body(frame, frame[0], "an answer");
        let id = if frame[0] >> 4 < 14 { cut.u16() } else { 0 };
        let reason = if cut.0.is_empty() { 0 } else { cut.u8() };
        let properties = if cut.0.is_empty() { Properties::default() } else { cut.properties(level) };
        assert!(cut.0.is_empty(), "bytes after the last field: {frame:x?}");
        Answer { id, reason, properties }
    }
}

/// What follows the Remaining Length of a packet with this first byte.
pub(crate) fn body<'a>(frame: &'a [u8], first: u8, what: &str) -> Cut<'a> {
    assert_eq!(frame[0], first, "{what} was expected, not {frame:x?}");
    let mut cut = Cut(&frame[1..]);
    cut.varint();
    cut
}
