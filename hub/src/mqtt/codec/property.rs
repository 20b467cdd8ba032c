//! MQTT 5 properties (2.2.2). Each packet that has properties declares a struct with `properties!`; what a
//! property's type is decides how it is read, written and how often it may come.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;
use bytestring::ByteString;

use super::reader::Reader;
use super::writer::Writer;
use super::{DecodeError, Qos, VARINT_MAX};

/// A Subscription Identifier: 1 to 268,435,455 (3.8.2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SubscriptionId(NonZeroU32);

impl SubscriptionId {
    /// The identifier with this number; `None` when it is 0 or too large.
    #[must_use]
    pub fn new(value: u32) -> Option<Self> {
        NonZeroU32::new(value).filter(|v| v.get() <= VARINT_MAX).map(SubscriptionId)
    }

    /// Its number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

/// One property's value.
pub(super) trait Value: Sized {
    fn read(reader: &mut Reader) -> Result<Self, DecodeError>;
    fn write(&self, writer: &mut Writer<'_>);
}

/// A field of a properties struct: at most one value, or any number in their order.
pub(super) trait Field {
    fn read(&mut self, reader: &mut Reader) -> Result<(), DecodeError>;
    fn write(&self, id: u8, writer: &mut Writer<'_>);
}

impl<V: Value> Field for Option<V> {
    fn read(&mut self, reader: &mut Reader) -> Result<(), DecodeError> {
        if self.is_some() {
            return Err(DecodeError::protocol("a property comes twice", "2.2.2.2"));
        }
        *self = Some(V::read(reader)?);
        Ok(())
    }

    fn write(&self, id: u8, writer: &mut Writer<'_>) {
        if let Some(value) = self {
            writer.u8(id);
            value.write(writer);
        }
    }
}

impl<V: Value> Field for Vec<V> {
    fn read(&mut self, reader: &mut Reader) -> Result<(), DecodeError> {
        self.push(V::read(reader)?);
        Ok(())
    }

    fn write(&self, id: u8, writer: &mut Writer<'_>) {
        for value in self {
            writer.u8(id);
            value.write(writer);
        }
    }
}

impl Value for bool {
    fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        match reader.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::protocol("a property that is 0 or 1 has another value", "2.2.2.2")),
        }
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.u8(u8::from(*self));
    }
}

/// Maximum QoS (3.2.2.3.4): 0 or 1; a server that does QoS 2 leaves it out.
impl Value for Qos {
    fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        Qos::from_bits(reader.u8()?)
            .filter(|qos| *qos < Qos::ExactlyOnce)
            .ok_or_else(|| DecodeError::protocol("Maximum QoS is neither 0 nor 1", "3.2.2.3.4"))
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.u8(self.bits());
    }
}

impl Value for u16 {
    fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        reader.u16()
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.u16(*self);
    }
}

impl Value for NonZeroU16 {
    fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        NonZeroU16::new(reader.u16()?)
            .ok_or_else(|| DecodeError::protocol("Receive Maximum is 0", "3.1.2.11.3"))
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.u16(self.get());
    }
}

impl Value for u32 {
    fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        reader.u32()
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.u32(*self);
    }
}

impl Value for NonZeroU32 {
    fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        NonZeroU32::new(reader.u32()?)
            .ok_or_else(|| DecodeError::protocol("Maximum Packet Size is 0", "3.1.2.11.4"))
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.u32(self.get());
    }
}

impl Value for SubscriptionId {
    fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        SubscriptionId::new(reader.varint()?)
            .ok_or_else(|| DecodeError::protocol("a Subscription Identifier is 0", "3.8.2.1.2"))
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.varint(self.get());
    }
}

impl Value for ByteString {
    fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        reader.string()
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.string(self);
    }
}

impl Value for Bytes {
    fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        reader.binary()
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.binary(self);
    }
}

/// A UTF-8 String Pair.
impl Value for (ByteString, ByteString) {
    fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok((reader.string()?, reader.string()?))
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.string(&self.0);
        writer.string(&self.1);
    }
}

/// Declares the properties of a packet: identifier, name and type of each. With `list` in front they never
/// stand in a packet by themselves, and have no length in front.
macro_rules! properties {
    (list $(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $id:literal $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $name {
            /// Reads properties to the end of `reader`.
            pub(crate) fn decode_list(
                mut reader: $crate::mqtt::codec::reader::Reader,
            ) -> Result<Self, $crate::mqtt::codec::DecodeError> {
                let mut properties = Self::default();
                while !reader.is_empty() {
                    match reader.varint()? {
                        $($id => $crate::mqtt::codec::property::Field::read(&mut properties.$field, &mut reader)?,)*
                        _ => {
                            return Err($crate::mqtt::codec::DecodeError::malformed(
                                concat!("a property does not belong to ", stringify!($name)),
                                "2.2.2.2",
                            ));
                        }
                    }
                }
                Ok(properties)
            }

            /// Writes the properties without their length.
            pub(crate) fn encode_list(&self, writer: &mut $crate::mqtt::codec::writer::Writer<'_>) {
                $($crate::mqtt::codec::property::Field::write(&self.$field, $id, writer);)*
            }

            /// Whether there is none.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                *self == Self::default()
            }
        }
    };
    ($(#[$doc:meta])* $name:ident { $($fields:tt)* }) => {
        $crate::mqtt::codec::property::properties! { list $(#[$doc])* $name { $($fields)* } }

        impl $name {
            /// Reads the Property Length and the properties.
            pub(crate) fn decode(
                reader: &mut $crate::mqtt::codec::reader::Reader,
            ) -> Result<Self, $crate::mqtt::codec::DecodeError> {
                let length = reader.varint()?;
                let bytes = reader.slice(length as usize)?;
                Self::decode_list($crate::mqtt::codec::reader::Reader::new(bytes))
            }

            /// Writes the Property Length and the properties.
            pub(crate) fn encode(&self, writer: &mut $crate::mqtt::codec::writer::Writer<'_>) {
                writer.section(|writer| self.encode_list(writer));
            }
        }
    };
}
pub(super) use properties;
