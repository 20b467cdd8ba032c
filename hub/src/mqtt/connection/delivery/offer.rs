//! One message: whether it is sent, and as what.

use bytes::Bytes;
use tidemill_store::Record;
use tracing::error;

use super::super::super::codec::{EncodeError, PacketId, PublishHead, Qos, SubscriptionId};
use super::super::super::session::Sources;
use super::super::super::shared::now_ms;
use super::super::Connection;
use crate::message::{self, Expired, Head};

/// A message about to be sent.
pub(super) struct Offer<'a> {
    pub(super) record: &'a Record,
    /// Where it comes from, for what is in flight.
    pub(super) sources: Sources,
    /// Highest QoS that was granted.
    pub(super) granted: Qos,
    pub(super) retain: bool,
    pub(super) subscription_ids: &'a [SubscriptionId],
    /// Whether messages of the client's own are left out.
    pub(super) no_local: bool,
}

/// What became of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It is in flight.
    InFlight,
    /// There is nothing further to do for it: sent with QoS 0, or not to be sent.
    Done,
}

impl Connection {
    /// Sends a message, if it is one to send. There is room in the window if it needs any.
    pub(super) fn offer(&mut self, offer: Offer<'_>) -> Sent {
        let record = offer.record;
        let head = match Head::decode(&record.properties) {
            Ok(head) => head,
            Err(error) => {
                error!(position = %record.position, %error, "a message cannot be delivered");
                self.tally.unreadable += 1;
                return Sent::Done;
            }
        };
        if offer.no_local && head.client == &*self.session.client {
            return Sent::Done;
        }
        let message_expiry_s = match head.message_expiry_s {
            None => None,
            Some(_) => match message::remaining_s(record, head.message_expiry_s, now_ms()) {
                Ok(left) => left,
                Err(Expired) => {
                    self.tally.expired += 1;
                    return Sent::Done;
                }
            },
        };
        let qos = message::qos(record).min(offer.granted);
        let placeholder = (qos > Qos::AtMostOnce).then_some(PacketId::MIN);
        let mut head = PublishHead {
            dup: false,
            qos,
            retain: offer.retain,
            topic: &record.topic,
            id: placeholder,
            message_expiry_s,
            topic_alias: None,
            subscription_ids: offer.subscription_ids,
            forwarded: head.forwarded,
            payload_bytes: record.payload.len(),
        };
        // Too large for the client: treated as if it had been sent ([MQTT-3.1.2-25]).
        if !self.fit(&mut head) {
            self.tally.oversized += 1;
            return Sent::Done;
        }
        if placeholder.is_some() {
            match self.session.window.send(offer.sources, record.pointer(), qos, offer.retain) {
                Some(id) => head.id = Some(id),
                None => {
                    // The window is never larger than the identifiers there are.
                    error!(client = &*self.session.client, "no packet identifier is free");
                    return Sent::Done;
                }
            }
        }
        if let Err(error) = self.write(&head, &record.payload) {
            error!(position = %record.position, %error, "a message cannot be written");
            self.tally.unreadable += 1;
            if let Some(id) = head.id {
                self.session.window.abandon(id);
            }
            return Sent::Done;
        }
        if qos > Qos::AtMostOnce { Sent::InFlight } else { Sent::Done }
    }

    /// Makes a message as short as the client allows. Whether it takes one of that size.
    pub(super) fn fit(&mut self, head: &mut PublishHead<'_>) -> bool {
        let (version, max) = (self.version, self.limits.packet_bytes_max);
        let fits = |head: &PublishHead<'_>| head.packet_bytes(version).is_ok_and(|bytes| bytes <= max);
        self.delivery.aliases.shorten(head, self.limits.topic_alias_max);
        if fits(head) {
            return true;
        }
        if !head.topic.is_empty() {
            // Without the alias that it was to bring along.
            head.topic_alias = None;
        }
        fits(head)
    }

    /// Queues a message for the client.
    pub(super) fn write(&mut self, head: &PublishHead<'_>, payload: &Bytes) -> Result<(), EncodeError> {
        self.output.publish(head, payload, self.version)?;
        self.delivery.aliases.sent(head);
        self.tally.packets_out += 1;
        self.tally.delivered += 1;
        self.tally.delivered_bytes += payload.len() as u64;
        Ok(())
    }
}
