//! What was in flight when the connection before this one ended.

use smallvec::SmallVec;
use tidemill_store::{Pointer, Record, StoreError, filter};
use tracing::error;

use super::super::super::codec::{Ack, Packet, PacketId, PublishHead, Qos, ReasonCode, SubscriptionId};
use super::super::super::session::{InFlight, Step};
use super::super::super::shared::now_ms;
use super::super::{Close, Connection};
use super::unavailable;
use crate::message::{self, Head};

impl Connection {
    /// Sends what was in flight when the connection before this one ended, in its order ([MQTT-4.4.0-1]).
    pub(super) async fn send_again(&mut self) -> Result<(), Close> {
        while self.has_room() {
            if self.window_room() == 0 {
                self.delivery.blocked = !self.delivery.resend.is_empty();
                break;
            }
            let Some(id) = self.delivery.resend.pop_front() else { break };
            // The client may have answered what the connection before this one sent it.
            let Some(sent) = self.session.window.send_again(id) else { continue };
            if sent.step == Step::Pubcomp {
                self.send(&Packet::Pubrel(Ack::new(id, ReasonCode::SUCCESS)));
            } else {
                self.send_message_again(id, sent).await?;
            }
        }
        Ok(())
    }

    async fn send_message_again(&mut self, id: PacketId, sent: InFlight) -> Result<(), Close> {
        let record = match self.fetch(sent.pointer).await? {
            Some(record) => record,
            None => {
                self.give_up(id);
                return Ok(());
            }
        };
        let head = match Head::decode(&record.properties) {
            Ok(head) => head,
            Err(error) => {
                error!(position = %record.position, %error, "a message cannot be sent again");
                self.tally.unreadable += 1;
                self.give_up(id);
                return Ok(());
            }
        };
        // The session may be from before rules changed, or of another user.
        if let Some(standing) = &mut self.standing
            && !standing.may_subscribe(&record.topic)
        {
            self.give_up(id);
            return Ok(());
        }
        let subscription_ids = self.subscription_ids(&sent, &record.topic);
        let qos = if sent.step == Step::Puback { Qos::AtLeastOnce } else { Qos::ExactlyOnce };
        // What was sent once is not taken back because it expires in between; its interval is then 0.
        let message_expiry_s = head.message_expiry_s.map(|_| {
            message::remaining_s(&record, head.message_expiry_s, now_ms()).ok().flatten().unwrap_or(0)
        });
        let mut head = PublishHead {
            dup: true,
            qos,
            retain: sent.retain,
            topic: &record.topic,
            id: Some(id),
            message_expiry_s,
            topic_alias: None,
            subscription_ids: &subscription_ids,
            forwarded: head.forwarded,
            payload_bytes: record.payload.len(),
        };
        // A client may come back with a smaller Maximum Packet Size.
        if self.fit(&mut head) && self.write(&head, &record.payload).is_ok() {
            self.tally.resent += 1;
        } else {
            self.tally.oversized += 1;
            self.give_up(id);
        }
        Ok(())
    }

    /// The identifiers of the subscriptions that a message was sent for ([MQTT-3.3.4-3]). Of a retained one it is not known which
    /// subscription that was: those that match.
    fn subscription_ids(&self, sent: &InFlight, topic: &str) -> SmallVec<[SubscriptionId; 4]> {
        let subscriptions = &self.session.subscriptions;
        if sent.sources.is_empty() && sent.retain {
            let matching =
                subscriptions.values().filter(|one| !one.is_shared() && filter::matches(one.filter(), topic));
            return matching.filter_map(|one| one.id).collect();
        }
        sent.sources.iter().filter_map(|from| subscriptions.get(from.subscription)?.id).collect()
    }

    /// A message cannot be sent again; its delivery ends. One with QoS 2 ends in order: the client may have it already,
    /// and would take the next message under this identifier for the same one ([MQTT-2.2.1-4]).
    fn give_up(&mut self, id: PacketId) {
        if self.session.window.pubrec(id) {
            self.send(&Packet::Pubrel(Ack::new(id, ReasonCode::SUCCESS)));
        } else {
            let done = self.session.window.abandon(id);
            self.delivered(done.as_ref());
        }
    }

    /// Reads a record that was sent before; `None` if it cannot be read any more, which is a loss.
    async fn fetch(&mut self, pointer: Pointer) -> Result<Option<Record>, Close> {
        match self.shared.store.fetch(vec![pointer]).await {
            Ok(records) => {
                let record = records.into_iter().next().flatten();
                self.tally.skipped += u64::from(record.is_none());
                Ok(record)
            }
            Err(error @ StoreError::Corrupt { .. }) => {
                error!(client = &*self.session.client, %error, "a message in flight is lost");
                self.tally.unreadable += 1;
                Ok(None)
            }
            Err(error) => Err(unavailable(&error)),
        }
    }
}
