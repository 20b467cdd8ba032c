//! AUTH (3.15), MQTT 5 only.

use bytes::Bytes;
use bytestring::ByteString;

use super::property::properties;
use super::reader::Reader;
use super::writer::Writer;
use super::{DecodeError, ReasonCode};

properties! {
    /// Properties of an AUTH (3.15.2.2).
    AuthProperties {
        /// Method of enhanced authentication.
        0x15 authentication_method: Option<ByteString>,
        /// Its data.
        0x16 authentication_data: Option<Bytes>,
        /// Why, for people.
        0x1F reason_string: Option<ByteString>,
        /// User properties, in order.
        0x26 user_properties: Vec<(ByteString, ByteString)>,
    }
}

/// One step of enhanced authentication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Auth {
    /// Where it stands: success, continue or re-authenticate.
    pub reason: ReasonCode,
    /// Properties.
    pub properties: AuthProperties,
}

impl Auth {
    /// One that asks to go on.
    #[must_use]
    pub fn going_on(method: ByteString, data: Option<Bytes>) -> Auth {
        let properties = AuthProperties {
            authentication_method: Some(method),
            authentication_data: data,
            ..AuthProperties::default()
        };
        Auth { reason: ReasonCode::CONTINUE_AUTHENTICATION, properties }
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Auth, DecodeError> {
        let mut auth = Auth::default();
        if !reader.is_empty() {
            auth.reason = ReasonCode(reader.u8()?);
            if ![0x00, 0x18, 0x19].contains(&auth.reason.0) {
                return Err(DecodeError::malformed("an AUTH has a code that is not known", "MQTT-3.15.2-1"));
            }
            if !reader.is_empty() {
                auth.properties = AuthProperties::decode(reader)?;
            }
        }
        if auth.properties.authentication_method.is_none() {
            if auth.properties.authentication_data.is_some() {
                return Err(DecodeError::protocol("Authentication Data without a method", "3.15.2.2.3"));
            }
            // Success without properties is written without either, and so without a method (3.15.2.1).
            if auth.reason != ReasonCode::SUCCESS {
                return Err(DecodeError::protocol("an AUTH that goes on has no method", "3.15.2.2.2"));
            }
        }
        Ok(auth)
    }

    pub(super) fn encode(&self, writer: &mut Writer<'_>) {
        if self.reason == ReasonCode::SUCCESS && self.properties.is_empty() {
            return;
        }
        writer.u8(self.reason.0);
        self.properties.encode(writer);
    }
}
