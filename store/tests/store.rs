//! The store through its interface: what is appended is there, in every queue, after every kind of end.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use tidemill_store::{
    Collection, CursorKey, CursorPlace, DeadLetter, Due, Flush, NewRecord, Options, Position, QueueId,
    ReadRequest, Record, Retain, ScanRequest, Start, Store, StoreError, Watcher,
};

#[macro_use]
#[path = "common/shards.rs"]
mod shards;
#[path = "common/read.rs"]
mod read;

use read::read_all;

with_shards! {
    a_record_is_in_every_matching_queue_once,
    everything_survives_close_and_death_in_both_flush_modes,
    a_torn_tail_is_cut_and_corruption_is_refused,
    a_tail_cut_at_any_byte_leaves_the_records_before_it,
    cursors_move_and_stay,
    a_derived_queue_and_its_source_move_together,
    a_cursor_follows_its_record_when_a_derived_queue_comes_out_differently,
    retained_messages_are_the_last_of_their_topic,
    retained_messages_come_in_pages,
    a_watch_rings_once_and_never_too_late,
    queues_go_with_their_last_reference,
    documents_and_dead_letters_stay,
    appends_that_wait_together_share_a_sync,
    too_large_is_refused_and_changes_nothing,
    the_log_can_be_read_without_a_queue,
    a_lowered_limit_is_for_new_records_only,
    a_log_that_is_shorter_than_its_index_is_refused,
    whoever_waits_for_a_queue_hears_that_it_is_gone,
}

fn options(dir: &Path, shards: u16) -> Options {
    Options { segment_bytes: 64 << 10, queue_ttl: std::time::Duration::ZERO, shards, ..Options::new(dir) }
}

/// The first segment of the shard that a position is in.
fn segment_of(dir: &Path, position: Position) -> PathBuf {
    dir.join("log").join(format!("{}.seg", Position::new(position.shard(), 0)))
}

/// Where the shard of a position ends.
fn end_of(store: &Store, position: Position) -> Position {
    store.ends()[usize::from(position.shard())]
}

fn record(topic: &str, payload: impl Into<Bytes>) -> NewRecord {
    NewRecord {
        topic: topic.into(),
        properties: Bytes::from_static(b"properties"),
        payload: payload.into(),
        attributes: 1,
        retain: Retain::No,
    }
}

fn numbered(topic: &str, number: u32) -> NewRecord {
    record(topic, number.to_string().into_bytes())
}

async fn payloads(store: &Store, queue: QueueId) -> Vec<String> {
    let records = read_all(store, queue, 0).await;
    for (expected, (offset, _)) in records.iter().enumerate() {
        assert_eq!(*offset, expected as u64);
    }
    records.into_iter().map(|(_, record)| String::from_utf8(record.payload.to_vec()).unwrap()).collect()
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

async fn a_record_is_in_every_matching_queue_once(shards: u16) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), shards)).unwrap();
    let exact = store.open_filter("a/b").await.unwrap().id;
    let wide = store.open_filter("a/+").await.unwrap().id;
    let other = store.open_filter("x/#").await.unwrap().id;
    let union = store.open_union("rules", &["a/b".into(), "a/#".into(), "x/y".into()]).await.unwrap().id;
    store.append(vec![numbered("a/b", 0), numbered("a/c", 1), numbered("x/y", 2)]).await.unwrap();
    assert_eq!(payloads(&store, exact).await, ["0"]);
    assert_eq!(payloads(&store, wide).await, ["0", "1"]);
    assert_eq!(payloads(&store, other).await, ["2"]);
    assert_eq!(payloads(&store, union).await, ["0", "1", "2"]);
    let read = &read_all(&store, exact, 0).await[0].1;
    assert_eq!((&*read.topic, &read.properties[..], read.attributes), ("a/b", &b"properties"[..], 1));
    store.close().await.unwrap();
}

async fn everything_survives_close_and_death_in_both_flush_modes(shards: u16) {
    for flush in [Flush::Sync, Flush::Async] {
        for orderly in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let open = || Store::open(Options { flush, ..options(dir.path(), shards) }).unwrap();
            let mut store = open();
            let queue = store.open_filter("t/#").await.unwrap().id;
            let id = store.log_id();
            for round in 0..4 {
                for n in 0..500 {
                    store.append(vec![numbered("t/x", round * 500 + n)]).await.unwrap();
                }
                if orderly {
                    store.close().await.unwrap();
                }
                drop(store);
                store = open();
                assert_eq!(store.open_filter("t/#").await.unwrap().id, queue);
                assert_eq!(store.log_id(), id);
                assert_eq!(
                    payloads(&store, queue).await,
                    numbers(0..(round + 1) * 500),
                    "{flush:?} {orderly}"
                );
            }
        }
    }
}

async fn a_torn_tail_is_cut_and_corruption_is_refused(shards: u16) {
    let dir = tempfile::tempdir().unwrap();
    let queue;
    let (middle, last);
    {
        let store = Store::open(Options { segment_bytes: 1 << 30, ..options(dir.path(), shards) }).unwrap();
        queue = store.open_filter("#").await.unwrap().id;
        store.append(vec![numbered("t", 0)]).await.unwrap();
        middle = store.append(vec![numbered("t", 1)]).await.unwrap().positions[0];
        last = store.append(vec![numbered("t", 2)]).await.unwrap().positions[0];
        // Dropped before its index could be flushed to a file: everything is dispatched again.
    }
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let segment = segment_of(dir.path(), last);
    let whole = std::fs::read(&segment).unwrap();
    let flip = |position: Position| {
        let mut bytes = whole.clone();
        bytes[position.offset() as usize + 34] ^= 1;
        std::fs::write(&segment, bytes).unwrap();
    };

    flip(middle);
    let error = Store::open(options(dir.path(), shards)).err().unwrap();
    assert!(matches!(error, StoreError::Corrupt { position, .. } if position == middle), "{error}");
    assert_eq!(std::fs::read(&segment).unwrap().len(), whole.len(), "nothing was changed");

    flip(last);
    let store = Store::open(options(dir.path(), shards)).unwrap();
    assert!(store.stats().torn_bytes > 0);
    assert_eq!(end_of(&store, last), last);
    assert_eq!(payloads(&store, queue).await, ["0", "1"]);
    store.append(vec![numbered("t", 3)]).await.unwrap();
    assert_eq!(payloads(&store, queue).await, ["0", "1", "3"]);
}

async fn a_tail_cut_at_any_byte_leaves_the_records_before_it(shards: u16) {
    let dir = tempfile::tempdir().unwrap();
    let mut ends = Vec::new();
    {
        let store = Store::open(options(dir.path(), shards)).unwrap();
        store.open_filter("#").await.unwrap();
        for n in 0..4 {
            let positions = store.append(vec![numbered("t", n)]).await.unwrap().positions;
            ends.push(end_of(&store, positions[0]));
        }
    }
    let log = segment_of(dir.path(), ends[0]);
    let ends: Vec<u64> = ends.into_iter().map(Position::offset).collect();
    let whole = std::fs::read(&log).unwrap();
    for cut in ends[1]..=ends[3] {
        std::fs::remove_dir_all(dir.path().join("index")).unwrap();
        std::fs::write(&log, &whole[..cut as usize]).unwrap();
        let store = Store::open(options(dir.path(), shards)).unwrap();
        let queue = store.open_filter("#").await.unwrap().id;
        let expected = ends.iter().filter(|end| **end <= cut).count() as u32;
        assert_eq!(payloads(&store, queue).await, numbers(0..expected), "cut at {cut}");
    }
}

async fn cursors_move_and_stay(shards: u16) {
    let dir = tempfile::tempdir().unwrap();
    let key;
    {
        let store = Store::open(options(dir.path(), shards)).unwrap();
        let queue = store.open_filter("t").await.unwrap().id;
        store.append((0..10).map(|n| numbered("t", n)).collect()).await.unwrap();
        key = CursorKey { owner: "session/a".into(), queue };
        let latest = store.open_cursor(key.clone(), Start::Latest).await.unwrap();
        assert_eq!(latest.place.offset, 10);
        let earliest = CursorKey { owner: "session/b".into(), queue };
        let found = store.open_cursor(earliest.clone(), Start::Earliest).await.unwrap();
        assert_eq!(found.place.offset, 0);
        store.commit(found.id, CursorPlace { offset: 4, sequence: 4 });
        store.delete_cursor(&key).await.unwrap();
        store.checkpoint().await.unwrap();
        store.commit(found.id, CursorPlace { offset: 5, sequence: 5 });
        let all = store.cursors("session/", None, 10).await.unwrap();
        assert_eq!(all, [(earliest, CursorPlace { offset: 5, sequence: 5 })]);
        store.close().await.unwrap();
    }
    let store = Store::open(options(dir.path(), shards)).unwrap();
    let key = CursorKey { owner: "session/b".into(), ..key };
    assert_eq!(store.open_cursor(key, Start::Latest).await.unwrap().place.offset, 5);
}

async fn a_derived_queue_and_its_source_move_together(shards: u16) {
    let dir = tempfile::tempdir().unwrap();
    let router = |queue| CursorKey { owner: "router".into(), queue };
    let (source, rule);
    {
        let store = Store::open(options(dir.path(), shards)).unwrap();
        source = store.open_union("router", &["#".into()]).await.unwrap().id;
        rule = store.open_derived("rule/odd").await.unwrap().id;
        store.append((0..100).map(|n| numbered("t", n)).collect()).await.unwrap();
    }
    for round in 0..5u64 {
        let store = Store::open(options(dir.path(), shards)).unwrap();
        let at = store.derived_to(&router(source)).await.unwrap();
        let from = at.map_or(0, |place| place.offset);
        let request = ReadRequest { queue: source, from, records_max: 20, bytes_max: 1 << 20, durable: true };
        let batch = store.read(request).await.unwrap();
        let odd = batch.records.iter().filter(|(offset, _)| offset % 2 == 1);
        let entries = odd.map(|(_, record)| (rule, record.pointer())).collect();
        let sequence = batch.records.last().map_or(0, |(_, r)| r.sequence);
        store.derive(router(source), CursorPlace { offset: batch.next, sequence }, entries).await.unwrap();
        if round % 2 == 0 {
            store.checkpoint().await.unwrap();
        }
        let derived = payloads(&store, rule).await;
        let expected: Vec<String> = numbers(0..batch.next as u32).into_iter().skip(1).step_by(2).collect();
        assert_eq!(derived, expected);
    }
}

async fn a_cursor_follows_its_record_when_a_derived_queue_comes_out_differently(shards: u16) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), shards)).unwrap();
    let source = store.open_union("router", &["#".into()]).await.unwrap().id;
    let rule = store.open_derived("rule/r").await.unwrap().id;
    store.append((0..10).map(|n| numbered("t", n)).collect()).await.unwrap();
    let records = read_all(&store, source, 0).await;
    let entries = records.iter().map(|(_, r)| (rule, r.pointer())).collect();
    let place = CursorPlace { offset: 10, sequence: records[9].1.sequence };
    store.derive(CursorKey { owner: "router".into(), queue: source }, place, entries).await.unwrap();
    let key = CursorKey { owner: "target/r/x".into(), queue: rule };
    let found = store.open_cursor(key.clone(), Start::Earliest).await.unwrap();
    // As if the queue had had only two entries up to the record number 6.
    store.commit(found.id, CursorPlace { offset: 2, sequence: records[6].1.sequence });
    assert_eq!(store.open_cursor(key, Start::Earliest).await.unwrap().place.offset, 7);
}

async fn retained_messages_are_the_last_of_their_topic(shards: u16) {
    let dir = tempfile::tempdir().unwrap();
    let retained = |topic: &str, payload: &'static str| NewRecord {
        retain: if payload.is_empty() { Retain::Clear } else { Retain::Set },
        ..record(topic, payload)
    };
    let topics = |records: Vec<Record>| -> Vec<String> {
        records.iter().map(|r| format!("{}={}", r.topic, String::from_utf8_lossy(&r.payload))).collect()
    };
    {
        let store = Store::open(options(dir.path(), shards)).unwrap();
        store
            .append(vec![
                retained("h/a", "1"),
                retained("h/b", "2"),
                retained("h/a", "3"),
                retained("$S/x", "s"),
            ])
            .await
            .unwrap();
        store.checkpoint().await.unwrap();
        store.append(vec![retained("h/b", ""), retained("h/c/d", "4"), retained("h", "5")]).await.unwrap();
        assert_eq!(topics(store.retained("h/#", None, 10).await.unwrap()), ["h=5", "h/a=3", "h/c/d=4"]);
        assert_eq!(topics(store.retained("h/+", None, 10).await.unwrap()), ["h/a=3"]);
        assert_eq!(topics(store.retained("#", Some("h/a"), 10).await.unwrap()), ["h/c/d=4"]);
        store.close().await.unwrap();
    }
    let store = Store::open(options(dir.path(), shards)).unwrap();
    assert_eq!(topics(store.retained("#", None, 10).await.unwrap()), ["h=5", "h/a=3", "h/c/d=4"]);
    assert_eq!(topics(store.retained("#", None, 1).await.unwrap()), ["h=5"]);
    assert_eq!(topics(store.retained("$S/#", None, 10).await.unwrap()), ["$S/x=s"]);
}

/// More than are looked at under one lock, some in the database, some not yet, some cleared since.
async fn retained_messages_come_in_pages(shards: u16) {
    const TOPICS: u32 = 1500;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), shards)).unwrap();
    let topic = |number: u32| format!("r/{}/{number}", number % 3);
    let retained = |number: u32, payload: &'static str| NewRecord {
        retain: if payload.is_empty() { Retain::Clear } else { Retain::Set },
        ..record(&topic(number), payload)
    };
    store.append((0..TOPICS).map(|number| retained(number, "old")).collect()).await.unwrap();
    store.checkpoint().await.unwrap();
    // Cleared in runs that are longer than a page.
    let is_cleared = |number: u32| number % 100 < 60;
    let is_new = |number: u32| !is_cleared(number) && number.is_multiple_of(2);
    let changed = (0..TOPICS).filter(|number| is_cleared(*number) || is_new(*number));
    let changes = changed.map(|number| retained(number, if is_cleared(number) { "" } else { "new" }));
    store.append(changes.collect()).await.unwrap();
    store.append((TOPICS..2 * TOPICS).map(|number| retained(number, "late")).collect()).await.unwrap();
    let payload = |number: u32| match number {
        TOPICS.. => "late",
        _ if is_new(number) => "new",
        _ => "old",
    };
    for checkpointed in [false, true] {
        for (filter, group) in [("#", None), ("r/1/#", Some(1)), ("r/+/+", None), ("r/2/+", Some(2))] {
            let wanted = |number: &u32| group.is_none_or(|group| number % 3 == group);
            let there = (0..2 * TOPICS).filter(|number| *number >= TOPICS || !is_cleared(*number));
            let mut expected: Vec<(String, &str)> =
                there.filter(wanted).map(|number| (topic(number), payload(number))).collect();
            expected.sort_unstable();
            let mut found = Vec::new();
            while let page = store
                .retained(filter, found.last().map(|(topic, _): &(String, _)| &**topic), 7)
                .await
                .unwrap()
                && !page.is_empty()
            {
                assert!(page.len() <= 7);
                let text = |record: &Record| String::from_utf8(record.payload.to_vec()).unwrap();
                found.extend(page.iter().map(|record| (record.topic.to_string(), text(record))));
            }
            let found: Vec<(String, &str)> =
                found.iter().map(|(topic, payload)| (topic.clone(), &**payload)).collect();
            assert!(
                found == expected,
                "{filter}, checkpointed: {checkpointed}: {} of {}",
                found.len(),
                expected.len()
            );
        }
        assert_eq!(store.retained_count().await.unwrap(), u64::from(TOPICS + TOPICS * 2 / 5));
        store.checkpoint().await.unwrap();
    }
    store.close().await.unwrap();
}

async fn a_watch_rings_once_and_never_too_late(shards: u16) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), shards)).unwrap();
    let queue = store.open_filter("t").await.unwrap().id;
    for durable in [false, true] {
        let watcher = Watcher::new();
        let end = store.queue(queue).await.unwrap().end;
        store.watch(queue, end, durable, &watcher, 7).unwrap();
        assert!(watcher.take().is_empty());
        store.append(vec![numbered("t", 1), numbered("t", 2)]).await.unwrap();
        assert_eq!(watcher.ready().await, [7]);
        let request = ReadRequest { queue, from: end, records_max: 9, bytes_max: 999, durable };
        assert_eq!(store.read(request).await.unwrap().records.len(), 2);
        assert!(watcher.take().is_empty());
        store.watch(queue, end + 1, durable, &watcher, 8).unwrap();
        assert_eq!(watcher.take(), [8], "what is there already rings at once");
        store.watch(queue, end + 2, durable, &watcher, 9).unwrap();
        store.unwatch(queue, &watcher, Some(8));
        store.unwatch(queue, &watcher, Some(9));
        store.append(vec![numbered("t", 3)]).await.unwrap();
        assert!(watcher.take().is_empty());
    }
}

async fn queues_go_with_their_last_reference(shards: u16) {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = Store::open(options(dir.path(), shards)).unwrap();
        let queue = store.open_filter("t").await.unwrap().id;
        store.open_filter("t").await.unwrap();
        store.open_filter("left").await.unwrap();
        store.append(vec![numbered("t", 1)]).await.unwrap();
        store.release_filters(vec![queue]).await.unwrap();
        assert_eq!(payloads(&store, queue).await, ["1"]);
        store.release_filters(vec![queue]).await.unwrap();
        assert!(matches!(store.queue(queue).await, Err(StoreError::NoQueue(_))));
        let again = store.open_filter("t").await.unwrap();
        assert_ne!(again.id, queue);
        assert_eq!(again.end, 0);
        store.close().await.unwrap();
    }
    let store = Store::open(options(dir.path(), shards)).unwrap();
    let t = store.queues(None, 10).await.unwrap().into_iter().find(|queue| queue.name == "t").unwrap().id;
    let derived = store.open_derived("d").await.unwrap().id;
    let asked = vec![t, QueueId(1 << 40), derived];
    assert_eq!(store.refer_filters(asked).await.unwrap(), [true, false, false]);
    assert_eq!(store.sweep().await.unwrap(), 1);
    let names: Vec<_> = store.queues(None, 10).await.unwrap().into_iter().map(|queue| queue.name).collect();
    assert_eq!(names, ["t", "d"]);
    let mut names = Vec::new();
    for name in ["e", "d/2", "d/1", "d"] {
        store.open_derived(name).await.unwrap();
    }
    for (prefix, after) in
        [("d", None), ("d/", Some("a")), ("d", Some("d")), ("d/", Some("d/1")), ("f", None)]
    {
        let page = store.derived_queues(prefix, after, 2).await.unwrap();
        names.push(page.into_iter().map(|queue| queue.name).collect::<Vec<_>>().join(" "));
    }
    assert_eq!(names, ["d d/1", "d/1 d/2", "d/1 d/2", "d/2", ""]);
    // It is given back as one that was opened is.
    store.release_filters(vec![t]).await.unwrap();
    assert!(matches!(store.queue(t).await, Err(StoreError::NoQueue(_))));
}

async fn documents_and_dead_letters_stay(shards: u16) {
    let dir = tempfile::tempdir().unwrap();
    let sessions = Collection::Sessions;
    {
        let store = Store::open(options(dir.path(), shards)).unwrap();
        for key in ["b", "a", "c"] {
            let due = Due { was: None, is: Some(-(key.as_bytes()[0] as i64)) };
            store.put_document(sessions, key, Bytes::from(key.to_uppercase()), due).await.unwrap();
        }
        store
            .put_document(Collection::Groups, "a", Bytes::new(), Due { was: None, is: Some(7) })
            .await
            .unwrap();
        store.delete_document(sessions, "b", Some(-98)).await.unwrap();
        let next = store.next_sequence();
        let appended = store.append(vec![numbered("t", 0), numbered("t", 1)]).await.unwrap();
        assert_eq!((appended.sequence, store.next_sequence()), (next, next + 2));
        let positions = appended.positions;
        let letter = |n: u64| DeadLetter {
            pointer: tidemill_store::Pointer { position: positions[n as usize % 2], size: 50 },
            offset: n,
            time_ms: 5,
            attempts: 3,
            error: "refused".into(),
        };
        store.put_dead_letters("target/r/t", vec![letter(0), letter(1)]).await.unwrap();
        store.put_dead_letters("target/r/t", vec![letter(1)]).await.unwrap();
        store.put_dead_letters("target/r/t2", vec![letter(9)]).await.unwrap();
    }
    let store = Store::open(options(dir.path(), shards)).unwrap();
    let documents = store.documents(sessions, None, 10).await.unwrap();
    assert_eq!(documents, [("a".to_owned(), Bytes::from("A")), ("c".to_owned(), Bytes::from("C"))]);
    assert_eq!(store.documents(sessions, Some("a"), 10).await.unwrap().len(), 1);
    assert_eq!(store.document(sessions, "b").await.unwrap(), None);
    let due = store.documents_due(sessions, i64::MIN, None, 10).await.unwrap();
    assert_eq!(due, [(-99, "c".to_owned()), (-97, "a".to_owned())]);
    assert_eq!(store.documents_due(sessions, -99, Some("c"), 10).await.unwrap(), due[1..]);
    assert_eq!(store.document_keys(sessions, "", Some("a"), 10).await.unwrap(), ["c"]);
    assert_eq!(store.dead_letter_count("target/r/t").await.unwrap(), 2);
    let letters = store.dead_letters("target/r/t", 0, 10).await.unwrap();
    assert_eq!(letters.iter().map(|(_, letter)| letter.offset).collect::<Vec<_>>(), [0, 1]);
    let second = letters[1].0;
    assert_eq!(store.dead_letters("target/r/t", second, 10).await.unwrap(), letters[1..]);
    assert_eq!(letters[1].1.error, "refused");
}

async fn appends_that_wait_together_share_a_sync(shards: u16) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), shards)).unwrap();
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..50 {
                    store.append(vec![numbered("t", n)]).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let stats = store.stats();
    assert_eq!(stats.records, 3200);
    assert!(stats.syncs <= stats.records / 8, "{} syncs for {} records", stats.syncs, stats.records);
}

async fn too_large_is_refused_and_changes_nothing(shards: u16) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Options { record_bytes_max: 1000, ..options(dir.path(), shards) }).unwrap();
    let error = store.append(vec![record("t", vec![0; 2000])]).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { size: 2051, max: 1000, .. }), "{error}");
    assert_eq!(store.stats().records, 0);
    store.append(vec![record("t", vec![0; 900])]).await.unwrap();
}

async fn the_log_can_be_read_without_a_queue(shards: u16) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Options { segment_bytes: 2000, ..options(dir.path(), shards) }).unwrap();
    let scan = |from: &[Position], filter: &str, records_max, bytes_max| {
        store.scan(ScanRequest { from: from.to_vec(), filter: Some(filter.into()), records_max, bytes_max })
    };
    assert!(scan(&[], "#", 10, 1000).await.unwrap().at_end, "an empty log");
    let mut positions = Vec::new();
    for n in 0..200 {
        let topic = format!("{}/{}", if n % 2 == 0 { "even" } else { "odd" }, n % 5);
        positions.extend(store.append(vec![numbered(&topic, n)]).await.unwrap().positions);
    }
    let mut found = Vec::new();
    let mut from = Vec::new();
    loop {
        let batch = scan(&from, "odd/+", 7, 500).await.unwrap();
        assert!(batch.records.len() <= 7);
        found.extend(batch.records.iter().map(|r| r.position));
        from = batch.next;
        if batch.at_end {
            break;
        }
    }
    let odd: Vec<Position> = positions.iter().copied().skip(1).step_by(2).collect();
    assert_eq!(found, odd);
    assert_eq!(from, store.durable_ends());
    // From one record on in every shard: what comes before it there is found as where a scan up to it goes on.
    let before = scan(&[], "#", 150, 1 << 20).await.unwrap();
    assert_eq!(before.records.iter().map(|r| r.sequence).collect::<Vec<_>>(), (1..=150).collect::<Vec<_>>());
    let batch = scan(&before.next, "#", 1, 1).await.unwrap();
    assert_eq!(batch.records[0].position, positions[150]);
    let middle = Position::new(positions[3].shard(), positions[3].offset() + 1);
    assert!(matches!(scan(&[middle], "#", 1, 1).await, Err(StoreError::NoRecord(at)) if at == middle));

    let zeros = store.append(vec![record("zeros", vec![0; 100])]).await.unwrap().positions[0];
    let inside = Position::new(zeros.shard(), zeros.offset() + 70);
    assert!(matches!(scan(&[inside], "#", 1, 1).await, Err(StoreError::NoRecord(at)) if at == inside));

    for position in &positions {
        assert_eq!(store.record_at(*position).await.unwrap().unwrap().position, *position);
    }
    for nothing in [Position::ZERO, middle, end_of(&store, zeros), Position::new(3, 48)] {
        assert_eq!(store.record_at(nothing).await.unwrap(), None, "{nothing}");
    }
    let times: Vec<i64> = {
        let records = scan(&[], "+/+", 200, 1 << 20).await.unwrap().records;
        records.iter().map(|r| r.time_ms).collect()
    };
    let first_since = |time: i64| -> Vec<Position> {
        let of_shard = |shard: u16| {
            let stored = positions.iter().zip(&times).filter(|(position, _)| position.shard() == shard);
            stored.filter(|(_, at)| **at >= time).map(|(position, _)| *position).next()
        };
        let end = |shard: u16| store.durable_ends()[usize::from(shard)];
        // The last record is of no such topic.
        let zeros = |shard: u16| (zeros.shard() == shard).then_some(zeros);
        (0..shards).map(|shard| of_shard(shard).or(zeros(shard)).unwrap_or(end(shard))).collect()
    };
    for n in [0, 57, 199] {
        assert_eq!(store.position_at(times[n]).await.unwrap(), first_since(times[n]));
    }
    assert_eq!(store.position_at(i64::MAX).await.unwrap(), store.durable_ends());
    assert_eq!(store.position_at(0).await.unwrap(), first_since(0));
}

async fn a_lowered_limit_is_for_new_records_only(shards: u16) {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = Store::open(options(dir.path(), shards)).unwrap();
        store.open_filter("t").await.unwrap();
        store.append(vec![record("t", vec![b'x'; 5000])]).await.unwrap();
    }
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let store = Store::open(Options { record_bytes_max: 1000, ..options(dir.path(), shards) }).unwrap();
    let queue = store.open_filter("t").await.unwrap().id;
    assert_eq!(read_all(&store, queue, 0).await[0].1.payload.len(), 5000);
}

async fn a_log_that_is_shorter_than_its_index_is_refused(shards: u16) {
    let dir = tempfile::tempdir().unwrap();
    let last;
    {
        let store = Store::open(options(dir.path(), shards)).unwrap();
        store.append(vec![numbered("t", 0)]).await.unwrap();
        last = store.append(vec![numbered("t", 1)]).await.unwrap().positions[0];
        store.close().await.unwrap();
    }
    let segment = segment_of(dir.path(), last);
    std::fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(last.offset()).unwrap();
    let error = Store::open(options(dir.path(), shards)).err().unwrap();
    assert!(matches!(error, StoreError::Corrupt { position, .. } if position == last), "{error}");
    assert_eq!(std::fs::metadata(&segment).unwrap().len(), last.offset(), "nothing was changed");
}

async fn whoever_waits_for_a_queue_hears_that_it_is_gone(shards: u16) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), shards)).unwrap();
    let queue = store.open_filter("t").await.unwrap().id;
    let watcher = Watcher::new();
    store.watch(queue, 0, true, &watcher, 5).unwrap();
    store.append(vec![numbered("other", 0)]).await.unwrap();
    assert!(watcher.take().is_empty());
    store.release_filters(vec![queue]).await.unwrap();
    assert_eq!(watcher.ready().await, [5]);
    store.append(vec![numbered("t", 1)]).await.unwrap();
    store.checkpoint().await.unwrap();
}
