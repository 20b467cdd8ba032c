//! [`Store`]: the handle that everything outside uses.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Bound;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytestring::ByteString;
use foldhash::HashMap;
use parking_lot::Mutex;
use tokio::sync::{SemaphorePermit, oneshot};
use uuid::Uuid;

use crate::api::*;
use crate::fault::{self, Call};
use crate::log::desk::Desk;
use crate::log::format;
use crate::log::layout::Layout;
use crate::log::shard::Shard;
use crate::log::writer::Command;
use crate::open::{self, Threads};
use crate::pool::Pool;
use crate::queue::filter;
use crate::queue::indexer::Stop;
use crate::queue::table::Fill;
use crate::shared::SharedRef;
use crate::{NewRecord, Pointer, Position, Record, StoreError, Watcher};

/// What store calls return.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Longest topic in bytes.
const TOPIC_BYTES_MAX: usize = 65_535;
/// How often retained messages are looked up that retention moves meanwhile.
const RETAINED_TRIES: u32 = 10;

/// An open store. Cheap to clone. [`Store::close`] ends it orderly; dropping the last clone without it ends it as the death of
/// the process would.
#[derive(Clone)]
pub struct Store(pub(crate) Arc<Handle>);

/// What the clones of a [`Store`] share.
pub(crate) struct Handle {
    /// What ends the threads, and what they are sent things with; nothing once the store is closed.
    pub(crate) threads: Mutex<Option<Threads>>,
    pub(crate) desk: Arc<Desk>,
    pub(crate) pool: Pool,
    pub(crate) redispatched: u64,
    pub(crate) torn_bytes: u64,
    /// Room of the log writer's mailbox when it is empty.
    pub(crate) kibibytes: usize,
    pub(crate) shared: SharedRef,
}

impl Handle {
    /// What ends the threads; nothing can be sent to them afterwards.
    fn take_threads(&self) -> Option<Threads> {
        // Whoever waits for room in the mailbox hears that the store is closed.
        self.shared.mailbox_room.close();
        self.threads.lock().take()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(threads) = self.take_threads() {
            threads.stop(Stop::Abandon);
        }
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
            if let Some(threads) = threads {
                threads.stop(Stop::Orderly);
            }
            shared.meta.flush().and(shared.log.poisoned().map_or(Ok(()), Err))
        })
        .await
    }

    /// The log's identity, made when the data directory was; part of every event's id.
    #[must_use]
    pub fn log_id(&self) -> Uuid {
        self.0.shared.log.id
    }

    /// Where the log ends, one position for each shard.
    #[must_use]
    pub fn ends(&self) -> Vec<Position> {
        self.0.shared.log.shards().iter().map(|shard| shard.position(shard.end())).collect()
    }

    /// The same of what survives a power cut.
    #[must_use]
    pub fn durable_ends(&self) -> Vec<Position> {
        self.0.shared.log.shards().iter().map(|shard| shard.position(shard.durable_end())).collect()
    }

    /// Whether the record at a position survives a power cut.
    #[must_use]
    pub fn is_durable(&self, position: Position) -> bool {
        self.0.shared.log.is_durable(position)
    }

    /// The [`Record::sequence`] that the next record will get.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.0.shared.log.next_sequence()
    }

    /// Every record of a lower [`Record::sequence`] can be read from its queues, and has rung whoever watches them.
    #[must_use]
    pub fn dispatched_sequence(&self) -> u64 {
        self.0.shared.table.read().cut().sequence
    }

    /// Whether any queue takes records of a topic. Answers from memory.
    #[must_use]
    pub fn takes(&self, topic: &str) -> bool {
        let mut queues = Vec::new();
        self.0.shared.routes.read().queues_of(topic, &mut queues);
        !queues.is_empty()
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
            deleted_segments: counters.deleted_segments.load(Ordering::Relaxed),
            deleted_bytes: counters.deleted_bytes.load(Ordering::Relaxed),
            retained_kept: counters.kept.load(Ordering::Relaxed),
            entries: table.entries(),
            index_buffer_bytes: table.waiting_bytes() as u64,
            live_queues_bytes: table.live_bytes() as u64,
            append_queue_bytes: self.0.kibibytes.saturating_sub(room) as u64 * 1024,
            log_bytes: shared.log.bytes(),
            queues: table.len() as u64,
            redispatched: self.0.redispatched,
            torn_bytes: self.0.torn_bytes,
        }
    }

    /// How each shard of the log stands, by number.
    ///
    /// # Errors
    /// A record cannot be read.
    pub async fn shards(&self) -> Result<Vec<ShardInfo>> {
        self.run(|shared| shared.log.shards().iter().map(Shard::info).collect()).await
    }

    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&SharedRef) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = self.0.shared.clone();
        self.0.pool.run(move || job(&shared)).await
    }

    /// Appends records at once, or hands them to the log writer, in order. Waits for room in its mailbox (that is the
    /// back-pressure); the receipt then waits for durability. Order of submits is order in the log.
    ///
    /// # Errors
    /// A record is too large, or the store is closed. That the disk is full or the log poisoned, the receipt says.
    pub async fn submit(&self, records: Vec<NewRecord>) -> Result<Receipt> {
        fault::called(Call::Submit, &self.0.shared.options.dir);
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
        let mut layout = Layout::with_room(records.len(), bytes);
        records.iter().for_each(|record| layout.push(record, None));
        drop(records);
        let mut layout = match self.0.desk.append(layout) {
            Ok(receipt) => return Ok(Receipt(receipt)),
            Err(layout) => layout,
        };
        layout.route_early(&self.0.shared.routes.read());
        // A batch larger than the mailbox goes alone.
        let permits = (layout.waiting_bytes() / 1024 + 1).min(self.0.kibibytes);
        match self.0.shared.mailbox_room.try_acquire_many(permits as u32) {
            Ok(permit) => self.send_append(layout, permit),
            // Boxed: callers would otherwise keep room for what is waited for rarely.
            Err(_) => Box::pin(self.append_later(layout, permits)).await,
        }
    }

    async fn append_later(&self, layout: Layout, permits: usize) -> Result<Receipt> {
        let room = &self.0.shared.mailbox_room;
        let permit = room.acquire_many(permits as u32).await.map_err(|_| StoreError::Closed)?;
        self.send_append(layout, permit)
    }

    fn send_append(&self, layout: Layout, permit: SemaphorePermit<'_>) -> Result<Receipt> {
        let (reply, receipt) = oneshot::channel();
        let append = Command::Append { layout, permits: permit.num_permits(), reply };
        let threads = self.0.threads.lock();
        let mailbox = threads.as_ref().and_then(|threads| threads.mailbox.as_ref());
        self.0.desk.leave(mailbox.ok_or(StoreError::Closed)?, append)?;
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
        // None at all would look like the end of the queue.
        let request = ReadRequest { records_max: request.records_max.max(1), ..request };
        match self.0.shared.read_hot(request) {
            Some(answer) => answer,
            // Boxed: callers would otherwise keep room for what is done rarely.
            None => Box::pin(self.run(move |shared| shared.read(request))).await,
        }
    }

    /// Reads records by position; `None` for one that retention has deleted.
    ///
    /// # Errors
    /// A record is corrupt or cannot be read.
    pub async fn fetch(&self, pointers: Vec<Pointer>) -> Result<Vec<Option<Record>>> {
        let shared = &self.0.shared;
        let all_there = !pointers.iter().any(|pointer| shared.alive.gone(pointer.position));
        match all_there.then(|| shared.log.read_hot(&pointers)).flatten() {
            Some(answer) => answer.map(|records| records.into_iter().map(Some).collect()),
            None => Box::pin(self.run(move |shared| shared.fetch(&pointers))).await,
        }
    }

    /// Records of the log itself, all or those whose topic matches a filter, by their sequence, as far as each shard is durable. Needs no queue.
    ///
    /// # Errors
    /// The filter is none, no record begins at one of `from`, or a record is corrupt.
    pub async fn scan(&self, request: ScanRequest) -> Result<ScanBatch> {
        if let Some(filter) = &request.filter {
            filter::check(filter).map_err(|what| StoreError::BadFilter { filter: filter.clone(), what })?;
        }
        self.run(move |shared| shared.log.scan(&request)).await
    }

    /// Where the first record of each shard stands that was stored at or after a time (the durable end if none was).
    ///
    /// # Errors
    /// A record is corrupt or cannot be read.
    pub async fn position_at(&self, time_ms: i64) -> Result<Vec<Position>> {
        self.run(move |shared| shared.log.position_at(time_ms)).await
    }

    /// The record that begins at a position; `None` when none does.
    ///
    /// # Errors
    /// It cannot be read, or retention has deleted what was there ([`StoreError::Gone`]).
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
        let find = |(queue, pointer): (QueueId, Pointer)| {
            table.index(queue).map(|index| (index, pointer)).ok_or(StoreError::NoQueue(queue))
        };
        let entries = entries.into_iter().map(find).collect::<Result<Vec<_>>>()?;
        for (index, pointer) in entries {
            table.push(index, pointer);
        }
        table.set_place(source, place);
        table.ring_touched(&shared.log.durable_ends());
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
    /// There is no such queue.
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
        // After the lock: an end that moves from now on rings what is armed here.
        let ends = shared.log.durable_ends();
        table.watch(queue, (offset, durable), &ends, watcher, token)
    }

    /// Takes the watch of this watcher with a token away from the queue; with `None` all of its watches there, which takes
    /// as long as there are others'.
    pub fn unwatch(&self, queue: QueueId, watcher: &Watcher, token: Option<u64>) {
        fault::called(Call::Unwatch, &self.0.shared.options.dir);
        self.0.shared.table.write().unwatch(queue, watcher, token);
    }

    /// [`Store::open_cursors`] for one.
    ///
    /// # Errors
    /// Those of [`Store::open_cursors`].
    pub async fn open_cursor(&self, key: CursorKey, start: Start) -> Result<Cursor> {
        self.open_cursors(vec![(key, start)]).await?.pop().ok_or(StoreError::Closed)
    }

    /// Finds durable cursors, or makes them where they are to start; they are durable when this returns. In the same order.
    ///
    /// A found cursor of a derived queue is placed by its sequence, in case the queue was derived again by other rules. While it
    /// still is being derived, the cursor is at its end: entries up to and including the sequence must be passed over.
    ///
    /// # Errors
    /// A queue does not exist, or the databases cannot be read or written. None is made then.
    pub async fn open_cursors(&self, keys: Vec<(CursorKey, Start)>) -> Result<Vec<Cursor>> {
        self.run(move |shared| {
            let end = |queue| shared.table.read().end(queue).ok_or(StoreError::NoQueue(queue));
            keys.iter().try_for_each(|(key, _)| end(key.queue).map(drop))?;
            let start = |key: &CursorKey, start| {
                let offset = match start {
                    Start::Earliest => shared.first(key.queue)?,
                    Start::Latest => end(key.queue)?,
                    Start::Offset(offset) => offset,
                };
                Ok(CursorPlace { offset, sequence: 0 })
            };
            let wait_durable = || shared.log.wait_durable(&shared.log.cut());
            let cursors = shared.cursors.find_or_create(&shared.meta, &keys, start, wait_durable)?;
            let placed = keys.iter().zip(cursors).map(|((key, _), (cursor, found))| {
                let sequence = cursor.place.sequence;
                let is_derived = shared.table.read().fill(key.queue) == Some(Fill::Derived);
                if !found || !is_derived || sequence == 0 {
                    return Ok(cursor);
                }
                let offset = shared.search(key.queue, |record| record.sequence > sequence)?;
                Ok(Cursor { place: CursorPlace { offset, sequence }, ..cursor })
            });
            placed.collect()
        })
        .await
    }

    /// Moves a cursor. Written with many others at the next checkpoint, and never past the durable end.
    pub fn commit(&self, cursor: CursorId, place: CursorPlace) {
        self.0.shared.cursors.set(cursor, place);
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
        self.run(move |shared| shared.cursors.page(&shared.meta, &owner_prefix, after.as_ref(), limit)).await
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
            let mut tries = 1;
            loop {
                // First what is newest: a checkpoint in between then only writes what was seen already.
                let recent = shared.recent_retained(&filter, after.as_deref(), limit);
                let stored = shared.meta.retained(&filter, after.as_deref(), limit)?;
                // Behind the end of either, if there is more, nothing is known.
                let end_of_recent = recent.last().map(|(topic, _)| topic).filter(|_| recent.len() == limit);
                let end_of_stored = stored.last().map(|(topic, _)| topic).filter(|_| stored.len() == limit);
                let last = end_of_recent.into_iter().chain(end_of_stored).min().cloned();
                let mut page: BTreeMap<String, Pointer> = stored.into_iter().collect();
                for (topic, pointer) in recent {
                    match pointer {
                        Some(pointer) => page.insert(topic, pointer),
                        None => page.remove(&topic),
                    };
                }
                page.retain(|topic, _| last.as_ref().is_none_or(|last| topic <= last));
                if page.is_empty() && last.is_some() {
                    after = last;
                    continue;
                }
                let pointers: Vec<Pointer> = page.into_values().take(limit).collect();
                let records = pointers.iter().map(|pointer| shared.log.read_cold(&[*pointer]));
                match records.collect::<Result<Vec<_>>>() {
                    // It was written again, and its first record deleted, since it was looked up.
                    Err(StoreError::Gone(_)) if tries < RETAINED_TRIES => tries += 1,
                    records => return records.map(|records| records.into_iter().flatten().collect()),
                }
            }
        })
        .await
    }

    /// How many retained messages there are. Looks at the key of each: not for every message.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn retained_count(&self) -> Result<u64> {
        self.run(|shared| {
            // First what is newest: a checkpoint in between then only writes what was seen already.
            let mut recent: HashMap<ByteString, bool> = HashMap::default();
            shared.each_recent_retained(Bound::Unbounded, |topic, pointer| {
                recent.insert(topic.clone(), pointer.is_some());
                true
            });
            let mut count = recent.values().filter(|there| **there).count() as u64;
            shared.meta.every_retained(|topic, _| count += u64::from(!recent.contains_key(topic)))?;
            Ok(count)
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
}
