//! [`Packet`]: what a server sends.

use std::io;

use bytes::{Buf, Bytes, BytesMut};

use super::Level;

/// A property of an MQTT 5 packet: identifier and value (MQTT 5.0, section 2.2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Property {
    /// A number, whatever its width.
    Number(u8, u32),
    /// A string, or binary data that is one.
    Text(u8, String),
    /// A user property.
    User(String, String),
}

/// Properties in the order they were sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties(pub Vec<Property>);

impl Properties {
    /// The number with this identifier.
    #[must_use]
    pub fn number(&self, identifier: u8) -> Option<u32> {
        self.0.iter().find_map(|property| match property {
            Property::Number(id, value) if *id == identifier => Some(*value),
            _ => None,
        })
    }

    /// The string with this identifier.
    #[must_use]
    pub fn text(&self, identifier: u8) -> Option<&str> {
        self.0.iter().find_map(|property| match property {
            Property::Text(id, value) if *id == identifier => Some(&**value),
            _ => None,
        })
    }
}

/// A packet received.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are named as in the specification, chapter 3")]
pub enum Packet {
    ConnAck {
        session_present: bool,
        reason: u8,
        properties: Properties,
    },
    Publish {
        dup: bool,
        qos: u8,
        retain: bool,
        topic: String,
        id: u16,
        properties: Properties,
        payload: Bytes,
    },
    PubAck {
        id: u16,
        reason: u8,
    },
    PubRec {
        id: u16,
        reason: u8,
    },
    PubRel {
        id: u16,
        reason: u8,
    },
    PubComp {
        id: u16,
        reason: u8,
    },
    SubAck {
        id: u16,
        reasons: Vec<u8>,
    },
    UnsubAck {
        id: u16,
        reasons: Vec<u8>,
    },
    PingResp,
    Disconnect {
        reason: u8,
    },
    Auth {
        reason: u8,
        properties: Properties,
    },
}

/// Cuts the first packet out of `buffer`, if it is there whole.
pub(super) fn decode(level: Level, buffer: &mut BytesMut) -> io::Result<Option<Packet>> {
    let Some(&first) = buffer.first() else { return Ok(None) };
    let Some((length, header)) = remaining_length(buffer)? else { return Ok(None) };
    if buffer.len() < header + length {
        buffer.reserve(header + length - buffer.len());
        return Ok(None);
    }
    let mut body = buffer.split_to(header + length).freeze().slice(header..);
    let packet = match first >> 4 {
        2 => {
            let flags = u8_of(&mut body)?;
            let reason = u8_of(&mut body)?;
            Packet::ConnAck {
                session_present: flags & 1 == 1,
                reason,
                properties: properties(level, &mut body)?,
            }
        }
        3 => publish(level, first, &mut body)?,
        4 => acknowledgement(&mut body, |id, reason| Packet::PubAck { id, reason })?,
        5 => acknowledgement(&mut body, |id, reason| Packet::PubRec { id, reason })?,
        6 => acknowledgement(&mut body, |id, reason| Packet::PubRel { id, reason })?,
        7 => acknowledgement(&mut body, |id, reason| Packet::PubComp { id, reason })?,
        9 => {
            let id = u16_of(&mut body)?;
            properties(level, &mut body)?;
            Packet::SubAck { id, reasons: body.to_vec() }
        }
        11 => {
            let id = u16_of(&mut body)?;
            properties(level, &mut body)?;
            Packet::UnsubAck { id, reasons: body.to_vec() }
        }
        13 => Packet::PingResp,
        14 => Packet::Disconnect { reason: if body.has_remaining() { body.get_u8() } else { 0 } },
        15 => {
            let reason = if body.has_remaining() { body.get_u8() } else { 0 };
            Packet::Auth { reason, properties: properties(level, &mut body)? }
        }
        kind => return Err(bad(format!("a packet of type {kind}, which was not asked for"))),
    };
    Ok(Some(packet))
}

fn publish(level: Level, first: u8, body: &mut Bytes) -> io::Result<Packet> {
    let qos = first >> 1 & 3;
    let topic = string_of(body)?;
    let id = if qos > 0 { u16_of(body)? } else { 0 };
    let properties = properties(level, body)?;
    let payload = body.split_off(0);
    Ok(Packet::Publish { dup: first & 8 != 0, qos, retain: first & 1 != 0, topic, id, properties, payload })
}

fn acknowledgement(body: &mut Bytes, packet: impl Fn(u16, u8) -> Packet) -> io::Result<Packet> {
    let id = u16_of(body)?;
    Ok(packet(id, if body.has_remaining() { body.get_u8() } else { 0 }))
}

/// Remaining length and the bytes of the fixed header, if all of it is there.
fn remaining_length(buffer: &[u8]) -> io::Result<Option<(usize, usize)>> {
    let mut length = 0;
    for at in 0..4 {
        let Some(&byte) = buffer.get(1 + at) else { return Ok(None) };
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((length, 2 + at)));
        }
    }
    Err(bad("a remaining length of more than four bytes"))
}

fn properties(level: Level, body: &mut Bytes) -> io::Result<Properties> {
    let mut found = Vec::new();
    // A packet may end before its properties when it has none.
    if level == Level::V311 || !body.has_remaining() {
        return Ok(Properties(found));
    }
    let length = varint_of(body)? as usize;
    if body.len() < length {
        return Err(bad("properties longer than their packet"));
    }
    let mut body = body.split_to(length);
    while body.has_remaining() {
        let identifier = u8_of(&mut body)?;
        found.push(match identifier {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => {
                Property::Number(identifier, u8_of(&mut body)?.into())
            }
            0x13 | 0x21 | 0x22 | 0x23 => Property::Number(identifier, u16_of(&mut body)?.into()),
            0x02 | 0x11 | 0x18 | 0x27 => Property::Number(identifier, u32_of(&mut body)?),
            0x0b => Property::Number(identifier, varint_of(&mut body)?),
            0x26 => Property::User(string_of(&mut body)?, string_of(&mut body)?),
            0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => {
                Property::Text(identifier, string_of(&mut body)?)
            }
            _ => return Err(bad(format!("unknown property {identifier:#04x}"))),
        });
    }
    Ok(Properties(found))
}

fn varint_of(body: &mut Bytes) -> io::Result<u32> {
    let mut value = 0;
    for at in 0..4 {
        let byte = u8_of(body)?;
        value |= u32::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(bad("a variable byte integer of more than four bytes"))
}

fn u8_of(body: &mut Bytes) -> io::Result<u8> {
    body.try_get_u8().map_err(bad)
}

fn u16_of(body: &mut Bytes) -> io::Result<u16> {
    body.try_get_u16().map_err(bad)
}

fn u32_of(body: &mut Bytes) -> io::Result<u32> {
    body.try_get_u32().map_err(bad)
}

fn string_of(body: &mut Bytes) -> io::Result<String> {
    let length = usize::from(u16_of(body)?);
    if body.len() < length {
        return Err(bad("a string longer than its packet"));
    }
    String::from_utf8(body.split_to(length).to_vec()).map_err(bad)
}

fn bad(what: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("bad packet from the server: {}", what.to_string()))
}
