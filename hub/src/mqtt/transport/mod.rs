//! [`Transport`]: what a connection's bytes go through.
//!
//! Nothing here waits but [`Transport::ready`]: reading and writing do what can be done now.

use std::io::{self, IoSlice};

use bytes::BytesMut;
use tokio::io::{Interest, Ready};
use tokio::net::TcpStream;

/// See the module's text.
pub(super) enum Transport {
    /// The socket, and nothing on it.
    Tcp(TcpStream),
}

impl Transport {
    /// Waits until something of `interest` can perhaps be done.
    pub(super) async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        let Transport::Tcp(socket) = self;
        socket.ready(interest).await
    }

    /// Appends what has come to `input`; 0 bytes when nothing will come any more.
    pub(super) fn try_read_buf(&mut self, input: &mut BytesMut) -> io::Result<usize> {
        let Transport::Tcp(socket) = self;
        socket.try_read_buf(input)
    }

    /// Writes what can be written now; how many bytes of `slices` are taken over.
    pub(super) fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let Transport::Tcp(socket) = self;
        socket.try_write_vectored(slices)
    }
}
