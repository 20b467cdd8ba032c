//! [`Threads`]: the network threads.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Threads with one single-threaded runtime each.
pub(in crate::mqtt) struct Threads {
    runtimes: Vec<Handle>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    next: AtomicUsize,
    stop: CancellationToken,
}

impl Threads {
    pub(in crate::mqtt) fn start(count: usize) -> io::Result<Threads> {
        let stop = CancellationToken::new();
        let (mut runtimes, mut threads) = (Vec::new(), Vec::new());
        for number in 0..count {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            runtimes.push(runtime.handle().clone());
            let stop = stop.clone();
            let thread = std::thread::Builder::new().name(format!("mqtt-{number}"));
            // The runtime, and with it every task left, goes when the thread does.
            threads.push(thread.spawn(move || runtime.block_on(stop.cancelled()))?);
        }
        Ok(Threads { runtimes, threads: Mutex::new(threads), next: AtomicUsize::new(0), stop })
    }

    /// The runtime whose turn it is.
    pub(in crate::mqtt) fn next(&self) -> Option<&Handle> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.runtimes.get(turn % self.runtimes.len().max(1))
    }

    /// Ends the threads soon, and whatever still runs on them.
    pub(in crate::mqtt) fn cancel(&self) {
        self.stop.cancel();
    }

    /// Ends the threads and whatever still runs on them.
    pub(in crate::mqtt) async fn stop(&self) {
        self.cancel();
        let threads = std::mem::take(&mut *self.threads.lock());
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    warn!("a network thread ended with a panic");
                }
            }
        });
        let _ = joined.await;
    }
}
