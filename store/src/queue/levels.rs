//! [`Levels`]: the names of topic levels as numbers.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Memory is compacted once a quarter of it, but at least this many bytes, belongs to names that are gone.
const DEAD_BYTES_MIN: usize = 4096;
/// End of the list of free numbers, and never the number of a name.
pub(super) const NO_LEVEL: u32 = u32::MAX;

/// Each name once, with a number for as long as something refers to it. Numbers are used again.
#[derive(Debug)]
pub(super) struct Levels {
    names: Vec<Name>,
    /// All names one after the other, those that are gone too until it is compacted.
    text: Vec<u8>,
    dead_bytes: usize,
    /// First of the free numbers; the others follow as `start_low` of each.
    free: u32,
    numbers: HashTable<u32>,
    hasher: RandomState,
}

/// Where a name is in `text`, in 12 bytes: a million names are usual.
#[derive(Debug, Clone, Copy)]
struct Name {
    start_low: u32,
    start_high: u16,
    length: u16,
    /// 0 if the number is free.
    references: u32,
}

impl Name {
    fn text(self, text: &[u8]) -> &[u8] {
        let start = usize::from(self.start_high) << 32 | self.start_low as usize;
        text.get(start..start + usize::from(self.length)).unwrap_or_default()
    }

    fn move_to(&mut self, start: usize) {
        self.start_low = start as u32;
        self.start_high = (start >> 32) as u16;
    }
}

impl Default for Levels {
    fn default() -> Self {
        Levels {
            names: Vec::new(),
            text: Vec::new(),
            dead_bytes: 0,
            free: NO_LEVEL,
            numbers: HashTable::new(),
            hasher: RandomState::default(),
        }
    }
}

impl Levels {
    /// The number of a name that is referred to.
    pub(super) fn find(&self, name: &str) -> Option<u32> {
        self.find_hashed(name.as_bytes(), hash(&self.hasher, name.as_bytes()))
    }

    fn find_hashed(&self, name: &[u8], hash: u64) -> Option<u32> {
        let is_it = |number: &u32| self.name(*number).is_some_and(|n| n.text(&self.text) == name);
        self.numbers.find(hash, is_it).copied()
    }

    fn name(&self, number: u32) -> Option<Name> {
        self.names.get(number as usize).copied()
    }

    /// The number of a name, with one more reference to it. A name has at most 65,535 bytes, as a filter has.
    pub(super) fn take(&mut self, name: &str) -> u32 {
        let name = name.as_bytes();
        let hash_of_name = hash(&self.hasher, name);
        if let Some(number) = self.find_hashed(name, hash_of_name) {
            if let Some(known) = self.names.get_mut(number as usize) {
                known.references += 1;
            }
            return number;
        }
        assert!(name.len() <= usize::from(u16::MAX), "a level is longer than a filter may be");
        let mut new = Name { start_low: 0, start_high: 0, length: name.len() as u16, references: 1 };
        new.move_to(self.text.len());
        make_room(&mut self.text, name.len());
        self.text.extend_from_slice(name);
        let number = self.free;
        let number = if let Some(free) = self.names.get_mut(number as usize) {
            self.free = free.start_low;
            *free = new;
            number
        } else {
            let number = self.names.len() as u32;
            assert!(number < NO_LEVEL, "more than four billion names");
            make_room(&mut self.names, 1);
            self.names.push(new);
            number
        };
        let Levels { names, text, numbers, hasher, .. } = self;
        let rehash =
            |number: &u32| names.get(*number as usize).map_or(0, |name| hash(hasher, name.text(text)));
        numbers.insert_unique(hash_of_name, number, rehash);
        number
    }

    /// Gives a reference back. With the last one the name is gone.
    pub(super) fn release(&mut self, number: u32) {
        let Some(name) = self.names.get_mut(number as usize).filter(|name| name.references > 0) else {
            return;
        };
        name.references -= 1;
        if name.references > 0 {
            return;
        }
        let hash = hash(&self.hasher, name.text(&self.text));
        self.dead_bytes += usize::from(name.length);
        name.start_low = self.free;
        self.free = number;
        if let Ok(entry) = self.numbers.find_entry(hash, |known| *known == number) {
            entry.remove();
        }
        if self.dead_bytes >= (self.text.len() / 4).max(DEAD_BYTES_MIN) {
            self.compact();
        }
    }

    fn compact(&mut self) {
        let live_bytes = self.text.len().saturating_sub(self.dead_bytes);
        let mut text = Vec::with_capacity(live_bytes + live_bytes / 8);
        for name in self.names.iter_mut().filter(|name| name.references > 0) {
            let start = text.len();
            text.extend_from_slice(name.text(&self.text));
            name.move_to(start);
        }
        self.text = text;
        self.dead_bytes = 0;
    }

    /// Memory it holds.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.names.capacity() * size_of::<Name>() + self.text.capacity() + self.numbers.allocation_size()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }
}

fn hash(state: &RandomState, name: &[u8]) -> u64 {
    let mut hasher = state.build_hasher();
    hasher.write(name);
    hasher.finish()
}

/// Room for `more`, growing by an eighth: doubling would hold up to half of the memory of a million filters in vain.
pub(super) fn make_room<T>(vec: &mut Vec<T>, more: usize) {
    if vec.capacity() - vec.len() < more {
        vec.reserve_exact(more.max(vec.len() / 8).max(64));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn names_have_a_number_while_referred_to(
            changes in prop::collection::vec((0..40u32, any::<bool>()), 0..400),
        ) {
            let mut levels = Levels::default();
            let mut model: HashMap<u32, (u32, u32)> = HashMap::new();
            // Long enough that it is compacted; name 0 is the empty one, which is legal.
            let name = |n: u32| format!("{n}-").repeat(n as usize * 8);
            for (n, take) in changes {
                if take {
                    let number = levels.take(&name(n));
                    let known = model.entry(n).or_insert((number, 0));
                    prop_assert_eq!(known.0, number);
                    known.1 += 1;
                } else if let Some((number, references)) = model.remove(&n) {
                    levels.release(number);
                    if references > 1 {
                        model.insert(n, (number, references - 1));
                    }
                }
                prop_assert_eq!(levels.len(), model.len());
                for n in 0..40 {
                    prop_assert_eq!(levels.find(&name(n)), model.get(&n).map(|(number, _)| *number));
                }
            }
        }
    }

    #[test]
    fn names_that_come_and_go_take_no_more_memory() {
        let mut levels = Levels::default();
        let kept: Vec<_> = (0..1000).map(|n| levels.take(&format!("kept-{n}"))).collect();
        let bytes = levels.bytes();
        for n in 0..100_000 {
            let number = levels.take(&format!("passing-{n}"));
            levels.release(number);
        }
        // The table of numbers may double once: it is more than half full, and some places of those that went are taken.
        let most = bytes + levels.numbers.allocation_size() / 2 + 2 * DEAD_BYTES_MIN;
        assert!(levels.bytes() < most, "{} of {bytes}", levels.bytes());
        for (n, number) in kept.into_iter().enumerate() {
            assert_eq!(levels.find(&format!("kept-{n}")), Some(number));
            levels.release(number);
        }
        assert_eq!(levels.len(), 0);
    }
}
