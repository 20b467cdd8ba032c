//! The HTTP API. It only reads, but for two things: dropping the queue of a rule that is no longer configured, and sending
//! a client away.
//!
//! Requests are bounded in size and, up to their response's head, in time. Errors are JSON problem details
//! (RFC 9457) with a hint.
//!
//! # Layout
//! - `server`: routes, limits, start and stop
//! - `listener`: a bound on connections
//! - `site`: no answers for web pages of other sites
//! - `state`: what the handlers share
//! - `problem`: errors
//! - `health`: `/healthz`, `/readyz`
//! - `metrics`: `/metrics` for Prometheus
//! - `limits`: the bounds of a configuration, for `/metrics`
//! - `rules`: `/api/v1/rules`
//! - `queues`: `/api/v1/queues`
//! - `clients`: `/api/v1/clients`
//! - `records`: `/api/v1/records`: the store's records as JSON lines
//! - `dead_letters`: `/api/v1/dead-letters`
//! - `explain`: `/api/v1/explain`: what became of one record

pub(crate) mod clients;
mod dead_letters;
mod explain;
mod health;
mod limits;
mod listener;
mod metrics;
mod problem;
mod queues;
mod records;
mod rules;
mod server;
mod site;
mod state;

pub use limits::{Limits, differing, limits};
pub use server::Server;
pub use state::State;
