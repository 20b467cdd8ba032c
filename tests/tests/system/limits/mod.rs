//! What happens when a limit is reached: what the client is told, what is counted, and that nobody else notices.
//!
//! # Layout
//! - [`connections`] how many, how fast; how many sessions
//! - [`connect`] how long a CONNECT may take; keep alive and session expiry
//! - [`logins`] passwords that take long to look at
//! - [`packets`] how large, how deep, how many
//! - [`rates`] messages and bytes in a second
//! - [`lag`] slow subscribers
//! - [`reload`] a reload while clients are at a limit
//! - [`table`] the table of limits in `docs/configuration.md`
//! - [`values`] values that no limit can have

mod connect;
mod connections;
mod lag;
mod logins;
mod packets;
mod rates;
mod reload;
mod table;
mod values;

use std::time::Duration;

use tidemill_tests::mqtt::{Client, Packet};
use tidemill_tests::services::Tidemill;

const LIMIT: Duration = Duration::from_secs(30);

/// A hub with these keys of `mqtt`.
async fn hub(mqtt: &str) -> Tidemill {
    Tidemill::start_with_config(&format!("flush: async\nmqtt: {{ {mqtt} }}\n")).await
}

/// Takes the messages `0`, `1` and `2`, and acknowledges none of them: their identifiers.
async fn take_three(client: &mut Client) -> Vec<u16> {
    let mut ids = Vec::new();
    for number in 0..3 {
        let Packet::Publish { id, payload, .. } = client.packet().await else { panic!("no message") };
        assert_eq!(payload, number.to_string());
        ids.push(id);
    }
    ids
}

/// Acknowledges messages.
async fn acknowledge(client: &mut Client, ids: Vec<u16>) {
    for id in ids {
        client.writer.puback(id).await.unwrap();
    }
    client.writer.flush().await.unwrap();
}

/// How often a limit was reached, by its key below `mqtt`.
async fn reached(hub: &Tidemill, limit: &str) -> f64 {
    let label = format!("mqtt.{limit}");
    let metrics = hub.metrics().await;
    let reached = metrics.sum("tidemill_mqtt_limit_reached_total", &[("limit", &label)]);
    reached.unwrap_or_else(|| panic!("nobody counts {label}"))
}

/// A limit as `/metrics` shows it.
async fn shown(hub: &Tidemill, limit: &str) -> Option<f64> {
    hub.metrics().await.sum("tidemill_limit", &[("name", &format!("mqtt.{limit}"))])
}
