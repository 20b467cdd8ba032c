//! Row `retention`: what appending notices when old segments are deleted.

use std::path::Path;
use std::time::{Duration, Instant};

use tidemill_store::{Options, Retention, Store};

use super::{discard, load, open_store, options};
use crate::bench::measure::{self, median};
use crate::bench::report::{Line, Must, number};
use crate::bench::{Bench, Error, Result};

/// One batch in this time: much less than what the store can take, so that each one's latency is its own.
const PACE: Duration = Duration::from_millis(1);
/// How often to look whether the files are gone.
const LOOK: Duration = Duration::from_millis(20);
/// How long the deletion may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many times longer an append may take while segments go.
const TIMES: f64 = 2.0;

/// Timed: single appends of 64 records, each awaited, of which the slowest hundredth counts; with nothing to delete for some seconds, and
/// then from the moment that 1 GB may go until its files are gone. The limit: twice what it took without.
pub(super) async fn deletion(bench: &mut Bench) -> Result<Vec<Line>> {
    let segment_bytes = bench.scale(Options::new("").segment_bytes, 8 << 20);
    let bytes: u64 = bench.scale(1_000_000_000, 40_000_000);
    let length = bench.scale(Duration::from_secs(4), Duration::from_millis(300));
    let (mut without, mut with, mut took) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..bench.runs {
        bench.say_run(run);
        let dir = bench.fresh("retention")?;
        let options = Options { segment_bytes, ..options(&dir) };
        let store = open_store(options.clone()).await?;
        store.open_filter("a/#").await?;
        load::fill(&store, "a/b", (bytes + segment_bytes) / load::RECORD_BYTES as u64).await?;
        store.checkpoint().await?;
        let began = Instant::now();
        without.push(slowest(&store, || Ok(began.elapsed() < length)).await?);
        let kept = store.stats().log_bytes.saturating_sub(bytes);
        store.close().await?;
        drop(store);

        let retention = Retention { time: None, bytes: Some(kept) };
        let store = open_store(Options { retention, ..options }).await?;
        let (began, mut looked) = (Instant::now(), Instant::now());
        let going = || {
            if looked.elapsed() < LOOK {
                return Ok(true);
            }
            looked = Instant::now();
            if began.elapsed() > PATIENCE {
                return Err(Error::Other(format!("after {PATIENCE:?} not all of it is deleted")));
            }
            Ok(store.stats().deleted_bytes < bytes - segment_bytes.min(bytes) || is_going(&dir)?)
        };
        with.push(slowest(&store, going).await?);
        took.push(began.elapsed().as_secs_f64());
        discard(store, &dir).await?;
    }
    let limit = median(&without) * TIMES;
    let line = Line::new("retention", median(&with), "us", Must::UpTo(1.0)).limit(limit);
    let took = number(median(&took));
    Ok(vec![
        line.note(format!(
            "p99 of an append; limit: {TIMES} x without; deleted within {took} s of the start"
        )),
    ])
}

/// Whether the space of a deleted segment is still being given back.
fn is_going(dir: &Path) -> Result<bool> {
    let files = measure::files(&dir.join("log"))?;
    Ok(files.iter().any(|path| path.extension().is_some_and(|ending| ending == "gone")))
}

/// Appends at a steady pace as long as `goes_on` says so; microseconds that the slowest hundredth took at least.
async fn slowest(store: &Store, mut goes_on: impl FnMut() -> Result<bool>) -> Result<f64> {
    let template = load::batch("a/b");
    let mut micros: Vec<f64> = Vec::new();
    let mut pace = tokio::time::interval(PACE);
    while goes_on()? {
        pace.tick().await;
        let batch = template.clone();
        let began = Instant::now();
        store.append(batch).await?;
        micros.push(began.elapsed().as_secs_f64() * 1e6);
    }
    micros.sort_by(f64::total_cmp);
    Ok(micros.get(micros.len() * 99 / 100).copied().unwrap_or_default())
}
