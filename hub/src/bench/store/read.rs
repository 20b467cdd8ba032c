//! Rows `tail` and `catch-up`: reading what is newest, and what is old.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidemill_store::{QueueId, ReadRequest, Store, Watcher};
use tokio::task::JoinSet;

use super::load::{self, BATCH, RECORD_BYTES};
use super::{discard, open_store, options};
use crate::bench::measure::{self, median, rate};
use crate::bench::report::{Line, Must, number};
use crate::bench::{Bench, Error, Result, blocking, limits};

/// Readers of row `tail`.
const READERS: u64 = 100;
/// Records that the slowest reader may be behind: well within what the store keeps of the tail.
const BEHIND_MAX: u64 = 16 << 10;
/// Part of the files that must have come from the disk for a read to count as cold.
const COLD: f64 = 0.9;

/// Timed: from the first append until every reader has read every record. The appender waits for the slowest reader; a reader
/// that has read all there is waits to be rung.
pub(super) async fn tail(bench: &mut Bench) -> Result<Vec<Line>> {
    let records: u64 = bench.scale(200_000, 5_000) / BATCH as u64 * BATCH as u64;
    let dir = bench.fresh("tail")?;
    let store = open_store(options(&dir)).await?;
    let queue = store.open_filter("a/#").await?.id;
    let mut rates = Vec::new();
    for run in 0..bench.runs {
        bench.say_run(run);
        let start = store.queue_end(queue).unwrap_or_default();
        let places: Arc<Vec<AtomicU64>> = Arc::new((0..READERS).map(|_| AtomicU64::new(start)).collect());
        let mut readers = JoinSet::new();
        let began = Instant::now();
        for reader in 0..READERS as usize {
            let (store, places) = (store.clone(), places.clone());
            readers.spawn(async move {
                let Some(place) = places.get(reader) else { return Ok(()) };
                follow(&store, queue, start + records, place).await
            });
        }
        let template = load::batch("a/b");
        let slowest = || places.iter().map(|place| place.load(Ordering::Relaxed)).min().unwrap_or_default();
        let mut appended = start;
        while appended < start + records {
            if appended - slowest() > BEHIND_MAX {
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
            store.append(template.clone()).await?;
            appended += BATCH as u64;
        }
        while let Some(ended) = readers.join_next().await {
            ended.map_err(|failed| Error::Other(failed.to_string()))??;
        }
        rates.push(rate(records * READERS, began.elapsed()));
    }
    discard(store, &dir).await?;
    let line = Line::new("tail", median(&rates), "records/s", Must::AtLeast(5_000_000.0));
    Ok(vec![line.note(format!("{READERS} readers in all"))])
}

/// Reads a queue from `place` to `end`, and tells in `place` how far it is.
async fn follow(store: &Store, queue: QueueId, end: u64, place: &AtomicU64) -> Result<()> {
    let watcher = Watcher::new();
    let mut from = place.load(Ordering::Relaxed);
    while from < end {
        let request = ReadRequest { queue, from, records_max: 1024, bytes_max: 256 << 10, durable: false };
        let batch = store.read(request).await?;
        if batch.records.is_empty() {
            store.watch(queue, from, false, &watcher, 0)?;
            watcher.ready().await;
        }
        from = batch.next;
        place.store(from, Ordering::Relaxed);
    }
    Ok(())
}

/// Timed: one reader from the queue's first record to its last, in batches. The limit: reading the log's files one after the other
/// with calls of 1 MiB. Before either, the files are taken out of the page cache; that the bytes then came from the disk is checked
/// by what the system says it had read for this process.
pub(super) async fn catch_up(bench: &mut Bench) -> Result<Vec<Line>> {
    let records: u64 = bench.scale(2_000_000_000, 20_000_000) / RECORD_BYTES as u64;
    let dir = bench.fresh("catch-up")?;
    bench.say(format_args!("appending {} records", number(records as f64)));
    let store = open_store(options(&dir)).await?;
    let queue = store.open_filter("a/#").await?.id;
    load::fill(&store, "a/b", records).await?;
    store.close().await?;
    drop(store);
    // Opened again: nothing is left of the tail in memory.
    let store = open_store(options(&dir)).await?;
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for run in 0..bench.runs {
        bench.say_run(run);
        let (all, log) = (dir.clone(), dir.join("log"));
        let (bytes, took) = blocking(move || {
            measure::drop_cache(&all)?;
            let before = measure::read_from_disk()?;
            let read = limits::read_files(&log)?;
            cold(before, read.0).map(|()| read)
        })
        .await?;
        bare.push(rate(bytes, took) / 1e6);

        let all = dir.clone();
        let before = blocking(move || {
            measure::drop_cache(&all)?;
            measure::read_from_disk()
        })
        .await?;
        let began = Instant::now();
        let read = read_all(&store, queue).await?;
        ours.push(rate(read, began.elapsed()) / 1e6);
        cold(before, read)?;
    }
    discard(store, &dir).await?;
    let line = Line::new("catch-up", median(&ours), "MB/s", Must::OfLimit(0.6)).limit(median(&bare));
    let note =
        format!("{} MB; limit: bare sequential read", number((records * RECORD_BYTES as u64) as f64 / 1e6));
    Ok(vec![line.note(note)])
}

/// Bytes in the log of all records of a queue.
async fn read_all(store: &Store, queue: QueueId) -> Result<u64> {
    let (mut from, mut bytes) = (0, 0);
    loop {
        let request = ReadRequest { queue, from, records_max: 4096, bytes_max: 1 << 20, durable: false };
        let batch = store.read(request).await?;
        if batch.records.is_empty() {
            return Ok(bytes);
        }
        bytes += batch.records.iter().map(|(_, record)| u64::from(record.size)).sum::<u64>();
        from = batch.next;
    }
}

/// Fails if what was read came from the page cache.
fn cold(before: u64, bytes: u64) -> Result<()> {
    let part = (measure::read_from_disk()? - before) as f64 / bytes as f64;
    if part >= COLD {
        return Ok(());
    }
    Err(Error::Other(format!(
        "the read was not cold: {:.0} % came from the disk; this file system keeps its pages",
        part * 100.0
    )))
}
