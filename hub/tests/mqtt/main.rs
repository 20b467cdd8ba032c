//! The broker on a store of its own, driven with packets over TCP as a client would, and with bytes as no
//! client should.
//!
//! # Layout
//! - `support`: the broker, and a client's end of a connection
//! - `delivery`: messages from one client to another
//! - `sessions`: what stays when a connection ends
//! - `refusals`: how connections begin and end, and what is refused
//! - `client`: our own client against our own broker

mod client;
mod delivery;
mod refusals;
mod sessions;
mod support;
