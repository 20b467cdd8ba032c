//! [`Alive`]: what of the index still counts, for whoever looks at it from outside the store's threads: RocksDB drops the rest when
//! it compacts.

use std::sync::atomic::{AtomicBool, Ordering};

use foldhash::HashMap;
use parking_lot::RwLock;

use crate::{Position, QueueId};

/// Numbers of queues in one word list.
const PAGE_QUEUES: u64 = 512;
const WORD_BITS: u64 = u64::BITS as u64;
const PAGE_WORDS: usize = (PAGE_QUEUES / WORD_BITS) as usize;

/// Which queues there are, one bit each, and where the log begins.
#[derive(Debug, Default)]
pub(crate) struct Alive {
    /// Every queue of the catalogue was entered. RocksDB may compact from the moment it is opened, which is before that.
    complete: AtomicBool,
    queues: RwLock<HashMap<u64, [u64; PAGE_WORDS]>>,
    /// By shard: the first offset that is still there.
    starts: RwLock<Vec<u64>>,
}

fn place(queue: QueueId) -> (u64, usize, u64) {
    let inside = queue.0 % PAGE_QUEUES;
    (queue.0 / PAGE_QUEUES, (inside / WORD_BITS) as usize, 1 << (inside % WORD_BITS))
}

impl Alive {
    pub(crate) fn insert(&self, queue: QueueId) {
        let (page, word, bit) = place(queue);
        if let Some(word) = self.queues.write().entry(page).or_default().get_mut(word) {
            *word |= bit;
        }
    }

    pub(crate) fn remove(&self, queue: QueueId) {
        let (page, word, bit) = place(queue);
        let mut queues = self.queues.write();
        if let Some(words) = queues.get_mut(&page) {
            if let Some(word) = words.get_mut(word) {
                *word &= !bit;
            }
            if words.iter().all(|word| *word == 0) {
                queues.remove(&page);
            }
        }
    }

    /// Says that all queues there are were entered: from now on the others do not exist.
    pub(crate) fn complete(&self) {
        self.complete.store(true, Ordering::Release);
    }

    /// Whether the queue exists, as far as that is known.
    pub(crate) fn has(&self, queue: QueueId) -> bool {
        if !self.complete.load(Ordering::Acquire) {
            return true;
        }
        let (page, word, bit) = place(queue);
        self.queues.read().get(&page).and_then(|words| words.get(word)).is_some_and(|word| word & bit != 0)
    }

    /// Says that the log of a shard begins at an offset now.
    pub(crate) fn set_start(&self, shard: u16, start: u64) {
        let mut starts = self.starts.write();
        let index = usize::from(shard);
        if starts.len() <= index {
            starts.resize(index + 1, 0);
        }
        if let Some(known) = starts.get_mut(index) {
            *known = start.max(*known);
        }
    }

    /// Whether the record at a position is gone from the log.
    pub(crate) fn gone(&self, position: Position) -> bool {
        let starts = self.starts.read();
        starts.get(usize::from(position.shard())).is_some_and(|start| position.offset() < *start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_a_set(steps in prop::collection::vec((any::<bool>(), 0..2000u64), 0..200)) {
            let alive = Alive::default();
            prop_assert!(alive.has(QueueId(7)), "nothing is known yet");
            alive.complete();
            let mut expected = std::collections::HashSet::new();
            for (insert, queue) in steps {
                if insert {
                    alive.insert(QueueId(queue));
                    expected.insert(queue);
                } else {
                    alive.remove(QueueId(queue));
                    expected.remove(&queue);
                }
            }
            for queue in 0..2000 {
                prop_assert_eq!(alive.has(QueueId(queue)), expected.contains(&queue));
            }
            expected.iter().for_each(|queue| alive.remove(QueueId(*queue)));
            prop_assert!(alive.queues.read().is_empty());
        }
    }

    #[test]
    fn starts_only_grow() {
        let alive = Alive::default();
        assert!(!alive.gone(Position::new(2, 5)));
        alive.set_start(2, 10);
        alive.set_start(2, 4);
        assert!(alive.gone(Position::new(2, 9)) && !alive.gone(Position::new(2, 10)));
        assert!(!alive.gone(Position::new(0, 0)) && !alive.gone(Position::new(7, 0)));
    }
}
