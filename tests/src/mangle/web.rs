//! [`Web`]: a WebSocket (RFC 6455), as a client that varies what it may vary.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, BytesMut};
use rand::Rng;
use rand::rngs::StdRng;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::outgoing::Outgoing;
use super::way::Stream;

/// What asks for a WebSocket.
pub(super) const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
/// Longest answer to it.
const ANSWER_BYTES_MAX: usize = 4096;
/// First bytes of frames (section 5.2): a message whole, its beginning, its end; close, ping and pong.
const BINARY: u8 = 0x82;
const BEGIN: u8 = 0x02;
const END: u8 = 0x80;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// A WebSocket, of which one sees the bytes in its frames.
pub(super) struct Web<S> {
    stream: S,
    random: StdRng,
    outgoing: Outgoing,
    incoming: BytesMut,
    /// Bytes of MQTT that the frame has still to bring.
    left: u64,
    /// The hub has said goodbye.
    closed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Web<S> {
    /// Asks for it. An error when the answer is no.
    pub(super) async fn open(mut stream: S, random: StdRng) -> io::Result<Web<S>> {
        stream.write_all(REQUEST.as_bytes()).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") && answer.len() < ANSWER_BYTES_MAX {
            answer.push(stream.read_u8().await?);
        }
        if !answer.starts_with(b"HTTP/1.1 101 ") {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (outgoing, incoming) = (Outgoing::default(), BytesMut::new());
        Ok(Web { stream, random, outgoing, incoming, left: 0, closed: false })
    }
}

impl<S> Web<S> {
    /// Puts a message into one frame or two, with a ping before it or between them now and then.
    fn say(&mut self, bytes: &[u8]) {
        if self.random.random_bool(0.05) {
            self.frame(PING, b"?");
        }
        if self.random.random_bool(0.1) {
            let (begin, end) = bytes.split_at(self.random.random_range(0..=bytes.len()));
            self.frame(BEGIN, begin);
            if self.random.random_bool(0.3) {
                self.frame(PING, b"between");
            }
            self.frame(END, end);
        } else {
            self.frame(BINARY, bytes);
        }
    }

    fn frame(&mut self, first: u8, payload: &[u8]) {
        let frame = &mut self.outgoing.0;
        frame.put_u8(first);
        match payload.len() {
            length @ ..126 => frame.put_u8(0x80 | length as u8),
            length @ ..0x1_0000 => {
                frame.put_u8(0x80 | 126);
                frame.put_u16(length as u16);
            }
            length => {
                frame.put_u8(0x80 | 127);
                frame.put_u64(length as u64);
            }
        }
        let mask: [u8; 4] = self.random.random();
        frame.put_slice(&mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }

    /// Looks for the next frame in what has come; false if it is not there. An error says what is no frame of a server.
    fn begin(&mut self) -> io::Result<bool> {
        let [first, length, ..] = self.incoming[..] else { return Ok(false) };
        let (header, length) = match (length, &self.incoming[2..]) {
            (126, &[a, b, ..]) => (4, u64::from(u16::from_be_bytes([a, b]))),
            (127, &[a, b, c, d, e, f, g, h, ..]) => (10, u64::from_be_bytes([a, b, c, d, e, f, g, h])),
            (126 | 127, _) => return Ok(false),
            (0..126, _) => (2, u64::from(length)),
            _ => return Err(io::Error::other("a server masks no frame")),
        };
        match first {
            BINARY | BEGIN | END | 0 => {
                self.incoming.advance(header);
                self.left = length;
            }
            CLOSE | PING | PONG if length < 126 => {
                let whole = header + length as usize;
                if self.incoming.len() < whole {
                    return Ok(false);
                }
                self.incoming.advance(whole);
                self.closed |= first == CLOSE;
            }
            _ => return Err(io::Error::other(format!("0x{first:02x} begins no frame of a server"))),
        }
        Ok(true)
    }
}

impl<S: Stream> Stream for Web<S> {
    fn socket(&self) -> &TcpStream {
        self.stream.socket()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Web<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let web = &mut *self;
        loop {
            if web.left > 0 && !web.incoming.is_empty() {
                let left = usize::try_from(web.left).unwrap_or(usize::MAX);
                let count = left.min(web.incoming.len()).min(to.remaining());
                to.put_slice(&web.incoming.split_to(count));
                web.left -= count as u64;
                return Poll::Ready(Ok(()));
            }
            if web.closed {
                return Poll::Ready(Ok(()));
            }
            if web.left == 0 && web.begin()? {
                continue;
            }
            let mut space = [0; 4096];
            let mut came = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut web.stream).poll_read(cx, &mut came))?;
            if came.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            web.incoming.extend_from_slice(came.filled());
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Web<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let web = &mut *self;
        ready!(web.outgoing.poll_send(&mut web.stream, cx))?;
        web.say(bytes);
        if let Poll::Ready(Err(error)) = web.outgoing.poll_send(&mut web.stream, cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let web = &mut *self;
        ready!(web.outgoing.poll_send(&mut web.stream, cx))?;
        Pin::new(&mut web.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let web = &mut *self;
        ready!(web.outgoing.poll_send(&mut web.stream, cx))?;
        Pin::new(&mut web.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt, StreamExt};
    use rand::SeedableRng;
    use tokio_tungstenite::tungstenite::Message;

    use super::*;

    /// Somebody else's server takes what it sends, and it takes what that sends.
    #[tokio::test]
    async fn it_is_a_websocket() {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let server = tokio::spawn(async move {
            let mut socket = tokio_tungstenite::accept_async(theirs).await.expect("a good request");
            let mut heard = Vec::new();
            while heard.len() < 200_000 {
                if let Message::Binary(bytes) = socket.next().await.expect("more").expect("good frames") {
                    heard.extend_from_slice(&bytes);
                }
            }
            socket.send(Message::Ping("x".into())).await.expect("an open connection");
            for piece in heard.chunks(70_000) {
                socket.send(Message::binary(piece.to_vec())).await.expect("an open connection");
            }
            socket.close(None).await.expect("an open connection");
        });
        let mut web = Web::open(ours, StdRng::seed_from_u64(7)).await.expect("a WebSocket");
        let said: Vec<u8> = (0..200_000u32).map(|number| (number % 251) as u8).collect();
        let mut rest = said.as_slice();
        // Each length has a form of its own.
        for length in [1, 100, 125, 126, 5_000, 65_535, 65_536] {
            let piece;
            (piece, rest) = rest.split_at(length);
            web.write_all(piece).await.expect("an open connection");
        }
        for piece in rest.chunks(1_000) {
            web.write_all(piece).await.expect("an open connection");
        }
        web.flush().await.expect("an open connection");
        let mut heard = Vec::new();
        web.read_to_end(&mut heard).await.expect("good frames");
        assert!(heard == said);
        server.await.expect("a server that is content");
    }
}
