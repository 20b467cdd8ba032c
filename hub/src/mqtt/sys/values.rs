//! The topics and their values, as text.

use std::time::Duration;

use super::super::shared::Shared;
use super::load::Loads;

/// How many retained messages there are, which takes longer to say than all else.
pub(super) const RETAINED: &str = "$SYS/broker/retained messages/count";

/// All values but the number of retained messages.
pub(super) fn values(shared: &Shared, uptime: Duration, loads: &Loads) -> Vec<(String, String)> {
    let stats = shared.counters.stats(shared.registry.len());
    let store = shared.store.stats();
    let disconnected = stats.sessions.saturating_sub(stats.connections);
    let mut all = vec![
        ("version", format!("tidemill version {}", env!("CARGO_PKG_VERSION"))),
        ("uptime", format!("{} seconds", uptime.as_secs())),
    ];
    let numbers = [
        ("clients/total", stats.sessions),
        ("clients/connected", stats.connections),
        ("clients/active", stats.connections),
        ("clients/disconnected", disconnected),
        ("clients/inactive", disconnected),
        ("clients/maximum", stats.connections_most),
        ("clients/expired", stats.sessions_expired),
        ("messages/received", stats.packets_in),
        ("messages/sent", stats.packets_out),
        ("publish/messages/received", stats.published),
        ("publish/messages/sent", stats.delivered),
        ("publish/messages/dropped", stats.dropped()),
        ("bytes/received", stats.bytes_in),
        ("bytes/sent", stats.bytes_out),
        ("subscriptions/count", stats.subscriptions),
        ("store/messages/count", shared.store.next_sequence().saturating_sub(1)),
        ("store/messages/bytes", store.log_bytes),
    ];
    all.extend(numbers.map(|(name, number)| (name, number.to_string())));
    let mut all: Vec<(String, String)> =
        all.into_iter().map(|(name, value)| (format!("$SYS/broker/{name}"), value)).collect();
    all.extend(loads.all().map(|(name, minutes, average)| {
        (format!("$SYS/broker/load/{name}/{minutes}min"), format!("{average:.2}"))
    }));
    all
}
