//! [`Memory`]: answers that are good for a while, at most so many. What was not asked for longest goes first.

use std::time::Instant;

use aws_lc_rs::hmac;
use foldhash::{HashMap, HashMapExt};
use parking_lot::Mutex;

use super::digest::{Hash, sign_parts};

/// Answers by a keyed hash of what was asked: no password stays in memory.
pub(super) struct Memory<V> {
    answers: Mutex<Cache<Hash, V>>,
    key: hmac::Key,
}

impl<V: Clone> Memory<V> {
    /// Room for `max` answers.
    pub(super) fn new(max: usize) -> Result<Self, &'static str> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &super::secret()?);
        Ok(Memory { answers: Mutex::new(Cache::new(max)), key })
    }

    /// What a question is known by.
    pub(super) fn key(&self, question: &[&[u8]]) -> Hash {
        sign_parts(&self.key, question)
    }

    /// The answer, if it is still good.
    pub(super) fn get(&self, key: &Hash) -> Option<V> {
        self.answers.lock().get(key, Instant::now())
    }

    /// Notes an answer that is good until then.
    pub(super) fn put(&self, key: Hash, answer: V, until: Instant) {
        self.answers.lock().put(key, answer, until);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.answers.lock().len()
    }
}

/// Two halves: what was asked for since the newer half was begun, and what was before. A full newer half becomes the
/// older one, whose entries are then gone.
struct Cache<K, V> {
    newer: HashMap<K, (V, Instant)>,
    older: HashMap<K, (V, Instant)>,
    half_max: usize,
}

impl<K: std::hash::Hash + Eq + Clone, V: Clone> Cache<K, V> {
    /// A cache of at most `max` entries; with 0 it keeps nothing.
    fn new(max: usize) -> Self {
        Cache { newer: HashMap::new(), older: HashMap::new(), half_max: max.div_ceil(2) }
    }

    /// What is known for a key, if it is still good.
    fn get(&mut self, key: &K, now: Instant) -> Option<V> {
        if let Some((value, until)) = self.newer.get(key) {
            return (now < *until).then(|| value.clone());
        }
        let (key, (value, until)) = self.older.remove_entry(key)?;
        if now >= until {
            return None;
        }
        self.put(key, value.clone(), until);
        Some(value)
    }

    /// Notes a value that is good until then.
    fn put(&mut self, key: K, value: V, until: Instant) {
        if self.half_max == 0 {
            return;
        }
        self.older.remove(&key);
        self.newer.insert(key, (value, until));
        if self.newer.len() >= self.half_max {
            self.older = std::mem::take(&mut self.newer);
        }
    }

    /// How many entries it has.
    fn len(&self) -> usize {
        self.newer.len() + self.older.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_stays_small_and_keeps_what_is_asked_for() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut cache = Cache::new(10);
        cache.put("kept".to_owned(), 0, later);
        for n in 1..100 {
            cache.put(n.to_string(), n, later);
            assert_eq!(cache.get(&"kept".to_owned(), now), Some(0), "{n}");
            assert!(cache.len() <= 10, "{}", cache.len());
        }
        assert_eq!(cache.get(&"1".to_owned(), now), None);
        assert_eq!(cache.get(&"kept".to_owned(), later), None);
        let mut none = Cache::new(0);
        none.put(1, 1, later);
        assert_eq!(none.get(&1, now), None);
    }
}
