//! [`Overlaps`]: which subscriptions of a session may match the same message, and which of those have something.
//!
//! A message that several of them match is sent once ([MQTT-3.3.4-2], 3.3.4), so their queues are read together, in the order of
//! the log. Whoever overlaps nothing is not known here.

use std::collections::BTreeSet;

use foldhash::HashMap;
use slab::Slab;
use smallvec::SmallVec;
use tidemill_store::filter;

use super::{SubscriptionKey, Subscriptions};

/// Most comparisons of two filters when a session is taken up or a subscription goes. With more, all count as overlapping: it
/// costs time to read queues together that have nothing in common, and is not wrong.
const COMPARISONS_MAX: usize = 1 << 17;
/// Queues of a group read at a time.
const PICKED: usize = 16;

/// Groups of subscriptions, none of them shared. Two whose filters overlap are in the same group. Nothing is kept for a session
/// without any.
#[derive(Debug, Default)]
pub struct Overlaps(Option<Box<Known>>);

#[derive(Debug, Default)]
struct Known {
    groups: Slab<Group>,
    members: HashMap<SubscriptionKey, Member>,
}

#[derive(Debug, Default)]
struct Group {
    members: Vec<SubscriptionKey>,
    /// Those that may have something, by what they have first at the earliest.
    ready: BTreeSet<(u64, SubscriptionKey)>,
}

#[derive(Debug)]
struct Member {
    group: usize,
    /// Whether its queue may have something, and then the lowest sequence it can be of.
    head: Option<u64>,
}

/// Members of a group whose turn it is.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Picked {
    /// Them.
    pub members: SmallVec<[SubscriptionKey; PICKED]>,
    /// No other member has anything of a lower sequence.
    pub limit: u64,
}

impl Overlaps {
    /// Of a session that is taken up. Everything may have something.
    #[must_use]
    pub fn of(subscriptions: &Subscriptions) -> Overlaps {
        let mut overlaps = Overlaps::default();
        if subscriptions.len() > 1 {
            let plain = subscriptions.iter().filter(|(_, subscription)| !subscription.is_shared());
            overlaps.arrange(&plain.map(|(key, _)| key).collect::<Vec<_>>(), subscriptions);
        }
        overlaps
    }

    fn group(&self, key: SubscriptionKey) -> Option<&Group> {
        let known = self.0.as_ref()?;
        known.groups.get(known.members.get(&key)?.group)
    }

    /// Puts a new subscription with those that it overlaps, if there are any. All of that group may have something then.
    pub fn add(&mut self, key: SubscriptionKey, subscriptions: &Subscriptions) {
        let Some(new) = subscriptions.get(key).filter(|new| !new.is_shared()) else { return };
        for (other, subscription) in subscriptions.iter() {
            if other != key
                && !subscription.is_shared()
                && filter::overlap(new.filter(), subscription.filter())
            {
                self.0.get_or_insert_default().join(key, other);
            }
        }
        self.wake_all(key);
    }

    /// Takes subscriptions away. Those that were in their groups, and perhaps overlap nothing any more, are returned; they may
    /// all have something.
    pub fn remove(
        &mut self,
        gone: &[SubscriptionKey],
        subscriptions: &Subscriptions,
    ) -> Vec<SubscriptionKey> {
        let Some(known) = &mut self.0 else { return Vec::new() };
        let mut rest = Vec::new();
        for key in gone {
            if let Some(member) = known.members.remove(key) {
                rest.extend(known.groups.try_remove(member.group).unwrap_or_default().members);
            }
        }
        rest.retain(|member| !gone.contains(member));
        for member in &rest {
            known.members.remove(member);
        }
        if known.members.is_empty() {
            self.0 = None;
        }
        self.arrange(&rest, subscriptions);
        rest
    }

    /// Makes groups of subscriptions that are in none. Everything may have something.
    fn arrange(&mut self, keys: &[SubscriptionKey], subscriptions: &Subscriptions) {
        let filter_of = |key: &SubscriptionKey| subscriptions.get(*key).map_or("", |found| found.filter());
        let (wild, exact): (Vec<SubscriptionKey>, Vec<SubscriptionKey>) =
            keys.iter().partition(|key| filter_of(key).contains(['+', '#']));
        let compare = wild.len() * keys.len() <= COMPARISONS_MAX;
        // Two filters without a wildcard are the same or have nothing in common.
        for (index, one) in wild.iter().enumerate() {
            for other in wild.iter().skip(index + 1).chain(&exact) {
                if !compare || filter::overlap(filter_of(one), filter_of(other)) {
                    self.0.get_or_insert_default().join(*one, *other);
                }
            }
            if !compare {
                break;
            }
        }
        keys.iter().for_each(|key| self.wake(*key));
    }

    /// All that are in one group with a subscription, itself included; none if it is in no group.
    #[must_use]
    pub fn beside(&self, key: SubscriptionKey) -> &[SubscriptionKey] {
        self.group(key).map_or(&[], |group| &group.members)
    }

    /// The member that stands for the group of a subscription; `None` if it is in no group.
    #[must_use]
    pub fn lead(&self, key: SubscriptionKey) -> Option<SubscriptionKey> {
        self.beside(key).first().copied()
    }

    /// A queue may have something.
    pub fn wake(&mut self, key: SubscriptionKey) {
        let known = self.0.as_ref().and_then(|known| known.members.get(&key));
        if known.is_some_and(|member| member.head.is_none()) {
            self.set_head(key, Some(0));
        }
    }

    fn wake_all(&mut self, key: SubscriptionKey) {
        for member in self.beside(key).to_vec() {
            self.wake(member);
        }
    }

    /// Says what a queue has first at the earliest; `None` if it has nothing until it is woken.
    pub fn set_head(&mut self, key: SubscriptionKey, head: Option<u64>) {
        let Some(known) = &mut self.0 else { return };
        let Some(member) = known.members.get_mut(&key) else { return };
        let Some(group) = known.groups.get_mut(member.group) else { return };
        if let Some(old) = std::mem::replace(&mut member.head, head) {
            group.ready.remove(&(old, key));
        }
        group.ready.extend(head.map(|head| (head, key)));
    }

    /// Whether any of the group may have something.
    #[must_use]
    pub fn is_ready(&self, key: SubscriptionKey) -> bool {
        self.group(key).is_some_and(|group| !group.ready.is_empty())
    }

    /// The members of the group that may have the earliest messages, whose queues are to be read next.
    #[must_use]
    pub fn pick(&self, key: SubscriptionKey) -> Picked {
        let mut picked = Picked { limit: u64::MAX, ..Picked::default() };
        let mut last = 0;
        for (head, key) in self.group(key).into_iter().flat_map(|group| &group.ready) {
            // Those with the same head go together: a message that many match would otherwise never be below the limit.
            if picked.members.len() >= PICKED && *head > last {
                picked.limit = *head;
                break;
            }
            picked.members.push(*key);
            last = *head;
        }
        picked
    }
}

impl Known {
    /// Puts two into one group.
    fn join(&mut self, one: SubscriptionKey, other: SubscriptionKey) {
        let (mut into, mut from) = (self.group_of(one), self.group_of(other));
        if into == from {
            return;
        }
        let members = |group: usize| self.groups.get(group).map_or(0, |group| group.members.len());
        if members(into) < members(from) {
            std::mem::swap(&mut into, &mut from);
        }
        let moved = self.groups.try_remove(from).unwrap_or_default();
        for key in &moved.members {
            if let Some(member) = self.members.get_mut(key) {
                member.group = into;
            }
        }
        if let Some(into) = self.groups.get_mut(into) {
            into.members.extend(moved.members);
            into.ready.extend(moved.ready);
        }
    }

    /// The group of a subscription, made if it has none.
    fn group_of(&mut self, key: SubscriptionKey) -> usize {
        let groups = &mut self.groups;
        let new = || {
            let group = groups.insert(Group { members: vec![key], ready: BTreeSet::new() });
            Member { group, head: None }
        };
        self.members.entry(key).or_insert_with(new).group
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidemill_store::{CursorPlace, QueueId};

    use super::*;
    use crate::mqtt::codec::SubscriptionOptions;
    use crate::mqtt::session::{Cursor, Subscription};

    fn subscription(requested: &str) -> Subscription {
        let cursor = Cursor::at(CursorPlace { offset: 0, sequence: 0 });
        Subscription::new(requested.into(), SubscriptionOptions::default(), None, QueueId(1), cursor).unwrap()
    }

    fn is_empty(overlaps: &Overlaps) -> bool {
        overlaps.0.as_ref().is_none_or(|known| known.members.is_empty())
    }

    /// Who is with whom, as sorted lists.
    fn groups(overlaps: &Overlaps) -> Vec<Vec<usize>> {
        let known = overlaps.0.as_ref();
        let mut groups: Vec<Vec<usize>> = known
            .into_iter()
            .flat_map(|known| &known.groups)
            .map(|(_, group)| {
                let mut members: Vec<usize> = group.members.iter().map(|key| key.0).collect();
                members.sort_unstable();
                members
            })
            .collect();
        groups.sort();
        groups
    }

    #[test]
    fn who_overlaps_nothing_is_in_no_group() {
        let mut all = Subscriptions::default();
        let mut overlaps = Overlaps::default();
        for filter in ["a/+", "b", "$share/g/a/+", "+/c", "d/#"] {
            let key = all.insert(subscription(filter));
            overlaps.add(key, &all);
        }
        assert_eq!(groups(&overlaps), [[0, 3, 4]], "`d/c` joins the last");
        assert_eq!(groups(&Overlaps::of(&all)), groups(&overlaps));
        let joining = SubscriptionKey(3);
        assert_eq!(overlaps.lead(SubscriptionKey(4)), overlaps.lead(joining));
        all.remove(joining);
        let mut rest = overlaps.remove(&[joining], &all);
        rest.sort();
        assert_eq!((rest, is_empty(&overlaps)), (vec![SubscriptionKey(0), SubscriptionKey(4)], true));
        assert_eq!((overlaps.lead(SubscriptionKey(1)), overlaps.beside(SubscriptionKey(1))), (None, &[][..]));
    }

    #[test]
    fn with_too_many_to_compare_all_are_together() {
        let mut all = Subscriptions::default();
        for number in 0..400 {
            all.insert(subscription(&format!("{number}/+")));
        }
        assert_eq!(groups(&Overlaps::of(&all)).len(), 1);
        let few = Subscriptions::default();
        assert!(is_empty(&Overlaps::of(&few)));
    }

    #[test]
    fn the_earliest_are_picked_and_those_beside_them() {
        let mut all = Subscriptions::default();
        for number in 0..40 {
            all.insert(subscription(&format!("{}a", "+/".repeat(number))));
        }
        let keys: Vec<SubscriptionKey> = (0..40).map(|_| all.insert(subscription("#"))).collect();
        let mut overlaps = Overlaps::of(&all);
        let first = *keys.first().unwrap();
        let everything = overlaps.beside(first).to_vec();
        assert_eq!((everything.len(), overlaps.pick(first).members.len()), (80, 80), "nothing is known");
        for (key, head) in everything.iter().zip(1..) {
            overlaps.set_head(*key, Some(head));
        }
        let picked = overlaps.pick(first);
        assert_eq!((picked.members.len(), picked.limit), (PICKED, PICKED as u64 + 1));
        everything.iter().skip(10).for_each(|key| overlaps.set_head(*key, Some(11)));
        assert_eq!((overlaps.pick(first).members.len(), overlaps.pick(first).limit), (80, u64::MAX));
        everything.iter().for_each(|key| overlaps.set_head(*key, None));
        assert!(!overlaps.is_ready(first) && overlaps.pick(first).members.is_empty());
        overlaps.wake(first);
        assert_eq!(overlaps.pick(first).members[..], [first]);
    }

    proptest! {
        /// However it came to be, it is the same as if it were looked at as a whole.
        #[test]
        fn changes_one_by_one_come_to_the_same(
            steps in proptest::collection::vec((any::<bool>(), "[ab+]/[ab+]|[ab+]/#|[ab+]", 0..12_usize), 1..30),
        ) {
            let (mut all, mut overlaps) = (Subscriptions::default(), Overlaps::default());
            for (add, filter, which) in steps {
                if add && all.find(&filter).is_none() {
                    let key = all.insert(subscription(&filter));
                    overlaps.add(key, &all);
                } else if all.remove(SubscriptionKey(which)).is_some() {
                    overlaps.remove(&[SubscriptionKey(which)], &all);
                }
                let keys: Vec<(SubscriptionKey, String)> =
                    all.iter().map(|(key, of)| (key, of.filter().to_owned())).collect();
                for (one, filter) in &keys {
                    for (other, beside) in &keys {
                        if one != other && filter::overlap(filter, beside) {
                            prop_assert!(overlaps.beside(*one).contains(other));
                        }
                    }
                    let beside = overlaps.beside(*one);
                    prop_assert!(beside.is_empty() || beside.len() > 1 && beside.contains(one));
                    prop_assert!(beside.is_empty() || overlaps.is_ready(*one));
                }
                for group in groups(&overlaps) {
                    prop_assert!(group.iter().all(|key| all.get(SubscriptionKey(*key)).is_some()));
                }
            }
        }
    }
}
