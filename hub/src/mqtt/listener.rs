//! Network threads and listeners: accepted connections are dealt out to the threads and stay there.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::codec::ReasonCode;
use super::connection;
use super::shared::{Phase, Shared};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;
/// How long to wait when the system has no more file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Threads with one single-threaded runtime each.
pub(super) struct Threads {
    runtimes: Vec<Handle>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    next: AtomicUsize,
    stop: CancellationToken,
}

impl Threads {
    pub(super) fn start(count: usize) -> io::Result<Threads> {
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
    pub(super) fn next(&self) -> Option<&Handle> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.runtimes.get(turn % self.runtimes.len().max(1))
    }

    /// Ends the threads soon, and whatever still runs on them.
    pub(super) fn cancel(&self) {
        self.stop.cancel();
    }

    /// Ends the threads and whatever still runs on them.
    pub(super) async fn stop(&self) {
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

/// Opens a listener.
pub(super) fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket =
        if address.is_ipv4() { tokio::net::TcpSocket::new_v4()? } else { tokio::net::TcpSocket::new_v6()? };
    // A restart in place must not wait for connections of the process before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// Accepts connections until the broker lets them go.
pub(super) async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>, threads: Arc<Threads>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            warn!(%error, "a listener cannot be used");
            return;
        }
    };
    let mut phase = shared.phase.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = phase.wait_for(|phase| *phase != Phase::Running) => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let handed = stream.set_nodelay(true).and_then(|()| stream.into_std());
                match handed {
                    Ok(stream) => admit(stream, peer, &shared, &threads),
                    Err(error) => debug!(%peer, %error, "a connection was lost before it began"),
                }
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// Gives an accepted connection to a thread, if there is room for it.
fn admit(stream: std::net::TcpStream, peer: SocketAddr, shared: &Arc<Shared>, threads: &Threads) {
    if !shared.counters.enter(shared.options.connections_max) {
        debug!(%peer, "connections_max is reached; closed");
        shared.counters.refuse(ReasonCode::CONNECTION_RATE_EXCEEDED);
        return;
    }
    let place = Place(Arc::clone(shared));
    let shared = Arc::clone(shared);
    if let Some(runtime) = threads.next() {
        runtime.spawn(async move {
            let _place = place;
            connection::serve(shared, stream, peer).await;
        });
    }
}

/// A connection's place among `connections_max`, given back however its task ends.
struct Place(Arc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.counters.leave();
    }
}
