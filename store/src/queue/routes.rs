//! [`Routes`]: the filter trie and a cache over it, owned by the log writer.

use std::sync::Arc;

use bytestring::ByteString;
use foldhash::HashMap;

use super::trie::Trie;

/// Bytes of topics and their queues that are remembered. Past it the cache starts anew, so that it grows neither with the
/// number of topics nor with their length.
const CACHE_BYTES_MAX: usize = 16 << 20;
/// Bytes that a remembered topic takes beside its text and its queues, about.
const TOPIC_EXTRA_BYTES: usize = 80;

/// From a topic to its queues.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    trie: Trie,
    cache: HashMap<ByteString, Arc<[u64]>>,
    cache_bytes: usize,
}

impl Routes {
    pub(crate) fn add(&mut self, filter: &str, queue: u64) {
        self.trie.add(filter, queue);
        self.forget();
    }

    pub(crate) fn remove(&mut self, filter: &str, queue: u64) {
        self.trie.remove(filter, queue);
        self.forget();
    }

    fn forget(&mut self) {
        self.cache.clear();
        self.cache_bytes = 0;
    }

    /// The queues that records of this topic enter.
    pub(crate) fn queues(&mut self, topic: &ByteString) -> Arc<[u64]> {
        if let Some(queues) = self.cache.get(topic) {
            return queues.clone();
        }
        let queues: Arc<[u64]> = self.trie.find(topic).into();
        let bytes = topic.len() + size_of_val(&*queues) + TOPIC_EXTRA_BYTES;
        if self.cache_bytes + bytes > CACHE_BYTES_MAX {
            self.forget();
        }
        self.cache_bytes += bytes;
        // The topic is a part of a larger buffer that the cache must not keep alive.
        self.cache.insert(ByteString::from(&**topic), queues.clone());
        queues
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_bounded_and_forgets_changes() {
        let mut routes = Routes::default();
        let long = "x".repeat(60_000);
        for n in 0..1000 {
            routes.queues(&format!("{long}/{n}").into());
            assert!(routes.cache_bytes <= CACHE_BYTES_MAX);
        }
        let topic = ByteString::from_static("a/b");
        assert!(routes.queues(&topic).is_empty());
        routes.add("a/+", 7);
        assert_eq!(*routes.queues(&topic), [7]);
        routes.remove("a/+", 7);
        assert!(routes.queues(&topic).is_empty());
    }
}
