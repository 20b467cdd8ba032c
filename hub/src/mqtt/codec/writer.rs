//! [`Writer`]: the data types of section 1.5, and packets whose length is known only at the end.

use bytes::{BufMut, BytesMut};

use super::{EncodeError, VARINT_MAX};

/// Bytes a value takes as a Variable Byte Integer.
pub(crate) fn varint_len(value: usize) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

/// Appends a Variable Byte Integer; the value is at most [`VARINT_MAX`].
pub(crate) fn put_varint(out: &mut BytesMut, mut value: u32) {
    debug_assert!(value <= VARINT_MAX);
    while value > 0x7f {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Writes at the end of a buffer. The first failure sticks, and what was written is then taken back.
pub(crate) struct Writer<'a> {
    out: &'a mut BytesMut,
    error: Option<EncodeError>,
}

impl Writer<'_> {
    /// Appends a packet with this first byte; `body` writes what comes after the Remaining Length.
    pub(crate) fn packet(
        out: &mut BytesMut,
        first: u8,
        body: impl FnOnce(&mut Writer<'_>),
    ) -> Result<(), EncodeError> {
        Writer::list(out, |writer| {
            writer.u8(first);
            writer.section(body);
        })
    }

    /// Appends what `body` writes, without a packet around it.
    pub(crate) fn list(out: &mut BytesMut, body: impl FnOnce(&mut Writer<'_>)) -> Result<(), EncodeError> {
        let start = out.len();
        let mut writer = Writer { out, error: None };
        body(&mut writer);
        let Writer { out, error } = writer;
        match error {
            None => Ok(()),
            Some(error) => {
                out.truncate(start);
                Err(error)
            }
        }
    }

    /// Writes the length of what `body` writes, then that. The length is put in afterwards: one byte is
    /// left for it, and only what needs more is moved.
    pub(crate) fn section(&mut self, body: impl FnOnce(&mut Writer<'_>)) {
        let at = self.out.len();
        self.out.put_u8(0);
        let start = self.out.len();
        body(self);
        let end = self.out.len();
        let length = end - start;
        let Some(value) = u32::try_from(length).ok().filter(|value| *value <= VARINT_MAX) else {
            self.error.get_or_insert(EncodeError::PacketTooLong(length));
            return;
        };
        let extra = varint_len(length) - 1;
        if extra > 0 {
            self.out.put_bytes(0, extra);
            self.out.copy_within(start..end, start + extra);
        }
        let mut head = BytesMut::with_capacity(4);
        put_varint(&mut head, value);
        if let Some(place) = self.out.get_mut(at..at + head.len()) {
            place.copy_from_slice(&head);
        }
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.out.put_u8(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.out.put_u16(value);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.out.put_u32(value);
    }

    pub(crate) fn varint(&mut self, value: u32) {
        put_varint(self.out, value.min(VARINT_MAX));
    }

    pub(crate) fn binary(&mut self, value: &[u8]) {
        match u16::try_from(value.len()) {
            Ok(length) => {
                self.out.put_u16(length);
                self.out.put_slice(value);
            }
            Err(_) => {
                self.error.get_or_insert(EncodeError::FieldTooLong(value.len()));
            }
        }
    }

    pub(crate) fn string(&mut self, value: &str) {
        self.binary(value.as_bytes());
    }

    pub(crate) fn raw(&mut self, value: &[u8]) {
        self.out.put_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_section_is_moved_to_make_room_for_its_length() {
        for length in [0, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152] {
            let mut out = BytesMut::from(&b"before"[..]);
            Writer::packet(&mut out, 0x30, |w| w.raw(&vec![7; length])).unwrap();
            let mut expected = BytesMut::from(&b"before\x30"[..]);
            put_varint(&mut expected, length as u32);
            assert_eq!(out.len(), expected.len() + length);
            assert_eq!(expected.len() - 7, varint_len(length));
            assert!(out.starts_with(&expected) && out[expected.len()..].iter().all(|b| *b == 7));
        }
    }

    #[test]
    fn a_field_that_is_too_long_leaves_nothing() {
        let mut out = BytesMut::from(&b"before"[..]);
        let error = Writer::packet(&mut out, 0x30, |w| w.string(&"x".repeat(65_536))).unwrap_err();
        assert_eq!(error, EncodeError::FieldTooLong(65_536));
        assert_eq!(&out[..], b"before");
    }
}
