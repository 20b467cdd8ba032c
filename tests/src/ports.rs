//! Free loopback ports for servers that must be found again after a restart.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Mutex;

use rand::Rng;

/// Below Linux's range for outgoing connections (32768 and up), for two reasons: a client that connects while the
/// server is down could be given the server's own port, and would then be connected to itself; and any
/// other client could hold the port when the server wants it back.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// Ports handed out by this process.
static TAKEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());

/// A port of 127.0.0.1 that nobody listens on and this process has not handed out before.
///
/// # Panics
/// When none is found.
#[must_use]
pub fn free() -> u16 {
    let mut taken = TAKEN.lock().expect("no panic while locked");
    for _ in 0..1000 {
        let port = rand::rng().random_range(RANGE);
        if !taken.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            taken.push(port);
            return port;
        }
    }
    panic!("no free port in {RANGE:?}")
}

/// 127.0.0.1 with a port of [`free`].
#[must_use]
pub fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free()))
}
