//! [`Peer`]: who is at the other end of a connection.

use std::net::SocketAddr;
use std::sync::Arc;

use super::listener::Listener;

/// Where a connection comes from, and what holds for it.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// Its address.
    pub(super) address: SocketAddr,
    /// The listener it came to, and that one's policy.
    pub(super) listener: Arc<Listener>,
}

impl Peer {
    /// A peer that has shown its address, and nothing else.
    pub(super) fn new(address: SocketAddr, listener: &Arc<Listener>) -> Self {
        Peer { address, listener: Arc::clone(listener) }
    }
}
