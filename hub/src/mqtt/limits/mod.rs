//! Limits: which there are, for those who count how often each is reached; and how fast connections, messages and bytes
//! may come.
//!
//! A rate never drops or refuses a message: whoever is over it is not read until there is budget again, and TCP slows
//! them down.
//!
//! # Layout
//! - this file: [`Limit`]
//! - `bucket`: a rate with a burst
//! - `options`: the keys of a listener's `limits`
//! - `rates`: the buckets of a listener, and of one of its connections

mod bucket;
mod options;
mod rates;

pub use options::ListenerLimits;
pub(super) use rates::{ListenerRates, Rates};

macro_rules! limits {
    ($($name:ident = $key:literal;)*) => {
        /// Something with a bound that a client can reach.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Limit {
            $(#[doc = concat!("`", $key, "`")] $name,)*
        }

        impl Limit {
            /// All of them, in order.
            pub(super) const ALL: &[Limit] = &[$(Limit::$name,)*];

            /// Its key in the configuration, which is its name in `/metrics`.
            pub(super) fn key(self) -> &'static str {
                match self {
                    $(Limit::$name => $key,)*
                }
            }
        }
    };
}

limits! {
    Connections = "mqtt.connections_max";
    ListenerConnections = "mqtt.listeners.limits.connections_max";
    ConnectionRate = "mqtt.connection_rate";
    ConnectTimeout = "mqtt.connect_timeout";
    KeepAlive = "mqtt.keep_alive_max";
    PacketBytes = "mqtt.packet_bytes_max";
    PayloadBytes = "mqtt.payload_bytes_max";
    TopicLevels = "mqtt.topic_levels_max";
    TopicBytes = "mqtt.topic_bytes_max";
    Subscriptions = "mqtt.subscriptions_per_session_max";
    Sessions = "mqtt.sessions_max";
    SessionExpiry = "mqtt.session_expiry_max";
    ReceiveMaximum = "mqtt.receive_maximum";
    InFlight = "mqtt.inflight_max";
    OutBuffer = "mqtt.out_buffer_bytes_max";
    TopicAlias = "mqtt.topic_alias_max";
    ClientMessages = "mqtt.client_messages_per_s";
    ClientBytes = "mqtt.client_bytes_per_s";
    ListenerMessages = "mqtt.listener_messages_per_s";
    ListenerBytes = "mqtt.listener_bytes_per_s";
    LagMessages = "mqtt.lag_messages_max";
    LagTime = "mqtt.lag_time_max";
}
