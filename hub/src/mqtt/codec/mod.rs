//! MQTT 3.1.1 and 5.0 packets: bytes to values and back, without any I/O.
//!
//! Text and payloads are slices of the buffer they were read from and share its memory. Everything a
//! peer can get wrong is refused here with the reason code the specification gives for it, so that the
//! rest of the hub sees valid packets only. What depends on a session's state is checked in
//! [`crate::mqtt::session`].
//!
//! # Layout
//! - `decoder`: cuts packets out of a growing buffer; fixed header, packet size limit
//! - `reader`, `writer`: the data types of section 1.5
//! - `property`: MQTT 5 properties (2.2.2), one struct for each packet that has them
//! - `reason`: reason codes (2.4); `error`: what is wrong with a packet
//! - `topic`: topic names, topic filters and `$share`
//! - `connect`, `connack`, `publish`, `ack`, `subscribe`, `suback`, `disconnect`, `auth`: one packet each
//!   (`ack`: PUBACK, PUBREC, PUBREL, PUBCOMP; `subscribe`: also UNSUBSCRIBE; `suback`: also UNSUBACK)
//! - `fuzzing`: what fuzz targets call

mod ack;
mod auth;
mod connack;
mod connect;
mod decoder;
mod disconnect;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod packet;
mod property;
mod publish;
mod reader;
mod reason;
mod suback;
mod subscribe;
#[cfg(test)]
mod tests;
pub mod topic;
mod writer;

pub use ack::{Ack, AckProperties};
pub use auth::{Auth, AuthProperties};
pub use connack::{Connack, ConnackProperties};
pub use connect::{Connect, ConnectProperties, LastWill, WillProperties};
pub use decoder::Decoder;
pub use disconnect::{Disconnect, DisconnectProperties};
pub use error::{DecodeError, EncodeError};
pub use packet::{Packet, PacketKind};
pub use property::SubscriptionId;
pub use publish::{Forwarded, Publish, PublishHead, PublishProperties};
pub use reason::ReasonCode;
pub use suback::{Suback, SubackProperties, Unsuback, answer_bytes_min};
pub use subscribe::{
    RetainHandling, Subscribe, SubscribeProperties, SubscriptionOptions, TopicRequest, Unsubscribe,
    UnsubscribeProperties,
};

pub(crate) use reader::Reader;

/// Identifies a message in flight; never 0 ([MQTT-2.2.1-3]).
pub type PacketId = std::num::NonZeroU16;

/// The largest value of a Variable Byte Integer, and so of a Remaining Length (1.5.5).
pub const VARINT_MAX: u32 = 268_435_455;

/// The protocol a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// MQTT 3.1.1 (protocol level 4).
    V311,
    /// MQTT 5.0 (protocol level 5).
    V5,
}

/// Quality of service (4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Qos {
    /// QoS 0.
    #[default]
    AtMostOnce = 0,
    /// QoS 1.
    AtLeastOnce = 1,
    /// QoS 2.
    ExactlyOnce = 2,
}

impl Qos {
    /// The QoS of a number; `None` past 2.
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<Qos> {
        match bits {
            0 => Some(Qos::AtMostOnce),
            1 => Some(Qos::AtLeastOnce),
            2 => Some(Qos::ExactlyOnce),
            _ => None,
        }
    }

    /// Its number.
    #[must_use]
    pub fn bits(self) -> u8 {
        self as u8
    }
}
