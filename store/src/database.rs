//! What the two RocksDB databases are opened with alike.

use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, Options};

/// Options that bound what a database keeps in memory and open; the caller adds its own.
pub(crate) fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(8 << 20);
    options.set_max_open_files(256);
    options.set_keep_log_file_num(2);
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(8 << 20));
    table.set_bloom_filter(10.0, false);
    options.set_block_based_table_factory(&table);
    options
}
