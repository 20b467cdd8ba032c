//! Packets that a client sends.

use bytes::{BufMut, Bytes, BytesMut};

use super::Level;

/// A CONNECT.
#[derive(Clone, Debug)]
pub struct Connect {
    /// Protocol level.
    pub level: Level,
    /// Client identifier.
    pub client: String,
    /// Clean session (3.1.1) or clean start (5.0).
    pub clean: bool,
    /// Seconds that the session outlives the connection (5.0; in 3.1.1 `clean` says it).
    pub expiry_s: u32,
    /// Keep alive in seconds.
    pub keep_alive_s: u16,
    /// User name.
    pub user: Option<String>,
    /// Password.
    pub password: Option<Vec<u8>>,
    /// A will with QoS 1: topic, payload, and in 5.0 its delay in seconds.
    pub will: Option<(String, String, u32)>,
    /// Further properties as they stand on the wire (5.0).
    pub properties: Vec<u8>,
}

impl Connect {
    /// A session of MQTT 5.0 that ends with its connection.
    #[must_use]
    pub fn clean(client: impl Into<String>) -> Connect {
        Connect {
            level: Level::V5,
            client: client.into(),
            clean: true,
            expiry_s: 0,
            keep_alive_s: 60,
            user: None,
            password: None,
            will: None,
            properties: Vec::new(),
        }
    }

    /// A session of MQTT 5.0 that is found again.
    #[must_use]
    pub fn persistent(client: impl Into<String>) -> Connect {
        Connect { clean: false, expiry_s: u32::MAX, ..Connect::clean(client) }
    }

    /// The same in another protocol version.
    #[must_use]
    pub fn level(self, level: Level) -> Connect {
        Connect { level, ..self }
    }

    /// The same with a will.
    #[must_use]
    pub fn will(self, topic: &str, payload: &str, delay_s: u32) -> Connect {
        Connect { will: Some((topic.to_owned(), payload.to_owned(), delay_s)), ..self }
    }

    /// The same with a user name and a password.
    #[must_use]
    pub fn login(self, user: &str, password: impl Into<Vec<u8>>) -> Connect {
        Connect { user: Some(user.to_owned()), password: Some(password.into()), ..self }
    }

    /// The same with enhanced authentication (5.0).
    #[must_use]
    pub fn method(self, method: &str, data: Option<&[u8]>) -> Connect {
        Connect { properties: authentication(method, data), ..self }
    }

    /// The packet.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut body = BytesMut::new();
        string(&mut body, "MQTT");
        body.put_u8(self.level as u8);
        let flags = [
            (1, self.clean),
            (2, self.will.is_some()),
            (3, self.will.is_some()),
            (6, self.password.is_some()),
            (7, self.user.is_some()),
        ];
        body.put_u8(flags.iter().map(|(bit, set)| u8::from(*set) << bit).sum());
        body.put_u16(self.keep_alive_s);
        if self.level == Level::V5 {
            // Session Expiry Interval, and others.
            varint(&mut body, 5 + self.properties.len());
            body.put_u8(0x11);
            body.put_u32(self.expiry_s);
            body.put_slice(&self.properties);
        }
        string(&mut body, &self.client);
        if let Some((topic, payload, delay_s)) = &self.will {
            if self.level == Level::V5 {
                // One property: Will Delay Interval.
                body.put_u8(5);
                body.put_u8(0x18);
                body.put_u32(*delay_s);
            }
            string(&mut body, topic);
            string(&mut body, payload);
        }
        if let Some(user) = &self.user {
            string(&mut body, user);
        }
        if let Some(password) = &self.password {
            binary(&mut body, password);
        }
        packet(0x10, &body)
    }
}

/// A PUBLISH.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The topic.
    pub topic: String,
    /// The payload.
    pub payload: Bytes,
    /// QoS.
    pub qos: u8,
    /// Whether it is to be retained.
    pub retain: bool,
    /// Whether it was sent before.
    pub dup: bool,
    /// Packet identifier; not sent with QoS 0.
    pub id: u16,
    /// Content type (5.0).
    pub content_type: Option<String>,
}

impl Publish {
    /// A PUBLISH without extras.
    #[must_use]
    pub fn new(topic: impl Into<String>, payload: impl Into<Bytes>, qos: u8, id: u16) -> Publish {
        Publish {
            topic: topic.into(),
            payload: payload.into(),
            qos,
            retain: false,
            dup: false,
            id,
            content_type: None,
        }
    }

    /// The same, retained.
    #[must_use]
    pub fn retained(self) -> Publish {
        Publish { retain: true, ..self }
    }

    /// The packet.
    #[must_use]
    pub fn encode(&self, level: Level) -> Bytes {
        let mut body = BytesMut::with_capacity(self.topic.len() + self.payload.len() + 16);
        string(&mut body, &self.topic);
        if self.qos > 0 {
            body.put_u16(self.id);
        }
        if level == Level::V5 {
            let mut properties = BytesMut::new();
            if let Some(content_type) = &self.content_type {
                properties.put_u8(0x03);
                string(&mut properties, content_type);
            }
            varint(&mut body, properties.len());
            body.put(properties);
        }
        body.put_slice(&self.payload);
        packet(0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain), &body)
    }
}

/// Authentication Method and Authentication Data as properties.
fn authentication(method: &str, data: Option<&[u8]>) -> Vec<u8> {
    let mut properties = BytesMut::new();
    properties.put_u8(0x15);
    string(&mut properties, method);
    if let Some(data) = data {
        properties.put_u8(0x16);
        binary(&mut properties, data);
    }
    properties.to_vec()
}

/// An AUTH (5.0).
#[must_use]
pub fn auth(reason: u8, method: &str, data: &[u8]) -> Bytes {
    let properties = authentication(method, Some(data));
    let mut body = BytesMut::new();
    body.put_u8(reason);
    varint(&mut body, properties.len());
    body.put_slice(&properties);
    packet(0xf0, &body)
}

/// PUBACK (4), PUBREC (5), PUBREL (6) or PUBCOMP (7).
pub(crate) fn acknowledgement(kind: u8, id: u16) -> Bytes {
    let flags = if kind == 6 { 2 } else { 0 };
    packet(kind << 4 | flags, &id.to_be_bytes())
}

pub(crate) fn subscribe(level: Level, id: u16, filters: &[(&str, u8)]) -> Bytes {
    let mut body = BytesMut::new();
    body.put_u16(id);
    if level == Level::V5 {
        body.put_u8(0);
    }
    for (filter, qos) in filters {
        string(&mut body, filter);
        body.put_u8(*qos);
    }
    packet(0x82, &body)
}

pub(crate) const PINGREQ: [u8; 2] = [0xc0, 0];
/// DISCONNECT of MQTT 3.1.1, and of 5.0 with reason code 0 (3.14).
pub const DISCONNECT: [u8; 2] = [0xe0, 0];

/// A packet of a first byte and what follows the remaining length. Public for tests that build bad packets.
#[must_use]
pub fn packet(first: u8, body: &[u8]) -> Bytes {
    let mut whole = BytesMut::with_capacity(body.len() + 5);
    whole.put_u8(first);
    varint(&mut whole, body.len());
    whole.put_slice(body);
    whole.freeze()
}

pub(crate) fn string(to: &mut BytesMut, text: &str) {
    binary(to, text.as_bytes());
}

fn binary(to: &mut BytesMut, bytes: &[u8]) {
    to.put_u16(u16::try_from(bytes.len()).expect("less than 64 KiB"));
    to.put_slice(bytes);
}

pub(crate) fn varint(to: &mut BytesMut, mut value: usize) {
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            to.put_u8(byte);
            return;
        }
        to.put_u8(byte | 0x80);
    }
}
