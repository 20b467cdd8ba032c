//! [`ListenerLimits`]: the keys of `limits` of an entry of `mqtt.listeners`.

use serde::Deserialize;
use tidemill_rules::units;

use super::super::Options;

/// What holds for the connections of one listener. What is not said is what `mqtt` says for all.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerLimits {
    /// Its connections at a time; those of all listeners together are bounded by `mqtt.connections_max` as well.
    pub connections_max: Option<usize>,
    /// Connections that it accepts in a second.
    pub connection_rate: Option<u64>,
    /// Messages in a second from each client.
    pub client_messages_per_s: Option<u64>,
    /// Bytes in a second from each client.
    #[serde(deserialize_with = "units::size_option")]
    pub client_bytes_per_s: Option<u64>,
    /// Messages in a second from all of its clients together.
    pub listener_messages_per_s: Option<u64>,
    /// Bytes in a second from all of its clients together.
    #[serde(deserialize_with = "units::size_option")]
    pub listener_bytes_per_s: Option<u64>,
}

impl ListenerLimits {
    /// These, with what `options` say where these say nothing. (Connections of one listener have no bound of their own then.)
    pub(crate) fn or(&self, options: &Options) -> ListenerLimits {
        let or = |own: Option<u64>, all| Some(own.unwrap_or(all));
        ListenerLimits {
            connections_max: Some(self.connections_max.unwrap_or(usize::MAX)),
            connection_rate: or(self.connection_rate, options.connection_rate),
            client_messages_per_s: or(self.client_messages_per_s, options.client_messages_per_s),
            client_bytes_per_s: or(self.client_bytes_per_s, options.client_bytes_per_s),
            listener_messages_per_s: or(self.listener_messages_per_s, options.listener_messages_per_s),
            listener_bytes_per_s: or(self.listener_bytes_per_s, options.listener_bytes_per_s),
        }
    }

    /// Those that are set, by their keys.
    pub(crate) fn set(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let all = [
            ("connections_max", self.connections_max.map(|max| max as u64)),
            ("connection_rate", self.connection_rate),
            ("client_messages_per_s", self.client_messages_per_s),
            ("client_bytes_per_s", self.client_bytes_per_s),
            ("listener_messages_per_s", self.listener_messages_per_s),
            ("listener_bytes_per_s", self.listener_bytes_per_s),
        ];
        all.into_iter().filter_map(|(key, value)| value.map(|value| (key, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_listener_does_not_say_is_what_all_say() {
        let options = Options { client_messages_per_s: 5, client_bytes_per_s: 6, ..Options::default() };
        let own: ListenerLimits =
            serde_json::from_str(r#"{"client_bytes_per_s": "0B", "connections_max": 7}"#).unwrap();
        let whole = own.or(&options);
        assert_eq!((whole.client_messages_per_s, whole.client_bytes_per_s), (Some(5), Some(0)));
        assert_eq!((whole.connections_max, whole.connection_rate), (Some(7), Some(0)));
        assert_eq!(own.set().collect::<Vec<_>>(), [("connections_max", 7), ("client_bytes_per_s", 0)]);
        assert!(serde_json::from_str::<ListenerLimits>(r#"{"connections": 7}"#).is_err());
    }
}
