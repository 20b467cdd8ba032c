//! The rows of `tidemill bench store`.
//!
//! # Layout
//! - `load`: records, and tasks that append them
//! - `append`: appending to one queue, async and sync
//! - `queues`: very many queues: appending to them, their memory
//! - `open`: opening after an orderly stop and after SIGKILL
//! - `index`: bytes of an index entry
//! - `read`: following the tail, catching up
//! - `retention`: appending while segments are deleted
//! - `sessions`: offline sessions, checkpoints of cursors

mod append;
mod index;
mod load;
pub(super) mod open;
pub(super) mod queues;
mod read;
mod retention;
pub(super) mod sessions;

use std::path::Path;

use tidemill_store::{Flush, Options, Store};

pub(super) use self::queues::ManyQueues;
use super::report::Line;
use super::row::Row;
use super::{Bench, Result, blocking};

/// Measures a row.
pub(super) async fn measure(bench: &mut Bench, row: Row) -> Result<Vec<Line>> {
    match row {
        Row::Append => append::batches(bench).await,
        Row::Sync => append::synced(bench).await,
        Row::Memory => queues::memory(bench).await,
        Row::Million => queues::append(bench).await,
        Row::OpenClean => open::clean(bench).await,
        Row::OpenCrash => open::crash(bench).await,
        Row::IndexBusy => index::busy(bench).await,
        Row::IndexCold => index::cold(bench).await,
        Row::Offline => sessions::offline(bench).await,
        Row::Tail => read::tail(bench).await,
        Row::CatchUp => read::catch_up(bench).await,
        Row::Cursors => sessions::checkpoint(bench).await,
        Row::Retention => retention::deletion(bench).await,
    }
}

/// The defaults of the store, with `flush: async`: what is measured is not the disk's sync, except where a row says so.
fn options(dir: &Path) -> Options {
    Options { flush: Flush::Async, ..Options::new(dir) }
}

async fn open_store(options: Options) -> Result<Store> {
    blocking(move || Ok(Store::open(options)?)).await
}

/// Ends a store orderly and removes its data.
async fn discard(store: Store, dir: &Path) -> Result<()> {
    store.close().await?;
    drop(store);
    super::remove(dir)
}
