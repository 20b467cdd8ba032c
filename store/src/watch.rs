//! [`Watcher`]: how a consumer hears that queues have something for it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// A consumer's bell. It is rung once for each armed watch, however many records came, and only
/// after the entry can be read. Cheap to clone; one task waits for it.
#[derive(Clone, Debug, Default)]
pub struct Watcher(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    ready: Vec<u64>,
    /// Who waits: the task that did last.
    waiting: Option<Waker>,
}

impl Watcher {
    /// A bell nobody rings yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits until a watch has fired, and returns the tokens of all that have since the last call.
    /// Cancel-safe: tokens not returned stay.
    pub async fn ready(&self) -> Vec<u64> {
        poll_fn(|context| self.poll_ready(context)).await
    }

    fn poll_ready(&self, context: &Context<'_>) -> Poll<Vec<u64>> {
        let mut inner = self.0.lock();
        if !inner.ready.is_empty() {
            return Poll::Ready(std::mem::take(&mut inner.ready));
        }
        match &mut inner.waiting {
            Some(waiting) => waiting.clone_from(context.waker()),
            None => inner.waiting = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// The tokens that have fired since the last call, without waiting.
    #[must_use]
    pub fn take(&self) -> Vec<u64> {
        std::mem::take(&mut self.0.lock().ready)
    }

    /// Rings it, for whoever has something else to say to the same consumer: with a token that none of its watches has.
    pub fn ring(&self, token: u64) {
        let waiting = {
            let mut inner = self.0.lock();
            inner.ready.push(token);
            inner.waiting.take()
        };
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }

    /// Tells watchers apart, as long as they are held.
    pub(crate) fn key(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_ring_is_heard_before_and_while_somebody_waits() {
        let watcher = Watcher::new();
        watcher.ring(1);
        watcher.ring(2);
        assert_eq!(watcher.ready().await, [1, 2]);
        let bell = watcher.clone();
        let waiting = tokio::spawn(async move { bell.ready().await });
        tokio::task::yield_now().await;
        watcher.ring(3);
        assert_eq!(waiting.await.unwrap(), [3]);
        assert!(watcher.take().is_empty());
    }

    #[tokio::test]
    async fn what_was_not_fetched_stays() {
        let watcher = Watcher::new();
        tokio::select! {
            biased;
            _ = watcher.ready() => unreachable!("nobody has rung"),
            () = std::future::ready(()) => {}
        }
        watcher.ring(1);
        assert_eq!(watcher.take(), [1]);
    }
}
