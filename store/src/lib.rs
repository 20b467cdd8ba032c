//! The store: every record once in an append-only log, light queues that point into it, durable cursors.
//!
//! A record is appended once and entered into the queue of every topic filter that it matches. A consumer is a cursor in a
//! queue: it reads from it, waits on it with a [`Watcher`], and commits how far it is done. The store knows nothing of what the payloads mean
//! or which protocol brought them.
//!
//! # Layout
//! - `api`: requests and answers; `record`, `position`, `error`, `watch`: the other words of the interface
//! - `store`: the handle; `queues`: its queues, made and deleted; `open`: recovery and start of the threads; `shared`: what the threads have in common
//! - `log/`: segments, the thread that appends and the one that syncs, recovery
//! - `queue/`: topic filters, index entries, RocksDB, checkpoints
//! - `meta/`: catalogue, cursors, documents, retained pointers, dead letters; `catalogue`: its view in memory
//! - `directory`: the data directory's lock and format; `pool`: threads for what blocks;
//!   `database`: what both RocksDB databases have alike

pub mod api;
mod catalogue;
mod database;
mod directory;
mod error;
mod log;
mod meta;
mod open;
mod pool;
mod position;
mod queue;
mod queues;
mod record;
mod shared;
mod store;
mod watch;

pub use api::*;
pub use error::StoreError;
pub use position::Position;
pub use queue::filter;
pub use record::{NewRecord, Pointer, Record, Retain};
pub use store::{Receipt, Result, Store};
pub use watch::Watcher;
