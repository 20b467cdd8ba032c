//! [`Decoder`]: cuts packets out of a growing buffer.

use bytes::{Buf, Bytes, BytesMut};

use super::connect::Connect;
use super::{DecodeError, Packet, PacketKind, Reader, ReasonCode, Version};

/// Cuts packets out of what was read so far. It holds no bytes itself, and gives the same packets
/// however they arrive cut.
#[derive(Clone, Debug)]
pub struct Decoder {
    version: Option<Version>,
    packet_bytes_max: usize,
}

/// The fixed header of the next packet.
struct Header {
    kind: PacketKind,
    first: u8,
    /// Bytes of the fixed header.
    header_bytes: usize,
    /// The Remaining Length.
    body_bytes: usize,
    /// Whether the Remaining Length has more bytes than it needs.
    overlong: bool,
}

fn overlong() -> DecodeError {
    DecodeError::malformed("the Remaining Length is longer than it needs to be", "MQTT-1.5.5-1")
}

impl Decoder {
    /// A server's decoder: the first packet must be a CONNECT and decides the version.
    #[must_use]
    pub fn server(packet_bytes_max: usize) -> Self {
        Decoder { version: None, packet_bytes_max }
    }

    /// A client's decoder, which knows what it speaks.
    #[must_use]
    pub fn client(version: Version, packet_bytes_max: usize) -> Self {
        Decoder { version: Some(version), packet_bytes_max }
    }

    /// The version of the connection, known as soon as a CONNECT said it (even a CONNECT that was
    /// refused further on, so that the refusal can be written in its version).
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// The next packet, if all of it is there. Takes it from the buffer's front.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Packet>, DecodeError> {
        let Some(header) = self.header(buffer)? else { return Ok(None) };
        if buffer.len() - header.header_bytes < header.body_bytes {
            return Ok(None);
        }
        buffer.advance(header.header_bytes);
        let body = buffer.split_to(header.body_bytes).freeze();
        match self.version {
            Some(version) => Packet::decode(header.kind, header.first, body, version).map(Some),
            None => {
                // A copy: what is kept of a CONNECT, such as its will, would keep the whole read buffer.
                let mut reader = Reader::new(Bytes::copy_from_slice(&body));
                let connect = Connect::decode(&mut reader, &mut self.version)?;
                reader.end()?;
                // Which version decides is known only now.
                if header.overlong && connect.version == Version::V5 {
                    return Err(overlong());
                }
                Ok(Some(Packet::Connect(Box::new(connect))))
            }
        }
    }

    /// Checks what is there of the fixed header, byte by byte, so that a packet that will be refused is
    /// refused before its body was read.
    fn header(&self, buffer: &[u8]) -> Result<Option<Header>, DecodeError> {
        let Some((&first, rest)) = buffer.split_first() else { return Ok(None) };
        let kind = PacketKind::from_first_byte(first)?;
        if self.version.is_none() && kind != PacketKind::Connect {
            return Err(DecodeError::protocol("the first packet is no CONNECT", "MQTT-3.1.0-1"));
        }
        let mut body_bytes = 0_usize;
        for index in 0..4 {
            let Some(&byte) = rest.get(index) else { return Ok(None) };
            body_bytes |= usize::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 != 0 {
                continue;
            }
            // 3.1.1 does not ask for the shortest form, and small clients that always write two bytes exist.
            let is_overlong = byte == 0 && index > 0;
            if is_overlong && self.version == Some(Version::V5) {
                return Err(overlong());
            }
            let header_bytes = index + 2;
            if header_bytes + body_bytes > self.packet_bytes_max {
                return Err(DecodeError {
                    reason: ReasonCode::PACKET_TOO_LARGE,
                    what: "the packet is larger than the Maximum Packet Size",
                    section: "MQTT-3.2.2-15",
                });
            }
            if matches!(kind, PacketKind::Pingreq | PacketKind::Pingresp) && body_bytes > 0 {
                return Err(DecodeError::malformed("a ping has a body", "3.12.1"));
            }
            return Ok(Some(Header { kind, first, header_bytes, body_bytes, overlong: is_overlong }));
        }
        Err(DecodeError::malformed("the Remaining Length has more than four bytes", "2.1.4"))
    }
}
