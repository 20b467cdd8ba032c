//! [`Socket`]: a socket that never blocks, behind the standard library's traits.

use std::io::{self, IoSlice, Read, Write};

use tokio::net::TcpStream;

/// Reads and writes what can be read and written now; else it fails with [`io::ErrorKind::WouldBlock`].
pub(super) struct Socket(pub(super) TcpStream);

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
