//! `/metrics` for Prometheus: `tidemill_<room>_<what>_<unit>`.
//!
//! What has a state of its own (store, rules, targets) is collected by the scrape into a fresh recorder, so series of
//! rules and targets that are gone do not linger. What is counted as it happens (MQTT) comes from the process's
//! recorder.

use axum::extract;
use axum::http::header;
use axum::response::IntoResponse;
use metrics::{counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::PrometheusBuilder;
use tidemill_store::{ShardInfo, StoreError};

use super::{State, health};
use crate::delivery::State as TargetState;
use crate::memory::Memory;
use crate::telemetry;

/// All numbers in Prometheus' text format.
pub(super) async fn scrape(extract::State(state): extract::State<State>) -> impl IntoResponse {
    let shards = state.store.shards().await.unwrap_or_else(|error| {
        tracing::warn!(%error, "metrics go without the shards of the log");
        Vec::new()
    });
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        describe();
        hub(&state);
        store(&state);
        log_shards(&shards);
        mqtt(&state);
        bounds(&state);
        router(&state);
        delivery(&state);
    });
    let mut text = handle.render();
    if let Some(counted) = telemetry::recorder() {
        text.push_str(&counted.render());
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

fn describe() {
    describe_gauge!("tidemill_hub_info", "Always 1; the label says which version runs.");
    describe_gauge!("tidemill_hub_uptime_seconds", "Seconds since the hub started.");
    describe_gauge!("tidemill_hub_ready", "1 when /readyz says ready.");
    describe_counter!("tidemill_store_records_total", "Records appended to the log.");
    describe_counter!("tidemill_store_bytes_total", "Bytes appended to the log.");
    describe_counter!("tidemill_store_batches_total", "Batches written to the log.");
    describe_counter!("tidemill_store_syncs_total", "fdatasync calls on the log.");
    describe_counter!("tidemill_store_entries_total", "Index entries assigned to queues.");
    describe_counter!("tidemill_store_deleted_segments_total", "Segments of the log that retention deleted.");
    describe_counter!("tidemill_store_deleted_bytes_total", "Bytes of the log that retention deleted.");
    describe_counter!(
        "tidemill_store_retained_kept_total",
        "Retained messages written again because retention deleted their segment."
    );
    describe_gauge!("tidemill_store_log_bytes", "Bytes of the log on disk.");
    describe_gauge!("tidemill_store_shard_log_bytes", "Bytes of one shard of the log on disk.");
    describe_gauge!("tidemill_store_shard_segments", "Files of one shard of the log.");
    describe_gauge!(
        "tidemill_store_shard_oldest_timestamp_seconds",
        "When the oldest record of a shard was written, in Unix time; a shard without records has none."
    );
    describe_gauge!(
        "tidemill_store_shard_undurable_bytes",
        "Bytes of a shard that a power cut could still take."
    );
    describe_gauge!("tidemill_store_queues", "Queues in the catalogue.");
    describe_gauge!("tidemill_store_append_queue_bytes", "Bytes of records waiting for the log writer.");
    describe_gauge!("tidemill_store_index_buffer_bytes", "Bytes of index entries waiting for RocksDB.");
    describe_gauge!(
        "tidemill_store_live_queues_bytes",
        "Bytes of entries of queues that are in memory only."
    );
    describe_gauge!(
        "tidemill_store_full",
        "1 when a full disk stops new records: free space, and they are taken again."
    );
    describe_gauge!(
        "tidemill_store_poisoned",
        "1 when a failed fsync or index stops new records: the hub needs a restart."
    );
    describe_gauge!("tidemill_store_redispatched_records", "Records indexed anew when the store was opened.");
    describe_gauge!("tidemill_store_torn_bytes", "Bytes cut from a torn tail when the store was opened.");
    describe_gauge!(
        "tidemill_limit",
        "A bound by its name in the configuration, in bytes, seconds or things; 0 of a retention, and of a time, a rate, a lag or the sessions of mqtt, is no bound."
    );
    describe_gauge!("tidemill_http_tails", "Requests for records that are running.");
    describe_gauge!("process_resident_memory_bytes", "Resident memory size in bytes.");
    describe_gauge!("tidemill_mqtt_sessions", "Sessions, those without a connection included.");
    describe_gauge!("tidemill_mqtt_persistent_sessions", "Sessions that outlive their connection.");
    describe_counter!("tidemill_router_records_total", "Records looked at since the rules were loaded.");
    describe_counter!(
        "tidemill_router_not_json_total",
        "Records that are not JSON though a rule looks into them."
    );
    describe_counter!(
        "tidemill_router_undecodable_total",
        "Records whose properties this version cannot read."
    );
    describe_counter!(
        "tidemill_router_skipped_total",
        "Records that retention deleted before the router came to them."
    );
    describe_counter!(
        "tidemill_router_matched_total",
        "Records that a rule matched since the rules were loaded."
    );
    describe_gauge!(
        "tidemill_router_stalled",
        "1 when the router is not getting on; /api/v1/rules says why."
    );
    describe_gauge!("tidemill_router_lag_entries", "Records that the router has still to look at.");
    describe_counter!("tidemill_delivery_delivered_total", "Events confirmed since the rules were loaded.");
    describe_counter!("tidemill_delivery_retries_total", "Events sent again since the rules were loaded.");
    describe_counter!(
        "tidemill_delivery_skipped_total",
        "Records that retention deleted before the target had them."
    );
    describe_gauge!("tidemill_delivery_dead_letters", "Dead letters of the target.");
    describe_gauge!(
        "tidemill_delivery_lag_entries",
        "Entries of the rule's queue that the target has not done."
    );
    describe_gauge!(
        "tidemill_delivery_oldest_age_seconds",
        "Age of the oldest record in flight that is not done."
    );
    describe_gauge!(
        "tidemill_delivery_state",
        "0 running, 1 retrying, 2 stopped until a person changes something."
    );
}

fn hub(state: &State) {
    gauge!("tidemill_hub_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!("tidemill_hub_uptime_seconds").set(state.started.elapsed().as_secs_f64());
    gauge!("tidemill_hub_ready").set(if health::reason(state).is_none() { 1.0 } else { 0.0 });
}

fn store(state: &State) {
    let stats = state.store.stats();
    counter!("tidemill_store_records_total").absolute(stats.records);
    counter!("tidemill_store_bytes_total").absolute(stats.bytes);
    counter!("tidemill_store_batches_total").absolute(stats.batches);
    counter!("tidemill_store_syncs_total").absolute(stats.syncs);
    counter!("tidemill_store_entries_total").absolute(stats.entries);
    counter!("tidemill_store_deleted_segments_total").absolute(stats.deleted_segments);
    counter!("tidemill_store_deleted_bytes_total").absolute(stats.deleted_bytes);
    counter!("tidemill_store_retained_kept_total").absolute(stats.retained_kept);
    gauge!("tidemill_store_log_bytes").set(stats.log_bytes as f64);
    gauge!("tidemill_store_queues").set(stats.queues as f64);
    gauge!("tidemill_store_append_queue_bytes").set(stats.append_queue_bytes as f64);
    gauge!("tidemill_store_index_buffer_bytes").set(stats.index_buffer_bytes as f64);
    gauge!("tidemill_store_live_queues_bytes").set(stats.live_queues_bytes as f64);
    let fault = state.store.fault();
    let is_full = matches!(fault, Some(StoreError::Full { .. }));
    gauge!("tidemill_store_full").set(f64::from(u8::from(is_full)));
    gauge!("tidemill_store_poisoned").set(f64::from(u8::from(fault.is_some() && !is_full)));
    gauge!("tidemill_store_redispatched_records").set(stats.redispatched as f64);
    gauge!("tidemill_store_torn_bytes").set(stats.torn_bytes as f64);
}

fn log_shards(shards: &[ShardInfo]) {
    for shard in shards {
        let label = [("shard", shard.shard.to_string())];
        gauge!("tidemill_store_shard_log_bytes", &label).set(shard.log_bytes as f64);
        gauge!("tidemill_store_shard_segments", &label).set(shard.segments as f64);
        gauge!("tidemill_store_shard_undurable_bytes", &label).set(shard.undurable_bytes as f64);
        if let Some(oldest_ms) = shard.oldest_ms {
            gauge!("tidemill_store_shard_oldest_timestamp_seconds", &label).set(oldest_ms as f64 / 1000.0);
        }
    }
}

/// What bounds the hub, beside what it holds.
fn bounds(state: &State) {
    for (name, limit) in state.limits.iter() {
        gauge!("tidemill_limit", "name" => name.clone()).set(*limit);
    }
    gauge!("tidemill_http_tails").set(state.tails_max.saturating_sub(state.tails.available_permits()) as f64);
    if let Some(memory) = Memory::own() {
        gauge!("process_resident_memory_bytes").set(memory.resident_bytes as f64);
    }
}

fn mqtt(state: &State) {
    let stats = state.broker.stats();
    gauge!("tidemill_mqtt_sessions").set(stats.sessions as f64);
    gauge!("tidemill_mqtt_persistent_sessions").set(stats.persistent_sessions as f64);
}

fn router(state: &State) {
    let view = state.view();
    let router = view.router.snapshot();
    counter!("tidemill_router_records_total").absolute(router.records);
    counter!("tidemill_router_not_json_total").absolute(router.not_json);
    counter!("tidemill_router_undecodable_total").absolute(router.undecodable);
    counter!("tidemill_router_skipped_total").absolute(router.skipped);
    gauge!("tidemill_router_stalled").set(if router.error.is_some() { 1.0 } else { 0.0 });
    gauge!("tidemill_router_lag_entries").set(view.router_lag(&state.store) as f64);
    for (index, rule) in view.set.rules.iter().enumerate() {
        counter!("tidemill_router_matched_total", "rule" => rule.name.clone())
            .absolute(view.router.matched(index));
    }
}

fn delivery(state: &State) {
    let view = state.view();
    for target in &view.targets {
        let Some(rule) = view.set.rules.get(target.rule) else { continue };
        let labels = [("rule", rule.name.clone()), ("target", target.name.clone())];
        let now = target.snapshot(&state.store);
        counter!("tidemill_delivery_delivered_total", &labels).absolute(now.delivered);
        counter!("tidemill_delivery_retries_total", &labels).absolute(now.retries);
        counter!("tidemill_delivery_skipped_total", &labels).absolute(now.skipped);
        gauge!("tidemill_delivery_dead_letters", &labels).set(now.dead_letters as f64);
        gauge!("tidemill_delivery_lag_entries", &labels).set(now.lag as f64);
        gauge!("tidemill_delivery_oldest_age_seconds", &labels).set(now.oldest_age_ms as f64 / 1000.0);
        let state = match now.state {
            TargetState::Running => 0.0,
            TargetState::Retrying => 1.0,
            TargetState::Stopped => 2.0,
        };
        gauge!("tidemill_delivery_state", &labels).set(state);
    }
}
