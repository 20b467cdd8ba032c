//! [`Shared`]: one server for the tests that run at the same time.

use std::sync::{Arc, Weak};

use tokio::sync::Mutex;

/// A server that is started when a test wants it and none is running, and stopped when the last test lets go of it.
/// (One that lived in a static would never be dropped, and would leave its data behind.)
pub struct Shared<T>(Mutex<Weak<T>>);

impl<T> Shared<T> {
    /// Not started yet.
    #[must_use]
    pub const fn new() -> Self {
        Shared(Mutex::const_new(Weak::new()))
    }

    /// The running server, or a new one from `start`.
    pub async fn get(&self, start: impl Future<Output = T>) -> Arc<T> {
        let mut running = self.0.lock().await;
        if let Some(server) = running.upgrade() {
            return server;
        }
        let server = Arc::new(start.await);
        *running = Arc::downgrade(&server);
        server
    }
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self::new()
    }
}
