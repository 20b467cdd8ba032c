//! Light queues: numbered pointers into the log.
//!
//! # Layout
//! - `filter`: what a topic filter is and what it matches
//! - `trie`: topic → queues
//! - `routes`: the trie and its cache, owned by the log writer
//! - `table`: where each queue ends, entries not yet in RocksDB, who waits
//! - `block`: packed entries; `block_key`: where a block is kept
//! - `index`: the RocksDB database of blocks, checkpoint and derived places
//! - `indexer`: the thread that writes entries, retained pointers and cursors out

pub(crate) mod block;
pub(crate) mod block_key;
pub mod filter;
pub(crate) mod index;
pub(crate) mod indexer;
pub(crate) mod routes;
pub(crate) mod table;
mod trie;
