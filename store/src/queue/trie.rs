//! [`Trie`]: from a topic to the queues of all filters that match it.

use foldhash::HashMap;
use smallvec::SmallVec;

/// Filters by level. Finding costs by the topic's levels and the wildcards on its way, not by the number of filters.
#[derive(Debug, Default)]
pub(crate) struct Trie {
    root: Node,
}

#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, Node>,
    /// The child for `+`.
    plus: Option<Box<Node>>,
    /// Queues of the filter that ends here.
    here: SmallVec<[u64; 1]>,
    /// Queues of the filter that ends here with `#`.
    rest: SmallVec<[u64; 1]>,
}

impl Node {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.plus.is_none() && self.here.is_empty() && self.rest.is_empty()
    }
}

impl Trie {
    /// Adds a queue to a filter.
    pub(crate) fn add(&mut self, filter: &str, queue: u64) {
        let mut node = &mut self.root;
        for level in filter.split('/') {
            match level {
                "#" => {
                    insert(&mut node.rest, queue);
                    return;
                }
                "+" => node = node.plus.get_or_insert_default(),
                literal => node = node.children.entry(literal.into()).or_default(),
            }
        }
        insert(&mut node.here, queue);
    }

    /// Takes a queue from a filter, and what is empty then from the trie.
    pub(crate) fn remove(&mut self, filter: &str, queue: u64) {
        remove(&mut self.root, filter.split('/'), queue);
    }

    /// The queues of all matching filters, each once, in order of their number.
    pub(crate) fn find(&self, topic: &str) -> Vec<u64> {
        let mut found = Vec::new();
        let levels: SmallVec<[&str; 16]> = topic.split('/').collect();
        walk(&self.root, &levels, !topic.starts_with('$'), &mut found);
        found.sort_unstable();
        found.dedup();
        found
    }
}

fn insert(queues: &mut SmallVec<[u64; 1]>, queue: u64) {
    if !queues.contains(&queue) {
        queues.push(queue);
    }
}

fn remove<'a>(node: &mut Node, mut levels: impl Iterator<Item = &'a str>, queue: u64) {
    match levels.next() {
        None => node.here.retain(|q| *q != queue),
        Some("#") => node.rest.retain(|q| *q != queue),
        Some("+") => {
            if let Some(child) = &mut node.plus {
                remove(child, levels, queue);
                if child.is_empty() {
                    node.plus = None;
                }
            }
        }
        Some(literal) => {
            if let Some(child) = node.children.get_mut(literal) {
                remove(child, levels, queue);
                if child.is_empty() {
                    node.children.remove(literal);
                }
            }
        }
    }
}

/// Recursion is as deep as the topic has levels where a filter goes on; filters are bounded by 65,535 bytes, and the
/// caller bounds levels far below what a stack holds.
fn walk(node: &Node, levels: &[&str], wildcards: bool, found: &mut Vec<u64>) {
    if wildcards {
        found.extend_from_slice(&node.rest);
    }
    match levels.split_first() {
        None => found.extend_from_slice(&node.here),
        Some((level, rest)) => {
            if let Some(child) = node.children.get(*level) {
                walk(child, rest, true, found);
            }
            if wildcards && let Some(child) = &node.plus {
                walk(child, rest, true, found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::filter;
    use proptest::prelude::*;

    fn path(level: &'static str) -> impl Strategy<Value = String> {
        prop::collection::vec(level, 1..5).prop_map(|levels| levels.join("/"))
    }

    proptest! {
        #[test]
        fn finds_what_matches(filters in prop::collection::vec(path("[abc+#$]"), 1..30), topics in prop::collection::vec(path("[abc$]"), 1..20)) {
            let filters: Vec<_> = filters.into_iter().filter(|f| filter::check(f).is_ok()).collect();
            let mut trie = Trie::default();
            for (queue, filter) in filters.iter().enumerate() {
                trie.add(filter, queue as u64);
            }
            for topic in &topics {
                let expected: Vec<u64> = filters.iter().enumerate()
                    .filter(|(_, f)| filter::matches(f, topic)).map(|(q, _)| q as u64).collect();
                prop_assert_eq!(trie.find(topic), expected, "{}", topic);
            }
            for (queue, filter) in filters.iter().enumerate() {
                trie.remove(filter, queue as u64);
            }
            prop_assert!(trie.root.is_empty());
        }
    }
}
