//! The hubs under test, and what they refuse.

use std::sync::Arc;

use tidemill_tests::mqtt::Level;
use tidemill_tests::services::{Shared, Tidemill};

use crate::wire::{Packet, Wire};

/// One hub for all tests that need nothing special. Each has clients and topics of its own.
static HUB: Shared<Tidemill> = Shared::new();

/// The hub with its defaults, except that nothing is waited for the disk: what tests here prove is bytes.
pub(crate) async fn hub() -> Arc<Tidemill> {
    HUB.get(hub_with("")).await
}

/// A hub of its own, with these keys of `mqtt:`, as in `receive_maximum: 2`.
pub(crate) async fn hub_with(mqtt: &str) -> Tidemill {
    let mqtt = if mqtt.is_empty() { String::new() } else { format!("mqtt: {{ {mqtt} }}\n") };
    Tidemill::start_with_config(&format!("flush: async\n{mqtt}")).await
}

/// Sends a first packet that is refused: in 5.0 with a CONNACK and this reason, in 3.1.1 with nothing.
pub(crate) async fn not_let_in(level: Level, first: impl Packet, reason: u8) {
    let hub = hub().await;
    let mut wire = Wire::open(&hub, level).await;
    wire.send(&first).await;
    if level == Level::V5 {
        let connack = wire.connack().await;
        assert_eq!((connack.session_present, connack.reason), (false, reason), "{:02x?}", first.at(level));
    }
    wire.closed().await;
}

/// Sends a packet after a CONNECT, which must end the connection with this reason.
pub(crate) async fn refused(level: Level, packet: impl Packet, reason: u8) {
    let hub = hub().await;
    let mut wire = Wire::nobody(&hub, level).await;
    wire.send(&packet).await;
    wire.closed_with(reason).await;
}
