//! Rows `memory` and `million`: very many filter queues.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytestring::ByteString;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use tidemill_store::{FilterRequest, History, Keep, NewRecord, Store};

use super::load::{self, BATCH, RECORD_BYTES};
use super::open::Opened;
use super::{discard, open_store, options};
use crate::bench::child::{Running, Task};
use crate::bench::measure::{self, median, rate};
use crate::bench::report::{Line, Must, number};
use crate::bench::{Bench, Result};

/// Each region has 8 × 111 devices with an exact queue, 111 queues `region/+/device` and one `region/#`: 1,000 queues, and each
/// record is in one of each kind.
const SITES: u64 = 8;
const DEVICES: u64 = 111;
const QUEUES_OF_REGION: u64 = 1000;
const _: () = assert!((SITES + 1) * DEVICES + 1 == QUEUES_OF_REGION);

/// Queues that are asked for at a time.
const CHANGES: usize = 10_000;
/// How long resident memory must not have fallen before it counts.
const CALM: Duration = Duration::from_secs(3);
const CALM_QUICK: Duration = Duration::from_millis(200);

/// A data directory with very many queues, made once for all rows that use it.
#[derive(Clone, Debug)]
pub(in crate::bench) struct ManyQueues {
    pub(super) dir: PathBuf,
    pub(super) regions: u64,
    created: Created,
    /// Records in it.
    pub(super) records: u64,
}

impl ManyQueues {
    /// Gives back the space on disk.
    pub(in crate::bench) fn remove(self) -> Result<()> {
        crate::bench::remove(&self.dir)
    }
}

/// What making the queues did to a process that did nothing else.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::bench) struct Created {
    /// Resident bytes with an open, empty store.
    before: u64,
    /// Resident bytes after the queues were made and a checkpoint.
    after: u64,
    seconds: f64,
}

pub(super) fn calm(quick: bool) -> Duration {
    if quick { CALM_QUICK } else { CALM }
}

/// The filters of so many regions.
fn filters(regions: u64) -> impl Iterator<Item = String> {
    (0..regions).flat_map(|region| {
        let exact = (0..SITES * DEVICES).map(move |n| topic(region, n / DEVICES, n % DEVICES));
        let wildcards = (0..DEVICES).map(move |device| format!("r{region}/+/d{device}"));
        exact.chain(wildcards).chain([format!("r{region}/#")])
    })
}

fn topic(region: u64, site: u64, device: u64) -> String {
    format!("r{region}/s{site}/d{device}")
}

/// Batches of records whose topics are uniformly random.
pub(super) fn random_batches(regions: u64, seed: u64) -> impl Iterator<Item = Vec<NewRecord>> {
    let mut random = SmallRng::seed_from_u64(seed);
    std::iter::repeat_with(move || {
        let mut one = || {
            let (region, site) = (random.random_range(0..regions), random.random_range(0..SITES));
            let topic = topic(region, site, random.random_range(0..DEVICES));
            load::record(ByteString::from(topic), RECORD_BYTES)
        };
        (0..BATCH).map(|_| one()).collect()
    })
}

/// Makes the queues of filters.
pub(super) async fn open_filters(store: &Store, filters: impl Iterator<Item = String>) -> Result<()> {
    let durable = |filter| FilterRequest { filter, keep: Keep::Durable, history: History::None };
    let mut requests = filters.map(durable).peekable();
    while requests.peek().is_some() {
        store.open_filters(requests.by_ref().take(CHANGES).collect()).await?;
    }
    Ok(())
}

/// Makes `regions` times 1,000 queues: in a process of its own, so that nothing but an open, empty store is in `before`, and in
/// `after` nothing else that the process keeps: the filters are made one by one and dropped.
pub(in crate::bench) async fn create(dir: PathBuf, regions: u64, quick: bool) -> Result<Created> {
    let store = open_store(options(&dir)).await?;
    let before = measure::resident_settled(calm(quick)).await?;
    let began = Instant::now();
    open_filters(&store, filters(regions)).await?;
    let seconds = began.elapsed().as_secs_f64();
    store.checkpoint().await?;
    let after = measure::resident_settled(calm(quick)).await?;
    store.close().await?;
    Ok(Created { before, after, seconds })
}

/// The store with very many queues.
pub(super) async fn many(bench: &mut Bench) -> Result<ManyQueues> {
    if let Some(many) = &bench.many {
        return Ok(many.clone());
    }
    let regions = bench.scale(1000, 10);
    bench.say(format_args!("making {} queues", number((regions * QUEUES_OF_REGION) as f64)));
    let dir = bench.fresh("many-queues")?;
    let created: Created = Running::start(Task::Create, &dir, regions, bench.quick)?.finish().await?;
    bench.say(format_args!("made in {:.1} s", created.seconds));
    let many = ManyQueues { dir, regions, created, records: 0 };
    bench.many = Some(many.clone());
    Ok(many)
}

/// Growth of resident memory for each queue: in the process that made them, or in one that opened them, whichever is more.
/// Both are processes that do nothing else; what an open, empty store takes is taken off.
pub(super) async fn memory(bench: &mut Bench) -> Result<Vec<Line>> {
    let many = many(bench).await?;
    let (mut empty, mut opened) = (Vec::new(), Vec::new());
    for run in 0..bench.runs {
        bench.say_run(run);
        let dir = bench.fresh("empty")?;
        let of = async |dir: &Path| -> Result<f64> {
            let opened: Opened = Running::start(Task::Open, dir, 0, bench.quick)?.finish().await?;
            Ok(opened.resident as f64)
        };
        empty.push(of(&dir).await?);
        opened.push(of(&many.dir).await?);
    }
    let queues = (many.regions * QUEUES_OF_REGION) as f64;
    let made = many.created.after.saturating_sub(many.created.before) as f64 / queues;
    let opened = (median(&opened) - median(&empty)) / queues;
    let line = Line::new("memory", made.max(opened), "B/queue", Must::AtMost(250.0));
    let note =
        format!("{} queues: {made:.0} B where they were made, {opened:.0} B where opened", number(queues));
    Ok(vec![line.note(note)])
}

/// Timed: from the first submit to the last receipt, with a warm-up before that fills the index's buffer, so that the index has
/// to keep up. Records and their topics are made before.
pub(super) async fn append(bench: &mut Bench) -> Result<Vec<Line>> {
    let dir = bench.fresh("few-queues")?;
    let store = open_store(options(&dir)).await?;
    open_filters(&store, filters(1)).await?;
    bench.say("with 1,000 queues");
    let few = appended(bench, &store, 1).await?;
    discard(store, &dir).await?;

    let mut many = many(bench).await?;
    bench.say(format_args!("with {} queues", number((many.regions * QUEUES_OF_REGION) as f64)));
    let store = open_store(options(&many.dir)).await?;
    let rates = appended(bench, &store, many.regions).await?;
    many.records += store.stats().records;
    store.close().await?;
    bench.many = Some(many);
    let (few, rates) = (median(&few), median(&rates));
    Ok(vec![
        Line::new("million", rates, "records/s", Must::AtLeast(300_000.0)).note("3 queues for each record"),
        Line::new("million-ratio", rates, "records/s", Must::OfLimit(0.3))
            .limit(few)
            .note("limit: the same with 1,000 queues"),
    ])
}

/// Rates of appending to random topics.
async fn appended(bench: &Bench, store: &Store, regions: u64) -> Result<Vec<f64>> {
    let batches = bench.scale(2_000_000, 20_000) / BATCH;
    let longest = bench.scale(Duration::from_secs(10), Duration::from_secs(1));
    let mut rates = Vec::new();
    for run in 0..bench.runs {
        bench.say_run(run);
        let seed = run as u64;
        let warm_up: Vec<_> = random_batches(regions, !seed).take(batches / 4).collect();
        let prepared: Vec<_> = random_batches(regions, seed).take(batches).collect();
        let began = Instant::now();
        load::append(store, warm_up, |_| began.elapsed() > longest).await?;
        let began = Instant::now();
        let records = load::append(store, prepared, |_| began.elapsed() > longest).await?;
        rates.push(rate(records, began.elapsed()));
    }
    Ok(rates)
}

#[cfg(test)]
mod tests {
    use tidemill_store::Options;

    use super::*;

    #[tokio::test]
    async fn a_record_is_in_one_queue_of_each_kind() {
        assert_eq!(filters(3).count(), 3000);
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Options::new(dir.path())).unwrap();
        open_filters(&store, filters(1)).await.unwrap();
        let batches = random_batches(1, 7).take(5);
        let records = load::append(&store, batches, |_| false).await.unwrap();
        assert_eq!((records, store.stats().entries), (320, 960));
        assert_eq!(store.stats().bytes, 320 * RECORD_BYTES as u64);
    }
}
