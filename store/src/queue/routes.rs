//! [`Routes`]: from a topic to its shard and its queues. Read by everyone who appends, changed by the log writer.

use super::trie::Trie;
use crate::streams::Streams;

/// Streams and filters.
#[derive(Debug)]
pub(crate) struct Routes {
    streams: Streams,
    trie: Trie,
    /// Counts changes of filters, from 1.
    generation: u64,
}

impl Routes {
    pub(crate) fn new(streams: Streams) -> Self {
        Routes { streams, trie: Trie::default(), generation: 1 }
    }

    pub(crate) fn add(&mut self, filter: &str, queue: u32) {
        self.trie.add(filter, queue);
        self.generation += 1;
    }

    pub(crate) fn remove(&mut self, filter: &str, queue: u32) {
        self.trie.remove(filter, queue);
        self.generation += 1;
    }

    /// Another number after each change: what was found before it may no longer be so.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// The queues that records of each topic enter: the topic's number and the queue's, each pair once, in order.
    pub(crate) fn queues(&self, topics: &[&str], found: &mut Vec<(u32, u32)>) {
        self.trie.find_all(topics, found);
    }

    /// Appends the queues that records of this topic enter, each once, in order of their number.
    pub(crate) fn queues_of(&self, topic: &str, queues: &mut Vec<u32>) {
        self.trie.find(topic, queues);
    }

    /// The shard that records of a topic are appended to.
    pub(crate) fn shard(&self, topic: &str) -> u16 {
        self.streams.shard(topic)
    }
}
