//! PUBACK, PUBREC, PUBREL and PUBCOMP (3.4 to 3.7), which are laid out alike.

use bytestring::ByteString;

use super::property::properties;
use super::reader::Reader;
use super::writer::Writer;
use super::{DecodeError, PacketId, PacketKind, ReasonCode, Version};

properties! {
    /// Properties of a PUBACK, PUBREC, PUBREL or PUBCOMP.
    AckProperties {
        /// Why, for people.
        0x1F reason_string: Option<ByteString>,
        /// User properties, in order.
        0x26 user_properties: Vec<(ByteString, ByteString)>,
    }
}

/// One step in the delivery of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The message.
    pub id: PacketId,
    /// How it went; always success in 3.1.1, which cannot say anything else.
    pub reason: ReasonCode,
    /// MQTT 5 properties; empty in 3.1.1.
    pub properties: AckProperties,
}

impl Ack {
    /// An acknowledgement without properties.
    #[must_use]
    pub fn new(id: PacketId, reason: ReasonCode) -> Self {
        Ack { id, reason, properties: AckProperties::default() }
    }

    pub(super) fn decode(
        kind: PacketKind,
        reader: &mut Reader,
        version: Version,
    ) -> Result<Ack, DecodeError> {
        let mut ack = Ack::new(reader.packet_id()?, ReasonCode::SUCCESS);
        // Success without properties is written without either (3.4.2.1).
        if version == Version::V5 && !reader.is_empty() {
            let code = reader.u8()?;
            let known: &[u8] = match kind {
                PacketKind::Pubrel | PacketKind::Pubcomp => &[0x00, 0x92],
                _ => &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99],
            };
            if !known.contains(&code) {
                return Err(DecodeError::malformed(
                    "an acknowledgement has a reason code of another packet",
                    "2.4",
                ));
            }
            ack.reason = ReasonCode(code);
            if !reader.is_empty() {
                ack.properties = AckProperties::decode(reader)?;
            }
        }
        Ok(ack)
    }

    pub(super) fn encode(&self, writer: &mut Writer<'_>, version: Version) {
        writer.u16(self.id.get());
        let plain = self.properties.is_empty();
        if version == Version::V311 || (plain && self.reason == ReasonCode::SUCCESS) {
            return;
        }
        writer.u8(self.reason.0);
        if !plain {
            self.properties.encode(writer);
        }
    }
}
