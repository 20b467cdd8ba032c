//! Packets as the load needs them: those of every message parsed where they were read or patched into bytes made before, all others
//! through the hub's own codec.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

use super::stamp::{STAMP_BYTES, Stamp};
use crate::bench::{Error, Result};
use crate::mqtt::codec::{
    Connect, ConnectProperties, DecodeError, Decoder, Disconnect, Packet, PacketId, PacketKind, Publish, Qos,
    ReasonCode, Subscribe, SubscribeProperties, SubscriptionOptions, TopicRequest, Version,
};

/// The largest packet a broker may send: nothing as large is published. A connection's buffer holds it.
pub(super) const PACKET_BYTES_MAX: usize = 192 << 10;
/// Seconds that sessions outlive their connection in MQTT 5, when they are to.
const SESSION_EXPIRY_S: u32 = 3600;

/// A packet from the broker.
#[derive(Debug, PartialEq)]
pub(super) enum Incoming<'a> {
    Publish(Delivery<'a>),
    Puback { id: u16, reason: ReasonCode },
    Other(Box<Packet>),
}

/// A PUBLISH from the broker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Delivery<'a> {
    /// Present if it is to be acknowledged: QoS 1.
    pub(super) id: Option<u16>,
    pub(super) payload: &'a [u8],
}

fn malformed(what: &'static str, section: &'static str) -> Error {
    broken(&DecodeError::malformed(what, section))
}

fn broken(error: &DecodeError) -> Error {
    Error::Other(format!("the broker broke the protocol: {error}"))
}

/// The first packet of what was read, and its bytes; `None` if not all of it is there.
pub(super) fn first(bytes: &[u8], version: Version) -> Result<Option<(Incoming<'_>, usize)>> {
    let Some((&head, rest)) = bytes.split_first() else { return Ok(None) };
    let Some((length, body)) = varint(rest)? else { return Ok(None) };
    let head_bytes = bytes.len() - body.len();
    if head_bytes + length > PACKET_BYTES_MAX {
        return Err(Error::Other(format!(
            "the broker sent a packet of {} bytes, and nothing was published that is larger than \
             {PACKET_BYTES_MAX}; is something else connected under the same topics?",
            head_bytes + length
        )));
    }
    let (Some(body), Some(packet)) = (body.get(..length), bytes.get(..head_bytes + length)) else {
        return Ok(None);
    };
    let short = || malformed("the packet ends in the middle of a field", "4.13.1");
    let incoming = match head >> 4 {
        kind if kind == PacketKind::Publish as u8 => {
            Incoming::Publish(publish(head, body, version)?.ok_or_else(short)?)
        }
        kind if kind == PacketKind::Puback as u8 => {
            let (id, rest) = body.split_first_chunk().ok_or_else(short)?;
            // Success is written without a code (3.4.2.1), and 3.1.1 has none.
            let reason = rest.first().map_or(ReasonCode::SUCCESS, |code| ReasonCode(*code));
            Incoming::Puback { id: u16::from_be_bytes(*id), reason }
        }
        _ => {
            let mut decoder = Decoder::client(version, PACKET_BYTES_MAX);
            let decoded = decoder.decode(&mut BytesMut::from(packet)).map_err(|error| broken(&error))?;
            Incoming::Other(Box::new(decoded.ok_or_else(short)?))
        }
    };
    Ok(Some((incoming, packet.len())))
}

/// A Variable Byte Integer and what comes after it; `None` if it is not all there.
fn varint(bytes: &[u8]) -> Result<Option<(usize, &[u8])>> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(bytes.get(at + 1..).map(|rest| (value, rest)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(malformed("a length has more than four bytes", "1.5.5")) }
}

/// `None` if the body is too short.
fn publish(head: u8, body: &[u8], version: Version) -> Result<Option<Delivery<'_>>> {
    let Some((topic_bytes, rest)) = body.split_first_chunk() else { return Ok(None) };
    let Some(rest) = rest.get(usize::from(u16::from_be_bytes(*topic_bytes))..) else { return Ok(None) };
    let (id, rest) = match Qos::from_bits((head >> 1) & 3) {
        Some(Qos::AtMostOnce) => (None, rest),
        Some(Qos::AtLeastOnce) => {
            let Some((id, rest)) = rest.split_first_chunk() else { return Ok(None) };
            (Some(u16::from_be_bytes(*id)), rest)
        }
        _ => return Err(malformed("a PUBLISH with more QoS than was subscribed with", "MQTT-3.8.4-8")),
    };
    let payload = match version {
        Version::V311 => Some(rest),
        Version::V5 => varint(rest)?.and_then(|(properties, rest)| rest.get(properties..)),
    };
    Ok(payload.map(|payload| Delivery { id, payload }))
}

/// Appends the acknowledgement of a delivery.
pub(super) fn put_puback(out: &mut Vec<u8>, id: u16) {
    let [high, low] = id.to_be_bytes();
    out.extend([(PacketKind::Puback as u8) << 4, 2, high, low]);
}

fn encoded(packet: &Packet, version: Version) -> Result<Vec<u8>> {
    let mut out = BytesMut::new();
    packet.encode(version, &mut out).map_err(|error| Error::Other(error.to_string()))?;
    Ok(out.to_vec())
}

/// A CONNECT without keep alive: no scenario leaves a connection alone for so long that it would be needed.
pub(super) fn connect(client_id: &str, clean: bool, version: Version) -> Result<Vec<u8>> {
    let session_expiry_s = (version == Version::V5 && !clean).then_some(SESSION_EXPIRY_S);
    let connect = Connect {
        version,
        clean_start: clean,
        keep_alive_s: 0,
        client_id: client_id.into(),
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties { session_expiry_s, ..ConnectProperties::default() },
    };
    encoded(&Packet::Connect(Box::new(connect)), version)
}

/// A SUBSCRIBE to one filter.
pub(super) fn subscribe(filter: &str, qos: Qos, version: Version) -> Result<Vec<u8>> {
    let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
    let request = TopicRequest { filter: filter.into(), options };
    let properties = SubscribeProperties::default();
    let filters = [request].into_iter().collect();
    encoded(&Packet::Subscribe(Subscribe { id: PacketId::MIN, properties, filters }), version)
}

/// A DISCONNECT.
pub(super) fn disconnect(version: Version) -> Result<Vec<u8>> {
    encoded(&Packet::Disconnect(Disconnect::default()), version)
}

/// A PUBLISH that lacks its packet identifier and its stamp.
#[derive(Clone, Debug)]
pub(super) struct Template {
    bytes: Vec<u8>,
    /// Where the packet identifier is to stand, with QoS 1.
    id_at: Option<usize>,
    stamp_at: usize,
}

impl Template {
    /// `payload_bytes` is at least [`STAMP_BYTES`].
    pub(super) fn new(topic: &str, qos: Qos, payload_bytes: usize, version: Version) -> Result<Template> {
        if payload_bytes < STAMP_BYTES {
            return Err(Error::Other(format!(
                "a payload of {payload_bytes} bytes has no room for {STAMP_BYTES}"
            )));
        }
        let publish = Publish {
            qos,
            topic: ByteString::from(topic),
            id: (qos != Qos::AtMostOnce).then_some(PacketId::MIN),
            payload: Bytes::from(vec![b'x'; payload_bytes]),
            ..Publish::default()
        };
        let id = publish.id;
        let bytes = encoded(&Packet::Publish(publish), version)?;
        let stamp_at = bytes.len() - payload_bytes;
        // The length of no properties is a byte.
        let properties_bytes = if version == Version::V5 { 1 } else { 0 };
        Ok(Template { id_at: id.map(|_| stamp_at - properties_bytes - 2), stamp_at, bytes })
    }

    /// Appends the PUBLISH of a message.
    pub(super) fn put(&self, out: &mut Vec<u8>, id: u16, stamp: Stamp) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        if let Some(place) = self.id_at.and_then(|at| out.get_mut(start + at..start + at + 2)) {
            place.copy_from_slice(&id.to_be_bytes());
        }
        let stamp_at = start + self.stamp_at;
        if let Some(place) = out.get_mut(stamp_at..stamp_at + STAMP_BYTES) {
            place.copy_from_slice(&stamp.to_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::codec::{Ack, Connack, PublishProperties, SubscriptionId};

    const VERSIONS: [Version; 2] = [Version::V311, Version::V5];
    const STAMP: Stamp = Stamp { run: 1, publisher: 2, sequence: 3, intended_ns: 4 };

    #[test]
    fn a_template_is_the_codecs_publish() {
        for version in VERSIONS {
            for (qos, id) in [(Qos::AtMostOnce, None), (Qos::AtLeastOnce, PacketId::new(0x1234))] {
                let mut out = b"before".to_vec();
                Template::new("a/b", qos, 200, version).unwrap().put(&mut out, 0x1234, STAMP);
                let mut decoder = Decoder::client(version, 1000);
                let mut bytes = BytesMut::from(&out[6..]);
                let Some(Packet::Publish(publish)) = decoder.decode(&mut bytes).unwrap() else { panic!() };
                assert_eq!((publish.qos, publish.id, publish.topic.as_ref()), (qos, id, "a/b"));
                assert_eq!((Stamp::of(&publish.payload), publish.payload.len()), (Some(STAMP), 200));
                assert!(bytes.is_empty());
            }
        }
        assert!(Template::new("a", Qos::AtMostOnce, STAMP_BYTES - 1, Version::V5).is_err());
    }

    fn packets() -> Vec<Packet> {
        let publish = |qos, id| Publish {
            qos,
            id,
            topic: "bench/7".into(),
            payload: Bytes::from(vec![b'p'; 300]),
            ..Publish::default()
        };
        vec![
            Packet::Connack(Box::default()),
            Packet::Publish(publish(Qos::AtMostOnce, None)),
            Packet::Publish(publish(Qos::AtLeastOnce, PacketId::new(500))),
            Packet::Puback(Ack::new(PacketId::new(600).unwrap(), ReasonCode::SUCCESS)),
            Packet::Pingresp,
        ]
    }

    #[test]
    fn packets_are_found_wherever_the_bytes_are_cut() {
        for version in VERSIONS {
            let mut bytes = BytesMut::new();
            packets().iter().for_each(|packet| packet.encode(version, &mut bytes).unwrap());
            let mut at = 0;
            let mut found = Vec::new();
            for end in 0..=bytes.len() {
                while let Some((incoming, used)) = first(&bytes[at..end], version).unwrap() {
                    found.push(format!("{incoming:?}"));
                    at += used;
                }
            }
            let payload = &[b'p'; 300][..];
            let expected = [
                Incoming::Other(Box::new(Packet::Connack(Box::<Connack>::default()))),
                Incoming::Publish(Delivery { id: None, payload }),
                Incoming::Publish(Delivery { id: Some(500), payload }),
                Incoming::Puback { id: 600, reason: ReasonCode::SUCCESS },
                Incoming::Other(Box::new(Packet::Pingresp)),
            ];
            assert_eq!(found, expected.map(|incoming| format!("{incoming:?}")));
            assert_eq!(at, bytes.len());
        }
    }

    #[test]
    fn properties_are_passed_over_and_refusals_are_seen() {
        let publish = Publish {
            topic: "t".into(),
            payload: Bytes::from_static(b"payload"),
            properties: PublishProperties {
                subscription_ids: vec![SubscriptionId::new(300).unwrap()],
                user_properties: vec![("name".into(), "x".repeat(200).into())],
                ..PublishProperties::default()
            },
            ..Publish::default()
        };
        let mut bytes = BytesMut::new();
        Packet::Publish(publish).encode(Version::V5, &mut bytes).unwrap();
        let (incoming, _) = first(&bytes, Version::V5).unwrap().unwrap();
        assert_eq!(incoming, Incoming::Publish(Delivery { id: None, payload: b"payload" }));
        let refused = first(&[0x40, 3, 0, 9, 0x97], Version::V5).unwrap().unwrap().0;
        assert_eq!(refused, Incoming::Puback { id: 9, reason: ReasonCode::QUOTA_EXCEEDED });
    }

    #[test]
    fn what_is_no_mqtt_is_refused() {
        let messages = [
            (&[0x30, 0xff, 0xff, 0xff, 0xff, 0x01][..], "more than four bytes"),
            (&[0x30, 0xff, 0xff, 0xff, 0x7f], "a packet of 268435460 bytes"),
            (&[0x30, 3, 0, 9, b'x'], "middle of a field"),
            (&[0x34, 5, 0, 1, b'x', 0, 1], "more QoS"),
            (&[0x40, 1, 0], "middle of a field"),
            (&[0x00, 0], "packet type 0"),
        ];
        for (bytes, what) in messages {
            let error = first(bytes, Version::V311).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
