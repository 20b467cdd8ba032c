//! Opening a store: recovery of the log, re-dispatch of what the index lacks, start of the threads.

use std::sync::Arc;
use std::thread::JoinHandle;

use foldhash::HashSet;
use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::{Semaphore, mpsc};

use crate::catalogue::Catalogue;
use crate::directory::Directory;
use crate::log::recovery::{self, Recovered};
use crate::log::sync::SyncQueue;
use crate::log::writer::{Command, Writer};
use crate::log::{Log, SHARD};
use crate::meta::Meta;
use crate::meta::catalogue::Entry;
use crate::meta::cursor::Cursors;
use crate::pool::{Pool, spawn_vital};
use crate::queue::index::{Index, IndexBatch};
use crate::queue::indexer::{self, IndexerSignal, Stop};
use crate::queue::routes::Routes;
use crate::queue::table::{ENTRY_BYTES, Table};
use crate::shared::{Shared, SharedRef};
use crate::store::Handle;
use crate::{Flush, Options, Record, Result};

/// Entries dispatched before the index writes them out, while a store is being opened.
const REDISPATCH_ENTRIES: usize = 1 << 20;

/// See [`crate::Store::open`].
pub(crate) fn open(options: Options) -> Result<Handle> {
    let directory = Directory::open(&options.dir)?;
    let meta = Meta::open(&directory.part("meta"), options.flush)?;
    let index = Index::open(&directory.part("index"))?;
    let mut entries = meta.catalogue()?;
    let (checkpoint, mut last_time_ms) = index.checkpoint()?;

    let mut table = Table::default();
    let mut routes = Routes::default();
    // Queues with a filter that counts only from after the checkpoint.
    let mut young: HashSet<u64> = HashSet::default();
    for entry in &entries {
        for (filter, start) in &entry.routes {
            routes.add(filter, entry.id.0);
            if *start > checkpoint {
                young.insert(entry.id.0);
            }
        }
    }
    let log_dir = directory.part("log");
    let recovered = recovery::recover(&log_dir, directory.log_id, checkpoint, |decoded| {
        let record = decoded.record;
        last_time_ms = record.time_ms;
        for queue in routes.queues(&record.topic).iter() {
            if !young.contains(queue) || enters(&entries, *queue, &record) {
                table.push(&index, *queue, record.pointer())?;
            }
        }
        table.note_retained(record.retain, &record.topic, record.pointer());
        if table.waiting_bytes() > REDISPATCH_ENTRIES * ENTRY_BYTES {
            // Recovery holds no cursors or receipts: the entries alone can go out in between.
            let end = record.position.offset() + u64::from(record.size);
            write_out(&mut table, &index, &meta, (end, record.time_ms))?;
        }
        Ok(())
    })?;
    let Recovered { segments, end, torn_bytes, records } = recovered;
    if records > 0 {
        tracing::info!(records, from = checkpoint, to = end, "dispatched again what the index lacked");
    }
    table.dispatched((end, last_time_ms), end);
    for entry in &mut entries {
        // A power cut may have taken records that were there when a filter was added. What is stored in their place counts.
        let late = entry.routes.iter_mut().filter(|(_, start)| *start > end);
        if late.map(|(_, start)| *start = end).count() > 0 {
            meta.put_queue(entry)?;
        }
    }

    let log = Log::new(log_dir, directory.log_id, &options, segments, end);
    let kibibytes = (options.append_queue_bytes / 1024).max(1);
    let flush = options.flush;
    let pause = (flush == Flush::Async).then_some(options.async_flush_interval);
    let shared = Arc::new(Shared {
        options,
        log,
        table: RwLock::new(table),
        index,
        meta,
        cursors: Cursors::default(),
        sync: SyncQueue::default(),
        indexer: IndexerSignal::default(),
        index_room: Condvar::new(),
        index_waiting: Mutex::new(()),
        index_fault: Mutex::default(),
        mailbox_room: Semaphore::new(kibibytes),
        _directory: directory,
    });

    // Every append holds a permit, and changes of routes come one at a time, so that this is never full.
    let (mailbox, commands) = mpsc::channel(kibibytes + 2);
    let writer = Writer::new(shared.clone(), commands, routes, last_time_ms)?;
    let writer = spawn_vital("store-log", move || writer.run())?;
    let for_sync = shared.clone();
    let sync = spawn_vital("store-sync", move || {
        let shared = &*for_sync;
        shared.sync.run(&shared.log, pause, || {
            shared.table.write().durable_end_moved(shared.log.durable_end().offset());
        });
    })?;
    let for_indexer = shared.clone();
    let indexer = spawn_vital("store-index", move || indexer::run(&for_indexer))?;

    Ok(Handle {
        catalogue: Catalogue::new(entries),
        mailbox: Mutex::new(Some(mailbox)),
        pool: Pool::new()?,
        threads: Mutex::new(vec![writer, sync, indexer]),
        redispatched: records,
        torn_bytes,
        kibibytes,
        shared,
    })
}

/// Whether a record enters a queue, some of whose filters count only from a later position on.
fn enters(entries: &[Entry], queue: u64, record: &Record) -> bool {
    // The catalogue is read in the order of its numbers.
    let Ok(index) = entries.binary_search_by_key(&queue, |entry| entry.id.0) else { return false };
    let routes = entries.get(index).map_or(&[][..], |entry| &entry.routes);
    let at = record.position.offset();
    routes.iter().any(|(filter, start)| *start <= at && crate::filter::matches(filter, &record.topic))
}

/// Writes out what was dispatched so far, while nothing else runs.
fn write_out(table: &mut Table, index: &Index, meta: &Meta, dispatched: (u64, i64)) -> Result<()> {
    table.dispatched(dispatched, dispatched.0);
    let snapshot = table.snapshot();
    meta.put_retained(&snapshot.retained)?;
    index.write(IndexBatch::of(&snapshot))?;
    table.written(&snapshot);
    Ok(())
}

/// The store's threads and what ends them.
pub(crate) struct Threads {
    pub(crate) shared: SharedRef,
    pub(crate) mailbox: Option<mpsc::Sender<Command>>,
    /// Log writer, sync, index: in this order.
    pub(crate) threads: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Ends the threads; with [`Stop::Orderly`] everything is written out. Blocks.
    pub(crate) fn stop(self, stop: Stop) {
        // There is no other sender: the log writer ends after what was sent before.
        drop(self.mailbox);
        let mut threads = self.threads.into_iter();
        // In this order: what the log writer has written is synced, and what is synced is indexed.
        if let Some(writer) = threads.next() {
            let _ = writer.join();
        }
        self.shared.sync.stop();
        if let Some(sync) = threads.next() {
            let _ = sync.join();
        }
        self.shared.indexer.stop(stop);
        if let Some(indexer) = threads.next() {
            let _ = indexer.join();
        }
    }
}

const _: () = assert!(SHARD == 0, "recovery opens one shard");
