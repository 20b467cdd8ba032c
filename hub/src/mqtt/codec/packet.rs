//! [`Packet`]: any of the fifteen.

use bytes::{Bytes, BytesMut};

use super::writer::Writer;
use super::{
    Ack, Auth, Connack, Connect, DecodeError, Disconnect, EncodeError, Publish, Qos, Reader, Suback,
    Subscribe, Unsuback, Unsubscribe, Version,
};

/// The type of a packet: the high half of its first byte (2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PacketKind {
    /// CONNECT
    Connect = 1,
    /// CONNACK
    Connack = 2,
    /// PUBLISH
    Publish = 3,
    /// PUBACK
    Puback = 4,
    /// PUBREC
    Pubrec = 5,
    /// PUBREL
    Pubrel = 6,
    /// PUBCOMP
    Pubcomp = 7,
    /// SUBSCRIBE
    Subscribe = 8,
    /// SUBACK
    Suback = 9,
    /// UNSUBSCRIBE
    Unsubscribe = 10,
    /// UNSUBACK
    Unsuback = 11,
    /// PINGREQ
    Pingreq = 12,
    /// PINGRESP
    Pingresp = 13,
    /// DISCONNECT
    Disconnect = 14,
    /// AUTH
    Auth = 15,
}

impl PacketKind {
    /// The kind and flags that a first byte stands for, when it may stand there.
    pub(crate) fn from_first_byte(first: u8) -> Result<PacketKind, DecodeError> {
        let kind = match first >> 4 {
            1 => PacketKind::Connect,
            2 => PacketKind::Connack,
            3 => PacketKind::Publish,
            4 => PacketKind::Puback,
            5 => PacketKind::Pubrec,
            6 => PacketKind::Pubrel,
            7 => PacketKind::Pubcomp,
            8 => PacketKind::Subscribe,
            9 => PacketKind::Suback,
            10 => PacketKind::Unsubscribe,
            11 => PacketKind::Unsuback,
            12 => PacketKind::Pingreq,
            13 => PacketKind::Pingresp,
            14 => PacketKind::Disconnect,
            15 => PacketKind::Auth,
            _ => return Err(DecodeError::malformed("packet type 0 is reserved", "2.1.2")),
        };
        if kind == PacketKind::Publish {
            let qos = Qos::from_bits((first >> 1) & 3)
                .ok_or_else(|| DecodeError::malformed("a PUBLISH has QoS 3", "MQTT-3.3.1-4"))?;
            if qos == Qos::AtMostOnce && first & 0b1000 != 0 {
                return Err(DecodeError::malformed("a PUBLISH with QoS 0 has DUP set", "MQTT-3.3.1-2"));
            }
        } else if first & 0x0f != kind.flags() {
            return Err(DecodeError::malformed(
                "reserved flags of the fixed header are wrong",
                "MQTT-2.1.3-1",
            ));
        }
        Ok(kind)
    }

    /// The flags of the fixed header of every kind but PUBLISH (table 2-2).
    fn flags(self) -> u8 {
        match self {
            PacketKind::Pubrel | PacketKind::Subscribe | PacketKind::Unsubscribe => 0b0010,
            _ => 0,
        }
    }

    /// The first byte of every kind but PUBLISH.
    pub(super) fn first_byte(self) -> u8 {
        ((self as u8) << 4) | self.flags()
    }
}

/// A control packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// Client requests a connection (3.1).
    Connect(Box<Connect>),
    /// Server answers it (3.2).
    Connack(Box<Connack>),
    /// A message (3.3).
    Publish(Publish),
    /// QoS 1: received (3.4).
    Puback(Ack),
    /// QoS 2: received (3.5).
    Pubrec(Ack),
    /// QoS 2: released (3.6).
    Pubrel(Ack),
    /// QoS 2: complete (3.7).
    Pubcomp(Ack),
    /// Client asks for subscriptions (3.8).
    Subscribe(Subscribe),
    /// Server answers (3.9).
    Suback(Suback),
    /// Client gives subscriptions up (3.10).
    Unsubscribe(Unsubscribe),
    /// Server answers (3.11).
    Unsuback(Unsuback),
    /// Client is still there (3.12).
    Pingreq,
    /// Server too (3.13).
    Pingresp,
    /// One side goes (3.14).
    Disconnect(Disconnect),
    /// Enhanced authentication (3.15).
    Auth(Auth),
}

impl Packet {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> PacketKind {
        match self {
            Packet::Connect(_) => PacketKind::Connect,
            Packet::Connack(_) => PacketKind::Connack,
            Packet::Publish(_) => PacketKind::Publish,
            Packet::Puback(_) => PacketKind::Puback,
            Packet::Pubrec(_) => PacketKind::Pubrec,
            Packet::Pubrel(_) => PacketKind::Pubrel,
            Packet::Pubcomp(_) => PacketKind::Pubcomp,
            Packet::Subscribe(_) => PacketKind::Subscribe,
            Packet::Suback(_) => PacketKind::Suback,
            Packet::Unsubscribe(_) => PacketKind::Unsubscribe,
            Packet::Unsuback(_) => PacketKind::Unsuback,
            Packet::Pingreq => PacketKind::Pingreq,
            Packet::Pingresp => PacketKind::Pingresp,
            Packet::Disconnect(_) => PacketKind::Disconnect,
            Packet::Auth(_) => PacketKind::Auth,
        }
    }

    /// Decodes the body of any packet but CONNECT, whose version is not known before.
    pub(super) fn decode(
        kind: PacketKind,
        first: u8,
        body: Bytes,
        version: Version,
    ) -> Result<Packet, DecodeError> {
        let mut reader = Reader::new(body);
        let packet = match kind {
            PacketKind::Connect => {
                return Err(DecodeError::protocol("a second CONNECT", "MQTT-3.1.0-2"));
            }
            PacketKind::Connack => Packet::Connack(Box::new(Connack::decode(&mut reader, version)?)),
            PacketKind::Publish => Packet::Publish(Publish::decode(first, &mut reader, version)?),
            PacketKind::Puback => Packet::Puback(Ack::decode(kind, &mut reader, version)?),
            PacketKind::Pubrec => Packet::Pubrec(Ack::decode(kind, &mut reader, version)?),
            PacketKind::Pubrel => Packet::Pubrel(Ack::decode(kind, &mut reader, version)?),
            PacketKind::Pubcomp => Packet::Pubcomp(Ack::decode(kind, &mut reader, version)?),
            PacketKind::Subscribe => Packet::Subscribe(Subscribe::decode(&mut reader, version)?),
            PacketKind::Suback => Packet::Suback(Suback::decode(&mut reader, version)?),
            PacketKind::Unsubscribe => Packet::Unsubscribe(Unsubscribe::decode(&mut reader, version)?),
            PacketKind::Unsuback => Packet::Unsuback(Unsuback::decode(&mut reader, version)?),
            PacketKind::Pingreq => Packet::Pingreq,
            PacketKind::Pingresp => Packet::Pingresp,
            PacketKind::Disconnect => Packet::Disconnect(Disconnect::decode(&mut reader, version)?),
            PacketKind::Auth => {
                if version == Version::V311 {
                    return Err(DecodeError::malformed("packet type 15 is reserved in 3.1.1", "3.1.1 2.2.1"));
                }
                Packet::Auth(Auth::decode(&mut reader)?)
            }
        };
        reader.end()?;
        Ok(packet)
    }

    /// Appends the packet as it is written in `version`. On an error nothing is appended.
    pub fn encode(&self, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
        let first = self.kind().first_byte();
        let with = |out: &mut BytesMut, body: &dyn Fn(&mut Writer<'_>)| Writer::packet(out, first, body);
        match self {
            Packet::Connect(packet) => with(out, &|w| packet.encode(w, version)),
            Packet::Connack(packet) => with(out, &|w| packet.encode(w, version)),
            Packet::Publish(packet) => packet.encode(version, out),
            Packet::Puback(ack) | Packet::Pubrec(ack) | Packet::Pubrel(ack) | Packet::Pubcomp(ack) => {
                with(out, &|w| ack.encode(w, version))
            }
            Packet::Subscribe(packet) => with(out, &|w| packet.encode(w, version)),
            Packet::Suback(packet) => with(out, &|w| packet.encode(w, version)),
            Packet::Unsubscribe(packet) => with(out, &|w| packet.encode(w, version)),
            Packet::Unsuback(packet) => with(out, &|w| packet.encode(w, version)),
            Packet::Pingreq | Packet::Pingresp => with(out, &|_| ()),
            Packet::Disconnect(packet) => with(out, &|w| packet.encode(w, version)),
            Packet::Auth(packet) => with(out, &|w| packet.encode(w)),
        }
    }
}
