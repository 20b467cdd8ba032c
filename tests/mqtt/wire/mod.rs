//! A connection that is driven byte by byte. It checks of everything the server sends that it is laid out as the
//! specification says, and knows nothing of the protocol beyond that.
//!
//! # Layout
//! - [`build`] packets to send, also bad ones
//! - [`read`] packets received

mod build;
mod read;

pub(crate) use build::*;
pub(crate) use read::*;

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tidemill_tests::mqtt::Level;
use tidemill_tests::services::Tidemill;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a test waits for what must come.
const LIMIT: Duration = Duration::from_secs(20);

/// Both versions.
pub(crate) const BOTH: [Level; 2] = [Level::V311, Level::V5];

/// A name of its own for each version.
pub(crate) fn at(level: Level, name: &str) -> String {
    format!("{name}-{}", level as u8)
}

/// A connection.
pub(crate) struct Wire {
    pub level: Level,
    stream: TcpStream,
    buffer: BytesMut,
    /// Packets that were passed over by [`Wire::expect_among`].
    held: VecDeque<Vec<u8>>,
}

impl Wire {
    /// A TCP connection on which nothing was said yet.
    pub(crate) async fn open(hub: &Tidemill, level: Level) -> Wire {
        let stream = TcpStream::connect(hub.mqtt()).await.expect("a listening hub");
        stream.set_nodelay(true).expect("a socket");
        Wire { level, stream, buffer: BytesMut::new(), held: VecDeque::new() }
    }

    /// A connection that was accepted, and its CONNACK.
    pub(crate) async fn accepted(hub: &Tidemill, connect: &Connect) -> (Wire, Connack) {
        let mut wire = Self::open(hub, connect.level).await;
        wire.send(connect).await;
        let connack = wire.connack().await;
        assert_eq!(connack.reason, 0, "the CONNECT was refused: {connack:?}");
        (wire, connack)
    }

    /// A connection with a CONNECT that is accepted.
    pub(crate) async fn with(hub: &Tidemill, connect: &Connect) -> Wire {
        Self::accepted(hub, connect).await.0
    }

    /// A connection with a session that starts anew and ends with it.
    pub(crate) async fn connect(hub: &Tidemill, level: Level, client: &str) -> Wire {
        Self::with(hub, &connect(level, client)).await
    }

    /// A connection of a client that nobody else is.
    pub(crate) async fn nobody(hub: &Tidemill, level: Level) -> Wire {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let client = format!("nobody-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Self::connect(hub, level, &client).await
    }

    pub(crate) async fn send(&mut self, packet: &(impl Packet + ?Sized)) {
        let bytes = packet.at(self.level);
        self.stream.write_all(&bytes).await.expect("an open connection");
    }

    /// The next packet whole; `None` when the server has closed the connection.
    pub(crate) async fn next(&mut self) -> Option<Vec<u8>> {
        match timeout(LIMIT, self.receive()).await {
            Ok(frame) => frame,
            Err(_) => panic!("nothing came in {LIMIT:?}"),
        }
    }

    async fn receive(&mut self) -> Option<Vec<u8>> {
        if let Some(frame) = self.held.pop_front() {
            return Some(frame);
        }
        self.read().await
    }

    async fn read(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(frame) = self.cut() {
                return Some(frame);
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => {
                    assert!(
                        self.buffer.is_empty(),
                        "closed in the middle of a packet: {:x?}",
                        &self.buffer[..]
                    );
                    return None;
                }
                Ok(_) => {}
                // What we sent last was not read any more.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("the connection broke: {error}"),
            }
        }
    }

    /// Cuts the next packet out of what was received.
    fn cut(&mut self) -> Option<Vec<u8>> {
        let end = 1 + self.buffer.iter().skip(1).position(|byte| byte & 0x80 == 0)?;
        let mut length = Cut(&self.buffer[1..=end]);
        let whole = end + 1 + length.varint();
        if self.buffer.len() < whole {
            return None;
        }
        let frame = self.buffer[..whole].to_vec();
        self.buffer.advance(whole);
        Some(frame)
    }

    /// The next packet, which must come.
    pub(crate) async fn frame(&mut self) -> Vec<u8> {
        self.next().await.expect("a packet, not the end of the connection")
    }

    /// The next packet is this one, byte for byte.
    pub(crate) async fn expect(&mut self, packet: &(impl Packet + ?Sized)) {
        let wanted = packet.at(self.level);
        let frame = self.frame().await;
        assert!(frame == wanted, "{wanted:02x?} was expected, not {frame:02x?}");
    }

    /// This packet comes, byte for byte. What comes before it is kept for later: a message and the answer to a
    /// request have no order.
    pub(crate) async fn expect_among(&mut self, packet: &(impl Packet + ?Sized)) {
        let wanted = packet.at(self.level);
        loop {
            match timeout(LIMIT, self.read()).await {
                Ok(Some(frame)) if frame == wanted => return,
                Ok(Some(frame)) => self.held.push_back(frame),
                other => panic!("{wanted:02x?} was expected, not {other:02x?} after {:02x?}", self.held),
            }
        }
    }

    pub(crate) async fn connack(&mut self) -> Connack {
        Connack::read(self.level, &self.frame().await)
    }

    /// The next packet, a PUBLISH. It is not acknowledged.
    pub(crate) async fn message(&mut self) -> Message {
        Message::read(self.level, &self.frame().await)
    }

    /// The next packet, an acknowledgement with this first byte.
    pub(crate) async fn answer(&mut self, first: u8) -> Answer {
        let frame = self.frame().await;
        assert_eq!(frame[0], first, "{first:#04x} was expected, not {frame:02x?}");
        Answer::read(self.level, &frame)
    }

    /// Nothing more is on its way: what the server sent before it answered our PINGREQ was read.
    pub(crate) async fn silent(&mut self) {
        self.send(&PINGREQ).await;
        self.expect(&PINGRESP).await;
    }

    /// Nothing comes for a while, and the connection stays open.
    pub(crate) async fn silent_for(&mut self, time: Duration) {
        if let Ok(frame) = timeout(time, self.receive()).await {
            panic!("nothing was expected for {time:?}, not {frame:02x?}");
        }
    }

    /// The server closes the connection without another word.
    pub(crate) async fn closed(&mut self) {
        let frame = self.next().await;
        assert_eq!(frame, None, "the end of the connection was expected");
    }

    /// The server closes the connection, and says why in 5.0. (3.1.1 has no packet for it.)
    pub(crate) async fn closed_with(&mut self, reason: u8) {
        if self.level == Level::V5 {
            let said = self.answer(0xe0).await;
            assert_eq!(said.reason, reason, "{reason:#04x} was expected, not {said:02x?}");
        }
        self.closed().await;
    }

    /// Subscribes, and is granted the QoS that the options ask for.
    pub(crate) async fn subscribe(&mut self, filter: impl AsRef<[u8]>, options: u8) {
        self.send(&subscribe(0x5ab, &[(filter, options)])).await;
        self.granted(&[options & 3]).await;
    }

    /// A SUBACK of [`Wire::subscribe`] or another SUBSCRIBE with this identifier, with these reason codes.
    pub(crate) async fn granted(&mut self, reasons: &[u8]) {
        let head = bytes().u16(0x5ab);
        let head = if self.level == Level::V5 { head.u8(0) } else { head };
        self.expect_among(&head.raw(reasons).packet(0x90)).await;
    }

    /// Publishes with QoS 2 and sees it through.
    pub(crate) async fn publish_exactly_once(&mut self, message: Publish) {
        self.send(&message.qos(2, 0xabd)).await;
        self.expect_among(&pubrec(0xabd)).await;
        self.send(&pubrel(0xabd)).await;
        self.expect_among(&pubcomp(0xabd)).await;
    }

    /// Publishes with QoS 1 and waits for its PUBACK: the server has it.
    pub(crate) async fn publish(&mut self, message: Publish) {
        self.send(&message.qos(1, 0xabc)).await;
        self.expect_among(&puback(0xabc)).await;
    }

    /// Publishes more than all buffers on the way to a client hold.
    pub(crate) async fn publish_much(&mut self, topic: &str) {
        for _ in 0..16 {
            self.publish(publish(topic, vec![b'x'; 1_000_000])).await;
        }
    }

    /// Ends the connection as a client should.
    pub(crate) async fn disconnect(mut self) {
        self.send(&DISCONNECT).await;
        self.closed().await;
    }

    /// Ends the connection without a word, and waits until the server has noticed.
    pub(crate) async fn cut_off(mut self) {
        self.stream.shutdown().await.expect("an open connection");
        while self.next().await.is_some() {}
    }
}
