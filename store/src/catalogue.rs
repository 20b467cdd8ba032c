//! [`Catalogue`]: which queues there are, by name and by number, and who refers to them.

use std::collections::BTreeMap;

use foldhash::HashMap;
use parking_lot::RwLock;

use crate::QueueId;
use crate::meta::catalogue::{Entry, Kind};

/// The catalogue in memory. Changes to it are made one at a time, under [`Catalogue::changes`].
#[derive(Debug)]
pub(crate) struct Catalogue {
    state: RwLock<State>,
    pub(crate) changes: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<QueueId, Entry>,
    names: HashMap<(Kind, String), QueueId>,
    references: HashMap<QueueId, u64>,
}

impl Catalogue {
    pub(crate) fn new(entries: Vec<Entry>) -> Self {
        let catalogue = Catalogue { state: RwLock::default(), changes: tokio::sync::Mutex::default() };
        for entry in entries {
            catalogue.insert(entry);
        }
        catalogue
    }

    pub(crate) fn insert(&self, entry: Entry) {
        let mut state = self.state.write();
        state.names.insert((entry.kind, entry.name.clone()), entry.id);
        state.entries.insert(entry.id, entry);
    }

    pub(crate) fn remove(&self, id: QueueId) {
        let mut state = self.state.write();
        if let Some(entry) = state.entries.remove(&id) {
            state.names.remove(&(entry.kind, entry.name));
        }
        state.references.remove(&id);
    }

    pub(crate) fn by_name(&self, kind: Kind, name: &str) -> Option<Entry> {
        let state = self.state.read();
        let id = state.names.get(&(kind, name.to_owned()))?;
        state.entries.get(id).cloned()
    }

    pub(crate) fn get(&self, id: QueueId) -> Option<Entry> {
        self.state.read().entries.get(&id).cloned()
    }

    /// Entries by number after `after`.
    pub(crate) fn page(&self, after: Option<QueueId>, limit: usize) -> Vec<Entry> {
        use std::ops::Bound::{Excluded, Unbounded};
        let state = self.state.read();
        let from = after.map_or(Unbounded, Excluded);
        state.entries.range((from, Unbounded)).take(limit).map(|(_, entry)| entry.clone()).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.state.read().entries.len()
    }

    pub(crate) fn refer(&self, id: QueueId) {
        *self.state.write().references.entry(id).or_default() += 1;
    }

    /// Gives a reference back; whether it was the last.
    pub(crate) fn release(&self, id: QueueId) -> bool {
        let mut state = self.state.write();
        match state.references.get_mut(&id) {
            Some(count) if *count > 1 => {
                *count -= 1;
                false
            }
            Some(_) => {
                state.references.remove(&id);
                true
            }
            None => false,
        }
    }

    /// Filter queues without a reference.
    pub(crate) fn unreferenced(&self) -> Vec<QueueId> {
        let state = self.state.read();
        let filters = state.entries.values().filter(|entry| entry.kind == Kind::Filter);
        filters.map(|entry| entry.id).filter(|id| !state.references.contains_key(id)).collect()
    }
}
