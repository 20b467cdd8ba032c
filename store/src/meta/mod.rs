//! What is small and durable: catalogue, cursors, documents, retained pointers, dead letters, streams.
//!
//! # Layout
//! One file for each type of key, with encode, decode and their round trip: `catalogue`, `cursor`, `document`, `retained`,
//! `dead_letter`, `stream`; `places`: cursors that moved, in memory. The database has a write-ahead log, unlike the index.

pub(crate) mod catalogue;
pub(crate) mod cursor;
mod dead_letter;
pub(crate) mod document;
mod places;
mod retained;
mod stream;

use std::path::Path;

use foldhash::HashMap;
use parking_lot::Mutex;
use rocksdb::{DB, DBRawIterator, MergeOperands, Options, ReadOptions, WriteBatch, WriteOptions};
use smallvec::SmallVec;

use crate::fault::{self, Point};
use crate::{Flush, Result, StoreError, database};

/// First byte of each type of key.
mod prefix {
    pub(super) const CATALOGUE: u8 = 1;
    pub(super) const NEXT_QUEUE: u8 = 2;
    pub(super) const CURSOR: u8 = 3;
    pub(super) const DOCUMENT: u8 = 4;
    pub(super) const RETAINED: u8 = 5;
    pub(super) const DEAD_LETTER: u8 = 6;
    pub(super) const STREAM: u8 = 7;
    pub(super) const QUEUE_NAME: u8 = 8;
    pub(super) const CURSOR_PLACES: u8 = 9;
    pub(super) const NEXT_CURSOR: u8 = 10;
    pub(super) const DOCUMENT_DUE: u8 = 11;
}

/// Bytes of blocks that RocksDB keeps in memory.
const CACHE_BYTES: usize = 16 << 20;

/// The database.
pub(crate) struct Meta {
    db: DB,
    flush: Flush,
    /// How many dead letters an owner has, once it was counted.
    dead_letters: Mutex<HashMap<String, u64>>,
    queue_ids: Mutex<catalogue::QueueIds>,
    cursor_ids: Mutex<cursor::CursorIds>,
}

fn database_error(error: rocksdb::Error) -> StoreError {
    database::error("meta", error.into_string())
}

fn bad_value(what: &'static str, key: &[u8]) -> StoreError {
    StoreError::Database {
        database: "meta",
        error: format!("{what} at key {} cannot be read", key.escape_ascii()),
    }
}

fn options() -> Options {
    let mut options = database::options(CACHE_BYTES);
    options.set_max_total_wal_size(32 << 20);
    // Of all rows only those with places of cursors are merged.
    fn merged(before: Option<&[u8]>, operands: &MergeOperands, whole: bool) -> Option<Vec<u8>> {
        let parts: SmallVec<[&[u8]; 8]> = before.into_iter().chain(operands).collect();
        Some(cursor::merge(parts.iter().copied(), whole))
    }
    options.set_merge_operator(
        "tidemill.meta",
        |_: &[u8], before: Option<&[u8]>, operands: &MergeOperands| merged(before, operands, true),
        |_: &[u8], before: Option<&[u8]>, operands: &MergeOperands| merged(before, operands, false),
    );
    options
}

impl Meta {
    pub(crate) fn open(path: &Path, flush: Flush) -> Result<Self> {
        let db = DB::open(&options(), path).map_err(database_error)?;
        let meta = Meta::of(db, flush);
        meta.load_next_queue()?;
        meta.load_next_cursor()?;
        Ok(meta)
    }

    /// Opens the database to look at it: nothing can be written, and nothing is.
    pub(crate) fn open_to_read(path: &Path) -> Result<Self> {
        let db = DB::open_for_read_only(&options(), path, false).map_err(database_error)?;
        Ok(Meta::of(db, Flush::Async))
    }

    fn of(db: DB, flush: Flush) -> Self {
        let (dead_letters, queue_ids, cursor_ids) = Default::default();
        Meta { db, flush, dead_letters, queue_ids, cursor_ids }
    }

    /// Writes as durably as the store promises.
    fn write(&self, batch: WriteBatch) -> Result<()> {
        let mut options = WriteOptions::default();
        options.set_sync(self.flush == Flush::Sync);
        self.write_with(batch, &options)
    }

    /// Writes so that it survives a power cut, whatever the store promises.
    fn write_synced(&self, batch: WriteBatch) -> Result<()> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.write_with(batch, &options)
    }

    /// Writes so that it survives the process; a power cut may undo it, in order.
    fn write_relaxed(&self, batch: WriteBatch) -> Result<()> {
        self.write_with(batch, &WriteOptions::default())
    }

    fn write_with(&self, batch: WriteBatch, options: &WriteOptions) -> Result<()> {
        fault::hit(Point::MetaWrite, self.db.path())
            .map_err(|error| database::error("meta", error.to_string()))?;
        self.db.write_opt(batch, options).map_err(database_error)
    }

    fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.db.get(key).map_err(database_error)
    }

    /// Rows whose key begins with `prefix`, from `from` on (`skip_from`: after it), as long as `each` returns true.
    fn scan(
        &self,
        prefix: &[u8],
        from: &[u8],
        skip_from: bool,
        mut each: impl FnMut(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<()> {
        let mut options = ReadOptions::default();
        if let Some(end) = after_prefix(prefix) {
            options.set_iterate_upper_bound(end);
        }
        let mut rows: DBRawIterator<'_> = self.db.raw_iterator_opt(options);
        rows.seek(from);
        if skip_from && rows.key() == Some(from) {
            rows.next();
        }
        while let Some((key, value)) = rows.item() {
            if !each(key, value)? {
                return Ok(());
            }
            rows.next();
        }
        rows.status().map_err(database_error)
    }

    /// Makes everything durable.
    pub(crate) fn flush(&self) -> Result<()> {
        self.db.flush_wal(true).map_err(database_error)
    }
}

/// The first key after all that begin with `prefix`.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}
