//! A log of several shards: order, offsets, promises, and what a crash may leave of each.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tidemill_store::{
    Flush, NewRecord, Options, Position, Record, Retain, Retention, ScanRequest, Store, StreamOptions,
};

#[path = "common/read.rs"]
mod read;

use read::read_all;

const SHARDS: u16 = 3;

fn options(dir: &Path) -> Options {
    Options { segment_bytes: 8 << 10, shards: SHARDS, ..Options::new(dir) }
}

fn numbered(topic: &str, number: u32) -> NewRecord {
    NewRecord {
        topic: topic.into(),
        properties: Bytes::new(),
        payload: number.to_string().into_bytes().into(),
        attributes: 0,
        retain: Retain::No,
    }
}

async fn scan_all(store: &Store) -> Vec<Record> {
    let all =
        ScanRequest { from: Vec::new(), filter: Some("#".into()), records_max: 9999, bytes_max: 1 << 30 };
    store.scan(all).await.unwrap().records
}

fn number(record: &Record) -> u32 {
    std::str::from_utf8(&record.payload).unwrap().parse().unwrap()
}

fn stream(name: &str, filter: &str, shards: u16, flush: Flush) -> StreamOptions {
    let (filters, retention) = (vec![filter.to_owned()], Retention::default());
    StreamOptions { name: name.into(), filters, shards, flush, retention }
}

#[tokio::test]
async fn topics_keep_their_order_and_queues_their_offsets_over_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let mut queues = Vec::new();
    let mut before: Vec<Vec<(u64, Record)>> = Vec::new();
    let mut appended = 0;
    for round in 0..4 {
        // With the index as the crash left it, without it, and with some of it.
        if round == 2 {
            std::fs::remove_dir_all(dir.path().join("index")).unwrap();
        }
        let store = Store::open(options(dir.path())).unwrap();
        if round == 0 {
            for filter in ["t/#", "t/1", "t/+"] {
                queues.push(store.open_filter(filter).await.unwrap().id);
            }
        }
        let mut after = Vec::new();
        for queue in &queues {
            after.push(read_all(&store, *queue, 0).await);
        }
        assert!(round == 0 || after == before, "round {round}");

        let tasks: Vec<_> = (0..8)
            .map(|task| {
                let store = store.clone();
                tokio::spawn(async move {
                    for n in 0..40 {
                        let batch = (0..4).map(|k| numbered(&format!("t/{}", task * 4 + k), round * 40 + n));
                        store.append(batch.collect()).await.unwrap();
                        if task == 0 && n == 20 && round == 3 {
                            store.checkpoint().await.unwrap();
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        appended += 8 * 40 * 4;

        let all = read_all(&store, queues[0], 0).await;
        assert_eq!(all.len(), appended);
        let mut last: BTreeMap<String, u32> = BTreeMap::new();
        for ((expected, (offset, record)), sequence) in all.iter().enumerate().zip(1..) {
            assert_eq!((*offset, record.sequence), (expected as u64, sequence));
            let before = last.insert(record.topic.to_string(), number(record));
            assert!(before.is_none_or(|before| before + 1 == number(record)), "{}", record.topic);
        }
        let used: std::collections::BTreeSet<u16> = all.iter().map(|(_, r)| r.position.shard()).collect();
        assert_eq!(used.len(), usize::from(SHARDS));
        assert_eq!(scan_all(&store).await, all.iter().map(|(_, r)| r.clone()).collect::<Vec<_>>());
        before.clear();
        for queue in &queues {
            before.push(read_all(&store, *queue, 0).await);
        }
        // Dropped, as the death of the process would.
    }
}

#[tokio::test]
async fn a_shard_that_lost_its_tail_leaves_the_others_and_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut stored = Vec::new();
    {
        let store = Store::open(Options { segment_bytes: 1 << 20, ..options(dir.path()) }).unwrap();
        store.open_filter("#").await.unwrap();
        for n in 0..60 {
            stored.extend(store.append(vec![numbered(&format!("t/{}", n % 7), n)]).await.unwrap().positions);
        }
    }
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    // As a power cut with asynchronous flushes may leave it.
    let lost = stored[30];
    let file = dir.path().join("log").join(format!("{}.seg", Position::new(lost.shard(), 0)));
    std::fs::OpenOptions::new().write(true).open(file).unwrap().set_len(lost.offset() + 3).unwrap();

    let store = Store::open(options(dir.path())).unwrap();
    let queue = store.open_filter("#").await.unwrap().id;
    let left: Vec<Position> =
        stored.iter().copied().filter(|p| p.shard() != lost.shard() || p < &lost).collect();
    let read = read_all(&store, queue, 0).await;
    assert_eq!(read.iter().map(|(_, record)| record.position).collect::<Vec<_>>(), left);
    let last = read.last().unwrap().1.sequence;
    assert_eq!(store.next_sequence(), last + 1);
    store.append(vec![numbered("t/0", 60)]).await.unwrap();
    assert_eq!(read_all(&store, queue, 0).await.last().unwrap().1.sequence, last + 1);
}

#[tokio::test]
async fn streams_keep_their_own_promise_and_their_shards() {
    let dir = tempfile::tempdir().unwrap();
    let lazy = Options {
        streams: vec![stream("fast", "fast/#", 2, Flush::Async)],
        async_flush_interval: Duration::from_secs(3600),
        // No checkpoint asks for a sync either.
        checkpoint_interval: Duration::from_secs(3600),
        ..options(dir.path())
    };
    let (fast, slow);
    {
        let store = Store::open(lazy.clone()).unwrap();
        fast = store.append(vec![numbered("fast/a", 0)]).await.unwrap().positions[0];
        assert!(!store.is_durable(fast), "acknowledged before it was synced");
        slow = store.append(vec![numbered("slow", 1)]).await.unwrap().positions[0];
        assert!(store.is_durable(slow) && !store.is_durable(fast));
        assert!(fast.shard() >= SHARDS && slow.shard() < SHARDS);
        // One append to both waits for the part that has to be durable.
        let both = store.append(vec![numbered("fast/a", 2), numbered("slow", 3)]).await.unwrap().positions;
        assert!(store.is_durable(both[1]) && !store.is_durable(both[0]));
        store.checkpoint().await.unwrap();
        assert!(store.is_durable(both[0]), "whoever needs it durable does not wait an hour");
        store.close().await.unwrap();
    }
    // The stream has left: its records stay, and its topics go elsewhere.
    let store = Store::open(options(dir.path())).unwrap();
    assert_eq!(scan_all(&store).await.iter().map(number).collect::<Vec<_>>(), [0, 1, 2, 3]);
    let moved = store.append(vec![numbered("fast/a", 4)]).await.unwrap().positions[0];
    assert!(moved.shard() < SHARDS);
    drop(store);
    // It comes back, and finds its shards.
    let store = Store::open(lazy).unwrap();
    let back = store.append(vec![numbered("fast/a", 5)]).await.unwrap().positions[0];
    assert_eq!(back.shard(), fast.shard());
    assert_eq!(scan_all(&store).await.iter().map(number).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_segment_of_a_shard_that_no_stream_has_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(options(dir.path())).unwrap());
    std::fs::remove_dir_all(dir.path().join("meta")).unwrap();
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let error = Store::open(Options::new(dir.path())).err().unwrap();
    assert!(error.to_string().contains("of a shard that no stream has"), "{error}");
}
