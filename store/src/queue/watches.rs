//! [`Watches`]: who waits for more of a queue.

use std::collections::hash_map::Entry;

use foldhash::{HashMap, HashMapExt, HashSet};

use super::table::SlotIndex;
use crate::Watcher;

/// One-shot watches by queue. Arming one again replaces it, at the same cost however many others wait.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    queues: HashMap<SlotIndex, Waiting>,
    /// Queues that someone watches for what is durable, so that a sync looks at no others.
    durable: HashSet<SlotIndex>,
}

#[derive(Clone, Debug)]
struct Watch {
    offset: u64,
    durable: bool,
    watcher: Watcher,
}

/// A watch is named by its watcher's key and the token.
type Name = (usize, u64);

/// Who waits for one queue. Most queues have one who does, and it comes back for every message: no map is made for it.
#[derive(Debug)]
enum Waiting {
    One(Name, Watch),
    Many(HashMap<Name, Watch>),
}

impl Waiting {
    fn insert(&mut self, name: Name, watch: Watch) {
        match self {
            Waiting::One(one, first) if *one == name => *first = watch,
            Waiting::One(one, first) => {
                let mut many = HashMap::with_capacity(2);
                many.insert(*one, first.clone());
                many.insert(name, watch);
                *self = Waiting::Many(many);
            }
            Waiting::Many(many) => {
                many.insert(name, watch);
            }
        }
    }

    /// Takes one away; whether any are left.
    fn remove(&mut self, name: Name) -> bool {
        match self {
            Waiting::One(one, _) => *one != name,
            Waiting::Many(many) => {
                many.remove(&name);
                !many.is_empty()
            }
        }
    }

    /// Takes those away that `keep` is false of; whether any are left.
    fn retain(&mut self, mut keep: impl FnMut(Name, &Watch) -> bool) -> bool {
        match self {
            Waiting::One(one, first) => keep(*one, first),
            Waiting::Many(many) => {
                many.retain(|name, watch| keep(*name, watch));
                !many.is_empty()
            }
        }
    }

    /// Whether anybody waits for what is durable.
    fn any_durable(&self) -> bool {
        match self {
            Waiting::One(_, first) => first.durable,
            Waiting::Many(many) => many.values().any(|watch| watch.durable),
        }
    }
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
        let name = (watcher.key(), token);
        match self.queues.entry(queue) {
            Entry::Occupied(waiting) => waiting.into_mut().insert(name, watch),
            Entry::Vacant(nobody) => {
                nobody.insert(Waiting::One(name, watch));
            }
        }
        if durable {
            self.durable.insert(queue);
        }
    }

    /// Takes away the watches of a watcher, or the one with `token`.
    pub(crate) fn disarm(&mut self, queue: SlotIndex, watcher: &Watcher, token: Option<u64>) {
        let Some(watches) = self.queues.get_mut(&queue) else { return };
        let is_left = match token {
            Some(token) => watches.remove((watcher.key(), token)),
            None => watches.retain(|(key, _), _| key != watcher.key()),
        };
        self.tidy(queue, is_left);
    }

    /// Rings, and takes away, the watches that `ready` says are; whether any are left.
    pub(crate) fn ring(&mut self, queue: SlotIndex, ready: impl Fn(u64, bool) -> bool) -> bool {
        let Some(watches) = self.queues.get_mut(&queue) else { return false };
        let is_left = watches.retain(|(_, token), watch| {
            let ready = ready(watch.offset, watch.durable);
            if ready {
                watch.watcher.ring(token);
            }
            !ready
        });
        self.tidy(queue, is_left);
        is_left
    }

    /// Queues that someone watches for what is durable.
    pub(crate) fn durable(&self) -> Vec<SlotIndex> {
        self.durable.iter().copied().collect()
    }

    fn tidy(&mut self, queue: SlotIndex, is_left: bool) {
        if !is_left {
            self.queues.remove(&queue);
        }
        if self.durable.contains(&queue) && !self.queues.get(&queue).is_some_and(Waiting::any_durable) {
            self.durable.remove(&queue);
        }
    }
}
