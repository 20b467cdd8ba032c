//! Filling a new queue with history: the records that were stored before its filter counted.
//!
//! The queue's own entries begin at an offset with room before it for every record there ever was. The history is counted first and then
//! written so that it ends there: offsets have no hole, whatever their number, and come out the same if it is done again. The log writer goes on
//! meanwhile; retention waits.

use crate::catalogue::{self, Change};
use crate::meta::catalogue::{Entry, Kind};
use crate::queue::filter;
use crate::queue::table::{Fill, SlotIndex};
use crate::shared::{Shared, SharedRef};
use crate::{Pointer, Position, QueueId, ReadRequest, Record, Result, ScanRequest, Store, StoreError};

/// Records read in one step.
const STEP_RECORDS: usize = 4096;
/// Bytes of the log looked at in one step.
const STEP_BYTES: usize = 8 << 20;
/// Entries written in one file.
const FILE_ENTRIES: usize = 1 << 18;

impl Store {
    /// Fills a queue with the history it lacks, if it lacks any.
    pub(crate) async fn fill_with_history(&self, id: QueueId) -> Result<()> {
        // One at a time: whoever comes second finds it done.
        let one = self.0.shared.filling.clone().lock_owned().await;
        let row = self.run(move |shared| catalogue::entry(shared, id)).await?;
        let Some(past) = row.past.filter(|past| !past.filled) else { return Ok(()) };
        let mut covering = Vec::new();
        self.0.shared.routes.read().queues_of(&row.name, &mut covering);
        let shared = self.0.shared.clone();
        let changes = self.0.threads.lock().as_ref().and_then(|threads| threads.changes.clone());
        let changes = changes.ok_or(StoreError::Closed)?;
        // A thread of its own: it may take minutes, and the pool's are for short reads. It goes on to its end, with the lock, even
        // if the caller goes away.
        let fill = move || {
            let _one = one;
            // What the index has must be there for good: the room before it is written around it.
            shared.log.wait_durable(&shared.log.cut())?;
            let source = narrowest(&shared, &row, past.since_ms, &covering)?;
            fill(&shared, &row, past.since_ms, source)?;
            // An index that has history has a cut: without one it was lost.
            shared.indexer.checkpoint()?;
            let (reply, noted) = tokio::sync::oneshot::channel();
            changes.blocking_send(Change::Filled { queue: id, reply }).map_err(|_| StoreError::Closed)?;
            drop(changes);
            noted.blocking_recv().unwrap_or(Err(StoreError::Closed))
        };
        self.0.pool.run_long("store-backfill", fill).await
    }
}

/// Where history is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// In a queue whose filter covers the new one's.
    Queue(QueueId),
    /// In the log itself.
    Log,
}

/// The queue with the fewest entries that has all of the history.
fn narrowest(shared: &SharedRef, row: &Entry, since_ms: i64, covering: &[SlotIndex]) -> Result<Source> {
    let first_sequence = shared.log.first_sequence();
    let mut best = (u64::MAX, Source::Log);
    for index in covering {
        let (id, fill) = match shared.table.read().at(*index) {
            Some(found) => found,
            None => continue,
        };
        // One that is about to be durable is still live by name: nobody knows yet which records it has.
        if id == row.id || fill != Fill::Routed || shared.live_names.read().has(id) {
            continue;
        }
        // It may not be in the catalogue yet, or not be there any more.
        let Some(candidate) = if_there(catalogue::entry(shared, id))? else { continue };
        let covers = |(wide, start): &(String, u64)| {
            let is_whole = *start <= first_sequence
                || candidate.past.is_some_and(|past| past.filled && past.since_ms <= since_ms);
            is_whole && filter::covers(wide, &row.name)
        };
        if candidate.kind == Kind::Filter && candidate.routes.iter().any(covers) {
            // One after the other: whoever holds the table and asks for it again waits for ever once a writer waits in between.
            let end = shared.table.read().end(id).unwrap_or_default();
            let Some(first) = if_there(shared.first(id))? else { continue };
            let entries = end.saturating_sub(first);
            if entries < best.0 {
                best = (entries, Source::Queue(id));
            }
        }
    }
    Ok(best.1)
}

/// Nothing where a queue is missing.
fn if_there<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Err(StoreError::NoQueue(_)) => Ok(None),
        found => found.map(Some),
    }
}

/// Counts the history of a queue, then writes it. Blocks.
fn fill(shared: &Shared, row: &Entry, since_ms: i64, source: Source) -> Result<()> {
    let start = row.routes.iter().map(|(_, start)| *start).min().unwrap_or_default();
    let mut count = 0;
    walk(shared, row, (since_ms, start), source, |_| {
        count += 1;
        Ok(())
    })?;
    let mut from = row.base.checked_sub(count).ok_or_else(|| StoreError::Database {
        database: "index",
        error: format!(
            "queue {} has room for {} entries of history, and there are {count}",
            row.id.0, row.base
        ),
    })?;
    // What an attempt that was interrupted left.
    shared.index.clear(row.id, row.base)?;
    let mut entries: Vec<Pointer> = Vec::new();
    let mut write = |entries: &mut Vec<Pointer>| {
        shared.index.write(|file| file.entries(row.id, from, entries))?;
        from += entries.len() as u64;
        entries.clear();
        Ok(())
    };
    walk(shared, row, (since_ms, start), source, |pointer| {
        entries.push(pointer);
        if entries.len() < FILE_ENTRIES { Ok(()) } else { write(&mut entries) }
    })?;
    if entries.is_empty() { Ok(()) } else { write(&mut entries) }
}

/// Hands on every record of the history, in order.
fn walk(
    shared: &Shared,
    row: &Entry,
    (since_ms, before_sequence): (i64, u64),
    source: Source,
    mut each: impl FnMut(Pointer) -> Result<()>,
) -> Result<()> {
    // False once the history is over.
    let mut take = |record: &Record| -> Result<bool> {
        if shared.mailbox_room.is_closed() {
            return Err(StoreError::Closed);
        }
        if record.sequence >= before_sequence {
            return Ok(false);
        }
        if record.time_ms >= since_ms
            && row.routes.iter().any(|(filter, _)| filter::matches(filter, &record.topic))
        {
            each(record.pointer())?;
        }
        Ok(true)
    };
    match source {
        Source::Queue(queue) => {
            let mut from = 0;
            loop {
                let request = ReadRequest {
                    queue,
                    from,
                    records_max: STEP_RECORDS,
                    bytes_max: STEP_BYTES,
                    durable: true,
                };
                let batch = shared.read(request)?;
                if batch.records.is_empty() {
                    return Ok(());
                }
                for (_, record) in &batch.records {
                    if !take(record)? {
                        return Ok(());
                    }
                }
                from = batch.next;
            }
        }
        Source::Log => {
            let mut from: Vec<Position> = shared.log.position_at(since_ms)?;
            loop {
                let filter = (row.routes.len() == 1).then(|| row.name.clone());
                let request = ScanRequest { from, filter, records_max: STEP_RECORDS, bytes_max: STEP_BYTES };
                let batch = shared.log.scan(&request)?;
                for record in &batch.records {
                    if !take(record)? {
                        return Ok(());
                    }
                }
                if batch.at_end {
                    return Ok(());
                }
                from = batch.next;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::fault::{Point, hold_nth};
    use crate::{FilterRequest, History, Keep, NewRecord, Options, QueueInfo, Retain};

    /// The catalogue's row of a queue, and the queues that a record of its filter's topic enters.
    fn row_and_covering(store: &Store, id: QueueId) -> (Entry, Vec<SlotIndex>) {
        let row = catalogue::entry(&store.0.shared, id).unwrap();
        let mut covering = Vec::new();
        store.0.shared.routes.read().queues_of(&row.name, &mut covering);
        (row, covering)
    }

    #[tokio::test]
    async fn the_source_is_found_while_others_write_to_the_table() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Options::new(dir.path())).unwrap();
        let wide = store.open_filter("#").await.unwrap().id;
        let (row, covering) = row_and_covering(&store, store.open_filter("t").await.unwrap().id);
        let over = std::sync::Arc::new(AtomicBool::new(false));
        let writing = std::thread::spawn({
            let (shared, over) = (store.0.shared.clone(), over.clone());
            move || {
                while !over.load(Ordering::Relaxed) {
                    drop(shared.table.write());
                }
            }
        });
        let shared = store.0.shared.clone();
        let (done, all_done) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || {
            for _ in 0..2000 {
                let source = narrowest(&shared, &row, i64::MIN, &covering).unwrap();
                assert_eq!(source, Source::Queue(wide));
            }
            done.send(()).unwrap();
        });
        if all_done.recv_timeout(Duration::from_secs(20)).is_err() {
            // Its threads would hold it for ever.
            std::mem::forget(store);
            panic!("everybody waits for the table");
        }
        over.store(true, Ordering::Relaxed);
        writing.join().unwrap();
    }

    async fn append(store: &Store) {
        let (topic, properties, payload) = ("t".into(), Default::default(), "1".into());
        let record = NewRecord { topic, properties, payload, attributes: 0, retain: Retain::No };
        store.append(vec![record]).await.unwrap();
    }

    async fn open(store: Store, filter: &str, keep: Keep, history: History) -> Result<QueueInfo> {
        let request = FilterRequest { filter: filter.into(), keep, history };
        Ok(store.open_filters(vec![request]).await?.remove(0))
    }

    async fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let began = std::time::Instant::now();
        while !holds() {
            assert!(began.elapsed() < Duration::from_secs(20), "{what}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn a_queue_that_is_being_made_is_no_source() {
        // Found live, or made by the same change.
        for was_live in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(Options::new(dir.path())).unwrap();
            append(&store).await;
            if was_live {
                open(store.clone(), "#", Keep::Live, History::None).await.unwrap();
            }
            let narrow = open(store.clone(), "t", Keep::Durable, History::None).await.unwrap().id;
            append(&store).await;
            let held = hold_nth(dir.path(), Point::MetaWrite, 1);
            let opening = tokio::spawn(open(store.clone(), "#", Keep::Durable, History::None));
            until("the catalogue is not written", || held.struck()).await;
            let (row, covering) = row_and_covering(&store, narrow);
            assert_eq!(covering.len(), 2);
            assert_eq!(narrowest(&store.0.shared, &row, i64::MIN, &covering).unwrap(), Source::Log);
            drop(held);
            opening.await.unwrap().unwrap();
        }
    }
}
