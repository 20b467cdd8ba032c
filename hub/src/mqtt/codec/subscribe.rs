//! SUBSCRIBE (3.8) and UNSUBSCRIBE (3.10).

use bytestring::ByteString;
use smallvec::SmallVec;

use super::property::properties;
use super::reader::Reader;
use super::writer::Writer;
use super::{DecodeError, PacketId, Qos, SubscriptionId, Version};

properties! {
    /// Properties of a SUBSCRIBE (3.8.2.1).
    SubscribeProperties {
        /// A number that comes back with every message of these subscriptions.
        0x0B subscription_id: Option<SubscriptionId>,
        /// User properties, in order.
        0x26 user_properties: Vec<(ByteString, ByteString)>,
    }
}

properties! {
    /// Properties of an UNSUBSCRIBE (3.10.2.1).
    UnsubscribeProperties {
        /// User properties, in order.
        0x26 user_properties: Vec<(ByteString, ByteString)>,
    }
}

/// When retained messages are sent for a new subscription (3.8.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum RetainHandling {
    /// Whenever it is asked for.
    #[default]
    Always = 0,
    /// When the subscription did not exist.
    New = 1,
    /// Not at all.
    Never = 2,
}

/// How to deliver (3.8.3.1). In 3.1.1 there is only the QoS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionOptions {
    /// Highest QoS to deliver with.
    pub qos: Qos,
    /// Leave out what this client published itself.
    pub no_local: bool,
    /// Leave the retain flag as it was published.
    pub retain_as_published: bool,
    /// When to send retained messages.
    pub retain_handling: RetainHandling,
}

impl SubscriptionOptions {
    /// The options a byte stands for; `None` if reserved bits or values are used.
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<SubscriptionOptions> {
        if bits & 0b1100_0000 != 0 {
            return None;
        }
        Some(SubscriptionOptions {
            qos: Qos::from_bits(bits & 3)?,
            no_local: bits & 4 != 0,
            retain_as_published: bits & 8 != 0,
            retain_handling: match bits >> 4 {
                0 => RetainHandling::Always,
                1 => RetainHandling::New,
                2 => RetainHandling::Never,
                _ => return None,
            },
        })
    }

    /// The byte that stands for them.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.qos.bits()
            | (u8::from(self.no_local) << 2)
            | (u8::from(self.retain_as_published) << 3)
            | ((self.retain_handling as u8) << 4)
    }
}

/// One filter of a SUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRequest {
    /// The topic filter as sent; whether it can be is told by [`super::topic`].
    pub filter: ByteString,
    /// How to deliver.
    pub options: SubscriptionOptions,
}

/// A client asks for subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// Comes back in the SUBACK.
    pub id: PacketId,
    /// MQTT 5 properties; empty in 3.1.1.
    pub properties: SubscribeProperties,
    /// What it asks for; at least one.
    pub filters: SmallVec<[TopicRequest; 1]>,
}

impl Subscribe {
    pub(super) fn decode(reader: &mut Reader, version: Version) -> Result<Subscribe, DecodeError> {
        let id = reader.packet_id()?;
        let properties = match version {
            Version::V5 => SubscribeProperties::decode(reader)?,
            Version::V311 => SubscribeProperties::default(),
        };
        let mut filters = SmallVec::new();
        while !reader.is_empty() {
            let filter = reader.string()?;
            let bits = reader.u8()?;
            let allowed = if version == Version::V5 { 0xff } else { 0b11 };
            let options =
                SubscriptionOptions::from_bits(bits).filter(|_| bits & !allowed == 0).ok_or_else(|| {
                    DecodeError::malformed("subscription options use reserved bits or values", "MQTT-3.8.3-5")
                })?;
            filters.push(TopicRequest { filter, options });
        }
        if filters.is_empty() {
            return Err(DecodeError::protocol("a SUBSCRIBE without a topic filter", "MQTT-3.8.3-2"));
        }
        Ok(Subscribe { id, properties, filters })
    }

    pub(super) fn encode(&self, writer: &mut Writer<'_>, version: Version) {
        writer.u16(self.id.get());
        if version == Version::V5 {
            self.properties.encode(writer);
        }
        for request in &self.filters {
            writer.string(&request.filter);
            writer.u8(match version {
                Version::V5 => request.options.bits(),
                Version::V311 => request.options.qos.bits(),
            });
        }
    }
}

/// A client gives subscriptions up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Comes back in the UNSUBACK.
    pub id: PacketId,
    /// MQTT 5 properties; empty in 3.1.1.
    pub properties: UnsubscribeProperties,
    /// The filters; at least one.
    pub filters: SmallVec<[ByteString; 1]>,
}

impl Unsubscribe {
    pub(super) fn decode(reader: &mut Reader, version: Version) -> Result<Unsubscribe, DecodeError> {
        let id = reader.packet_id()?;
        let properties = match version {
            Version::V5 => UnsubscribeProperties::decode(reader)?,
            Version::V311 => UnsubscribeProperties::default(),
        };
        let mut filters = SmallVec::new();
        while !reader.is_empty() {
            filters.push(reader.string()?);
        }
        if filters.is_empty() {
            return Err(DecodeError::protocol("an UNSUBSCRIBE without a topic filter", "MQTT-3.10.3-2"));
        }
        Ok(Unsubscribe { id, properties, filters })
    }

    pub(super) fn encode(&self, writer: &mut Writer<'_>, version: Version) {
        writer.u16(self.id.get());
        if version == Version::V5 {
            self.properties.encode(writer);
        }
        for filter in &self.filters {
            writer.string(filter);
        }
    }
}
