//! [`Store`]: the handle that everything outside uses.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::api::*;
use crate::catalogue::Catalogue;
use crate::log::format;
use crate::log::writer::Command;
use crate::meta::catalogue::Kind;
use crate::open::{self, Threads};
use crate::pool::Pool;
use crate::queue::filter;
use crate::queue::indexer::Stop;
use crate::shared::SharedRef;
use crate::{NewRecord, Pointer, Position, Record, StoreError, Watcher};

/// What store calls return.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Longest topic in bytes.
const TOPIC_BYTES_MAX: usize = 65_535;

/// An open store. Cheap to clone. [`Store::close`] ends it orderly; dropping the last clone without it ends it as the death of
/// the process would.
#[derive(Clone)]
pub struct Store(pub(crate) Arc<Handle>);

/// What the clones of a [`Store`] share.
pub(crate) struct Handle {
    pub(crate) catalogue: Catalogue,
    pub(crate) mailbox: Mutex<Option<mpsc::Sender<Command>>>,
    pub(crate) pool: Pool,
    /// Log writer, sync, index: in this order.
    pub(crate) threads: Mutex<Vec<JoinHandle<()>>>,
    pub(crate) redispatched: u64,
    pub(crate) torn_bytes: u64,
    /// Room of the log writer's mailbox when it is empty.
    pub(crate) kibibytes: usize,
    pub(crate) shared: SharedRef,
}

impl Handle {
    /// What ends the threads; nothing can be sent to the log writer afterwards.
    fn take_threads(&self) -> Threads {
        let (mailbox, threads) = (self.mailbox.lock().take(), std::mem::take(&mut *self.threads.lock()));
        // Whoever waits for room in the mailbox hears that the store is closed.
        self.shared.mailbox_room.close();
        Threads { shared: self.shared.clone(), mailbox, threads }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.take_threads().stop(Stop::Abandon);
    }
}

/// Resolves once the records of one [`Store::submit`] are as durable as the store promises.
#[derive(Debug)]
pub struct Receipt(oneshot::Receiver<Result<Appended>>);

impl Future for Receipt {
    type Output = Result<Appended>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or(Err(StoreError::Closed)))
    }
}

impl Store {
    /// Opens the data directory, cuts a torn tail, dispatches again what the index lacks, and starts the
    /// store's threads. Blocks: call it off the async threads.
    ///
    /// # Errors
    /// The directory is locked, unreadable or of a newer version, or the log is corrupt.
    pub fn open(options: Options) -> Result<Store> {
        open::open(options).map(|handle| Store(Arc::new(handle)))
    }

    /// Refuses records, writes out everything and stops the threads. The directory is released with the last clone.
    ///
    /// # Errors
    /// What could not be written; the log has every acknowledged record all the same.
    pub async fn close(&self) -> Result<()> {
        let threads = self.0.take_threads();
        self.run(move |shared| {
            threads.stop(Stop::Orderly);
            shared.meta.flush().and(shared.log.poisoned().map_or(Ok(()), Err))
        })
        .await
    }

    /// The log's identity, made when the data directory was; part of every event's id.
    #[must_use]
    pub fn log_id(&self) -> Uuid {
        self.0.shared.log.id
    }

    /// Where the next record will go.
    #[must_use]
    pub fn end(&self) -> Position {
        self.0.shared.log.end()
    }

    /// Everything before this position survives a power cut.
    #[must_use]
    pub fn durable_end(&self) -> Position {
        self.0.shared.log.durable_end()
    }

    /// Why the store refuses records, if it does.
    #[must_use]
    pub fn fault(&self) -> Option<StoreError> {
        let shared = &self.0.shared;
        shared.log.fault().or_else(|| shared.index_fault.lock().clone())
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = &self.0.shared;
        let counters = &shared.log.counters;
        let table = shared.table.read();
        let room = shared.mailbox_room.available_permits();
        Stats {
            records: counters.records.load(Ordering::Relaxed),
            bytes: counters.bytes.load(Ordering::Relaxed),
            batches: counters.batches.load(Ordering::Relaxed),
            syncs: counters.syncs.load(Ordering::Relaxed),
            entries: table.entries(),
            index_buffer_bytes: table.waiting_bytes() as u64,
            append_queue_bytes: self.0.kibibytes.saturating_sub(room) as u64 * 1024,
            log_bytes: shared.log.bytes(),
            queues: self.0.catalogue.len() as u64,
            redispatched: self.0.redispatched,
            torn_bytes: self.0.torn_bytes,
        }
    }

    pub(crate) fn send(&self, command: Command) -> Result<()> {
        let mailbox = self.0.mailbox.lock();
        mailbox.as_ref().and_then(|mailbox| mailbox.try_send(command).ok()).ok_or(StoreError::Closed)
    }

    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&SharedRef) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = self.0.shared.clone();
        self.0.pool.run(move || job(&shared)).await
    }

    /// Hands records to the log writer, in order. Waits for room in its mailbox (that is the
    /// back-pressure); the receipt then waits for durability. Order of submits is order in the log.
    ///
    /// # Errors
    /// A record is too large, or the store is closed. That the disk is full or the log poisoned, the receipt says.
    pub async fn submit(&self, records: Vec<NewRecord>) -> Result<Receipt> {
        let max = self.0.shared.options.record_bytes_max as usize;
        let mut bytes = 0;
        for record in &records {
            let size = format::encoded_size(record);
            if size > max || record.topic.len() > TOPIC_BYTES_MAX {
                let topic = record.topic.chars().take(80).collect();
                return Err(StoreError::TooLarge { topic, size, max });
            }
            bytes += size;
        }
        // A batch larger than the mailbox goes alone.
        let permits = (bytes / 1024 + 1).min(self.0.kibibytes);
        let room = &self.0.shared.mailbox_room;
        let permit = room.acquire_many(permits as u32).await.map_err(|_| StoreError::Closed)?;
        let (reply, receipt) = oneshot::channel();
        self.send(Command::Append { records, permits, reply })?;
        permit.forget();
        Ok(Receipt(receipt))
    }

    /// [`Store::submit`] and its receipt in one.
    ///
    /// # Errors
    /// Those of both.
    pub async fn append(&self, records: Vec<NewRecord>) -> Result<Appended> {
        self.submit(records).await?.await
    }

    /// Reads records. Answers at once from memory when it can, otherwise off the async threads.
    ///
    /// # Errors
    /// A record is corrupt or cannot be read.
    pub async fn read(&self, request: ReadRequest) -> Result<ReadBatch> {
        match self.0.shared.read_hot(request) {
            Some(answer) => answer,
            None => self.run(move |shared| shared.read(request)).await,
        }
    }

    /// Reads records by position.
    ///
    /// # Errors
    /// A record is corrupt or cannot be read.
    pub async fn fetch(&self, pointers: Vec<Pointer>) -> Result<Vec<Record>> {
        match self.0.shared.log.read_hot(&pointers) {
            Some(answer) => answer,
            None => self.run(move |shared| shared.log.read_cold(&pointers)).await,
        }
    }

    /// Records of the log itself whose topic matches a filter, in the log's order, as far as the log is durable. Needs no queue.
    ///
    /// # Errors
    /// The filter is none, no record begins at `from`, or a record is corrupt.
    pub async fn scan(&self, request: ScanRequest) -> Result<ScanBatch> {
        filter::check(&request.filter)
            .map_err(|what| StoreError::BadFilter { filter: request.filter.clone(), what })?;
        self.run(move |shared| shared.log.scan(&request)).await
    }

    /// Where the first record stands that was stored at or after a time (the durable end if none was).
    ///
    /// # Errors
    /// A record is corrupt or cannot be read.
    pub async fn position_at(&self, time_ms: i64) -> Result<Position> {
        self.run(move |shared| shared.log.position_at(time_ms)).await
    }

    /// The record that begins at a position; `None` when none does.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn record_at(&self, position: Position) -> Result<Option<Record>> {
        self.run(move |shared| shared.log.record_at(position)).await
    }

    /// The first offset of a queue whose record was stored at or after a time (its end if none was).
    ///
    /// # Errors
    /// A record is corrupt or cannot be read.
    pub async fn offset_at(&self, queue: QueueId, time_ms: i64) -> Result<u64> {
        self.run(move |shared| shared.search(queue, |record| record.time_ms >= time_ms)).await
    }

    /// Appends pointers to derived queues and moves the place of the consumer that derived them, in
    /// one step: after a crash both are there or neither is. Pointers to one queue must come in the log's order.
    ///
    /// # Errors
    /// The index cannot be read.
    pub async fn derive(
        &self,
        source: CursorKey,
        place: CursorPlace,
        entries: Vec<(QueueId, Pointer)>,
    ) -> Result<()> {
        let shared = &self.0.shared;
        if shared.table.read().waiting_bytes() > shared.options.index_buffer_bytes {
            self.run(|shared| shared.wait_for_index_room()).await?;
        }
        let mut table = shared.table.write();
        // All or none: a caller that tries again must not find half of it done.
        for (queue, _) in &entries {
            table.prepare(&shared.index, queue.0)?;
        }
        for (queue, pointer) in entries {
            table.push(&shared.index, queue.0, pointer)?;
        }
        table.set_place(source, place);
        table.ring_touched(shared.log.durable_end().offset());
        Ok(())
    }

    /// Where [`Store::derive`] left the consumer, if it ever derived.
    ///
    /// # Errors
    /// The index cannot be read.
    pub async fn derived_to(&self, source: &CursorKey) -> Result<Option<CursorPlace>> {
        if let Some(place) = self.0.shared.table.read().place(source) {
            return Ok(Some(place));
        }
        let source = source.clone();
        self.run(move |shared| shared.index.place(&source)).await
    }

    /// Arms a one-shot watch: `watcher` is rung with `token` once the queue's end is past `offset` (with
    /// `durable`: its durable end). Rung at once if it is already. Arming again replaces.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn watch(
        &self,
        queue: QueueId,
        offset: u64,
        durable: bool,
        watcher: &Watcher,
        token: u64,
    ) -> Result<()> {
        let shared = &self.0.shared;
        let mut table = shared.table.write();
        let durable_end = shared.log.durable_end().offset();
        table.watch(&shared.index, queue, (offset, durable, durable_end), watcher, token)
    }

    /// Takes the watches of this watcher on the queue away.
    pub fn unwatch(&self, queue: QueueId, watcher: &Watcher) {
        self.0.shared.table.write().unwatch(queue, watcher, None);
    }

    /// Finds a durable cursor, or makes it at `start`; it is durable when this returns.
    ///
    /// A found cursor of a derived queue is placed by its position, in case the queue was derived again by other rules. While it
    /// still is being derived, the cursor is at its end: entries up to and including the position must be passed over.
    ///
    /// # Errors
    /// The databases cannot be read or written.
    pub async fn open_cursor(&self, key: CursorKey, start: Start) -> Result<CursorPlace> {
        let entry = self.0.catalogue.get(key.queue).ok_or(StoreError::NoQueue(key.queue))?;
        self.run(move |shared| {
            let (place, found) = shared.cursors.find_or_create(&shared.meta, &key, || {
                let offset = match start {
                    Start::Earliest => shared.first(key.queue)?,
                    Start::Latest => shared.table.write().end(&shared.index, key.queue)?,
                    Start::Offset(offset) => offset,
                };
                // After a power cut, other records would have the offsets that this cursor has passed.
                shared.sync.wait_durable(&shared.log, shared.log.end().offset())?;
                Ok(CursorPlace { offset, position: Position::ZERO })
            })?;
            if found && entry.kind == Kind::Derived && place.position != Position::ZERO {
                let offset = shared.search(key.queue, |record| record.position > place.position)?;
                return Ok(CursorPlace { offset, ..place });
            }
            Ok(place)
        })
        .await
    }

    /// Moves a cursor. Written with many others at the next checkpoint, and never past the durable end.
    pub fn commit(&self, key: &CursorKey, place: CursorPlace) {
        self.0.shared.cursors.set(key, place);
    }

    /// Deletes an owner's cursor in one queue.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn delete_cursor(&self, key: &CursorKey) -> Result<()> {
        let key = key.clone();
        self.run(move |shared| shared.cursors.delete(&shared.meta, &key)).await
    }

    /// Cursors by owner and queue, of owners that begin with `owner_prefix`, after `after`.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn cursors(
        &self,
        owner_prefix: &str,
        after: Option<CursorKey>,
        limit: usize,
    ) -> Result<Vec<(CursorKey, CursorPlace)>> {
        let owner_prefix = owner_prefix.to_owned();
        self.run(move |shared| {
            let mut found = shared.meta.cursors(&owner_prefix, after.as_ref(), limit)?;
            for (key, place) in &mut found {
                if let Some(moved) = shared.cursors.get(key) {
                    *place = moved;
                }
            }
            Ok(found)
        })
        .await
    }

    /// Writes buffered index entries, retained pointers and cursors out now, and makes them durable: after a crash, the log
    /// is dispatched again from here at the earliest.
    ///
    /// # Errors
    /// What could not be written; it is tried again later.
    pub async fn checkpoint(&self) -> Result<()> {
        self.run(|shared| shared.indexer.checkpoint()).await
    }

    /// Retained messages whose topic matches the filter, in topic order after topic `after`. An empty page is the end.
    ///
    /// # Errors
    /// The filter is none, or a record cannot be read.
    pub async fn retained(&self, filter: &str, after: Option<&str>, limit: usize) -> Result<Vec<Record>> {
        filter::check(filter).map_err(|what| StoreError::BadFilter { filter: filter.to_owned(), what })?;
        let filter = filter.to_owned();
        let mut after = after.map(str::to_owned);
        self.run(move |shared| {
            loop {
                // First what is newest: a checkpoint in between then only writes what was seen already.
                let recent: Vec<(String, Option<Pointer>)> = {
                    let table = shared.table.read();
                    let matching =
                        table.recent_retained().filter(|(topic, _)| filter::matches(&filter, topic));
                    matching.map(|(topic, pointer)| (topic.to_string(), pointer)).collect()
                };
                let stored = shared.meta.retained(&filter, after.as_deref(), limit)?;
                let last = stored.last().map(|(topic, _)| topic.clone()).filter(|_| stored.len() == limit);
                let mut page: BTreeMap<String, Pointer> = stored.into_iter().collect();
                for (topic, pointer) in recent {
                    let after = after.as_ref().is_none_or(|after| topic > *after);
                    let before = last.as_ref().is_none_or(|last| topic <= *last);
                    match pointer {
                        Some(pointer) if after && before => {
                            page.insert(topic, pointer);
                        }
                        _ => {
                            page.remove(&topic);
                        }
                    }
                }
                if page.is_empty() && last.is_some() {
                    after = last;
                    continue;
                }
                let pointers: Vec<Pointer> = page.into_values().take(limit).collect();
                let mut records = Vec::with_capacity(pointers.len());
                for pointer in pointers {
                    records.extend(shared.log.read_cold(&[pointer])?);
                }
                return Ok(records);
            }
        })
        .await
    }

    /// Writes dead letters of the consumer `owner` as durably as the store promises. There is one for each record: a later
    /// one replaces it. How many the owner has then.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn put_dead_letters(&self, owner: &str, letters: Vec<DeadLetter>) -> Result<u64> {
        let owner = owner.to_owned();
        self.run(move |shared| shared.meta.put_dead_letters(&owner, &letters)).await
    }

    /// Dead letters of an owner in the log's order, each with the number of its position ([`Position::to_u64`]), from the number
    /// `from` on.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn dead_letters(&self, owner: &str, from: u64, limit: usize) -> Result<Vec<(u64, DeadLetter)>> {
        let owner = owner.to_owned();
        self.run(move |shared| shared.meta.dead_letters(&owner, from, limit)).await
    }

    /// How many dead letters an owner has.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn dead_letter_count(&self, owner: &str) -> Result<u64> {
        let owner = owner.to_owned();
        self.run(move |shared| shared.meta.dead_letter_count(&owner)).await
    }

    /// Writes a document, as durable as the store promises when this returns.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn put_document(&self, collection: Collection, key: &str, value: Bytes) -> Result<()> {
        let key = key.to_owned();
        self.run(move |shared| shared.meta.put_document(collection, &key, &value)).await
    }

    /// Reads a document.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn document(&self, collection: Collection, key: &str) -> Result<Option<Bytes>> {
        let key = key.to_owned();
        self.run(move |shared| shared.meta.document(collection, &key)).await
    }

    /// Deletes a document.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn delete_document(&self, collection: Collection, key: &str) -> Result<()> {
        let key = key.to_owned();
        self.run(move |shared| shared.meta.delete_document(collection, &key)).await
    }

    /// Documents in key order after `after`.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn documents(
        &self,
        collection: Collection,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Documents> {
        let after = after.map(str::to_owned);
        self.run(move |shared| shared.meta.documents(collection, after.as_deref(), limit)).await
    }
}
