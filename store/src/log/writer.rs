//! [`Writer`]: it takes what waits in its mailbox as one batch, writes it with one call for each shard, enters it into the queues, and goes
//! on while the batch is being synced.
//!
//! It is one for all shards: a queue has one sequence of offsets over all of them, which are given here, in one place.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;
use tokio::sync::{mpsc, oneshot};

use super::Log;
use super::age::now_ms;
use super::appender::Appender;
use super::cut::Cut;
use super::layout::Layout;
use super::receipt::{Receipt, Reply};
use crate::queue::table::SlotIndex;
use crate::shared::Shared;
use crate::{Appended, Flush, NewRecord, Pointer, Record, Result, StoreError};

/// Records are gathered into one write up to about this many bytes.
/// More would not make a call cheaper, and the pages that the system takes for it at a time dearer.
const BATCH_BYTES: usize = 256 << 10;

/// Queues that an append may enter that is not left for the thread.
const AT_ONCE_QUEUES_MAX: usize = 512;

/// What the writer is asked to do, in order.
#[derive(Debug)]
pub(crate) enum Command {
    /// Appends records.
    Append { layout: Layout, permits: usize, reply: Reply },
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

/// What the thread works with.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    /// By the number of their shard.
    appenders: Vec<Appender>,
    /// Where the log ends: what was appended is dispatched before anything else is.
    cut: Cut,
}

/// One append that waits for its batch.
struct Append {
    layout: Layout,
    permits: usize,
    reply: Reply,
}

/// Shards that a batch goes to.
type Touched = SmallVec<[u16; 8]>;

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, cut: Cut) -> Result<Self> {
        let appenders = shared.log.shards().iter().map(Appender::new).collect::<Result<_>>()?;
        Ok(Writer { shared, appenders, cut })
    }

    /// Carries out a command and what waits behind it, as one batch; how many appends there were.
    pub(crate) fn carry_out(&mut self, first: Command, mailbox: &mut mpsc::Receiver<Command>) -> usize {
        let mut batch = Vec::new();
        let (mut bytes, mut appends) = (0, 0);
        let mut next = Some(first);
        while let Some(command) = next {
            match command {
                Command::Append { layout, permits, reply } => {
                    appends += 1;
                    bytes += layout.log_bytes();
                    batch.push(Append { layout, permits, reply });
                    if bytes >= BATCH_BYTES {
                        break;
                    }
                }
                other => {
                    self.write(std::mem::take(&mut batch), bytes);
                    bytes = 0;
                    self.change(other);
                }
            }
            next = mailbox.try_recv().ok();
        }
        self.write(batch, bytes);
        appends
    }

    /// Whether an append needs nothing but memory and one write for each shard: no room on disk that is not there yet, no segment to be
    /// begun, nothing to wait for.
    pub(crate) fn takes_at_once(&self, layout: &mut Layout) -> bool {
        layout.route(&self.shared.routes.read());
        let segment_bytes = self.shared.options.segment_bytes;
        let has_room = |(shard, bytes): &(u16, usize)| {
            self.appender(*shard).is_some_and(|appender| appender.has_room(*bytes, segment_bytes))
        };
        layout.queues() <= AT_ONCE_QUEUES_MAX
            && self.appenders.iter().all(Appender::is_clean)
            && layout.shards().iter().all(has_room)
            && !self.shared.log_room_is_short(layout.log_bytes() as u64)
    }

    /// Carries out an append of which [`Writer::takes_at_once`] is true.
    pub(crate) fn append_at_once(&mut self, layout: Layout, reply: Reply) {
        self.write_now(vec![Append { layout, permits: 0, reply }], Ok(()));
    }

    /// Carries out what is not an append.
    fn change(&mut self, command: Command) {
        match command {
            Command::AddRoutes { routes, reply } => {
                let mut known = self.shared.routes.write();
                routes.iter().for_each(|(filter, queue)| known.add(filter, *queue));
                drop(known);
                let _ = reply.send(self.cut.clone());
            }
            Command::RemoveRoutes { routes, reply } => {
                let mut known = self.shared.routes.write();
                routes.iter().for_each(|(filter, queue)| known.remove(filter, *queue));
                drop(known);
                let _ = reply.send(());
            }
            Command::Keep { records, reply } => {
                let kept = self.keep(records);
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
        let mut layout = Layout::default();
        for record in records {
            if self.shared.retained_of(&record.topic)? == Some(record.pointer()) {
                let Record { topic, properties, payload, attributes, retain, time_ms, .. } = record;
                layout.push(&NewRecord { topic, properties, payload, attributes, retain }, Some(time_ms));
            }
        }
        let count = layout.len();
        if count == 0 {
            return Ok(());
        }
        self.shared.wait_for_log_room(layout.log_bytes() as u64)?;
        let mut batch = [layout];
        let (touched, _) = self.append(&mut batch.each_mut())?;
        self.pass_on(&touched, touched.iter().map(|_| Vec::new()));
        self.shared.log.counters.kept.fetch_add(count as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Writes a batch, enters it into the queues and passes its receipts on.
    fn write(&mut self, batch: Vec<Append>, bytes: usize) {
        if batch.is_empty() {
            return;
        }
        let room = self.shared.wait_for_log_room(bytes as u64);
        self.write_now(batch, room);
    }

    /// The same where there is room in the log, or there never will be.
    fn write_now(&mut self, mut batch: Vec<Append>, room: Result<()>) {
        let permits = batch.iter().map(|append| append.permits).sum();
        let mut layouts: Vec<&mut Layout> = batch.iter_mut().map(|append| &mut append.layout).collect();
        let room = room.and_then(|()| self.shared.log.refuses_records());
        match room.and_then(|()| self.append(&mut layouts)) {
            Ok((touched, pointers)) => self.confirm(batch, &touched, pointers),
            Err(error) => {
                for append in batch {
                    let _ = append.reply.send(Err(error.clone()));
                }
            }
        }
        self.shared.mailbox_room.add_permits(permits);
        if self.shared.flushed_cut.is_due(self.shared.log.shards()) {
            self.shared.indexer.look();
        }
    }

    /// Passes each receipt to the shards whose sync it waits for.
    fn confirm(&self, batch: Vec<Append>, touched: &[u16], pointers: Vec<Pointer>) {
        let log = &self.shared.log;
        let waits = |shard: u16| log.shard(shard).is_some_and(|shard| shard.flush == Flush::Sync);
        let mut waiting: SmallVec<[Vec<Receipt>; 8]> = touched.iter().map(|_| Vec::new()).collect();
        let mut sequence = self.cut.sequence - pointers.len() as u64;
        let mut pointers = pointers.into_iter();
        for append in batch {
            let positions = pointers.by_ref().take(append.layout.len()).map(|pointer| pointer.position);
            let appended = Appended { positions: positions.collect(), sequence };
            sequence += append.layout.len() as u64;
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
    fn append(&mut self, batch: &mut [&mut Layout]) -> Result<(Touched, Vec<Pointer>)> {
        if let Some(error) = self.shared.log.poisoned() {
            return Err(error);
        }
        // Filters may have changed since they were routed: what counts is when they are appended.
        let routes = self.shared.routes.read();
        batch.iter_mut().for_each(|layout| layout.route(&routes));
        drop(routes);
        let batch: &[&mut Layout] = batch;
        let mut touched = Touched::new();
        for (shard, bytes) in batch.iter().flat_map(|layout| layout.shards()) {
            let appender = self.appenders.get_mut(usize::from(*shard)).ok_or(StoreError::Closed)?;
            if appender.expect(*bytes) {
                touched.push(*shard);
            }
        }
        let written = self.write_batch(batch, &touched);
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

        self.shared.dispatch(batch, &pointers, &mut self.cut);
        Ok((touched, pointers))
    }

    /// Writes the records of a batch to their shards. All of it counts or nothing: after an error, every shard is as before.
    fn write_batch(&mut self, batch: &[&mut Layout], touched: &[u16]) -> Result<Vec<Pointer>> {
        let mut begun = false;
        let result = self.try_write(batch, touched, &mut begun);
        if result.is_err() {
            for shard in touched {
                if let Some(appender) = self.appenders.get_mut(usize::from(*shard)) {
                    appender.reject(begun);
                }
            }
        }
        result
    }

    fn try_write(
        &mut self,
        batch: &[&mut Layout],
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
        let mut pointers = Vec::with_capacity(batch.iter().map(|layout| layout.len()).sum());
        let (first, time_ms) = (self.cut.sequence, self.cut.time_ms);
        for (run, bytes) in batch.iter().flat_map(|layout| layout.runs()) {
            let shard = run.first().map_or(0, |laid| laid.shard);
            let appender = self.appenders.get_mut(usize::from(shard));
            let (Some(shard), Some(appender)) = (log.shard(shard), appender) else {
                return Err(StoreError::Closed);
            };
            let sequence = first + pointers.len() as u64;
            appender.push(shard, run, bytes, (sequence, time_ms), &mut pointers);
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
