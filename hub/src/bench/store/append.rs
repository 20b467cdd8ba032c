//! Rows `append` and `sync`: appending to one queue.

use std::time::{Duration, Instant};

use bytestring::ByteString;
use tidemill_store::{Flush, NewRecord, Options};
use tokio::task::JoinSet;

use super::load::{self, BATCH, RECORD_BYTES};
use super::{discard, open_store, options};
use crate::bench::measure::{median, rate};
use crate::bench::report::{Line, Must};
use crate::bench::{Bench, Error, Result, blocking, limits};

/// Concurrent appenders of row `sync`.
const APPENDERS: usize = 64;

/// Timed: from the first submit to the last receipt; batches are made before. The limit: `pwritev` of as many bytes in as
/// large batches to a new file whose space is reserved in the same steps, without a sync.
pub(super) async fn batches(bench: &mut Bench) -> Result<Vec<Line>> {
    let records: u64 = bench.scale(2_000_000, 100_000);
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for run in 0..bench.runs {
        bench.say_run(run);
        let template = load::batch("a/b");
        let batches: Vec<Vec<NewRecord>> = (0..records / BATCH as u64).map(|_| template.clone()).collect();
        let path = bench.dir.join("bare");
        // Twice as much before: a virtual machine may have to ask its host for pages that nobody has used for a while.
        let limit = move || {
            limits::append(&path, 2 * records, BATCH, RECORD_BYTES)?;
            limits::append(&path, records, BATCH, RECORD_BYTES)
        };
        bare.push(blocking(limit).await?);

        let dir = bench.fresh("append")?;
        let store = open_store(options(&dir)).await?;
        store.open_filter("a/#").await?;
        let began = Instant::now();
        let appended = load::append(&store, batches, |_| false).await?;
        ours.push(rate(appended, began.elapsed()));
        discard(store, &dir).await?;
    }
    let line = Line::new("append", median(&ours), "records/s", Must::OfLimit(0.5)).limit(median(&bare));
    Ok(vec![line.note("limit: bare pwritev")])
}

/// Timed: tasks that each append one record, wait until it is durable, and append the next. The limit: `pwrite` and `fdatasync`
/// of single records, one after the other.
pub(super) async fn synced(bench: &mut Bench) -> Result<Vec<Line>> {
    let length = bench.scale(Duration::from_secs(4), Duration::from_millis(500));
    let (mut bare, mut ours, mut shared) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..bench.runs {
        bench.say_run(run);
        let path = bench.dir.join("bare");
        bare.push(blocking(move || limits::append_synced(&path, RECORD_BYTES, length / 2)).await?);

        let dir = bench.fresh("sync")?;
        let store = open_store(Options { flush: Flush::Sync, ..options(&dir) }).await?;
        store.open_filter("a/#").await?;
        let (before, began) = (store.stats(), Instant::now());
        let mut appenders = JoinSet::new();
        for _ in 0..APPENDERS {
            let store = store.clone();
            appenders.spawn(async move {
                while began.elapsed() < length {
                    let record = load::record(ByteString::from_static("a/b"), RECORD_BYTES);
                    store.append(vec![record]).await?;
                }
                Ok::<_, Error>(())
            });
        }
        while let Some(ended) = appenders.join_next().await {
            ended.map_err(|failed| Error::Other(failed.to_string()))??;
        }
        let (took, after) = (began.elapsed(), store.stats());
        let records = after.records - before.records;
        ours.push(rate(records, took));
        shared.push(records as f64 / (after.syncs - before.syncs).max(1) as f64);
        discard(store, &dir).await?;
    }
    let records = Line::new("sync", median(&ours), "records/s", Must::OfLimit(8.0)).limit(median(&bare));
    let syncs = Line::new("sync-fdatasyncs", median(&shared), "records/sync", Must::AtLeast(16.0));
    Ok(vec![records.note("limit: bare pwrite and fdatasync of each record"), syncs])
}
