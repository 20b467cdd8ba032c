//! [`Outgoing`]: bytes that wait for the stream below to take them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;

/// What was written and is not sent yet. It is sent before more is taken, so it holds one write at most.
#[derive(Debug, Default)]
pub(super) struct Outgoing(pub(super) BytesMut);

impl Outgoing {
    /// Ready when all is sent.
    pub(super) fn poll_send(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.0.is_empty() {
            match ready!(Pin::new(&mut *stream).poll_write(cx, &self.0))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.0.advance(sent),
            }
        }
        Poll::Ready(Ok(()))
    }
}
