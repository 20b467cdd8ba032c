//! [`Sum`]: all entries of a queue, in their order, in one number: a million queues are compared without keeping their entries.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use crate::Pointer;

/// How many entries, and a hash over all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sum {
    pub(super) count: u64,
    hash: u64,
}

impl Sum {
    pub(super) fn add(&mut self, pointer: Pointer) {
        self.count += 1;
        self.hash = FixedState::default().hash_one((self.hash, pointer.position.to_u64(), pointer.size));
    }
}
