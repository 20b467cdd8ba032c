//! `tidemill demo`: a hub, a simulated fleet of real MQTT clients, an HTTP function, a file, and an exact account.
//!
//! The fleet publishes at QoS 1 and notes what the hub acknowledged. From the readings themselves, in plain Rust and
//! without the rule engine, the demo knows which events must have arrived where. In the end every one of them is
//! looked for: what is missing is lost, and the exit status says so.
//!
//! # Layout
//! - `vehicle`: one vehicle: how it drives, what it reports (no I/O)
//! - `expect`: which events a report must lead to
//! - `fleet`: the clients
//! - `function`: the HTTP function, which can be taken down
//! - `ledger`: what was acknowledged, what arrived, what is missing
//! - `archive`: what the file target wrote
//! - `setup`: the hub's configuration
//! - `sample`: the numbers of one moment
//! - `view`: the live view and the plain lines
//! - `terminal`: the terminal and its keys
//! - `run`: the whole, from start to account

mod archive;
mod expect;
mod fleet;
mod function;
mod ledger;
mod run;
mod sample;
mod setup;
mod terminal;
mod vehicle;
mod view;

pub use run::Args;
pub(crate) use run::run;
