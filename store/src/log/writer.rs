//! The thread that appends: it takes what waits in its mailbox as one batch, writes it with one call, enters it into
//! the queues, and goes on while the batch is being synced.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use tokio::sync::{mpsc, oneshot};

use super::format::{self, SEGMENT_HEADER_BYTES};
use super::segment::Segment;
use super::sync::Waiting;
use super::{Log, SHARD};
use crate::queue::routes::Routes;
use crate::shared::Shared;
use crate::{Appended, Flush, NewRecord, Pointer, Position, QueueId, Result, StoreError};

/// Records are gathered into one write up to about this many bytes.
const BATCH_BYTES: usize = 1 << 20;

/// What the writer is asked to do, in order.
#[derive(Debug)]
pub(crate) enum Command {
    /// Appends records.
    Append { records: Vec<NewRecord>, permits: usize, reply: oneshot::Sender<Result<Appended>> },
    /// From here on, records that match go to the queue. Answers where that is.
    AddRoute { filter: String, queue: QueueId, reply: oneshot::Sender<Position> },
    /// From here on, they do not.
    RemoveRoute { filter: String, queue: QueueId, reply: oneshot::Sender<()> },
}

/// The thread's own state.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    mailbox: mpsc::Receiver<Command>,
    routes: Routes,
    segment: Arc<Segment>,
    /// Bytes of the segment's file that have their place on disk.
    reserved: u64,
    /// A failed write may have left bytes after the end.
    dirty: bool,
    end: u64,
    time_ms: i64,
}

/// One append that waits for its batch.
struct Append {
    records: Vec<NewRecord>,
    permits: usize,
    reply: oneshot::Sender<Result<Appended>>,
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        mailbox: mpsc::Receiver<Command>,
        routes: Routes,
        last_time_ms: i64,
    ) -> Result<Self> {
        let segment = shared.log.segments.read().last().cloned().ok_or(StoreError::Closed)?;
        let end = shared.log.end().offset();
        let reserved = segment.file_bytes()?;
        Ok(Writer { shared, mailbox, routes, segment, reserved, dirty: false, end, time_ms: last_time_ms })
    }

    /// Runs until the store is closed or dropped, to the last command in the mailbox.
    pub(crate) fn run(mut self) {
        let mut batch = Vec::new();
        while let Some(first) = self.mailbox.blocking_recv() {
            let index = self.shared.wait_for_index_room();
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
                        self.write(std::mem::take(&mut batch), bytes, &index);
                        bytes = 0;
                        self.change(other);
                    }
                }
                next = self.mailbox.try_recv().ok();
            }
            self.write(std::mem::take(&mut batch), bytes, &index);
        }
    }

    /// Carries out what is not an append.
    fn change(&mut self, command: Command) {
        match command {
            Command::AddRoute { filter, queue, reply } => {
                self.routes.add(&filter, queue.0);
                let _ = reply.send(Position::new(SHARD, self.end));
            }
            Command::RemoveRoute { filter, queue, reply } => {
                self.routes.remove(&filter, queue.0);
                let _ = reply.send(());
            }
            Command::Append { .. } => {}
        }
    }

    /// Writes a batch, enters it into the queues and passes its receipts on.
    fn write(&mut self, batch: Vec<Append>, bytes: usize, index: &Result<()>) {
        if batch.is_empty() {
            return;
        }
        let permits = batch.iter().map(|append| append.permits).sum();
        match index.clone().and_then(|()| self.append(&batch, bytes)) {
            Ok(positions) => self.confirm(batch, positions),
            Err(error) => {
                for append in batch {
                    let _ = append.reply.send(Err(error.clone()));
                }
            }
        }
        self.shared.mailbox_room.add_permits(permits);
    }

    fn confirm(&mut self, batch: Vec<Append>, positions: Vec<Position>) {
        let mut positions = positions.into_iter();
        let waiting = batch.into_iter().map(|append| {
            let positions = positions.by_ref().take(append.records.len()).collect();
            (append.reply, Appended { positions })
        });
        match self.shared.options.flush {
            Flush::Sync => self.shared.sync.written(self.end, &self.segment, waiting),
            Flush::Async => {
                for (reply, appended) in waiting {
                    let _ = reply.send(Ok(appended));
                }
                self.shared.sync.written(self.end, &self.segment, std::iter::empty::<Waiting>());
            }
        }
    }

    fn append(&mut self, batch: &[Append], bytes: usize) -> Result<Vec<Position>> {
        let log = &self.shared.log;
        if let Some(error) = log.poisoned() {
            return Err(error);
        }
        let made_room = self.make_room(bytes);
        if let Err(StoreError::Poisoned { reason }) = &made_room {
            return Err(self.shared.log.poison(reason.clone()));
        }
        let log: &Log = &self.shared.log;
        note_space(log, made_room.as_ref().err());
        made_room?;

        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        // The clock may be set back; within a queue time only grows, so that it can be searched.
        self.time_ms = self.time_ms.max(now);
        let undurable = u32::try_from(self.end - log.durable_end().offset()).unwrap_or(u32::MAX);
        let mut buffer = BytesMut::with_capacity(bytes);
        let mut pointers = Vec::with_capacity(batch.iter().map(|append| append.records.len()).sum());
        for record in batch.iter().flat_map(|append| &append.records) {
            let at = buffer.len();
            let position = Position::new(SHARD, self.end + at as u64);
            let before = undurable.saturating_add(u32::try_from(at).unwrap_or(u32::MAX));
            format::encode(record, position, self.time_ms, before, &mut buffer);
            pointers.push(Pointer { position, size: (buffer.len() - at) as u32 });
        }
        let buffer = buffer.freeze();
        if let Err(error) = self.segment.write(&buffer, self.end - self.segment.first) {
            self.dirty = true;
            note_space(log, Some(&error));
            return Err(error);
        }
        let start = self.end;
        self.end += buffer.len() as u64;
        log.counters.records.fetch_add(pointers.len() as u64, Ordering::Relaxed);
        log.counters.bytes.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        log.counters.batches.fetch_add(1, Ordering::Relaxed);
        log.tail.write().push(start, buffer);
        log.end.store(self.end, Ordering::Release);

        let records = batch.iter().flat_map(|append| &append.records);
        let end = (self.end, self.time_ms);
        let dispatched = self.shared.dispatch(&mut self.routes, records.zip(pointers.iter().copied()), end);
        // Written, and in only some of its queues: a restart enters it into all of them.
        dispatched.map_err(|error| log.poison(format!("records could not be indexed: {error}")))?;
        Ok(pointers.into_iter().map(|pointer| pointer.position).collect())
    }

    /// Sees to it that `bytes` more fit into the active segment and have their place on disk.
    fn make_room(&mut self, bytes: usize) -> Result<()> {
        if self.dirty {
            // What a failed write left could be taken for records after a restart.
            let end = self.end - self.segment.first;
            self.segment.cut(end)?;
            self.reserved = end;
            self.dirty = false;
        }
        let used = self.end - self.segment.first;
        if used > SEGMENT_HEADER_BYTES && used + bytes as u64 > self.shared.options.segment_bytes {
            // Sealed means durable and cut to its length: recovery relies on both.
            self.segment.cut(used)?;
            self.reserved = used;
            let log = &self.shared.log;
            let next = Arc::new(Segment::create(&log.dir, log.id, Position::new(SHARD, self.end))?);
            log.segments.write().push(next.clone());
            self.segment = next;
            self.reserved = self.segment.file_bytes()?;
            self.end += SEGMENT_HEADER_BYTES;
        }
        let used = self.end - self.segment.first;
        self.reserved = self.segment.reserve(self.reserved, used + bytes as u64)?;
        Ok(())
    }
}

impl Log {
    fn set_full(&self, error: Option<StoreError>) {
        *self.full.lock() = error;
    }
}

/// Remembers whether there was room, for those who ask whether the store works.
fn note_space(log: &Log, error: Option<&StoreError>) {
    let was_full = log.fault().is_some();
    match error {
        Some(error @ StoreError::Full { .. }) => {
            if !was_full {
                tracing::error!(%error, "new records are refused until there is room");
            }
            log.set_full(Some(error.clone()));
        }
        Some(error) => tracing::error!(%error, "records could not be appended"),
        None => {
            if was_full {
                tracing::warn!("there is room again; records are taken");
                log.set_full(None);
            }
        }
    }
}
