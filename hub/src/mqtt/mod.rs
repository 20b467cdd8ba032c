//! The MQTT broker: 3.1.1 and 5.0, on top of the store.
//!
//! A PUBLISH becomes a record, and is acknowledged when the store's receipt says it is durable. A subscription
//! is a cursor over the queue of its filter: a connection pulls from it as fast as its client takes, and a session
//! without a connection is nothing but a document and its cursors.
//!
//! # Layout
//! - [`access`]: who may connect, and who may do what
//! - [`codec`]: packets, without I/O
//! - [`session`]: protocol state, without I/O
//! - [`Options`]: what can be set
//! - `listener`: addresses, accepting, network threads
//! - `transport`: what bytes go through
//! - `peer`: who is at the other end
//! - `connection`: one client: handshake, packets, delivery, end
//! - [`ClientInfo`], [`ClientQuery`]: clients as people see them, and how they are sent away
//! - `limits`: what can be reached; rates
//! - `registry`: which client has a session, and who has the session
//! - `sessions`: sessions in the store: opened, written, ended
//! - `due`: wills and expiry when their time has come
//! - `share`: shared subscriptions
//! - `unwritten`: sessions that cannot be written for now
//! - `wills`: wills as messages; those that cannot be stored for now
//! - `accounts`: which QoS 2 messages in the log no session's document knows of
//! - `recovery`: sessions take their queues again before a listener opens
//! - `sys`: what the broker says of itself under `$SYS/`
//! - `guard`: parts that may fail with a panic
//! - `shared`, `stats`: what connections have in common; what is counted
//! - `told`: what may go wrong for many clients at once, told seldom
//! - `stamp`: what changes when a file does

pub mod access;
mod accounts;
mod clients;
pub mod codec;
mod connection;
mod due;
mod guard;
mod limits;
mod listener;
mod options;
mod peer;
mod recovery;
mod registry;
pub mod session;
mod sessions;
mod share;
mod shared;
mod stamp;
mod stats;
pub(crate) mod sys;
#[cfg(test)]
mod tests;
mod told;
pub(crate) mod transport;
mod unwritten;
mod wills;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidemill_store::{Store, StoreError};
use tokio::time::Instant;
use tracing::{error, info, warn};

pub use clients::{
    ClientInfo, ClientPage, ClientQuery, ClientState, ConnectionInfo, KickError, SessionInfo,
    SubscriptionInfo, Totals,
};
pub use limits::ListenerLimits;
pub(crate) use listener::share_port;
pub use listener::{ClientCertificate, ListenerError, ListenerOptions, Protocol, TlsOptions, TlsVersion};
pub use options::{LagPolicy, OptionError, Options};
pub use stats::BrokerStats;

use access::Access;
use listener::{Listener, Threads};
use shared::{Phase, Shared};

/// How often [`Broker::stop`] looks whether the connections are gone.
const STOP_POLL: Duration = Duration::from_millis(5);

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An option that cannot be.
    #[error(transparent)]
    Options(#[from] OptionError),
    /// A listener's certificates.
    #[error(transparent)]
    Listener(#[from] ListenerError),
    /// Sessions could not be recovered.
    #[error("recovering sessions: {0}")]
    Store(#[from] StoreError),
    /// What access control keeps in the store.
    #[error("access control: {0}")]
    Access(StoreError),
    /// A network thread could not be started.
    #[error(
        "cannot start {count} network threads: {error}; lower `mqtt.threads`, or leave it out for one for each core"
    )]
    Threads {
        /// How many there were to be.
        count: usize,
        /// What the system said.
        error: std::io::Error,
    },
    /// An address could not be listened on.
    #[error(
        "listener `{name}` cannot listen on {address}: {error}; choose another address with --mqtt, `mqtt.listen` or \
         `mqtt.listeners`"
    )]
    Listen {
        /// The listener's name.
        name: String,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
}

/// A running broker. Dropping it ends its threads and leaves connections where they are; [`Broker::stop`] ends
/// it in order.
pub struct Broker {
    shared: Arc<Shared>,
    threads: Arc<Threads>,
    listeners: Vec<Arc<Listener>>,
    addresses: Vec<SocketAddr>,
}

impl Broker {
    /// Recovers the sessions, lets the store delete queues nobody wants any more, and opens the listeners.
    ///
    /// # Errors
    /// An option cannot be, the store fails, or an address cannot be listened on. Nothing is left running.
    pub async fn start(options: Options, mut access: Access, store: Store) -> Result<Broker, StartError> {
        options.check()?;
        let mut listeners = Vec::new();
        for listener in options.all_listeners() {
            // Bound first, so that a taken address is known at once; accepting begins last.
            listeners.push(Listener::bind(listener, &options)?);
        }
        let count = options.thread_count();
        let threads = Threads::start(count).map_err(|error| StartError::Threads { count, error })?;
        let threads = Arc::new(threads);
        access.settle(&store).await.map_err(StartError::Access)?;
        let shared = Shared::new(options, access, store);
        let addresses = listeners.iter().map(|(_, listener)| listener.address).collect();
        let (sockets, listeners): (Vec<_>, Vec<_>) = listeners.into_iter().unzip();
        let broker = Broker { shared, threads, listeners, addresses };
        let Broker { shared, threads, .. } = &broker;
        recovery::recover(shared).await?;
        if let Some(runtime) = threads.next() {
            runtime.spawn(due::watch(Arc::clone(shared)));
            runtime.spawn(listener::watch(broker.listeners.clone()));
            runtime.spawn(accounts::watch(Arc::clone(shared)));
            runtime.spawn(unwritten::watch(Arc::clone(shared)));
            runtime.spawn(wills::watch(Arc::clone(shared)));
            runtime.spawn(sys::run(Arc::clone(shared)));
        }
        if let Some(runtime) = threads.next() {
            runtime.spawn(access::watch_files(Arc::clone(shared)));
            runtime.spawn(access::watch_keys(Arc::clone(shared)));
        }
        for (socket, listener) in sockets.into_iter().zip(broker.listeners.iter().cloned()) {
            if let Some(runtime) = threads.next() {
                info!(listener = listener.options.name, address = %listener.address, "MQTT listening");
                runtime.spawn(listener::accept(socket, listener, Arc::clone(shared), Arc::clone(threads)));
            }
        }
        Ok(broker)
    }

    /// Puts other sources of authentication and other rules to work. Every connection looks again at what it may do.
    pub fn replace_access(&self, mut access: Access) {
        access.follow(&self.shared.access.load());
        self.shared.access.store(Arc::new(access));
        self.shared.registry.review_all();
    }

    /// Whether `options` have the listeners that are open. What is asked of clients was checked beside the addresses in
    /// `options`: beside others it may let in whoever comes.
    ///
    /// # Errors
    /// A listener is another, is new, or is not there any more.
    pub fn check_listeners(&self, options: &Options) -> Result<(), ListenerError> {
        let open: Vec<&ListenerOptions> = self.listeners.iter().map(|listener| &listener.options).collect();
        listener::check_same(&open, &options.all_listeners())
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Reads the certificates of its listeners again, from the files that `options` name for them. Bad ones change nothing,
    /// and are told in the log.
    pub fn reload_certificates(&self, options: &Options) {
        for listener in &self.listeners {
            let named = |new: &&ListenerOptions| new.name == listener.options.name;
            if let Some(new) = options.listeners.iter().find(named) {
                listener.reload(new);
            }
        }
    }

    /// What it has counted, and what there is now.
    #[must_use]
    pub fn stats(&self) -> BrokerStats {
        self.shared.counters.stats(self.shared.registry.len())
    }

    /// Takes no more connections, and lets those there are go: what they sent is acknowledged, MQTT 5 clients are told
    /// why (0x8B), sessions are written down.
    pub fn drain(&self) {
        self.shared.phase.send_replace(Phase::Draining);
        self.shared.registry.ring_all();
    }

    /// [`Broker::drain`], then waits until all connections are gone, at most `patience`, and ends the threads.
    pub async fn stop(&self, patience: Duration) {
        self.drain();
        let deadline = Instant::now() + patience;
        while self.shared.counters.connections() > 0 && Instant::now() < deadline {
            tokio::time::sleep(STOP_POLL).await;
        }
        let left = self.shared.counters.connections();
        if left > 0 {
            warn!(connections = left, "connections did not end in time; they are cut");
        }
        // Those that could not be stored are told of next.
        let _ = wills::store_waiting(&self.shared).await;
        let wills = self.shared.wills.len();
        if wills > 0 {
            error!(wills, "wills could not be stored, and are lost");
        }
        unwritten::write_all(&self.shared, deadline).await;
        let unwritten = self.shared.unwritten.len();
        if unwritten > 0 {
            error!(
                sessions = unwritten,
                "sessions cannot be written; after the start they are as they were written last"
            );
        }
        if let Err(error) = self.shared.accounts.keep(&self.shared.store, None).await {
            warn!(%error, "how far sessions are written could not be; the next start looks at more of the log");
        }
        self.threads.stop().await;
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // The threads' own tasks hold them, so that they would not go by themselves.
        self.threads.cancel();
    }
}
