//! Opening a store: recovery of the log, re-dispatch of what the index lacks, start of the threads.

use std::sync::Arc;
use std::thread::JoinHandle;

use foldhash::HashMap;
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
use crate::pool::{Pool, spawn};
use crate::queue::index::Index;
use crate::queue::indexer::{self, IndexerSignal, Stop};
use crate::queue::routes::Routes;
use crate::queue::table::{ENTRY_BYTES, Table};
use crate::shared::{Shared, SharedRef};
use crate::store::Handle;
use crate::{Flush, Options, Result, Retain};

/// Entries dispatched before the index writes them out, while a store is being opened.
const REDISPATCH_ENTRIES: usize = 1 << 20;

/// See [`crate::Store::open`].
pub(crate) fn open(options: Options) -> Result<Handle> {
    let directory = Directory::open(&options.dir)?;
    let meta = Meta::open(&directory.part("meta"), options.flush)?;
    let index = Index::open(&directory.part("index"))?;
    let entries = meta.catalogue()?;
    let checkpoint = index.checkpoint()?;

    let mut table = Table::default();
    let mut routes = Routes::default();
    let mut starts: HashMap<u64, Vec<(String, u64)>> = HashMap::default();
    for entry in &entries {
        for (filter, start) in &entry.routes {
            routes.add(filter, entry.id.0);
            if *start > checkpoint {
                starts.entry(entry.id.0).or_default().push((filter.clone(), *start));
            }
        }
    }
    let mut last_time_ms = 0;
    let log_dir = directory.part("log");
    let recovered =
        recovery::recover(&log_dir, directory.log_id, checkpoint, options.record_bytes_max, |decoded| {
            let record = decoded.record;
            last_time_ms = record.time_ms;
            for queue in routes.queues(&record.topic).iter() {
                if let Some(later) = starts.get(queue)
                    && !entered(&entries, *queue, later, &record.topic, record.position.offset())
                {
                    continue;
                }
                table.push(&index, *queue, record.pointer())?;
            }
            let pointer = record.pointer();
            match record.retain {
                Retain::No => {}
                Retain::Set => table.retain((*record.topic).into(), Some(pointer)),
                Retain::Clear => table.retain((*record.topic).into(), None),
            }
            if table.waiting_bytes() > REDISPATCH_ENTRIES * ENTRY_BYTES {
                // Recovery holds no cursors or receipts: the entries alone can go out in between.
                flush_entries(&mut table, &index, &meta, record.position.offset() + u64::from(record.size))?;
            }
            Ok(())
        })?;
    let Recovered { segments, end, torn_bytes, records } = recovered;
    if records > 0 {
        tracing::info!(records, from = checkpoint, to = end, "dispatched again what the index lacked");
    }
    table.dispatched(end, end);

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
        mailbox_room: Semaphore::new(kibibytes),
        _directory: directory,
    });

    // Every append holds a permit, and changes of routes come one at a time, so that this is never full.
    let (mailbox, commands) = mpsc::channel(kibibytes + 2);
    let writer = Writer::new(shared.clone(), commands, routes, last_time_ms)?;
    let writer = spawn("store-log", move || writer.run())?;
    let for_sync = shared.clone();
    let sync = spawn("store-sync", move || {
        let shared = &*for_sync;
        shared.sync.run(&shared.log, pause, || {
            shared.table.write().durable_end_moved(shared.log.durable_end().offset());
        });
    })?;
    let for_indexer = shared.clone();
    let indexer = spawn("store-index", move || indexer::run(&for_indexer))?;

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

/// Whether a record at `offset` enters a queue, some of whose filters count only from later offsets on.
fn entered(entries: &[Entry], queue: u64, later: &[(String, u64)], topic: &str, offset: u64) -> bool {
    let Some(entry) = entries.iter().find(|entry| entry.id.0 == queue) else { return false };
    entry.routes.iter().any(|(filter, start)| *start <= offset && crate::filter::matches(filter, topic))
        || later.is_empty()
}

fn flush_entries(table: &mut Table, index: &Index, meta: &Meta, dispatched: u64) -> Result<()> {
    table.dispatched(dispatched, dispatched);
    let snapshot = table.snapshot();
    meta.put_retained(&snapshot.retained)?;
    let mut batch = crate::queue::index::IndexBatch::default();
    for (queue, base, entries) in &snapshot.entries {
        batch.entries(*queue, *base, entries);
    }
    batch.checkpoint(dispatched);
    index.write(batch)?;
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
