//! [`Trie`]: from a topic to the queues of all filters that match it.

use std::hash::BuildHasher;
use std::str::Split;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashTable};
use smallvec::SmallVec;

use super::levels::{Levels, NO_LEVEL, make_room};

/// The level of an edge for `+`, which is no name.
const PLUS: u32 = NO_LEVEL;
/// Where all filters begin. It is there even without filters.
const ROOT: u32 = 0;
/// End of the list of free nodes.
const NO_NODE: u32 = u32::MAX;
/// More nodes than memory holds, and so many that edges can be counted in 31 bits.
const NODES_MAX: usize = 1 << 31;
/// No queue ends here.
const NO_QUEUE: u32 = u32::MAX;
/// The queues that end here are in `Trie::lists`.
const LISTED: u32 = u32::MAX - 1;

/// Filters by level. Finding costs by the topic's levels and the wildcards on its way, not by the number of filters.
///
/// Almost every filter has one queue, and most of a million filters differ in one level, so that a filter costs about
/// a node, a name and an entry in each of the two hash tables: 50 to 60 bytes beside the name's own.
#[derive(Debug)]
pub(crate) struct Trie {
    nodes: Vec<Node>,
    /// First of the free nodes; the others follow as `parent` of each.
    free: u32,
    /// Every node but the root, by its parent and level.
    edges: HashTable<u32>,
    levels: Levels,
    /// Where there is not just one queue: sorted.
    lists: HashMap<(u32, End), Vec<u32>, RandomState>,
    hasher: RandomState,
}

/// What a filter is up to one of its levels. The edge that leads here is a part of it: the table then has 4 bytes for
/// an edge, and the way back needs no stack.
#[derive(Debug, Clone, Copy)]
struct Node {
    parent: u32,
    level: u32,
    /// Twice the number of edges to names, and 1 if there is one for `+`: most nodes have none, and asking the table
    /// costs a cache miss.
    edges: u32,
    /// The queue of the filter that ends here, or `NO_QUEUE`, or `LISTED`.
    here: u32,
    /// The same of the filter that ends here with `#`.
    rest: u32,
}

/// The two ways to end at a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum End {
    Here,
    Rest,
}

impl Node {
    fn new(parent: u32, level: u32) -> Self {
        Node { parent, level, edges: 0, here: NO_QUEUE, rest: NO_QUEUE }
    }

    fn is_empty(&self) -> bool {
        self.edges == 0 && self.here == NO_QUEUE && self.rest == NO_QUEUE
    }

    fn has_plus(&self) -> bool {
        self.edges & 1 == 1
    }

    fn has_names(&self) -> bool {
        self.edges > 1
    }

    fn end(&mut self, end: End) -> &mut u32 {
        match end {
            End::Here => &mut self.here,
            End::Rest => &mut self.rest,
        }
    }
}

/// What an edge to this level adds to `Node::edges`.
fn edge_weight(level: u32) -> u32 {
    if level == PLUS { 1 } else { 2 }
}

fn hash(state: &RandomState, parent: u32, level: u32) -> u64 {
    state.hash_one(u64::from(parent) << 32 | u64::from(level))
}

/// A topic on its way through the trie.
struct Walk<'a> {
    levels: Split<'a, char>,
    /// The level it is at; `None` at its end.
    name: Option<&'a str>,
    /// The number of that name, once it was looked up, if it has one.
    level: Option<Option<u32>>,
}

impl<'a> Walk<'a> {
    fn new(topic: &'a str) -> Self {
        Walk { levels: topic.split('/'), name: None, level: None }
    }

    fn step(&mut self) {
        (self.name, self.level) = (self.levels.next(), None);
    }
}

/// A way to go on for a topic, by its number.
struct Edge {
    topic: u32,
    parent: u32,
    level: u32,
    hash: u64,
}

impl Default for Trie {
    fn default() -> Self {
        Trie {
            nodes: vec![Node::new(NO_NODE, PLUS)],
            free: NO_NODE,
            edges: HashTable::new(),
            levels: Levels::default(),
            lists: HashMap::default(),
            hasher: RandomState::default(),
        }
    }
}

impl Trie {
    /// Adds a queue to a filter.
    pub(crate) fn add(&mut self, filter: &str, queue: u32) {
        let mut node = ROOT;
        for level in filter.split('/') {
            if level == "#" {
                return self.insert(node, End::Rest, queue);
            }
            let known = if level == "+" { Some(PLUS) } else { self.levels.find(level) };
            let child = known.and_then(|level| self.child(node, level));
            node = child.unwrap_or_else(|| {
                let level = if level == "+" { PLUS } else { self.levels.take(level) };
                self.attach(node, level)
            });
        }
        self.insert(node, End::Here, queue);
    }

    /// Takes a queue from a filter, and what is empty then from the trie.
    pub(crate) fn remove(&mut self, filter: &str, queue: u32) {
        let mut node = ROOT;
        let mut end = End::Here;
        for level in filter.split('/') {
            if level == "#" {
                end = End::Rest;
                break;
            }
            let level = if level == "+" { Some(PLUS) } else { self.levels.find(level) };
            let Some(child) = level.and_then(|level| self.child(node, level)) else { return };
            node = child;
        }
        self.take(node, end, queue);
        while let Some(parent) = self.detach_if_empty(node) {
            node = parent;
        }
    }

    /// Appends the queues of all matching filters, each once, in order of their number.
    pub(crate) fn find(&self, topic: &str, queues: &mut Vec<u32>) {
        let mut found = Vec::new();
        self.find_all(&[topic], &mut found);
        queues.extend(found.into_iter().map(|(_, queue)| queue));
    }

    /// Finds the queues of all filters that match each of the topics: the topic's number and the queue's, each pair once, in order.
    ///
    /// It goes through all topics at once, level by level, with all the nodes that the levels so far lead to: there are never
    /// more of a topic than the trie has at that depth, however long the topic is. What one step waits for, memory most of
    /// all, the next one does not: with a million filters that is several times faster than one topic after the other.
    pub(crate) fn find_all(&self, topics: &[&str], found: &mut Vec<(u32, u32)>) {
        found.clear();
        let mut walks: SmallVec<[Walk<'_>; 8]> = topics.iter().map(|topic| Walk::new(topic)).collect();
        let mut reached: SmallVec<[(u32, u32); 16]> = (0..topics.len() as u32).map(|at| (at, ROOT)).collect();
        let mut edges: SmallVec<[Edge; 16]> = SmallVec::new();
        // A wildcard at the first level does not match a topic that begins with `$`.
        let mut first = true;
        while !reached.is_empty() {
            walks.iter_mut().for_each(Walk::step);
            for (number, id) in reached.drain(..) {
                let (Some(walk), Some(node)) = (walks.get_mut(number as usize), self.node(id)) else {
                    continue;
                };
                let Some(name) = walk.name else {
                    self.append(number, id, End::Rest, node.rest, found);
                    self.append(number, id, End::Here, node.here, found);
                    continue;
                };
                if !(first && name.starts_with('$')) {
                    self.append(number, id, End::Rest, node.rest, found);
                    if node.has_plus() {
                        edges.push(self.edge(number, id, PLUS));
                    }
                }
                if node.has_names()
                    && let Some(level) = *walk.level.get_or_insert_with(|| self.levels.find(name))
                {
                    edges.push(self.edge(number, id, level));
                }
            }
            // By itself, with nothing to decide in between: that is where it waits for memory.
            let children = edges.drain(..).map(|edge| Some((edge.topic, self.follow(&edge)?)));
            reached.extend(children.flatten());
            first = false;
        }
        found.sort_unstable();
        found.dedup();
    }

    /// Memory it holds.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        let lists: usize = self.lists.values().map(|list| list.capacity() * size_of::<u32>()).sum();
        self.nodes.capacity() * size_of::<Node>()
            + self.edges.allocation_size()
            + self.levels.bytes()
            + self.lists.allocation_size()
            + lists
    }

    fn node(&self, id: u32) -> Option<Node> {
        self.nodes.get(id as usize).copied()
    }

    fn node_mut(&mut self, id: u32) -> Option<&mut Node> {
        self.nodes.get_mut(id as usize)
    }

    fn child(&self, parent: u32, level: u32) -> Option<u32> {
        self.follow(&self.edge(0, parent, level))
    }

    fn edge(&self, topic: u32, parent: u32, level: u32) -> Edge {
        Edge { topic, parent, level, hash: hash(&self.hasher, parent, level) }
    }

    /// The node that an edge leads to, if there is such an edge.
    fn follow(&self, edge: &Edge) -> Option<u32> {
        let is_it = |id: &u32| {
            self.node(*id).is_some_and(|node| node.parent == edge.parent && node.level == edge.level)
        };
        self.edges.find(edge.hash, is_it).copied()
    }

    /// A new node.
    fn attach(&mut self, parent: u32, level: u32) -> u32 {
        let node = Node::new(parent, level);
        let id = self.free;
        let id = if let Some(free) = self.nodes.get_mut(id as usize) {
            self.free = free.parent;
            *free = node;
            id
        } else {
            assert!(self.nodes.len() < NODES_MAX, "more than two billion levels of filters");
            make_room(&mut self.nodes, 1);
            self.nodes.push(node);
            (self.nodes.len() - 1) as u32
        };
        if let Some(parent) = self.node_mut(parent) {
            parent.edges += edge_weight(level);
        }
        let Trie { nodes, edges, hasher, .. } = self;
        let rehash =
            |id: &u32| nodes.get(*id as usize).map_or(0, |node| hash(hasher, node.parent, node.level));
        edges.insert_unique(hash(hasher, parent, level), id, rehash);
        id
    }

    /// Frees a node that leads nowhere. Its parent, if it did.
    fn detach_if_empty(&mut self, id: u32) -> Option<u32> {
        let node = self.node(id).filter(|node| id != ROOT && node.is_empty())?;
        if let Ok(edge) =
            self.edges.find_entry(hash(&self.hasher, node.parent, node.level), |known| *known == id)
        {
            edge.remove();
        }
        if let Some(parent) = self.node_mut(node.parent) {
            parent.edges -= edge_weight(node.level);
        }
        if node.level != PLUS {
            self.levels.release(node.level);
        }
        let free = self.free;
        *self.node_mut(id)? = Node::new(free, PLUS);
        self.free = id;
        Some(node.parent)
    }

    /// Adds a queue to those that end at a node.
    fn insert(&mut self, id: u32, end: End, queue: u32) {
        let Some(node) = self.nodes.get_mut(id as usize) else { return };
        let slot = node.end(end);
        match *slot {
            NO_QUEUE if queue < LISTED => *slot = queue,
            one if one == queue && one < LISTED => {}
            before => {
                let list = self.lists.entry((id, end)).or_default();
                if before < LISTED {
                    list.push(before);
                }
                if let Err(at) = list.binary_search(&queue) {
                    list.insert(at, queue);
                }
                *slot = LISTED;
            }
        }
    }

    /// Takes a queue from those that end at a node.
    fn take(&mut self, id: u32, end: End, queue: u32) {
        let Some(node) = self.nodes.get_mut(id as usize) else { return };
        let slot = node.end(end);
        if *slot != LISTED {
            if *slot == queue {
                *slot = NO_QUEUE;
            }
            return;
        }
        let Some(list) = self.lists.get_mut(&(id, end)) else { return };
        if let Ok(at) = list.binary_search(&queue) {
            list.remove(at);
        }
        *slot = match **list {
            [] => NO_QUEUE,
            [one] if one < LISTED => one,
            _ => return,
        };
        self.lists.remove(&(id, end));
    }

    /// Appends the queues that end at a node, given what the node has of them.
    fn append(&self, topic: u32, id: u32, end: End, queue: u32, found: &mut Vec<(u32, u32)>) {
        match queue {
            NO_QUEUE => {}
            LISTED => {
                let list = self.lists.get(&(id, end)).into_iter().flatten();
                found.extend(list.map(|queue| (topic, *queue)));
            }
            one => found.push((topic, one)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::queue::filter;
    use proptest::prelude::*;

    fn path(level: &'static str) -> impl Strategy<Value = String> {
        prop::collection::vec(level, 1..5).prop_map(|levels| levels.join("/"))
    }

    fn found(trie: &Trie, topic: &str) -> Vec<u32> {
        // What was there before is left alone, be it unsorted and twice.
        let mut found = vec![9, 1, 9];
        trie.find(topic, &mut found);
        assert_eq!(found[..3], [9, 1, 9]);
        found.split_off(3)
    }

    fn free_nodes(trie: &Trie) -> usize {
        std::iter::successors(trie.node(trie.free), |node| trie.node(node.parent)).count()
    }

    fn assert_empty(trie: &Trie) {
        assert_eq!(free_nodes(trie), trie.nodes.len() - 1);
        assert!(trie.nodes[0].is_empty());
        assert_eq!((trie.edges.len(), trie.levels.len(), trie.lists.len()), (0, 0, 0));
    }

    proptest! {
        #[test]
        fn finds_what_matches(filters in prop::collection::vec(path("[abc+#$]"), 1..30), topics in prop::collection::vec(path("[abc$]"), 1..20)) {
            let filters: Vec<_> = filters.into_iter().filter(|f| filter::check(f).is_ok()).collect();
            let mut trie = Trie::default();
            for (queue, filter) in filters.iter().enumerate() {
                trie.add(filter, queue as u32);
            }
            for topic in &topics {
                let expected: Vec<u32> = filters.iter().enumerate()
                    .filter(|(_, f)| filter::matches(f, topic)).map(|(q, _)| q as u32).collect();
                prop_assert_eq!(found(&trie, topic), expected, "{}", topic);
            }
            for (queue, filter) in filters.iter().enumerate() {
                trie.remove(filter, queue as u32);
            }
            assert_empty(&trie);
        }

        #[test]
        fn changes_as_told(
            // Few filters and queues, so that the same ones are added, added again and removed; a level may be empty.
            changes in prop::collection::vec((path("[ab+#$]?"), 0..4u32, any::<bool>(), path("[ab$]?")), 1..200),
        ) {
            let mut trie = Trie::default();
            let mut model: BTreeSet<(String, u32)> = BTreeSet::new();
            for (filter, queue, add, topic) in changes {
                // The numbers that stand for none and for many are queues like all others.
                let queue = if queue > 1 { u32::MAX - queue + 2 } else { queue };
                if filter::check(&filter).is_ok() {
                    if add {
                        trie.add(&filter, queue);
                        model.insert((filter, queue));
                    } else {
                        trie.remove(&filter, queue);
                        model.remove(&(filter, queue));
                    }
                }
                let expected: BTreeSet<u32> =
                    model.iter().filter(|(f, _)| filter::matches(f, &topic)).map(|(_, q)| *q).collect();
                prop_assert_eq!(found(&trie, &topic), expected.into_iter().collect::<Vec<_>>(), "{}", topic);
                prop_assert_eq!(trie.edges.len() + free_nodes(&trie) + 1, trie.nodes.len());
            }
            for (filter, queue) in &model {
                trie.remove(filter, *queue);
            }
            assert_empty(&trie);
        }
    }

    /// The longest topic is all separators.
    #[test]
    fn depth_is_no_danger() {
        const LEVELS: usize = 32_768;
        let topic = ["a"; LEVELS].join("/");
        let short = ["a"; LEVELS - 1].join("/");
        let plus = ["+"; LEVELS].join("/");
        let filters =
            [("#", 1), (&*plus, 2), (&*topic, 3), (&*format!("{short}/+"), 4), (&*format!("{plus}/#"), 5)];
        let mut trie = Trie::default();
        for (filter, queue) in filters {
            trie.add(filter, queue);
        }
        assert_eq!(found(&trie, &topic), [1, 2, 3, 4, 5]);
        assert_eq!(found(&trie, &short), [1]);
        assert_eq!(found(&trie, &"/".repeat(LEVELS - 1)), [1, 2, 5]);
        assert_eq!(found(&trie, &"/".repeat(65_534)), [1, 5]);
        for (filter, queue) in filters {
            trie.remove(filter, queue);
        }
        assert_empty(&trie);
    }

    /// Each of the topic's levels doubles the ways through these filters.
    #[test]
    fn all_ways_are_found() {
        let mut trie = Trie::default();
        for queue in 0..1 << 12 {
            let levels: Vec<_> = (0..12).map(|bit| if queue >> bit & 1 == 1 { "a" } else { "+" }).collect();
            trie.add(&levels.join("/"), queue);
        }
        assert_eq!(found(&trie, &["a"; 12].join("/")), (0..1 << 12).collect::<Vec<_>>());
        assert_eq!(found(&trie, &["b"; 12].join("/")), [0]);
        assert_eq!(found(&trie, &["a"; 13].join("/")), []);
    }

    #[test]
    fn a_filter_costs_few_bytes() {
        let mut trie = Trie::default();
        let filter = |n: u32| match n % 2 {
            0 => format!("f/site-{}/device-{n:07}", n / 1000),
            _ => format!("f/+/device-{n:07}"),
        };
        // Past a doubling of the tables, so that the bad moment just after it is among them.
        const FILTERS: u32 = 120_000;
        for n in 0..FILTERS {
            trie.add(&filter(n), n);
            if n >= 50_000 && n % 100 == 0 {
                let bytes = trie.bytes() / n as usize;
                assert!(bytes <= 90, "{bytes} bytes for each of {n} filters");
            }
        }
        let bytes = trie.bytes();
        // Others in their place need no more.
        for n in 0..FILTERS {
            trie.remove(&filter(n), n);
            trie.add(&filter(n + FILTERS), n);
        }
        assert!(trie.bytes() <= bytes + bytes / 8, "{} after {bytes}", trie.bytes());
        assert_eq!(found(&trie, "f/site-150/device-0150000"), [150_000 - FILTERS]);
    }
}
