//! Other people's MQTT clients against the hub: each brings its own idea of 3.1.1 and 5.0.
//!
//! # Layout
//! - [`mosquitto_clients`] `mosquitto_pub` and `mosquitto_sub`
//! - [`mosquitto_bridge`] mosquitto's bridge
//! - [`rumqttc_clients`] rumqttc's for 3.1.1 and for 5.0, through [`peer`]

mod mosquitto_bridge;
mod mosquitto_clients;
mod peer;
mod rumqttc_clients;

use std::sync::Arc;

use tidemill_tests::services::{Shared, Tidemill};

static HUB: Shared<Tidemill> = Shared::new();

/// The hub that these tests share; each has topics of its own.
async fn hub() -> Arc<Tidemill> {
    HUB.get(Tidemill::start("")).await
}
