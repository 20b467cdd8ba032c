//! [`Subscription`] and the set of them.

use bytestring::ByteString;
use slab::Slab;
use tidemill_store::QueueId;

use super::super::codec::topic::Requested;
use super::super::codec::{SubscriptionId, SubscriptionOptions};
use super::Cursor;

/// Names a subscription of a session while it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionKey(pub usize);

/// How far the retained messages of a subscription were sent, which come in the order of their topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetainedPlace {
    /// What was stored from this sequence on comes from the queue.
    pub before: u64,
    /// Topic of the last one that was sent or passed over; empty before the first.
    pub after: ByteString,
}

/// What a client wants to hear, how, and how far it has.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// As the client wrote it, `$share/…` included: this is what names it.
    pub requested: ByteString,
    /// How to deliver.
    pub options: SubscriptionOptions,
    /// A number to send along.
    pub id: Option<SubscriptionId>,
    /// The queue of its filter.
    pub queue: QueueId,
    /// Its place there. Not used by a shared subscription, whose place is the group's.
    pub cursor: Cursor,
    /// Retained messages that are still to be sent.
    pub retained: Option<Box<RetainedPlace>>,
    /// Bytes of [`Subscription::requested`] before the filter; 0 if it is not shared.
    filter_at: usize,
}

impl Subscription {
    /// A subscription to what a client wrote; `None` if that is no filter.
    #[must_use]
    pub fn new(
        requested: ByteString,
        options: SubscriptionOptions,
        id: Option<SubscriptionId>,
        queue: QueueId,
        cursor: Cursor,
    ) -> Option<Self> {
        let filter_at = requested.len() - Requested::parse(&requested)?.filter.len();
        Some(Subscription { requested, options, id, queue, cursor, retained: None, filter_at })
    }

    /// The topic filter.
    #[must_use]
    pub fn filter(&self) -> &str {
        self.requested.get(self.filter_at..).unwrap_or_default()
    }

    /// The group of a shared subscription.
    #[must_use]
    pub fn group(&self) -> Option<&str> {
        Requested::parse(&self.requested)?.group
    }

    /// Whether its messages are shared out among a group.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.filter_at > 0
    }
}

/// The subscriptions of a session: few, so they are looked for one by one.
#[derive(Clone, Debug, Default)]
pub struct Subscriptions {
    all: Slab<Subscription>,
}

impl Subscriptions {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The one a client wrote so.
    #[must_use]
    pub fn find(&self, requested: &str) -> Option<SubscriptionKey> {
        self.iter().find(|(_, subscription)| subscription.requested == requested).map(|(key, _)| key)
    }

    /// Adds one, which is not there yet.
    pub fn insert(&mut self, subscription: Subscription) -> SubscriptionKey {
        if self.all.capacity() == 0 {
            // Most devices have one, and a vector begins with room for four.
            self.all.reserve_exact(1);
        }
        SubscriptionKey(self.all.insert(subscription))
    }

    /// Takes one away.
    pub fn remove(&mut self, key: SubscriptionKey) -> Option<Subscription> {
        self.all.try_remove(key.0)
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, key: SubscriptionKey) -> Option<&Subscription> {
        self.all.get(key.0)
    }

    /// One of them.
    pub fn get_mut(&mut self, key: SubscriptionKey) -> Option<&mut Subscription> {
        self.all.get_mut(key.0)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (SubscriptionKey, &Subscription)> {
        self.all.iter().map(|(key, subscription)| (SubscriptionKey(key), subscription))
    }

    /// All of them, without their names.
    pub fn values(&self) -> impl Iterator<Item = &Subscription> {
        self.iter().map(|(_, subscription)| subscription)
    }

    /// All of them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (SubscriptionKey, &mut Subscription)> {
        self.all.iter_mut().map(|(key, subscription)| (SubscriptionKey(key), subscription))
    }
}

#[cfg(test)]
mod tests {
    use tidemill_store::CursorPlace;

    use super::*;

    #[test]
    fn a_subscription_is_named_by_what_was_written() {
        let make = |requested: &str| {
            let cursor = Cursor::at(CursorPlace { offset: 0, sequence: 0 });
            Subscription::new(requested.into(), SubscriptionOptions::default(), None, QueueId(1), cursor)
        };
        let mut all = Subscriptions::default();
        let plain = all.insert(make("a/+").unwrap());
        let shared = all.insert(make("$share/g/a/+").unwrap());
        assert_eq!((all.find("a/+"), all.find("$share/g/a/+")), (Some(plain), Some(shared)));
        assert_eq!(all.get(shared).map(|s| (s.filter(), s.group())), Some(("a/+", Some("g"))));
        assert_eq!(all.get(plain).map(|s| (s.filter(), s.group())), Some(("a/+", None)));
        assert!(all.remove(plain).is_some() && all.remove(plain).is_none());
        assert!(make("a#").is_none());
    }
}
