//! All that a store has, compared with the model.

use tidemill_store::{Collection, QueueId, ReadRequest, Record, ScanRequest, Store};

use crate::model::Model;

/// Everything.
pub(crate) async fn all(store: &Store, model: &Model) {
    for id in model.queues.keys() {
        queue(store, model, *id).await;
    }
    listed(store, model).await;
    scan(store, model, "#", 1000).await;
    retained(store, model, "#", 3).await;
    documents(store, model, 2).await;
    letters(store, model).await;
}

/// A queue, its description and its entries.
pub(crate) async fn queue(store: &Store, model: &Model, id: QueueId) {
    let expected = &model.queues[&id];
    let found = store.queue(id).await.unwrap();
    assert_eq!((&found.name, found.live), (&expected.name, expected.live));
    assert_eq!(
        std::mem::discriminant(&found.kind),
        std::mem::discriminant(&expected.kind),
        "{found:?} {expected:?}"
    );
    assert_eq!(found.end, expected.end(), "{found:?}");
    assert_eq!(found.first, model.first(id), "{found:?}");
    assert_eq!(store.queue_end(id), Some(expected.end()));
    let mut entries = Vec::new();
    let mut from = 0;
    loop {
        let request = ReadRequest { queue: id, from, records_max: 40, bytes_max: 1 << 20, durable: false };
        let batch = store.read(request).await.unwrap();
        if batch.records.is_empty() {
            break;
        }
        from = batch.next;
        entries.extend(batch.records);
    }
    let expected: Vec<(u64, Record)> =
        model.entries(id).map(|(offset, record)| (offset, record.clone())).collect();
    assert_eq!(numbers(&entries), numbers(&expected), "{found:?}");
    assert!(entries == expected);
}

fn numbers(entries: &[(u64, Record)]) -> Vec<(u64, u64)> {
    entries.iter().map(|(offset, record)| (*offset, record.sequence)).collect()
}

/// Which queues there are.
pub(crate) async fn listed(store: &Store, model: &Model) {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.queues(after, 3).await.unwrap();
        after = page.last().map(|queue| queue.id);
        if page.is_empty() {
            break;
        }
        found.extend(page.into_iter().map(|queue| (queue.id, queue.name)));
    }
    let expected: Vec<_> = model.queues.iter().map(|(id, queue)| (*id, queue.name.clone())).collect();
    assert_eq!(found, expected);
}

/// The log itself. All of it is durable.
pub(crate) async fn scan(store: &Store, model: &Model, filter: &str, records_max: usize) {
    if store.durable_ends() != store.ends() {
        store.checkpoint().await.unwrap();
    }
    let (mut found, mut from) = (Vec::new(), Vec::new());
    loop {
        let request = ScanRequest { from, filter: Some(filter.into()), records_max, bytes_max: 3000 };
        let batch = store.scan(request).await.unwrap();
        assert!(batch.records.len() <= records_max);
        found.extend(batch.records);
        if batch.at_end {
            break;
        }
        from = batch.next;
    }
    let expected: Vec<Record> =
        model.matching(filter).into_iter().map(|place| model.records[place].clone()).collect();
    assert!(found == expected, "{filter}: {} and not {}", found.len(), expected.len());
    let next = model.records.last().map_or(1, |record| record.sequence + 1);
    assert!(store.next_sequence() >= next);
}

/// Retained messages, page by page.
pub(crate) async fn retained(store: &Store, model: &Model, filter: &str, limit: usize) {
    let (mut found, mut after): (Vec<Record>, Option<String>) = (Vec::new(), None);
    loop {
        let page = store.retained(filter, after.as_deref(), limit).await.unwrap();
        assert!(page.len() <= limit);
        let Some(last) = page.last() else { break };
        after = Some(last.topic.to_string());
        found.extend(page);
    }
    let matches = |topic: &str| tidemill_store::filter::matches(filter, topic);
    let expected = model.retained().into_iter().filter(|(topic, _)| matches(topic));
    let expected: Vec<Record> = expected.map(|(_, record)| record.clone()).collect();
    assert!(found == expected, "{filter}: {found:?} and not {expected:?}");
}

/// Documents, page by page.
pub(crate) async fn documents(store: &Store, model: &Model, limit: usize) {
    let (mut found, mut after): (Vec<_>, Option<String>) = (Vec::new(), None);
    loop {
        let page = store.documents(Collection::Sessions, after.as_deref(), limit).await.unwrap();
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        found.extend(page);
    }
    assert_eq!(found, model.documents.clone().into_iter().collect::<Vec<_>>());

    for prefix in ["", "k", "k3", "k33"] {
        let (mut found, mut after): (Vec<String>, Option<String>) = (Vec::new(), None);
        loop {
            let page =
                store.document_keys(Collection::Sessions, prefix, after.as_deref(), limit).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.clone());
            found.extend(page);
        }
        let expected = model.documents.keys().filter(|key| key.starts_with(prefix));
        assert_eq!(found, expected.cloned().collect::<Vec<_>>());
    }

    let mut expected: Vec<(i64, String)> = model.due.iter().map(|(key, due)| (*due, key.clone())).collect();
    expected.sort();
    for first in [i64::MIN, -1, 1, i64::MAX] {
        let (mut found, mut from, mut after) = (Vec::new(), first, None);
        loop {
            let page =
                store.documents_due(Collection::Sessions, from, after.as_deref(), limit).await.unwrap();
            let Some((due, key)) = page.last() else { break };
            (from, after) = (*due, Some(key.clone()));
            found.extend(page);
        }
        assert_eq!(found, expected[expected.partition_point(|(due, _)| *due < first)..]);
    }
}

/// Dead letters of everyone.
pub(crate) async fn letters(store: &Store, model: &Model) {
    for (owner, letters) in &model.letters {
        assert_eq!(store.dead_letter_count(owner).await.unwrap(), letters.len() as u64);
        let found = store.dead_letters(owner, 0, 1000).await.unwrap();
        assert_eq!(found, letters.clone().into_iter().collect::<Vec<_>>());
    }
}
