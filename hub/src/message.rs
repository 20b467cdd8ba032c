//! What the hub keeps beside a payload: [`Properties`], the layout of [`NewRecord::properties`], and
//! [`View`], a stored record as rules see it.
//!
//! ```text
//! u8     version of this layout: 2
//! u8     flags: bit 0 a user name follows, bit 1 a message expiry interval follows,
//!        bit 2 a packet identifier follows
//! u16    bytes of the client identifier, then the client identifier (UTF-8)
//! [u16   bytes of the user name, then the user name (UTF-8)]
//! [u32   message expiry interval in seconds]
//! [u16   packet identifier]
//! ...    the MQTT 5 properties that are passed on unaltered, as they stand on the wire, to the end
//! ```
//!
//! Integers are big-endian, as in MQTT. What the hub itself looks at on every delivery comes first and at
//! a place found without parsing the rest; what is only passed on comes last and as it is written to
//! a subscriber, so that passing it on is one copy. Topic alias and subscription identifiers belong to
//! a connection and are never stored. The packet identifier of a QoS 2 message belongs to a session: it is what tells, after a
//! crash, that the message was stored when its publisher sends it again ([`crate::mqtt`], recovery). Version 1 had none.

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use smallvec::SmallVec;
use tidemill_rules::Message;
use tidemill_store::{NewRecord, Record, Retain};

use crate::mqtt::codec::{EncodeError, Forwarded, PacketId, PublishProperties, Qos, WillProperties};

/// The version this program writes. It reads those before it too.
const VERSION: u8 = 2;
const HAS_USER: u8 = 1 << 0;
const HAS_EXPIRY: u8 = 1 << 1;
const HAS_PACKET_ID: u8 = 1 << 2;
/// Bits of [`NewRecord::attributes`] that hold the QoS.
const QOS_MASK: u8 = 0b11;

/// Why a record's properties cannot be read: it was written by something else than this hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PropertiesError {
    /// A version of the layout that this program does not know.
    #[error("record properties have layout version {0}, and this program reads versions 1 and 2")]
    Version(u8),
    /// The bytes end too early or are not what they should be.
    #[error("record properties are damaged: {0}")]
    Damaged(&'static str),
}

/// Who published a message, and what was said about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// Client identifier of the publisher.
    pub client: ByteString,
    /// User name of the publisher.
    pub user: Option<ByteString>,
    /// Seconds the message is good for, counted from when it was stored.
    pub message_expiry_s: Option<u32>,
    /// Under which identifier a QoS 2 message came, if its publisher's session outlives the connection.
    pub packet_id: Option<PacketId>,
    /// MQTT 5 properties that are passed on, as they stand on the wire.
    pub forwarded: Bytes,
}

impl Properties {
    /// The properties of a PUBLISH.
    pub fn of_publish(
        client: ByteString,
        user: Option<ByteString>,
        publish: PublishProperties,
    ) -> Result<Properties, EncodeError> {
        let forwarded = Forwarded {
            payload_is_text: publish.payload_is_text,
            content_type: publish.content_type,
            response_topic: publish.response_topic,
            correlation_data: publish.correlation_data,
            user_properties: publish.user_properties,
        };
        Properties::of(client, user, publish.message_expiry_s, &forwarded)
    }

    /// The properties of a will.
    pub fn of_will(
        client: ByteString,
        user: Option<ByteString>,
        will: WillProperties,
    ) -> Result<Properties, EncodeError> {
        let forwarded = Forwarded {
            payload_is_text: will.payload_is_text,
            content_type: will.content_type,
            response_topic: will.response_topic,
            correlation_data: will.correlation_data,
            user_properties: will.user_properties,
        };
        Properties::of(client, user, will.message_expiry_s, &forwarded)
    }

    fn of(
        client: ByteString,
        user: Option<ByteString>,
        message_expiry_s: Option<u32>,
        forwarded: &Forwarded,
    ) -> Result<Properties, EncodeError> {
        let mut wire = BytesMut::new();
        forwarded.put_wire(&mut wire)?;
        Ok(Properties { client, user, message_expiry_s, packet_id: None, forwarded: wire.freeze() })
    }

    /// Writes the layout. Fails only if a name is longer than MQTT can say.
    pub fn encode(&self) -> Result<Bytes, EncodeError> {
        let user_bytes = self.user.as_ref().map_or(0, |user| 2 + user.len());
        let mut out = BytesMut::with_capacity(10 + self.client.len() + user_bytes + self.forwarded.len());
        out.put_u8(VERSION);
        let mut flags = 0;
        flags |= if self.user.is_some() { HAS_USER } else { 0 };
        flags |= if self.message_expiry_s.is_some() { HAS_EXPIRY } else { 0 };
        flags |= if self.packet_id.is_some() { HAS_PACKET_ID } else { 0 };
        out.put_u8(flags);
        for name in [Some(&self.client), self.user.as_ref()].into_iter().flatten() {
            let length = u16::try_from(name.len()).map_err(|_| EncodeError::FieldTooLong(name.len()))?;
            out.put_u16(length);
            out.put_slice(name.as_bytes());
        }
        if let Some(seconds) = self.message_expiry_s {
            out.put_u32(seconds);
        }
        if let Some(id) = self.packet_id {
            out.put_u16(id.get());
        }
        out.put_slice(&self.forwarded);
        Ok(out.freeze())
    }

    /// Reads the layout. Everything shares the memory of `bytes`.
    pub fn decode(bytes: &Bytes) -> Result<Properties, PropertiesError> {
        let head = Head::decode(bytes)?;
        let share = |text: &str| ByteString::try_from(bytes.slice_ref(text.as_bytes()));
        let not_text = |_| PropertiesError::Damaged("a name is not UTF-8");
        Ok(Properties {
            client: share(head.client).map_err(not_text)?,
            user: head.user.map(share).transpose().map_err(not_text)?,
            message_expiry_s: head.message_expiry_s,
            packet_id: head.packet_id,
            forwarded: bytes.slice_ref(head.forwarded),
        })
    }
}

/// [`Properties`] borrowed from a record, which is all that a delivery needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// See [`Properties::client`].
    pub client: &'a str,
    /// See [`Properties::user`].
    pub user: Option<&'a str>,
    /// See [`Properties::message_expiry_s`].
    pub message_expiry_s: Option<u32>,
    /// See [`Properties::packet_id`].
    pub packet_id: Option<PacketId>,
    /// See [`Properties::forwarded`].
    pub forwarded: &'a [u8],
}

impl<'a> Head<'a> {
    /// Reads the layout.
    pub fn decode(bytes: &'a [u8]) -> Result<Head<'a>, PropertiesError> {
        let mut cut = Cut(bytes);
        let version = cut.u8()?;
        let known = match version {
            1 => HAS_USER | HAS_EXPIRY,
            VERSION => HAS_USER | HAS_EXPIRY | HAS_PACKET_ID,
            _ => return Err(PropertiesError::Version(version)),
        };
        let flags = cut.u8()?;
        if flags & !known != 0 {
            return Err(PropertiesError::Damaged("unknown flags"));
        }
        let client = cut.text()?;
        let user = if flags & HAS_USER != 0 { Some(cut.text()?) } else { None };
        let message_expiry_s = if flags & HAS_EXPIRY != 0 { Some(cut.u32()?) } else { None };
        let packet_id = if flags & HAS_PACKET_ID != 0 { Some(cut.packet_id()?) } else { None };
        Ok(Head { client, user, message_expiry_s, packet_id, forwarded: cut.0 })
    }
}

/// Takes fields from the front of borrowed bytes.
struct Cut<'a>(&'a [u8]);

impl<'a> Cut<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], PropertiesError> {
        let (front, rest) =
            self.0.split_at_checked(length).ok_or(PropertiesError::Damaged("they end too early"))?;
        self.0 = rest;
        Ok(front)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PropertiesError> {
        self.take(N)?.try_into().map_err(|_| PropertiesError::Damaged("they end too early"))
    }

    fn u8(&mut self) -> Result<u8, PropertiesError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, PropertiesError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn packet_id(&mut self) -> Result<PacketId, PropertiesError> {
        PacketId::new(u16::from_be_bytes(self.array()?))
            .ok_or(PropertiesError::Damaged("a packet identifier is 0"))
    }

    fn text(&mut self) -> Result<&'a str, PropertiesError> {
        let length = u16::from_be_bytes(self.array()?);
        let bytes = self.take(usize::from(length))?;
        std::str::from_utf8(bytes).map_err(|_| PropertiesError::Damaged("a name is not UTF-8"))
    }
}

/// A record to store for a message published with `qos`. With `retain`, an empty payload clears what is
/// retained for the topic, and any other replaces it ([MQTT-3.3.1-5], [MQTT-3.3.1-6]).
#[must_use]
pub fn record(topic: ByteString, properties: Bytes, payload: Bytes, qos: Qos, retain: bool) -> NewRecord {
    let retain = match (retain, payload.is_empty()) {
        (false, _) => Retain::No,
        (true, false) => Retain::Set,
        (true, true) => Retain::Clear,
    };
    NewRecord { topic, properties, payload, attributes: qos.bits(), retain }
}

/// The QoS a record was published with.
#[must_use]
pub fn qos(record: &Record) -> Qos {
    Qos::from_bits(record.attributes & QOS_MASK).unwrap_or_default()
}

/// Seconds a message is still good for at `now_ms`; `Err` once it has expired (3.3.2.3.3).
pub fn remaining_s(record: &Record, expiry_s: Option<u32>, now_ms: i64) -> Result<Option<u32>, Expired> {
    let Some(expiry_s) = expiry_s else { return Ok(None) };
    let elapsed_s = u32::try_from((now_ms - record.time_ms).max(0) / 1000).unwrap_or(u32::MAX);
    match expiry_s.checked_sub(elapsed_s) {
        None | Some(0) => Err(Expired),
        left => Ok(left),
    }
}

/// A message's expiry interval has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message has expired")]
pub struct Expired;

/// A stored record as rules see it, borrowed from the record.
///
/// `view(&record)` then `.message(id)`: two steps, because the list of user properties that a [`Message`]
/// borrows has to live somewhere.
#[derive(Clone, Debug)]
pub struct View<'a> {
    record: &'a Record,
    head: Head<'a>,
    content_type: Option<&'a str>,
    user_properties: SmallVec<[(&'a str, &'a str); 4]>,
}

/// Reads what rules need out of a record.
pub fn view(record: &Record) -> Result<View<'_>, PropertiesError> {
    let head = Head::decode(&record.properties)?;
    let mut view = View { record, head, content_type: None, user_properties: SmallVec::new() };
    let mut cut = Cut(head.forwarded);
    while !cut.0.is_empty() {
        match cut.u8()? {
            0x01 => {
                cut.u8()?;
            }
            0x03 => view.content_type = Some(cut.text()?),
            0x08 => {
                cut.text()?;
            }
            0x09 => {
                let length = u16::from_be_bytes(cut.array()?);
                cut.take(usize::from(length))?;
            }
            0x26 => view.user_properties.push((cut.text()?, cut.text()?)),
            _ => return Err(PropertiesError::Damaged("a property that is not passed on")),
        }
    }
    Ok(view)
}

impl View<'_> {
    /// The message, under the CloudEvents `id` that the caller made from the log's identity and the position.
    #[must_use]
    pub fn message<'b>(&'b self, id: &'b str) -> Message<'b> {
        Message {
            id,
            topic: &self.record.topic,
            payload: &self.record.payload,
            time_ms: self.record.time_ms,
            client: self.head.client,
            user: self.head.user,
            qos: qos(self.record).bits(),
            retain: self.record.retain != Retain::No,
            content_type: self.content_type,
            user_properties: &self.user_properties,
        }
    }
}

/// A record with nothing in it, for tests of what becomes of records.
#[cfg(test)]
pub(crate) fn empty_record(sequence: u64) -> Record {
    Record {
        position: tidemill_store::Position::from_u64(sequence),
        sequence,
        time_ms: 0,
        topic: "a".into(),
        properties: Bytes::new(),
        payload: Bytes::new(),
        attributes: 0,
        retain: Retain::No,
        kept: false,
        size: 1,
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    fn stored(new: NewRecord, time_ms: i64) -> Record {
        let NewRecord { topic, properties, payload, attributes, retain, .. } = new;
        Record { time_ms, topic, properties, payload, attributes, retain, ..empty_record(0) }
    }

    fn text() -> impl Strategy<Value = ByteString> {
        "[a-zA-Z0-9 /äß水😀]{0,24}".prop_map(ByteString::from)
    }

    fn publish_properties() -> impl Strategy<Value = PublishProperties> {
        (
            (option::of(any::<bool>()), option::of(any::<u32>()), option::of(text()), option::of(text())),
            (option::of(vec(any::<u8>(), 0..200)), option::of(any::<u16>()), vec((text(), text()), 0..6)),
        )
            .prop_map(|((is_text, expiry, content, response), (correlation, alias, pairs))| {
                PublishProperties {
                    payload_is_text: is_text,
                    message_expiry_s: expiry,
                    content_type: content,
                    response_topic: response,
                    correlation_data: correlation.map(Bytes::from),
                    subscription_ids: Vec::new(),
                    topic_alias: alias,
                    user_properties: pairs,
                }
            })
    }

    proptest! {
        #[test]
        fn properties_come_back(
            client in text(),
            user in option::of(text()),
            publish in publish_properties(),
            packet_id in option::of(any::<PacketId>()),
            retain in any::<bool>(),
        ) {
            let properties = Properties::of_publish(client.clone(), user.clone(), publish.clone()).unwrap();
            let properties = Properties { packet_id, ..properties };
            let bytes = properties.encode().unwrap();
            prop_assert_eq!(Properties::decode(&bytes), Ok(properties.clone()));
            let forwarded = Forwarded::from_wire(properties.forwarded).unwrap();
            prop_assert_eq!(&forwarded.response_topic, &publish.response_topic);
            prop_assert_eq!(&forwarded.correlation_data, &publish.correlation_data);

            let payload = Bytes::from_static(b"payload");
            let new = record("a/b".into(), bytes, payload.clone(), Qos::ExactlyOnce, retain);
            let record = stored(new, 77);
            let view = view(&record).unwrap();
            let message = view.message("id-1");
            prop_assert_eq!((message.id, message.topic, message.payload), ("id-1", "a/b", &payload));
            prop_assert_eq!((message.client, message.user), (&*client, user.as_deref()));
            prop_assert_eq!((message.qos, message.retain, message.time_ms), (2, retain, 77));
            prop_assert_eq!(message.content_type, publish.content_type.as_deref());
            let pairs: Vec<_> = publish.user_properties.iter().map(|(k, v)| (&**k, &**v)).collect();
            prop_assert_eq!(message.user_properties, &pairs[..]);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..60)) {
            let properties = Bytes::from(bytes);
            let decoded = Properties::decode(&properties).is_ok();
            let record = stored(
                NewRecord {
                    topic: "a".into(),
                    properties,
                    payload: Bytes::new(),
                    attributes: 0,
                    retain: Retain::No,
                },
                0,
            );
            prop_assert!(view(&record).is_err() || decoded);
        }
    }

    #[test]
    fn the_layout_is_this_one() {
        let properties = Properties {
            client: "c1".into(),
            user: Some("u".into()),
            message_expiry_s: Some(60),
            packet_id: PacketId::new(9),
            forwarded: Bytes::from_static(b"\x01\x01"),
        };
        let bytes = properties.encode().unwrap();
        assert_eq!(&bytes[..], b"\x02\x07\0\x02c1\0\x01u\0\0\0\x3c\0\x09\x01\x01");
        let version_1 = Bytes::from_static(b"\x01\x03\0\x02c1\0\x01u\0\0\0\x3c\x01\x01");
        assert_eq!(Properties::decode(&version_1), Ok(Properties { packet_id: None, ..properties }));
        let newer = Bytes::from_static(b"\x03\x00\0\0");
        assert_eq!(Properties::decode(&newer), Err(PropertiesError::Version(3)));
        for unknown in [&b"\x01\x04\0\0\0\x09"[..], b"\x02\x80\0\0"] {
            let decoded = Properties::decode(&Bytes::from_static(unknown));
            assert_eq!(decoded, Err(PropertiesError::Damaged("unknown flags")));
        }
    }

    #[test]
    fn expiry_counts_down() {
        let new = record("a".into(), Bytes::new(), Bytes::new(), Qos::AtMostOnce, true);
        assert_eq!(new.retain, Retain::Clear);
        let record = stored(new, 10_000);
        assert_eq!(remaining_s(&record, None, i64::MAX), Ok(None));
        assert_eq!(remaining_s(&record, Some(5), 10_999), Ok(Some(5)));
        assert_eq!(remaining_s(&record, Some(5), 14_999), Ok(Some(1)));
        assert_eq!(remaining_s(&record, Some(5), 15_000), Err(Expired));
        assert_eq!(remaining_s(&record, Some(5), 9_000), Ok(Some(5)), "a clock that was set back");
        assert_eq!(remaining_s(&record, Some(0), 10_000), Err(Expired));
    }
}
