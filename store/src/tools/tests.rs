//! An index with wrong entries: what is wrong is found where it is, and mended from the log.

use std::path::Path;
use std::sync::Arc;

use super::data::INDEX_CACHE_BYTES;
use super::*;
use crate::queue::alive::Alive;
use crate::queue::index::{Checkpoint, Index};
use crate::{NewRecord, Options, Pointer, Result, Retain, Store};

/// A closed store with 600 records in queue `t/#` and every second one in `t/0`, and what those numbers are.
async fn store(dir: &Path) -> (QueueId, QueueId, Vec<Pointer>) {
    let store = Store::open(Options::new(dir)).unwrap();
    let all = store.open_filter("t/#").await.unwrap().id;
    let half = store.open_filter("t/0").await.unwrap().id;
    let record = |n: u32| NewRecord {
        topic: format!("t/{}", n % 2).into(),
        properties: Default::default(),
        payload: vec![b'x'; 20].into(),
        attributes: 0,
        retain: Retain::No,
    };
    store.append((0..600).map(record).collect()).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let found = Index::open_to_read(&dir.join("index"), INDEX_CACHE_BYTES).unwrap();
    let pointers = found.entries(all, 0, 600).unwrap().into_iter().map(|(_, pointer)| pointer).collect();
    (all, half, pointers)
}

/// Changes the index as no program of ours would.
fn damage(dir: &Path, alive: &[QueueId], fill: impl FnOnce(&mut Checkpoint<'_>) -> Result<()>) {
    let living = Alive::default();
    alive.iter().for_each(|queue| living.insert(*queue));
    let index =
        Index::open(&dir.join("index"), dir.join("staging"), INDEX_CACHE_BYTES, Arc::new(living)).unwrap();
    index.write(fill).unwrap();
}

fn problems(dir: &Path) -> Vec<Problem> {
    verify(dir, 20, &mut |_| {}).unwrap().problems
}

/// What `damage` did is found at an entry, in these words, and gone once the index was derived again.
async fn check(
    damage_it: impl FnOnce(&Path, QueueId, QueueId, &[Pointer]),
    expected: impl FnOnce(QueueId, QueueId) -> (Place, &'static str),
) {
    let dir = tempfile::tempdir().unwrap();
    let (all, half, pointers) = store(dir.path()).await;
    assert_eq!(problems(dir.path()), []);
    damage_it(dir.path(), all, half, &pointers);
    let found = problems(dir.path());
    let (place, what) = expected(all, half);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].place, place, "{found:?}");
    assert!(found[0].what.contains(what), "{found:?}");
    rebuild_index(dir.path(), &mut |_| {}).unwrap();
    assert_eq!(problems(dir.path()), []);
    let index = Index::open_to_read(&dir.path().join("index"), INDEX_CACHE_BYTES).unwrap();
    let entries: Vec<Pointer> =
        index.entries(all, 0, 700).unwrap().into_iter().map(|(_, pointer)| pointer).collect();
    assert_eq!(entries, pointers);
}

#[tokio::test]
async fn a_missing_block_is_found() {
    check(
        |dir, all, half, _| {
            let index = Index::open(&dir.join("index"), dir.join("staging"), INDEX_CACHE_BYTES, {
                let alive = Alive::default();
                alive.insert(all);
                alive.insert(half);
                Arc::new(alive)
            });
            index.unwrap().clear(all, 512).unwrap();
        },
        |all, _| (Place::Entry { queue: all, offset: 512 }, "should be in this queue"),
    )
    .await;
}

#[tokio::test]
async fn a_broken_block_is_found() {
    check(
        |dir, all, half, pointers| {
            damage(dir, &[all, half], |file| file.entries(all, 100, &pointers[100..101]));
        },
        |all, _| (Place::Entry { queue: all, offset: 0 }, "do not follow each other"),
    )
    .await;
}

#[tokio::test]
async fn an_entry_too_many_is_found() {
    check(
        |dir, all, half, pointers| {
            // The record of another topic, behind the last one of the queue.
            damage(dir, &[all, half], |file| {
                file.entries(half, 300, &pointers[599..])?;
                file.ends(&[(half, 301)])
            });
        },
        |_, half| (Place::Entry { queue: half, offset: 300 }, "does not match the queue's filter"),
    )
    .await;
}

#[tokio::test]
async fn an_entry_that_points_nowhere_is_found() {
    check(
        |dir, all, half, pointers| {
            let last = pointers[599];
            let nowhere = Pointer { position: Position::new(0, last.position.offset() + 60), size: 60 };
            damage(dir, &[all, half], |file| {
                file.entries(half, 300, &[nowhere])?;
                file.ends(&[(half, 301)])
            });
        },
        |_, half| (Place::Entry { queue: half, offset: 300 }, "no record of the log comes there"),
    )
    .await;
}

#[tokio::test]
async fn a_wrong_end_is_found() {
    check(
        |dir, all, half, _| damage(dir, &[all, half], |file| file.ends(&[(all, 650)])),
        |all, _| (Place::Entry { queue: all, offset: 600 }, "its row of ends says 650"),
    )
    .await;
}
