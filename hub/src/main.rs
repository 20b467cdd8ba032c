//! The `tidemill` program. Everything is in the library; this file only chooses the allocator.

use std::process::ExitCode;

/// jemalloc returns memory and resists fragmentation under many small, long-lived buffers; RocksDB uses it too.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    tidemill_hub::cli::main()
}
