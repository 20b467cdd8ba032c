//! [`Transport`]: what a connection's bytes go through: a socket, with or without TLS and WebSocket on it.
//!
//! Nothing waits here but [`Transport::ready`] and [`establish()`]: reading and writing do what can be done now. The layers are
//! objects in memory that read from and write to a socket that never blocks, so that a connection has one loop, whatever it
//! speaks over, and a plain one costs nothing for those that are not.
//!
//! # Layout
//! - `establish`: the layers of a listener, one after the other, on an accepted socket
//! - `proxy`: the header of the PROXY protocol, version 2
//! - `tls`: TLS
//! - `upgrade`: from an HTTP request to a WebSocket
//! - `websocket`: bytes in frames
//! - `layered`: TLS, WebSocket, or the one over the other
//! - `socket`: a socket as the layers want it

mod establish;
mod layered;
mod proxy;
mod socket;
mod tls;
mod upgrade;
mod websocket;

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::Poll;

use bytes::{BufMut, BytesMut};
use rustix::net::{RecvFlags, recv};
use tokio::io::{Interest, Ready};
use tokio::net::TcpStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

pub(super) use self::establish::establish;
use self::layered::Layered;
use self::tls::Tls;

/// Bytes that are discarded with one call.
const DISCARD_BYTES: usize = 4 << 10;

/// See the module's text.
pub(crate) enum Transport {
    /// The socket, and nothing on it.
    Tcp(TcpStream),
    /// Something on it. Boxed, so that plain connections stay small.
    Layered(Box<Layered>),
}

impl Transport {
    /// A client's end of TLS, with a server of this name.
    pub(crate) async fn connect_tls(
        config: Arc<ClientConfig>,
        server: ServerName<'static>,
        socket: TcpStream,
    ) -> io::Result<Transport> {
        let tls = Tls::connect(config, server, socket).await?;
        Ok(Transport::Layered(Box::new(Layered::tls(tls))))
    }

    /// Writes all of it. For clients: a listener's end writes what can be written now.
    pub(crate) async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        loop {
            while !bytes.is_empty() {
                match self.try_write_vectored(&[IoSlice::new(bytes)]) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            self.try_flush()?;
            if bytes.is_empty() && !self.has_unsent() {
                return Ok(());
            }
            self.ready(Interest::WRITABLE).await?;
        }
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Transport::Tcp(socket) => socket,
            Transport::Layered(layered) => layered.socket(),
        }
    }

    /// Waits until something of `interest` can perhaps be done.
    pub(crate) async fn ready(&mut self, interest: Interest) -> io::Result<Ready> {
        if let Transport::Layered(layered) = self
            && interest.is_readable()
            && !layered.is_drained()
        {
            // What has come is in memory. Others get their turn all the same, as they do when a socket is asked.
            tokio::task::coop::consume_budget().await;
            return Ok(Ready::READABLE);
        }
        let socket = self.socket();
        // Asked for each direction, which keeps nothing between polls: an idle connection rests here.
        poll_fn(|context| {
            let mut ready = Ready::EMPTY;
            if interest.is_readable() && socket.poll_read_ready(context)?.is_ready() {
                ready |= Ready::READABLE;
            }
            if interest.is_writable() && socket.poll_write_ready(context)?.is_ready() {
                ready |= Ready::WRITABLE;
            }
            if ready.is_empty() { Poll::Pending } else { Poll::Ready(Ok(ready)) }
        })
        .await
    }

    /// Appends what has come to `input`; 0 bytes when nothing will come any more.
    pub(crate) fn try_read_buf(&mut self, input: &mut BytesMut) -> io::Result<usize> {
        match self {
            Transport::Tcp(socket) => read_into(socket, input),
            Transport::Layered(layered) => layered.read_into(input),
        }
    }

    /// Writes what can be written now; how many bytes of `slices` are taken over. What is taken over may have
    /// to be flushed.
    pub(crate) fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Transport::Tcp(socket) => socket.try_write_vectored(slices),
            Transport::Layered(layered) => layered.write_vectored(slices),
        }
    }

    /// Whether bytes that were taken over still wait for the socket; at most [`layered::UNSENT_BYTES_MAX`].
    pub(crate) fn has_unsent(&self) -> bool {
        match self {
            Transport::Tcp(_) => false,
            Transport::Layered(layered) => layered.has_unsent(),
        }
    }

    /// Writes as much of them as can be written now.
    pub(crate) fn try_flush(&mut self) -> io::Result<()> {
        match self {
            Transport::Tcp(_) => Ok(()),
            Transport::Layered(layered) => layered.flush(),
        }
    }

    /// Says goodbye in each layer's own way. Nothing can be written after it; the goodbyes may have to be flushed.
    pub(crate) fn close(&mut self) {
        if let Transport::Layered(layered) = self {
            layered.close();
        }
    }

    /// Ends the direction to the client, so that it reads an end behind what was written.
    pub(crate) fn end_writing(&self) {
        // A socket whose other end is gone needs no end.
        let _ = rustix::net::shutdown(self.socket(), rustix::net::Shutdown::Write);
    }

    /// Reads until the client ends its direction as well, and looks at none of it.
    pub(crate) async fn discard(&self) {
        let socket = self.socket();
        let mut room = [0; DISCARD_BYTES];
        while socket.readable().await.is_ok() {
            match socket.try_read(&mut room) {
                Ok(0) => return,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
                _ => {}
            }
        }
    }
}

/// Appends what has come. A read that leaves room has emptied the socket, which then counts as not ready: what would only say so is a
/// system call for each turn of each connection.
fn read_into(socket: &TcpStream, input: &mut BytesMut) -> io::Result<usize> {
    let mut emptied = None;
    let filled = socket.try_io(Interest::READABLE, || {
        let room = input.chunk_mut();
        let room_bytes = room.len();
        // SAFETY: the system writes into it, and nobody reads it.
        let (_, count) = recv(socket, unsafe { room.as_uninit_slice_mut() }, RecvFlags::empty())?;
        // SAFETY: so many bytes are written.
        unsafe { input.advance_mut(count) };
        if (1..room_bytes).contains(&count) {
            emptied = Some(count);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(count)
    });
    emptied.map_or(filled, Ok)
}
