//! [`Output`]: what waits for a client's socket.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes, BytesMut};

use super::super::codec::{EncodeError, Packet, PublishHead, Version};
use super::super::transport::Transport;

/// Payloads from this size on are not copied behind their head, but written from where they are.
const SHARE_BYTES_MIN: usize = 4096;
/// Buffers of one write.
const SLICES_MAX: usize = 64;
/// An empty buffer larger than this is given back.
const KEEP_BYTES_MAX: usize = 16 << 10;

/// Packets in the order in which they are to be written.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// Written first.
    chunks: VecDeque<Bytes>,
    /// Written last, and still growing.
    tail: BytesMut,
    /// Bytes of `chunks`.
    chunk_bytes: usize,
}

impl Output {
    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.chunk_bytes + self.tail.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a packet.
    pub(super) fn packet(&mut self, packet: &Packet, version: Version) -> Result<(), EncodeError> {
        packet.encode(version, &mut self.tail)
    }

    /// Appends a packet if it is no longer than this; says whether it was.
    pub(super) fn packet_within(
        &mut self,
        packet: &Packet,
        version: Version,
        bytes_max: usize,
    ) -> Result<bool, EncodeError> {
        let before = self.tail.len();
        packet.encode(version, &mut self.tail)?;
        let fits = self.tail.len() - before <= bytes_max;
        if !fits {
            self.tail.truncate(before);
        }
        Ok(fits)
    }

    /// Appends a PUBLISH of a stored payload.
    pub(super) fn publish(
        &mut self,
        head: &PublishHead<'_>,
        payload: &Bytes,
        version: Version,
    ) -> Result<(), EncodeError> {
        head.encode(version, &mut self.tail)?;
        if payload.len() < SHARE_BYTES_MIN {
            self.tail.extend_from_slice(payload);
        } else {
            let before = self.tail.split().freeze();
            self.chunk_bytes += before.len() + payload.len();
            self.chunks.push_back(before);
            self.chunks.push_back(payload.clone());
        }
        Ok(())
    }

    /// Writes what the socket takes now; how many bytes that was.
    pub(super) fn write(&mut self, stream: &mut Transport) -> io::Result<usize> {
        let mut total = 0;
        while !self.is_empty() {
            match self.write_once(stream) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => total += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        stream.try_flush()?;
        if self.is_empty() && self.tail.capacity() > KEEP_BYTES_MAX {
            self.tail = BytesMut::new();
        }
        Ok(total)
    }

    fn write_once(&mut self, stream: &mut Transport) -> io::Result<usize> {
        let written = if self.chunks.is_empty() {
            stream.try_write_vectored(&[IoSlice::new(&self.tail)])?
        } else {
            let slices: Vec<IoSlice<'_>> = self
                .chunks
                .iter()
                .map(|chunk| &chunk[..])
                .chain([&self.tail[..]])
                .take(SLICES_MAX)
                .map(IoSlice::new)
                .collect();
            stream.try_write_vectored(&slices)?
        };
        self.advance(written);
        Ok(written)
    }

    /// Forgets the first `count` bytes.
    fn advance(&mut self, mut count: usize) {
        while let Some(first) = self.chunks.front_mut() {
            if count < first.len() {
                first.advance(count);
                self.chunk_bytes -= count;
                return;
            }
            count -= first.len();
            self.chunk_bytes -= first.len();
            self.chunks.pop_front();
        }
        self.tail.advance(count);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, Interest};
    use tokio::net::TcpStream;

    use super::*;
    use crate::mqtt::codec::Qos;

    #[tokio::test]
    async fn packets_come_out_in_order_however_much_the_socket_takes() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut client = Transport::Tcp(client);
        let (mut server, _) = listener.accept().await.unwrap();
        let (mut output, mut expected) = (Output::default(), BytesMut::new());
        for size in [10, SHARE_BYTES_MIN, 0, 3_000_000, SHARE_BYTES_MIN - 1] {
            let payload = Bytes::from(vec![size as u8; size]);
            let head = PublishHead {
                dup: false,
                qos: Qos::AtMostOnce,
                retain: false,
                topic: "a",
                id: None,
                message_expiry_s: None,
                topic_alias: None,
                subscription_ids: &[],
                forwarded: &[],
                payload_bytes: size,
            };
            output.publish(&head, &payload, Version::V5).unwrap();
            head.encode(Version::V5, &mut expected).unwrap();
            expected.extend_from_slice(&payload);
            output.packet(&Packet::Pingresp, Version::V5).unwrap();
            Packet::Pingresp.encode(Version::V5, &mut expected).unwrap();
        }
        assert_eq!(output.len(), expected.len());
        let reader = tokio::spawn(async move {
            let mut received = Vec::new();
            server.read_to_end(&mut received).await.unwrap();
            received
        });
        let mut written = 0;
        while !output.is_empty() {
            client.ready(Interest::WRITABLE).await.unwrap();
            written += output.write(&mut client).unwrap();
        }
        drop(client);
        assert_eq!(written, expected.len());
        assert!(reader.await.unwrap() == expected);
    }
}
