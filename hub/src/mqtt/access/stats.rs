//! What is counted about access: `tidemill_mqtt_access_*`.

use super::acl::Action;

/// Describes the metrics.
pub(super) fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!(
        "tidemill_mqtt_access_total",
        "Clients let in (accepted), sent away (refused) or not judged (unavailable), by the source that decided"
    );
    describe_counter!("tidemill_mqtt_access_denied_total", "What rules did not allow, by action");
    describe_counter!(
        "tidemill_mqtt_access_cut_total",
        "Connections cut because what they do is not allowed any more"
    );
    describe_gauge!("tidemill_mqtt_access_cache_entries", "Answers that a source remembers");
    describe_histogram!("tidemill_mqtt_access_hook_seconds", "Time that HTTP endpoints took to answer");
}

/// Counts what a source decided.
pub(super) fn decided(source: &str, outcome: &'static str) {
    metrics::counter!("tidemill_mqtt_access_total", "source" => source.to_owned(), "outcome" => outcome)
        .increment(1);
}

/// Counts what was not allowed.
pub(in super::super) fn denied(action: Action) {
    metrics::counter!("tidemill_mqtt_access_denied_total", "action" => action.name()).increment(1);
}

/// Counts a connection that was cut.
pub(in super::super) fn cut() {
    metrics::counter!("tidemill_mqtt_access_cut_total").increment(1);
}

/// Notes how much a source remembers.
pub(super) fn remembered(source: &str, entries: usize) {
    metrics::gauge!("tidemill_mqtt_access_cache_entries", "source" => source.to_owned()).set(entries as f64);
}
