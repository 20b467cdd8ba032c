//! Rows `offline` and `cursors`: what sessions cost that are not connected, and those that are.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytestring::ByteString;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use tidemill_store::{CursorKey, CursorPlace, NewRecord, Options, QueueId, Start};

use super::load::{self, Appender};
use super::{discard, open_store, options, queues};
use crate::bench::child::{Running, Task};
use crate::bench::measure::{self, median, rate};
use crate::bench::report::{Line, Must, number};
use crate::bench::{Bench, Result};

/// Records of row `offline`, and bytes of each in the log.
const OFFLINE_RECORDS: usize = 1000;
const OFFLINE_RECORD_BYTES: usize = 1024;
/// Cursors that are opened at the same time.
const OPENING: usize = 64;
/// Checkpoints of row `cursors` come when they are asked for, so that none takes some of the cursors before it is timed.
const NO_CHECKPOINT: Duration = Duration::from_secs(3600);

/// How much disk and memory grew.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::bench) struct Growth {
    disk: i64,
    resident: i64,
}

fn cursor(session: u64, queue: QueueId) -> CursorKey {
    CursorKey { owner: format!("session/client-{session:07}"), queue }
}

/// Growth from after the sessions are there to after the records are appended and a checkpoint. Memory is that of a process of its
/// own: in it is what the store keeps of the records (its tail, the index) and what its threads needed meanwhile; the records'
/// payloads are static.
pub(in crate::bench) async fn offline_growth(dir: PathBuf, sessions: u64, quick: bool) -> Result<Growth> {
    let store = open_store(options(&dir)).await?;
    let queue = store.open_filter("fleet/+/state").await?.id;
    let opened = stream::iter(0..sessions).map(|n| store.open_cursor(cursor(n, queue), Start::Latest));
    opened.buffer_unordered(OPENING).try_for_each(|_| async { Ok(()) }).await?;
    store.checkpoint().await?;
    // The log's file is longer than the log: what counts of it is the log's end.
    let disk = async || -> Result<i64> {
        let databases = measure::file_bytes_settled(&dir.join("index")).await?
            + measure::file_bytes_settled(&dir.join("meta")).await?;
        Ok((databases + store.stats().log_bytes) as i64)
    };
    let before = (disk().await?, measure::resident_settled(queues::calm(quick)).await? as i64);
    for n in 0..OFFLINE_RECORDS {
        let topic = ByteString::from(format!("fleet/v{n}/state"));
        store.append(vec![load::record(topic, OFFLINE_RECORD_BYTES)]).await?;
    }
    store.checkpoint().await?;
    let after = (disk().await?, measure::resident_settled(queues::calm(quick)).await? as i64);
    store.close().await?;
    Ok(Growth { disk: after.0 - before.0, resident: after.1 - before.1 })
}

/// See [`offline_growth`].
pub(super) async fn offline(bench: &mut Bench) -> Result<Vec<Line>> {
    let sessions: u64 = bench.scale(10_000, 200);
    let (mut disk, mut resident) = (Vec::new(), Vec::new());
    for run in 0..bench.runs {
        bench.say_run(run);
        let dir = bench.fresh("offline")?;
        let growth: Growth = Running::start(Task::Offline, &dir, sessions, bench.quick)?.finish().await?;
        disk.push(growth.disk as f64 / 1e6);
        resident.push(growth.resident as f64 / 1e6);
    }
    let note = format!(
        "{} records of {OFFLINE_RECORD_BYTES} B, {} sessions",
        number(OFFLINE_RECORDS as f64),
        number(sessions as f64)
    );
    Ok(vec![
        Line::new("offline", median(&disk), "MB on disk", Must::AtMost(1.1)).note(note),
        Line::new("offline-memory", median(&resident), "MB in memory", Must::AtMost(8.0)),
    ])
}

/// Checkpoints of one run: each is over in a moment, so that what a writer does meanwhile is counted over several.
const CHECKPOINTS: u64 = 10;
/// Cursors made at a time.
const CURSORS_AT_ONCE: u64 = 10_000;

/// Timed: checkpoints when every cursor has moved, while a writer appends to one queue; and what that writer appends
/// meanwhile, against what it appends in the seconds before. Keys are made before; moving the cursors is not timed.
pub(super) async fn checkpoint(bench: &mut Bench) -> Result<Vec<Line>> {
    let sessions: u64 = bench.scale(1_000_000, 10_000);
    let length = bench.scale(Duration::from_secs(3), Duration::from_millis(300));
    let dir = bench.fresh("cursors")?;
    let store = open_store(Options { checkpoint_interval: NO_CHECKPOINT, ..options(&dir) }).await?;
    let queue = store.open_filter("a/#").await?.id;
    let first: Vec<NewRecord> = load::batch("a/b");
    store.append(first).await?;
    let mut cursors = Vec::with_capacity(sessions as usize);
    while (cursors.len() as u64) < sessions {
        let from = cursors.len() as u64;
        let keys = (from..sessions.min(from + CURSORS_AT_ONCE)).map(|n| (cursor(n, queue), Start::Earliest));
        cursors.extend(store.open_cursors(keys.collect()).await?.into_iter().map(|cursor| cursor.id));
    }
    let (mut seconds, mut alone, mut beside) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..bench.runs {
        bench.say_run(run);
        let appender = Appender::start(&store, "a/b");
        tokio::time::sleep(length / 3).await;
        let (before, began) = (appender.records(), Instant::now());
        tokio::time::sleep(length).await;
        alone.push(rate(appender.records() - before, began.elapsed()));
        appender.stop().await?;
        store.checkpoint().await?;

        let appender = Appender::start(&store, "a/b");
        tokio::time::sleep(length / 3).await;
        let (mut records, mut took) = (0, Duration::ZERO);
        for round in 0..CHECKPOINTS {
            let place = CursorPlace { offset: run as u64 * CHECKPOINTS + round + 1, sequence: 1 };
            cursors.iter().for_each(|cursor| store.commit(*cursor, place));
            tokio::time::sleep(length / 30).await;
            let (before, began) = (appender.records(), Instant::now());
            store.checkpoint().await?;
            took += began.elapsed();
            records += appender.records() - before;
        }
        appender.stop().await?;
        beside.push(rate(records, took));
        seconds.push(took.as_secs_f64() / CHECKPOINTS as f64);
    }
    discard(store, &dir).await?;
    let note = format!("{} cursors of one queue", number(sessions as f64));
    Ok(vec![
        Line::new("cursors", median(&seconds), "s", Must::AtMost(2.0)).note(note),
        Line::new("cursors-writer", median(&beside), "records/s", Must::OfLimit(0.8))
            .limit(median(&alone))
            .note("limit: the same writer without the checkpoint"),
    ])
}
