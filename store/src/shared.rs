//! [`Shared`]: what the store's threads have in common.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};
use smallvec::SmallVec;
use tokio::sync::Semaphore;

use crate::directory::Directory;
use crate::log::Log;
use crate::log::sync::SyncQueue;
use crate::meta::Meta;
use crate::meta::cursor::Cursors;
use crate::queue::index::Index;
use crate::queue::indexer::IndexerSignal;
use crate::queue::routes::Routes;
use crate::queue::table::{Found, Table};
use crate::{NewRecord, Options, Pointer, QueueId, ReadBatch, ReadRequest, Record, Result, StoreError};

/// What the store's threads have in common.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) log: Log,
    pub(crate) table: RwLock<Table>,
    pub(crate) index: Index,
    pub(crate) meta: Meta,
    pub(crate) cursors: Cursors,
    pub(crate) sync: SyncQueue,
    pub(crate) indexer: IndexerSignal,
    /// Signalled after each checkpoint.
    pub(crate) index_room: Condvar,
    pub(crate) index_waiting: Mutex<()>,
    /// Why the last checkpoint could not be written.
    pub(crate) index_fault: Mutex<Option<StoreError>>,
    /// Kibibytes that the log writer's mailbox still takes.
    pub(crate) mailbox_room: Semaphore,
    /// Last, so that the databases are closed before another process may open them.
    pub(crate) _directory: Directory,
}

impl Shared {
    /// Blocks while too many index entries wait for RocksDB; an error if they wait because it cannot be written.
    pub(crate) fn wait_for_index_room(&self) -> Result<()> {
        while self.table.read().waiting_bytes() > self.options.index_buffer_bytes {
            if let Some(error) = self.log.poisoned().or_else(|| self.index_fault.lock().clone()) {
                return Err(error);
            }
            self.indexer.wake();
            let mut waiting = self.index_waiting.lock();
            self.index_room.wait_for(&mut waiting, Duration::from_millis(50));
        }
        Ok(())
    }

    /// Enters records into the queues that their topics lead to; the log then reaches to `end`: an offset
    /// and the time of its last record.
    pub(crate) fn dispatch<'a>(
        &self,
        routes: &mut Routes,
        records: impl Iterator<Item = (&'a NewRecord, Pointer)>,
        end: (u64, i64),
    ) -> Result<()> {
        let routed: SmallVec<[_; 64]> =
            records.map(|(record, pointer)| (record, pointer, routes.queues(&record.topic))).collect();
        let durable_end = self.log.durable_end().offset();
        let mut table = self.table.write();
        for (record, pointer, queues) in routed {
            for queue in queues.iter() {
                table.push(&self.index, *queue, pointer)?;
            }
            table.note_retained(record.retain, &record.topic, pointer);
        }
        table.dispatched(end, durable_end);
        Ok(())
    }

    /// Answers from memory, or `None` where the disk must be asked.
    pub(crate) fn read_hot(&self, request: ReadRequest) -> Option<Result<ReadBatch>> {
        let (end, found) = {
            let table = self.table.read();
            (table.loaded_end(request.queue)?, table.find(request.queue, request.from, request.records_max)?)
        };
        let Found::Recent(pointers) = found else { return None };
        let (pointers, end) = self.clamp(request, request.from, pointers, end);
        if pointers.is_empty() {
            return Some(Ok(ReadBatch { records: Vec::new(), next: request.from, end }));
        }
        let records = self.log.read_hot(&pointers)?;
        Some(records.map(|records| batch(request.from, records, end)))
    }

    /// Answers from wherever it is. Blocks.
    pub(crate) fn read(&self, request: ReadRequest) -> Result<ReadBatch> {
        let (end, found) = {
            let mut table = self.table.write();
            let end = table.end(&self.index, request.queue)?;
            (end, table.find(request.queue, request.from, request.records_max))
        };
        let (from, pointers) = match found {
            Some(Found::Recent(pointers)) => (request.from, pointers),
            Some(Found::Older { before }) => {
                let limit = request.records_max.min((before - request.from) as usize);
                match self.index.entries(request.queue, request.from, limit)? {
                    // All of them are gone: go on with those that are not in RocksDB yet.
                    (_, none) if none.is_empty() => {
                        match self.table.read().find(request.queue, before, request.records_max) {
                            Some(Found::Recent(pointers)) => (before, pointers),
                            _ => (before, Vec::new()),
                        }
                    }
                    found => found,
                }
            }
            None => (request.from, Vec::new()),
        };
        let (pointers, end) = self.clamp(request, from, pointers, end);
        let records = match self.log.read_hot(&pointers) {
            Some(records) => records?,
            None => self.log.read_cold(&pointers)?,
        };
        Ok(batch(from, records, end))
    }

    /// Cuts pointers to what the request allows; with `durable`, also the end that is visible.
    fn clamp(
        &self,
        request: ReadRequest,
        from: u64,
        mut pointers: Vec<Pointer>,
        end: u64,
    ) -> (Vec<Pointer>, u64) {
        let mut visible = end;
        if request.durable {
            let durable_end = self.log.durable_end();
            let durable = pointers.partition_point(|p| p.position < durable_end);
            if durable < pointers.len() {
                visible = from + durable as u64;
                pointers.truncate(durable);
            }
        }
        let mut bytes = 0;
        let fit = pointers.iter().take_while(|p| {
            let first = bytes == 0;
            bytes += p.size as usize;
            first || bytes <= request.bytes_max
        });
        let fit = fit.count();
        pointers.truncate(fit);
        (pointers, visible)
    }

    /// Offset of the first entry of a queue that is still there.
    pub(crate) fn first(&self, queue: QueueId) -> Result<u64> {
        if let Some(first) = self.index.first(queue)? {
            return Ok(first);
        }
        let mut table = self.table.write();
        let end = table.end(&self.index, queue)?;
        Ok(table.recent_first(queue).unwrap_or(end))
    }

    /// The first offset whose record `after` says is late enough; records must be so in order. Blocks.
    pub(crate) fn search(&self, queue: QueueId, after: impl Fn(&Record) -> bool) -> Result<u64> {
        let mut low = self.first(queue)?;
        let mut high = self.table.write().end(&self.index, queue)?;
        while low < high {
            let middle = low + (high - low) / 2;
            let request = ReadRequest { queue, from: middle, records_max: 1, bytes_max: 0, durable: false };
            match self.read(request)?.records.first() {
                Some((_, record)) if !after(record) => low = middle + 1,
                _ => high = middle,
            }
        }
        Ok(low)
    }
}

fn batch(from: u64, records: Vec<Record>, end: u64) -> ReadBatch {
    let next = from + records.len() as u64;
    ReadBatch { records: (from..).zip(records).collect(), next, end }
}

/// Handle to the store's threads.
pub(crate) type SharedRef = Arc<Shared>;
