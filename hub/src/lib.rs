//! The Tidemill hub: MQTT in, one stored copy, rules and deliveries out.
//!
//! # Layout
//! - `mqtt`: the broker: codec, sessions, listeners
//! - `message`: what a record's properties hold, and a record as rules see it
//! - `identity`: the CloudEvents id of a record
//! - `client`: a small MQTT 5 client for `tidemill pub`, the demo and tests
//! - `router`: reads what any rule may want once, and points the rules' queues at what matched
//! - `delivery`: one task for each target of each rule: map, send, confirm, retry, give up
//! - `flow`: a rule set at work: its router and its deliveries, started and stopped together
//! - `config`: `tidemill.yaml`, rule files and the flags that override them
//! - `api`: HTTP: health, metrics, rules, queues, records, dead letters, explanations
//! - `hub`: the whole, in the order in which it starts and stops
//! - `telemetry`: logs
//! - `cli`: the commands
//! - `demo`: a simulated fleet, and an exact account of what arrived
//! - `memory`: what a process takes
//! - `bench`: what the store does on this machine, and what a broker does under load

pub mod api;
mod bench;
pub mod cli;
pub mod client;
pub mod config;
pub mod delivery;
pub mod demo;
pub mod flow;
pub mod hub;
pub mod identity;
mod memory;
pub mod message;
pub mod mqtt;
pub mod router;
pub mod telemetry;
