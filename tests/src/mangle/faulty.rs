//! [`Faulty`]: a stream that damages some of what is written to it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rand::Rng;
use rand::rngs::StdRng;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::damage;
use super::outgoing::Outgoing;
use super::way::Stream;

/// What a layer above writes is damaged on its way down: one of its first writes, and some of those after it.
pub(super) struct Faulty<S> {
    stream: S,
    random: StdRng,
    /// Writes that are still left as they are.
    good: u32,
    outgoing: Outgoing,
}

impl<S> Faulty<S> {
    pub(super) fn new(stream: S, mut random: StdRng) -> Faulty<S> {
        let good = random.random_range(0..6);
        Faulty { stream, random, good, outgoing: Outgoing::default() }
    }
}

impl<S: Stream> Stream for Faulty<S> {
    fn socket(&self) -> &TcpStream {
        self.stream.socket()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Faulty<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, to)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Faulty<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Faulty { stream, random, good, outgoing } = &mut *self;
        ready!(outgoing.poll_send(stream, cx))?;
        if *good > 0 {
            *good -= 1;
            outgoing.0.extend_from_slice(bytes);
        } else {
            *good = random.random_range(0..10);
            outgoing.0.extend_from_slice(&damage::layer(bytes, random));
        }
        if let Poll::Ready(Err(error)) = outgoing.poll_send(stream, cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Faulty { stream, outgoing, .. } = &mut *self;
        ready!(outgoing.poll_send(stream, cx))?;
        Pin::new(stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Faulty { stream, outgoing, .. } = &mut *self;
        ready!(outgoing.poll_send(stream, cx))?;
        Pin::new(stream).poll_shutdown(cx)
    }
}
