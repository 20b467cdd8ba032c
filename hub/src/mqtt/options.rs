//! [`Options`]: the keys of `mqtt:` in the configuration.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::Deserialize;
use tidemill_rules::units;

use super::listener::ListenerOptions;
use super::session::NEVER;

/// More network threads are surely not what was meant.
const THREADS_MAX: usize = 1024;

/// Bytes of a topic or filter, as of every string of MQTT (section 1.5.4).
const TOPIC_BYTES_MAX: usize = 65_535;

/// An option that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`mqtt.{key}` {what}")]
pub struct OptionError {
    /// The key below `mqtt:`.
    pub key: &'static str,
    /// Another key below `mqtt:` that it has to be larger than.
    pub above: Option<&'static str>,
    /// What is wrong with its value, as in `is 0`.
    pub what: String,
}

/// Everything about the broker that can be set. Sizes are written `1MiB`, durations `10s`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Where to listen for plain TCP, each with nothing of its own. Default: 127.0.0.1:1883, or nowhere if there are
    /// `listeners`. Port 0 takes any free one.
    pub listen: Vec<SocketAddr>,
    /// Further addresses, each with what holds for it. Default: none.
    pub listeners: Vec<ListenerOptions>,
    /// Whether clients may come in without saying who they are, where nobody could say it beyond loopback too. Default: no.
    pub allow_anonymous: bool,
    /// Network threads; a connection stays on one. 0, the default, is one for each core.
    pub threads: usize,
    /// Connections at a time; one more is refused with reason 0x97. Default: 100,000.
    pub connections_max: usize,
    /// Connections that each listener accepts in a second; one more is refused with reason 0x9F. Default: 0, which is no
    /// limit.
    pub connection_rate: u64,
    /// Time from accepting a connection to its whole CONNECT; then it is closed. Default: 10 s.
    #[serde(deserialize_with = "units::duration")]
    pub connect_timeout: Duration,
    /// Longest keep alive. A client that asks for more, or for none, is told this one in MQTT 5 and closed after one
    /// and a half times it; in 3.1.1, which cannot be told, its own word holds. Default: 0, which is no limit.
    #[serde(deserialize_with = "units::duration")]
    pub keep_alive_max: Duration,
    /// Largest packet from a client, its fixed header included, in bytes; over it the connection is closed with
    /// reason 0x95. Default: 1 MiB + 128 KiB.
    #[serde(deserialize_with = "units::size")]
    pub packet_bytes_max: u64,
    /// Largest payload from a client, in bytes; over it QoS 1 and 2 are refused with reason 0x97, QoS 0 closes with 0x95,
    /// 3.1.1 closes. Default: 1 MiB.
    #[serde(deserialize_with = "units::size")]
    pub payload_bytes_max: u64,
    /// Whether payloads that MQTT 5 clients say are text must be UTF-8; otherwise reason 0x99. Default: no.
    pub payload_format_check: bool,
    /// Most levels of a topic or filter; over it reason 0x90 or 0x8F. Default: 128.
    pub topic_levels_max: usize,
    /// Longest topic or filter in bytes; over it reason 0x90 or 0x8F. Default: 65,535, which is the protocol's own limit.
    pub topic_bytes_max: usize,
    /// Most subscriptions of a session; one more is refused with reason 0x97. Default: 1,000.
    pub subscriptions_per_session_max: usize,
    /// Most sessions that outlive their connection; a client that asks for one more is refused with reason 0x97. 0 is no
    /// limit. Default: 1,000,000.
    pub sessions_max: usize,
    /// Longest time a session lives on after its connection. A client that asks for more gets this; 3.1.1
    /// sessions that are not clean get it too. Default: 0, which is for ever.
    #[serde(deserialize_with = "units::duration")]
    pub session_expiry_max: Duration,
    /// QoS 1 and 2 messages from one client that may wait for their acknowledgement (Receive Maximum). MQTT 5 clients
    /// over it are closed with reason 0x93, 3.1.1 clients are not read. Default: 1,024.
    pub receive_maximum: u16,
    /// QoS 1 and 2 messages to one client that may wait for its acknowledgement, if the client does not set a lower
    /// number; the rest waits in the log. Default: 1,024.
    pub inflight_max: u16,
    /// Bytes to one client that may wait for its socket; over it, it gets no more and is not read. One
    /// message always fits. Default: 256 KiB.
    #[serde(deserialize_with = "units::size")]
    pub out_buffer_bytes_max: u64,
    /// Highest topic alias a client may use; 0 is none. Default: 64.
    pub topic_alias_max: u16,
    /// Topics that one client is sent by an alias, if it allows as many; 0 is none. Default: 64.
    pub topic_alias_out_max: u16,
    /// Messages in a second from each client; over it, it is not read until there is budget again. Default: 0, which
    /// is no limit, as of the three others.
    pub client_messages_per_s: u64,
    /// Bytes in a second from each client.
    #[serde(deserialize_with = "units::size")]
    pub client_bytes_per_s: u64,
    /// Messages in a second from all clients of a listener together.
    pub listener_messages_per_s: u64,
    /// Bytes in a second from all clients of a listener together.
    #[serde(deserialize_with = "units::size")]
    pub listener_bytes_per_s: u64,
    /// What comes in this time at one of these rates may come all at once. Default: 1 s.
    #[serde(deserialize_with = "units::duration")]
    pub rate_burst: Duration,
    /// What becomes of a connected client that is too far behind and does not catch up. Default: wait.
    pub lag_policy: LagPolicy,
    /// Messages of a subscription that may wait to be sent before it is too far behind. Default: 0, which is no limit.
    pub lag_messages_max: u64,
    /// Age of the oldest message of a subscription that waits to be sent before it is too far behind. Default: 0, which is
    /// no limit.
    #[serde(deserialize_with = "units::duration")]
    pub lag_time_max: Duration,
    /// How often the topics under `$SYS/` are published that somebody listens to. 0 is never. Default: 10 s.
    #[serde(deserialize_with = "units::duration")]
    pub sys_interval: Duration,
}

/// What becomes of a slow subscriber.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LagPolicy {
    /// Nothing: messages wait in the log.
    #[default]
    Wait,
    /// Its connection is closed with reason 0x97; its session stays.
    Disconnect,
    /// It gets the newest message next, and not those before it.
    Skip,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 1883))],
            listeners: Vec::new(),
            allow_anonymous: false,
            threads: 0,
            connections_max: 100_000,
            connection_rate: 0,
            connect_timeout: Duration::from_secs(10),
            keep_alive_max: Duration::ZERO,
            packet_bytes_max: (1 << 20) + (128 << 10),
            payload_bytes_max: 1 << 20,
            payload_format_check: false,
            topic_levels_max: 128,
            topic_bytes_max: TOPIC_BYTES_MAX,
            subscriptions_per_session_max: 1_000,
            sessions_max: 1_000_000,
            session_expiry_max: Duration::ZERO,
            receive_maximum: 1_024,
            inflight_max: 1_024,
            out_buffer_bytes_max: 256 << 10,
            topic_alias_max: 64,
            topic_alias_out_max: 64,
            client_messages_per_s: 0,
            client_bytes_per_s: 0,
            listener_messages_per_s: 0,
            listener_bytes_per_s: 0,
            rate_burst: Duration::from_secs(1),
            lag_policy: LagPolicy::Wait,
            lag_messages_max: 0,
            lag_time_max: Duration::ZERO,
            sys_interval: Duration::from_secs(10),
        }
    }
}

impl Options {
    /// Those of `listen`, then `listeners`.
    pub(crate) fn all_listeners(&self) -> Vec<ListenerOptions> {
        let plain = self.listen.iter().copied().map(ListenerOptions::plain);
        plain.chain(self.listeners.iter().cloned()).collect()
    }

    /// Network threads to start.
    pub(super) fn thread_count(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
    }

    /// The longest session expiry, in seconds.
    pub(super) fn session_expiry_max_s(&self) -> u32 {
        match u32::try_from(self.session_expiry_max.as_secs()) {
            Ok(0) | Err(_) => NEVER,
            Ok(seconds) => seconds,
        }
    }

    /// The keep alive to use in place of the one a client asks for, in seconds; `None` if that one will do.
    pub(super) fn keep_alive_instead_s(&self, asked_s: u16) -> Option<u16> {
        let max = match self.keep_alive_max.as_secs() {
            0 => return None,
            seconds => u16::try_from(seconds).unwrap_or(u16::MAX),
        };
        (asked_s == 0 || asked_s > max).then_some(max)
    }

    /// Says what cannot be.
    ///
    /// # Errors
    /// The first key whose value is of no use.
    pub(crate) fn check(&self) -> Result<(), OptionError> {
        self.wrong().into_iter().next().map_or(Ok(()), Err)
    }

    /// Every key whose value is of no use.
    pub(crate) fn wrong(&self) -> Vec<OptionError> {
        let mut wrong = Vec::new();
        let mut refuse = |key, what: String| wrong.push(OptionError { key, above: None, what });
        let listeners = self.all_listeners();
        if listeners.is_empty() {
            refuse("listen", "is empty; name at least one address".to_owned());
        }
        for (at, listener) in listeners.iter().enumerate().skip(self.listen.len()) {
            if let Err(error) = listener.check(listeners.get(..at).unwrap_or_default()) {
                refuse("listeners", format!("cannot be: {error}"));
            }
        }
        for (key, zero) in [
            ("connections_max", self.connections_max == 0),
            ("payload_bytes_max", self.payload_bytes_max == 0),
            ("subscriptions_per_session_max", self.subscriptions_per_session_max == 0),
            ("receive_maximum", self.receive_maximum == 0),
            ("inflight_max", self.inflight_max == 0),
            ("topic_levels_max", self.topic_levels_max == 0),
            ("topic_bytes_max", self.topic_bytes_max == 0),
            ("out_buffer_bytes_max", self.out_buffer_bytes_max == 0),
            ("connect_timeout", self.connect_timeout.is_zero()),
        ] {
            if zero {
                refuse(key, "is 0, which lets nothing through; leave it out for the default".to_owned());
            }
        }
        for (key, time) in
            [("keep_alive_max", self.keep_alive_max), ("session_expiry_max", self.session_expiry_max)]
        {
            if !time.is_zero() && time.as_secs() == 0 {
                let what =
                    format!("is {time:?}, and whole seconds count; write at least 1s, or 0s for no limit");
                refuse(key, what);
            }
        }
        if self.threads > THREADS_MAX {
            let what =
                format!("is {}; write at most {THREADS_MAX}, or 0 for one for each core", self.threads);
            refuse("threads", what);
        }
        if self.topic_bytes_max > TOPIC_BYTES_MAX {
            let what = format!("is {}, and MQTT allows {TOPIC_BYTES_MAX}", self.topic_bytes_max);
            refuse("topic_bytes_max", what);
        }
        if self.lag_policy != LagPolicy::Wait && !self.lag_is_bounded() {
            let what = "has nothing to go by; set `lag_messages_max`, `lag_time_max` or both";
            refuse("lag_policy", what.to_owned());
        }
        let (packet, payload) = (self.packet_bytes_max, self.payload_bytes_max);
        if u32::try_from(packet).is_err() {
            refuse("packet_bytes_max", format!("is {packet}, which is over 4 GiB"));
        }
        if packet <= payload {
            let what = format!(
                "is {packet}, and must be more than `payload_bytes_max` ({payload}): a packet also has a topic"
            );
            let above = Some("payload_bytes_max");
            wrong.push(OptionError { key: "packet_bytes_max", above, what });
        }
        wrong
    }

    /// A key that does nothing beside the others.
    pub(crate) fn idle(&self) -> Option<OptionError> {
        let key = if self.lag_messages_max > 0 { "lag_messages_max" } else { "lag_time_max" };
        let idle = self.lag_policy == LagPolicy::Wait && self.lag_is_bounded();
        let what = "does nothing with `lag_policy: wait`; choose `disconnect` or `skip`".to_owned();
        idle.then_some(OptionError { key, above: None, what })
    }

    fn lag_is_bounded(&self) -> bool {
        self.lag_messages_max > 0 || !self.lag_time_max.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_hold_together() {
        assert_eq!(Options::default().check(), Ok(()));
        assert_eq!(Options::default().session_expiry_max_s(), NEVER);
        assert!(Options::default().thread_count() > 0);
        let bad = Options { packet_bytes_max: 10, payload_bytes_max: 10, ..Options::default() };
        assert_eq!(bad.check().unwrap_err().key, "packet_bytes_max");
        let bad = Options { inflight_max: 0, ..Options::default() };
        let error = bad.check().unwrap_err().to_string();
        let what = "is 0, which lets nothing through; leave it out for the default";
        assert_eq!(error, format!("`mqtt.inflight_max` {what}"));
        let (short, long) = (Duration::from_millis(500), Duration::from_millis(1_500));
        let bad = Options {
            subscriptions_per_session_max: 0,
            keep_alive_max: short,
            session_expiry_max: short,
            threads: 5_000,
            ..Options::default()
        };
        let keys: Vec<&str> = bad.wrong().iter().map(|wrong| wrong.key).collect();
        assert_eq!(
            keys,
            ["subscriptions_per_session_max", "keep_alive_max", "session_expiry_max", "threads"],
            "all at once"
        );
        assert_eq!(Options { keep_alive_max: long, ..Options::default() }.check(), Ok(()));
    }

    #[test]
    fn a_bound_that_nobody_acts_on_is_told() {
        let idle = |options: Options| options.idle().map(|idle| idle.key);
        let bounded = |lag_policy| Options { lag_messages_max: 1, lag_policy, ..Options::default() };
        assert_eq!(idle(Options::default()), None);
        assert_eq!(idle(bounded(LagPolicy::Wait)), Some("lag_messages_max"));
        assert_eq!(idle(bounded(LagPolicy::Skip)), None);
    }

    #[test]
    fn keep_alive_is_replaced_only_over_the_limit() {
        assert_eq!(Options::default().keep_alive_instead_s(0), None);
        let limited = Options { keep_alive_max: Duration::from_secs(60), ..Options::default() };
        assert_eq!(limited.keep_alive_instead_s(60), None);
        assert_eq!(limited.keep_alive_instead_s(61), Some(60));
        assert_eq!(limited.keep_alive_instead_s(0), Some(60));
    }

    #[test]
    fn keys_are_written_with_units_and_checked() {
        let options: Options =
            serde_json::from_str(r#"{"payload_bytes_max": "64KiB", "connect_timeout": "3s"}"#).unwrap();
        assert_eq!((options.payload_bytes_max, options.connect_timeout), (65_536, Duration::from_secs(3)));
        let error = serde_json::from_str::<Options>(r#"{"payload_max": "1MiB"}"#).unwrap_err();
        assert!(error.to_string().contains("payload_max"), "{error}");
    }
}
