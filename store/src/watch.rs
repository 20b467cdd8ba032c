//! [`Watcher`]: how a consumer hears that queues have something for it.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A consumer's bell. It is rung once for each armed watch, however many records came, and only
/// after the entry can be read. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Watcher(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    ready: Mutex<Vec<u64>>,
    notify: Notify,
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
        loop {
            let notified = self.0.notify.notified();
            let tokens = self.take();
            if !tokens.is_empty() {
                return tokens;
            }
            notified.await;
        }
    }

    /// The tokens that have fired since the last call, without waiting.
    #[must_use]
    pub fn take(&self) -> Vec<u64> {
        std::mem::take(&mut *self.0.ready.lock())
    }

    pub(crate) fn ring(&self, token: u64) {
        self.0.ready.lock().push(token);
        self.0.notify.notify_one();
    }

    /// Tells watchers apart, as long as they are held.
    pub(crate) fn key(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }
}
