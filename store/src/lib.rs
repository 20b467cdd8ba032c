//! The store: every record once in an append-only log, light queues that point into it, durable cursors.
//!
//! A record is appended once and entered into the queue of every topic filter that it matches. A consumer is a cursor in a
//! queue: it reads from it, waits on it with a [`Watcher`], and commits how far it is done. The store knows nothing of what the payloads mean
//! or which protocol brought them.
//!
//! ```
//! use tidemill_store::{CursorKey, CursorPlace, NewRecord, Options, ReadRequest, Retain, Start, Store};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path();
//! // Opening and recovery block; in a program with other things to do: `spawn_blocking`.
//! let store = Store::open(Options::new(dir))?;
//! let queue = store.open_filter("boats/+/depth").await?.id;
//! let key = CursorKey { owner: "reader".to_owned(), queue };
//! let cursor = store.open_cursor(key, Start::Earliest).await?;
//!
//! let record = NewRecord {
//!     topic: "boats/ada/depth".into(),
//!     properties: Default::default(),
//!     payload: "4.2".into(),
//!     attributes: 0,
//!     retain: Retain::No,
//! };
//! store.append(vec![record]).await?; // survives a power cut from here on
//!
//! let request = ReadRequest { queue, from: cursor.place.offset, records_max: 100, bytes_max: 1 << 20, durable: true };
//! let batch = store.read(request).await?;
//! let (_, record) = &batch.records[0];
//! assert_eq!(record.payload, "4.2");
//! store.commit(cursor.id, CursorPlace { offset: batch.next, sequence: record.sequence });
//! store.close().await?;
//! # Ok(())
//! # }
//! ```
//! `examples/quickstart.rs` is a longer one.
//!
//! # What holds
//! - **An append is acknowledged** once its records are on disk ([`Flush::Sync`]) or written ([`Flush::Async`]), as their stream promises. All
//!   records of one append are in the log then, in their order.
//! - **Order.** All queues have their entries in one order, that of [`Record::sequence`]; order of submits is order in the log. A topic's records are in one
//!   shard, as long as the number of shards is not changed. Offsets of a queue have no holes when they are given, also over a crash; retention takes records away later.
//! - **A queue has every matching record** from the moment on that it was opened, once, and its history before that if it was asked for. An entry
//!   can be read before anyone is told of it.
//! - **A cursor** never says more on disk than was committed, and never passes what is durable: after a crash, what was done last may come again.
//! - **The log is the truth.** Queues are derived from it, and dispatched again from the last checkpoint after a crash. A torn tail, which
//!   was never acknowledged as durable, is cut; anything else that is not as it was written is an error with its position
//!   ([`StoreError::Corrupt`]), never silence.
//! - **A failed `fdatasync` poisons** the log: nothing is acknowledged any more ([`StoreError::Poisoned`]) until the store is opened again. A full disk
//!   refuses appends until there is room ([`StoreError::Full`]), which retention can make; all else goes on. Cursors that move meanwhile are
//!   in memory only until there is.
//!
//! # Threads
//! `store-log` appends and dispatches all that whoever submits it does not append at once, `store-sync-N` syncs shard N, `store-index` writes index entries, retained pointers and cursors out,
//! `store-queues` makes and deletes queues, `store-retention` deletes segments: a panic of one of these ends the process. `store-read-N` read
//! the disk, and `store-backfill` reads history. They talk through bounded mailboxes. The async methods need a tokio runtime only to wait: none
//! blocks it for longer than a small write to memory takes.
//!
//! # Limits
//! Memory is bounded by bytes: see [`Options`], each with what happens past it. A queue that nobody writes to costs some 160 bytes of memory, its filter included; a
//! million of them is a normal day. A topic has up to 65,535 bytes, a record up to [`Options::record_bytes_max`]; there are up to 256 shards of
//! 256 TiB each, and the log's position of a record stays for good. One process has a data directory at a time.
//!
//! # Files
//! ```text
//! FORMAT   format number and the log's UUID        log/      segments: 0-000000000000.seg, named by their first position
//! LOCK     the process that has it open            index/    RocksDB without a log of its own: queues; derived from log/
//! staging/ files on their way into index/          meta/     RocksDB: catalogue, cursors, documents, retained, dead letters
//! ```
//! [`tools`] looks into them while nobody has them open, and derives the index again.
//!
//! # Layout
//! - `api`: requests and answers; `record`, `position`, `error`, `watch`: the other words of the interface
//! - `store`: the handle; `queues`: its queues, made and deleted; `documents`: of the caller, written with a common sync; `open`: recovery and start of the threads; `shared`: what the threads have in common
//! - `log/`: segments, the thread that appends and those that sync, recovery; `backfill`: history for a new queue
//! - `queue/`: topic filters, index entries, RocksDB, checkpoints
//! - `meta/`: catalogue, cursors, documents, retained pointers, dead letters; `catalogue`: its view in memory
//! - `streams`: which shard of the log a topic belongs to; `retention`: the thread that deletes what is too old or too much
//! - `directory`: the data directory's lock and format; `pool`: threads for what blocks;
//!   `tools/`: for a directory that nobody has open; `database`: what both RocksDB databases have alike; `fault`: where unit tests make
//!   files fail; `fuzzing`: what fuzz targets call

pub mod api;
mod backfill;
mod catalogue;
mod database;
mod directory;
mod documents;
mod error;
mod fault;
#[cfg(feature = "faults")]
#[doc(hidden)]
pub mod faults;
#[cfg(all(target_os = "linux", any(test, feature = "fuzzing")))]
#[doc(hidden)]
pub mod fuzzing;
mod log;
mod meta;
mod open;
mod pool;
mod position;
mod queue;
mod queues;
mod record;
mod retention;
mod shared;
mod store;
mod streams;
pub mod tools;
mod watch;

pub use api::*;
pub use error::StoreError;
pub use position::Position;
pub use queue::filter;
pub use record::{NewRecord, Pointer, Record, Retain};
pub use store::{Receipt, Result, Store};
pub use watch::Watcher;
