//! [`Routes`]: the filter trie and a cache over it, owned by the log writer.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use super::trie::Trie;
use crate::streams::Streams;

/// Topics that are remembered at a time, each in the one place that its hash gives it. However many topics there are, one
/// that is not remembered costs a look into the trie and a copy, and drives out one other.
const PLACES: usize = 4096;
/// Longest topic that is remembered.
const TOPIC_BYTES_MAX: usize = 256;
/// Most queues that are remembered of a topic.
const QUEUES_MAX: usize = 64;
/// The most that the cache ever holds.
const CACHE_BYTES_MAX: usize =
    PLACES * (size_of::<Place>() + TOPIC_BYTES_MAX + QUEUES_MAX * size_of::<u32>());
const _: () = assert!(PLACES.is_power_of_two() && QUEUES_MAX.is_power_of_two());
const _: () = assert!(CACHE_BYTES_MAX <= 4 << 20);

/// From a topic to its shard and its queues.
#[derive(Debug)]
pub(crate) struct Routes {
    streams: Streams,
    trie: Trie,
    cache: Box<[Place]>,
    /// Counts changes of filters. What was remembered before the last one does not count.
    generation: u64,
    hasher: RandomState,
}

/// A remembered topic. Its buffers are used again for the next one.
#[derive(Debug, Clone, Default)]
struct Place {
    /// 0 if it was never used.
    generation: u64,
    topic: String,
    queues: SmallVec<[u32; 4]>,
    shard: u16,
}

impl Routes {
    pub(crate) fn new(streams: Streams) -> Self {
        Routes {
            streams,
            trie: Trie::default(),
            cache: vec![Place::default(); PLACES].into_boxed_slice(),
            generation: 1,
            hasher: RandomState::default(),
        }
    }

    pub(crate) fn add(&mut self, filter: &str, queue: u32) {
        self.trie.add(filter, queue);
        self.generation += 1;
    }

    pub(crate) fn remove(&mut self, filter: &str, queue: u32) {
        self.trie.remove(filter, queue);
        self.generation += 1;
    }

    /// Appends the queues that records of this topic enter, each once, in order of their number. The shard that they are
    /// appended to.
    pub(crate) fn route(&mut self, topic: &str, queues: &mut Vec<u32>) -> u16 {
        let place = (self.hasher.hash_one(topic) % PLACES as u64) as usize;
        let place = self.cache.get_mut(place).filter(|_| topic.len() <= TOPIC_BYTES_MAX);
        if let Some(known) = &place
            && known.generation == self.generation
            && known.topic == topic
        {
            queues.extend_from_slice(&known.queues);
            return known.shard;
        }
        let start = queues.len();
        let shard = self.streams.shard(topic);
        self.trie.find(topic, queues);
        if let (Some(place), Some(found)) = (place, queues.get(start..))
            && found.len() <= QUEUES_MAX
        {
            place.remember(self.generation, topic, shard, found);
        }
        shard
    }

    /// Memory it holds, at most [`CACHE_BYTES_MAX`] beside the trie's.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        let cache: usize = self.cache.iter().map(Place::bytes).sum();
        debug_assert!(cache <= CACHE_BYTES_MAX);
        self.trie.bytes() + cache
    }
}

impl Place {
    fn remember(&mut self, generation: u64, topic: &str, shard: u16, queues: &[u32]) {
        self.generation = generation;
        self.shard = shard;
        self.topic.clear();
        // Growing by doubling could pass the longest topic.
        self.topic.reserve_exact(topic.len());
        self.topic.push_str(topic);
        self.queues.clear();
        self.queues.extend_from_slice(queues);
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        let queues = if self.queues.spilled() { self.queues.capacity() * size_of::<u32>() } else { 0 };
        size_of::<Place>() + self.topic.capacity() + queues
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(routes: &mut Routes, topic: &str) -> Vec<u32> {
        let mut queues = vec![3];
        assert_eq!(routes.route(topic, &mut queues), 0);
        assert_eq!(queues.first(), Some(&3));
        queues.split_off(1)
    }

    fn cache_bytes(routes: &Routes) -> usize {
        routes.bytes() - routes.trie.bytes()
    }

    fn remembered(routes: &Routes, topic: &str) -> bool {
        routes.cache.iter().any(|place| place.generation == routes.generation && place.topic == topic)
    }

    #[test]
    fn the_cache_forgets_changes() {
        let mut routes = Routes::new(Streams::only_one());
        for _ in 0..2 {
            assert_eq!(route(&mut routes, "a/b"), []);
            assert_eq!(route(&mut routes, ""), []);
            assert!(remembered(&routes, "a/b"));
            routes.add("a/+", 7);
            routes.add("a/b", 2);
            assert!(!remembered(&routes, "a/b"));
            for _ in 0..2 {
                assert_eq!(route(&mut routes, "a/b"), [2, 7]);
                assert!(remembered(&routes, "a/b"));
            }
            routes.remove("a/+", 7);
            assert_eq!(route(&mut routes, "a/b"), [2]);
            routes.remove("a/b", 2);
        }
    }

    #[test]
    fn the_cache_is_bounded() {
        let mut routes = Routes::new(Streams::only_one());
        // 64 queues for one half of the topics, 65 for the other.
        for queue in 0..64 {
            routes.add("+/#", queue);
        }
        routes.add("more/#", 64);
        for n in 0..40_000 {
            let name = if n % 2 == 0 { "some" } else { "more" };
            let topic = format!("{name}/{}{n}", "x".repeat(n % 300));
            let queues = route(&mut routes, &topic);
            assert_eq!(queues.len(), 64 + n % 2);
            assert_eq!(remembered(&routes, &topic), n % 2 == 0 && topic.len() <= TOPIC_BYTES_MAX);
            // The same, be it remembered or not.
            assert_eq!(route(&mut routes, &topic), queues);
        }
        let bytes = cache_bytes(&routes);
        assert!(bytes <= CACHE_BYTES_MAX && bytes > CACHE_BYTES_MAX / 2, "{bytes}");
    }
}
