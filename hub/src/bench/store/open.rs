//! Rows `open-clean` and `open-crash`: how soon a store with very many queues and records is there again.

use std::path::PathBuf;
use std::time::Instant;

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use tidemill_store::ReadRequest;

use super::load::{self, BATCH, RECORD_BYTES};
use super::queues::{self, ManyQueues};
use super::{open_store, options};
use crate::bench::child::{self, Running, Task};
use crate::bench::measure::{self, median};
use crate::bench::report::{Line, Must, number};
use crate::bench::{Bench, Result};

/// Seconds that opening may take.
const SECONDS_MAX: f64 = 3.0;
/// Megabytes of the log that may be dispatched again after a crash.
const AGAIN_MB_MAX: f64 = 64.0;
/// Batches between two lines of the child that is killed.
const BATCHES_OF_LINE: usize = 1 << 8;

/// What opening a store came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::bench) struct Opened {
    /// Until a record was acknowledged and a queue was read.
    seconds: f64,
    /// Records dispatched again.
    redispatched: u64,
    /// Resident bytes, once it is open and after a checkpoint.
    pub(super) resident: u64,
}

/// What a child has appended.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Progress {
    records: u64,
    seconds: f64,
}

/// Opens a store, appends a record and reads from a queue, if there is one: what is put off until first use counts, too.
pub(in crate::bench) async fn open_and_use(dir: PathBuf, quick: bool) -> Result<Opened> {
    let began = Instant::now();
    let store = open_store(options(&dir)).await?;
    store.append(vec![load::record(ByteString::from_static("r0/s0/d0"), RECORD_BYTES)]).await?;
    if let Some(queue) = store.queues(None, 1).await?.first() {
        let request =
            ReadRequest { queue: queue.id, from: 0, records_max: 1, bytes_max: 1 << 20, durable: false };
        store.read(request).await?;
    }
    let seconds = began.elapsed().as_secs_f64();
    store.checkpoint().await?;
    let resident = measure::resident_settled(queues::calm(quick)).await?;
    let redispatched = store.stats().redispatched;
    store.close().await?;
    Ok(Opened { seconds, redispatched, resident })
}

/// Appends to random topics, and tells how much, until it is killed.
pub(in crate::bench) async fn append_until_killed(dir: PathBuf, regions: u64) -> Result<()> {
    let store = open_store(options(&dir)).await?;
    let (mut records, began) = (0, Instant::now());
    let mut batches = queues::random_batches(regions, u64::from(std::process::id()));
    loop {
        let some: Vec<_> = batches.by_ref().take(BATCHES_OF_LINE).collect();
        records += load::append(&store, some, |_| false).await?;
        child::tell(&Progress { records, seconds: began.elapsed().as_secs_f64() })?;
    }
}

/// The store with very many queues and records, closed orderly.
async fn filled(bench: &mut Bench) -> Result<ManyQueues> {
    let records = bench.scale(10_000_000, 50_000);
    let mut many = queues::many(bench).await?;
    if many.records < records {
        let missing = records - many.records;
        bench.say(format_args!("appending {} records", number(missing as f64)));
        let store = open_store(options(&many.dir)).await?;
        let batches = queues::random_batches(many.regions, many.records);
        load::append(&store, batches, |done| done >= missing).await?;
        many.records += store.stats().records;
        store.close().await?;
        bench.many = Some(many.clone());
    }
    Ok(many)
}

fn described(many: &ManyQueues) -> String {
    format!("{},000 queues, {:.1} M records", number(many.regions as f64), many.records as f64 / 1e6)
}

/// Timed, in a process of its own: from before the store is opened until a record is acknowledged and a queue was read. The
/// files are in the page cache, as they are when a process is restarted.
pub(super) async fn clean(bench: &mut Bench) -> Result<Vec<Line>> {
    let many = filled(bench).await?;
    let mut seconds = Vec::new();
    for run in 0..bench.runs {
        bench.say_run(run);
        let opened: Opened = Running::start(Task::Open, &many.dir, 0, bench.quick)?.finish().await?;
        seconds.push(opened.seconds);
    }
    let line = Line::new("open-clean", median(&seconds), "s", Must::AtMost(SECONDS_MAX));
    Ok(vec![line.note(described(&many))])
}

/// Timed as [`clean`], after a child was killed while it appended. What it had to dispatch again may take as long as it took
/// the child to append: that is the limit, with the seconds that opening may take.
pub(super) async fn crash(bench: &mut Bench) -> Result<Vec<Line>> {
    let mut many = filled(bench).await?;
    let least = bench.scale(48_000_000, 1_000_000) / RECORD_BYTES as u64;
    let (mut seconds, mut allowed, mut again) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..bench.runs {
        bench.say_run(run);
        // Killed at another moment each time: how far the index is behind depends on it.
        let enough = least + least / 4 * run as u64;
        let mut appending = Running::start(Task::Append, &many.dir, many.regions, bench.quick)?;
        let appended = appending.until(move |progress: &Progress| progress.records >= enough).await?;
        drop(appending);
        many.records += appended.records;
        let opened: Opened = Running::start(Task::Open, &many.dir, 0, bench.quick)?.finish().await?;
        seconds.push(opened.seconds);
        again.push(opened.redispatched as f64);
        allowed.push(SECONDS_MAX + opened.redispatched as f64 * appended.seconds / appended.records as f64);
    }
    bench.many = Some(many.clone());
    let records = median(&again);
    // The most of all runs: it is a bound.
    let most = again.iter().copied().fold(0.0, f64::max) * RECORD_BYTES as f64 / 1e6;
    let note = format!(
        "{}; {} records dispatched again; limit: {SECONDS_MAX} s and the time they took to append",
        described(&many),
        number(records)
    );
    Ok(vec![
        Line::new("open-crash", median(&seconds), "s", Must::UpTo(1.0)).limit(median(&allowed)).note(note),
        Line::new("open-crash-again", most, "MB", Must::AtMost(AGAIN_MB_MAX))
            .note("log dispatched again, most of all runs"),
    ])
}

const _: () = assert!(
    BATCH * RECORD_BYTES * BATCHES_OF_LINE <= 8 << 20,
    "the moment of the kill is told closely enough"
);
