//! What the two RocksDB databases are opened with alike.

use std::path::PathBuf;

use rocksdb::{BlockBasedIndexType, BlockBasedOptions, Cache, DBCompressionType, Options};

use crate::StoreError;

/// Bytes of rows that a database gathers in memory before it writes a file.
pub(crate) const WRITE_BUFFER_BYTES: usize = 8 << 20;

/// Wraps what was said of a database's files; a full disk has its own error.
pub(crate) fn error(database: &'static str, error: String) -> StoreError {
    let full = "No space left on device";
    if !error.contains(full) {
        return StoreError::Database { database, error };
    }
    // "…: While appending to file: PATH: No space left on device"
    let named = error.rsplit_once("file: ").and_then(|(_, named)| named.split_once(": "));
    StoreError::Full { path: named.map_or_else(|| database.into(), |(path, _)| PathBuf::from(path)) }
}

/// Options that bound what a database keeps in memory and open; the caller adds its own.
pub(crate) fn options(cache_bytes: usize) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_open_files(256);
    options.set_keep_log_file_num(2);
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(cache_bytes));
    table.set_bloom_filter(10.0, false);
    // They grow with what is stored: in the cache, they are bounded with it, and in pieces, so that a look-up needs only one of them.
    table.set_cache_index_and_filter_blocks(true);
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_metadata_block_size(4 << 10);
    table.set_pin_top_level_index_and_filter(true);
    options.set_block_based_table_factory(&table);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_errors() {
        let said = "IO error: No space left on device: While appending to file: /data/meta/000012.log: No space left on device";
        let named = |said: &str| match error("meta", said.to_owned()) {
            StoreError::Full { path } => path,
            error => panic!("{error}"),
        };
        assert_eq!(named(said), PathBuf::from("/data/meta/000012.log"));
        assert_eq!(named("No space left on device (os error 28)"), PathBuf::from("meta"));
        let other = error("index", "IO error: While appending to file: /data/x: Input/output error".into());
        assert!(matches!(other, StoreError::Database { database: "index", .. }), "{other}");
    }
}
