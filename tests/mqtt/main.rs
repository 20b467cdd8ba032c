//! Conformance: every statement of MQTT 5.0 and 3.1.1 that binds a server, proved with bytes against a running hub.
//!
//! `CONFORMANCE.md` beside this file names the test of each statement, and [`conformance`] checks that it names them
//! all. Packets are written out by the tests; neither the hub's codec nor a client library has a say in what is right.
//!
//! # Layout
//! - [`conformance`] the document and the statements there are
//! - [`wire`] a connection driven byte by byte; [`hubs`] the hubs it goes to, and what they refuse
//! - [`text`], [`framing`] data types, fixed headers, identifiers, properties (chapters 1 and 2)
//! - [`connect`], [`connack`], [`session`], [`will`], [`keep_alive`] (3.1, 3.2, 4.1)
//! - [`publish`], [`retain`], [`properties`], [`alias`], [`expiry`] (3.3)
//! - [`subscribe`], [`unsubscribe`], [`overlap`] (3.8 to 3.11)
//! - [`goodbye`] PINGREQ, DISCONNECT and errors (3.12 to 3.14, 4.13)
//! - [`qos`], [`resend`], [`order`], [`flow`], [`size`] (4.3 to 4.6, 4.9)
//! - [`auth`] (3.15, 4.12)
//! - [`topics`], [`shared`] (4.7, 4.8)
//! - [`transport`] (4.2), [`websocket`] (6)

mod alias;
mod auth;
mod conformance;
mod connack;
mod connect;
mod expiry;
mod flow;
mod framing;
mod goodbye;
mod hubs;
mod keep_alive;
mod order;
mod overlap;
mod properties;
mod publish;
mod qos;
mod resend;
mod retain;
mod session;
mod shared;
mod size;
mod subscribe;
mod text;
mod topics;
mod transport;
mod unsubscribe;
mod websocket;
mod will;
mod wire;
