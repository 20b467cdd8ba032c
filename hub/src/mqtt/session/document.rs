//! A session as bytes: the document that the store keeps under the client identifier.
//!
//! ```text
//! u8   version of this layout: 2
//! u8   flags: bit 0 there is a will, bit 1 the session is offline, bit 2 it belongs to a user
//! u32  session expiry interval, seconds
//! [u64 offline since, milliseconds since the Unix epoch]
//! [u16 + bytes name of the user it belongs to]
//! u32  subscriptions, each: u16 + bytes filter as requested; u8 options; u32 identifier (0: none);
//!      u64 queue; u64 offset to read on at; u8 whether retained messages are still to be sent: if so,
//!      u64 sequence before which they were stored; u16 + bytes topic of the last one sent (empty: none)
//! u16  QoS 2 messages from the client that were not released, each: u16 packet identifier
//! u64  sequence of the first record that they do not account for
//! u16  messages to the client in flight, in the order sent, each: u16 packet identifier;
//!      u8 step (0 PUBACK, 1 PUBREC, 2 PUBCOMP), bit 7 retain flag; u64 position; u32 size;
//!      u32 places it came from, each: u32 which subscription; u64 offset
//! [will: u8 QoS, bit 2 retain; u16 + bytes topic; u16 + bytes user name (empty: none);
//!      u32 + bytes payload; u32 + bytes properties as on the wire]
//! ```
//!
//! In version 1 a message came from one place at most: bit 6 of its step said whether, and no number of them followed. It had
//! nothing of retained messages, no sequence, and no user.
//!
//! The smallest and most often looked at comes first: recovery reads up to the subscriptions of every session.
//! Where a cursor durably stands is not here but in the store, which moves it without writing documents.
//! The document may therefore be older than the cursor; what the cursor has passed is then left out.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use foldhash::{HashMap, HashMapExt, HashSet};
use smallvec::SmallVec;
use tidemill_store::{CursorPlace, Pointer, Position, QueueId};

use super::super::codec::topic::Requested;
use super::super::codec::{
    LastWill, PacketId, Qos, Reader, SubscriptionId, SubscriptionOptions, WillProperties,
};
use super::{
    Cursor, InFlight, Kept, RetainedPlace, Session, Source, Sources, Step, Subscription, SubscriptionKey,
    Will,
};

/// The version this program writes. It reads those before it too.
const VERSION: u8 = 2;
const HAS_WILL: u8 = 1 << 0;
const IS_OFFLINE: u8 = 1 << 1;
/// Not in version 1.
const HAS_OWNER: u8 = 1 << 2;
/// In version 1: the message came from a queue.
const FROM_QUEUE: u8 = 1 << 6;
const RETAIN: u8 = 1 << 7;

/// Why a session's document cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// A version of the layout that this program does not know.
    #[error("the session document has layout version {0}, and this program reads versions 1 and 2")]
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
        }
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

    /// The session again, given the cursors of those of its subscriptions that are not shared.
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
        session.kept = Kept::Whole;
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

    /// Writes the layout.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64 + 64 * self.subscriptions.len() + 32 * self.in_flight.len());
        out.put_u8(VERSION);
        let mut flags = 0;
        flags |= if self.will.is_some() { HAS_WILL } else { 0 };
        flags |= if self.offline_since_ms.is_some() { IS_OFFLINE } else { 0 };
        flags |= if self.owner.is_some() { HAS_OWNER } else { 0 };
        out.put_u8(flags);
        out.put_u32(self.expiry_s);
        if let Some(since_ms) = self.offline_since_ms {
            out.put_i64(since_ms);
        }
        if let Some(owner) = &self.owner {
            put_text(&mut out, owner);
        }
        out.put_u32(self.subscriptions.len() as u32);
        for subscription in &self.subscriptions {
            put_text(&mut out, &subscription.requested);
            out.put_u8(subscription.options.bits());
            out.put_u32(subscription.id.map_or(0, SubscriptionId::get));
            out.put_u64(subscription.queue.0);
            out.put_u64(subscription.next);
            out.put_u8(u8::from(subscription.retained.is_some()));
            if let Some(RetainedPlace { before, after }) = &subscription.retained {
                out.put_u64(*before);
                put_text(&mut out, after);
            }
        }
        out.put_u16(self.unreleased.len() as u16);
        for id in &self.unreleased {
            out.put_u16(id.get());
        }
        out.put_u64(self.accounts_to);
        out.put_u16(self.in_flight.len() as u16);
        for sent in &self.in_flight {
            out.put_u16(sent.id.get());
            let step = match sent.step {
                Step::Puback => 0,
                Step::Pubrec => 1,
                Step::Pubcomp => 2,
            };
            out.put_u8(step | if sent.retain { RETAIN } else { 0 });
            out.put_u64(sent.pointer.position.to_u64());
            out.put_u32(sent.pointer.size);
            out.put_u32(sent.from.len() as u32);
            for (index, offset) in &sent.from {
                out.put_u32(*index);
                out.put_u64(*offset);
            }
        }
        if let Some(will) = &self.will {
            let Will { last_will, user } = &**will;
            out.put_u8(last_will.qos.bits() | (u8::from(last_will.retain) << 2));
            put_text(&mut out, &last_will.topic);
            put_text(&mut out, user.as_deref().unwrap_or_default());
            out.put_u32(last_will.payload.len() as u32);
            out.put_slice(&last_will.payload);
            let mut properties = BytesMut::new();
            // Every field came out of a packet, so that each fits its length again.
            let written = last_will.properties.put_wire(&mut properties);
            debug_assert!(written.is_ok());
            out.put_u32(properties.len() as u32);
            out.put_slice(&properties);
        }
        out.freeze()
    }

    /// Reads the layout.
    pub(crate) fn decode(bytes: Bytes) -> Result<Stored, DocumentError> {
        let mut cut = Cut(bytes);
        let version = cut.u8()?;
        if !(1..=VERSION).contains(&version) {
            return Err(DocumentError::Version(version));
        }
        let flags = cut.u8()?;
        let owner = if version == 1 { 0 } else { HAS_OWNER };
        if flags & !(HAS_WILL | IS_OFFLINE | owner) != 0 {
            return Err(DocumentError::Damaged("unknown flags"));
        }
        let expiry_s = cut.u32()?;
        let offline_since_ms = if flags & IS_OFFLINE != 0 { Some(cut.u64()? as i64) } else { None };
        let owner = if flags & HAS_OWNER != 0 { Some(Arc::from(&*cut.text()?)) } else { None };
        let subscriptions = (0..cut.u32()?).map(|_| cut.subscription(version)).collect::<Result<_, _>>()?;
        let unreleased = (0..cut.u16()?).map(|_| cut.packet_id()).collect::<Result<_, _>>()?;
        let accounts_to = if version == 1 { 0 } else { cut.u64()? };
        let in_flight = (0..cut.u16()?).map(|_| cut.in_flight(version)).collect::<Result<_, _>>()?;
        let will = if flags & HAS_WILL != 0 { Some(Box::new(cut.will()?)) } else { None };
        if !cut.0.is_empty() {
            return Err(DocumentError::Damaged("there are bytes after its end"));
        }
        Ok(Stored {
            expiry_s,
            offline_since_ms,
            owner,
            will,
            subscriptions,
            unreleased,
            accounts_to,
            in_flight,
        })
    }
}

fn put_text(out: &mut BytesMut, text: &str) {
    debug_assert!(u16::try_from(text.len()).is_ok(), "it came out of a packet");
    out.put_u16(text.len() as u16);
    out.put_slice(text.as_bytes());
}

/// Takes fields from the front of a document.
struct Cut(Bytes);

const SHORT: DocumentError = DocumentError::Damaged("it ends too early");

impl Cut {
    fn u8(&mut self) -> Result<u8, DocumentError> {
        self.0.try_get_u8().map_err(|_| SHORT)
    }

    fn u16(&mut self) -> Result<u16, DocumentError> {
        self.0.try_get_u16().map_err(|_| SHORT)
    }

    fn u32(&mut self) -> Result<u32, DocumentError> {
        self.0.try_get_u32().map_err(|_| SHORT)
    }

    fn u64(&mut self) -> Result<u64, DocumentError> {
        self.0.try_get_u64().map_err(|_| SHORT)
    }

    fn bytes(&mut self, length: usize) -> Result<Bytes, DocumentError> {
        if length > self.0.len() {
            return Err(SHORT);
        }
        Ok(self.0.split_to(length))
    }

    fn text(&mut self) -> Result<ByteString, DocumentError> {
        let length = self.u16()?;
        ByteString::try_from(self.bytes(usize::from(length))?)
            .map_err(|_| DocumentError::Damaged("a text is not UTF-8"))
    }

    fn packet_id(&mut self) -> Result<PacketId, DocumentError> {
        PacketId::new(self.u16()?).ok_or(DocumentError::Damaged("a packet identifier is 0"))
    }

    fn subscription(&mut self, version: u8) -> Result<StoredSubscription, DocumentError> {
        let requested = self.text()?;
        let options = SubscriptionOptions::from_bits(self.u8()?)
            .ok_or(DocumentError::Damaged("unknown subscription options"))?;
        let id = match self.u32()? {
            0 => None,
            id => {
                Some(SubscriptionId::new(id).ok_or(DocumentError::Damaged("a bad subscription identifier"))?)
            }
        };
        let (queue, next) = (QueueId(self.u64()?), self.u64()?);
        let has_retained = version > 1 && self.u8()? != 0;
        let retained = if has_retained {
            Some(RetainedPlace { before: self.u64()?, after: self.text()? })
        } else {
            None
        };
        Ok(StoredSubscription { requested, options, id, queue, next, retained })
    }

    fn in_flight(&mut self, version: u8) -> Result<StoredInFlight, DocumentError> {
        let id = self.packet_id()?;
        let flags = self.u8()?;
        let from_queue = if version == 1 { FROM_QUEUE } else { 0 };
        let step = match flags & !(from_queue | RETAIN) {
            0 => Step::Puback,
            1 => Step::Pubrec,
            2 => Step::Pubcomp,
            _ => return Err(DocumentError::Damaged("unknown step of a delivery")),
        };
        let pointer = Pointer { position: Position::from_u64(self.u64()?), size: self.u32()? };
        let places = if version == 1 { u32::from(flags & from_queue != 0) } else { self.u32()? };
        let from = (0..places).map(|_| Ok((self.u32()?, self.u64()?))).collect::<Result<_, _>>()?;
        Ok(StoredInFlight { id, step, retain: flags & RETAIN != 0, pointer, from })
    }

    fn will(&mut self) -> Result<Will, DocumentError> {
        let bits = self.u8()?;
        let qos = Qos::from_bits(bits & 3).filter(|_| bits < 8);
        let qos = qos.ok_or(DocumentError::Damaged("unknown QoS of a will"))?;
        let topic = self.text()?;
        let user = Some(self.text()?).filter(|user| !user.is_empty());
        let payload_bytes = self.u32()? as usize;
        let payload = self.bytes(payload_bytes)?;
        let properties_bytes = self.u32()? as usize;
        let properties = WillProperties::decode_list(Reader::new(self.bytes(properties_bytes)?))
            .map_err(|_| DocumentError::Damaged("the properties of a will"))?;
        Ok(Will { last_will: LastWill { topic, payload, qos, retain: bits & 4 != 0, properties }, user })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use std::collections::HashMap;

    use super::*;

    fn will() -> impl Strategy<Value = Will> {
        (
            0..3_u8,
            any::<bool>(),
            "[a-z/]{1,9}",
            vec(any::<u8>(), 0..90),
            option::of(any::<u32>()),
            "[a-z]{0,5}",
        )
            .prop_map(|(qos, retain, topic, payload, delay_s, user)| Will {
                last_will: LastWill {
                    topic: topic.into(),
                    payload: payload.into(),
                    qos: Qos::from_bits(qos).unwrap(),
                    retain,
                    properties: WillProperties {
                        delay_s,
                        user_properties: vec![("a".into(), "b".into())],
                        ..Default::default()
                    },
                },
                user: (!user.is_empty()).then(|| user.into()),
            })
    }

    fn subscription() -> impl Strategy<Value = StoredSubscription> {
        let retained = option::of((any::<u64>(), "[a-z/]{0,9}"));
        ("[a-z/]{1,9}", 0..0x30_u8, any::<u16>(), (any::<u64>(), any::<u64>()), retained).prop_filter_map(
            "options",
            |(requested, options, id, (queue, next), retained)| {
                let retained = retained.map(|(before, after)| RetainedPlace { before, after: after.into() });
                Some(StoredSubscription {
                    requested: requested.into(),
                    options: SubscriptionOptions::from_bits(options)?,
                    id: SubscriptionId::new(u32::from(id)),
                    queue: QueueId(queue),
                    next,
                    retained,
                })
            },
        )
    }

    fn in_flight() -> impl Strategy<Value = StoredInFlight> {
        let step = prop_oneof![Just(Step::Puback), Just(Step::Pubrec), Just(Step::Pubcomp)];
        (
            any::<PacketId>(),
            step,
            any::<bool>(),
            (any::<u64>(), any::<u32>()),
            vec((0..4_u32, 0..99_u64), 0..4),
        )
            .prop_map(|(id, step, retain, (position, size), from)| StoredInFlight {
                id,
                step,
                retain,
                pointer: Pointer { position: Position::from_u64(position), size },
                from: from.into(),
            })
    }

    proptest! {
        #[test]
        fn documents_come_back(
            (expiry_s, offline_since_ms, owner) in (any::<u32>(), option::of(any::<i64>()), option::of("[a-z]{0,5}")),
            will in option::of(will()),
            subscriptions in vec(subscription(), 0..5),
            (unreleased, accounts_to) in (vec(any::<PacketId>(), 0..5), any::<u64>()),
            in_flight in vec(in_flight(), 0..5),
            cut in any::<usize>(),
        ) {
            let owner = owner.map(Arc::from);
            let stored = Stored { expiry_s, offline_since_ms, owner, will: will.map(Box::new), subscriptions, unreleased, accounts_to, in_flight };
            let bytes = stored.encode();
            prop_assert_eq!(Stored::decode(bytes.clone()), Ok(stored));
            let short = bytes.slice(..cut % bytes.len());
            prop_assert!(Stored::decode(short).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in vec(any::<u8>(), 0..90)) {
            if let Some(version) = bytes.first_mut() {
                *version = 1 + *version % VERSION;
            }
            if let Ok(stored) = Stored::decode(bytes.into()) {
                let _ = stored.into_session("c".into(), Vec::new());
            }
        }
    }

    #[test]
    fn a_session_comes_back_with_what_is_not_done() {
        let mut session = Session::new("c".into(), 60);
        let place = |offset| CursorPlace { offset, sequence: offset };
        let make = |filter: &str| {
            let cursor = Cursor::at(place(10));
            Subscription::new(filter.into(), SubscriptionOptions::default(), None, QueueId(3), cursor)
                .unwrap()
        };
        let gone = session.subscriptions.insert(make("gone"));
        let key = session.subscriptions.insert(make("a/#"));
        let pointer = Pointer { position: Position::from_u64(7), size: 1 };
        for offset in 10..14 {
            let source = Source { subscription: key, offset };
            session.window.send(Sources::from_buf([source]), pointer, Qos::ExactlyOnce, false).unwrap();
            session.subscriptions.get_mut(key).unwrap().cursor.take(offset, offset);
        }
        session.unsubscribe(gone);
        let second = PacketId::new(2).unwrap();
        session.window.pubrec(second);
        let done = session.window.pubcomp(second).unwrap();
        session.finish(&done);
        session.inbound.restore(PacketId::new(9).unwrap());

        // Offset 10 was done after the document was written.
        let stored = Stored::decode(Stored::of(&session).encode()).unwrap();
        let mut back = stored
            .into_session(
                "c".into(),
                vec![tidemill_store::Cursor { id: tidemill_store::CursorId(0), place: place(11) }],
            )
            .unwrap();
        let ids: Vec<u16> = back.window.in_order().iter().map(|(id, _)| id.get()).collect();
        assert_eq!(ids, [3, 4], "11 was done out of order, 10 since");
        assert_eq!(back.inbound.unreleased().count(), 1);
        let (_, subscription) = back.subscriptions.iter().next().unwrap();
        assert_eq!((subscription.cursor.next(), subscription.cursor.place().offset), (14, 12));
        for (id, _) in back.window.in_order() {
            back.window.pubrec(id);
            let done = back.window.pubcomp(id).unwrap();
            back.finish(&done);
        }
        let (_, subscription) = back.subscriptions.iter().next().unwrap();
        assert_eq!(subscription.cursor.place().offset, 14);
    }

    #[test]
    fn a_message_of_several_subscriptions_waits_for_those_that_have_it_left() {
        let mut session = Session::new("c".into(), 60);
        let make = |filter: &str, queue| {
            let cursor = Cursor::at(CursorPlace { offset: 5, sequence: 0 });
            Subscription::new(filter.into(), SubscriptionOptions::default(), None, QueueId(queue), cursor)
                .unwrap()
        };
        let keys = ["a/#", "a/b", "+/b"]
            .map(|filter| session.subscriptions.insert(make(filter, filter.len() as u64)));
        let pointer = Pointer { position: Position::from_u64(7), size: 1 };
        let sources = keys.map(|subscription| Source { subscription, offset: 5 });
        session.window.send(Sources::from_slice(&sources), pointer, Qos::AtLeastOnce, false).unwrap();
        for key in keys {
            session.subscriptions.get_mut(key).unwrap().cursor.take(5, 9);
        }
        let bytes = Stored::of(&session).encode();
        let back = |offsets: [u64; 3]| {
            let place = |offset| CursorPlace { offset, sequence: 9 };
            let kept = |offset| tidemill_store::Cursor {
                id: tidemill_store::CursorId(offset),
                place: place(offset),
            };
            let stored = Stored::decode(bytes.clone()).unwrap();
            stored.into_session("c".into(), offsets.map(kept).to_vec()).unwrap()
        };
        let mut one_left = back([6, 5, 6]);
        let (id, sent) = one_left.window.in_order().pop().unwrap();
        assert_eq!(sent.sources.len(), 1, "the others' cursors have passed it");
        let done = one_left.window.puback(id).unwrap();
        one_left.finish(&done);
        let places: Vec<u64> =
            one_left.subscriptions.iter().map(|(_, of)| of.cursor.place().offset).collect();
        assert_eq!(places, [6, 6, 6]);
        assert!(back([6, 6, 6]).window.is_empty(), "all have passed it");
        assert_eq!(back([5, 5, 5]).window.in_order().pop().map(|(_, sent)| sent.sources.len()), Some(3));
    }

    /// A document of version 1 as the program wrote it; never to be changed.
    const VERSION_1: &[u8] = b"\x01\x03\0\0\0\x3c\0\0\0\0\0\0\x03\xe8\
        \0\0\0\x02\
        \0\x03a/#\x01\0\0\0\x07\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x0e\
        \0\x0c$share/g/b/+\x02\0\0\0\0\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\x05\
        \0\x01\0\x09\
        \0\x02\
        \0\x02\x42\0\0\0\0\0\0\0\x07\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\x0c\
        \0\x03\x80\0\0\0\0\0\0\0\x08\0\0\0\x02\
        \x05\0\x01w\0\x01u\0\0\0\x02hi\0\0\0\x05\x18\0\0\0\x1e";

    #[test]
    fn version_1_is_read() {
        let stored = Stored::decode(Bytes::from_static(VERSION_1)).unwrap();
        assert_eq!((stored.expiry_s, stored.offline_since_ms, &stored.owner), (60, Some(1000), &None));
        let names: Vec<&str> = stored.subscriptions.iter().map(|of| &*of.requested).collect();
        assert_eq!(names, ["a/#", "$share/g/b/+"]);
        let froms: Vec<&[(u32, u64)]> = stored.in_flight.iter().map(|sent| &sent.from[..]).collect();
        assert_eq!(froms, [&[(0, 12)][..], &[]]);
        let steps: Vec<(Step, bool)> = stored.in_flight.iter().map(|sent| (sent.step, sent.retain)).collect();
        assert_eq!(steps, [(Step::Pubcomp, false), (Step::Puback, true)]);
        let will = stored.will.as_ref().unwrap();
        assert_eq!((&*will.last_will.topic, will.last_will.properties.delay_s), ("w", Some(30)));
        // What is written next is the same in the version of today.
        assert_eq!(Stored::decode(stored.encode()), Ok(stored));
    }

    /// A document of version 2 as the program wrote it; never to be changed.
    const VERSION_2: &[u8] = b"\x02\x04\0\0\0\x3c\0\x03bob\
        \0\0\0\x02\
        \0\x03a/#\x01\0\0\0\x07\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x0e\x01\0\0\0\0\0\0\0\x2a\0\x03a/b\
        \0\x01b\x02\0\0\0\0\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\x05\0\
        \0\x01\0\x09\0\0\0\0\0\0\0\x64\
        \0\x01\
        \0\x02\x01\0\0\0\0\0\0\0\x07\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\x0c\
        \0\0\0\x01\0\0\0\0\0\0\0\x04";

    #[test]
    fn version_2_is_read() {
        let stored = Stored::decode(Bytes::from_static(VERSION_2)).unwrap();
        assert_eq!(stored.owner.as_deref(), Some("bob"));
        let retained: Vec<_> = stored.subscriptions.iter().map(|of| of.retained.clone()).collect();
        assert_eq!(retained, [Some(RetainedPlace { before: 42, after: "a/b".into() }), None]);
        assert_eq!((stored.unreleased.len(), stored.accounts_to), (1, 100));
        assert_eq!(stored.in_flight[0].from[..], [(0, 12), (1, 4)]);
        assert_eq!(stored.encode(), VERSION_2);
    }

    #[test]
    fn what_the_log_has_is_accounted_for_once() {
        let mut stored = Stored::decode(Bytes::from_static(VERSION_2)).unwrap();
        let id = |value| PacketId::new(value).unwrap();
        assert!(
            !stored.account_for([(id(3), 99), (id(9), 80)]),
            "both were there when it was written; 3 is released"
        );
        assert!(stored.account_for([(id(4), 100), (id(9), 130), (id(5), 120)]), "9 came again since");
        let unreleased: Vec<u16> = stored.unreleased.iter().map(|id| id.get()).collect();
        assert_eq!((&unreleased[..], stored.accounts_to), (&[9, 4, 5][..], 131));
        assert!(!stored.account_for([(id(6), 130)]));
        assert!(!stored.limit_to(131) && stored.limit_to(125));
        assert_eq!(stored.accounts_to, 125);
    }

    proptest! {
        /// Against a client that publishes, has receipts and releases in any order that the protocol allows, a document
        /// written at any moment, and a log that is read from its place on.
        #[test]
        fn identifiers_after_a_crash_are_those_not_released(
            steps in vec((0..4_u8, 1..6_u16), 0..80),
        ) {
            let mut session = Session::new("c".into(), 60);
            let mut written = Stored::of(&session);
            let (mut log, mut sequence) = (HashMap::new(), 10_u64);
            // Identifiers on their way to the disk, in order; and those that the client has not released.
            let (mut submitted, mut open) = (std::collections::VecDeque::new(), std::collections::BTreeSet::new());
            for (step, value) in steps {
                let id = PacketId::new(value).unwrap();
                match step {
                    0 | 1 => {
                        if session.inbound.arrive(Qos::ExactlyOnce, id, None) == Ok(super::super::Arrival::New) {
                            sequence += 1 + u64::from(value);
                            log.insert(id, sequence);
                            open.insert(id);
                            submitted.push_back((id, sequence));
                        }
                    }
                    2 => {
                        if let Some((id, at)) = submitted.pop_front() {
                            session.inbound.account_to(at + 1);
                            session.inbound.received(id, true);
                        }
                    }
                    _ => {
                        // A client releases what PUBREC came for.
                        if session.inbound.unreleased().any(|of| of == id) && session.inbound.release(id) {
                            open.remove(&id);
                        }
                        if session.take_changed() {
                            written = Stored::of(&session);
                        }
                    }
                }
                let mut back = written.clone();
                back.account_for(log.iter().map(|(id, sequence)| (*id, *sequence)));
                let unreleased: std::collections::BTreeSet<PacketId> = back.unreleased.iter().copied().collect();
                prop_assert_eq!(&unreleased, &open);
            }
        }
    }

    #[test]
    fn other_versions_are_refused() {
        assert_eq!(Stored::decode(Bytes::from_static(&[9, 0])), Err(DocumentError::Version(9)));
        assert_eq!(Stored::decode(Bytes::new()), Err(SHORT));
    }
}
