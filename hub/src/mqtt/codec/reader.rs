//! [`Reader`]: the data types of section 1.5, read from one packet.

use bytes::{Buf, Bytes};
use bytestring::ByteString;

use super::{DecodeError, PacketId, VARINT_MAX};

/// What is left of a packet's body. Everything read from it shares the packet's memory.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    bytes: Bytes,
}

fn short() -> DecodeError {
    DecodeError::malformed("the packet ends in the middle of a field", "4.13.1")
}

impl Reader {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Reader { bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.bytes.try_get_u8().map_err(|_| short())
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.bytes.try_get_u16().map_err(|_| short())
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.bytes.try_get_u32().map_err(|_| short())
    }

    /// A packet identifier, which is never 0.
    pub(crate) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        PacketId::new(self.u16()?)
            .ok_or_else(|| DecodeError::malformed("the packet identifier is 0", "MQTT-2.2.1-3"))
    }

    /// A Variable Byte Integer: at most four bytes, and no more than it needs.
    pub(crate) fn varint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0_u32;
        for shift in [0, 7, 14, 21] {
            let byte = self.u8()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(DecodeError::malformed(
                        "a Variable Byte Integer is longer than it needs to be",
                        "MQTT-1.5.5-1",
                    ));
                }
                debug_assert!(value <= VARINT_MAX);
                return Ok(value);
            }
        }
        Err(DecodeError::malformed("a Variable Byte Integer has more than four bytes", "1.5.5"))
    }

    /// The next `length` bytes.
    pub(crate) fn slice(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        if length > self.bytes.len() {
            return Err(short());
        }
        Ok(self.bytes.split_to(length))
    }

    /// Binary Data: two bytes of length, then the bytes (1.5.6).
    pub(crate) fn binary(&mut self) -> Result<Bytes, DecodeError> {
        let length = self.u16()?;
        self.slice(usize::from(length))
    }

    /// A UTF-8 Encoded String (1.5.4): well-formed, without U+0000.
    pub(crate) fn string(&mut self) -> Result<ByteString, DecodeError> {
        let bytes = self.binary()?;
        if bytes.contains(&0) {
            return Err(DecodeError::malformed("a string contains U+0000", "MQTT-1.5.4-2"));
        }
        ByteString::try_from(bytes)
            .map_err(|_| DecodeError::malformed("a string is not well-formed UTF-8", "MQTT-1.5.4-1"))
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.bytes)
    }

    /// Refuses bytes after the last field.
    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::malformed("there are bytes after the packet's last field", "4.13.1"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(bytes: &'static [u8]) -> Reader {
        Reader::new(Bytes::from_static(bytes))
    }

    #[test]
    fn varints_at_their_bounds() {
        for (bytes, value) in [
            (&[0_u8][..], 0),
            (&[0x7f], 127),
            (&[0x80, 0x01], 128),
            (&[0xff, 0x7f], 16_383),
            (&[0x80, 0x80, 0x01], 16_384),
            (&[0xff, 0xff, 0xff, 0x7f], VARINT_MAX),
        ] {
            assert_eq!(Reader::new(Bytes::copy_from_slice(bytes)).varint(), Ok(value));
        }
        assert_eq!(reader(&[0x80, 0x00]).varint().unwrap_err().section, "MQTT-1.5.5-1");
        assert_eq!(reader(&[0x80, 0x80, 0x80, 0x80, 0x01]).varint().unwrap_err().section, "1.5.5");
        assert!(reader(&[0x80]).varint().is_err());
    }

    #[test]
    fn strings_are_checked() {
        assert_eq!(reader(b"\0\x03abc").string().unwrap(), "abc");
        assert_eq!(reader(b"\0\x03a\0c").string().unwrap_err().section, "MQTT-1.5.4-2");
        // A surrogate half, which UTF-8 must not hold.
        assert_eq!(reader(b"\0\x03\xed\xa0\x80").string().unwrap_err().section, "MQTT-1.5.4-1");
        assert!(reader(b"\0\x04abc").string().is_err());
    }
}
