//! Rows `index-busy` and `index-cold`: bytes on disk for each index entry. They do not depend on the moment, so one run is
//! enough. Records are of uneven sizes, 256 B in the mean.

use std::path::Path;

use bytestring::ByteString;
use tidemill_store::{NewRecord, Store};

use super::load::{self, BATCH};
use super::queues::open_filters;
use super::{discard, open_store, options};
use crate::bench::measure;
use crate::bench::report::{Line, Must, number};
use crate::bench::{Bench, Result};

/// How often each cold queue gets an entry.
const ROUNDS: u64 = 4;

/// Bytes of all files of the index after a checkpoint, for each entry.
async fn bytes_of_entry(store: &Store, dir: &Path) -> Result<f64> {
    store.checkpoint().await?;
    let bytes = measure::file_bytes_settled(&dir.join("index")).await?;
    Ok(bytes as f64 / store.stats().entries as f64)
}

/// One queue that gets every record.
pub(super) async fn busy(bench: &mut Bench) -> Result<Vec<Line>> {
    let records: u64 = bench.scale(4_000_000, 200_000);
    bench.say(format_args!("appending {} records to one queue", number(records as f64)));
    let dir = bench.fresh("index-busy")?;
    let store = open_store(options(&dir)).await?;
    store.open_filter("a/#").await?;
    let mut uneven = load::uneven(1);
    let batches = std::iter::repeat_with(|| {
        (0..BATCH).map(|_| uneven(ByteString::from_static("a/b"))).collect::<Vec<_>>()
    });
    load::append(&store, batches, |done| done >= records).await?;
    let bytes = bytes_of_entry(&store, &dir).await?;
    discard(store, &dir).await?;
    Ok(vec![Line::new("index-busy", bytes, "B/entry", Must::AtMost(8.0))])
}

/// Very many queues that get one entry in each round, in another order than they were made: no two entries of a queue come within
/// one checkpoint.
pub(super) async fn cold(bench: &mut Bench) -> Result<Vec<Line>> {
    let queues: u64 = bench.scale(1_000_000, 10_000);
    bench.say(format_args!("making {} queues", number(queues as f64)));
    let dir = bench.fresh("index-cold")?;
    let store = open_store(options(&dir)).await?;
    open_filters(&store, (0..queues).map(topic)).await?;
    for round in 0..ROUNDS {
        bench.say(format_args!("round {} of {ROUNDS}", round + 1));
        load::append(&store, round_of(queues, round), |_| false).await?;
        store.checkpoint().await?;
    }
    let bytes = bytes_of_entry(&store, &dir).await?;
    discard(store, &dir).await?;
    let note = format!("{} queues, {ROUNDS} entries in each", number(queues as f64));
    Ok(vec![Line::new("index-cold", bytes, "B/entry", Must::AtMost(40.0)).note(note)])
}

fn topic(queue: u64) -> String {
    format!("cold/{queue}")
}

/// Batches with one record for each queue, scattered over them.
fn round_of(queues: u64, round: u64) -> impl Iterator<Item = Vec<NewRecord>> {
    // A prime number that does not divide the number of queues: every queue comes once.
    const STEP: u64 = 611_953;
    let mut uneven = load::uneven(round);
    (0..queues.div_ceil(BATCH as u64)).map(move |batch| {
        let first = batch * BATCH as u64;
        let numbers = first..(first + BATCH as u64).min(queues);
        numbers.map(|n| uneven(ByteString::from(topic(n * STEP % queues)))).collect()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_round_has_every_queue_once() {
        for queues in [1_000_000, 10_000, 100] {
            let topics: HashSet<ByteString> =
                round_of(queues, 0).flatten().map(|record| record.topic).collect();
            assert_eq!(topics.len() as u64, queues);
            assert_eq!(round_of(queues, 0).flatten().count() as u64, queues);
        }
    }
}
