//! The offline tools: a whole directory is found whole and stays as it was, damage is found where it is, and an index that is derived
//! again is the one that was there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tidemill_store::tools::{self, Dump, Place, Rebuilt, Verified};
use tidemill_store::{
    CursorKey, CursorPlace, FilterRequest, History, Keep, NewRecord, Options, QueueId, ReadRequest, Record,
    Retain, Start, Store, StoreError,
};

#[macro_use]
#[path = "common/shards.rs"]
mod shards;

with_shards! {
    what_is_whole_is_found_whole_and_not_touched,
    a_flipped_bit_is_found,
    a_missing_segment_is_found,
    a_torn_tail_is_told_and_left,
    a_rebuilt_index_is_the_same,
    a_rebuilt_index_is_the_same_after_the_log_lost_its_start,
    an_index_that_is_gone_is_derived_from_the_bases,
    a_crash_while_indexes_change_places_is_settled,
    a_record_is_dumped_with_its_queues,
    sizes_and_lag_are_counted,
}

fn options(dir: &Path, shards: u16) -> Options {
    Options { segment_bytes: 16 << 10, shards, ..Options::new(dir) }
}

fn record(topic: &str, number: u32, retain: Retain) -> NewRecord {
    NewRecord {
        topic: topic.into(),
        properties: Bytes::from_static(b"properties"),
        payload: format!("{number:>60}").into_bytes().into(),
        attributes: 1,
        retain,
    }
}

/// A seeded choice, so that a failure comes again.
struct Choice(u64);

impl Choice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

async fn append(store: &Store, choice: &mut Choice, count: u32) {
    for number in 0..count {
        let batch = (0..=choice.below(3)).map(|_| {
            let retain = [Retain::No, Retain::No, Retain::Set, Retain::Clear][choice.below(4) as usize];
            record(&format!("t/{}", choice.below(12)), number, retain)
        });
        store.append(batch.collect()).await.unwrap();
    }
}

/// Work of every kind, with queues made at different times.
async fn work(store: &Store, seed: u64) {
    let mut choice = Choice(seed);
    store.open_filter("t/#").await.unwrap();
    store.open_union("u", &["t/1".into(), "t/2".into()]).await.unwrap();
    append(store, &mut choice, 150).await;
    store.checkpoint().await.unwrap();
    store.open_filter("t/3").await.unwrap();
    let past = FilterRequest { filter: "t/+".into(), keep: Keep::Durable, history: History::Earliest };
    store.open_filters(vec![past]).await.unwrap();
    let live = |keep| FilterRequest { filter: "t/4".into(), keep, history: History::None };
    store.open_filters(vec![live(Keep::Live)]).await.unwrap();
    append(store, &mut choice, 100).await;
    store.open_filters(vec![live(Keep::Durable)]).await.unwrap();
    store.open_union("u", &["t/2".into(), "t/5".into()]).await.unwrap();
    let derived = store.open_derived("d").await.unwrap().id;
    let source = store.open_filter("t/#").await.unwrap().id;
    let request = ReadRequest { queue: source, from: 0, records_max: 50, bytes_max: 1 << 20, durable: true };
    let batch = store.read(request).await.unwrap();
    let pointers: Vec<_> =
        batch.records.iter().step_by(3).map(|(_, record)| (derived, record.pointer())).collect();
    let key = CursorKey { owner: "router".into(), queue: source };
    let sequence = batch.records.last().unwrap().1.sequence;
    store.derive(key, CursorPlace { offset: batch.next, sequence }, pointers).await.unwrap();
    let gone = store.open_filter("t/6").await.unwrap().id;
    append(store, &mut choice, 50).await;
    store.delete_queue(gone).await.unwrap();
    let cursor = CursorKey { owner: "reader".into(), queue: source };
    let found = store.open_cursor(cursor.clone(), Start::Earliest).await.unwrap();
    store.commit(found.id, CursorPlace { offset: 7, sequence: 8 });
    store.checkpoint().await.unwrap();
    append(store, &mut choice, 40).await;
}

/// A closed directory, or one whose store died.
async fn directory(shards: u16, closed: bool) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), shards)).unwrap();
    work(&store, u64::from(shards)).await;
    if closed {
        store.close().await.unwrap();
    }
    dir
}

type ReadOut = (BTreeMap<QueueId, (String, u64, u64, Vec<(u64, Record)>)>, Vec<(CursorKey, CursorPlace)>);

/// Everything that can be read of queues and cursors.
async fn read_out(dir: &Path, shards: u16) -> ReadOut {
    let store = Store::open(options(dir, shards)).unwrap();
    let mut queues = BTreeMap::new();
    for info in store.queues(None, 1000).await.unwrap() {
        let mut records = Vec::new();
        let mut from = 0;
        loop {
            let request =
                ReadRequest { queue: info.id, from, records_max: 100, bytes_max: 1 << 20, durable: false };
            let batch = store.read(request).await.unwrap();
            if batch.records.is_empty() {
                break;
            }
            from = batch.next;
            records.extend(batch.records);
        }
        queues.insert(info.id, (info.name, info.first, info.end, records));
    }
    let cursors = store.cursors("", None, 1000).await.unwrap();
    store.close().await.unwrap();
    (queues, cursors)
}

fn verify(dir: &Path) -> Verified {
    tools::verify(dir, 20, &mut |_| {}).unwrap()
}

fn assert_whole(dir: &Path) -> Verified {
    let found = verify(dir);
    assert_eq!(found.problems, []);
    assert_eq!(found.problem_count, 0);
    found
}

fn rebuild(dir: &Path) -> Rebuilt {
    tools::rebuild_index(dir, &mut |_| {}).unwrap()
}

/// Every file with its bytes, but for the lock.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.file_name().unwrap() != "LOCK" {
            found.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    found
}

/// Segments of the shard that has most of them, in order.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut shards: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for entry in std::fs::read_dir(dir.join("log")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        shards.entry(name.split('-').next().unwrap().to_owned()).or_default().push(path);
    }
    let mut found = shards.into_values().max_by_key(Vec::len).unwrap();
    found.sort();
    assert!(found.len() > 2);
    found
}

async fn what_is_whole_is_found_whole_and_not_touched(shards: u16) {
    for closed in [true, false] {
        let dir = directory(shards, closed).await;
        let before = files(dir.path());
        let found = assert_whole(dir.path());
        assert_eq!((found.shards, found.queues, found.cursors), (u64::from(shards), 6, 1));
        assert!(found.records > 500 && found.entries > 500 && found.retained > 0, "{found:?}");
        tools::stats(dir.path(), 10).unwrap();
        assert!(files(dir.path()) == before, "nothing was changed");
        let store = Store::open(options(dir.path(), shards)).unwrap();
        let used = tools::verify(dir.path(), 20, &mut |_| {}).unwrap_err();
        assert!(matches!(used, StoreError::Locked { .. }), "{used}");
        append(&store, &mut Choice(9), 30).await;
        store.close().await.unwrap();
        drop(store);
        let again = assert_whole(dir.path());
        assert!(again.records > found.records);
        assert!(!closed || !again.notes.iter().any(|note| note.contains("torn")), "{:?}", again.notes);
    }
    let empty = tempfile::tempdir().unwrap();
    let error = tools::verify(empty.path(), 20, &mut |_| {}).unwrap_err();
    assert!(matches!(error, StoreError::NoDirectory { .. }), "{error}");
    assert!(files(empty.path()).is_empty());
    let error = tools::verify(&empty.path().join("nowhere"), 20, &mut |_| {}).unwrap_err();
    assert!(matches!(error, StoreError::Absent { .. }), "{error}");
    assert!(files(empty.path()).is_empty());
}

async fn a_flipped_bit_is_found(shards: u16) {
    let dir = directory(shards, true).await;
    let segments = segments(dir.path());
    // In a sealed segment and in the last one, which the index knows.
    for path in [&segments[0], segments.last().unwrap()] {
        let good = std::fs::read(path).unwrap();
        let mut bad = good.clone();
        bad[100] ^= 4;
        std::fs::write(path, &bad).unwrap();
        let found = verify(dir.path());
        assert_eq!(found.problem_count, 1, "{:?}", found.problems);
        let first = path.file_stem().unwrap().to_str().unwrap().parse::<tidemill_store::Position>().unwrap();
        let at = tidemill_store::Position::new(first.shard(), first.offset() + 48);
        assert_eq!(found.problems[0].place, Place::Log(at));
        assert!(found.problems[0].what.contains("checksum"), "{}", found.problems[0].what);
        std::fs::write(path, &good).unwrap();
    }
    assert_whole(dir.path());
}

async fn a_missing_segment_is_found(shards: u16) {
    let dir = directory(shards, true).await;
    let segments = segments(dir.path());
    let (middle, last) = (&segments[1], segments.last().unwrap());
    let good = std::fs::read(middle).unwrap();
    std::fs::remove_file(middle).unwrap();
    let mut problems = verify(dir.path()).problems;
    // Retained messages may have been in it.
    problems.retain(|problem| !matches!(problem.place, Place::Retained(_)));
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].what.contains("ends here"), "{}", problems[0].what);
    std::fs::write(middle, good).unwrap();
    std::fs::remove_file(last).unwrap();
    let found = verify(dir.path());
    assert!(found.problems[0].what.contains("the index knows records up to"), "{:?}", found.problems);
}

async fn a_torn_tail_is_told_and_left(shards: u16) {
    let dir = directory(shards, true).await;
    let segments = segments(dir.path());
    let path = segments.last().unwrap();
    let mut torn = std::fs::read(path).unwrap();
    let end = torn.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    torn.resize(torn.len().max(end + 99), 0);
    torn[end..end + 99].fill(7);
    std::fs::write(path, &torn).unwrap();
    let found = assert_whole(dir.path());
    assert!(found.notes.iter().any(|note| note.contains("torn tail of 99 bytes")), "{:?}", found.notes);
    assert_eq!(std::fs::read(path).unwrap(), torn);
}

async fn a_rebuilt_index_is_the_same(shards: u16) {
    for closed in [true, false] {
        let dir = directory(shards, closed).await;
        // Opening enters what a crash left out: the rebuilt one must lead to the same.
        let copy = tempfile::tempdir().unwrap();
        copy_all(dir.path(), copy.path());
        let before = read_out(copy.path(), shards).await;
        let done = rebuild(dir.path());
        assert_eq!(done.notes, Vec::<String>::new());
        assert!(done.records > 500 && done.entries > 0 && done.copied > 0, "{done:?}");
        assert_whole(dir.path());
        assert!(read_out(dir.path(), shards).await == before, "closed: {closed}");
        assert_whole(dir.path());
    }
}

fn copy_all(from: &Path, to: &Path) {
    for (path, bytes) in files(from) {
        let path = to.join(path.strip_prefix(from).unwrap());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    std::fs::create_dir_all(to.join("staging")).unwrap();
}

async fn a_rebuilt_index_is_the_same_after_the_log_lost_its_start(shards: u16) {
    let dir = directory(shards, true).await;
    std::fs::remove_file(&segments(dir.path())[0]).unwrap();
    let before = read_out(dir.path(), shards).await;
    let found = verify(dir.path());
    // Retained messages are kept by whoever deletes segments, which here nobody did.
    assert!(found.problems.iter().all(|p| matches!(p.place, Place::Retained(_))), "{:?}", found.problems);
    let done = rebuild(dir.path());
    assert_eq!(done.notes, Vec::<String>::new());
    let after = read_out(dir.path(), shards).await;
    assert_eq!(after.1, before.1);
    for (id, (name, first, end, records)) in &before.0 {
        let now = &after.0[id];
        assert_eq!((&now.0, now.1, now.2), (name, *first, *end));
        assert!(now.3 == *records, "queue {name}");
    }
}

async fn an_index_that_is_gone_is_derived_from_the_bases(shards: u16) {
    let dir = directory(shards, true).await;
    let before = read_out(dir.path(), shards).await;
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    assert!(verify(dir.path()).problems.iter().any(|problem| problem.place == Place::Index));
    let done = rebuild(dir.path());
    assert!(done.notes.iter().any(|note| note.contains("derived queues are left out")), "{:?}", done.notes);
    let after = read_out(dir.path(), shards).await;
    for (id, (name, _, end, records)) in &before.0 {
        match &**name {
            // Nobody knows what else they had.
            "d" | "u" => {}
            "t/4" => assert_eq!(after.0[id].2, *end, "it was in memory only before"),
            _ => assert!(after.0[id].3 == *records, "queue {name}"),
        }
    }
}

async fn a_crash_while_indexes_change_places_is_settled(shards: u16) {
    let dir = directory(shards, true).await;
    let before = read_out(dir.path(), shards).await;
    let part = |name: &str| dir.path().join(name);
    // The new one was not whole yet.
    std::fs::create_dir(part("index.new")).unwrap();
    std::fs::write(part("index.new/junk"), "").unwrap();
    assert!(read_out(dir.path(), shards).await == before);
    assert!(!part("index.new").exists());
    // The old one was moved away, the new one was not in its place yet.
    copy_all(&part("index"), &part("index.old"));
    std::fs::rename(part("index"), part("index.new")).unwrap();
    assert_whole(dir.path());
    assert!(read_out(dir.path(), shards).await == before);
    assert!(!part("index.old").exists());
    // The old one was not removed yet.
    std::fs::create_dir(part("index.old")).unwrap();
    assert!(read_out(dir.path(), shards).await == before);
    assert!(!part("index.old").exists());
}

async fn a_record_is_dumped_with_its_queues(shards: u16) {
    let dir = directory(shards, true).await;
    let (queues, _) = read_out(dir.path(), shards).await;
    let all = &queues.values().find(|(name, ..)| name == "t/#").unwrap().3;
    for (_, record) in all.iter().step_by(97) {
        let Dump::Record(dumped) = tools::dump(dir.path(), record.position).unwrap() else {
            panic!("a record begins at {}", record.position)
        };
        assert_eq!(dumped.record, *record);
        let file = std::fs::read(&dumped.segment).unwrap();
        let start = dumped.segment_offset as usize;
        assert!(file[start..start + record.size as usize].ends_with(&record.payload));
        let expected: Vec<(QueueId, Option<u64>)> = queues
            .iter()
            .filter_map(|(id, (_, _, _, records))| {
                let (offset, _) = records.iter().find(|(_, r)| r.position == record.position)?;
                Some((*id, Some(*offset)))
            })
            .collect();
        let found: Vec<_> = dumped.queues.iter().map(|queue| (queue.id, queue.offset)).collect();
        assert_eq!(found, expected, "{}", record.topic);
    }
    let shard = all[0].1.position.shard();
    let mut in_shard = all.iter().map(|(_, record)| record).filter(|record| record.position.shard() == shard);
    let (first, second) = (in_shard.next().unwrap(), in_shard.next().unwrap());
    let inside = tidemill_store::Position::new(shard, first.position.offset() + 1);
    let nothing = Dump::Nothing { before: Some(first.position), after: Some(second.position) };
    assert_eq!(tools::dump(dir.path(), inside).unwrap(), nothing);
    let far = tidemill_store::Position::new(shard, 1 << 40);
    assert!(matches!(tools::dump(dir.path(), far).unwrap(), Dump::Nothing { before: Some(_), after: None }));
}

async fn sizes_and_lag_are_counted(shards: u16) {
    let dir = directory(shards, true).await;
    let (queues, _) = read_out(dir.path(), shards).await;
    let stats = tools::stats(dir.path(), 3).unwrap();
    assert_eq!(stats.shards.len(), usize::from(shards));
    assert_eq!((stats.filters.queues, stats.unions.queues, stats.derived.queues), (4, 1, 1));
    let entries: usize = queues.values().map(|(_, _, _, records)| records.len()).sum();
    assert_eq!(stats.filters.entries + stats.unions.entries + stats.derived.entries, entries as u64);
    assert_eq!((stats.unindexed_bytes, stats.cursors), (0, 1));
    let (name, _, end, _) = queues.values().find(|(name, ..)| name == "t/#").unwrap();
    let lag = &stats.lags[0];
    assert_eq!((&lag.queue, lag.entries, &*lag.cursor.owner), (name, end - 7, "reader"));
    assert!(stats.index_bytes > 0 && stats.meta_bytes > 0 && stats.oldest_ms.is_some());
    assert_eq!(stats.notes, Vec::<String>::new());
}
