//! A full disk, with all of the data directory on it: records are refused with a clear error, everything else goes on, and publishing
//! works again by itself once there is room, which retention makes although it must write for it.

use std::path::Path;
use std::time::{Duration, Instant};

use tidemill_store::{
    CursorKey, CursorPlace, NewRecord, Options, QueueId, Record, Retain, Retention, Start, Store, StoreError,
};

#[path = "common/read.rs"]
mod read;
#[path = "common/small_disk.rs"]
mod small_disk;

use read::read_all;
use small_disk::SmallDisk;

const DISK_MEBIBYTES: u32 = 128;
/// What is left for the log beside another program's file.
const ROOM_BYTES: u64 = 64 << 20;
const RECORD_BYTES: usize = 100_000;
const SEGMENT_BYTES: u64 = 4 << 20;

fn options(disk: &Path) -> Options {
    Options {
        segment_bytes: SEGMENT_BYTES,
        tail_cache_bytes: 1 << 20,
        retention_interval: Duration::from_millis(500),
        ..Options::new(disk.join("data"))
    }
}

fn record(number: u32) -> NewRecord {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(RECORD_BYTES, b'x');
    NewRecord {
        topic: "t".into(),
        properties: Default::default(),
        payload: payload.into(),
        attributes: 0,
        retain: Retain::No,
    }
}

fn number(record: &Record) -> u32 {
    u32::from_be_bytes(record.payload[..4].try_into().unwrap())
}

/// Waits until something holds; RocksDB looks every five seconds whether the disk has room again.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Appends until the disk is full, and then with less and less room to the last page: `stored` says how many there are.
async fn append_until_full(store: &Store, disk: &SmallDisk<'_>, stored: &mut u32) {
    loop {
        match store.append(vec![record(*stored)]).await {
            Ok(_) => *stored += 1,
            Err(StoreError::Full { .. }) => break,
            Err(error) => panic!("{error}"),
        }
        assert!(*stored < 2000, "the disk is never full");
    }
    disk.fill(0);
    while store.append(vec![record(*stored)]).await.is_ok() {
        *stored += 1;
    }
}

/// Whether everything can be read, from offset `from` on.
async fn check_read(store: &Store, queue: QueueId, stored: u32, from: u32) {
    let found = read_all(store, queue, from.into()).await;
    let numbers: Vec<u32> = found.iter().map(|(_, record)| number(record)).collect();
    assert!(numbers.iter().copied().eq(from..stored), "{} records, {stored} stored", numbers.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_records_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(dir.path(), DISK_MEBIBYTES) else { return };
    let key = |queue| CursorKey { owner: "reader".into(), queue };
    let open = || Store::open(options(dir.path())).unwrap();
    let store = open();
    let queue = store.open_filter("t").await.unwrap().id;
    let retained = NewRecord { topic: "r".into(), retain: Retain::Set, ..record(7) };
    store.append(vec![retained]).await.unwrap();
    let cursor = store.open_cursor(key(queue), Start::Earliest).await.unwrap().id;
    let mut stored = 0;

    disk.fill(ROOM_BYTES);
    append_until_full(&store, &disk, &mut stored).await;
    assert!(stored > 300, "only {stored} records of 100 kB on 64 MiB");
    assert!(matches!(store.fault(), Some(StoreError::Full { .. })));
    // Reads go on, and cursors move, although none of it can be written.
    let refused = store.checkpoint().await;
    assert!(matches!(refused, Err(StoreError::Full { .. })), "{refused:?}");
    check_read(&store, queue, stored, 0).await;
    let mut place = CursorPlace::default();
    for (offset, record) in read_all(&store, queue, 0).await.into_iter().take(200) {
        place = CursorPlace { offset: offset + 1, sequence: record.sequence };
        store.commit(cursor, place);
    }
    assert_eq!(store.open_cursor(key(queue), Start::Latest).await.unwrap().place, place);

    // Room comes, and nobody publishes.
    disk.clear();
    until("the store stays at fault", async || store.fault().is_none()).await;
    store.checkpoint().await.unwrap();
    store.append(vec![record(stored)]).await.unwrap();
    stored += 1;
    drop(store);

    let store = open();
    assert_eq!(store.open_cursor(key(queue), Start::Latest).await.unwrap().place, place, "durable by now");
    check_read(&store, queue, stored, 0).await;
    append_until_full(&store, &disk, &mut stored).await;
    check_read(&store, queue, stored, 0).await;
    drop(store);

    // Killed with a full disk, and started again with a retention that has much to delete. The oldest segment has the retained message.
    disk.fill(0);
    let keep = Retention { time: None, bytes: Some(4 * SEGMENT_BYTES) };
    let shrinking = || Options { retention: keep, ..options(dir.path()) };
    let store = Store::open(shrinking()).unwrap();
    until("retention makes no room", async || store.append(vec![record(stored)]).await.is_ok()).await;
    stored += 1;
    assert!(store.stats().deleted_segments > 2, "{:?}", store.stats());
    let first = store.queue(queue).await.unwrap().first as u32;
    assert!(first > 0);
    check_read(&store, queue, stored, first).await;
    let kept = store.retained("r", None, 9).await.unwrap();
    assert_eq!((kept.len(), number(&kept[0]), kept[0].kept), (1, 7, true));
    until("the store stays at fault", async || store.fault().is_none()).await;

    // The same while it runs: records come faster than retention looks, again and again.
    disk.fill(2 << 20);
    let mut refused = 0;
    // How often retention wins the race is for the machine to say; the records refused are what is wanted here.
    for appended in 0..3_000 {
        if appended >= 600 && refused > 0 {
            break;
        }
        until("retention makes no room", async || {
            let appended = store.append(vec![record(stored)]).await;
            refused += u32::from(matches!(appended, Err(StoreError::Full { .. })));
            appended.is_ok()
        })
        .await;
        stored += 1;
    }
    assert!(refused > 0, "the disk was never full");
    assert_ne!(store.retained("r", None, 9).await.unwrap()[0].position, kept[0].position);
    let last = store.queue(queue).await.unwrap();
    assert_eq!(last.end, stored.into());
    drop(store);

    let store = Store::open(shrinking()).unwrap();
    check_read(&store, queue, stored, store.queue(queue).await.unwrap().first as u32).await;
    assert_eq!(store.retained("r", None, 9).await.unwrap().len(), 1);
    println!("stored {stored} records around a full disk; {refused} were refused at its end");
}
