//! Records to append, and the tasks that append them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use bytestring::ByteString;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tidemill_store::{NewRecord, Receipt, Retain, Store};
use tokio::task::JoinHandle;

use crate::bench::{Error, Result};

/// Bytes that a record takes in the log, unless a row says otherwise.
pub(super) const RECORD_BYTES: usize = 256;
/// Records in a batch, as they come from one read of a busy connection.
pub(super) const BATCH: usize = 64;
/// Bytes of a record in the log beside topic and payload.
const HEADER_BYTES: usize = 40;
/// Batches that may wait for their receipts.
const OUTSTANDING: usize = 256;

/// Payloads are slices of this: neither making a record nor dropping it costs more than its topic does.
static PAYLOAD: [u8; 1024] = [b'p'; 1024];

/// A record that takes `bytes` in the log.
pub(super) fn record(topic: ByteString, bytes: usize) -> NewRecord {
    let payload = bytes.saturating_sub(HEADER_BYTES + topic.len());
    NewRecord {
        payload: Bytes::from_static(PAYLOAD.get(..payload).unwrap_or(&PAYLOAD)),
        topic,
        properties: Bytes::new(),
        attributes: 0,
        retain: Retain::No,
    }
}

/// A batch for one topic.
pub(super) fn batch(topic: &'static str) -> Vec<NewRecord> {
    (0..BATCH).map(|_| record(ByteString::from_static(topic), RECORD_BYTES)).collect()
}

/// Appends batches as fast as the store takes them, without waiting for each, until `enough` says so of the records
/// submitted so far. Returns once all are acknowledged; how many that were.
pub(super) async fn append(
    store: &Store,
    batches: impl IntoIterator<Item = Vec<NewRecord>>,
    mut enough: impl FnMut(u64) -> bool,
) -> Result<u64> {
    let mut outstanding: VecDeque<Receipt> = VecDeque::with_capacity(OUTSTANDING);
    let mut records = 0;
    for batch in batches {
        if enough(records) {
            break;
        }
        records += batch.len() as u64;
        outstanding.push_back(store.submit(batch).await?);
        if outstanding.len() >= OUTSTANDING {
            // The last of the older half first: it is woken once, and finds the others answered.
            for receipt in outstanding.drain(..OUTSTANDING / 2).rev() {
                receipt.await?;
            }
        }
    }
    for receipt in outstanding {
        receipt.await?;
    }
    Ok(records)
}

/// Appends `records` of one topic.
pub(super) async fn fill(store: &Store, topic: &'static str, records: u64) -> Result<()> {
    let template = batch(topic);
    append(store, std::iter::repeat_with(|| template.clone()), |done| done >= records).await?;
    Ok(())
}

/// Records of sizes between a half and one and a half of [`RECORD_BYTES`], which is their mean: where positions are packed,
/// records of one size would pack into nothing.
pub(super) fn uneven(seed: u64) -> impl FnMut(ByteString) -> NewRecord {
    let mut random = SmallRng::seed_from_u64(seed);
    move |topic| record(topic, random.random_range(RECORD_BYTES / 2..=RECORD_BYTES / 2 * 3))
}

/// Appends to one topic in the background until it is stopped.
pub(super) struct Appender {
    stop: Arc<AtomicBool>,
    records: Arc<AtomicU64>,
    task: JoinHandle<Result<u64>>,
}

impl Appender {
    pub(super) fn start(store: &Store, topic: &'static str) -> Appender {
        let (stop, records) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (store, stopped, counted) = (store.clone(), stop.clone(), records.clone());
        let task = tokio::spawn(async move {
            let template = batch(topic);
            let batches = std::iter::repeat_with(|| template.clone());
            append(&store, batches, |submitted| {
                counted.store(submitted, Ordering::Relaxed);
                stopped.load(Ordering::Relaxed)
            })
            .await
        });
        Appender { stop, records, task }
    }

    /// Records submitted so far: at most `OUTSTANDING` batches more than acknowledged.
    pub(super) fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    pub(super) async fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap_or_else(|failed| Err(Error::Other(format!("the appender failed: {failed}"))))
    }
}

#[cfg(test)]
mod tests {
    use tidemill_store::{Options, ReadRequest};

    use super::*;

    #[tokio::test]
    async fn a_record_takes_what_it_says() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Options::new(dir.path())).unwrap();
        let queue = store.open_filter("a/#").await.unwrap().id;
        fill(&store, "a/b", 100).await.unwrap();
        store.append(vec![record(ByteString::from_static("a/c"), 1024)]).await.unwrap();
        let request = ReadRequest { queue, from: 0, records_max: 200, bytes_max: 1 << 20, durable: false };
        let read = store.read(request).await.unwrap().records;
        let sizes: Vec<u32> = read.iter().map(|(_, record)| record.size).collect();
        assert_eq!(sizes.len(), 129, "whole batches");
        assert!(sizes.iter().take(128).all(|size| *size == RECORD_BYTES as u32), "{sizes:?}");
        assert_eq!(sizes.last(), Some(&1024));
    }
}
