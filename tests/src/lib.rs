//! What the whole-system tests in `tests/tests/` are made of: real servers, clients with exact control,
//! and checkers that know what was acknowledged. Failures panic: a server dropped by a panic prints the end of its log.
//!
//! # Layout
//! - [`services`] starts Apache Kafka, RabbitMQ, an HTTP function and Tidemill itself, each on its own loopback ports
//! - [`process`] a child process that cannot outlive its test
//! - [`mqtt`] a small MQTT client that hides nothing: every packet is the caller's own
//! - [`mangle`] clients that send what no client should
//! - [`load`] publishers that reconnect and resend what was not acknowledged
//! - [`ledger`] checks arrivals against what was published: nothing lost, order kept, duplicates counted
//! - [`kafka_reader`] and [`events`] read what came out, the latter with cloudevents-sdk as the judge
//! - [`pki`] certificates; [`scram`] proofs of a password
//! - [`kills`] SIGKILL at random moments
//! - [`wait`], [`ports`], [`mod@report`], [`place`], [`environment`] small helpers

pub mod environment;
pub mod events;
pub mod kafka_reader;
pub mod kills;
pub mod ledger;
pub mod load;
pub mod mangle;
pub mod mqtt;
pub mod pki;
pub mod place;
pub mod ports;
pub mod process;
pub mod report;
pub mod scram;
pub mod services;
pub mod wait;
