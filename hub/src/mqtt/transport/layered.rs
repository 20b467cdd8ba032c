//! [`Layered`]: TLS, WebSocket, or WebSocket over TLS.

use std::io::{self, IoSlice, Read, Write};

use bytes::BytesMut;
use tokio::net::TcpStream;

use super::socket::Socket;
use super::tls::Tls;
use super::websocket::WebSocket;

/// Bytes that a layer may have taken over and not yet written. They are beside `out_buffer_bytes_max`, for as long as
/// the socket takes nothing.
pub(super) const UNSENT_BYTES_MAX: usize = 64 << 10;

/// Pieces that are read without anything for us in them, until others have their turn: pings, empty messages, key
/// updates. The layers say so with [`io::ErrorKind::Interrupted`].
pub(super) const PIECES_PER_READ: usize = 64;

/// A stream of bytes: what a WebSocket is over.
pub(super) enum Stream {
    Tcp(Socket),
    Tls(Box<Tls>),
}

impl Stream {
    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Stream::Tcp(socket) => &socket.0,
            Stream::Tls(tls) => tls.socket(),
        }
    }

    pub(super) fn has_unsent(&self) -> bool {
        match self {
            Stream::Tcp(_) => false,
            Stream::Tls(tls) => tls.has_unsent(),
        }
    }

    pub(super) fn close(&mut self) {
        if let Stream::Tls(tls) = self {
            tls.close();
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(socket) => socket.read(buffer),
            Stream::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(socket) => socket.write(bytes),
            Stream::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Tcp(socket) => socket.flush(),
            Stream::Tls(tls) => tls.flush(),
        }
    }
}

enum Layers {
    Tls(Box<Tls>),
    WebSocket(Box<WebSocket>),
}

/// See the module's text.
pub(crate) struct Layered {
    layers: Layers,
    /// Whether all that has come was taken: only then does the socket know when there is more.
    drained: bool,
}

impl Layered {
    pub(super) fn tls(tls: Box<Tls>) -> Self {
        Layered { layers: Layers::Tls(tls), drained: false }
    }

    pub(super) fn websocket(websocket: Box<WebSocket>) -> Self {
        Layered { layers: Layers::WebSocket(websocket), drained: false }
    }

    pub(super) fn socket(&self) -> &TcpStream {
        match &self.layers {
            Layers::Tls(tls) => tls.socket(),
            Layers::WebSocket(websocket) => websocket.socket(),
        }
    }

    pub(super) fn is_drained(&self) -> bool {
        self.drained
    }

    pub(super) fn read_into(&mut self, input: &mut BytesMut) -> io::Result<usize> {
        let read = match &mut self.layers {
            Layers::Tls(tls) => tls.read_into(input),
            Layers::WebSocket(websocket) => websocket.read_into(input),
        };
        let kind = read.as_ref().map_err(io::Error::kind).err();
        self.drained = kind == Some(io::ErrorKind::WouldBlock);
        match kind {
            // Nothing for us came of much that did: others have their turn first.
            Some(io::ErrorKind::Interrupted) => Err(io::ErrorKind::WouldBlock.into()),
            _ => read,
        }
    }

    pub(super) fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.layers {
            Layers::Tls(tls) => tls.write_vectored(slices),
            Layers::WebSocket(websocket) => websocket.write_vectored(slices),
        }
    }

    pub(super) fn has_unsent(&self) -> bool {
        match &self.layers {
            Layers::Tls(tls) => tls.has_unsent(),
            Layers::WebSocket(websocket) => websocket.has_unsent(),
        }
    }

    /// Writes what waits, as far as the socket takes it: that it does not take all is no failure.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let flushed = match &mut self.layers {
            Layers::Tls(tls) => tls.flush(),
            Layers::WebSocket(websocket) => websocket.flush(),
        };
        match flushed {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            flushed => flushed,
        }
    }

    pub(super) fn close(&mut self) {
        match &mut self.layers {
            Layers::Tls(tls) => tls.close(),
            Layers::WebSocket(websocket) => websocket.close(),
        }
    }
}
