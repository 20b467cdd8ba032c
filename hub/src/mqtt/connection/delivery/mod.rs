//! Messages to the client: first what is to be sent again, then retained messages, then the queues in turn, each
//! as far as the client's window and the output buffer have room.
//!
//! # Layout
//! - `resend`: what was in flight before this connection
//! - `retained`: retained messages for new subscriptions
//! - `queued`: the queues, in turn
//! - `merged`: queues of subscriptions that overlap, as one
//! - `offer`: one message: whether it is sent, and as what
//! - `alias`: topics that the client knows by a number

mod alias;
mod merged;
mod offer;
mod queued;
mod resend;
mod retained;

use std::collections::VecDeque;
use std::sync::Arc;

use foldhash::HashMap;
use tidemill_store::StoreError;

use self::alias::Aliases;
use self::retained::Replay;
use super::super::codec::{PacketId, ReasonCode};
use super::super::session::{InFlight, Overlaps, Session, Step, SubscriptionKey};
use super::super::share::Group;
use super::super::told::seldom;
use super::{Close, Connection};

/// What is to be delivered.
#[derive(Default)]
pub(super) struct Delivery {
    /// Messages in flight from before this connection, to be sent again, in order; some may have been answered since.
    resend: VecDeque<PacketId>,
    /// Subscriptions whose retained messages are to be sent.
    replays: VecDeque<Replay>,
    /// Subscriptions whose queues may have something, each once, in turn. One stands for all of a group that overlaps.
    ready: VecDeque<SubscriptionKey>,
    overlaps: Overlaps,
    /// Groups of shared subscriptions; nothing where there are none.
    groups: Option<Box<HashMap<SubscriptionKey, Arc<Group>>>>,
    /// Whether the client's window was in the way when last tried.
    blocked: bool,
    /// Subscriptions whose cursors may have moved.
    moved: Vec<SubscriptionKey>,
    aliases: Aliases,
}

impl Delivery {
    /// Whether there is something that could be tried now.
    pub(super) fn has_work(&self) -> bool {
        !self.blocked && (!self.resend.is_empty() || !self.replays.is_empty() || !self.ready.is_empty())
    }

    /// Whether the queue of any subscription may have something.
    pub(super) fn is_waiting(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Subscriptions whose queues may have something.
    pub(super) fn waiting(&self) -> impl Iterator<Item = SubscriptionKey> {
        self.ready
            .iter()
            .flat_map(|key| match self.overlaps.beside(*key) {
                [] => std::slice::from_ref(key),
                group => group,
            })
            .copied()
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
        self.overlaps.wake(key);
        self.put_ready(key);
    }

    /// Gives a subscription, or the group that it overlaps with, its turn.
    fn put_ready(&mut self, key: SubscriptionKey) {
        let key = self.overlaps.lead(key).unwrap_or(key);
        if !self.ready.contains(&key) {
            self.ready.push_back(key);
            self.blocked = false;
        }
    }

    /// A cursor may have moved. (One that moves again and again is noted once.)
    pub(super) fn note_moved(&mut self, key: SubscriptionKey) {
        if self.moved.last() != Some(&key) {
            self.moved.push(key);
        }
    }

    /// Groups have something for us.
    pub(super) fn wake_shared(&mut self, session: &Session) {
        let shared = session.subscriptions.iter().filter(|(_, subscription)| subscription.is_shared());
        shared.for_each(|(key, _)| self.wake_one(key));
    }

    /// The group of a shared subscription.
    pub(super) fn group(&self, key: SubscriptionKey) -> Option<&Arc<Group>> {
        self.groups.as_ref()?.get(&key)
    }
}

impl Connection {
    /// Takes up the session: what was in flight is to be sent again, queues to be looked at.
    pub(super) fn resume(&mut self) {
        self.delivery.resend = self.session.window.wait().into();
        self.delivery.overlaps = Overlaps::of(&self.session.subscriptions);
        let keys: Vec<SubscriptionKey> = self.session.subscriptions.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.take_up(key);
            if self.session.subscriptions.get(key).is_some_and(|subscription| subscription.retained.is_some())
            {
                self.delivery.replay(key);
            }
        }
    }

    /// Starts the delivery of a new subscription.
    pub(super) fn start(&mut self, key: SubscriptionKey) {
        self.delivery.overlaps.add(key, &self.session.subscriptions);
        self.take_up(key);
    }

    fn take_up(&mut self, key: SubscriptionKey) {
        if let Some(subscription) = self.session.subscriptions.get(key)
            && subscription.is_shared()
            && let Some(group) = self.shared.groups.find(subscription)
        {
            group.join(&self.mail);
            self.delivery.groups.get_or_insert_default().insert(key, group);
        }
        self.delivery.wake_one(key);
    }

    /// Stops the delivery of a subscription that is about to go. [`Connection::part`] follows.
    pub(super) fn stop(&mut self, key: SubscriptionKey) {
        let Some(subscription) = self.session.subscriptions.get(key) else { return };
        let queue = subscription.queue;
        self.delivery.ready.retain(|ready| *ready != key);
        self.delivery.forget_replay(key);
        self.shared.store.unwatch(queue, &self.mail.bell, Some(key.0 as u64));
        if let Some(group) = self.delivery.groups.as_mut().and_then(|groups| groups.remove(&key)) {
            self.leave_for_good(key, &group);
        }
    }

    /// Subscriptions that were stopped are gone: what they overlapped goes on by itself. Once for all of them, since
    /// all that is left is compared anew.
    pub(super) fn part(&mut self, gone: &[SubscriptionKey]) {
        let beside = self.delivery.overlaps.remove(gone, &self.session.subscriptions);
        beside.into_iter().for_each(|other| self.delivery.wake_one(other));
    }

    /// A membership ends, and the connection goes on. What is in flight is completed here (3.10.4), but nobody will
    /// tell the group: QoS 1 goes to the others as well, QoS 2 must not (MQTT-4.8.2-5).
    fn leave_for_good(&self, key: SubscriptionKey, group: &Group) {
        let mut unfinished = Vec::new();
        for (_, sent) in self.session.window.in_order() {
            for source in sent.sources.iter().filter(|source| source.subscription == key) {
                if sent.step == Step::Puback {
                    unfinished.push(source.offset);
                } else {
                    group.done(&self.shared.store, source.offset, sent.step);
                }
            }
        }
        group.leave(&self.mail, unfinished);
    }

    /// The delivery of a message has ended; there is room for another.
    pub(super) fn delivered(&mut self, done: Option<&InFlight>) {
        let Some(done) = done else { return };
        self.delivery.blocked = false;
        self.session.finish(done);
        for source in &done.sources {
            match self.delivery.group(source.subscription) {
                Some(group) => group.done(&self.shared.store, source.offset, done.step),
                None => self.delivery.note_moved(source.subscription),
            }
        }
    }

    /// Whether the output buffer takes more.
    pub(super) fn has_room(&self) -> bool {
        self.output.len() < self.shared.options.out_buffer_bytes_max as usize
    }

    /// How many more QoS 1 and 2 messages may be in flight. What is yet to be sent again is not.
    fn window_room(&self) -> usize {
        let in_flight = self.session.window.len() - self.session.window.waiting();
        usize::from(self.limits.window_max).saturating_sub(in_flight)
    }

    /// Sends what there is room for, then keeps durably how far the client has come.
    pub(super) async fn deliver(&mut self) -> Result<(), Close> {
        // What is rare is boxed: every connection would keep room for it.
        if !self.delivery.resend.is_empty() {
            Box::pin(self.send_again()).await?;
        }
        if self.delivery.resend.is_empty() {
            let held = !self.delivery.replays.is_empty() && Box::pin(self.send_retained()).await?;
            self.send_queued().await?;
            self.delivery.blocked |= held && self.delivery.ready.is_empty();
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

    /// Asks to be told when a queue has something at or after an offset.
    fn watch(&mut self, key: SubscriptionKey, offset: u64) -> Result<(), Close> {
        let Some(subscription) = self.session.subscriptions.get(key) else { return Ok(()) };
        let token = key.0 as u64;
        let armed = self.shared.store.watch(subscription.queue, offset, false, &self.mail.bell, token);
        armed.map_err(|error| unavailable(&error))
    }
}

/// The store cannot be read: nothing is lost, but this connection cannot go on.
pub(super) fn unavailable(error: &StoreError) -> Close {
    if !matches!(error, StoreError::Closed) {
        seldom!(warn, %error, "a queue cannot be read; the connection is closed, and its session stays where it was");
    }
    Close::Refused { reason: ReasonCode::UNSPECIFIED_ERROR, what: "the store cannot be read" }
}
