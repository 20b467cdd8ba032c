//! Delivery: one task for each target of each rule reads the rule's queue at the target's own cursor, maps each
//! record to a CloudEvent, sends, and moves the cursor past what the destination confirmed.
//!
//! A target that is down is lag: nothing is read for it beyond one batch, and nothing is lost. Retries wait
//! with exponential back-off and jitter, for ever unless the rule says otherwise; what is given up becomes a dead
//! letter, written durably before the cursor moves.
//!
//! # Layout
//! - `backoff`: how long to wait
//! - `batch`: the events in flight, and what follows from each outcome (no I/O)
//! - `map`: records to events
//! - `task`: the loop of one target
//! - `status`: what it counts and says of itself
//! - `deliveries`: all targets of a rule set, started and stopped together

mod backoff;
mod batch;
mod deliveries;
mod map;
mod status;
mod task;
#[cfg(test)]
mod tests;

pub use deliveries::{Deliveries, TargetHandle};
pub use status::{State, TargetSnapshot, TargetStatus};
