//! The `tidemill` program. Everything is in the library; this file only chooses the allocator.

use std::process::ExitCode;

/// jemalloc returns memory and resists fragmentation under many small, long-lived buffers; RocksDB uses it too.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A thread of jemalloc's gives free pages back to the system within two seconds, also where nobody allocates any more:
/// what a storm of connections needed would otherwise stay for as long as the hub is idle after it.
#[expect(unsafe_code, reason = "the name by which jemalloc finds its settings")]
// SAFETY: nothing else is called so, and jemalloc expects a pointer to a string that ends with a zero.
#[unsafe(export_name = "malloc_conf")]
static MALLOC_CONF: &[u8; 60] = b"background_thread:true,dirty_decay_ms:2000,muzzy_decay_ms:0\0";

fn main() -> ExitCode {
    tidemill_hub::cli::main()
}
