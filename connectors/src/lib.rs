//! Connectors: one folder for each kind of system that events are sent to.
//!
//! `SPECIFICATION.md` beside this crate's manifest says what every kind must do; `tests/conformance.rs` runs the same
//! checks over all of them.
//!
//! # Layout
//! - `connector`   what every kind is made of: [`Connector`] → [`Connection`] → [`Target`] → [`Sink`]
//! - `connections` [`Connections`]: the connections and targets of a rule set, checked
//! - `kafka`, `amqp`, `http`, `file`: the kinds; in each folder `config` (what is written in YAML), `encode`
//!   (CloudEvent → wire), `send` (a batch, its confirmations, classes of errors) and `probe` (health)
//! - `cloudevents` encodings that several kinds share
//! - `outcome`     outcomes of a batch and the order of a key
//! - `slots`       fields that differ from event to event
//! - `secret`      texts with references to environment variables and files
//! - `text`        text of other systems in messages

mod amqp;
mod cloudevents;
mod connections;
mod connector;
mod file;
mod http;
mod kafka;
mod outcome;
mod secret;
mod slots;
#[cfg(test)]
mod testing;
mod text;

pub use connections::Connections;
pub use connector::{BatchMax, Connection, Connector, Fault, Follow, OutEvent, SendError, Sink, Target};
pub use secret::{Secret, SecretError};

/// Directives (of `tracing_subscriber::EnvFilter`) that a log filter must hold when these connectors are used.
///
/// lapin logs a returned message whole, payload and all, and as an error each connection that ends; what follows from
/// either is said by the connector.
pub const LOG_DIRECTIVES: &[&str] = &["lapin::returned_messages=off", "lapin::io_loop=off"];

/// All kinds of connectors, in the order of their names.
#[must_use]
pub fn all() -> Vec<Box<dyn Connector>> {
    vec![Box::new(amqp::Amqp), Box::new(file::File), Box::new(http::Http), Box::new(kafka::Kafka)]
}
