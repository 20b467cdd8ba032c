//! A session's document as bytes.
//!
//! ```text
//! u8   version of this layout: 3
//! u8   flags: bit 0 there is a will, bit 1 the session is offline, bit 2 it belongs to a user, bit 3 only its will is to
//!      outlive the broker
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
//! The store lists the documents by when something is due for them, which follows from what is written here ([`Stored::due_ms`]). Before
//! version 3 it did not; the layout of version 2 is the same.
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
use tidemill_store::{Pointer, Position, QueueId};

use super::super::super::codec::{
    LastWill, PacketId, Qos, Reader, SubscriptionId, SubscriptionOptions, WillProperties,
};
use super::super::{RetainedPlace, Step, Will};
use super::{DocumentError, Stored, StoredInFlight, StoredSubscription};

/// The version this program writes. It reads those before it too.
pub(super) const VERSION: u8 = 3;
const HAS_WILL: u8 = 1 << 0;
const IS_OFFLINE: u8 = 1 << 1;
/// Not in version 1.
const HAS_OWNER: u8 = 1 << 2;
/// Not before version 3.
const IS_FOR_WILL: u8 = 1 << 3;
/// In version 1: the message came from a queue.
const FROM_QUEUE: u8 = 1 << 6;
const RETAIN: u8 = 1 << 7;

impl Stored {
    /// Writes the layout.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64 + 64 * self.subscriptions.len() + 32 * self.in_flight.len());
        out.put_u8(VERSION);
        let mut flags = 0;
        flags |= if self.will.is_some() { HAS_WILL } else { 0 };
        flags |= if self.offline_since_ms.is_some() { IS_OFFLINE } else { 0 };
        flags |= if self.owner.is_some() { HAS_OWNER } else { 0 };
        flags |= if self.is_for_will { IS_FOR_WILL } else { 0 };
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
            put_subscription(&mut out, subscription);
        }
        out.put_u16(self.unreleased.len() as u16);
        for id in &self.unreleased {
            out.put_u16(id.get());
        }
        out.put_u64(self.accounts_to);
        out.put_u16(self.in_flight.len() as u16);
        for sent in &self.in_flight {
            put_in_flight(&mut out, sent);
        }
        if let Some(will) = &self.will {
            put_will(&mut out, will);
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
        let known = match version {
            1 => HAS_WILL | IS_OFFLINE,
            2 => HAS_WILL | IS_OFFLINE | HAS_OWNER,
            _ => HAS_WILL | IS_OFFLINE | HAS_OWNER | IS_FOR_WILL,
        };
        if flags & !known != 0 {
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
        let mut stored = Stored {
            expiry_s,
            offline_since_ms,
            owner,
            will,
            subscriptions,
            unreleased,
            accounts_to,
            in_flight,
            is_for_will: flags & IS_FOR_WILL != 0,
            listed_ms: None,
        };
        stored.listed_ms = stored.due_ms().filter(|_| version > 2);
        Ok(stored)
    }
}

fn put_text(out: &mut BytesMut, text: &str) {
    debug_assert!(u16::try_from(text.len()).is_ok(), "it came out of a packet");
    out.put_u16(text.len() as u16);
    out.put_slice(text.as_bytes());
}

fn put_subscription(out: &mut BytesMut, subscription: &StoredSubscription) {
    put_text(out, &subscription.requested);
    out.put_u8(subscription.options.bits());
    out.put_u32(subscription.id.map_or(0, SubscriptionId::get));
    out.put_u64(subscription.queue.0);
    out.put_u64(subscription.next);
    out.put_u8(u8::from(subscription.retained.is_some()));
    if let Some(RetainedPlace { before, after }) = &subscription.retained {
        out.put_u64(*before);
        put_text(out, after);
    }
}

fn put_in_flight(out: &mut BytesMut, sent: &StoredInFlight) {
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

fn put_will(out: &mut BytesMut, Will { last_will, user }: &Will) {
    out.put_u8(last_will.qos.bits() | (u8::from(last_will.retain) << 2));
    put_text(out, &last_will.topic);
    put_text(out, user.as_deref().unwrap_or_default());
    out.put_u32(last_will.payload.len() as u32);
    out.put_slice(&last_will.payload);
    let mut properties = BytesMut::new();
    // Every field came out of a packet, so that each fits its length again.
    let written = last_will.properties.put_wire(&mut properties);
    debug_assert!(written.is_ok());
    out.put_u32(properties.len() as u32);
    out.put_slice(&properties);
}

/// Takes fields from the front of a document.
struct Cut(Bytes);

pub(super) const SHORT: DocumentError = DocumentError::Damaged("it ends too early");

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
