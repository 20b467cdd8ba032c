//! [`Routes`]: the filter trie and a cache over it, owned by the log writer.

use std::sync::Arc;

use bytestring::ByteString;
use foldhash::HashMap;

use super::trie::Trie;

/// Topics whose queues are remembered. Past it the cache starts anew, so that it cannot grow with the number of topics.
const CACHED_TOPICS_MAX: usize = 100_000;

/// From a topic to its queues.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    trie: Trie,
    cache: HashMap<ByteString, Arc<[u64]>>,
}

impl Routes {
    pub(crate) fn add(&mut self, filter: &str, queue: u64) {
        self.trie.add(filter, queue);
        self.cache.clear();
    }

    pub(crate) fn remove(&mut self, filter: &str, queue: u64) {
        self.trie.remove(filter, queue);
        self.cache.clear();
    }

    /// The queues that records of this topic enter.
    pub(crate) fn queues(&mut self, topic: &ByteString) -> Arc<[u64]> {
        if let Some(queues) = self.cache.get(topic) {
            return queues.clone();
        }
        let queues: Arc<[u64]> = self.trie.find(topic).into();
        if self.cache.len() >= CACHED_TOPICS_MAX {
            self.cache.clear();
        }
        // The topic is a part of a larger buffer that the cache must not keep alive.
        self.cache.insert(ByteString::from(&**topic), queues.clone());
        queues
    }
}
