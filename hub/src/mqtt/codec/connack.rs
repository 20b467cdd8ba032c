//! CONNACK (3.2).

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;
use bytestring::ByteString;

use super::property::properties;
use super::reader::Reader;
use super::writer::Writer;
use super::{DecodeError, Qos, ReasonCode, Version};

properties! {
    /// Properties of a CONNACK (3.2.2.3).
    ConnackProperties {
        /// Seconds the session lives on, if not what the client asked for.
        0x11 session_expiry_s: Option<u32>,
        /// How many QoS 1 and 2 messages the server takes at a time.
        0x21 receive_maximum: Option<NonZeroU16>,
        /// Highest QoS the server does; absent is 2.
        0x24 maximum_qos: Option<Qos>,
        /// Whether it keeps retained messages; absent is yes.
        0x25 retain_available: Option<bool>,
        /// Largest packet it accepts, in bytes.
        0x27 packet_bytes_max: Option<NonZeroU32>,
        /// The name it gave the client.
        0x12 assigned_client_id: Option<ByteString>,
        /// Highest topic alias it accepts; absent is 0.
        0x22 topic_alias_maximum: Option<u16>,
        /// Why, for people.
        0x1F reason_string: Option<ByteString>,
        /// User properties, in order.
        0x26 user_properties: Vec<(ByteString, ByteString)>,
        /// Whether filters may have wildcards; absent is yes.
        0x28 wildcard_available: Option<bool>,
        /// Whether subscriptions may have identifiers; absent is yes.
        0x29 subscription_id_available: Option<bool>,
        /// Whether subscriptions may be shared; absent is yes.
        0x2A shared_available: Option<bool>,
        /// Seconds between packets that the client must use in place of its own.
        0x13 server_keep_alive_s: Option<u16>,
        /// Basis for response topics.
        0x1A response_information: Option<ByteString>,
        /// Another server to use.
        0x1C server_reference: Option<ByteString>,
        /// Method of enhanced authentication.
        0x15 authentication_method: Option<ByteString>,
        /// Its data.
        0x16 authentication_data: Option<Bytes>,
    }
}

/// The server's answer to a CONNECT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connack {
    /// Whether the server had a session of this client.
    pub session_present: bool,
    /// How it went. In 3.1.1 the nearest return code stands on the wire.
    pub reason: ReasonCode,
    /// MQTT 5 properties; empty in 3.1.1.
    pub properties: ConnackProperties,
}

/// Reason codes of a CONNACK (table 3-1).
pub(super) const REASONS: &[u8] = &[
    0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99,
    0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
];

impl Connack {
    pub(super) fn decode(reader: &mut Reader, version: Version) -> Result<Connack, DecodeError> {
        let flags = reader.u8()?;
        if flags > 1 {
            return Err(DecodeError::malformed("reserved acknowledge flags are set", "MQTT-3.2.2-1"));
        }
        let code = reader.u8()?;
        let unknown = || DecodeError::malformed("a CONNACK has a code that is not known", "3.2.2.2");
        let (reason, properties) = match version {
            Version::V5 => {
                if !REASONS.contains(&code) {
                    return Err(unknown());
                }
                (ReasonCode(code), ConnackProperties::decode(reader)?)
            }
            Version::V311 => {
                (ReasonCode::from_v311_connack(code).ok_or_else(unknown)?, ConnackProperties::default())
            }
        };
        if flags == 1 && reason.is_error() {
            return Err(DecodeError::protocol("Session Present with a refusal", "MQTT-3.2.2-6"));
        }
        Ok(Connack { session_present: flags == 1, reason, properties })
    }

    pub(super) fn encode(&self, writer: &mut Writer<'_>, version: Version) {
        writer.u8(u8::from(self.session_present));
        match version {
            Version::V5 => {
                writer.u8(self.reason.0);
                self.properties.encode(writer);
            }
            Version::V311 => writer.u8(self.reason.to_v311_connack().unwrap_or(3)),
        }
    }
}
