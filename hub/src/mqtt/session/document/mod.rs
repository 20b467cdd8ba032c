//! A session as it is written down: the document that the store keeps under the client identifier.
//!
//! # Layout
//! - this file: what is written of a session, and how it becomes one again
//! - `layout`: the document's bytes

mod layout;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytestring::ByteString;
use foldhash::{HashMap, HashMapExt, HashSet};
use smallvec::SmallVec;
use tidemill_store::{CursorPlace, Pointer, QueueId};

use super::super::codec::topic::Requested;
use super::super::codec::{PacketId, Qos, SubscriptionId, SubscriptionOptions};
use super::{
    Cursor, InFlight, Kept, RetainedPlace, Session, Source, Sources, Step, Subscription, SubscriptionKey,
    Will, first_due_ms,
};

/// Why a session's document cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// A version of the layout that this program does not know.
    #[error("the session document has layout version {0}, and this program reads versions 1 to 3")]
    Version(u8),
    /// The bytes end too early or are not what they should be.
    #[error("the session document is damaged: {0}")]
    Damaged(&'static str),
}

/// A session as it is written down: all but where its cursors stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) expiry_s: u32,
    pub(crate) offline_since_ms: Option<i64>,
    owner: Option<Arc<str>>,
    pub(crate) will: Option<Box<Will>>,
    pub(crate) subscriptions: Vec<StoredSubscription>,
    unreleased: Vec<PacketId>,
    accounts_to: u64,
    in_flight: Vec<StoredInFlight>,
    /// [`Kept::Will`]: it has no cursors, and does not count as a persistent session.
    pub(crate) is_for_will: bool,
    /// What the store lists the document under that this was read from.
    pub(crate) listed_ms: Option<i64>,
}

/// A subscription as it is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredSubscription {
    pub(crate) requested: ByteString,
    pub(crate) options: SubscriptionOptions,
    pub(crate) id: Option<SubscriptionId>,
    pub(crate) queue: QueueId,
    pub(crate) next: u64,
    retained: Option<RetainedPlace>,
}

impl StoredSubscription {
    /// Whether its messages are shared out among a group.
    pub(crate) fn is_shared(&self) -> bool {
        Requested::parse(&self.requested).is_some_and(|requested| requested.group.is_some())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct StoredInFlight {
    id: PacketId,
    step: Step,
    retain: bool,
    pointer: Pointer,
    /// Index of each subscription it came from, and the offset in its queue.
    from: SmallVec<[(u32, u64); 1]>,
}

impl Stored {
    /// What is to be written of a session.
    pub(crate) fn of(session: &Session) -> Stored {
        let numbered = session.subscriptions.iter().zip(0..);
        let indexes: HashMap<SubscriptionKey, u32> = numbered.map(|((key, _), index)| (key, index)).collect();
        let stored_in_flight = |(id, sent): (PacketId, InFlight)| StoredInFlight {
            id,
            step: sent.step,
            retain: sent.retain,
            pointer: sent.pointer,
            from: sent
                .sources
                .iter()
                .filter_map(|from| Some((*indexes.get(&from.subscription)?, from.offset)))
                .collect(),
        };
        let stored_subscription = |(_, subscription): (SubscriptionKey, &Subscription)| StoredSubscription {
            requested: subscription.requested.clone(),
            options: subscription.options,
            id: subscription.id,
            queue: subscription.queue,
            next: subscription.cursor.next(),
            // With QoS 0 they are not promised.
            retained: subscription
                .retained
                .as_deref()
                .filter(|_| subscription.options.qos > Qos::AtMostOnce)
                .cloned(),
        };
        Stored {
            expiry_s: session.expiry_s,
            offline_since_ms: session.offline_since_ms,
            owner: session.owner.clone(),
            will: session.will.clone(),
            subscriptions: session.subscriptions.iter().map(stored_subscription).collect(),
            unreleased: session.inbound.unreleased().collect(),
            accounts_to: session.inbound.accounts_to(),
            in_flight: session.window.in_order().into_iter().map(stored_in_flight).collect(),
            is_for_will: session.kept != Kept::Whole && !session.is_persistent(),
            listed_ms: None,
        }
    }

    /// When something is first to be looked at while nobody has the session: a will with its delay, or the session's end.
    pub(crate) fn due_ms(&self) -> Option<i64> {
        first_due_ms(self.offline_since_ms, self.expiry_s, self.will.as_deref())
    }

    /// Adds the QoS 2 messages that the log has and the session does not account for: identifiers, each with the sequence of
    /// the last record that came under it. Whether there were any.
    pub(crate) fn account_for(&mut self, stored: impl IntoIterator<Item = (PacketId, u64)>) -> bool {
        let accounted_to = self.accounts_to;
        let count = self.unreleased.len();
        for (id, sequence) in stored.into_iter().filter(|(_, sequence)| *sequence >= accounted_to) {
            self.accounts_to = self.accounts_to.max(sequence + 1);
            if !self.unreleased.contains(&id) {
                self.unreleased.push(id);
            }
        }
        self.unreleased.len() > count || self.accounts_to > accounted_to
    }

    /// The log ends before this sequence: a power cut took what was promised to survive the process only.
    pub(crate) fn limit_to(&mut self, sequence: u64) -> bool {
        let beyond = self.accounts_to > sequence;
        self.accounts_to = self.accounts_to.min(sequence);
        beyond
    }

    /// These subscriptions have other queues now: what is in flight from them stands alone.
    pub(crate) fn forget_places(&mut self, replaced: &[u32]) {
        for sent in &mut self.in_flight {
            sent.from.retain(|(index, _)| !replaced.contains(index));
        }
    }

    /// QoS 2 messages in flight: for each place that one came from, the subscription and the offset in its queue.
    pub(crate) fn exactly_once_in_flight(&self) -> impl Iterator<Item = (&StoredSubscription, u64)> {
        let sent = self.in_flight.iter().filter(|sent| sent.step != Step::Puback);
        let places = sent.flat_map(|sent| &sent.from);
        places.filter_map(|(index, offset)| Some((self.subscriptions.get(*index as usize)?, *offset)))
    }

    /// Subscriptions with a cursor of their own. The place of a shared one is its group's.
    pub(crate) fn with_cursors(&self) -> impl Iterator<Item = &StoredSubscription> {
        self.subscriptions.iter().filter(|subscription| !self.is_for_will && !subscription.is_shared())
    }

    /// The session again, given the cursors of [`Stored::with_cursors`].
    pub(crate) fn into_session(
        self,
        client: ByteString,
        cursors: Vec<tidemill_store::Cursor>,
    ) -> Result<Session, DocumentError> {
        let mut cursors = cursors.into_iter();
        let mut session = Session::new(client, self.expiry_s);
        session.offline_since_ms = self.offline_since_ms;
        session.owner = self.owner;
        session.will = self.will;
        session.kept = if self.is_for_will { Kept::Will } else { Kept::Whole };
        // Offsets in flight, by subscription.
        let mut sent_from: HashMap<u32, Vec<u64>> = HashMap::new();
        for (index, offset) in self.in_flight.iter().flat_map(|sent| &sent.from) {
            sent_from.entry(*index).or_default().push(*offset);
        }
        // Which offsets each subscription still has open, and its key.
        let mut keys = Vec::with_capacity(self.subscriptions.len());
        for (stored, index) in self.subscriptions.into_iter().zip(0..) {
            let sent = sent_from.remove(&index).unwrap_or_default();
            let own = cursors.by_ref().take(usize::from(!stored.is_shared())).next();
            let mut cursor = match own {
                Some(kept) => Cursor::kept(kept),
                None => Cursor::at(CursorPlace { offset: stored.next, sequence: 0 }),
            };
            let open: HashSet<u64> = cursor.restore(stored.next, &sent).into_iter().collect();
            let mut subscription =
                Subscription::new(stored.requested, stored.options, stored.id, stored.queue, cursor)
                    .ok_or(DocumentError::Damaged("a subscription has a bad filter"))?;
            subscription.retained = stored.retained.map(Box::new);
            let open = (!subscription.is_shared()).then_some(open);
            keys.push((session.subscriptions.insert(subscription), open));
        }
        for sent in self.in_flight {
            let mut sources = Sources::new();
            for (index, offset) in &sent.from {
                let (key, open) = keys
                    .get(*index as usize)
                    .ok_or(DocumentError::Damaged("a message in flight has no subscription"))?;
                // What a cursor has passed is done. (A shared subscription's place is its group's.)
                if open.as_ref().is_none_or(|open| open.contains(offset)) {
                    sources.push(Source { subscription: *key, offset: *offset });
                }
            }
            if sources.is_empty() && !sent.from.is_empty() {
                continue;
            }
            if !session.window.restore(sent.id, sources, sent.pointer, sent.step, sent.retain) {
                return Err(DocumentError::Damaged("a packet identifier stands for two messages"));
            }
        }
        for id in self.unreleased {
            session.inbound.restore(id);
        }
        session.inbound.account_to(self.accounts_to);
        Ok(session)
    }
}
