//! DISCONNECT (3.14).

use bytestring::ByteString;

use super::property::properties;
use super::reader::Reader;
use super::writer::Writer;
use super::{DecodeError, ReasonCode, Version};

properties! {
    /// Properties of a DISCONNECT (3.14.2.2).
    DisconnectProperties {
        /// Seconds the session lives on, in place of what the CONNECT said; client to server only.
        0x11 session_expiry_s: Option<u32>,
        /// Why, for people.
        0x1F reason_string: Option<ByteString>,
        /// User properties, in order.
        0x26 user_properties: Vec<(ByteString, ByteString)>,
        /// Another server to use; server to client only.
        0x1C server_reference: Option<ByteString>,
    }
}

/// One side goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disconnect {
    /// Why; always a normal disconnection in 3.1.1.
    pub reason: ReasonCode,
    /// MQTT 5 properties; empty in 3.1.1.
    pub properties: DisconnectProperties,
}

/// Reason codes of a DISCONNECT (table 3-10).
pub(super) const REASONS: &[u8] = &[
    0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96,
    0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
];

impl Disconnect {
    pub(super) fn decode(reader: &mut Reader, version: Version) -> Result<Disconnect, DecodeError> {
        let mut disconnect = Disconnect::default();
        if version == Version::V5 && !reader.is_empty() {
            let code = reader.u8()?;
            if !REASONS.contains(&code) {
                return Err(DecodeError::malformed("a DISCONNECT has a code that is not known", "3.14.2.1"));
            }
            disconnect.reason = ReasonCode(code);
            if !reader.is_empty() {
                disconnect.properties = DisconnectProperties::decode(reader)?;
            }
        }
        Ok(disconnect)
    }

    pub(super) fn encode(&self, writer: &mut Writer<'_>, version: Version) {
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
