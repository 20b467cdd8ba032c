//! PUBLISH (3.3): the packet, and the head of one that is written straight from a stored record.

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;

use super::property::properties;
use super::reader::Reader;
use super::writer::{Writer, put_varint, varint_len};
use super::{
    DecodeError, EncodeError, PacketId, PacketKind, Qos, ReasonCode, SubscriptionId, VARINT_MAX, Version,
    topic,
};

properties! {
    /// Properties of a PUBLISH (3.3.2.3).
    PublishProperties {
        /// Whether the payload is UTF-8 text.
        0x01 payload_is_text: Option<bool>,
        /// Seconds the message is good for.
        0x02 message_expiry_s: Option<u32>,
        /// MIME type of the payload.
        0x03 content_type: Option<ByteString>,
        /// Where to answer to.
        0x08 response_topic: Option<ByteString>,
        /// What the answer is to.
        0x09 correlation_data: Option<Bytes>,
        /// Identifiers of the subscriptions it matched; server to client only.
        0x0B subscription_ids: Vec<SubscriptionId>,
        /// A number for the topic.
        0x23 topic_alias: Option<u16>,
        /// User properties, in order.
        0x26 user_properties: Vec<(ByteString, ByteString)>,
    }
}

properties! {
    list
    /// The properties of a PUBLISH that a server passes on unaltered (MQTT-3.3.2-4, -15, -16, -17, -20).
    /// They are stored as they stand on the wire, so that passing them on is a copy.
    Forwarded {
        /// Whether the payload is UTF-8 text.
        0x01 payload_is_text: Option<bool>,
        /// MIME type of the payload.
        0x03 content_type: Option<ByteString>,
        /// Where to answer to.
        0x08 response_topic: Option<ByteString>,
        /// What the answer is to.
        0x09 correlation_data: Option<Bytes>,
        /// User properties, in order.
        0x26 user_properties: Vec<(ByteString, ByteString)>,
    }
}

impl Forwarded {
    /// Reads properties without a length in front; `None` if they are not whole.
    #[must_use]
    pub fn from_wire(wire: Bytes) -> Option<Forwarded> {
        Forwarded::decode_list(Reader::new(wire)).ok()
    }

    /// Appends the properties without a length in front. Each came out of a packet, so it fits.
    pub fn put_wire(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        Writer::list(out, |writer| self.encode_list(writer))
    }
}

/// A message on its way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Publish {
    /// Whether it may have been sent before.
    pub dup: bool,
    /// With which QoS.
    pub qos: Qos,
    /// To the server: keep it. From the server: it was kept.
    pub retain: bool,
    /// Where to; empty where a topic alias says it.
    pub topic: ByteString,
    /// Present exactly when the QoS is not 0.
    pub id: Option<PacketId>,
    /// MQTT 5 properties; empty in 3.1.1.
    pub properties: PublishProperties,
    /// What.
    pub payload: Bytes,
}

impl Publish {
    pub(super) fn decode(first: u8, reader: &mut Reader, version: Version) -> Result<Publish, DecodeError> {
        let qos = Qos::from_bits((first >> 1) & 3)
            .ok_or_else(|| DecodeError::malformed("a PUBLISH has QoS 3", "MQTT-3.3.1-4"))?;
        let name = reader.string()?;
        let id = if qos == Qos::AtMostOnce { None } else { Some(reader.packet_id()?) };
        let properties = match version {
            Version::V5 => PublishProperties::decode(reader)?,
            Version::V311 => PublishProperties::default(),
        };
        if properties.topic_alias == Some(0) {
            return Err(DecodeError {
                reason: ReasonCode::TOPIC_ALIAS_INVALID,
                what: "the topic alias is 0",
                section: "MQTT-3.3.2-8",
            });
        }
        if name.is_empty() {
            if properties.topic_alias.is_none() {
                return Err(DecodeError::protocol("an empty topic without a topic alias", "3.3.2.1"));
            }
        } else {
            topic::check_name(&name)?;
        }
        if let Some(response) = &properties.response_topic {
            topic::check_name(response)?;
        }
        let (dup, retain) = (first & 0b1000 != 0, first & 1 != 0);
        Ok(Publish { dup, qos, retain, topic: name, id, properties, payload: reader.rest() })
    }

    pub(super) fn encode(&self, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
        out.reserve(self.topic.len() + self.payload.len() + 16);
        Writer::packet(out, first_byte(self.dup, self.qos, self.retain), |writer| {
            writer.string(&self.topic);
            if let Some(id) = self.id {
                writer.u16(id.get());
            }
            if version == Version::V5 {
                self.properties.encode(writer);
            }
            writer.raw(&self.payload);
        })
    }
}

fn first_byte(dup: bool, qos: Qos, retain: bool) -> u8 {
    ((PacketKind::Publish as u8) << 4) | (u8::from(dup) << 3) | (qos.bits() << 1) | u8::from(retain)
}

/// Everything of a PUBLISH but its payload, borrowed from where it is stored.
#[derive(Clone, Copy, Debug)]
pub struct PublishHead<'a> {
    /// See [`Publish::dup`].
    pub dup: bool,
    /// See [`Publish::qos`].
    pub qos: Qos,
    /// See [`Publish::retain`].
    pub retain: bool,
    /// See [`Publish::topic`].
    pub topic: &'a str,
    /// A number that stands for the topic from here on, or, where that is empty, already does.
    pub topic_alias: Option<u16>,
    /// See [`Publish::id`].
    pub id: Option<PacketId>,
    /// Seconds the message is still good for.
    pub message_expiry_s: Option<u32>,
    /// Identifiers of the subscriptions it matched.
    pub subscription_ids: &'a [SubscriptionId],
    /// Other properties, as they stand on the wire.
    pub forwarded: &'a [u8],
    /// Bytes of the payload that follows.
    pub payload_bytes: usize,
}

impl PublishHead<'_> {
    fn properties_bytes(&self) -> usize {
        self.message_expiry_s.map_or(0, |_| 5)
            + self.topic_alias.map_or(0, |_| 3)
            + self.subscription_ids.iter().map(|id| 1 + varint_len(id.get() as usize)).sum::<usize>()
            + self.forwarded.len()
    }

    fn body_bytes(&self, version: Version) -> usize {
        let id = if self.id.is_some() { 2 } else { 0 };
        let properties = match version {
            Version::V311 => 0,
            Version::V5 => {
                let bytes = self.properties_bytes();
                varint_len(bytes) + bytes
            }
        };
        2 + self.topic.len() + id + properties + self.payload_bytes
    }

    /// Bytes of the whole packet, its payload included.
    pub fn packet_bytes(&self, version: Version) -> Result<usize, EncodeError> {
        let body = self.body_bytes(version);
        if body > VARINT_MAX as usize {
            return Err(EncodeError::PacketTooLong(body));
        }
        if self.topic.len() > usize::from(u16::MAX) {
            return Err(EncodeError::FieldTooLong(self.topic.len()));
        }
        Ok(1 + varint_len(body) + body)
    }

    /// Appends the packet up to its payload.
    pub fn encode(&self, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
        self.packet_bytes(version)?;
        out.put_u8(first_byte(self.dup, self.qos, self.retain));
        put_varint(out, self.body_bytes(version) as u32);
        out.put_u16(self.topic.len() as u16);
        out.put_slice(self.topic.as_bytes());
        if let Some(id) = self.id {
            out.put_u16(id.get());
        }
        if version == Version::V5 {
            put_varint(out, self.properties_bytes() as u32);
            if let Some(seconds) = self.message_expiry_s {
                out.put_u8(0x02);
                out.put_u32(seconds);
            }
            if let Some(alias) = self.topic_alias {
                out.put_u8(0x23);
                out.put_u16(alias);
            }
            for id in self.subscription_ids {
                out.put_u8(0x0B);
                put_varint(out, id.get());
            }
            out.put_slice(self.forwarded);
        }
        Ok(())
    }
}
