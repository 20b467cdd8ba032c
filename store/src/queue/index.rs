//! [`Index`]: the RocksDB database of everything that is derived from the log.
//!
//! It is written without a write-ahead log. Blocks, the checkpoint up to which the log was dispatched, and the places of
//! consumers that derive queues are written in one batch into one column family, so that whatever part of it survives a
//! crash fits together; the rest is dispatched again from the checkpoint.

use std::path::Path;

use bytes::Buf;
use rocksdb::{DB, FlushOptions, ReadOptions, WriteBatch, WriteOptions};

use super::block;
use super::block_key::BlockKey;
use super::table::Snapshot;
use crate::log::SHARD;
use crate::meta::cursor;
use crate::{CursorKey, CursorPlace, Pointer, QueueId, Result, StoreError, database};

/// Key of the checkpoint.
const CHECKPOINT: &[u8] = &[2];
/// First byte of the key of a deriving consumer's place; the rest is a cursor key.
const PLACE: u8 = 3;

/// The database.
pub(crate) struct Index {
    db: DB,
}

/// What one checkpoint writes.
#[derive(Default)]
pub(crate) struct IndexBatch(WriteBatch);

fn database_error(error: rocksdb::Error) -> StoreError {
    StoreError::Database { database: "index", error: error.into_string() }
}

fn bad_block(key: BlockKey, what: &str) -> StoreError {
    let (queue, base) = (key.queue.0, key.base);
    StoreError::Database {
        database: "index",
        error: format!("block of queue {queue} at offset {base}: {what}"),
    }
}

impl Index {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut options = database::options();
        options.set_max_write_buffer_number(3);
        let db = DB::open(&options, path).map_err(database_error)?;
        Ok(Index { db })
    }

    /// The log offset up to which every record is in the queues, and the time of the last of them.
    pub(crate) fn checkpoint(&self) -> Result<(u64, i64)> {
        let Some(value) = self.db.get(CHECKPOINT).map_err(database_error)? else { return Ok((0, 0)) };
        let mut rest = value.as_slice();
        match (rest.try_get_u64_le(), rest.try_get_i64_le()) {
            (Ok(offset), Ok(time_ms)) if rest.is_empty() => Ok((offset, time_ms)),
            _ => Err(StoreError::Database {
                database: "index",
                error: format!("the checkpoint has {} bytes, not 16", value.len()),
            }),
        }
    }

    /// Where a consumer that derives queues was at the checkpoint.
    pub(crate) fn place(&self, key: &CursorKey) -> Result<Option<CursorPlace>> {
        let value = self.db.get(place_key(key)).map_err(database_error)?;
        Ok(value.as_deref().and_then(cursor::decode_place))
    }

    /// The offset after the queue's last entry here; 0 if it has none.
    pub(crate) fn end(&self, queue: QueueId) -> Result<u64> {
        let last = BlockKey { queue, shard: SHARD, base: u64::MAX };
        let mut rows = self.db.raw_iterator();
        rows.seek_for_prev(last.encode());
        let end = match rows.item().and_then(|(key, value)| BlockKey::decode(key).map(|key| (key, value))) {
            Some((key, value)) if key.queue == queue => {
                key.base + block::count(value).map_err(|what| bad_block(key, what))? as u64
            }
            _ => 0,
        };
        rows.status().map_err(database_error)?;
        Ok(end)
    }

    /// The offset of the queue's first entry here, if it has one.
    pub(crate) fn first(&self, queue: QueueId) -> Result<Option<u64>> {
        let mut rows = self.db.raw_iterator();
        rows.seek(BlockKey { queue, shard: SHARD, base: 0 }.encode());
        let first =
            rows.key().and_then(BlockKey::decode).filter(|key| key.queue == queue).map(|key| key.base);
        rows.status().map_err(database_error)?;
        Ok(first)
    }

    /// Up to `entries_max` entries from offset `from` on, and the offset of the first of them, which is later than `from` where
    /// entries are gone.
    pub(crate) fn entries(
        &self,
        queue: QueueId,
        from: u64,
        entries_max: usize,
    ) -> Result<(u64, Vec<Pointer>)> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(BlockKey { queue: QueueId(queue.0 + 1), shard: 0, base: 0 }.encode());
        options.set_iterate_lower_bound(BlockKey { queue, shard: 0, base: 0 }.encode());
        let mut rows = self.db.raw_iterator_opt(options);
        let wanted = BlockKey { queue, shard: SHARD, base: from }.encode();
        rows.seek_for_prev(wanted);
        if !rows.valid() {
            rows.seek(wanted);
        }
        let mut first = from;
        let mut entries: Vec<Pointer> = Vec::new();
        while let Some((key, value)) = rows.item() {
            let Some(key) = BlockKey::decode(key) else { break };
            let block = block::decode(value).map_err(|what| bad_block(key, what))?;
            let skip = first.saturating_sub(key.base) as usize;
            if skip < block.len() {
                if entries.is_empty() {
                    first = first.max(key.base);
                } else if key.base != first + entries.len() as u64 {
                    break;
                }
                let skip = if entries.is_empty() { skip } else { 0 };
                entries.extend(block.into_iter().skip(skip).take(entries_max - entries.len()));
                if entries.len() >= entries_max {
                    break;
                }
            }
            rows.next();
        }
        rows.status().map_err(database_error)?;
        Ok((first, entries))
    }

    /// Writes a batch, without a write-ahead log.
    pub(crate) fn write(&self, batch: IndexBatch) -> Result<()> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db.write_opt(batch.0, &options).map_err(database_error)
    }

    /// Makes what was written durable, so that the log need not be dispatched again from before it.
    pub(crate) fn flush(&self) -> Result<()> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db.flush_opt(&options).map_err(database_error)
    }
}

impl IndexBatch {
    /// All that a checkpoint writes here.
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let mut batch = IndexBatch::default();
        for queue in &snapshot.deleted {
            batch.delete_queue(*queue);
        }
        for (queue, base, entries) in &snapshot.entries {
            batch.entries(*queue, *base, entries);
        }
        for (key, place) in &snapshot.places {
            batch.0.put(place_key(key), cursor::encode_place(*place));
        }
        let mut checkpoint = snapshot.dispatched.to_le_bytes().to_vec();
        checkpoint.extend(snapshot.time_ms.to_le_bytes());
        batch.0.put(CHECKPOINT, checkpoint);
        batch
    }

    /// Adds entries of a queue beginning at offset `base`.
    fn entries(&mut self, queue: QueueId, base: u64, entries: &[Pointer]) {
        let mut base = base;
        for chunk in entries.chunks(block::ENTRIES_MAX) {
            self.0.put(BlockKey { queue, shard: SHARD, base }.encode(), block::encode(chunk));
            base += chunk.len() as u64;
        }
    }

    /// Deletes a queue's entries.
    fn delete_queue(&mut self, queue: QueueId) {
        let from = BlockKey { queue, shard: 0, base: 0 }.encode();
        let to = BlockKey { queue: QueueId(queue.0 + 1), shard: 0, base: 0 }.encode();
        self.0.delete_range(from, to);
    }
}

fn place_key(key: &CursorKey) -> Vec<u8> {
    let mut bytes = vec![PLACE];
    bytes.extend_from_slice(&cursor::encode_key(key));
    bytes
}
