//! [`Index`]: the RocksDB database of everything that is derived from the log.
//!
//! A checkpoint does not go through RocksDB's write path: its rows are sorted already, so they are written as one file ([`Checkpoint`])
//! that RocksDB takes in whole. Blocks, ends of queues, places of consumers that derive queues and the cut up to
//! which the log was dispatched are there together or not at all; what came later is dispatched again from the cut.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rocksdb::compaction_filter::Decision;
use rocksdb::{
    DB, DBCompactionStyle, DBCompressionType, DBRawIterator, IngestExternalFileOptions, MergeOperands,
    Options, ReadOptions, SstFileWriter, UniversalCompactOptions,
};

use smallvec::SmallVec;

use super::alive::Alive;
use super::block::{self, BLOCK_ENTRIES};
use super::block_key::{self, BlockKey};
use super::ends;
use crate::fault::{self, Point};
use crate::log::cut::Cut;
use crate::meta::cursor;
use crate::{CursorKey, CursorPlace, Pointer, QueueId, Result, StoreError, database};

/// Key of the cut up to which the log is dispatched.
const CUT: &[u8] = &[2];
/// First byte of the key of a deriving consumer's place; the rest is a cursor key.
const PLACE: u8 = 3;

// The order in which a checkpoint writes its rows.
const _: () = assert!(block_key::PREFIX < CUT[0] && CUT[0] < PLACE && PLACE < ends::PREFIX);

/// The database.
pub(crate) struct Index {
    db: DB,
    /// Where files are made that the database then takes in.
    staging: PathBuf,
    /// Number of the next of them.
    files: AtomicU64,
    cache_bytes: usize,
}

fn database_error(error: rocksdb::Error) -> StoreError {
    database::error("index", error.into_string())
}

/// Says which block cannot be read, and why.
pub(crate) fn bad_block(key: BlockKey, what: &str) -> StoreError {
    let (queue, base) = (key.queue.0, key.base);
    StoreError::Database {
        database: "index",
        error: format!(
            "block of queue {queue} at offset {base}: {what}; `tidemill store rebuild-index` derives it again from the log"
        ),
    }
}

fn bad_ends(key: &[u8], what: &str) -> StoreError {
    let key = key.escape_ascii();
    StoreError::Database {
        database: "index",
        error: format!(
            "ends of queues at key {key}: {what}; `tidemill store rebuild-index` derives them again from the log"
        ),
    }
}

fn options(cache_bytes: usize) -> Options {
    let mut options = database::options(cache_bytes);
    // Files come sorted and whole: a few of them side by side cost a read little, and merging all there is for each few new ones would
    // cost much.
    options.set_compaction_style(DBCompactionStyle::Universal);
    options.set_level_zero_file_num_compaction_trigger(8);
    let mut universal = UniversalCompactOptions::default();
    universal.set_min_merge_width(4);
    universal.set_size_ratio(20);
    options.set_universal_compaction_options(&universal);
    options.set_max_background_jobs(2);
    // What nobody writes to again is looked at all the same, so that dead entries go.
    options.set_periodic_compaction_seconds(24 * 60 * 60);
    options.set_merge_operator_associative("tidemill.index", merge);
    options
}

fn merge(key: &[u8], existing: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    let parts: SmallVec<[&[u8]; 8]> = existing.into_iter().chain(operands).collect();
    let parts = parts.iter().copied();
    Some(match key.first() {
        Some(&ends::PREFIX) => ends::merge(parts),
        _ => block::merge(parts),
    })
}

/// What compaction keeps: blocks of queues there are, with a record that is still in the log.
fn keep(alive: &Alive, key: &[u8], value: &[u8]) -> Decision {
    let gone = match key.first() {
        Some(&block_key::PREFIX) => BlockKey::decode(key).is_some_and(|key| {
            let all_gone = |block: block::Block| block.entries.iter().all(|entry| alive.gone(entry.position));
            !alive.has(key.queue) || block::decode(value).is_ok_and(all_gone)
        }),
        Some(&ends::PREFIX) => {
            ends::decode(key, value).is_ok_and(|ends| !ends.0.iter().any(|(queue, _)| alive.has(*queue)))
        }
        _ => false,
    };
    if gone { Decision::Remove } else { Decision::Keep }
}

impl Index {
    /// Opens the database in `path`; files for it are made in `staging`.
    pub(crate) fn open(path: &Path, staging: PathBuf, cache_bytes: usize, alive: Arc<Alive>) -> Result<Self> {
        let mut options = options(cache_bytes);
        options.set_compaction_filter("tidemill.alive", move |_, key: &[u8], value: &[u8]| {
            keep(&alive, key, value)
        });
        let db = DB::open(&options, path).map_err(database_error)?;
        Ok(Index { db, staging, files: AtomicU64::new(0), cache_bytes })
    }

    /// Opens the database to look at it: nothing can be written, and nothing is.
    pub(crate) fn open_to_read(path: &Path, cache_bytes: usize) -> Result<Self> {
        let db = DB::open_for_read_only(&options(cache_bytes), path, false).map_err(database_error)?;
        Ok(Index { db, staging: PathBuf::new(), files: AtomicU64::new(0), cache_bytes })
    }

    /// Up to where every record is in the queues.
    pub(crate) fn cut(&self) -> Result<Cut> {
        let Some(value) = self.db.get(CUT).map_err(database_error)? else { return Ok(Cut::default()) };
        Cut::decode(&value).ok_or_else(|| StoreError::Database {
            database: "index",
            error: "the cut of the last checkpoint cannot be read; `tidemill store rebuild-index` derives the index again"
                .into(),
        })
    }

    /// Where a consumer that derives queues was at the checkpoint.
    pub(crate) fn place(&self, key: &CursorKey) -> Result<Option<CursorPlace>> {
        let value = self.db.get(place_key(key)).map_err(database_error)?;
        Ok(value.as_deref().and_then(cursor::decode_place))
    }

    /// Hands on where each queue ends.
    pub(crate) fn ends(&self, mut each: impl FnMut(QueueId, u64)) -> Result<()> {
        let mut rows = self.rows(&[ends::PREFIX], &[ends::PREFIX + 1]);
        rows.seek_to_first();
        while let Some((key, value)) = rows.item() {
            let ends = ends::decode(key, value).map_err(|what| bad_ends(key, what))?;
            ends.0.into_iter().for_each(|(queue, end)| each(queue, end));
            rows.next();
        }
        rows.status().map_err(database_error)
    }

    /// Where a queue ends; nothing if no checkpoint wrote an entry of it.
    pub(crate) fn end(&self, queue: QueueId) -> Result<Option<u64>> {
        let key = ends::key(queue);
        let Some(row) = self.db.get(key).map_err(database_error)? else { return Ok(None) };
        let ends = ends::decode(&key, &row).map_err(|what| bad_ends(&key, what))?;
        Ok(ends.0.into_iter().find(|(id, _)| *id == queue).map(|(_, end)| end))
    }

    /// The offset of the queue's first entry here from an offset on that `counts`.
    pub(crate) fn first(
        &self,
        queue: QueueId,
        from: u64,
        counts: impl Fn(Pointer) -> bool,
    ) -> Result<Option<u64>> {
        let mut first = None;
        self.blocks(queue, block::base_of(from), |base, block| {
            let mut numbered = (base + block.first..).zip(block.entries);
            let found = numbered.find(|(offset, entry)| *offset >= from && counts(*entry));
            first = found.map(|(offset, _)| offset);
            first.is_none()
        })?;
        Ok(first)
    }

    /// Up to `entries_max` entries from offset `from` on, each with its offset; where entries are gone, later ones.
    pub(crate) fn entries(
        &self,
        queue: QueueId,
        from: u64,
        entries_max: usize,
    ) -> Result<Vec<(u64, Pointer)>> {
        let mut found: Vec<(u64, Pointer)> = Vec::new();
        let mut take = |base: u64, block: block::Block| {
            let numbered = (base + block.first..).zip(block.entries);
            found.extend(numbered.skip_while(|(offset, _)| *offset < from).take(entries_max - found.len()));
            found.len() < entries_max
        };
        hit(Point::IndexRead, self.db.path())?;
        // Most reads end in the block they begin in, which one look-up finds.
        let key = BlockKey::of(queue, from);
        let next = match self.db.get_pinned(key.encode()).map_err(database_error)? {
            Some(value) => {
                let block = block::decode(&value).map_err(|what| bad_block(key, what))?;
                // Only a full block stays as it is. A checkpoint may add to another one before the next is looked at, and what it added
                // would be passed over.
                let is_full = block.first + block.entries.len() as u64 == BLOCK_ENTRIES;
                (take(key.base, block) && is_full).then_some(key.base + BLOCK_ENTRIES)
            }
            None => Some(key.base),
        };
        hit(Point::IndexRead, self.db.path())?;
        if let Some(next) = next {
            self.blocks(queue, next, take)?;
        }
        Ok(found)
    }

    /// Blocks of a queue from base `from` on, with their bases, as long as `each` returns true.
    fn blocks(
        &self,
        queue: QueueId,
        from: u64,
        mut each: impl FnMut(u64, block::Block) -> bool,
    ) -> Result<()> {
        let key = |queue, base| BlockKey { queue: QueueId(queue), base }.encode();
        let mut rows = self.rows(&key(queue.0, from), &key(queue.0 + 1, 0));
        rows.seek_to_first();
        while let Some((key, value)) = rows.item() {
            let Some(key) = BlockKey::decode(key) else { break };
            if !each(key.base, block::decode(value).map_err(|what| bad_block(key, what))?) {
                return Ok(());
            }
            rows.next();
        }
        rows.status().map_err(database_error)
    }

    /// Every block there is, in the order of queues and offsets, undecoded where it cannot be.
    pub(crate) fn every_block(
        &self,
        mut each: impl FnMut(BlockKey, Result<block::Block, &'static str>) -> Result<()>,
    ) -> Result<()> {
        let mut rows = self.rows(&[block_key::PREFIX], &[block_key::PREFIX + 1]);
        rows.seek_to_first();
        while let Some((key, value)) = rows.item() {
            if let Some(key) = BlockKey::decode(key) {
                each(key, block::decode(value))?;
            }
            rows.next();
        }
        rows.status().map_err(database_error)
    }

    /// Hands on the offset of the first entry of each queue that `counts`, in the order of queues.
    pub(crate) fn firsts(
        &self,
        counts: impl Fn(Pointer) -> bool,
        mut each: impl FnMut(QueueId, u64),
    ) -> Result<()> {
        let mut rows = self.rows(&[block_key::PREFIX], &[block_key::PREFIX + 1]);
        rows.seek_to_first();
        while let Some((key, value)) = rows.item() {
            let Some(key) = BlockKey::decode(key) else { break };
            let block = block::decode(value).map_err(|what| bad_block(key, what))?;
            match block.entries.iter().position(|entry| counts(*entry)) {
                None => rows.next(),
                Some(place) => {
                    each(key.queue, key.base + block.first + place as u64);
                    rows.seek(BlockKey { queue: QueueId(key.queue.0 + 1), base: 0 }.encode());
                }
            }
        }
        rows.status().map_err(database_error)
    }

    /// Every place of a consumer that derives queues.
    pub(crate) fn every_place(&self) -> Result<Vec<(CursorKey, CursorPlace)>> {
        let mut found = Vec::new();
        let mut rows = self.rows(&[PLACE], &[PLACE + 1]);
        rows.seek_to_first();
        while let Some((key, value)) = rows.item() {
            let key = key.get(1..).and_then(cursor::decode_key);
            found.extend(key.zip(cursor::decode_place(value)));
            rows.next();
        }
        rows.status().map_err(database_error)?;
        Ok(found)
    }

    fn rows(&self, from: &[u8], to: &[u8]) -> DBRawIterator<'_> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound(to);
        self.db.raw_iterator_opt(options)
    }

    /// Files that wait to be merged: past some dozens of them, readers pay.
    pub(crate) fn unmerged_files(&self) -> u64 {
        self.db.property_int_value("rocksdb.num-files-at-level0").ok().flatten().unwrap_or(0)
    }

    /// Rewrites all of it.
    #[cfg(test)]
    fn compact(&self) {
        let mut options = rocksdb::CompactOptions::default();
        options.set_bottommost_level_compaction(rocksdb::BottommostLevelCompaction::Force);
        self.db.compact_range_opt(None::<&[u8]>, None::<&[u8]>, &options);
    }

    /// Deletes the entries of a queue before the block that begins at `to`.
    pub(crate) fn clear(&self, queue: QueueId, to: u64) -> Result<()> {
        let (from, to) = (BlockKey { queue, base: 0 }.encode(), BlockKey { queue, base: to }.encode());
        self.write(|checkpoint| checkpoint.file.delete_range(from, to).map_err(database_error))
    }

    /// Writes a checkpoint: `fill` adds its rows, sorted by key. Durable when this returns.
    pub(crate) fn write(&self, fill: impl FnOnce(&mut Checkpoint<'_>) -> Result<()>) -> Result<()> {
        let path = self.staging.join(format!("{}.sst", self.files.fetch_add(1, Ordering::Relaxed)));
        let result = self.stage(&path, fill).and_then(|()| self.ingest(&path));
        if result.is_err() {
            // It is tried again with another file, and the disk may be full: not one may stay. There may be none.
            let _ = std::fs::remove_file(&path);
        }
        result
    }

    fn stage(&self, path: &Path, fill: impl FnOnce(&mut Checkpoint<'_>) -> Result<()>) -> Result<()> {
        let mut options = options(self.cache_bytes);
        // It is read once or twice before it is merged into a larger one, which is compressed.
        options.set_compression_type(DBCompressionType::None);
        let file = SstFileWriter::create(&options);
        hit(Point::IndexOpen, path)?;
        file.open(path).map_err(database_error)?;
        let mut checkpoint = Checkpoint { file, buffer: Vec::new() };
        hit(Point::IndexWrite, path)?;
        fill(&mut checkpoint)?;
        hit(Point::IndexFinish, path)?;
        checkpoint.file.finish().map_err(database_error)
    }

    fn ingest(&self, path: &Path) -> Result<()> {
        hit(Point::IndexIngest, path)?;
        let mut ingest = IngestExternalFileOptions::default();
        ingest.set_move_files(true);
        self.db.ingest_external_file_opts(&ingest, vec![path]).map_err(database_error)
    }
}

/// Where unit tests make the database fail.
fn hit(point: Point, path: &Path) -> Result<()> {
    fault::hit(point, path).map_err(|error| database::error("index", error.to_string()))
}

/// The rows of a checkpoint: blocks, then the cut, then places, then ends, each in the order of their keys.
pub(crate) struct Checkpoint<'a> {
    file: SstFileWriter<'a>,
    /// For the part that is being encoded.
    buffer: Vec<u8>,
}

impl Checkpoint<'_> {
    /// Entries of a queue beginning at offset `from`.
    pub(crate) fn entries(&mut self, queue: QueueId, from: u64, entries: &[Pointer]) -> Result<()> {
        let (mut from, mut rest) = (from, entries);
        while !rest.is_empty() {
            let key = BlockKey::of(queue, from);
            let first = from - key.base;
            let (now, later) = rest.split_at(rest.len().min((BLOCK_ENTRIES - first) as usize));
            self.buffer.clear();
            block::encode(first, now, &mut self.buffer);
            self.file.merge(key.encode(), &self.buffer).map_err(database_error)?;
            from += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    pub(crate) fn cut(&mut self, cut: &Cut) -> Result<()> {
        self.file.put(CUT, cut.encode()).map_err(database_error)
    }

    /// Places, sorted by key.
    pub(crate) fn places(&mut self, places: &[(CursorKey, CursorPlace)]) -> Result<()> {
        for (key, place) in places {
            self.file.put(place_key(key), cursor::encode_place(*place)).map_err(database_error)?;
        }
        Ok(())
    }

    /// Ends, sorted by queue.
    pub(crate) fn ends(&mut self, ends: &[(QueueId, u64)]) -> Result<()> {
        for row in ends.chunk_by(|a, b| a.0.0 / ends::ROW_QUEUES == b.0.0 / ends::ROW_QUEUES) {
            if let Some((queue, _)) = row.first() {
                self.file.merge(ends::key(*queue), ends::encode(row)).map_err(database_error)?;
            }
        }
        Ok(())
    }
}

fn place_key(key: &CursorKey) -> Vec<u8> {
    let mut bytes = vec![PLACE];
    bytes.extend_from_slice(&cursor::encode_key(key));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Position;

    #[test]
    fn compaction_drops_nothing_before_it_is_known_what_counts() {
        let dir = tempfile::tempdir().unwrap();
        let staging = dir.path().join("staging");
        std::fs::create_dir(&staging).unwrap();
        let alive = Arc::new(Alive::default());
        let open =
            || Index::open(&dir.path().join("index"), staging.clone(), 1 << 20, alive.clone()).unwrap();
        let queue = QueueId(5);
        let entry = |place| [Pointer { position: Position::new(0, 48 + 50 * place), size: 50 }];
        let found = |index: &Index| {
            let mut all = rocksdb::CompactOptions::default();
            all.set_bottommost_level_compaction(rocksdb::BottommostLevelCompaction::Force);
            index.db.compact_range_opt(None::<&[u8]>, None::<&[u8]>, &all);
            let mut ends = Vec::new();
            index.ends(|queue, end| ends.push((queue, end))).unwrap();
            (index.entries(queue, 0, 9).unwrap().len(), ends)
        };
        let index = open();
        for place in 0..2 {
            let write = |file: &mut Checkpoint<'_>| {
                file.entries(queue, place, &entry(place))?;
                file.ends(&[(queue, place + 1)])
            };
            index.write(write).unwrap();
        }
        drop(index);
        // As it is opened, before the catalogue was read.
        let index = open();
        assert_eq!(found(&index), (2, vec![(queue, 2)]));
        alive.insert(queue);
        alive.complete();
        assert_eq!(found(&index), (2, vec![(queue, 2)]));
        assert!(std::fs::read_dir(&staging).unwrap().next().is_none(), "nothing stays there");
    }

    #[test]
    fn compaction_drops_entries_whose_records_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (path, staging) = (dir.path().join("index"), dir.path().join("staging"));
        std::fs::create_dir(&staging).unwrap();
        let alive = Arc::new(Alive::default());
        let (queue, other) = (QueueId(1), QueueId(2));
        alive.insert(queue);
        alive.insert(other);
        alive.complete();
        let index = Index::open(&path, staging, 1 << 20, alive.clone()).unwrap();
        let count = 4 * BLOCK_ENTRIES;
        // Of two shards in turn.
        let pointer = |n: u64| Pointer { position: Position::new((n % 2) as u16, n * 100), size: 100 };
        let pointers: Vec<Pointer> = (0..count).map(pointer).collect();
        index
            .write(|file| {
                file.entries(queue, 0, &pointers)?;
                file.entries(other, 0, &pointers[..1])
            })
            .unwrap();
        let blocks = || {
            let mut bases = Vec::new();
            let collect = |key: BlockKey, _| {
                bases.push((key.queue, key.base));
                Ok(())
            };
            index.every_block(collect).unwrap();
            bases
        };
        // Parts of blocks become blocks when they are compacted first, which are looked at when they are the next time.
        let compact = || (0..2).for_each(|_| index.compact());
        let all: Vec<_> = (0..4).map(|block| (queue, block * BLOCK_ENTRIES)).collect();
        compact();
        assert_eq!(blocks(), [&all[..], &[(other, 0)]].concat());
        alive.set_start(0, 2 * BLOCK_ENTRIES * 100);
        compact();
        assert_eq!(blocks().len(), 4, "the other shard still has its records; the other queue's one is gone");
        alive.set_start(1, 2 * BLOCK_ENTRIES * 100 + 50);
        compact();
        assert_eq!(blocks(), &all[2..]);
        let counts = |pointer: Pointer| !alive.gone(pointer.position);
        assert_eq!(index.first(queue, 0, counts).unwrap(), Some(2 * BLOCK_ENTRIES));
        assert_eq!(index.first(queue, 2 * BLOCK_ENTRIES + 7, counts).unwrap(), Some(2 * BLOCK_ENTRIES + 7));
        let read = index.entries(queue, 5, 3).unwrap();
        let offsets: Vec<u64> = read.iter().map(|(offset, _)| offset - 2 * BLOCK_ENTRIES).collect();
        assert_eq!(offsets, [0, 1, 2]);
    }
}
