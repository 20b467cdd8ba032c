//! [`Shared`]: what all connections of a broker have in common.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tidemill_store::Store;
use tokio::sync::{Notify, Semaphore, watch};

use super::Options;
use super::access::Access;
use super::accounts::Accounts;
use super::due::Schedule;
use super::registry::Registry;
use super::share::Groups;
use super::stats::Counters;
use super::unwritten::Unwritten;
use super::wills;

/// Connections that are told at a time that there is no room for them; further ones are closed without a word.
const REFUSALS_AT_ONCE: usize = 256;

/// Where a broker is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It takes connections.
    Running,
    /// It lets them go.
    Draining,
}

/// See the module's text.
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) store: Store,
    pub(super) registry: Registry,
    /// What is due for sessions without a connection.
    pub(super) due: Schedule,
    pub(super) groups: Groups,
    pub(super) accounts: Accounts,
    pub(super) unwritten: Unwritten,
    pub(super) wills: wills::Waiting,
    pub(super) counters: Counters,
    pub(super) access: ArcSwap<Access>,
    pub(super) phase: watch::Sender<Phase>,
    /// Rung when somebody subscribes to topics of the broker's own.
    pub(super) sys_wanted: Notify,
    /// One permit for each connection that is being told that there is no room for it.
    pub(super) refusals: Arc<Semaphore>,
}

impl Shared {
    /// Whether connections are to go.
    pub(super) fn is_draining(&self) -> bool {
        *self.phase.borrow() == Phase::Draining
    }

    pub(super) fn new(options: Options, access: Access, store: Store) -> Arc<Shared> {
        Arc::new(Shared {
            options,
            store,
            registry: Registry::new(),
            due: Schedule::default(),
            groups: Groups::default(),
            accounts: Accounts::default(),
            unwritten: Unwritten::default(),
            wills: wills::Waiting::default(),
            counters: Counters::new(),
            access: ArcSwap::from_pointee(access),
            phase: watch::Sender::new(Phase::Running),
            sys_wanted: Notify::new(),
            refusals: Arc::new(Semaphore::new(REFUSALS_AT_ONCE)),
        })
    }
}

/// Now, in milliseconds since the Unix epoch.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
