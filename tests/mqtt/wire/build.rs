//! [`Build`]: bytes written one field after another, right or wrong as the test wants them.

use tidemill_tests::mqtt::Level;

/// A packet in the making, or a part of one. Nothing is checked, so that anything can be said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Build(Vec<u8>);

/// Nothing yet.
pub(crate) fn bytes() -> Build {
    Build::default()
}

impl Build {
    pub(crate) fn u8(mut self, value: u8) -> Build {
        self.0.push(value);
        self
    }

    pub(crate) fn u16(self, value: u16) -> Build {
        self.raw(value.to_be_bytes())
    }

    pub(crate) fn u32(self, value: u32) -> Build {
        self.raw(value.to_be_bytes())
    }

    /// A variable byte integer in its shortest form.
    pub(crate) fn varint(mut self, mut value: usize) -> Build {
        while value > 0x7f {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.u8(value as u8)
    }

    /// Bytes as they are.
    pub(crate) fn raw(mut self, bytes: impl AsRef<[u8]>) -> Build {
        self.0.extend_from_slice(bytes.as_ref());
        self
    }

    /// A string or binary data: two bytes of length, then these bytes, which need not be text.
    pub(crate) fn text(self, bytes: impl AsRef<[u8]>) -> Build {
        let length = u16::try_from(bytes.as_ref().len()).expect("at most 65,535 bytes");
        self.u16(length).raw(bytes)
    }

    /// A length as a variable byte integer, then these bytes: how properties stand in a packet.
    pub(crate) fn section(self, inner: &Build) -> Build {
        self.varint(inner.0.len()).raw(&inner.0)
    }

    /// The packet with this first byte and these bytes after its Remaining Length.
    pub(crate) fn packet(self, first: u8) -> Vec<u8> {
        bytes().u8(first).section(&self).0
    }
}

impl AsRef<[u8]> for Build {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Something that can be sent, as it is written in a version.
pub(crate) trait Packet {
    fn at(&self, level: Level) -> Vec<u8>;
}

impl<T: AsRef<[u8]> + ?Sized> Packet for T {
    fn at(&self, _: Level) -> Vec<u8> {
        self.as_ref().to_vec()
    }
}

/// A CONNECT, of which any field can be changed.
#[derive(Clone, Debug)]
pub(crate) struct Connect {
    pub level: Level,
    pub flags: u8,
    pub keep_alive_s: u16,
    /// 5.0 only.
    pub properties: Build,
    pub client: Vec<u8>,
    /// Will topic and payload, in 5.0 with properties in front.
    will: Build,
    /// User name and password.
    credentials: Build,
}

/// Connect flag: Clean Start (5.0), Clean Session (3.1.1).
pub(crate) const CLEAN: u8 = 0x02;
/// Connect flag: there is a will.
pub(crate) const WILL: u8 = 0x04;
/// Connect flag: the will is to be retained.
pub(crate) const WILL_RETAIN: u8 = 0x20;
/// Connect flag: there is a password.
pub(crate) const PASSWORD: u8 = 0x40;
/// Connect flag: there is a user name.
pub(crate) const USER_NAME: u8 = 0x80;

/// A CONNECT for a session that starts anew and ends with its connection.
pub(crate) fn connect(level: Level, client: impl AsRef<[u8]>) -> Connect {
    Connect {
        level,
        flags: CLEAN,
        keep_alive_s: 60,
        properties: bytes(),
        client: client.as_ref().to_vec(),
        will: bytes(),
        credentials: bytes(),
    }
}

impl Connect {
    /// A session that goes on where it was, and outlives its connection.
    pub(crate) fn lasting(self) -> Connect {
        Connect { flags: self.flags & !CLEAN, ..self }.with(&session_expiry(u32::MAX))
    }

    /// One more property; left out in 3.1.1.
    pub(crate) fn with(self, property: &Build) -> Connect {
        Connect { properties: self.properties.raw(property), ..self }
    }

    pub(crate) fn keep_alive(self, seconds: u16) -> Connect {
        Connect { keep_alive_s: seconds, ..self }
    }

    pub(crate) fn will(self, topic: impl AsRef<[u8]>, payload: &str, qos: u8) -> Connect {
        self.will_with(&bytes(), topic, payload, qos)
    }

    /// A will with properties.
    pub(crate) fn will_with(
        self,
        properties: &Build,
        topic: impl AsRef<[u8]>,
        payload: &str,
        qos: u8,
    ) -> Connect {
        let front = if self.level == Level::V5 { bytes().section(properties) } else { bytes() };
        let will = front.text(topic).text(payload);
        Connect { flags: self.flags | WILL | qos << 3, will, ..self }
    }

    pub(crate) fn will_retained(self) -> Connect {
        Connect { flags: self.flags | WILL_RETAIN, ..self }
    }

    pub(crate) fn user(self, name: impl AsRef<[u8]>) -> Connect {
        Connect { flags: self.flags | USER_NAME, credentials: self.credentials.text(name), ..self }
    }

    pub(crate) fn password(self, password: impl AsRef<[u8]>) -> Connect {
        Connect { flags: self.flags | PASSWORD, credentials: self.credentials.text(password), ..self }
    }

    /// With other Connect Flags than those of its parts.
    pub(crate) fn flags(self, flags: u8) -> Connect {
        Connect { flags, ..self }
    }

    /// What follows the Remaining Length.
    pub(crate) fn body(&self) -> Build {
        let head = bytes().text("MQTT").u8(self.level as u8).u8(self.flags).u16(self.keep_alive_s);
        let head = if self.level == Level::V5 { head.section(&self.properties) } else { head };
        head.text(&self.client).raw(&self.will).raw(&self.credentials)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.body().packet(0x10)
    }
}

impl Packet for Connect {
    fn at(&self, _: Level) -> Vec<u8> {
        self.bytes()
    }
}

/// A PUBLISH, of which any field can be changed.
#[derive(Clone, Debug)]
pub(crate) struct Publish {
    /// The first byte.
    pub first: u8,
    pub topic: Vec<u8>,
    pub id: Option<u16>,
    /// 5.0 only.
    pub properties: Build,
    pub payload: Vec<u8>,
}

/// A PUBLISH with QoS 0.
pub(crate) fn publish(topic: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> Publish {
    let (topic, payload) = (topic.as_ref().to_vec(), payload.as_ref().to_vec());
    Publish { first: 0x30, topic, id: None, properties: bytes(), payload }
}

impl Publish {
    /// The same with QoS 1 or 2.
    pub(crate) fn qos(self, qos: u8, id: u16) -> Publish {
        Publish { first: self.first & !6 | qos << 1, id: (qos > 0).then_some(id), ..self }
    }

    pub(crate) fn retain(self) -> Publish {
        Publish { first: self.first | 1, ..self }
    }

    pub(crate) fn dup(self) -> Publish {
        Publish { first: self.first | 8, ..self }
    }

    /// One more property; left out in 3.1.1.
    pub(crate) fn with(self, property: &Build) -> Publish {
        Publish { properties: self.properties.raw(property), ..self }
    }
}

impl Packet for Publish {
    fn at(&self, level: Level) -> Vec<u8> {
        let mut body = bytes().text(&self.topic);
        if let Some(id) = self.id {
            body = body.u16(id);
        }
        if level == Level::V5 {
            body = body.section(&self.properties);
        }
        body.raw(&self.payload).packet(self.first)
    }
}

/// A SUBSCRIBE or UNSUBSCRIBE.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    first: u8,
    id: u16,
    properties: Build,
    payload: Build,
}

/// A SUBSCRIBE to filters, each with its options.
pub(crate) fn subscribe<F: AsRef<[u8]>>(id: u16, filters: &[(F, u8)]) -> Request {
    let payload =
        filters.iter().fold(bytes(), |payload, (filter, options)| payload.text(filter).u8(*options));
    Request { first: 0x82, id, properties: bytes(), payload }
}

/// An UNSUBSCRIBE from filters.
pub(crate) fn unsubscribe<F: AsRef<[u8]>>(id: u16, filters: &[F]) -> Request {
    let payload = filters.iter().fold(bytes(), |payload, filter| payload.text(filter));
    Request { first: 0xa2, id, properties: bytes(), payload }
}

impl Request {
    /// One more property; left out in 3.1.1.
    pub(crate) fn with(self, property: &Build) -> Request {
        Request { properties: self.properties.raw(property), ..self }
    }
}

impl Packet for Request {
    fn at(&self, level: Level) -> Vec<u8> {
        let head = bytes().u16(self.id);
        let head = if level == Level::V5 { head.section(&self.properties) } else { head };
        head.raw(&self.payload).packet(self.first)
    }
}

/// An acknowledgement without reason code and properties, the same in both versions.
fn ack(first: u8, id: u16) -> Vec<u8> {
    bytes().u16(id).packet(first)
}

pub(crate) fn puback(id: u16) -> Vec<u8> {
    ack(0x40, id)
}

pub(crate) fn pubrec(id: u16) -> Vec<u8> {
    ack(0x50, id)
}

pub(crate) fn pubrel(id: u16) -> Vec<u8> {
    ack(0x62, id)
}

pub(crate) fn pubcomp(id: u16) -> Vec<u8> {
    ack(0x70, id)
}

pub(crate) const PINGREQ: [u8; 2] = [0xc0, 0];
pub(crate) const PINGRESP: [u8; 2] = [0xd0, 0];
pub(crate) const DISCONNECT: [u8; 2] = [0xe0, 0];

/// Identifiers of properties (MQTT 5.0, 2.2.2.2).
pub(crate) mod property {
    pub(crate) const PAYLOAD_FORMAT: u8 = 0x01;
    pub(crate) const MESSAGE_EXPIRY: u8 = 0x02;
    pub(crate) const CONTENT_TYPE: u8 = 0x03;
    pub(crate) const RESPONSE_TOPIC: u8 = 0x08;
    pub(crate) const CORRELATION_DATA: u8 = 0x09;
    pub(crate) const SUBSCRIPTION_ID: u8 = 0x0b;
    pub(crate) const SESSION_EXPIRY: u8 = 0x11;
    pub(crate) const ASSIGNED_CLIENT: u8 = 0x12;
    pub(crate) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(crate) const AUTHENTICATION_METHOD: u8 = 0x15;
    pub(crate) const AUTHENTICATION_DATA: u8 = 0x16;
    pub(crate) const REQUEST_PROBLEM: u8 = 0x17;
    pub(crate) const WILL_DELAY: u8 = 0x18;
    pub(crate) const REQUEST_RESPONSE: u8 = 0x19;
    pub(crate) const RESPONSE_INFORMATION: u8 = 0x1a;
    pub(crate) const SERVER_REFERENCE: u8 = 0x1c;
    pub(crate) const REASON_STRING: u8 = 0x1f;
    pub(crate) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(crate) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(crate) const TOPIC_ALIAS: u8 = 0x23;
    pub(crate) const MAXIMUM_QOS: u8 = 0x24;
    pub(crate) const RETAIN_AVAILABLE: u8 = 0x25;
    pub(crate) const USER_PROPERTY: u8 = 0x26;
    pub(crate) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub(crate) const WILDCARD_AVAILABLE: u8 = 0x28;
    pub(crate) const SUBSCRIPTION_ID_AVAILABLE: u8 = 0x29;
    pub(crate) const SHARED_AVAILABLE: u8 = 0x2a;
}

pub(crate) fn session_expiry(seconds: u32) -> Build {
    bytes().u8(property::SESSION_EXPIRY).u32(seconds)
}

pub(crate) fn receive_maximum(count: u16) -> Build {
    bytes().u8(property::RECEIVE_MAXIMUM).u16(count)
}

pub(crate) fn maximum_packet_size(size: u32) -> Build {
    bytes().u8(property::MAXIMUM_PACKET_SIZE).u32(size)
}

pub(crate) fn topic_alias_maximum(count: u16) -> Build {
    bytes().u8(property::TOPIC_ALIAS_MAXIMUM).u16(count)
}

pub(crate) fn topic_alias(alias: u16) -> Build {
    bytes().u8(property::TOPIC_ALIAS).u16(alias)
}

pub(crate) fn message_expiry(seconds: u32) -> Build {
    bytes().u8(property::MESSAGE_EXPIRY).u32(seconds)
}

pub(crate) fn will_delay(seconds: u32) -> Build {
    bytes().u8(property::WILL_DELAY).u32(seconds)
}

pub(crate) fn subscription_id(id: usize) -> Build {
    bytes().u8(property::SUBSCRIPTION_ID).varint(id)
}

/// A property that comes twice.
pub(crate) fn twice(property: &Build) -> Build {
    bytes().raw(property).raw(property)
}

pub(crate) fn user_property(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Build {
    bytes().u8(property::USER_PROPERTY).text(name).text(value)
}
