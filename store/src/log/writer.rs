//! The thread that appends: it takes what waits in its mailbox as one batch, writes it with one call for each shard, enters
//! it into the queues, and goes on while the batch is being synced.
//!
//! It is one thread for all shards: a queue has one sequence of offsets over all of them, which are given here, in one place.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;
use tokio::sync::{mpsc, oneshot};

use super::age::now_ms;
use super::appender::{Appender, Incoming};
use super::cut::Cut;
use super::receipt::{Receipt, Reply};
use super::{Log, format};
use crate::queue::routes::Routes;
use crate::queue::table::SlotIndex;
use crate::shared::{Routed, Shared};
use crate::{Appended, Flush, NewRecord, Pointer, Record, Result, StoreError};

/// Records are gathered into one write up to about this many bytes.
const BATCH_BYTES: usize = 1 << 20;

/// What the writer is asked to do, in order.
#[derive(Debug)]
pub(crate) enum Command {
    /// Appends records.
    Append { records: Vec<NewRecord>, permits: usize, reply: Reply },
    /// From here on, records that match these filters go to these queues. Answers with the place before the next one.
    AddRoutes { routes: Vec<(String, SlotIndex)>, reply: oneshot::Sender<Cut> },
    /// From here on, they do not.
    RemoveRoutes { routes: Vec<(String, SlotIndex)>, reply: oneshot::Sender<()> },
    /// Appends retained messages again that still are their topics', without entering them into a queue.
    Keep { records: Vec<Record>, reply: oneshot::Sender<Result<()>> },
    /// Seals the active segment of a shard and begins the next.
    Roll { shard: u16, reply: oneshot::Sender<Result<()>> },
    /// Retention found the disk full: the last room is its own.
    GiveUpBallast { full: StoreError, reply: oneshot::Sender<Result<()>> },
    /// Which queues have filters that may cover this one?
    Covering { filter: String, reply: oneshot::Sender<Vec<SlotIndex>> },
}

/// Sends the thread something and waits for its answer. Blocks.
pub(crate) fn ask<T>(
    writer: &mpsc::Sender<Command>,
    command: impl FnOnce(oneshot::Sender<T>) -> Command,
) -> Result<T> {
    let (reply, answer) = oneshot::channel();
    writer.blocking_send(command(reply)).map_err(|_| StoreError::Closed)?;
    answer.blocking_recv().map_err(|_| StoreError::Closed)
}

/// The thread's own state.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    mailbox: mpsc::Receiver<Command>,
    routes: Routes,
    /// By the number of their shard.
    appenders: Vec<Appender>,
    /// Where the log ends: what was appended is dispatched before anything else is.
    cut: Cut,
    /// Of the batch: each record's shard and its place in `queues`.
    routed: Vec<(u16, Range<usize>)>,
    /// Queues that the records of the batch enter.
    queues: Vec<SlotIndex>,
}

/// One append that waits for its batch.
struct Append {
    records: Vec<NewRecord>,
    permits: usize,
    reply: Reply,
}

/// Shards that a batch goes to.
type Touched = SmallVec<[u16; 8]>;

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        mailbox: mpsc::Receiver<Command>,
        routes: Routes,
        cut: Cut,
    ) -> Result<Self> {
        let appenders = shared.log.shards().iter().map(Appender::new).collect::<Result<_>>()?;
        Ok(Writer { shared, mailbox, routes, appenders, cut, routed: Vec::new(), queues: Vec::new() })
    }

    /// Runs until the store is closed or dropped, to the last command in the mailbox.
    pub(crate) fn run(mut self) {
        let mut batch = Vec::new();
        while let Some(first) = self.mailbox.blocking_recv() {
            let index = self.shared.wait_for_log_room();
            let mut bytes = 0;
            let mut next = Some(first);
            while let Some(command) = next {
                match command {
                    Command::Append { records, permits, reply } => {
                        bytes += records.iter().map(format::encoded_size).sum::<usize>();
                        batch.push(Append { records, permits, reply });
                        if bytes >= BATCH_BYTES {
                            break;
                        }
                    }
                    other => {
                        self.write(std::mem::take(&mut batch), &index);
                        self.change(other, &index);
                        // What comes next is as much as another batch.
                        break;
                    }
                }
                next = self.mailbox.try_recv().ok();
            }
            self.write(std::mem::take(&mut batch), &index);
        }
    }

    /// Carries out what is not an append.
    fn change(&mut self, command: Command, index: &Result<()>) {
        match command {
            Command::AddRoutes { routes, reply } => {
                routes.iter().for_each(|(filter, queue)| self.routes.add(filter, *queue));
                let _ = reply.send(self.cut.clone());
            }
            Command::RemoveRoutes { routes, reply } => {
                routes.iter().for_each(|(filter, queue)| self.routes.remove(filter, *queue));
                let _ = reply.send(());
            }
            Command::Covering { filter, reply } => {
                let mut queues = Vec::new();
                self.routes.route(&filter, &mut queues);
                let _ = reply.send(queues);
            }
            Command::Keep { records, reply } => {
                let kept = index.clone().and_then(|()| self.keep(records));
                let _ = reply.send(kept);
            }
            Command::GiveUpBallast { full, reply } => {
                let _ = reply.send(self.shared.log.give_up_ballast(full));
            }
            Command::Roll { shard, reply } => {
                let _ = reply.send(self.roll(shard));
            }
            Command::Append { .. } => {}
        }
    }

    fn roll(&mut self, shard: u16) -> Result<()> {
        let log = &self.shared.log;
        log.poisoned().map_or(Ok(()), Err)?;
        let appender = self.appenders.get_mut(usize::from(shard)).ok_or(StoreError::Closed)?;
        appender.roll(log, self.cut.sequence).map_err(|error| log.refuse(error))
    }

    /// Appends what still is the retained message of its topic. Here, in the log's order, nothing can take its place meanwhile.
    fn keep(&mut self, records: Vec<Record>) -> Result<()> {
        let mut kept = Vec::with_capacity(records.len());
        for record in records {
            if self.shared.retained_of(&record.topic)? == Some(record.pointer()) {
                let Record { topic, properties, payload, attributes, retain, time_ms, .. } = record;
                kept.push((NewRecord { topic, properties, payload, attributes, retain }, time_ms));
            }
        }
        if kept.is_empty() {
            return Ok(());
        }
        let records = kept.iter().map(|(record, time_ms)| Incoming { record, kept: Some(*time_ms) });
        let (touched, _) = self.append(records)?;
        self.pass_on(&touched, touched.iter().map(|_| Vec::new()));
        self.shared.log.counters.kept.fetch_add(kept.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Writes a batch, enters it into the queues and passes its receipts on.
    fn write(&mut self, batch: Vec<Append>, index: &Result<()>) {
        if batch.is_empty() {
            return;
        }
        let permits = batch.iter().map(|append| append.permits).sum();
        let records = batch.iter().flat_map(|append| &append.records);
        let records = records.map(|record| Incoming { record, kept: None });
        let refused = index.clone().and_then(|()| self.shared.log.refuses_records());
        match refused.and_then(|()| self.append(records)) {
            Ok((touched, pointers)) => self.confirm(batch, &touched, pointers),
            Err(error) => {
                for append in batch {
                    let _ = append.reply.send(Err(error.clone()));
                }
            }
        }
        self.shared.mailbox_room.add_permits(permits);
    }

    /// Passes each receipt to the shards whose sync it waits for.
    fn confirm(&self, batch: Vec<Append>, touched: &[u16], pointers: Vec<Pointer>) {
        let log = &self.shared.log;
        let waits = |shard: u16| log.shard(shard).is_some_and(|shard| shard.flush == Flush::Sync);
        let mut waiting: SmallVec<[Vec<Receipt>; 8]> = touched.iter().map(|_| Vec::new()).collect();
        let mut pointers = pointers.into_iter();
        for append in batch {
            let positions = pointers.by_ref().take(append.records.len()).map(|pointer| pointer.position);
            let appended = Appended { positions: positions.collect() };
            let mut parts = Touched::new();
            for position in &appended.positions {
                // Most of the time all records of an append go to few shards.
                if !parts.contains(&position.shard()) && waits(position.shard()) {
                    parts.push(position.shard());
                }
            }
            if parts.is_empty() {
                let _ = append.reply.send(Ok(appended));
                continue;
            }
            let receipt = Receipt::new(parts.len(), append.reply, appended);
            for (shard, waiting) in touched.iter().zip(&mut waiting) {
                if parts.contains(shard) {
                    waiting.push(receipt.clone());
                }
            }
        }
        self.pass_on(touched, waiting.into_iter());
    }

    /// Tells the threads that sync these shards what was written, and who waits for it.
    fn pass_on(&self, touched: &[u16], waiting: impl Iterator<Item = Vec<Receipt>>) {
        let log = &self.shared.log;
        for (number, waiting) in touched.iter().zip(waiting) {
            if let (Some(shard), Some(appender)) = (log.shard(*number), self.appender(*number)) {
                shard.sync.written(shard.end(), self.cut.sequence, appender.segment(), waiting);
            }
        }
    }

    fn appender(&self, shard: u16) -> Option<&Appender> {
        self.appenders.get(usize::from(shard))
    }

    /// Writes a batch, and enters it into the queues. The shards it went to, and where its records are.
    fn append<'a>(
        &mut self,
        records: impl Iterator<Item = Incoming<'a>> + Clone,
    ) -> Result<(Touched, Vec<Pointer>)> {
        if let Some(error) = self.shared.log.poisoned() {
            return Err(error);
        }
        let mut touched = Touched::new();
        self.routed.clear();
        self.queues.clear();
        for incoming in records.clone() {
            let from = self.queues.len();
            let shard = self.routes.route(&incoming.record.topic, &mut self.queues);
            if incoming.kept.is_some() {
                self.queues.truncate(from);
            }
            self.routed.push((shard, from..self.queues.len()));
            let appender = self.appenders.get_mut(usize::from(shard)).ok_or(StoreError::Closed)?;
            if appender.expect(incoming.size()) {
                touched.push(shard);
            }
        }
        let written = self.write_batch(records.clone(), &touched);
        let log = &self.shared.log;
        let pointers = match written {
            Ok(pointers) => pointers,
            Err(error) => {
                note_space(log, Some(&error));
                return Err(log.refuse(error));
            }
        };
        note_space(log, None);
        let mut bytes = 0;
        for number in &touched {
            if let (Some(shard), Some(appender)) =
                (log.shard(*number), self.appenders.get_mut(usize::from(*number)))
            {
                bytes += appender.accept(shard);
            }
        }
        log.time_ms.store(self.cut.time_ms, Ordering::Release);
        // After the ends: whoever has read it finds every record before it in its shard.
        log.next_sequence.store(self.cut.sequence + pointers.len() as u64, Ordering::Release);
        log.counters.records.fetch_add(pointers.len() as u64, Ordering::Relaxed);
        log.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        log.counters.batches.fetch_add(1, Ordering::Relaxed);

        let routed = records.zip(&pointers).zip(&self.routed);
        let routed = routed.map(|((incoming, pointer), (_, queues))| Routed {
            record: incoming.record,
            pointer: *pointer,
            queues: queues.clone(),
        });
        self.shared.dispatch(routed, &self.queues, &mut self.cut);
        Ok((touched, pointers))
    }

    /// Writes the records of a batch to their shards. All of it counts or nothing: after an error, every shard is as before.
    fn write_batch<'a>(
        &mut self,
        records: impl Iterator<Item = Incoming<'a>>,
        touched: &[u16],
    ) -> Result<Vec<Pointer>> {
        let mut begun = false;
        let result = self.try_write(records, touched, &mut begun);
        if result.is_err() {
            for shard in touched {
                if let Some(appender) = self.appenders.get_mut(usize::from(*shard)) {
                    appender.reject(begun);
                }
            }
        }
        result
    }

    fn try_write<'a>(
        &mut self,
        records: impl Iterator<Item = Incoming<'a>>,
        touched: &[u16],
        begun: &mut bool,
    ) -> Result<Vec<Pointer>> {
        let log = &self.shared.log;
        // Of all shards: sequences are given anew, and what an earlier batch left has some of them.
        for appender in &mut self.appenders {
            appender.clean()?;
        }
        let segment_bytes = self.shared.options.segment_bytes;
        for shard in touched {
            if let Some(appender) = self.appenders.get_mut(usize::from(*shard)) {
                appender.make_room(log, segment_bytes, self.cut.sequence)?;
            }
        }
        let now = now_ms();
        // The clock may be set back; within a queue time only grows, so that it can be searched.
        self.cut.time_ms = self.cut.time_ms.max(now);
        let mut pointers = Vec::with_capacity(self.routed.len());
        for ((sequence, incoming), (number, _)) in (self.cut.sequence..).zip(records).zip(&self.routed) {
            let appender = self.appenders.get_mut(usize::from(*number));
            let (Some(shard), Some(appender)) = (log.shard(*number), appender) else {
                return Err(StoreError::Closed);
            };
            pointers.push(appender.push(shard, incoming, sequence, self.cut.time_ms));
        }
        *begun = true;
        for shard in touched {
            if let Some(appender) = self.appenders.get_mut(usize::from(*shard)) {
                appender.write()?;
            }
        }
        Ok(pointers)
    }
}

impl Log {
    /// The error as it is passed on: one that leaves it unknown what is on disk stops the log.
    pub(crate) fn refuse(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Poisoned { reason } => self.poison(reason),
            error => error,
        }
    }

    fn set_full(&self, error: Option<StoreError>) {
        *self.full.lock() = error;
    }
}

/// Remembers whether there was room, for those who ask whether the store works.
fn note_space(log: &Log, error: Option<&StoreError>) {
    let was_full = log.full.lock().is_some();
    match error {
        Some(error @ StoreError::Full { .. }) => {
            if !was_full {
                tracing::error!(%error, "new records are refused until there is room");
            }
            log.set_full(Some(error.clone()));
        }
        Some(error) => tracing::error!(%error, "records could not be appended"),
        None => {
            // Room that is retention's says nothing of room for records.
            if was_full && !log.ballast.is_given_up() {
                tracing::warn!("there is room again; records are taken");
                log.set_full(None);
            }
        }
    }
}
