//! [`limits`]: every bound that a configuration sets, for `/metrics`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::Config;

/// Bounds by their names in the configuration. Bytes, seconds, or a number of things. Cheap to clone.
pub type Limits = Arc<[(String, f64)]>;

/// Names of the bounds that differ, in order.
#[must_use]
pub fn differing(now: &Limits, then: &Limits) -> Vec<String> {
    let of = |limits: &Limits| limits.iter().cloned().collect::<BTreeMap<String, f64>>();
    let (now, then) = (of(now), of(then));
    let names: BTreeSet<&String> = now.keys().chain(then.keys()).collect();
    names.into_iter().filter(|name| now.get(*name) != then.get(*name)).cloned().collect()
}

/// The bounds of a configuration. 0 for a time or a rate of `mqtt`, and for a retention, is no bound.
#[must_use]
pub fn limits(config: &Config) -> Limits {
    let (log, mqtt, http) = (&config.store, &config.mqtt, &config.http);
    let of_streams = log.streams.iter().flat_map(|stream| {
        let retention = stream.retention;
        let bound = |what, limit| (format!("streams.{}.retention.{what}", stream.name), limit);
        [
            bound("time", retention.time.unwrap_or_default().as_secs_f64()),
            bound("bytes", retention.bytes.unwrap_or_default() as f64),
        ]
    });
    let of_listeners = mqtt.listeners.iter().flat_map(|listener| {
        let bound = |(key, limit)| (format!("mqtt.listeners.{}.limits.{key}", listener.name), limit as f64);
        listener.limits.set().map(bound)
    });
    let others = [
        ("log.segment_bytes", log.segment_bytes as f64),
        ("log.tail_cache_bytes", log.tail_cache_bytes as f64),
        ("log.append_queue_bytes", log.append_queue_bytes as f64),
        ("log.index_buffer_bytes", log.index_buffer_bytes as f64),
        ("log.index_cache_bytes", log.index_cache_bytes as f64),
        ("log.live_queues_bytes", log.live_queues_bytes as f64),
        ("log.queue_ttl", log.queue_ttl.as_secs_f64()),
        ("log.retention.time", log.retention.time.unwrap_or_default().as_secs_f64()),
        ("log.retention.bytes", log.retention.bytes.unwrap_or_default() as f64),
        ("log.record_bytes_max", f64::from(log.record_bytes_max)),
        ("log.checkpoint_interval", log.checkpoint_interval.as_secs_f64()),
        ("log.async_flush_interval", log.async_flush_interval.as_secs_f64()),
        ("log.retention_interval", log.retention_interval.as_secs_f64()),
        ("mqtt.connections_max", mqtt.connections_max as f64),
        ("mqtt.connection_rate", mqtt.connection_rate as f64),
        ("mqtt.connect_timeout", mqtt.connect_timeout.as_secs_f64()),
        ("mqtt.keep_alive_max", mqtt.keep_alive_max.as_secs_f64()),
        ("mqtt.packet_bytes_max", mqtt.packet_bytes_max as f64),
        ("mqtt.payload_bytes_max", mqtt.payload_bytes_max as f64),
        ("mqtt.topic_levels_max", mqtt.topic_levels_max as f64),
        ("mqtt.topic_bytes_max", mqtt.topic_bytes_max as f64),
        ("mqtt.subscriptions_per_session_max", mqtt.subscriptions_per_session_max as f64),
        ("mqtt.sessions_max", mqtt.sessions_max as f64),
        ("mqtt.session_expiry_max", mqtt.session_expiry_max.as_secs_f64()),
        ("mqtt.receive_maximum", f64::from(mqtt.receive_maximum)),
        ("mqtt.inflight_max", f64::from(mqtt.inflight_max)),
        ("mqtt.out_buffer_bytes_max", mqtt.out_buffer_bytes_max as f64),
        ("mqtt.topic_alias_max", f64::from(mqtt.topic_alias_max)),
        ("mqtt.topic_alias_out_max", f64::from(mqtt.topic_alias_out_max)),
        ("mqtt.client_messages_per_s", mqtt.client_messages_per_s as f64),
        ("mqtt.client_bytes_per_s", mqtt.client_bytes_per_s as f64),
        ("mqtt.listener_messages_per_s", mqtt.listener_messages_per_s as f64),
        ("mqtt.listener_bytes_per_s", mqtt.listener_bytes_per_s as f64),
        ("mqtt.rate_burst", mqtt.rate_burst.as_secs_f64()),
        ("mqtt.lag_messages_max", mqtt.lag_messages_max as f64),
        ("mqtt.lag_time_max", mqtt.lag_time_max.as_secs_f64()),
        ("http.connections_max", http.connections_max as f64),
        ("http.tails_max", http.tails_max as f64),
    ];
    others
        .into_iter()
        .map(|(name, limit)| (name.to_owned(), limit))
        .chain(of_streams)
        .chain(of_listeners)
        .collect()
}
