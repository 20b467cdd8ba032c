//! Clients that send a hub what no client should: valid MQTT sessions whose bytes were damaged on the way, and
//! connections that stall, break and end in every way a connection can. They come over TCP, TLS, WebSocket and behind a PROXY
//! protocol header, and what those layers write is damaged as well.
//!
//! # Layout
//! - this file: [`Mangler`], which opens such connections at a steady rate, and the [`Account`] of them
//! - `mischief` [`Mischief`]: what is done on one connection, and what the hub must do about it
//! - `traffic` valid sessions
//! - `damage` what becomes of their bytes
//! - `said` what the hub wrote
//! - `way` [`Way`], the layers that a connection is made over, and [`Doors`], the listeners for them
//! - `web` a WebSocket; `faulty` what damages a layer's bytes; `outgoing` what waits to be sent

mod damage;
mod faulty;
mod mischief;
mod outgoing;
mod said;
mod traffic;
mod way;
mod web;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

pub use mischief::Mischief;
pub use way::{Doors, Way};

/// Connections at a time; there is one more when one has ended.
const CONNECTIONS_MAX: usize = 400;

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Connection `n` of a seed is always the same.
    pub seed: u64,
    /// Connections per second.
    pub rate: u32,
    /// How long the hub waits for a CONNECT.
    pub connect_timeout: Duration,
}

/// What was done, and what the hub did.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Connections by what was done on them.
    pub connections: BTreeMap<Mischief, u64>,
    /// And by what they were made over.
    pub ways: BTreeMap<Way, u64>,
    /// Bytes sent.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
    /// CONNACK (2) and DISCONNECT (14) with a code that is no success: how many of each.
    pub refusals: BTreeMap<(u8, u8), u64>,
    /// Connections that the hub closed.
    pub closed: u64,
    /// Connections that could not be opened.
    pub unopened: u64,
}

impl Account {
    /// All connections.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.connections.values().sum()
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Account { connections, ways, sent, received, refusals, closed, unopened } = self;
        write!(f, "{} connections, {sent} bytes sent, {received} received; ", self.total())?;
        for (mischief, count) in connections {
            write!(f, "{mischief:?} {count}, ")?;
        }
        for (way, count) in ways {
            write!(f, "{way} {count}, ")?;
        }
        write!(f, "the hub closed {closed}, {unopened} could not be opened; codes")?;
        for ((kind, code), count) in refusals {
            let name = if *kind == 2 { "CONNACK" } else { "DISCONNECT" };
            write!(f, " {name} 0x{code:02X}: {count},")?;
        }
        Ok(())
    }
}

/// Running mischief.
pub struct Mangler {
    stop: watch::Sender<bool>,
    account: Arc<Mutex<Account>>,
    task: JoinHandle<()>,
}

impl Mangler {
    /// Begins.
    #[must_use]
    pub fn start(doors: Doors, plan: Plan) -> Mangler {
        let (stop, stopped) = watch::channel(false);
        let account = Arc::new(Mutex::new(Account::default()));
        let task = tokio::spawn(run(doors, plan, stopped, Arc::clone(&account)));
        Mangler { stop, account, task }
    }

    /// What was done so far.
    #[must_use]
    pub fn account(&self) -> Account {
        locked(&self.account).clone()
    }

    /// Ends it, and waits for its connections.
    ///
    /// # Panics
    /// When the hub did on one of them what it must not: with the seed and the number of the connection.
    pub async fn stop(self) -> Account {
        self.stop.send_replace(true);
        if let Err(error) = self.task.await {
            std::panic::resume_unwind(error.into_panic());
        }
        locked(&self.account).clone()
    }
}

fn locked(account: &Mutex<Account>) -> MutexGuard<'_, Account> {
    account.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn run(doors: Doors, plan: Plan, mut stopped: watch::Receiver<bool>, account: Arc<Mutex<Account>>) {
    let mut ticks = interval(Duration::from_secs(1) / plan.rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (mut running, mut number) = (JoinSet::new(), 0);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stopped.wait_for(|stopped| *stopped) => break,
        }
        let place = Arc::clone(&places).acquire_owned().await.expect("a semaphore that stays open");
        let (account, doors) = (Arc::clone(&account), doors.clone());
        running.spawn(async move {
            let done = mischief::connection(&doors, plan, number).await;
            done.add_to(&mut locked(&account));
            drop(place);
        });
        number += 1;
        while let Some(ended) = running.try_join_next() {
            ended.expect("mischief that the hub stands");
        }
    }
    while let Some(ended) = running.join_next().await {
        ended.expect("mischief that the hub stands");
    }
}
