//! The topics and their values, as text.

use std::time::Duration;

use super::super::shared::Shared;
use super::load::Loads;
use crate::memory::Memory;

/// How many retained messages there are, which takes longer to say than all else.
pub(super) const RETAINED: &str = "$SYS/broker/retained messages/count";

/// Memory that belongs to no file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Heap {
    /// `None` where the system does not say.
    now_bytes: Option<u64>,
    /// The most there was whenever somebody looked.
    most_bytes: u64,
}

impl Heap {
    /// Looks how much there is.
    pub(super) fn look(&mut self) {
        self.now_bytes = Memory::own().map(|memory| memory.anonymous_bytes);
        self.most_bytes = self.most_bytes.max(self.now_bytes.unwrap_or(0));
    }
}

/// All values but the number of retained messages.
pub(super) fn values(shared: &Shared, uptime: Duration, loads: &Loads, heap: &Heap) -> Vec<(String, String)> {
    let stats = shared.counters.stats(shared.registry.len());
    let store = shared.store.stats();
    let stored = shared.store.next_sequence().saturating_sub(1);
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
        ("publish/bytes/received", stats.published_bytes),
        ("publish/bytes/sent", stats.delivered_bytes),
        ("bytes/received", stats.bytes_in),
        ("bytes/sent", stats.bytes_out),
        ("subscriptions/count", stats.subscriptions),
        ("messages/stored", stored),
        ("store/messages/count", stored),
        ("store/messages/bytes", store.log_bytes),
    ];
    let heap = heap.now_bytes.map(|now| [("heap/current", now), ("heap/maximum", heap.most_bytes)]);
    let numbers = numbers.into_iter().chain(heap.into_iter().flatten());
    all.extend(numbers.map(|(name, number)| (name, number.to_string())));
    let mut all: Vec<(String, String)> =
        all.into_iter().map(|(name, value)| (format!("$SYS/broker/{name}"), value)).collect();
    all.extend(loads.all().map(|(name, minutes, average)| {
        (format!("$SYS/broker/load/{name}/{minutes}min"), format!("{average:.2}"))
    }));
    all
}
