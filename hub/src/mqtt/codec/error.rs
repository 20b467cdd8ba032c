//! What is wrong with a packet.

use super::ReasonCode;

/// Why bytes are not an acceptable packet. After one of these nothing more can be read from the
/// connection: its framing is lost or its peer is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {what} [{section}]")]
pub struct DecodeError {
    /// The reason code to close with.
    pub reason: ReasonCode,
    /// What is wrong.
    pub what: &'static str,
    /// The statement or section of MQTT 5.0 (3.1.1 where it says so) that was broken.
    pub section: &'static str,
}

impl DecodeError {
    /// The bytes are not as the specification lays them out.
    pub(crate) fn malformed(what: &'static str, section: &'static str) -> Self {
        DecodeError { reason: ReasonCode::MALFORMED_PACKET, what, section }
    }

    /// The bytes are laid out well and say what must not be said.
    pub(crate) fn protocol(what: &'static str, section: &'static str) -> Self {
        DecodeError { reason: ReasonCode::PROTOCOL_ERROR, what, section }
    }
}

/// Why a packet cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Text or binary data is longer than its two-byte length can say.
    #[error("a string or binary field has {0} bytes, and MQTT allows 65535")]
    FieldTooLong(usize),
    /// The packet is longer than a Remaining Length can say.
    #[error("the packet has {0} bytes, and MQTT allows 268435455")]
    PacketTooLong(usize),
}
