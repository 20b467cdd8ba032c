//! Retention: old segments go by bytes and by time, retained messages stay, readers pass what is gone.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidemill_store::{
    CursorKey, FilterRequest, History, Keep, NewRecord, Options, QueueId, ReadRequest, Record, Retain,
    Retention, ScanRequest, Start, Store, StoreError, StreamOptions,
};

#[macro_use]
#[path = "common/shards.rs"]
mod shards;

with_shards! {
    the_oldest_go_by_bytes_and_readers_pass_them,
    an_idle_log_is_emptied_by_time,
    retained_messages_outlive_their_segments,
    a_message_replaced_or_cleared_meanwhile_does_not_come_back,
    the_log_is_the_same_after_a_crash_at_any_time,
    a_new_queue_gets_the_history_that_is_left,
}

const BYTES: u64 = 32 << 10;

fn options(dir: &Path, shards: u16) -> Options {
    Options {
        segment_bytes: 8 << 10,
        shards,
        retention_interval: Duration::from_millis(5),
        ..Options::new(dir)
    }
}

fn by_bytes(dir: &Path, shards: u16) -> Options {
    Options { retention: Retention { time: None, bytes: Some(BYTES) }, ..options(dir, shards) }
}

fn by_time(dir: &Path, shards: u16, ms: u64) -> Options {
    let time = Some(Duration::from_millis(ms));
    Options { retention: Retention { time, bytes: None }, ..options(dir, shards) }
}

fn numbered(topic: &str, number: u64) -> NewRecord {
    let mut payload = number.to_string().into_bytes();
    payload.resize(100, b' ');
    let (properties, payload) = (Bytes::from_static(b"p"), payload.into());
    NewRecord { topic: topic.into(), properties, payload, attributes: 3, retain: Retain::No }
}

fn retained(topic: &str, number: u64) -> NewRecord {
    NewRecord { retain: Retain::Set, ..numbered(topic, number) }
}

fn number(record: &Record) -> u64 {
    std::str::from_utf8(&record.payload).unwrap().trim().parse().unwrap()
}

async fn fill(store: &Store, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let batch = (0..4).map(|k| numbered(&format!("t/{k}"), number * 4 + k));
        store.append(batch.collect()).await.unwrap();
    }
}

/// Waits until something holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until no shard has more than it may have.
async fn until_small(store: &Store) {
    until("the log stays too large", async || {
        store.shards().await.unwrap().iter().all(|shard| shard.log_bytes <= BYTES)
    })
    .await;
}

/// Everything from an offset on; how much of it was gone, and where it ends.
async fn read_from(store: &Store, queue: QueueId, from: u64) -> (Vec<(u64, Record)>, u64, u64) {
    let (mut found, mut skipped, mut from) = (Vec::new(), 0, from);
    loop {
        let request = ReadRequest { queue, from, records_max: 7, bytes_max: 1 << 20, durable: true };
        let batch = store.read(request).await.unwrap();
        skipped += batch.skipped;
        assert_eq!(batch.next - from, batch.records.len() as u64 + batch.skipped);
        from = batch.next;
        if batch.records.is_empty() {
            return (found, skipped, from);
        }
        found.extend(batch.records);
    }
}

async fn retained_numbers(store: &Store) -> Vec<(String, u64)> {
    let (mut found, mut after): (Vec<(String, u64)>, Option<String>) = (Vec::new(), None);
    loop {
        let page = store.retained("#", after.as_deref(), 3).await.unwrap();
        if page.is_empty() {
            return found;
        }
        found.extend(page.iter().map(|record| (record.topic.to_string(), number(record))));
        after = page.last().map(|record| record.topic.to_string());
    }
}

fn files(dir: &Path, ending: &str) -> usize {
    let names = std::fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_str().unwrap().ends_with(ending)).count()
}

async fn the_oldest_go_by_bytes_and_readers_pass_them(shards: u16) {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(by_bytes(dir.path(), shards)).unwrap();
    let queue = store.open_filter("t/#").await.unwrap().id;
    let first = store.append(vec![numbered("t/0", 9999)]).await.unwrap().positions[0];
    let pointer = {
        let request = ReadRequest { queue, from: 0, records_max: 1, bytes_max: 1, durable: true };
        store.read(request).await.unwrap().records[0].1.pointer()
    };
    fill(&store, 0..600).await;
    for round in 0..3 {
        until_small(&store).await;
        let info = store.queue(queue).await.unwrap();
        assert!(info.first > 1 && info.end == 2401, "round {round}: {info:?}");
        let (records, skipped, end) = read_from(&store, queue, 0).await;
        assert_eq!((records[0].0, end), (info.first, 2401));
        assert_eq!(skipped + records.len() as u64, 2401);
        // Of several shards, each keeps its own newest: what is left is in order all the same.
        assert!(records.is_sorted_by_key(|(offset, _)| *offset));
        assert!(records.iter().all(|(offset, record)| *offset == number(record) + 1));
        let bytes: u64 = records.iter().map(|(_, record)| u64::from(record.size)).sum();
        assert!(bytes > BYTES - (10 << 10), "too much went: {bytes} bytes are left");

        assert!(matches!(store.record_at(first).await, Err(StoreError::Gone(at)) if at == first));
        assert_eq!(store.fetch(vec![pointer, records[0].1.pointer()]).await.unwrap()[0], None);
        let scan =
            |from| ScanRequest { from, filter: Some("#".into()), records_max: 9999, bytes_max: 1 << 30 };
        let scanned = store.scan(scan(vec![first])).await.unwrap();
        assert_eq!(scanned.records.len(), records.len(), "from the first there is");
        assert!(scanned.at_end);
        let at = store.position_at(0).await.unwrap();
        assert_eq!(store.scan(scan(at)).await.unwrap().records.len(), records.len());
        assert_eq!(store.offset_at(queue, 0).await.unwrap(), info.first);
        let key = CursorKey { owner: format!("late-{round}"), queue };
        assert_eq!(store.open_cursor(key, Start::Earliest).await.unwrap().place.offset, info.first);
        if round < 2 {
            if round == 0 {
                store.close().await.unwrap();
            }
            drop(store);
            store = Store::open(by_bytes(dir.path(), shards)).unwrap();
            assert_eq!(files(dir.path(), ".gone"), 0);
        } else {
            assert!(store.stats().log_bytes > 0);
        }
    }
}

async fn an_idle_log_is_emptied_by_time(shards: u16) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(by_time(dir.path(), shards, 300)).unwrap();
    let queue = store.open_filter("t/#").await.unwrap().id;
    fill(&store, 0..100).await;
    let early = read_from(&store, queue, 0).await.0.len();
    until("old records stay", async || read_from(&store, queue, 0).await.0.is_empty()).await;
    let (_, skipped, end) = read_from(&store, queue, 0).await;
    assert!((skipped, end) == (400, 400) && early > 0);
    let info = store.queue(queue).await.unwrap();
    assert_eq!((info.first, info.end), (400, 400));
    until("files stay", async || files(dir.path(), ".seg") == usize::from(shards)).await;
    until("space stays", async || files(dir.path(), ".gone") == 0).await;
    assert!(store.stats().deleted_segments >= u64::from(shards));
    let next = store.next_sequence();
    drop(store);

    let store = Store::open(by_time(dir.path(), shards, 60_000)).unwrap();
    assert_eq!(store.next_sequence(), next);
    fill(&store, 100..101).await;
    let (records, ..) = read_from(&store, queue, 0).await;
    assert_eq!(records.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [400, 401, 402, 403]);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(read_from(&store, queue, 0).await.0, records, "what is young stays");
}

async fn retained_messages_outlive_their_segments(shards: u16) {
    let dir = tempfile::tempdir().unwrap();
    let expected: Vec<(String, u64)> = (0..10).map(|n| (format!("r/{n}"), 1000 + n)).collect();
    let mut store = Store::open(by_bytes(dir.path(), shards)).unwrap();
    let queue = store.open_filter("r/#").await.unwrap().id;
    for (topic, number) in &expected {
        store.append(vec![retained(topic, *number)]).await.unwrap();
    }
    let before = store.retained("#", None, 99).await.unwrap();
    assert!(before.iter().all(|record| !record.kept));
    let mut kept = 0;
    for round in 0..4 {
        fill(&store, round * 600..(round + 1) * 600).await;
        until_small(&store).await;
        assert_eq!(retained_numbers(&store).await, expected);
        assert_eq!(store.retained_count().await.unwrap(), 10);
        for (before, after) in before.iter().zip(store.retained("#", None, 99).await.unwrap()) {
            assert_eq!(after.kept, after.position != before.position);
            assert!(after.position >= before.position);
            assert_eq!(
                (after.time_ms, &after.payload, &after.properties, after.attributes, after.retain),
                (before.time_ms, &before.payload, &before.properties, before.attributes, before.retain)
            );
        }
        kept += store.stats().retained_kept;
        assert!(kept > 0, "round {round}");
        // They are in no queue a second time.
        assert_eq!(store.queue_end(queue), Some(10));
        if round % 2 == 0 {
            drop(store);
            store = Store::open(by_bytes(dir.path(), shards)).unwrap();
            assert_eq!(retained_numbers(&store).await, expected);
            assert_eq!(store.queue_end(queue), Some(10));
        }
    }
}

async fn a_message_replaced_or_cleared_meanwhile_does_not_come_back(shards: u16) {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(by_bytes(dir.path(), shards)).unwrap();
    let mut expected: Vec<Option<u64>> = vec![None; 6];
    let mut deleted = 0;
    for round in 0..6 {
        // Without a pause, while segments go.
        for n in 0..400 {
            let place = (n * 7 + round) as usize % 6;
            let topic = format!("r/{place}");
            let number = round * 1000 + n;
            let clear = n % 3 == 0;
            let record = match clear {
                true => NewRecord { retain: Retain::Clear, ..numbered(&topic, number) },
                false => retained(&topic, number),
            };
            expected[place] = (!clear).then_some(number);
            store.append(vec![record, numbered("t/1", n), numbered("t/2", n)]).await.unwrap();
        }
        deleted += store.stats().deleted_segments;
        if round % 2 == 1 {
            drop(store);
            store = Store::open(by_bytes(dir.path(), shards)).unwrap();
        }
        let wanted: Vec<_> =
            (0..).zip(&expected).filter_map(|(n, e)| Some((format!("r/{n}"), (*e)?))).collect();
        assert_eq!(retained_numbers(&store).await, wanted, "round {round}");
        until_small(&store).await;
        assert_eq!(retained_numbers(&store).await, wanted, "round {round}");
    }
    assert!(deleted > 0);
}

async fn the_log_is_the_same_after_a_crash_at_any_time(shards: u16) {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    let mut queue = None;
    for round in 0..25 {
        let store = Store::open(by_bytes(dir.path(), shards)).unwrap();
        let id = store.open_filter("t/#").await.unwrap().id;
        assert_eq!(*queue.get_or_insert(id), id);
        let (records, _, end) = read_from(&store, id, 0).await;
        assert_eq!(end, acknowledged * 4, "round {round}");
        assert!(records.iter().all(|(offset, record)| *offset == number(record)), "round {round}");
        let expected: Vec<_> = (0..5).map(|n| (format!("r/{n}"), n)).collect();
        if round == 0 {
            for (topic, number) in &expected {
                store.append(vec![retained(topic, *number)]).await.unwrap();
            }
        }
        assert_eq!(retained_numbers(&store).await, expected, "round {round}");
        let count = 37 * (round % 5 + 1);
        fill(&store, acknowledged..acknowledged + count).await;
        acknowledged += count;
        // As the death of the process, in the middle of what retention does.
        tokio::time::sleep(Duration::from_micros(1500 * (round % 7))).await;
    }
}

async fn a_new_queue_gets_the_history_that_is_left(shards: u16) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(by_bytes(dir.path(), shards)).unwrap();
    fill(&store, 0..600).await;
    let appender = {
        let store = store.clone();
        tokio::spawn(async move { fill(&store, 600..1200).await })
    };
    let mut queues = Vec::new();
    for filter in ["t/#", "t/1", "t/+"] {
        let history = History::Earliest;
        let request = FilterRequest { filter: filter.into(), keep: Keep::Durable, history };
        queues.push(store.open_filters(vec![request]).await.unwrap().remove(0));
    }
    appender.await.unwrap();
    until_small(&store).await;
    for queue in queues {
        let (records, ..) = read_from(&store, queue.id, 0).await;
        assert!(!records.is_empty());
        // No hole among those of one topic but where retention took the oldest.
        let of_one: Vec<u64> =
            records.iter().filter(|(_, r)| &*r.topic == "t/1").map(|(_, r)| number(r)).collect();
        assert!(of_one.windows(2).all(|pair| pair[0] + 4 == pair[1]), "{} {of_one:?}", queue.name);
    }
}

#[tokio::test]
async fn streams_keep_their_records_for_as_long_as_each_says() {
    let dir = tempfile::tempdir().unwrap();
    let stream = |name: &str, retention| StreamOptions {
        name: name.into(),
        filters: vec![format!("t/{name}")],
        shards: 1,
        flush: Default::default(),
        retention,
    };
    let short = Retention { time: Some(Duration::from_millis(100)), bytes: None };
    let streams = vec![
        stream("0", short),
        stream("1", Retention { time: None, bytes: Some(16 << 10) }),
        stream("2", Retention::default()),
    ];
    let store = Store::open(Options { streams, ..options(dir.path(), 1) }).unwrap();
    let queue = store.open_filter("t/+").await.unwrap().id;
    fill(&store, 0..300).await;
    let of = |records: &[(u64, Record)], topic: &str| {
        records
            .iter()
            .filter(|(_, record)| &*record.topic == topic)
            .map(|(_, r)| number(r))
            .collect::<Vec<_>>()
    };
    until("what is over its time stays", async || of(&read_from(&store, queue, 0).await.0, "t/0").is_empty())
        .await;
    until("what is too much stays", async || of(&read_from(&store, queue, 0).await.0, "t/1").len() < 110)
        .await;
    let (records, skipped, end) = read_from(&store, queue, 0).await;
    assert_eq!((skipped + records.len() as u64, end), (1200, 1200));
    assert_eq!(of(&records, "t/2").len(), 300);
    assert_eq!(of(&records, "t/3").len(), 300);
    let newest = of(&records, "t/1");
    assert_eq!(newest.last(), Some(&1197));
    assert!(records.iter().all(|(offset, record)| *offset == number(record)));
    assert_eq!(store.queue(queue).await.unwrap().first, 2);
}

#[tokio::test]
async fn records_of_a_stream_that_left_are_kept_as_the_default_says() {
    let dir = tempfile::tempdir().unwrap();
    let stream = StreamOptions {
        name: "left".into(),
        filters: vec!["t/1".into()],
        shards: 2,
        flush: Default::default(),
        retention: Retention::default(),
    };
    let with_stream = || Options { streams: vec![stream.clone()], ..options(dir.path(), 1) };
    let store = Store::open(with_stream()).unwrap();
    let queue = store.open_filter("t/1").await.unwrap().id;
    store.append(vec![retained("t/1", 0)]).await.unwrap();
    fill(&store, 0..100).await;
    store.close().await.unwrap();
    drop(store);
    // Without a bound they stay.
    let store = Store::open(options(dir.path(), 1)).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(read_from(&store, queue, 0).await.0.len(), 101);
    drop(store);
    let store = Store::open(by_time(dir.path(), 1, 1)).unwrap();
    until("its records stay", async || read_from(&store, queue, 0).await.0.is_empty()).await;
    until("its segments stay", async || files(dir.path(), ".seg") == 3).await;
    // What has no stream any more can still be wanted.
    assert_eq!(retained_numbers(&store).await, [("t/1".to_owned(), 0)]);
    drop(store);
    // It comes back to its shards.
    let store = Store::open(with_stream()).unwrap();
    fill(&store, 100..101).await;
    assert_eq!(read_from(&store, queue, 0).await.0.len(), 1);
    let positions: Vec<u16> = store.ends().iter().map(|end| end.shard()).collect();
    assert_eq!(positions, [0, 1, 2]);
}

#[tokio::test]
async fn a_queue_that_nobody_uses_goes_after_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { queue_ttl: Duration::from_millis(50), ..options(dir.path(), 1) };
    let store = Store::open(options).unwrap();
    let queue = store.open_filter("t/#").await.unwrap().id;
    let used = store.open_filter("u/#").await.unwrap().id;
    store.release_filters(vec![queue]).await.unwrap();
    until("the queue stays", async || store.queue(queue).await.is_err()).await;
    assert!(store.queue(used).await.is_ok());
}

#[tokio::test]
async fn who_reads_while_segments_go_sees_each_record_or_that_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { tail_cache_bytes: 1, ..by_bytes(dir.path(), 2) };
    let store = Store::open(options).unwrap();
    let queue = store.open_filter("t/#").await.unwrap().id;
    let appender = {
        let store = store.clone();
        tokio::spawn(async move { fill(&store, 0..3000).await })
    };
    let mut read = 0;
    while !appender.is_finished() {
        let first = store.queue(queue).await.unwrap().first;
        let (records, ..) = read_from(&store, queue, first).await;
        assert!(records.iter().all(|(offset, record)| *offset == number(record)));
        read += records.len();
        let pointers = records.iter().map(|(_, record)| record.pointer()).collect();
        for (found, (_, record)) in store.fetch(pointers).await.unwrap().into_iter().zip(&records) {
            assert!(found.as_ref().is_none_or(|found| found == record), "{found:?} {record:?}");
        }
    }
    appender.await.unwrap();
    assert!(read > 0 && store.stats().deleted_segments > 20, "{:?}", store.stats());
}
