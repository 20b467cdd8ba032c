//! [`FilterTree`]: topic filters as a tree of their levels.

use foldhash::{HashMap, HashMapExt as _};

/// Topic filters, each with a number, as a tree of their levels.
#[derive(Debug)]
pub(super) struct FilterTree {
    /// The first is the root.
    nodes: Vec<Node>,
    numbers: HashMap<String, u32>,
}

#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, u32>,
    plus: Option<u32>,
    /// The filter that goes on with `#` here.
    hash: Option<u32>,
    /// The filter that ends here.
    end: Option<u32>,
}

/// Nodes reached so far, and those reached with the next level.
#[derive(Debug, Default)]
pub(super) struct Frontier {
    now: Vec<u32>,
    next: Vec<u32>,
}

impl Default for FilterTree {
    fn default() -> FilterTree {
        FilterTree { nodes: vec![Node::default()], numbers: HashMap::new() }
    }
}

impl FilterTree {
    /// Filters in the tree. Their numbers are below this.
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// The number of a filter, which has been checked to be one.
    pub(super) fn insert(&mut self, filter: &str) -> u32 {
        if let Some(number) = self.numbers.get(filter) {
            return *number;
        }
        let number = self.numbers.len() as u32;
        self.numbers.insert(filter.to_owned(), number);
        let mut at = 0_usize;
        for level in filter.split('/') {
            let fresh = self.nodes.len() as u32;
            let Some(node) = self.nodes.get_mut(at) else { return number };
            let next = match level {
                "#" => {
                    node.hash = Some(number);
                    return number;
                }
                "+" => *node.plus.get_or_insert(fresh),
                level => *node.children.entry(level.into()).or_insert(fresh),
            };
            if next == fresh {
                self.nodes.push(Node::default());
            }
            at = next as usize;
        }
        if let Some(node) = self.nodes.get_mut(at) {
            node.end = Some(number);
        }
        number
    }

    /// Appends the numbers of all filters that match the topic, each once.
    pub(super) fn walk(&self, topic: &str, frontier: &mut Frontier, out: &mut Vec<u32>) {
        let Frontier { now, next } = frontier;
        now.clear();
        now.push(0);
        // [MQTT-4.7.2-1]: a wildcard at the first level does not match topics that begin with `$`.
        let mut wildcards = !topic.starts_with('$');
        for level in topic.split('/') {
            next.clear();
            for node in now.iter().filter_map(|at| self.nodes.get(*at as usize)) {
                if wildcards {
                    out.extend(node.hash);
                    next.extend(node.plus);
                }
                if !node.children.is_empty() {
                    next.extend(node.children.get(level));
                }
            }
            wildcards = true;
            std::mem::swap(now, next);
            if now.is_empty() {
                return;
            }
        }
        for node in now.iter().filter_map(|at| self.nodes.get(*at as usize)) {
            out.extend(node.hash); // `a/#` matches `a`
            out.extend(node.end);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::topic::{check_filter, filter_matches};

    fn level() -> impl Strategy<Value = String> {
        prop::sample::select(vec!["", "a", "b", "$a", "+", "#"]).prop_map(str::to_owned)
    }

    proptest! {
        #[test]
        fn agrees_with_the_plain_way(
            filters in prop::collection::vec(prop::collection::vec(level(), 1..5), 1..12),
            topic in prop::collection::vec(prop::sample::select(vec!["", "a", "b", "$a"]), 1..5),
        ) {
            let topic = topic.join("/");
            let mut filters: Vec<String> = filters.iter().map(|levels| levels.join("/")).collect();
            filters.retain(|filter| check_filter(filter).is_ok());
            filters.sort();
            filters.dedup();
            let mut tree = FilterTree::default();
            for (number, filter) in filters.iter().enumerate() {
                prop_assert_eq!(tree.insert(filter) as usize, number);
                prop_assert_eq!(tree.insert(filter) as usize, number);
            }
            let mut hit = Vec::new();
            tree.walk(&topic, &mut Frontier::default(), &mut hit);
            hit.sort_unstable();
            let wanted: Vec<u32> =
                (0..filters.len()).filter(|at| filter_matches(&filters[*at], &topic)).map(|at| at as u32).collect();
            prop_assert_eq!(hit, wanted);
        }
    }
}
