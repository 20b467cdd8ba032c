//! Queues made, changed and deleted while records come: what each has, and at which offsets, after every kind of end.

use std::path::Path;
use std::time::Duration;

use tidemill_store::{FilterRequest, History, Keep, NewRecord, Options, QueueId, Retain, Store};

#[path = "common/read.rs"]
mod read;

fn options(dir: &Path) -> Options {
    Options { queue_ttl: Duration::ZERO, ..Options::new(dir) }
}

fn numbered(topic: &str, number: u64) -> NewRecord {
    NewRecord {
        topic: topic.into(),
        properties: Default::default(),
        payload: number.to_string().into_bytes().into(),
        attributes: 0,
        retain: Retain::No,
    }
}

fn request(filter: &str, keep: Keep, history: History) -> Vec<FilterRequest> {
    vec![FilterRequest { filter: filter.into(), keep, history }]
}

/// Offset and payload of all that a queue has.
async fn read_all(store: &Store, queue: QueueId) -> Vec<(u64, u64)> {
    let number = |bytes: &[u8]| std::str::from_utf8(bytes).unwrap().parse().unwrap();
    let all = read::read_all(store, queue, 0).await;
    all.into_iter().map(|(offset, record)| (offset, number(&record.payload))).collect()
}

#[tokio::test]
async fn a_topic_is_taken_while_a_queue_is_there_for_it_and_retained_messages_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path())).unwrap();
    assert!(!store.takes("a/b"));
    let queue = store.open_filters(request("a/+", Keep::Live, History::None)).await.unwrap()[0].id;
    store.open_union("u", &["#".to_owned()]).await.unwrap();
    assert!(store.takes("a/b") && store.takes("b") && !store.takes("$SYS/b"));
    store.delete_queue(store.open_union("u", &[]).await.unwrap().id).await.unwrap();
    assert!(store.takes("a/b") && !store.takes("b"));
    store.release_filters(vec![queue]).await.unwrap();
    assert!(!store.takes("a/b"));

    let retain = |topic: &str, retain| NewRecord { retain, ..numbered(topic, 1) };
    let set = [retain("a", Retain::Set), retain("b", Retain::Set), retain("c", Retain::No)];
    store.append(set.to_vec()).await.unwrap();
    assert_eq!(store.retained_count().await.unwrap(), 2);
    store.checkpoint().await.unwrap();
    assert_eq!(store.retained_count().await.unwrap(), 2, "what is written counts once");
    store
        .append(vec![retain("a", Retain::Clear), retain("b", Retain::Set), retain("d", Retain::Set)])
        .await
        .unwrap();
    assert_eq!(store.retained_count().await.unwrap(), 2);
}

#[tokio::test]
async fn a_live_queue_in_the_place_of_a_durable_one_stays_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path())).unwrap();
    let durable = store.open_filter("a").await.unwrap().id;
    store.append(vec![numbered("a", 0)]).await.unwrap();
    // It goes with an entry that no flush has written.
    store.release_filters(vec![durable]).await.unwrap();
    let live = store.open_filters(request("b", Keep::Live, History::None)).await.unwrap()[0].id;
    store.append(vec![numbered("b", 1), numbered("b", 2)]).await.unwrap();
    store.checkpoint().await.unwrap();
    assert_eq!(read_all(&store, live).await, [(0, 1), (1, 2)]);
    assert_eq!(store.stats().index_buffer_bytes, 0);
    let append = store.append(vec![numbered("b", 3)]);
    tokio::time::timeout(Duration::from_secs(20), append)
        .await
        .expect("nothing waits for the index")
        .unwrap();
}

#[tokio::test]
async fn a_live_queue_that_becomes_durable_keeps_its_offsets_over_a_crash() {
    for round in 0..8 {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(options(dir.path())).unwrap();
        let queue = store.open_filters(request("t", Keep::Live, History::None)).await.unwrap()[0].id;
        let writers: Vec<_> = (0..4)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move {
                    for n in 0..200 {
                        store.append(vec![numbered("t", n)]).await.unwrap();
                    }
                })
            })
            .collect();
        store.append(vec![numbered("t", 0)]).await.unwrap();
        assert_eq!(store.open_filter("t").await.unwrap().id, queue);
        for writer in writers {
            writer.await.unwrap();
        }
        let end = store.queue_end(queue);
        drop(store);
        let store = Store::open(options(dir.path())).unwrap();
        assert_eq!(store.queue_end(queue), end, "round {round}");
    }
}

#[tokio::test]
async fn a_union_that_loses_a_filter_keeps_its_offsets_over_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path())).unwrap();
    let union = store.open_union("u", &["a".into(), "b".into()]).await.unwrap().id;
    store.append(vec![numbered("a", 0), numbered("b", 1), numbered("a", 2)]).await.unwrap();
    store.open_union("u", &["a".into()]).await.unwrap();
    store.append(vec![numbered("b", 3), numbered("a", 4)]).await.unwrap();
    let expected = [(0, 0), (1, 1), (2, 2), (3, 4)];
    assert_eq!(read_all(&store, union).await, expected);
    drop(store);
    let store = Store::open(options(dir.path())).unwrap();
    assert_eq!(read_all(&store, union).await, expected);
}

#[tokio::test]
async fn opens_of_one_union_at_the_same_time_leave_what_the_last_one_wants() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path())).unwrap();
    let (a, b): (&[String], &[String]) = (&["a".into()], &["b".into()]);
    let union = store.open_union("u", a).await.unwrap().id;
    for round in 0..40 {
        // Something for the catalogue to do, so that the two that follow wait for it together.
        let (busy, first, second) =
            tokio::join!(store.open_filter("x"), store.open_union("u", b), store.open_union("u", a));
        [busy.map(drop), first.map(drop), second.map(drop)].into_iter().for_each(Result::unwrap);
        store.append(vec![numbered("a", round), numbered("b", 1000)]).await.unwrap();
        let all = read_all(&store, union).await;
        assert_eq!(all, (0..=round).map(|n| (n, n)).collect::<Vec<_>>());
    }
    drop(store);
    let store = Store::open(options(dir.path())).unwrap();
    assert_eq!(read_all(&store, union).await.len(), 40);
}

#[tokio::test]
async fn there_is_room_for_history_that_is_still_being_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path())).unwrap();
    const RECORDS: u64 = 60_000;
    let receipt = store.submit((0..RECORDS).map(|n| numbered("t", n)).collect()).await.unwrap();
    let queue = &store.open_filters(request("#", Keep::Durable, History::Earliest)).await.unwrap()[0];
    receipt.await.unwrap();
    assert_eq!(queue.end - queue.first, RECORDS);
    let all = read_all(&store, queue.id).await;
    assert_eq!(all, (queue.first..).zip(0..RECORDS).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_append_of_more_entries_than_the_index_may_hold_goes_through() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Options { index_buffer_bytes: 64 << 10, ..options(dir.path()) }).unwrap();
    let mut queues = Vec::new();
    for filter in ["#", "t/#", "t/+", "t"] {
        queues.push(store.open_filter(filter).await.unwrap().id);
    }
    let records: Vec<NewRecord> = (0..20_000).map(|number| numbered("t", number)).collect();
    let append = store.append(records);
    tokio::time::timeout(std::time::Duration::from_secs(60), append).await.expect("it is stuck").unwrap();
    assert_eq!(read_all(&store, queues[0]).await.len(), 20_000);
    store.close().await.unwrap();
}
