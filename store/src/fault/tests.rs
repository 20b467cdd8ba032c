//! A file fails at every place where the store touches one: it refuses, and loses nothing that it acknowledged.

use std::path::Path;

use super::{Guard, Point, fail_nth, hold_nth};
use crate::queue::indexer::Stop;
use crate::{
    Collection, CursorKey, CursorPlace, Due, FilterRequest, History, Keep, NewRecord, Options, QueueId,
    QueueInfo, ReadRequest, Result, Retain, Start, Store, StoreError,
};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// Small segments, so that new ones are begun all the time.
fn options(dir: &Path) -> Options {
    Options { segment_bytes: 250, shards: 2, ..Options::new(dir) }
}

/// Two records, most of the time of two shards; each says its number.
fn batch(number: u64) -> Vec<NewRecord> {
    let record = |topic: String| NewRecord {
        topic: topic.into(),
        properties: Default::default(),
        payload: number.to_be_bytes().to_vec().into(),
        attributes: 0,
        retain: Retain::No,
    };
    vec![record(format!("t/{}", number % 5)), record(format!("u/{}", number % 3))]
}

async fn append(store: &Store, numbers: std::ops::Range<u64>) -> Vec<(u64, Result<()>)> {
    let mut done = Vec::new();
    for number in numbers {
        done.push((number, store.append(batch(number)).await.map(drop)));
    }
    done
}

fn acknowledged(done: &[(u64, Result<()>)]) -> Vec<u64> {
    done.iter().filter(|(_, result)| result.is_ok()).map(|(number, _)| *number).collect()
}

/// Numbers of the batches in the queue of all records, in order; a batch is there in full.
async fn found(store: &Store) -> Vec<u64> {
    let queue = store.open_filter("#").await.unwrap().id;
    numbers(store, queue).await
}

/// The same of any queue.
async fn numbers(store: &Store, queue: QueueId) -> Vec<u64> {
    placed(store, queue).await.into_iter().map(|(_, number)| number).collect()
}

/// The same, each with its offset.
async fn placed(store: &Store, queue: QueueId) -> Vec<(u64, u64)> {
    let (mut placed, mut from) = (Vec::new(), 0);
    loop {
        let request = ReadRequest { queue, from, records_max: 1000, bytes_max: 1 << 20, durable: false };
        let batch = store.read(request).await.unwrap();
        if batch.records.is_empty() {
            return placed;
        }
        from = batch.next;
        let number = |record: &crate::Record| u64::from_be_bytes(record.payload[..].try_into().unwrap());
        placed.extend(batch.records.iter().map(|(offset, record)| (*offset, number(record))));
    }
}

/// All that was acknowledged is there, twice because each batch has two records, in the order of the appends.
async fn check(dir: &Path, acknowledged: &[u64], what: &str) {
    let store = Store::open(options(dir)).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = found(&store).await;
    assert!(found.is_sorted(), "{what}: {found:?}");
    for number in acknowledged {
        let count = found.iter().filter(|found| *found == number).count();
        assert_eq!(count, 2, "{what}: batch {number} of {acknowledged:?}, found {found:?}");
    }
    // And it works again.
    store.append(batch(1000)).await.unwrap();
}

#[tokio::test]
async fn a_file_that_fails_while_records_are_appended_costs_none_that_was_acknowledged() {
    for point in [Point::Write, Point::Reserve, Point::Sync, Point::SyncDir, Point::Truncate, Point::Create] {
        let mut struck = 0;
        for n in 1.. {
            let errno = [EIO, ENOSPC][n % 2];
            let what = format!("{point:?} number {n} fails with {errno}");
            let dir = tempfile::tempdir().unwrap();
            let mut store = Store::open(options(dir.path())).unwrap();
            store.open_filter("#").await.unwrap();
            let fault = fail_nth(dir.path(), point, n, errno);
            let done = append(&store, 0..12).await;
            let failed = done.iter().filter_map(|(_, result)| result.as_ref().err()).collect::<Vec<_>>();
            if !fault.struck() {
                break;
            }
            struck += 1;
            assert!(!failed.is_empty(), "{what}: nobody heard of it");
            if matches!(point, Point::Sync | Point::SyncDir) {
                // What is on disk is not known any more: not one more is acknowledged.
                assert!(matches!(store.fault(), Some(StoreError::Poisoned { .. })), "{what}");
                assert!(matches!(done.last(), Some((_, Err(StoreError::Poisoned { .. })))), "{what}");
            } else {
                let full = failed.iter().all(|error| matches!(error, StoreError::Full { .. }));
                assert_eq!(full, errno == ENOSPC, "{what}: {failed:?}");
                assert_eq!(failed.len(), 1, "{what}: it works again at once");
            }
            store = {
                drop(store);
                drop(fault);
                check(dir.path(), &acknowledged(&done), &what).await;
                Store::open(options(dir.path())).unwrap()
            };
            drop(store);
        }
        assert!(struck > 2, "{point:?} was reached {struck} times");
    }
}

#[tokio::test]
async fn a_file_that_fails_while_a_store_is_opened_costs_nothing() {
    let points = [Point::Write, Point::Sync, Point::SyncDir, Point::Truncate, Point::Create, Point::Rename];
    for point in points {
        for (n, errno) in (1..).zip([EIO, ENOSPC].into_iter().cycle()) {
            let what = format!("{point:?} number {n} fails with {errno} at the start");
            let dir = tempfile::tempdir().unwrap();
            // A directory that is made, and one with a torn tail in a shard.
            let fault = fail_nth(dir.path(), point, n, errno);
            let made = Store::open(options(dir.path()));
            let at_first = fault.struck();
            assert_eq!(made.is_err(), at_first, "{what}");
            drop((made, fault));

            let store = Store::open(options(dir.path())).unwrap_or_else(|error| panic!("{what}: {error}"));
            store.open_filter("#").await.unwrap();
            let done = append(&store, 0..6).await;
            let end = store.ends()[0];
            drop(store);
            let last = std::fs::read_dir(dir.path().join("log")).unwrap().map(|entry| entry.unwrap().path());
            let last =
                last.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("0-")).max();
            let file = std::fs::OpenOptions::new().write(true).open(last.as_ref().unwrap()).unwrap();
            let name =
                last.unwrap().file_stem().unwrap().to_str().unwrap().parse::<crate::Position>().unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, b"torn", end.offset() - name.offset()).unwrap();

            let fault = fail_nth(dir.path(), point, n, errno);
            let opened = Store::open(options(dir.path()));
            let again = fault.struck();
            assert_eq!(opened.is_err(), again, "{what}");
            drop((opened, fault));
            check(dir.path(), &acknowledged(&done), &what).await;
            if !at_first && !again {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_segment_that_could_not_be_taken_back_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options { segment_bytes: 320, shards: 1, ..options(dir.path()) };
    let store = Store::open(options()).unwrap();
    store.open_filter("#").await.unwrap();
    let stored = append(&store, 0..2).await;
    // The third batch does not fit. Its segment cannot be begun, and the file of it stays.
    let faults = [fail_nth(dir.path(), Point::Write, 1, ENOSPC), fail_nth(dir.path(), Point::Remove, 1, EIO)];
    let mut done = append(&store, 2..3).await;
    assert!(matches!(done[0].1, Err(StoreError::Full { .. })) && faults.iter().all(|fault| fault.struck()));
    // Less than what is left of the old segment; it goes to the new one all the same.
    store.append(vec![batch(3).remove(0)]).await.unwrap();
    done.extend(append(&store, 4..6).await);
    drop(store);
    let expected: Vec<u64> = [acknowledged(&stored), vec![3], acknowledged(&done)].concat();
    let store = Store::open(options()).unwrap();
    let mut found = found(&store).await;
    found.dedup();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn what_a_failed_batch_left_in_another_shard_never_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options { segment_bytes: 1 << 20, ..options(dir.path()) };
    let shard = |store: &Store, n: usize| store.ends()[n];
    let store = Store::open(options()).unwrap();
    store.open_filter("#").await.unwrap();
    // Of one shard only, and then of both.
    let mut topics: [Option<String>; 2] = [None, None];
    for n in 0..20 {
        let mut record = batch(n).remove(0);
        record.topic = format!("x/{n}").into();
        let before = shard(&store, 0);
        store.append(vec![record]).await.unwrap();
        topics[usize::from(before == shard(&store, 0))].get_or_insert(format!("x/{n}"));
    }
    let [first, second] = topics.map(Option::unwrap);
    let to = |topic: &str, number| {
        let mut record = batch(number).remove(0);
        record.topic = topic.into();
        record
    };
    // Written to the first shard, refused by the second.
    let fault = fail_nth(dir.path(), Point::Write, 2, EIO);
    store.append(vec![to(&first, 100), to(&second, 100)]).await.unwrap_err();
    assert!(fault.struck());
    // The next batch takes its sequences in the second shard alone.
    store.append(vec![to(&second, 101), to(&second, 101)]).await.unwrap();
    drop(store);
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let store = Store::open(options()).unwrap();
    let found = found(&store).await;
    assert_eq!(found[found.len() - 3..], [19, 101, 101]);
}

/// The databases have their own files: nothing is told of them but that they failed, or have no room.
fn is_database(error: &StoreError) -> bool {
    matches!(error, StoreError::Database { .. } | StoreError::Full { .. })
}

#[tokio::test]
async fn an_index_that_cannot_be_written_costs_nothing_and_recovers() {
    for point in [Point::IndexOpen, Point::IndexWrite, Point::IndexFinish, Point::IndexIngest] {
        for (n, errno) in [(1, EIO), (2, ENOSPC), (3, EIO)] {
            let what = format!("{point:?} number {n} fails with {errno}");
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(options(dir.path())).unwrap();
            store.open_filter("#").await.unwrap();
            let fault = fail_nth(dir.path(), point, n, errno);
            let mut done = Vec::new();
            let mut failed = 0;
            for round in 0..4 {
                done.extend(append(&store, round * 5..round * 5 + 5).await);
                if let Err(error) = store.checkpoint().await {
                    assert!(is_database(&error), "{what}: {error}");
                    assert_eq!(
                        store.fault().map(|fault| fault.to_string()),
                        Some(error.to_string()),
                        "{what}"
                    );
                    failed += 1;
                }
                // Nothing of what failed fills the disk.
                assert_eq!(std::fs::read_dir(dir.path().join("staging")).unwrap().count(), 0, "{what}");
                let expected: Vec<u64> = (0..round * 5 + 5).flat_map(|number| [number; 2]).collect();
                assert_eq!(found(&store).await, expected, "{what}");
            }
            assert!(fault.struck() && failed == 1, "{what}: {failed} failed");
            assert!(done.iter().all(|(_, result)| result.is_ok()), "{what}: the log goes on");
            store.checkpoint().await.unwrap();
            assert!(store.fault().is_none(), "{what}: it recovers by itself");
            drop((store, fault));
            check(dir.path(), &acknowledged(&done), &what).await;
        }
    }
}

#[tokio::test]
async fn records_are_refused_while_memory_is_full_of_what_the_index_does_not_take() {
    let dir = tempfile::tempdir().unwrap();
    let small = || Options { index_buffer_bytes: 400, ..options(dir.path()) };
    let store = Store::open(small()).unwrap();
    store.open_filter("#").await.unwrap();
    let faults: Vec<_> = (1..200).map(|n| fail_nth(dir.path(), Point::IndexIngest, n, ENOSPC)).collect();
    let mut done = append(&store, 0..40).await;
    let refused = done.iter().filter_map(|(_, result)| result.as_ref().err()).collect::<Vec<_>>();
    assert!(!refused.is_empty() && refused.iter().all(|error| is_database(error)), "{refused:?}");
    drop(faults);
    store.checkpoint().await.unwrap();
    let more = append(&store, 40..50).await;
    assert_eq!(acknowledged(&more).len(), 10, "it recovers by itself");
    done.extend(more);
    drop(store);
    check(dir.path(), &acknowledged(&done), "a full index").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_in_the_middle_of_a_read_hides_nothing() {
    // Between the table and the index, and between two blocks of the index.
    for n in 1..=2 {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Options { segment_bytes: 1 << 20, ..options(dir.path()) }).unwrap();
        let queue = store.open_filter("#").await.unwrap().id;
        // A part of a block.
        append(&store, 0..100).await;
        store.checkpoint().await.unwrap();
        let held = hold_nth(dir.path(), Point::IndexRead, n);
        let reader = tokio::spawn({
            let store = store.clone();
            async move { numbers(&store, queue).await }
        });
        while !held.struck() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        // The rest of it, and more.
        append(&store, 100..500).await;
        store.checkpoint().await.unwrap();
        drop(held);
        let found = reader.await.unwrap();
        assert!(found.iter().copied().eq((0..500).flat_map(|number| [number; 2])), "{n}: {found:?}");
    }
}

/// What a crash may dispatch again.
const REDISPATCHED_BYTES_MAX: u64 = 64_000_000;

/// A record of a mebibyte.
fn large(number: u64) -> Vec<NewRecord> {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(1 << 20, 0);
    vec![NewRecord { payload: payload.into(), ..batch(number).remove(0) }]
}

/// Bytes of the log, from its begin.
fn written(store: &Store) -> u64 {
    store.ends().iter().map(|end| end.offset()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_waits_for_an_index_that_is_slow() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Store::open(Options { shards: 2, ..Options::new(dir.path()) }).unwrap();
    let store = open();
    let queue = store.open_filter("#").await.unwrap().id;
    let held = hold_nth(dir.path(), Point::IndexIngest, 1);
    let appender = tokio::spawn({
        let store = store.clone();
        async move {
            for number in 0..100 {
                store.append(large(number)).await.unwrap();
            }
        }
    });
    let mut before = 0;
    // Until it gets no further.
    while written(&store) > before || before < 40 << 20 {
        before = written(&store);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(held.struck() && !appender.is_finished());
    assert!(before <= REDISPATCHED_BYTES_MAX, "{before} bytes are not in the index");
    drop(held);
    appender.await.unwrap();
    assert_eq!(store.queue_end(queue), Some(100));
    drop(store);
    assert!(open().stats().redispatched <= REDISPATCHED_BYTES_MAX >> 20);
}

#[tokio::test]
async fn the_log_refuses_records_before_an_index_that_fails_lacks_too_much() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Store::open(Options { shards: 2, ..Options::new(dir.path()) }).unwrap();
    let store = open();
    let queue = store.open_filter("#").await.unwrap().id;
    let faults: Vec<_> = (0..200).map(|_| fail_nth(dir.path(), Point::IndexIngest, 1, EIO)).collect();
    let mut stored = 0;
    let error = loop {
        match store.append(large(stored)).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(is_database(&error), "{error}");
    assert!(stored > 40 && written(&store) <= REDISPATCHED_BYTES_MAX, "{stored} records");
    drop(store);
    let store = open();
    assert_eq!(store.stats().redispatched, stored);
    drop(faults);
    // Larger than what the index may lack; it is taken all the same, and so is what follows.
    let many = (0..50).flat_map(|number| large(stored + number)).collect();
    store.append(many).await.unwrap();
    store.append(large(stored + 50)).await.unwrap();
    assert_eq!(store.queue_end(queue), Some(stored + 51));
}

#[tokio::test]
async fn who_waits_for_an_index_that_is_over_hears_of_it() {
    for stop in [Stop::Abandon, Stop::Orderly] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Options { index_buffer_bytes: 0, ..options(dir.path()) }).unwrap();
        let all = store.open_filter("#").await.unwrap().id;
        let derived = store.open_derived("d").await.unwrap().id;
        append(&store, 0..1).await;
        let request = ReadRequest { queue: all, from: 0, records_max: 1, bytes_max: 1, durable: true };
        let pointer = store.read(request).await.unwrap().records[0].1.pointer();
        store.checkpoint().await.unwrap();
        // As the last clone of the store is dropped, or it is closed, while somebody derives.
        store.0.shared.indexer.stop(stop);
        let began = std::time::Instant::now();
        while store.0.shared.index_fault.lock().is_none() {
            assert!(began.elapsed() < std::time::Duration::from_secs(20), "{stop:?}: nobody says so");
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        let key = CursorKey { owner: "c".into(), queue: all };
        let derive =
            || store.derive(key.clone(), CursorPlace { offset: 1, sequence: 1 }, vec![(derived, pointer)]);
        derive().await.unwrap();
        assert!(matches!(derive().await, Err(StoreError::Closed)), "{stop:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_that_failed_is_tried_again_however_many_records_come() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Options::new(dir.path())).unwrap();
    store.open_filter("#").await.unwrap();
    let fault = fail_nth(dir.path(), Point::IndexIngest, 1, EIO);
    let mut number = 0;
    while store.fault().is_none() {
        store.append(large(number)).await.unwrap();
        number += 1;
    }
    assert!(fault.struck() && number >= 20);
    // Each of these says that a flush is due; some are refused meanwhile.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while store.fault().is_some() {
        let _ = store.append(large(number)).await;
        number += 1;
        assert!(std::time::Instant::now() < until, "it does not recover");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    store.append(large(number)).await.unwrap();
}

#[tokio::test]
async fn a_meta_database_that_fails_keeps_what_it_had() {
    let mut struck = 0;
    for n in 1.. {
        let errno = [EIO, ENOSPC][n % 2];
        let what = format!("meta write number {n} fails with {errno}");
        let dir = tempfile::tempdir().unwrap();
        // Cursors are written when they are asked to be.
        let quiet =
            || Options { checkpoint_interval: std::time::Duration::from_secs(3600), ..options(dir.path()) };
        let store = Store::open(quiet()).unwrap();
        store.open_filter("#").await.unwrap();
        let fault = fail_nth(dir.path(), Point::MetaWrite, n, errno);
        let mut done = append(&store, 0..3).await;
        let mut failed = Vec::new();
        let queue = store.open_filter("t/1").await.map_err(|error| failed.push(error)).ok();
        let union = store.open_union("u", &["u/1".into()]).await.map_err(|error| failed.push(error)).ok();
        done.extend(append(&store, 3..6).await);
        if union.is_some() {
            let _ = store.open_union("u", &["u/2".into()]).await.map_err(|error| failed.push(error));
        }
        let all = store.open_filter("#").await.unwrap().id;
        let key = CursorKey { owner: "c".into(), queue: all };
        let opened = store.open_cursor(key.clone(), Start::Earliest).await;
        let cursor = opened.map_err(|error| failed.push(error)).ok();
        if let Some(cursor) = &cursor {
            store.commit(cursor.id, CursorPlace { offset: 2, sequence: 2 });
        }
        let put = store.put_document(Collection::Sessions, "k", "v".into(), Due::default()).await;
        let has_document = put.map_err(|error| failed.push(error)).is_ok();
        let mut retained = batch(6);
        retained[0].retain = Retain::Set;
        store.append(retained).await.unwrap();
        done.push((6, Ok(())));
        let _ = store.checkpoint().await.map_err(|error| failed.push(error));
        done.extend(append(&store, 7..9).await);
        if let Some(queue) = &queue {
            let _ = store.delete_queue(queue.id).await.map_err(|error| failed.push(error));
        }
        assert!(done.iter().all(|(_, result)| result.is_ok()), "{what}: the log goes on");
        assert!(failed.iter().all(is_database), "{what}: {failed:?}");
        if !fault.struck() {
            break;
        }
        struck += 1;
        assert_eq!(failed.len(), 1, "{what}: {failed:?}");
        // The union has what was asked for last, or what it had.
        let union = store.open_union("u", &["u/1".into()]).await.unwrap().id;
        done.extend(append(&store, 9..11).await);
        let before = numbers(&store, union).await;
        store.checkpoint().await.unwrap();
        assert!(store.fault().is_none(), "{what}: it recovers by itself");
        drop((store, fault));
        let store = Store::open(quiet()).unwrap();
        assert_eq!(numbers(&store, union).await, before, "{what}");
        assert_eq!(
            store.document(Collection::Sessions, "k").await.unwrap().is_some(),
            has_document,
            "{what}"
        );
        let found = store.open_cursor(key, Start::Earliest).await.unwrap();
        assert_eq!(found.place.offset, if cursor.is_some() { 2 } else { 0 }, "{what}");
        assert_eq!(store.retained("#", None, 9).await.unwrap().len(), 1, "{what}");
        drop(store);
        check(dir.path(), &acknowledged(&done), &what).await;
    }
    assert!(struck > 5, "the meta database was written {struck} times");
}

/// Waits until a call has come.
async fn struck(fault: &Guard) {
    let began = std::time::Instant::now();
    while !fault.struck() {
        assert!(began.elapsed() < std::time::Duration::from_secs(20), "it does not come");
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

/// Opens the queue of all records.
async fn open_all(store: Store, keep: Keep) -> Result<QueueInfo> {
    let request = FilterRequest { filter: "#".into(), keep, history: History::None };
    Ok(store.open_filters(vec![request]).await?.remove(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_queue_that_could_not_be_made_durable_is_at_the_next_try() {
    // A flush has it before its row is refused, and is over then or not.
    for is_over in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Options::new(dir.path())).unwrap();
        let queue = open_all(store.clone(), Keep::Live).await.unwrap().id;
        append(&store, 0..3).await;
        let taken_in = (!is_over).then(|| hold_nth(dir.path(), Point::IndexIngest, 1));
        let (held, fault) =
            (hold_nth(dir.path(), Point::MetaWrite, 1), fail_nth(dir.path(), Point::MetaWrite, 1, EIO));
        let opening = tokio::spawn(open_all(store.clone(), Keep::Durable));
        struck(&held).await;
        let flushing = tokio::spawn({
            let store = store.clone();
            async move { store.checkpoint().await }
        });
        match &taken_in {
            Some(held) => struck(held).await,
            None => {
                while !flushing.is_finished() {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
            }
        }
        drop(held);
        assert!(is_database(&opening.await.unwrap().unwrap_err()) && fault.struck());
        drop(taken_in);
        flushing.await.unwrap().unwrap();
        assert_eq!(store.stats().index_buffer_bytes, 0);
        assert!(store.queue(queue).await.unwrap().live);

        append(&store, 3..5).await;
        let again = open_all(store.clone(), Keep::Durable).await.unwrap();
        assert_eq!((again.id, again.live), (queue, false));
        append(&store, 5..7).await;
        let before = placed(&store, queue).await;
        assert_eq!(before.len(), 14);
        drop(store);
        let store = Store::open(Options::new(dir.path())).unwrap();
        assert_eq!(placed(&store, queue).await, before);
        append(&store, 7..8).await;
        store.checkpoint().await.unwrap();
        assert_eq!(placed(&store, queue).await.len(), 16);
    }
}

/// A retained message and enough others that its segment goes, again and again.
async fn append_past_retention(store: &Store, rounds: u64) -> Vec<(u64, Result<()>)> {
    let mut done = Vec::new();
    for number in 0..rounds {
        done.push((number, store.append(batch(number)).await.map(drop)));
        if number % 10 == 9 {
            tokio::time::sleep(std::time::Duration::from_millis(4)).await;
        }
    }
    done
}

#[tokio::test]
async fn a_file_that_fails_while_a_segment_is_deleted_costs_nothing_but_time() {
    let old = |dir: &Path| Options {
        retention: crate::Retention { time: None, bytes: Some(2000) },
        retention_interval: std::time::Duration::from_millis(1),
        ..options(dir)
    };
    for point in [Point::Rename, Point::Truncate, Point::Remove, Point::SyncDir, Point::Create, Point::Write]
    {
        for n in [1, 2, 3, 5, 8] {
            let what = format!("{point:?} number {n}");
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(old(dir.path())).unwrap();
            let retained = NewRecord { retain: Retain::Set, ..batch(7).remove(0) };
            let retained = NewRecord { topic: "r".into(), ..retained };
            store.append(vec![retained]).await.unwrap();
            store.open_filter("#").await.unwrap();
            let fault = fail_nth(&dir.path().join("log"), point, n, EIO);
            let done = append_past_retention(&store, 100).await;
            let deleted = store.stats().deleted_segments;
            drop((store, fault));

            let store = Store::open(old(dir.path())).unwrap_or_else(|error| panic!("{what}: {error}"));
            let left = std::fs::read_dir(dir.path().join("log")).unwrap();
            let gone =
                left.filter(|entry| entry.as_ref().unwrap().path().to_str().unwrap().ends_with("gone"));
            assert!(gone.count() == 0 || deleted > 0, "{what}");
            let kept = store.retained("r", None, 9).await.unwrap();
            assert_eq!(kept.len(), 1, "{what}: the retained message");
            assert_eq!(kept[0].payload[..], 7_u64.to_be_bytes(), "{what}");
            let found = found(&store).await;
            assert!(found.is_sorted(), "{what}: {found:?}");
            let last = acknowledged(&done).last().copied();
            assert_eq!(
                found.last().copied().max(last),
                found.last().copied(),
                "{what}: the newest are there"
            );
            store.append(batch(1000)).await.unwrap();
        }
    }
}
