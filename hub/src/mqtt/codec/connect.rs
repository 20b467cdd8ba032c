//! CONNECT (3.1).

use std::num::{NonZeroU16, NonZeroU32};

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

use super::property::properties;
use super::reader::Reader;
use super::writer::Writer;
use super::{DecodeError, EncodeError, Qos, ReasonCode, Version, topic};

properties! {
    /// Properties of a CONNECT (3.1.2.11).
    ConnectProperties {
        /// Seconds the session lives on after the connection; absent is 0, 0xFFFFFFFF is for ever.
        0x11 session_expiry_s: Option<u32>,
        /// How many QoS 1 and 2 messages the client takes at a time; absent is 65,535.
        0x21 receive_maximum: Option<NonZeroU16>,
        /// Largest packet the client accepts, in bytes.
        0x27 packet_bytes_max: Option<NonZeroU32>,
        /// Highest topic alias the client accepts; absent is 0: none.
        0x22 topic_alias_maximum: Option<u16>,
        /// Whether the client wants Response Information.
        0x19 request_response_information: Option<bool>,
        /// Whether reason strings and user properties may come on packets other than PUBLISH, CONNACK and
        /// DISCONNECT; absent is yes.
        0x17 request_problem_information: Option<bool>,
        /// User properties, in order.
        0x26 user_properties: Vec<(ByteString, ByteString)>,
        /// Method of enhanced authentication.
        0x15 authentication_method: Option<ByteString>,
        /// Its data.
        0x16 authentication_data: Option<Bytes>,
    }
}

properties! {
    /// Properties of a will (3.1.3.2).
    WillProperties {
        /// Seconds between the end of the connection and the will.
        0x18 delay_s: Option<u32>,
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
        /// User properties, in order.
        0x26 user_properties: Vec<(ByteString, ByteString)>,
    }
}

impl WillProperties {
    /// Appends the properties without a length in front.
    pub(crate) fn put_wire(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        Writer::list(out, |writer| self.encode_list(writer))
    }
}

/// The message to publish when a client goes without saying goodbye (3.1.2.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastWill {
    /// Where to.
    pub topic: ByteString,
    /// What.
    pub payload: Bytes,
    /// With which QoS.
    pub qos: Qos,
    /// Whether to retain it.
    pub retain: bool,
    /// MQTT 5 properties; empty in 3.1.1.
    pub properties: WillProperties,
}

/// A client requests a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// What it speaks.
    pub version: Version,
    /// Clean Start (5.0) or Clean Session (3.1.1).
    pub clean_start: bool,
    /// Seconds between packets, at most; 0 is no limit.
    pub keep_alive_s: u16,
    /// Who it is; empty asks the server for a name.
    pub client_id: ByteString,
    /// Its will.
    pub will: Option<LastWill>,
    /// User name.
    pub username: Option<ByteString>,
    /// Password.
    pub password: Option<Bytes>,
    /// MQTT 5 properties; empty in 3.1.1.
    pub properties: ConnectProperties,
}

const CLEAN_START: u8 = 1 << 1;
const WILL: u8 = 1 << 2;
const WILL_RETAIN: u8 = 1 << 5;
const PASSWORD: u8 = 1 << 6;
const USER_NAME: u8 = 1 << 7;

/// In the protocol level: a bridge.
const BRIDGE: u8 = 1 << 7;

impl Connect {
    /// Decodes the body. `version_out` is set as soon as the version is known.
    pub(super) fn decode(
        reader: &mut Reader,
        version_out: &mut Option<Version>,
    ) -> Result<Connect, DecodeError> {
        let version = protocol(reader, version_out)?;
        let flags = reader.u8()?;
        check_flags(flags, version)?;
        let keep_alive_s = reader.u16()?;
        let properties = match version {
            Version::V5 => ConnectProperties::decode(reader)?,
            Version::V311 => ConnectProperties::default(),
        };
        if properties.authentication_data.is_some() && properties.authentication_method.is_none() {
            return Err(DecodeError::protocol("Authentication Data without a method", "3.1.2.11.10"));
        }
        let client_id = reader.string()?;
        let will = if flags & WILL != 0 { Some(will(reader, flags, version)?) } else { None };
        let username = if flags & USER_NAME != 0 { Some(reader.string()?) } else { None };
        let password = if flags & PASSWORD != 0 { Some(reader.binary()?) } else { None };
        let clean_start = flags & CLEAN_START != 0;
        Ok(Connect { version, clean_start, keep_alive_s, client_id, will, username, password, properties })
    }

    pub(super) fn encode(&self, writer: &mut Writer<'_>, version: Version) {
        writer.string("MQTT");
        writer.u8(match version {
            Version::V311 => 4,
            Version::V5 => 5,
        });
        let mut flags = 0;
        for (bit, set) in [
            (CLEAN_START, self.clean_start),
            (USER_NAME, self.username.is_some()),
            (PASSWORD, self.password.is_some()),
        ] {
            flags |= if set { bit } else { 0 };
        }
        if let Some(will) = &self.will {
            flags |= WILL | (will.qos.bits() << 3) | if will.retain { WILL_RETAIN } else { 0 };
        }
        writer.u8(flags);
        writer.u16(self.keep_alive_s);
        if version == Version::V5 {
            self.properties.encode(writer);
        }
        writer.string(&self.client_id);
        if let Some(will) = &self.will {
            if version == Version::V5 {
                will.properties.encode(writer);
            }
            writer.string(&will.topic);
            writer.binary(&will.payload);
        }
        if let Some(username) = &self.username {
            writer.string(username);
        }
        if let Some(password) = &self.password {
            writer.binary(password);
        }
    }
}

/// Protocol name and level (3.1.2.1, 3.1.2.2).
fn protocol(reader: &mut Reader, version_out: &mut Option<Version>) -> Result<Version, DecodeError> {
    let unsupported = |what| DecodeError {
        reason: ReasonCode::UNSUPPORTED_PROTOCOL_VERSION,
        what,
        section: "MQTT-3.1.2-2",
    };
    let name = reader.string()?;
    // 3.1 called itself MQIsdp. It is told in the form it understands that it is too old.
    if name == "MQIsdp" {
        *version_out = Some(Version::V311);
        return Err(unsupported("MQTT 3.1 (MQIsdp) is not supported; use 3.1.1 or 5.0"));
    }
    if name != "MQTT" {
        return Err(DecodeError::malformed("the protocol name is not MQTT", "MQTT-3.1.2-1"));
    }
    let level = reader.u8()?;
    // The highest bit is how mosquitto's bridges ask whether the server knows what they are. Told in 3.1.1 that it does not, they
    // come back as any other client.
    *version_out = Some(if level & !BRIDGE <= 4 { Version::V311 } else { Version::V5 });
    match level {
        4 => Ok(Version::V311),
        5 => Ok(Version::V5),
        _ => Err(unsupported("the protocol level is neither 4 (3.1.1) nor 5 (5.0)")),
    }
}

/// Connect Flags (3.1.2.3 to 3.1.2.9).
fn check_flags(flags: u8, version: Version) -> Result<(), DecodeError> {
    if flags & 1 != 0 {
        return Err(DecodeError::malformed("the reserved connect flag is set", "MQTT-3.1.2-3"));
    }
    let will_qos = (flags >> 3) & 3;
    if flags & WILL == 0 && will_qos != 0 {
        return Err(DecodeError::malformed("Will QoS without a will", "MQTT-3.1.2-11"));
    }
    if flags & WILL == 0 && flags & WILL_RETAIN != 0 {
        return Err(DecodeError::malformed("Will Retain without a will", "MQTT-3.1.2-13"));
    }
    if will_qos == 3 {
        return Err(DecodeError::malformed("the will has QoS 3", "MQTT-3.1.2-12"));
    }
    if version == Version::V311 && flags & USER_NAME == 0 && flags & PASSWORD != 0 {
        return Err(DecodeError::malformed("a password without a user name", "3.1.1 MQTT-3.1.2-22"));
    }
    Ok(())
}

fn will(reader: &mut Reader, flags: u8, version: Version) -> Result<LastWill, DecodeError> {
    let properties = match version {
        Version::V5 => WillProperties::decode(reader)?,
        Version::V311 => WillProperties::default(),
    };
    if let Some(response) = &properties.response_topic {
        topic::check_name(response)?;
    }
    let name = reader.string()?;
    topic::check_name(&name)?;
    let payload = reader.binary()?;
    let qos = Qos::from_bits((flags >> 3) & 3).unwrap_or_default();
    Ok(LastWill { topic: name, payload, qos, retain: flags & WILL_RETAIN != 0, properties })
}
