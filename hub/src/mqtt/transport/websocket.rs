//! [`WebSocket`]: MQTT's bytes in binary frames (section 6 of both specifications).
//!
//! Frames and packets have nothing to do with each other: a frame may hold half a packet, or three ([MQTT-6.0.0-2]).

use std::io::{self, IoSlice};

use bytes::BytesMut;
use tokio::net::TcpStream;
use tungstenite::Message;
use tungstenite::error::{CapacityError, Error};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

use super::layered::{PIECES_PER_READ, Stream, UNSENT_BYTES_MAX};

/// Bytes of one frame that we send.
const FRAME_BYTES_MAX: usize = 16 << 10;
/// Bytes read from the stream with one call.
const READ_BYTES: usize = 8 << 10;

const _: () = assert!(FRAME_BYTES_MAX < UNSENT_BYTES_MAX);

/// A WebSocket whose handshake is over.
pub(super) struct WebSocket {
    frames: tungstenite::WebSocket<Stream>,
    /// Whether frames wait for the stream.
    unsent: bool,
    /// Whether its end was said.
    closed: bool,
}

impl WebSocket {
    /// Begins after the handshake, with what the client has sent since.
    pub(super) fn new(stream: Stream, early: Vec<u8>, message_bytes_max: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            // Writing is our own doing, in `flush`.
            .write_buffer_size(UNSENT_BYTES_MAX)
            .max_write_buffer_size(2 * UNSENT_BYTES_MAX)
            .max_message_size(Some(message_bytes_max))
            .max_frame_size(Some(message_bytes_max));
        let frames = tungstenite::WebSocket::from_partially_read(stream, early, Role::Server, Some(config));
        WebSocket { frames, unsent: false, closed: false }
    }

    pub(super) fn socket(&self) -> &TcpStream {
        self.frames.get_ref().socket()
    }

    /// Appends the bytes of one message; 0 is the end. Text is refused ([MQTT-6.0.0-1]).
    pub(super) fn read_into(&mut self, input: &mut BytesMut) -> io::Result<usize> {
        for _ in 0..PIECES_PER_READ {
            match self.frames.read() {
                Ok(Message::Binary(bytes)) if !bytes.is_empty() => {
                    input.extend_from_slice(&bytes);
                    return Ok(bytes.len());
                }
                Ok(Message::Text(_)) => {
                    return Err(
                        self.refuse(CloseCode::Unsupported, "a text frame: MQTT is binary".to_owned())
                    );
                }
                // The answers to these wait for the stream.
                Ok(Message::Ping(_) | Message::Close(_)) => self.unsent = true,
                Ok(Message::Binary(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Err(error) => return self.failed(error),
            }
        }
        Err(io::ErrorKind::Interrupted.into())
    }

    /// What follows from a failure to read: the end, or why it is one.
    fn failed(&mut self, error: Error) -> io::Result<usize> {
        let code = match error {
            Error::Io(error) => return Err(error),
            Error::ConnectionClosed
            | Error::AlreadyClosed
            | Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
                return Ok(0);
            }
            Error::Capacity(CapacityError::MessageTooLong { .. }) => CloseCode::Size,
            Error::Utf8(_) => CloseCode::Unsupported,
            _ => CloseCode::Protocol,
        };
        Err(self.refuse(code, error.to_string()))
    }

    /// Tells the client why it is let go, as far as that can be written now.
    fn refuse(&mut self, code: CloseCode, what: String) -> io::Error {
        self.end(code);
        let _ = self.flush();
        io::Error::new(io::ErrorKind::InvalidData, what)
    }

    fn end(&mut self, code: CloseCode) {
        if !self.closed {
            self.closed = true;
            self.unsent = true;
            let frame = CloseFrame { code, reason: "".into() };
            // What cannot be written now is written by `flush`, or never.
            let _ = self.frames.close(Some(frame));
        }
    }

    /// Takes one frame's worth, once all that was taken before is written.
    pub(super) fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.flush()?;
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut payload = BytesMut::with_capacity(total.min(FRAME_BYTES_MAX));
        for slice in slices {
            let room = FRAME_BYTES_MAX - payload.len();
            payload.extend_from_slice(slice.get(..room).unwrap_or(slice));
        }
        let taken = payload.len();
        match self.frames.write(Message::Binary(payload.freeze())) {
            Ok(()) => {}
            // It is in the buffer, behind an answer to a ping that the stream did not take whole.
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(other(error)),
        }
        self.unsent = true;
        match self.flush() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.unsent || self.frames.get_ref().has_unsent()
    }

    /// Writes all that waits, or fails with [`io::ErrorKind::WouldBlock`].
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.unsent {
            match self.frames.flush() {
                // Closed: all was written.
                Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => self.unsent = false,
                Err(error) => return Err(other(error)),
            }
        }
        if self.closed {
            self.frames.get_mut().close();
        }
        io::Write::flush(self.frames.get_mut())
    }

    /// Says goodbye.
    pub(super) fn close(&mut self) {
        self.end(CloseCode::Normal);
    }
}

fn other(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        error => io::Error::other(error),
    }
}
