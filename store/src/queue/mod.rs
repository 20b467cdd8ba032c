//! Light queues: numbered pointers into the log.
//!
//! # Layout
//! - `filter`: what a topic filter is and what it matches
//! - `levels`: names of topic levels, each once; `trie`: topic → queues
//! - `routes`: from a topic to its shard and queues
//! - `table`: where each queue ends, entries not yet in RocksDB; `watches`: who waits
//! - `block`: packed entries; `block_key`: where a block is kept; `ends`: where queues end; `varint`: how their numbers are written
//! - `index`: the RocksDB database of blocks, ends, checkpoint and derived places; `alive`: what of it still counts
//! - `indexer`: the thread that writes entries, retained pointers and cursors out

pub(crate) mod alive;
pub(crate) mod block;
pub(crate) mod block_key;
pub(crate) mod ends;
pub mod filter;
pub(crate) mod index;
pub(crate) mod indexer;
mod levels;
pub(crate) mod routes;
pub(crate) mod table;
pub(crate) mod trie;
pub(crate) mod varint;
mod watches;
