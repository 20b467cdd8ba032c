//! The hub from outside: what people and programs do with it, and what it does to other systems.
//!
//! One binary for all that is quick, because linking one takes longer than most of these tests; what measures the machine
//! or takes half a minute has a binary of its own beside this folder.
//!
//! # Layout
//! - [`access`] who may connect, and who may do what
//! - [`cli`] `serve`, `pub`, `tail` and the HTTP API
//! - [`clients`] `tidemill clients`
//! - [`mqtt_clients`] mosquitto's and rumqttc's clients
//! - [`readback`] CloudEvents in Kafka, HTTP and AMQP
//! - [`delivery`] targets that refuse, fail or are away
//! - [`overlap`] subscriptions that overlap
//! - [`restart`] a graceful stop and a start in place
//! - [`killed`] what a client is owed when the hub is killed
//! - [`refusals`] bad input
//! - [`examples`] the examples; [`charging_stations`] the one with TLS and access rules
//! - [`transports`] TLS, WebSocket, the PROXY protocol
//! - [`bench`] `tidemill bench`
//! - [`topic_alias`] topics sent as numbers
//! - [`limits`] what happens when one is reached
//! - [`sys`] `$SYS` topics
//! - [`services`] the servers themselves

mod access;
mod bench;
mod charging_stations;
mod cli;
mod clients;
mod delivery;
mod examples;
mod killed;
mod limits;
mod mqtt_clients;
mod offline;
mod overlap;
mod readback;
mod refusals;
mod restart;
mod services;
mod sys;
mod topic_alias;
mod transports;
