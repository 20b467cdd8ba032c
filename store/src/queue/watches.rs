//! [`Watches`]: who waits for more of a queue.

use foldhash::{HashMap, HashSet};

use super::table::SlotIndex;
use crate::Watcher;

/// One-shot watches by queue. Arming one again replaces it, at the same cost however many others wait.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    queues: HashMap<SlotIndex, HashMap<(usize, u64), Watch>>,
    /// Queues that someone watches for what is durable, so that a sync looks at no others.
    durable: HashSet<SlotIndex>,
}

#[derive(Debug)]
struct Watch {
    offset: u64,
    durable: bool,
    watcher: Watcher,
}

impl Watches {
    /// Adds a watch for an offset (`true`: once that is durable).
    pub(crate) fn arm(
        &mut self,
        queue: SlotIndex,
        (offset, durable): (u64, bool),
        watcher: &Watcher,
        token: u64,
    ) {
        let watch = Watch { offset, durable, watcher: watcher.clone() };
        self.queues.entry(queue).or_default().insert((watcher.key(), token), watch);
        if durable {
            self.durable.insert(queue);
        }
    }

    /// Takes away the watches of a watcher, or the one with `token`.
    pub(crate) fn disarm(&mut self, queue: SlotIndex, watcher: &Watcher, token: Option<u64>) {
        let Some(watches) = self.queues.get_mut(&queue) else { return };
        match token {
            Some(token) => drop(watches.remove(&(watcher.key(), token))),
            None => watches.retain(|(key, _), _| *key != watcher.key()),
        }
        self.tidy(queue);
    }

    /// Rings, and takes away, the watches that `ready` says are; whether any are left.
    pub(crate) fn ring(&mut self, queue: SlotIndex, ready: impl Fn(u64, bool) -> bool) -> bool {
        let Some(watches) = self.queues.get_mut(&queue) else { return false };
        watches.retain(|(_, token), watch| {
            let ready = ready(watch.offset, watch.durable);
            if ready {
                watch.watcher.ring(*token);
            }
            !ready
        });
        self.tidy(queue)
    }

    /// Queues that someone watches for what is durable.
    pub(crate) fn durable(&self) -> Vec<SlotIndex> {
        self.durable.iter().copied().collect()
    }

    fn tidy(&mut self, queue: SlotIndex) -> bool {
        let left = self.queues.get(&queue);
        if !left.is_some_and(|watches| watches.values().any(|watch| watch.durable)) {
            self.durable.remove(&queue);
        }
        let is_left = left.is_some_and(|watches| !watches.is_empty());
        if !is_left {
            self.queues.remove(&queue);
        }
        is_left
    }
}
