//! The hubs under test.

use std::sync::Arc;

use tidemill_tests::services::{Shared, Tidemill};

/// One hub for all tests that need nothing special. Each has clients and topics of its own.
static HUB: Shared<Tidemill> = Shared::new();

/// The hub with its defaults, except that nothing is waited for the disk: what tests here prove is bytes.
pub(crate) async fn hub() -> Arc<Tidemill> {
    HUB.get(hub_with("")).await
}

/// A hub of its own, with these keys of `mqtt:`, as in `receive_maximum: 2`.
pub(crate) async fn hub_with(mqtt: &str) -> Tidemill {
    let dir = tempfile::Builder::new().prefix("tidemill-hub-").tempdir().expect("a temporary folder");
    let mqtt = if mqtt.is_empty() { String::new() } else { format!("mqtt: {{ {mqtt} }}\n") };
    let text = format!("flush: async\n{mqtt}");
    std::fs::write(dir.path().join("tidemill.yaml"), text).expect("a writable folder");
    Tidemill::start_in(dir, vec!["--config".into(), "tidemill.yaml".into()]).await
}
