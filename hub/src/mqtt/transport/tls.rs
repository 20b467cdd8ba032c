//! [`Tls`]: TLS over a [`Socket`], as a stream of bytes that never blocks.

use std::io::{self, BufRead, IoSlice, Read, Write};
use std::sync::Arc;

use bytes::BytesMut;
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, Connection, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::super::peer::Certificate;
use super::layered::{PIECES_PER_READ, UNSENT_BYTES_MAX};
use super::socket::Socket;

/// A connection whose handshake is over.
pub(super) struct Tls {
    session: Connection,
    socket: Socket,
}

impl Tls {
    /// Does the handshake.
    pub(super) async fn accept(config: Arc<ServerConfig>, socket: TcpStream) -> io::Result<Box<Tls>> {
        let (socket, session) = TlsAcceptor::from(config).accept(socket).await?.into_inner();
        Ok(Tls::new(session.into(), socket))
    }

    /// Does the handshake as a client, with a server of this name.
    pub(super) async fn connect(
        config: Arc<ClientConfig>,
        server: ServerName<'static>,
        socket: TcpStream,
    ) -> io::Result<Box<Tls>> {
        let (socket, session) = TlsConnector::from(config).connect(server, socket).await?.into_inner();
        Ok(Tls::new(session.into(), socket))
    }

    fn new(mut session: Connection, socket: TcpStream) -> Box<Tls> {
        session.set_buffer_limit(Some(UNSENT_BYTES_MAX));
        Box::new(Tls { session, socket: Socket(socket) })
    }

    /// The client's certificate, which the handshake has found good; `None` if it showed none.
    pub(super) fn certificate(&self) -> Option<Certificate> {
        let leaf = self.session.peer_certificates()?.first()?;
        Certificate::from_der(leaf)
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket.0
    }

    /// Makes sure that something can be taken from the session, if something has come; how much. 0 is the end.
    fn fill(&mut self) -> io::Result<usize> {
        for _ in 0..PIECES_PER_READ {
            match self.session.reader().fill_buf() {
                Ok(plain) => return Ok(plain.len()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Cut off without a goodbye: MQTT has its own, and says what follows without one.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                Err(error) => return Err(error),
            }
            self.session.read_tls(&mut self.socket)?;
            if let Err(error) = self.session.process_new_packets() {
                // The alert that says why, as far as it goes.
                let _ = self.session.write_tls(&mut self.socket);
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
        Err(io::ErrorKind::Interrupted.into())
    }

    /// Appends a piece of what has come; 0 is the end.
    pub(super) fn read_into(&mut self, input: &mut BytesMut) -> io::Result<usize> {
        let count = self.fill()?;
        if count > 0 {
            let mut reader = self.session.reader();
            input.extend_from_slice(reader.fill_buf()?);
            reader.consume(count);
        }
        Ok(count)
    }

    /// Whether something waits for the socket.
    pub(super) fn has_unsent(&self) -> bool {
        self.session.wants_write()
    }

    /// Says that nothing more will be written.
    pub(super) fn close(&mut self) {
        self.session.send_close_notify();
    }
}

impl Read for Tls {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.fill()? {
            0 => Ok(0),
            _ => self.session.reader().read(buffer),
        }
    }
}

impl Write for Tls {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    /// Takes more only when all that was taken before is written, so that what waits here stays bounded.
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.flush()?;
        let taken = self.session.writer().write_vectored(slices)?;
        match self.flush() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            if self.session.write_tls(&mut self.socket)? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }
}
