//! Real servers on loopback ports of their own, with their data in temporary folders.
//!
//! # Layout
//! - [`kafka`] one Apache Kafka node in KRaft mode, from Maven Central
//! - [`rabbitmq`] one RabbitMQ node, from Debian
//! - [`http`] an HTTP function that records what it receives and fails when told to
//! - [`mosquitto`] mosquitto's command line clients, and mosquitto with a bridge
//! - [`tidemill`] the hub under test
//! - [`Shared`] lets the tests of one binary share an expensive server

pub mod http;
pub mod kafka;
pub mod mosquitto;
pub mod rabbitmq;
mod shared;
pub mod tidemill;

pub use http::HttpFunction;
pub use kafka::Kafka;
pub use rabbitmq::RabbitMq;
pub use shared::Shared;
pub use tidemill::Tidemill;
