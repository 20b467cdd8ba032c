//! What the broker knows about a client between its packets, without any I/O: given a packet or a record,
//! what follows from it.
//!
//! A subscription is a [`Cursor`] over its filter's queue. What was sent and not acknowledged stands in the
//! [`Window`], as pointers into the log: resending reads the records again. [`Inbound`] is the other
//! direction. The whole of a [`Session`] is written to a document and read back (`document`).
//!
//! # Layout
//! - `cursor`: how far a queue was read, and how far it is done
//! - `window`: outbound messages in flight: packet identifier → queue offset
//! - `inbound`: QoS 2 identifiers, Receive Maximum
//! - `subscription`: filter, options, cursor; the set of them
//! - `overlap`: which subscriptions may match the same message
//! - `document`: a session as it is written down

mod cursor;
mod document;
mod inbound;
mod overlap;
mod subscription;
mod window;

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;

use super::codec::{LastWill, WillProperties};

pub use cursor::Cursor;
pub use document::DocumentError;
pub(crate) use document::Stored;
pub use inbound::{Arrival, Inbound, ReceiveMaximumExceeded};
pub use overlap::{Overlaps, Picked};
pub use subscription::{RetainedPlace, Subscription, SubscriptionKey, Subscriptions};
pub use window::{InFlight, Source, Sources, Step, Window};

/// A Session Expiry Interval that means never (3.1.2.11.2).
pub const NEVER: u32 = u32::MAX;

/// A will with whom it is published for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// The message.
    pub last_will: LastWill,
    /// User name of the client it speaks for.
    pub user: Option<ByteString>,
}

impl Will {
    /// A copy: a slice would keep the whole CONNECT, password and all, for as long as the session.
    #[must_use]
    pub fn copied(of: &LastWill, user: Option<ByteString>) -> Will {
        let LastWill { topic, payload, qos, retain, properties } = of;
        let copied = |text: &ByteString| ByteString::from(&**text);
        let properties = WillProperties {
            delay_s: properties.delay_s,
            payload_is_text: properties.payload_is_text,
            message_expiry_s: properties.message_expiry_s,
            content_type: properties.content_type.as_ref().map(copied),
            response_topic: properties.response_topic.as_ref().map(copied),
            correlation_data: properties.correlation_data.as_deref().map(Bytes::copy_from_slice),
            user_properties: (properties.user_properties.iter())
                .map(|(name, value)| (copied(name), copied(value)))
                .collect(),
        };
        let (topic, payload) = (copied(topic), Bytes::copy_from_slice(payload));
        Will { last_will: LastWill { topic, payload, qos: *qos, retain: *retain, properties }, user }
    }
}

/// What of a session is in the store, as far as it was written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kept {
    /// Nothing: it ends with its connection.
    #[default]
    Nothing,
    /// A document, so that its will is published if the broker dies before the connection ends.
    Will,
    /// All of it: a document and its cursors.
    Whole,
}

/// The state of one client identifier (4.1).
#[derive(Clone, Debug)]
pub struct Session {
    /// The client identifier.
    pub client: ByteString,
    /// Seconds it lives on after its connection; 0 ends it with the connection, [`NEVER`] does not end it.
    pub expiry_s: u32,
    /// The user who opened it, as access control found out; nobody else may have it. `None` if nobody was asked.
    pub owner: Option<Arc<str>>,
    /// What to publish if the client goes without a goodbye.
    pub will: Option<Box<Will>>,
    /// When the connection ended, in milliseconds since the Unix epoch; `None` while there is one.
    pub offline_since_ms: Option<i64>,
    /// What it wants to hear.
    pub subscriptions: Subscriptions,
    /// Messages from it.
    pub inbound: Inbound,
    /// Messages to it.
    pub window: Window,
    /// What the store has of it.
    pub kept: Kept,
}

impl Session {
    /// A session with nothing in it.
    #[must_use]
    pub fn new(client: ByteString, expiry_s: u32) -> Self {
        Session {
            client,
            expiry_s,
            owner: None,
            will: None,
            offline_since_ms: None,
            subscriptions: Subscriptions::default(),
            inbound: Inbound::default(),
            window: Window::default(),
            kept: Kept::Nothing,
        }
    }

    /// Whether QoS 2 messages have come further, in either direction, since this was last asked, so that what is about to be
    /// sent depends on its being written down.
    pub fn take_changed(&mut self) -> bool {
        // Both are to be asked.
        self.window.take_changed() | self.inbound.take_changed()
    }

    /// Whether it outlives its connection, and so is written down.
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        self.expiry_s > 0
    }

    /// When it expires, in milliseconds since the Unix epoch; `None` while it is online or if it never does.
    #[must_use]
    pub fn expires_ms(&self) -> Option<i64> {
        let since = self.offline_since_ms?;
        (self.expiry_s != NEVER).then(|| since.saturating_add(i64::from(self.expiry_s) * 1000))
    }

    /// When its will is due: after the delay, or when the session ends if that is sooner ([MQTT-3.1.2-8]).
    #[must_use]
    pub fn will_due_ms(&self) -> Option<i64> {
        let since = self.offline_since_ms?;
        let delay_s = self.will.as_ref()?.last_will.properties.delay_s.unwrap_or(0);
        let due = since.saturating_add(i64::from(delay_s) * 1000);
        Some(self.expires_ms().map_or(due, |expires| due.min(expires)))
    }

    /// When something is first due while nobody has it: its will, or its end. The store lists its document under that.
    #[must_use]
    pub fn due_ms(&self) -> Option<i64> {
        first_due_ms(self.offline_since_ms, self.expiry_s, self.will.as_deref())
    }

    /// Applies an acknowledgement that ends a delivery: its cursors may move.
    pub fn finish(&mut self, done: &InFlight) {
        for source in &done.sources {
            if let Some(subscription) = self.subscriptions.get_mut(source.subscription) {
                subscription.cursor.done(source.offset);
            }
        }
    }

    /// Forgets a subscription. What is in flight from it is still completed (3.10.4), for the others it came
    /// from or on its own.
    pub fn unsubscribe(&mut self, key: SubscriptionKey) -> Option<Subscription> {
        let gone = self.subscriptions.remove(key)?;
        self.window.orphan(key);
        Some(gone)
    }
}

/// When something is first due for a session that nobody has since then: its will with its delay, or its end.
fn first_due_ms(offline_since_ms: Option<i64>, expiry_s: u32, will: Option<&Will>) -> Option<i64> {
    let since = offline_since_ms?;
    let after = |seconds: u32| since.saturating_add(i64::from(seconds) * 1000);
    let expires = (expiry_s != NEVER).then(|| after(expiry_s));
    let will = will.map(|will| after(will.last_will.properties.delay_s.unwrap_or(0)));
    match (expires, will) {
        (Some(expires), Some(will)) => Some(expires.min(will)),
        (expires, will) => expires.or(will),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::codec::Qos;

    #[test]
    fn expiry_and_will_are_counted_from_the_end_of_the_connection() {
        let mut session = Session::new("c".into(), 60);
        let properties = WillProperties { delay_s: Some(90), ..Default::default() };
        session.will = Some(Box::new(Will {
            last_will: LastWill {
                topic: "w".into(),
                payload: Bytes::new(),
                qos: Qos::AtMostOnce,
                retain: false,
                properties,
            },
            user: None,
        }));
        assert_eq!((session.expires_ms(), session.will_due_ms()), (None, None));
        session.offline_since_ms = Some(1_000);
        assert_eq!(session.expires_ms(), Some(61_000));
        assert_eq!(session.will_due_ms(), Some(61_000), "the session's end comes before the delay's");
        session.expiry_s = NEVER;
        assert_eq!((session.expires_ms(), session.will_due_ms()), (None, Some(91_000)));
    }

    #[test]
    fn a_will_that_is_kept_keeps_no_packet() {
        let packet = Bytes::from(b"a password beside it".to_vec());
        let part = || packet.slice(2..10);
        let text = || Some(ByteString::try_from(part()).unwrap());
        let last_will = LastWill {
            topic: text().unwrap(),
            payload: part(),
            qos: Qos::AtLeastOnce,
            retain: true,
            properties: WillProperties {
                delay_s: Some(1),
                payload_is_text: Some(true),
                message_expiry_s: Some(2),
                content_type: text(),
                response_topic: text(),
                correlation_data: Some(part()),
                user_properties: vec![(text().unwrap(), text().unwrap())],
            },
        };
        let kept = Will::copied(&last_will, Some("u".into()));
        assert_eq!(kept, Will { last_will, user: Some("u".into()) });
        assert!(packet.is_unique(), "nothing of it is held any more");
    }
}
