//! [`Listener`]: an address that clients connect to, and what holds for those who do. Accepted connections are dealt
//! out to the network threads and stay there.
//!
//! # Layout
//! - this file: binding, accepting
//! - `options`: the keys of an entry of `mqtt.listeners`
//! - `tls`: its certificates, as files
//! - `secured`: its certificates, as they are now
//! - `refuse`: connections for which there is no room
//! - `threads`: network threads

mod options;
mod refuse;
mod secured;
mod threads;
mod tls;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio_rustls::rustls::ServerConfig;
use tracing::warn;

pub(super) use self::options::check_same;
pub(crate) use self::options::share_port;
pub use self::options::{ListenerError, ListenerOptions, Protocol};
use self::secured::Secured;
pub(super) use self::secured::watch;
pub(super) use self::threads::Threads;
use self::tls::TlsError;
pub use self::tls::{ClientCertificate, TlsOptions, TlsVersion};
use super::Options;
use super::StartError;
use super::connection;
use super::limits::{Limit, ListenerRates};
use super::peer::Peer;
use super::shared::{Phase, Shared};
use super::told::seldom;

/// How long to wait when the system has no more file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Connections accepted before the others on the thread have their turn: some milliseconds.
const ACCEPTS_AT_ONCE: usize = 1024;
/// Connections that are begun before more are accepted. A storm comes faster than it can be served; were all begun at once, the
/// system's queue would run over meanwhile.
const BEGUN_AT_ONCE: usize = 64;

/// One address, and what holds for its connections.
pub(super) struct Listener {
    /// What was configured.
    pub(super) options: ListenerOptions,
    /// Where it listens: with the port that the system chose, if it was to choose.
    pub(super) address: SocketAddr,
    /// How fast connections, messages and bytes may come.
    pub(super) rates: Arc<ListenerRates>,
    /// Its connections, and how many there may be.
    connections: AtomicUsize,
    connections_max: usize,
    /// Its certificates, if it speaks TLS.
    secured: Option<Secured>,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Listener {
    /// Takes the address, and reads the certificates. Connections are accepted from [`accept`] on.
    pub(super) fn bind(
        options: ListenerOptions,
        all: &Options,
    ) -> Result<(std::net::TcpListener, Arc<Listener>), StartError> {
        let secured = match &options.tls {
            Some(tls) => Some(Secured::load(&options.name, tls).map_err(|error| {
                let TlsError { key, what, .. } = error;
                ListenerError { name: options.name.clone(), key, what, hint: None }
            })?),
            None => None,
        };
        let bound = bind(options.address, options.backlog)
            .and_then(|socket| socket.local_addr().map(|address| (socket, address)));
        let (socket, address) = match bound {
            Ok(bound) => bound,
            Err(error) => {
                return Err(StartError::Listen { name: options.name, address: options.address, error });
            }
        };
        let limits = options.limits.or(all);
        let rates = Arc::new(ListenerRates::new(&limits, all.rate_burst));
        let connections_max = limits.connections_max.unwrap_or(usize::MAX);
        let connections = AtomicUsize::new(0);
        Ok((socket, Arc::new(Listener { options, address, rates, connections, connections_max, secured })))
    }

    /// What TLS is spoken with from now on; `None` if it is not.
    pub(super) fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.secured.as_ref().map(Secured::current)
    }

    /// Whether MQTT begins with the first byte.
    pub(super) fn is_plain(&self) -> bool {
        self.secured.is_none() && self.options.protocol == Protocol::Tcp && !self.options.proxy_protocol
    }

    /// Reads certificates again, from the files that are named now. All else stays as it was at start.
    pub(super) fn reload(&self, options: &ListenerOptions) {
        if let (Some(secured), Some(tls)) = (&self.secured, &options.tls) {
            secured.reload(tls.clone());
        }
    }
}

fn bind(address: SocketAddr, backlog: u32) -> io::Result<std::net::TcpListener> {
    let socket =
        if address.is_ipv4() { tokio::net::TcpSocket::new_v4()? } else { tokio::net::TcpSocket::new_v6()? };
    // A restart in place must not wait for connections of the process before.
    socket.set_reuseaddr(true)?;
    // Those that are accepted inherit it.
    socket.set_nodelay(true)?;
    socket.bind(address)?;
    socket.listen(backlog)?.into_std()
}

/// Accepts connections until the broker lets them go.
pub(super) async fn accept(
    socket: std::net::TcpListener,
    listener: Arc<Listener>,
    shared: Arc<Shared>,
    threads: Arc<Threads>,
) {
    // SAFETY: the socket is owned by what is made here, which closes it when it is dropped and not before.
    let socket = match unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) } {
        Ok(socket) => socket,
        Err(error) => {
            warn!(listener = listener.options.name, %error, "a listener cannot be used");
            return;
        }
    };
    let mut phase = shared.phase.subscribe();
    let mut waiting = VecDeque::new();
    while !shared.is_draining() {
        if waiting.is_empty() {
            tokio::select! {
                // What it says is asked again by `try_io`.
                _ = socket.readable() => {}
                _ = phase.wait_for(|phase| *phase != Phase::Running) => return,
            }
        }
        let failed = accept_all(&socket, &mut waiting, &listener, &shared, &threads);
        for (stream, peer, place) in waiting.drain(..waiting.len().min(BEGUN_AT_ONCE)) {
            if let Some(runtime) = threads.next() {
                runtime.spawn(connection::serve(Arc::clone(&shared), stream, peer, place));
            }
        }
        if let Some(error) = failed {
            let name = &listener.options.name;
            if [Errno::MFILE, Errno::NFILE]
                .into_iter()
                .any(|none_left| error.raw_os_error() == Some(none_left.raw_os_error()))
            {
                seldom!(
                    warn, listener = name, %error,
                    "cannot accept connections for now: raise the limit of open files (`ulimit -n`, systemd's `LimitNOFILE=`), or lower \
                     `mqtt.connections_max`"
                );
            } else {
                seldom!(warn, listener = name, %error, "cannot accept a connection");
            }
            // Those that are accepted have the descriptors that are short: they first.
            if waiting.is_empty() {
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
        // Those that wait still are next, after whoever else is on this thread.
        tokio::task::yield_now().await;
    }
}

/// Accepts all that wait: the system's queue of them is short, and what does not fit has to try again after a second.
fn accept_all(
    socket: &AsyncFd<std::net::TcpListener>,
    waiting: &mut VecDeque<(std::net::TcpStream, Peer, Place)>,
    listener: &Arc<Listener>,
    shared: &Arc<Shared>,
    threads: &Threads,
) -> Option<io::Error> {
    for _ in 0..ACCEPTS_AT_ONCE {
        match socket.try_io(Interest::READABLE, accept_one) {
            Ok((stream, address)) => {
                shared.counters.open();
                let peer = Peer::new(address, listener);
                match Place::take(shared, listener) {
                    Ok(place) => waiting.push_back((stream, peer, place)),
                    Err(limit) => refuse::refuse(stream, &peer, limit, shared, threads),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Some(error),
        }
    }
    None
}

/// Accepts a connection that does not block, and knows nothing of this thread's runtime yet.
fn accept_one(socket: &std::net::TcpListener) -> io::Result<(std::net::TcpStream, SocketAddr)> {
    loop {
        match acceptfrom_with(socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok((stream, address)) => {
                let address = address.and_then(|address| SocketAddr::try_from(address).ok());
                let address = address.ok_or_else(|| io::Error::other("the peer has no IP address"))?;
                return Ok((stream.into(), address));
            }
            // It was gone before its turn came.
            Err(Errno::CONNABORTED | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A connection's place among those there may be, given back however its task ends.
pub(super) struct Place {
    shared: Arc<Shared>,
    listener: Arc<Listener>,
}

impl Place {
    /// Takes one, or says why there is none.
    fn take(shared: &Arc<Shared>, listener: &Arc<Listener>) -> Result<Place, Limit> {
        if listener.rates.connections.as_ref().is_some_and(|rate| !rate.try_take()) {
            return Err(Limit::ConnectionRate);
        }
        let room = |now: usize| (now < listener.connections_max).then_some(now + 1);
        if listener.connections.fetch_update(Ordering::AcqRel, Ordering::Relaxed, room).is_err() {
            return Err(Limit::ListenerConnections);
        }
        if !shared.counters.enter(shared.options.connections_max) {
            listener.connections.fetch_sub(1, Ordering::AcqRel);
            return Err(Limit::Connections);
        }
        Ok(Place { shared: Arc::clone(shared), listener: Arc::clone(listener) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.counters.leave();
        self.listener.connections.fetch_sub(1, Ordering::AcqRel);
    }
}
