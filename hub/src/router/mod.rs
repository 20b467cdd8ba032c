//! The router: reads each record that any rule may want once, asks the compiled rules which of them match, and
//! points the queue of each of those at it.
//!
//! It tails one union queue of all rules' filters, only as far as the log is durable. The pointers and the
//! router's own place are written in one step ([`tidemill_store::Store::derive`]), so a crash neither loses nor
//! doubles a match.
//!
//! # Layout
//! - `queues`: the union queue and the rules' queues; what becomes of a removed rule's
//! - `task`: the loop
//! - `status`: what it counts

mod queues;
mod status;
mod task;

pub use queues::{OWNER, RULE_PREFIX, RuleQueues, UNION, delete, narrow, open, retire, target_owner};
pub use status::{RouterSnapshot, RouterStatus};
pub use task::run;
