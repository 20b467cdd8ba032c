//! [`Listener`]: an address that clients connect to, and what holds for those who do. Accepted connections are dealt
//! out to the network threads and stay there.
//!
//! # Layout
//! - this file: binding, accepting
//! - `options`: the keys of an entry of `mqtt.listeners`
//! - `threads`: network threads

mod options;
mod threads;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tracing::{debug, warn};

pub use self::options::ListenerOptions;
pub(super) use self::threads::Threads;
use super::codec::ReasonCode;
use super::connection;
use super::peer::Peer;
use super::shared::{Phase, Shared};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;
/// How long to wait when the system has no more file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// One address, and what holds for its connections.
#[derive(Debug)]
pub(super) struct Listener {
    /// What was configured.
    pub(super) options: ListenerOptions,
    /// Where it listens: with the port that the system chose, if it was to choose.
    pub(super) address: SocketAddr,
}

impl Listener {
    /// Takes the address. Connections are accepted from [`accept`] on.
    pub(super) fn bind(options: ListenerOptions) -> io::Result<(std::net::TcpListener, Arc<Listener>)> {
        let socket = bind(options.address)?;
        let address = socket.local_addr()?;
        Ok((socket, Arc::new(Listener { options, address })))
    }
}

fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket =
        if address.is_ipv4() { tokio::net::TcpSocket::new_v4()? } else { tokio::net::TcpSocket::new_v6()? };
    // A restart in place must not wait for connections of the process before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// Accepts connections until the broker lets them go.
pub(super) async fn accept(
    socket: std::net::TcpListener,
    listener: Arc<Listener>,
    shared: Arc<Shared>,
    threads: Arc<Threads>,
) {
    let socket = match TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => {
            warn!(listener = listener.options.name, %error, "a listener cannot be used");
            return;
        }
    };
    let mut phase = shared.phase.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = phase.wait_for(|phase| *phase != Phase::Running) => return,
        };
        match accepted {
            Ok((stream, address)) => {
                let handed = stream.set_nodelay(true).and_then(|()| stream.into_std());
                match handed {
                    Ok(stream) => admit(stream, Peer::new(address, &listener), &shared, &threads),
                    Err(error) => debug!(peer = %address, %error, "a connection was lost before it began"),
                }
            }
            Err(error) => {
                warn!(listener = listener.options.name, %error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// Gives an accepted connection to a thread, if there is room for it.
fn admit(stream: std::net::TcpStream, peer: Peer, shared: &Arc<Shared>, threads: &Threads) {
    if !shared.counters.enter(shared.options.connections_max) {
        debug!(peer = %peer.address, "connections_max is reached; closed");
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
