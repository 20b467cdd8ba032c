//! What the broker counts: [`BrokerStats`] for callers, `tidemill_mqtt_*` for Prometheus.
//!
//! A connection counts into its own [`Tally`] and adds it once a turn, not once a message.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use metrics::{Counter, Gauge};

use super::codec::ReasonCode;
use super::limits::Limit;

macro_rules! tallied {
    ($($(#[$doc:meta])* $name:ident: $count:ty, $text:literal;)*) => {
        /// What one connection counted since it last told, at the end of its turn: what a turn bounds is small.
        #[derive(Debug, Default)]
        pub(super) struct Tally {
            $($(#[$doc])* pub(super) $name: $count,)*
        }

        /// What the broker counts.
        pub(super) struct Counters {
            $($name: (AtomicU64, Counter),)*
            refused: AtomicU64,
            connections: AtomicUsize,
            connections_gauge: Gauge,
            /// Persistent sessions.
            sessions: AtomicUsize,
            /// How often each limit was reached.
            reached: Box<[Counter]>,
            lag_skipped: (AtomicU64, Counter),
            /// Connections opened, whatever became of them.
            opened: (AtomicU64, Counter),
            /// The most connections there were.
            connections_most: AtomicUsize,
            /// Persistent sessions that have expired.
            sessions_expired: AtomicU64,
            /// Subscriptions of all sessions.
            subscriptions: AtomicUsize,
        }

        impl Counters {
            pub(super) fn new() -> Self {
                $(metrics::describe_counter!(concat!("tidemill_mqtt_", stringify!($name), "_total"), $text);)*
                metrics::describe_counter!(
                    "tidemill_mqtt_refused_total",
                    "Packets, connections and subscriptions refused, by reason"
                );
                metrics::describe_gauge!("tidemill_mqtt_connections", "Connections open");
                metrics::describe_counter!(
                    "tidemill_mqtt_limit_reached_total",
                    "How often a limit was reached, by its name in the configuration"
                );
                metrics::describe_counter!(
                    "tidemill_mqtt_lag_skipped_total",
                    "Messages that slow subscribers did not get because lag_policy is skip"
                );
                metrics::describe_counter!(
                    "tidemill_mqtt_opened_total",
                    "Connections opened, refused ones included"
                );
                let reached = Limit::ALL.iter();
                Counters {
                    sessions: AtomicUsize::new(0),
                    reached: reached
                        .map(|limit| metrics::counter!("tidemill_mqtt_limit_reached_total", "limit" => limit.key()))
                        .collect(),
                    lag_skipped: (AtomicU64::new(0), metrics::counter!("tidemill_mqtt_lag_skipped_total")),
                    opened: (AtomicU64::new(0), metrics::counter!("tidemill_mqtt_opened_total")),
                    connections_most: AtomicUsize::new(0),
                    sessions_expired: AtomicU64::new(0),
                    subscriptions: AtomicUsize::new(0),
                    $($name: (
                        AtomicU64::new(0),
                        metrics::counter!(concat!("tidemill_mqtt_", stringify!($name), "_total")),
                    ),)*
                    refused: AtomicU64::new(0),
                    connections: AtomicUsize::new(0),
                    connections_gauge: metrics::gauge!("tidemill_mqtt_connections"),
                }
            }

            /// Adds a tally and empties it.
            pub(super) fn add(&self, tally: &mut Tally) {
                $(if tally.$name > 0 {
                    let count = u64::from(tally.$name);
                    self.$name.0.fetch_add(count, Ordering::Relaxed);
                    self.$name.1.increment(count);
                })*
                *tally = Tally::default();
            }
        }

        /// Numbers of a broker since it started; connections and sessions as they are now.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct BrokerStats {
            /// Connections open now.
            pub connections: u64,
            /// Sessions now, those without a connection included.
            pub sessions: u64,
            /// Sessions that outlive their connection.
            pub persistent_sessions: u64,
            /// Such sessions that have expired.
            pub sessions_expired: u64,
            /// Connections opened, whatever became of them.
            pub opened: u64,
            /// The most connections there were at a time.
            pub connections_most: u64,
            /// Subscriptions now, those of sessions without a connection included.
            pub subscriptions: u64,
            /// Messages that slow subscribers did not get because of `lag_policy`.
            pub lag_skipped: u64,
            /// Packets, connections and subscriptions refused.
            pub refused: u64,
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            pub(super) fn stats(&self, sessions: usize) -> BrokerStats {
                BrokerStats {
                    connections: self.connections.load(Ordering::Relaxed) as u64,
                    sessions: sessions as u64,
                    persistent_sessions: self.sessions.load(Ordering::Relaxed) as u64,
                    sessions_expired: self.sessions_expired.load(Ordering::Relaxed),
                    opened: self.opened.0.load(Ordering::Relaxed),
                    connections_most: self.connections_most.load(Ordering::Relaxed) as u64,
                    subscriptions: self.subscriptions.load(Ordering::Relaxed) as u64,
                    lag_skipped: self.lag_skipped.0.load(Ordering::Relaxed),
                    refused: self.refused.load(Ordering::Relaxed),
                    $($name: self.$name.0.load(Ordering::Relaxed),)*
                }
            }
        }
    };
}

tallied! {
    /// Connections accepted with a CONNACK.
    accepted: u32, "Connections accepted with a CONNACK";
    /// Messages from clients that were stored.
    published: u64, "Messages from clients that were stored";
    /// Bytes of the payloads of messages from clients that were stored.
    published_bytes: u64, "Bytes of the payloads of messages from clients that were stored";
    /// Messages written to clients, repeated ones included.
    delivered: u32, "Messages written to clients, repeated ones included";
    /// Bytes of the payloads of messages written to clients, repeated ones included.
    delivered_bytes: u64, "Bytes of the payloads of messages written to clients, repeated ones included";
    /// Messages written to clients again.
    resent: u32, "Messages written to clients again";
    /// Messages not delivered because they had expired.
    expired: u32, "Messages not delivered because they had expired";
    /// Messages not delivered because they are larger than the client accepts.
    oversized: u32, "Messages not delivered because they are larger than the client accepts";
    /// Messages not delivered because their record cannot be read.
    unreadable: u32, "Messages not delivered because their record cannot be read";
    /// Messages not delivered because retention had deleted them, or a queue in memory had forgotten them.
    skipped: u64, "Messages not delivered because retention had deleted them, or a queue in memory had forgotten them";
    /// Packets from clients.
    packets_in: u32, "Packets from clients";
    /// Packets to clients.
    packets_out: u32, "Packets to clients";
    /// Bytes from clients.
    bytes_in: u64, "Bytes from clients";
    /// Bytes to clients.
    bytes_out: u64, "Bytes to clients";
}

impl BrokerStats {
    /// Messages that were not delivered to somebody who subscribes to them, whyever.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.expired + self.oversized + self.unreadable + self.skipped + self.lag_skipped
    }
}

impl Counters {
    /// Counts a refusal.
    pub(super) fn refuse(&self, reason: ReasonCode) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("tidemill_mqtt_refused_total", "reason" => reason.name()).increment(1);
    }

    /// Counts that a limit was reached.
    pub(super) fn reached(&self, limit: Limit) {
        if let Some(counter) = self.reached.get(limit as usize) {
            counter.increment(1);
        }
    }

    /// Counts messages that a slow subscriber does not get.
    pub(super) fn lag_skip(&self, messages: u64) {
        self.lag_skipped.0.fetch_add(messages, Ordering::Relaxed);
        self.lag_skipped.1.increment(messages);
    }

    /// Subscriptions came into being, or were found.
    pub(super) fn subscribed(&self, count: usize) {
        self.subscriptions.fetch_add(count, Ordering::Relaxed);
    }

    /// A subscription has ended.
    pub(super) fn unsubscribed(&self) {
        self.subscriptions.fetch_sub(1, Ordering::Relaxed);
    }

    /// A session has expired.
    pub(super) fn expire_session(&self) {
        self.sessions_expired.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes the place of one persistent session, if there is one within `max`; 0 is no bound.
    pub(super) fn keep_session(&self, max: usize) -> bool {
        let room = |now: usize| (max == 0 || now < max).then_some(now + 1);
        self.sessions.fetch_update(Ordering::AcqRel, Ordering::Relaxed, room).is_ok()
    }

    /// Gives the place of a persistent session back.
    pub(super) fn forget_session(&self) {
        self.sessions.fetch_sub(1, Ordering::AcqRel);
    }

    /// A connection was opened.
    pub(super) fn open(&self) {
        self.opened.0.fetch_add(1, Ordering::Relaxed);
        self.opened.1.increment(1);
    }

    /// Takes the place of one connection, if there is one within `max`.
    pub(super) fn enter(&self, max: usize) -> bool {
        let entered = self
            .connections
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |now| (now < max).then_some(now + 1));
        if let Ok(before) = entered {
            self.connections_most.fetch_max(before + 1, Ordering::Relaxed);
            self.connections_gauge.increment(1.0);
        }
        entered.is_ok()
    }

    /// Gives a place back.
    pub(super) fn leave(&self) {
        self.connections.fetch_sub(1, Ordering::AcqRel);
        self.connections_gauge.decrement(1.0);
    }

    /// Connections open now.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }
}
