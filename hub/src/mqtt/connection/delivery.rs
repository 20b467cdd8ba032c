//! Messages to the client: first what is to be sent again, then retained messages, then the queues in turn, each
//! as far as the client's window and the output buffer have room.

use std::collections::VecDeque;
use std::sync::Arc;

use foldhash::HashMap;
use tidemill_store::{Pointer, ReadRequest, Record, Retain, StoreError};
use tracing::{error, warn};

use super::super::codec::{Ack, Packet, PacketId, PublishHead, Qos, ReasonCode, SubscriptionId};
use super::super::session::{InFlight, Session, Source, Step, SubscriptionKey};
use super::super::share::Group;
use super::super::shared::now_ms;
use super::{Close, Connection};
use crate::message::{self, Expired, Head};

/// Records read from a queue at a time.
const RECORDS_MAX: usize = 128;
/// Records looked at in one turn, whether they are sent or left out.
const RECORDS_PER_TURN: usize = 4096;
/// Retained messages read at a time.
const RETAINED_PAGE: usize = 32;
/// Messages read again at a time.
const RESEND_PAGE: usize = 32;

/// What is to be delivered.
#[derive(Default)]
pub(super) struct Delivery {
    /// Messages in flight from before this connection, to be sent again, in order.
    resend: VecDeque<PacketId>,
    /// Subscriptions whose retained messages are to be sent.
    replays: VecDeque<Replay>,
    /// Subscriptions whose queues may have something, each once, in turn.
    ready: VecDeque<SubscriptionKey>,
    /// Groups of shared subscriptions.
    groups: HashMap<SubscriptionKey, Arc<Group>>,
    /// Whether the client's window was in the way when last tried.
    blocked: bool,
    /// Subscriptions whose cursors may have moved.
    moved: Vec<SubscriptionKey>,
}

/// Retained messages on their way to a new subscription.
struct Replay {
    key: SubscriptionKey,
    /// Topic of the last one seen.
    after: Option<String>,
    /// What was stored from this sequence on comes from the queue.
    before: u64,
    page: VecDeque<Record>,
    /// Whether `page` is the last.
    last: bool,
}

impl Delivery {
    /// Whether there is something that could be tried now.
    pub(super) fn has_work(&self) -> bool {
        !self.blocked && (!self.resend.is_empty() || !self.replays.is_empty() || !self.ready.is_empty())
    }

    /// Queues have something.
    pub(super) fn wake(&mut self, tokens: &[u64], session: &Session) {
        for token in tokens {
            let key = SubscriptionKey(*token as usize);
            // The bell may still ring for a subscription that is gone.
            if session.subscriptions.get(key).is_some() {
                self.wake_one(key);
            }
        }
    }

    fn wake_one(&mut self, key: SubscriptionKey) {
        if !self.ready.contains(&key) {
            self.ready.push_back(key);
            self.blocked = false;
        }
    }

    /// A cursor may have moved. (One that moves again and again is noted once.)
    fn note_moved(&mut self, key: SubscriptionKey) {
        if self.moved.last() != Some(&key) {
            self.moved.push(key);
        }
    }

    /// Groups have something for us.
    pub(super) fn wake_shared(&mut self, session: &Session) {
        let shared = session.subscriptions.iter().filter(|(_, subscription)| subscription.is_shared());
        shared.for_each(|(key, _)| self.wake_one(key));
    }

    /// Retained messages stored before a sequence are to be sent to a subscription.
    pub(super) fn replay(&mut self, key: SubscriptionKey, before: u64) {
        self.replays.retain(|replay| replay.key != key);
        let page = VecDeque::new();
        self.replays.push_back(Replay { key, after: None, before, page, last: false });
        self.blocked = false;
    }

    /// The group of a shared subscription.
    pub(super) fn group(&self, key: SubscriptionKey) -> Option<&Arc<Group>> {
        self.groups.get(&key)
    }
}

/// A message about to be sent.
struct Offer<'a> {
    record: &'a Record,
    /// Where it comes from, for what is in flight.
    source: Source,
    /// Highest QoS that was granted.
    granted: Qos,
    retain: bool,
    subscription_id: Option<SubscriptionId>,
    /// Whether messages of the client's own are left out.
    no_local: bool,
}

/// What became of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    /// It is in flight.
    InFlight,
    /// There is nothing further to do for it: sent with QoS 0, or not to be sent.
    Done,
}

impl Connection {
    /// Takes up the session: what was in flight is to be sent again, queues to be looked at.
    pub(super) fn resume(&mut self) {
        self.delivery.resend = self.session.window.in_order().into_iter().map(|(id, _)| id).collect();
        let keys: Vec<SubscriptionKey> = self.session.subscriptions.iter().map(|(key, _)| key).collect();
        keys.into_iter().for_each(|key| self.start(key));
    }

    /// Starts the delivery of a subscription.
    pub(super) fn start(&mut self, key: SubscriptionKey) {
        if let Some(subscription) = self.session.subscriptions.get(key)
            && subscription.is_shared()
            && let Some(group) = self.shared.groups.find(subscription)
        {
            group.join(&self.mail);
            self.delivery.groups.insert(key, group);
        }
        self.delivery.wake_one(key);
    }

    /// Stops the delivery of a subscription that is about to go.
    pub(super) fn stop(&mut self, key: SubscriptionKey) {
        let Some(subscription) = self.session.subscriptions.get(key) else { return };
        let queue = subscription.queue;
        self.delivery.ready.retain(|ready| *ready != key);
        self.delivery.replays.retain(|replay| replay.key != key);
        self.shared.store.unwatch(queue, &self.bell);
        // A shared and a plain subscription can have the same queue; the other one looks for itself.
        let others = self.session.subscriptions.iter();
        let others: Vec<_> = others.filter(|(other, of)| *other != key && of.queue == queue).collect();
        others.into_iter().for_each(|(other, _)| self.delivery.wake_one(other));
        if let Some(group) = self.delivery.groups.remove(&key) {
            self.leave_for_good(key, &group);
        }
    }

    /// A membership ends, and the connection goes on. What is in flight is completed here (3.10.4), but nobody will
    /// tell the group: QoS 1 goes to the others as well, QoS 2 must not (MQTT-4.8.2-5).
    fn leave_for_good(&self, key: SubscriptionKey, group: &Group) {
        let mut unfinished = Vec::new();
        for (_, sent) in self.session.window.in_order() {
            let Source::Queue { subscription, offset } = sent.source else { continue };
            if subscription != key {
                continue;
            }
            if sent.step == Step::Puback {
                unfinished.push((offset, sent.pointer));
            } else {
                group.done(&self.shared.store, offset);
            }
        }
        group.leave(&self.mail, unfinished);
    }

    /// The delivery of a message has ended; there is room for another.
    pub(super) fn delivered(&mut self, done: Option<&InFlight>) {
        let Some(done) = done else { return };
        self.delivery.blocked = false;
        self.session.finish(done);
        let Source::Queue { subscription, offset } = done.source else { return };
        match self.delivery.groups.get(&subscription) {
            Some(group) => group.done(&self.shared.store, offset),
            None => self.delivery.note_moved(subscription),
        }
    }

    /// Whether the output buffer takes more.
    pub(super) fn has_room(&self) -> bool {
        self.output.len() < self.shared.options.out_buffer_bytes_max as usize
    }

    /// How many more QoS 1 and 2 messages may be in flight. What is yet to be sent again is not.
    fn window_room(&self) -> usize {
        let in_flight = self.session.window.len() - self.delivery.resend.len();
        self.limits.window_max.saturating_sub(in_flight)
    }

    /// Sends what there is room for, then keeps durably how far the client has come.
    pub(super) async fn deliver(&mut self) -> Result<(), Close> {
        self.send_again().await?;
        if self.delivery.resend.is_empty() {
            self.send_retained().await?;
            self.send_queued().await?;
        }
        self.commit_cursors();
        Ok(())
    }

    /// Keeps durably how far the client has come.
    pub(super) fn commit_cursors(&mut self) {
        for key in std::mem::take(&mut self.delivery.moved) {
            let Some(subscription) = self.session.subscriptions.get_mut(key) else { continue };
            let Some(place) = subscription.cursor.take_moved() else { continue };
            // The place of a shared subscription is its group's.
            if let Some(id) = subscription.cursor.id() {
                self.shared.store.commit(id, place);
            }
        }
    }

    /// Sends what was in flight when the connection before this one ended, in its order ([MQTT-4.4.0-1]).
    async fn send_again(&mut self) -> Result<(), Close> {
        while !self.delivery.resend.is_empty() && self.has_room() {
            let room = self.window_room();
            if room == 0 {
                self.delivery.blocked = true;
                return Ok(());
            }
            let page = room.min(RESEND_PAGE).min(self.delivery.resend.len());
            let ids: Vec<PacketId> = self.delivery.resend.drain(..page).collect();
            for id in ids {
                let Some(sent) = self.session.window.get(id).copied() else { continue };
                if sent.step == Step::Pubcomp {
                    self.send(&Packet::Pubrel(Ack::new(id, ReasonCode::SUCCESS)));
                } else {
                    self.send_message_again(id, sent).await?;
                }
            }
        }
        Ok(())
    }

    async fn send_message_again(&mut self, id: PacketId, sent: InFlight) -> Result<(), Close> {
        let record = match self.fetch(sent.pointer).await? {
            Some(record) => record,
            None => {
                let done = self.session.window.abandon(id);
                self.delivered(done.as_ref());
                return Ok(());
            }
        };
        let subscription_id = match sent.source {
            Source::Queue { subscription, .. } => {
                self.session.subscriptions.get(subscription).and_then(|s| s.id)
            }
            Source::Alone => None,
        };
        let qos = if sent.step == Step::Puback { Qos::AtLeastOnce } else { Qos::ExactlyOnce };
        let Ok(head) = Head::decode(&record.properties) else { return Ok(()) };
        // What was sent once is not taken back because it expires in between; its interval is then 0.
        let message_expiry_s = head.message_expiry_s.map(|_| {
            message::remaining_s(&record, head.message_expiry_s, now_ms()).ok().flatten().unwrap_or(0)
        });
        let head = PublishHead {
            dup: true,
            qos,
            retain: sent.retain,
            topic: &record.topic,
            id: Some(id),
            message_expiry_s,
            subscription_id,
            forwarded: head.forwarded,
            payload_bytes: record.payload.len(),
        };
        // A client may come back with a smaller Maximum Packet Size.
        let fits = head.packet_bytes(self.version).is_ok_and(|bytes| bytes <= self.limits.packet_bytes_max);
        if fits && self.output.publish(&head, &record.payload, self.version).is_ok() {
            self.tally.packets_out += 1;
            self.tally.delivered += 1;
            self.tally.resent += 1;
        } else {
            self.tally.oversized += 1;
            let done = self.session.window.abandon(id);
            self.delivered(done.as_ref());
        }
        Ok(())
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

    /// Sends retained messages to subscriptions that are new.
    async fn send_retained(&mut self) -> Result<(), Close> {
        while self.has_room() {
            let Some(mut replay) = self.delivery.replays.pop_front() else { return Ok(()) };
            let Some(subscription) = self.session.subscriptions.get(replay.key) else { continue };
            let options = subscription.options;
            let subscription_id = subscription.id;
            if replay.page.is_empty() && !replay.last {
                let filter = subscription.filter().to_owned();
                let after = replay.after.as_deref();
                let page = self.shared.store.retained(&filter, after, RETAINED_PAGE).await;
                let page = page.map_err(|error| unavailable(&error))?;
                replay.last = page.is_empty();
                replay.after = page.last().map(|record| record.topic.to_string()).or(replay.after);
                replay.page = page.into();
            }
            while self.has_room() {
                if options.qos > Qos::AtMostOnce && self.window_room() == 0 {
                    self.delivery.blocked = true;
                    self.delivery.replays.push_front(replay);
                    return Ok(());
                }
                let Some(record) = replay.page.pop_front() else { break };
                // A kept one is in no queue, however late it was written.
                if record.sequence >= replay.before && !record.kept {
                    continue;
                }
                self.offer(&Offer {
                    record: &record,
                    source: Source::Alone,
                    granted: options.qos,
                    retain: true,
                    subscription_id,
                    no_local: options.no_local,
                });
            }
            if !replay.last {
                self.delivery.replays.push_front(replay);
            }
        }
        Ok(())
    }

    /// Reads the queues that have something, in turn, as long as something comes of it.
    async fn send_queued(&mut self) -> Result<(), Close> {
        let (mut idle, mut left) = (0, RECORDS_PER_TURN);
        while left > 0 && self.has_room() && idle < self.delivery.ready.len() {
            let Some(key) = self.delivery.ready.pop_front() else { break };
            let Some(subscription) = self.session.subscriptions.get(key) else { continue };
            let certain = subscription.options.qos > Qos::AtMostOnce;
            let room = if certain { self.window_room().min(RECORDS_MAX) } else { RECORDS_MAX };
            if room == 0 {
                self.delivery.ready.push_back(key);
                idle += 1;
                continue;
            }
            idle = 0;
            let looked_at = match (subscription.is_shared(), self.delivery.groups.get(&key).cloned()) {
                (false, _) => self.send_from_queue(key, room).await?,
                (true, Some(group)) => self.send_from_group(key, &group, room).await?,
                (true, None) => {
                    error!(client = &*self.session.client, "a shared subscription has no group");
                    0
                }
            };
            left = left.saturating_sub(looked_at);
        }
        self.delivery.blocked = idle > 0 && idle >= self.delivery.ready.len();
        Ok(())
    }

    /// Reads a queue at its cursor once; how many records there were. The subscription stays ready until its
    /// queue is at its end.
    async fn send_from_queue(&mut self, key: SubscriptionKey, room: usize) -> Result<usize, Close> {
        let Some(subscription) = self.session.subscriptions.get(key) else { return Ok(0) };
        let (queue, from) = (subscription.queue, subscription.cursor.next());
        let space = (self.shared.options.out_buffer_bytes_max as usize).saturating_sub(self.output.len());
        let request = ReadRequest { queue, from, records_max: room, bytes_max: space.max(1), durable: false };
        let batch = match self.shared.store.read(request).await {
            Ok(batch) => batch,
            Err(error) => return Err(unavailable(&error)),
        };
        let (options, id) = match self.session.subscriptions.get(key) {
            Some(subscription) => (subscription.options, subscription.id),
            None => return Ok(0),
        };
        for (offset, record) in &batch.records {
            let sent = self.offer(&Offer {
                record,
                source: Source::Queue { subscription: key, offset: *offset },
                granted: options.qos,
                retain: options.retain_as_published && record.retain != Retain::No,
                subscription_id: id,
                no_local: options.no_local,
            });
            if let Some(subscription) = self.session.subscriptions.get_mut(key) {
                match sent {
                    Sent::InFlight => subscription.cursor.take(*offset, record.sequence),
                    Sent::Done => subscription.cursor.pass(*offset, record.sequence),
                }
            }
        }
        if let Some(subscription) = self.session.subscriptions.get_mut(key) {
            subscription.cursor.skip_to(batch.next);
        }
        self.tally.skipped += batch.skipped;
        self.delivery.note_moved(key);
        if batch.next < batch.end {
            self.delivery.ready.push_back(key);
        } else {
            self.watch(key, batch.next)?;
        }
        Ok(batch.records.len())
    }

    /// Fetches a member's share once; how many records that were.
    async fn send_from_group(
        &mut self,
        key: SubscriptionKey,
        group: &Arc<Group>,
        room: usize,
    ) -> Result<usize, Close> {
        let pulled = group.pull(&self.shared.store, &self.mail, room, &mut self.tally.skipped).await;
        let records = match pulled.map_err(|error| unavailable(&error))? {
            Ok(records) => records,
            Err(offset) => {
                self.watch(key, offset)?;
                return Ok(0);
            }
        };
        self.delivery.ready.push_back(key);
        let (options, id) = match self.session.subscriptions.get(key) {
            Some(subscription) => (subscription.options, subscription.id),
            None => return Ok(0),
        };
        for (offset, record) in &records {
            let sent = self.offer(&Offer {
                record,
                source: Source::Queue { subscription: key, offset: *offset },
                granted: options.qos,
                retain: options.retain_as_published && record.retain != Retain::No,
                subscription_id: id,
                no_local: false,
            });
            if sent == Sent::Done {
                group.done(&self.shared.store, *offset);
            }
        }
        Ok(records.len())
    }

    /// Asks to be told when a queue has something at or after an offset.
    fn watch(&mut self, key: SubscriptionKey, offset: u64) -> Result<(), Close> {
        let Some(subscription) = self.session.subscriptions.get(key) else { return Ok(()) };
        let token = key.0 as u64;
        let armed = self.shared.store.watch(subscription.queue, offset, false, &self.bell, token);
        armed.map_err(|error| unavailable(&error))
    }

    /// Sends a message, if it is one to send. There is room in the window if it needs any.
    fn offer(&mut self, offer: &Offer<'_>) -> Sent {
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
            subscription_id: offer.subscription_id,
            forwarded: head.forwarded,
            payload_bytes: record.payload.len(),
        };
        // Too large for the client: treated as if it had been sent ([MQTT-3.1.2-25]).
        match head.packet_bytes(self.version) {
            Ok(bytes) if bytes <= self.limits.packet_bytes_max => {}
            _ => {
                self.tally.oversized += 1;
                return Sent::Done;
            }
        }
        if placeholder.is_some() {
            match self.session.window.send(offer.source, record.pointer(), qos, offer.retain) {
                Some(id) => head.id = Some(id),
                None => {
                    // The window is never larger than the identifiers there are.
                    error!(client = &*self.session.client, "no packet identifier is free");
                    return Sent::Done;
                }
            }
        }
        match self.output.publish(&head, &record.payload, self.version) {
            Ok(()) => {
                self.tally.packets_out += 1;
                self.tally.delivered += 1;
            }
            Err(error) => {
                error!(position = %record.position, %error, "a message cannot be written");
                self.tally.unreadable += 1;
                if let Some(id) = head.id {
                    self.session.window.abandon(id);
                }
                return Sent::Done;
            }
        }
        if qos > Qos::AtMostOnce { Sent::InFlight } else { Sent::Done }
    }
}

/// The store cannot be read: nothing is lost, but this connection cannot go on.
fn unavailable(error: &StoreError) -> Close {
    if !matches!(error, StoreError::Closed) {
        warn!(%error, "a queue cannot be read; the connection is closed, and its session stays where it was");
    }
    Close::Refused { reason: ReasonCode::UNSPECIFIED_ERROR, what: "the store cannot be read" }
}
