//! [`Said`]: what the hub wrote over one connection.

use bytes::{Buf, BytesMut};

/// Packets that a server may send.
const OF_SERVER: [u8; 11] = [2, 3, 4, 5, 6, 7, 9, 11, 13, 14, 15];

/// What the hub wrote, packet by packet. Whatever it was sent, this is MQTT.
#[derive(Debug, Default)]
pub(super) struct Said {
    buffer: BytesMut,
    /// Bytes received.
    pub(super) bytes: u64,
    /// CONNACK and DISCONNECT with a code that is no success: kind and code.
    pub(super) refusals: Vec<(u8, u8)>,
    /// PINGRESP received.
    pub(super) pongs: u32,
}

impl Said {
    /// Takes what was received. An error says what of it is no packet.
    pub(super) fn hear(&mut self, received: &[u8]) -> Result<(), String> {
        self.bytes += received.len() as u64;
        self.buffer.extend_from_slice(received);
        while let Some((first, header, length)) = header(&self.buffer)? {
            if self.buffer.len() < header + length {
                break;
            }
            self.buffer.advance(header);
            let body = self.buffer.split_to(length);
            match (first >> 4, body.get(1), body.first()) {
                (2, Some(&code), _) if code != 0 => self.refusals.push((2, code)),
                (14, _, Some(&code)) if code != 0 => self.refusals.push((14, code)),
                (13, ..) => self.pongs += 1,
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether it ends with a whole packet.
    pub(super) fn is_whole(&self) -> bool {
        self.buffer.is_empty()
    }
}

/// The first byte of the next packet, bytes of its fixed header, and of the rest.
fn header(buffer: &[u8]) -> Result<Option<(u8, usize, usize)>, String> {
    let Some(&first) = buffer.first() else { return Ok(None) };
    if !OF_SERVER.contains(&(first >> 4)) {
        return Err(format!("0x{first:02x} begins no packet of a server"));
    }
    let mut length = 0;
    for at in 0..4 {
        let Some(&byte) = buffer.get(1 + at) else { return Ok(None) };
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((first, 2 + at, length)));
        }
    }
    Err(format!("a length of more than four bytes after 0x{first:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_in_pieces() {
        let mut said = Said::default();
        for piece in [&b"\x20\x03\0"[..], b"\0\0\xd0\0\xe0", b"\x01\x81\x30\x05"] {
            assert_eq!(said.hear(piece), Ok(()));
        }
        assert_eq!((said.pongs, said.refusals.as_slice()), (1, &[(14, 0x81)][..]));
        assert!(!said.is_whole());
        assert!(said.hear(b"abcde\x10").is_err());
    }
}
