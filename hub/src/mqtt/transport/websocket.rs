//! [`WebSocket`]: MQTT's bytes in binary frames (section 6 of both specifications).
//!
//! Frames and packets have nothing to do with each other: a frame may hold half a packet, or three ([MQTT-6.0.0-2]).

use std::io::{self, IoSlice, Read, Write};

use bytes::BytesMut;
use tokio::net::TcpStream;
use tungstenite::Message;
use tungstenite::error::{CapacityError, Error};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

use super::layered::{PIECES_PER_READ, Stream, UNSENT_BYTES_MAX};

/// Bytes of one frame that we send.
const FRAME_BYTES_MAX: usize = 16 << 10;
/// Bytes that tungstenite reads with one call; it keeps a buffer of as many for as long as the connection lasts.
const READ_BYTES: usize = 1 << 10;
/// Bytes read from the stream with one call while there is more than that.
const AHEAD_BYTES: usize = 16 << 10;

const _: () = assert!(FRAME_BYTES_MAX < UNSENT_BYTES_MAX);

/// A stream that is read in small pieces, for an idle connection keeps room for one; and ahead in a large one while more than that comes.
struct Pieces<S> {
    stream: S,
    /// Whether there may be more than the last small piece.
    more: bool,
    ahead: Vec<u8>,
    /// Bytes of `ahead` that were taken.
    taken: usize,
}

impl<S: Read> Pieces<S> {
    fn of(stream: S) -> Self {
        Pieces { stream, more: false, ahead: Vec::new(), taken: 0 }
    }

    /// Reads ahead; 0 is the end.
    fn fill(&mut self) -> io::Result<usize> {
        let mut ahead = vec![0; AHEAD_BYTES];
        let read = self.stream.read(&mut ahead);
        self.more = matches!(read, Ok(AHEAD_BYTES));
        ahead.truncate(read?);
        (self.ahead, self.taken) = (ahead, 0);
        Ok(self.ahead.len())
    }
}

impl<S: Read> Read for Pieces<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ahead.is_empty() {
            if !self.more {
                let count = self.stream.read(buffer)?;
                self.more = count == buffer.len();
                return Ok(count);
            }
            if self.fill()? == 0 {
                return Ok(0);
            }
        }
        let mut left = self.ahead.get(self.taken..).unwrap_or_default();
        let count = left.read(buffer)?;
        let is_last = left.is_empty();
        self.taken += count;
        if is_last {
            self.ahead = Vec::new();
        }
        Ok(count)
    }
}

impl<S: Write> Write for Pieces<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// A WebSocket whose handshake is over.
pub(super) struct WebSocket {
    frames: tungstenite::WebSocket<Pieces<Stream>>,
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
        let stream = Pieces::of(stream);
        let frames = tungstenite::WebSocket::from_partially_read(stream, early, Role::Server, Some(config));
        WebSocket { frames, unsent: false, closed: false }
    }

    pub(super) fn socket(&self) -> &TcpStream {
        self.frames.get_ref().stream.socket()
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
        self.unsent || self.frames.get_ref().stream.has_unsent()
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
            self.frames.get_mut().stream.close();
        }
        self.frames.get_mut().flush()
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// What comes at a time; nothing where there is nothing yet.
    struct Arriving(VecDeque<Vec<u8>>);

    impl Read for Arriving {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Some(first) = self.0.front_mut() else { return Ok(0) };
            let count = first.as_slice().read(buffer)?;
            first.drain(..count);
            match (first.is_empty(), count) {
                (true, 0) => {
                    self.0.pop_front();
                    Err(io::ErrorKind::WouldBlock.into())
                }
                // The end of what came is met only when it is looked for.
                _ => Ok(count),
            }
        }
    }

    proptest! {
        #[test]
        fn pieces_are_what_was_sent(
            sizes in proptest::collection::vec(0..3 * AHEAD_BYTES, 0..6),
            room in 1..2 * READ_BYTES,
        ) {
            let mut numbers = (0..251_u8).cycle();
            let sent: VecDeque<Vec<u8>> =
                sizes.iter().map(|size| numbers.by_ref().take(*size).collect()).collect();
            let mut pieces = Pieces::of(Arriving(sent.clone()));
            let (mut read, mut waits, mut buffer) = (Vec::new(), 0, vec![0; room]);
            loop {
                match pieces.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => read.extend_from_slice(&buffer[..count]),
                    Err(error) => {
                        prop_assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                        // Nothing is kept while there is nothing.
                        prop_assert_eq!(pieces.ahead.capacity(), 0);
                        waits += 1;
                    }
                }
            }
            prop_assert!(read == sent.into_iter().flatten().collect::<Vec<u8>>());
            prop_assert_eq!(waits, sizes.len());
        }
    }
}
