//! Packets from the client, and the receipts of what it published.

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::FutureExt;
use tidemill_store::{Appended, Receipt, StoreError};
use tracing::debug;

use super::super::accounts::Mark;
use super::super::codec::{
    Ack, AckProperties, Disconnect, Packet, PacketId, Publish, Qos, ReasonCode, Version,
};
use super::super::limits::Limit;
use super::super::session::Arrival;
use super::super::wills;
use super::content::{self, Refusal};
use super::subscribe::Change;
use super::{Close, Connection, next_receipt};
use crate::message::{self, Properties};

/// An acknowledgement that is owed.
#[derive(Clone, Copy, Debug)]
pub(super) struct AckDue {
    id: PacketId,
    qos: Qos,
    /// What it says whatever becomes of the batch; `None` if that decides.
    verdict: Option<ReasonCode>,
    /// A QoS 2 message that came again.
    repeated: bool,
}

impl AckDue {
    fn is_new_qos_2(&self) -> bool {
        self.qos == Qos::ExactlyOnce && !self.repeated
    }
}

/// A batch on its way to the disk, and what is owed for it.
pub(super) struct Pending {
    /// `None` if nothing of it was to be stored.
    pub(super) receipt: Option<Receipt>,
    acks: Vec<AckDue>,
    records: u64,
    /// Of its records, together.
    payload_bytes: u64,
    /// A place in the log before its records, if the session's document will have to account for some.
    pub(super) mark: Option<Mark>,
}

impl Connection {
    /// Handles one packet, unless it is one that changes subscriptions.
    pub(super) fn handle(&mut self, packet: Packet) -> Result<Option<Change>, Close> {
        match packet {
            Packet::Publish(publish) => self.on_publish(publish)?,
            Packet::Puback(ack) => {
                let done = self.session.window.puback(ack.id);
                self.delivered(done.as_ref());
            }
            Packet::Pubrec(ack) => self.on_pubrec(&ack),
            Packet::Pubrel(ack) => {
                let known = self.session.inbound.release(ack.id);
                let reason =
                    if known { ReasonCode::SUCCESS } else { ReasonCode::PACKET_IDENTIFIER_NOT_FOUND };
                self.send(&Packet::Pubcomp(Ack::new(ack.id, reason)));
            }
            Packet::Pubcomp(ack) => {
                let done = self.session.window.pubcomp(ack.id);
                self.delivered(done.as_ref());
            }
            Packet::Subscribe(subscribe) => return Ok(Some(Change::Subscribe(subscribe))),
            Packet::Unsubscribe(unsubscribe) => return Ok(Some(Change::Unsubscribe(unsubscribe))),
            Packet::Pingreq => self.send(&Packet::Pingresp),
            Packet::Disconnect(disconnect) => return Err(self.on_disconnect(&disconnect)),
            Packet::Auth(auth) => self.on_auth(&auth)?,
            Packet::Connect(_)
            | Packet::Connack(_)
            | Packet::Suback(_)
            | Packet::Unsuback(_)
            | Packet::Pingresp => {
                return Err(Close::Refused {
                    reason: ReasonCode::PROTOCOL_ERROR,
                    what: "a packet that only a server sends, or a second CONNECT",
                });
            }
        }
        Ok(None)
    }

    fn on_publish(&mut self, mut publish: Publish) -> Result<(), Close> {
        if !publish.properties.subscription_ids.is_empty() {
            return Err(Close::Refused {
                reason: ReasonCode::PROTOCOL_ERROR,
                what: "a PUBLISH of a client has a Subscription Identifier [MQTT-3.3.4-6]",
            });
        }
        if let Some(bounds) = &self.bounds {
            bounds.message();
        }
        self.resolve_alias(&mut publish)?;
        if let Some(id) = publish.id {
            let maximum = self.receive_maximum();
            match self.session.inbound.arrive(publish.qos, id, maximum) {
                Ok(Arrival::New) => {}
                Ok(Arrival::Repeated) => {
                    self.batch_acks.push(AckDue { id, qos: publish.qos, verdict: None, repeated: true });
                    return Ok(());
                }
                Err(_) => {
                    self.shared.counters.reached(Limit::ReceiveMaximum);
                    return Err(Close::Refused {
                        reason: ReasonCode::RECEIVE_MAXIMUM_EXCEEDED,
                        what: "more messages in flight than Receive Maximum allows",
                    });
                }
            }
        }
        let is_text = publish.properties.payload_is_text == Some(true);
        if let Err(refusal) = content::check(&self.shared, &publish.topic, &publish.payload, is_text) {
            return self.refuse_publish(&publish, &refusal);
        }
        if let Some(standing) = &mut self.standing
            && !standing.may_publish(&publish.topic, publish.retain)
        {
            return self.deny_publish(&publish);
        }
        let Publish { qos, retain, id, payload, properties, topic, .. } = publish;
        // So that it is known again after a crash.
        let packet_id = id.filter(|_| qos == Qos::ExactlyOnce && self.session.is_persistent());
        let properties = if properties.is_empty() && packet_id.is_none() {
            self.plain_properties.clone()
        } else {
            let encoded = Properties::of_publish(self.session.client.clone(), self.user.clone(), properties)
                .and_then(|properties| Properties { packet_id, ..properties }.encode());
            encoded.map_err(|_| Close::Refused {
                reason: ReasonCode::UNSPECIFIED_ERROR,
                what: "the properties of a message cannot be stored",
            })?
        };
        self.batch.push(message::record(topic, properties, payload, qos, retain));
        if let Some(id) = id {
            self.batch_acks.push(AckDue { id, qos, verdict: None, repeated: false });
        }
        Ok(())
    }

    /// Puts the topic in that an alias stands for, or notes which it is to stand for (3.3.2.3.4).
    fn resolve_alias(&mut self, publish: &mut Publish) -> Result<(), Close> {
        let Some(alias) = publish.properties.topic_alias.take() else { return Ok(()) };
        let invalid = |what| Close::Refused { reason: ReasonCode::TOPIC_ALIAS_INVALID, what };
        if alias > self.shared.options.topic_alias_max {
            self.shared.counters.reached(Limit::TopicAlias);
            return Err(invalid("the topic alias is over the maximum"));
        }
        let index = usize::from(alias) - 1;
        if publish.topic.is_empty() {
            let known = self.aliases.get(index).filter(|topic| !topic.is_empty());
            let unknown = || Close::Refused {
                reason: ReasonCode::PROTOCOL_ERROR,
                what: "the topic alias was not given a topic before",
            };
            publish.topic = known.ok_or_else(unknown)?.clone();
        } else {
            if self.aliases.len() <= index {
                self.aliases.resize(index + 1, ByteString::new());
            }
            if let Some(place) = self.aliases.get_mut(index) {
                // A copy: a slice would keep the whole read buffer for as long as the alias.
                *place = ByteString::from(&*publish.topic);
            }
        }
        Ok(())
    }

    /// Refuses a message: with its acknowledgement where there is one that can say it, otherwise by closing
    /// ([MQTT-3.3.5-2] of 3.1.1).
    fn refuse_publish(&mut self, publish: &Publish, refusal: &Refusal) -> Result<(), Close> {
        match publish.id {
            Some(id) if self.version == Version::V5 => {
                self.shared.counters.refuse(refusal.ack);
                let verdict = Some(refusal.ack);
                self.batch_acks.push(AckDue { id, qos: publish.qos, verdict, repeated: false });
                Ok(())
            }
            _ => Err(Close::Refused { reason: refusal.close, what: refusal.what }),
        }
    }

    /// Refuses a message that its client may not publish. With QoS 0 it is dropped, and told of: a device that is cut for
    /// each such message would only come back with the next. In 3.1.1 an acknowledgement would say it is stored.
    fn deny_publish(&mut self, publish: &Publish) -> Result<(), Close> {
        if publish.qos == Qos::AtMostOnce {
            self.shared.counters.refuse(ReasonCode::NOT_AUTHORIZED);
            return Ok(());
        }
        let what = "this client may not publish to this topic";
        self.refuse_publish(publish, &Refusal::of(ReasonCode::NOT_AUTHORIZED, what))
    }

    fn on_pubrec(&mut self, ack: &Ack) {
        if ack.reason.is_error() {
            let done = self.session.window.pubrec_refused(ack.id);
            self.delivered(done.as_ref());
            return;
        }
        let known = self.session.window.pubrec(ack.id);
        let reason = if known { ReasonCode::SUCCESS } else { ReasonCode::PACKET_IDENTIFIER_NOT_FOUND };
        self.send(&Packet::Pubrel(Ack::new(ack.id, reason)));
    }

    fn on_disconnect(&mut self, disconnect: &Disconnect) -> Close {
        if disconnect.properties.server_reference.is_some() {
            return Close::Refused {
                reason: ReasonCode::PROTOCOL_ERROR,
                what: "a DISCONNECT of a client has a Server Reference",
            };
        }
        if let Some(asked_s) = disconnect.properties.session_expiry_s {
            if self.session.expiry_s == 0 && asked_s > 0 {
                return Close::Refused {
                    reason: ReasonCode::PROTOCOL_ERROR,
                    what: "a session that was to end with its connection cannot be kept after all",
                };
            }
            let max_s = self.shared.options.session_expiry_max_s();
            if asked_s > max_s {
                self.shared.counters.reached(Limit::SessionExpiry);
            }
            self.session.expiry_s = asked_s.min(max_s);
        }
        Close::Goodbye { with_will: disconnect.reason != ReasonCode::SUCCESS }
    }

    /// Hands the messages of this turn to the store as one batch. Waits for room there.
    pub(super) async fn submit(&mut self) -> Result<(), Close> {
        if self.batch.is_empty() && self.batch_acks.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        let acks = std::mem::take(&mut self.batch_acks);
        let records = batch.len() as u64;
        let payload_bytes = batch.iter().map(|record| record.payload.len() as u64).sum();
        let new_qos_2 = acks.iter().any(AckDue::is_new_qos_2);
        let mark = (new_qos_2 && self.session.is_persistent()).then(|| {
            self.hold();
            self.shared.accounts.mark()
        });
        let receipt = if batch.is_empty() {
            None
        } else {
            let submitted = match wills::come_first(&self.shared, &self.session.client).await {
                Ok(()) => self.shared.store.submit(batch).await,
                Err(full) => Err(full),
            };
            match submitted {
                Ok(receipt) => Some(receipt),
                Err(error) => {
                    self.pending_acks += acks.len();
                    self.pending.push_back(Pending {
                        receipt: None,
                        acks,
                        records: 0,
                        payload_bytes: 0,
                        mark: None,
                    });
                    return self.fail_last(&error);
                }
            }
        };
        self.pending_acks += acks.len();
        self.pending.push_back(Pending { receipt, acks, records, payload_bytes, mark });
        Ok(())
    }

    /// The last batch was not taken: what is owed for it says so, in its turn.
    fn fail_last(&mut self, error: &StoreError) -> Result<(), Close> {
        let reason = reason_of(error);
        debug!(client = &*self.session.client, %error, "messages were not stored");
        if self.version == Version::V311 {
            if let Some(failed) = self.pending.pop_back() {
                self.pending_acks -= failed.acks.len();
                self.forget(&failed.acks);
            }
            return Err(Close::Refused { reason, what: "messages were not stored" });
        }
        if let Some(failed) = self.pending.back_mut() {
            for ack in failed.acks.iter_mut().filter(|ack| !ack.repeated) {
                ack.verdict.get_or_insert(reason);
            }
        }
        Ok(())
    }

    /// Turns receipts that have resolved into acknowledgements.
    pub(super) fn settle(&mut self) -> Result<(), Close> {
        while !self.pending.is_empty() {
            let Some(stored) = next_receipt(&mut self.pending).now_or_never() else { break };
            self.acknowledge(stored)?;
        }
        Ok(())
    }

    /// The first batch has resolved.
    pub(super) fn acknowledge(&mut self, stored: Result<Option<Appended>, StoreError>) -> Result<(), Close> {
        let Some(first) = self.pending.pop_front() else { return Ok(()) };
        self.pending_acks -= first.acks.len();
        let outcome = match stored {
            Ok(appended) => {
                self.tally.published += first.records;
                self.tally.published_bytes += first.payload_bytes;
                if let Some(Appended { sequence, .. }) = appended {
                    self.session.inbound.account_to(sequence + first.records);
                }
                ReasonCode::SUCCESS
            }
            Err(error) => {
                // The store itself says, once, that it refuses records and why.
                debug!(client = &*self.session.client, %error, "messages were not stored");
                let reason = reason_of(&error);
                // Whether it is stored all the same, the next start will know, and whoever sends it again then is told so.
                let unknown = !is_refusal(&error) && first.acks.iter().any(AckDue::is_new_qos_2);
                if self.version == Version::V311 || unknown {
                    self.forget(&first.acks);
                    return Err(Close::Refused { reason, what: "messages were not stored" });
                }
                reason
            }
        };
        for ack in first.acks {
            let reason = ack.verdict.unwrap_or(outcome);
            match ack.qos {
                Qos::ExactlyOnce if ack.repeated => {
                    // If the first one was refused in the meantime, that was the answer.
                    if self.session.inbound.knows(ack.id) {
                        self.send(&Packet::Pubrec(Ack::new(ack.id, ReasonCode::SUCCESS)));
                    }
                }
                Qos::ExactlyOnce => {
                    self.session.inbound.received(ack.id, !reason.is_error());
                    let packet = self.ack(ack.id, reason);
                    self.send(&Packet::Pubrec(packet));
                }
                _ => {
                    self.session.inbound.acknowledged();
                    let packet = self.ack(ack.id, reason);
                    self.send(&Packet::Puback(packet));
                }
            }
        }
        Ok(())
    }

    /// An acknowledgement, with a text where it is an error and texts are welcome.
    fn ack(&self, id: PacketId, reason: ReasonCode) -> Ack {
        let text = reason.is_error() && self.limits.problem_information;
        let reason_string = text.then(|| ByteString::from_static(reason.name()));
        let with_text = AckProperties { reason_string, user_properties: Vec::new() };
        let fits = reason.name().len() + 16 <= self.limits.packet_bytes_max;
        Ack { id, reason, properties: if fits { with_text } else { AckProperties::default() } }
    }

    /// These messages were not stored: their identifiers stand for nothing.
    fn forget(&mut self, acks: &[AckDue]) {
        for ack in acks.iter().filter(|ack| ack.is_new_qos_2()) {
            self.session.inbound.received(ack.id, false);
        }
    }
}

/// What a client is told about a store that does not store.
fn reason_of(error: &StoreError) -> ReasonCode {
    if is_refusal(error) { ReasonCode::QUOTA_EXCEEDED } else { ReasonCode::UNSPECIFIED_ERROR }
}

/// Whether nothing was stored, for certain.
fn is_refusal(error: &StoreError) -> bool {
    matches!(error, StoreError::Full { .. } | StoreError::TooLarge { .. })
}

/// What is stored with every message of a client that has no properties of its own.
pub(super) fn plain_properties(client: &ByteString, user: Option<&ByteString>) -> Bytes {
    let properties = Properties { client: client.clone(), user: user.cloned(), ..Properties::default() };
    // Both came out of a CONNECT, where their lengths fitted.
    properties.encode().unwrap_or_default()
}
