//! SUBACK (3.9) and UNSUBACK (3.11).

use bytestring::ByteString;
use smallvec::SmallVec;

use super::property::properties;
use super::reader::Reader;
use super::writer::{Writer, varint_len};
use super::{DecodeError, PacketId, ReasonCode, Version};

properties! {
    /// Properties of a SUBACK or UNSUBACK.
    SubackProperties {
        /// Why, for people.
        0x1F reason_string: Option<ByteString>,
        /// User properties, in order.
        0x26 user_properties: Vec<(ByteString, ByteString)>,
    }
}

/// The server's answer to a SUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suback {
    /// The SUBSCRIBE it answers.
    pub id: PacketId,
    /// MQTT 5 properties; empty in 3.1.1.
    pub properties: SubackProperties,
    /// What became of each filter, in their order. In 3.1.1 every failure is 0x80.
    pub reasons: SmallVec<[ReasonCode; 4]>,
}

/// Bytes of a SUBACK or UNSUBACK of MQTT 5 with this many reason codes and no properties: it cannot be shorter.
#[must_use]
pub fn answer_bytes_min(reasons: usize) -> usize {
    // A packet identifier and a Property Length.
    let body = 3 + reasons;
    1 + varint_len(body) + body
}

fn reasons(reader: &mut Reader, known: &[u8]) -> Result<SmallVec<[ReasonCode; 4]>, DecodeError> {
    let codes = reader.rest();
    if codes.is_empty() {
        return Err(DecodeError::protocol("an answer to a (UN)SUBSCRIBE without a reason code", "3.9.3"));
    }
    if codes.iter().any(|code| !known.contains(code)) {
        return Err(DecodeError::malformed("an answer has a reason code of another packet", "2.4"));
    }
    Ok(codes.iter().map(|code| ReasonCode(*code)).collect())
}

impl Suback {
    pub(super) fn decode(reader: &mut Reader, version: Version) -> Result<Suback, DecodeError> {
        let id = reader.packet_id()?;
        let (properties, known): (_, &[u8]) = match version {
            Version::V5 => (
                SubackProperties::decode(reader)?,
                &[0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2],
            ),
            Version::V311 => (SubackProperties::default(), &[0x00, 0x01, 0x02, 0x80]),
        };
        Ok(Suback { id, properties, reasons: reasons(reader, known)? })
    }

    pub(super) fn encode(&self, writer: &mut Writer<'_>, version: Version) {
        writer.u16(self.id.get());
        if version == Version::V5 {
            self.properties.encode(writer);
        }
        for reason in &self.reasons {
            let failed = version == Version::V311 && reason.is_error();
            writer.u8(if failed { 0x80 } else { reason.0 });
        }
    }
}

/// The server's answer to an UNSUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsuback {
    /// The UNSUBSCRIBE it answers.
    pub id: PacketId,
    /// MQTT 5 properties; empty in 3.1.1.
    pub properties: SubackProperties,
    /// What became of each filter, in their order; not there in 3.1.1.
    pub reasons: SmallVec<[ReasonCode; 4]>,
}

impl Unsuback {
    pub(super) fn decode(reader: &mut Reader, version: Version) -> Result<Unsuback, DecodeError> {
        let id = reader.packet_id()?;
        if version == Version::V311 {
            return Ok(Unsuback { id, properties: SubackProperties::default(), reasons: SmallVec::new() });
        }
        let properties = SubackProperties::decode(reader)?;
        let reasons = reasons(reader, &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91])?;
        Ok(Unsuback { id, properties, reasons })
    }

    pub(super) fn encode(&self, writer: &mut Writer<'_>, version: Version) {
        writer.u16(self.id.get());
        if version == Version::V5 {
            self.properties.encode(writer);
            for reason in &self.reasons {
                writer.u8(reason.0);
            }
        }
    }
}
