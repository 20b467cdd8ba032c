//! Opening a store: recovery of the log, re-dispatch of what the index lacks, start of the threads.

use std::sync::Arc;
use std::thread::JoinHandle;

use foldhash::HashMap;
use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::{Semaphore, mpsc};

use crate::catalogue::{Catalogue, Change, LiveNames};
use crate::directory::Directory;
use crate::documents::Waiting;
use crate::log::Log;
use crate::log::ballast::Ballast;
use crate::log::cut::Cut;
use crate::log::desk::Desk;
use crate::log::recovery::{self, RecoveredShard};
use crate::log::shard::DurableEnds;
use crate::log::writer::{Command, Writer};
use crate::meta::Meta;
use crate::meta::catalogue::{Entry, Kind, enters};
use crate::meta::cursor::Cursors;
use crate::pool::{Pool, spawn_vital};
use crate::queue::alive::Alive;
use crate::queue::index::Index;
use crate::queue::indexer::{self, FlushedCut, IndexerSignal, Stop};
use crate::queue::routes::Routes;
use crate::queue::table::{Fill, SlotIndex, Table};
use crate::retention::{Deleter, RetentionSignal};
use crate::shared::{Shared, SharedRef};
use crate::store::Handle;
use crate::streams::Streams;
use crate::{Flush, Options, Record, Result, StoreError};

/// Changes of the catalogue that may wait; callers wait past it.
const CHANGES_MAX: usize = 1024;

/// See [`crate::Store::open`].
pub(crate) fn open(options: Options) -> Result<Handle> {
    let directory = Directory::open(&options.dir)?;
    let log_dir = directory.part("log");
    let ballast = Ballast::open(&log_dir)?;
    let meta = Meta::open(&directory.part("meta"), options.flush)?;
    let streams = Streams::open(&meta, &options)?;
    let alive = Arc::new(Alive::default());
    let index = directory.open_index(options.index_cache_bytes, alive.clone())?;
    let checkpoint = index.cut()?;

    let mut queues = Queues::load(&meta, &index, &alive, &options, streams.clone(), &checkpoint)?;
    let count = streams.shards().len();
    let mut entered = Vec::new();
    let recovered = recovery::recover(&log_dir, directory.log_id, count, &checkpoint, |decoded, after| {
        entered.clear();
        queues.routes.queues_of(&decoded.record.topic, &mut entered);
        queues.enter(&decoded.record, &entered);
        let table = queues.table.get_mut();
        if table.waiting_bytes() > options.index_buffer_bytes {
            // Recovery holds no cursors or receipts: the entries alone can go out in between.
            table.dispatched(after.clone(), &DurableEnds::default());
            indexer::write_out(&queues.table, &index, &meta)?;
        }
        Ok(())
    })?;
    let is_whole = |shard: &RecoveredShard| shard.segments.first().is_none_or(|segment| segment.first == 0);
    if checkpoint.sequence == 0 && (queues.has_history || !recovered.shards.iter().all(is_whole)) {
        return Err(StoreError::Database {
            database: "index",
            error:
                "it is gone, and what queues have from before they were made, or before the log's begin, is not derived \
                on the way; `tidemill store rebuild-index` makes it again"
                    .into(),
        });
    }
    let (end, torn_bytes, records) = (recovered.cut.clone(), recovered.torn_bytes, recovered.records);
    if records > 0 {
        tracing::info!(
            records,
            from = checkpoint.sequence,
            to = end.sequence,
            "dispatched again what the index lacked"
        );
    }
    let Queues { mut table, routes, young, .. } = queues;
    table.get_mut().dispatched(end.clone(), &DurableEnds::of(&end));
    put_back(&meta, young.into_values(), end.sequence)?;
    if directory.is_earlier() {
        meta.rewrite_catalogue()?;
    }
    directory.upgrade()?;

    let log = Log::new(log_dir, directory.log_id, ballast, &options, &streams, recovered);
    for shard in log.shards() {
        alive.set_start(shard.number, shard.start());
    }
    let kibibytes = (options.append_queue_bytes / 1024).max(1);
    let shared = Arc::new(Shared {
        options,
        log,
        table,
        routes: RwLock::new(routes),
        alive,
        live_names: RwLock::new(LiveNames::default()),
        returned: Mutex::default(),
        index,
        flushed_cut: FlushedCut::new(checkpoint),
        meta,
        cursors: Cursors::default(),
        documents: Waiting::default(),
        indexer: IndexerSignal::default(),
        index_room: Condvar::new(),
        index_waiting: Mutex::new(()),
        index_fault: Mutex::default(),
        mailbox_room: Semaphore::new(kibibytes),
        filling: Arc::default(),
        retention: RetentionSignal::default(),
        _directory: directory,
    });

    // Every append holds a permit, and there are few others who send.
    let (mailbox, commands) = mpsc::channel(kibibytes + 8);
    let (changes, wanted) = mpsc::channel(CHANGES_MAX);
    let desk = Arc::new(Desk::new(Writer::new(shared.clone(), end)?));
    let for_writer = desk.clone();
    let writer = spawn_vital("store-log", move || for_writer.run(commands))?;
    let mut syncs = Vec::new();
    for shard in shared.log.shards() {
        let (shared, number) = (shared.clone(), shard.number);
        syncs.push(spawn_vital(&format!("store-sync-{number}"), move || sync_shard(&shared, number))?);
    }
    let for_indexer = shared.clone();
    let indexer = spawn_vital("store-index", move || indexer::run(&for_indexer))?;
    let catalogue = Catalogue::new(shared.clone(), wanted, mailbox.clone());
    let catalogue = spawn_vital("store-queues", move || catalogue.run())?;

    let retention = Deleter::new(shared.clone(), mailbox.clone(), changes.clone());
    let retention = spawn_vital("store-retention", move || retention.run())?;

    let threads = Threads {
        shared: shared.clone(),
        retention,
        changes: Some(changes),
        catalogue,
        mailbox: Some(mailbox),
        writer,
        syncs,
        indexer,
    };
    Ok(Handle {
        threads: Mutex::new(Some(threads)),
        desk,
        pool: Pool::new()?,
        redispatched: records,
        torn_bytes,
        kibibytes,
        shared,
    })
}

/// The thread that makes a shard durable.
fn sync_shard(shared: &Shared, number: u16) {
    let Some(shard) = shared.log.shard(number) else { return };
    let pause = (shard.flush == Flush::Async).then_some(shared.options.async_flush_interval);
    shard.sync.run(&shared.log, shard, pause, || {
        shared.table.write().durable_ends_moved(&shared.log.durable_ends());
    });
}

/// What records are dispatched to while the log is recovered.
struct Queues {
    table: RwLock<Table>,
    routes: Routes,
    /// Queues with a filter that counts only from after the checkpoint.
    young: HashMap<SlotIndex, Entry>,
    /// A queue was filled with history.
    has_history: bool,
}

impl Queues {
    fn load(
        meta: &Meta,
        index: &Index,
        alive: &Alive,
        options: &Options,
        streams: Streams,
        checkpoint: &Cut,
    ) -> Result<Self> {
        let mut table = Table::new(options.live_queues_bytes);
        let mut routes = Routes::new(streams);
        let mut young = HashMap::default();
        let mut has_history = false;
        meta.catalogue(|entry| {
            has_history |= entry.past.is_some_and(|past| past.filled);
            let fill = if entry.kind == Kind::Derived { Fill::Derived } else { Fill::Routed };
            let slot = table.insert(entry.id, fill, entry.base);
            alive.insert(entry.id);
            for (filter, _) in &entry.routes {
                routes.add(filter, slot);
            }
            if entry.routes.iter().any(|(_, start)| *start > checkpoint.sequence) {
                young.insert(slot, entry);
            }
            Ok(())
        })?;
        alive.complete();
        index.ends(|queue, end| table.set_end(queue, end))?;
        table.dispatched(checkpoint.clone(), &DurableEnds::of(checkpoint));
        Ok(Queues { table: RwLock::new(table), routes, young, has_history })
    }

    /// Enters a record into its queues.
    fn enter(&mut self, record: &Record, queues: &[SlotIndex]) {
        let table = self.table.get_mut();
        let counts = |queue: &SlotIndex| match self.young.get(queue) {
            Some(entry) => enters(&entry.routes, record),
            None => true,
        };
        if !record.kept {
            for queue in queues.iter().filter(|queue| counts(queue)) {
                table.push(*queue, record.pointer());
            }
        }
        table.note_retained(record.retain, &record.topic, record.pointer());
    }
}

/// A power cut may have taken records that were there when a filter was added. What is stored in their place counts.
fn put_back(meta: &Meta, young: impl Iterator<Item = Entry>, sequence: u64) -> Result<()> {
    let late = young.filter_map(|mut entry| {
        let routes = entry.routes.iter_mut().filter(|(_, start)| *start > sequence);
        let changed = routes.map(|(_, start)| *start = sequence).count();
        (changed > 0).then_some(entry)
    });
    meta.put_queues(&late.collect::<Vec<_>>())
}

/// The store's threads and what ends them.
pub(crate) struct Threads {
    shared: SharedRef,
    retention: JoinHandle<()>,
    pub(crate) changes: Option<mpsc::Sender<Change>>,
    catalogue: JoinHandle<()>,
    pub(crate) mailbox: Option<mpsc::Sender<Command>>,
    writer: JoinHandle<()>,
    /// One for each shard.
    syncs: Vec<JoinHandle<()>>,
    indexer: JoinHandle<()>,
}

impl Threads {
    /// Ends the threads; with [`Stop::Orderly`] everything is written out. Blocks.
    pub(crate) fn stop(self, stop: Stop) {
        // Each thread ends after what was sent to it before. What the catalogue asks is answered by the log writer, what that has written is
        // synced, and what is synced is indexed. A panic of one of them has ended the process.
        self.shared.retention.stop();
        let _ = self.retention.join();
        drop(self.changes);
        let _ = self.catalogue.join();
        drop(self.mailbox);
        let _ = self.writer.join();
        self.shared.log.shards().iter().for_each(|shard| shard.sync.stop());
        self.syncs.into_iter().for_each(|sync| drop(sync.join()));
        self.shared.indexer.stop(stop);
        let _ = self.indexer.join();
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;

    use super::*;
    use crate::{CursorKey, QueueId, Start, Store};

    /// The catalogue's row of a filter queue, as version 1 wrote it.
    fn row_of_version_1(filter: &str) -> Vec<u8> {
        let mut row = vec![1, 1];
        let text = |row: &mut Vec<u8>| {
            row.put_u32_le(filter.len() as u32);
            row.put_slice(filter.as_bytes());
        };
        text(&mut row);
        row.put_u32_le(1);
        text(&mut row);
        row.put_u64_le(0);
        row
    }

    #[tokio::test]
    async fn a_directory_of_format_1_keeps_its_queues_and_cursors() {
        let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1");
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("log")).unwrap();
        std::fs::copy(fixtures.join("FORMAT"), path("FORMAT")).unwrap();
        std::fs::copy(fixtures.join("good.seg"), path("log/0-000000000000.seg")).unwrap();
        {
            let meta = rocksdb::DB::open_default(path("meta")).unwrap();
            let id = QueueId(7);
            meta.put([&[1][..], &id.0.to_be_bytes()].concat(), row_of_version_1("fixtures/#")).unwrap();
            meta.put([2], 1024_u64.to_le_bytes()).unwrap();
            let cursor = [&[3][..], b"session/a", &[0], &id.0.to_be_bytes()].concat();
            meta.put(cursor, [2_u64.to_le_bytes(), 48_u64.to_le_bytes()].concat()).unwrap();
        }
        // Twice: the second time as it was left by the first.
        for _ in 0..2 {
            let store = Store::open(Options::new(dir.path())).unwrap();
            let queue = store.open_filter("fixtures/#").await.unwrap();
            assert_eq!((queue.id, queue.first, queue.end), (QueueId(7), 0, 3));
            let key = CursorKey { owner: "session/a".into(), queue: queue.id };
            assert_eq!(store.open_cursor(key, Start::Latest).await.unwrap().place.offset, 2);
            assert!(store.open_filter("other").await.unwrap().id.0 >= 1024);
            store.close().await.unwrap();
        }
    }
}
