//! SUBSCRIBE and UNSUBSCRIBE: a subscription is a cursor at the end of its filter's queue.

use bytestring::ByteString;
use smallvec::SmallVec;
use tidemill_store::{CursorPlace, QueueId, StoreError};

use super::super::codec::topic::{self, Requested};
use super::super::codec::{
    Packet, Qos, ReasonCode, RetainHandling, Suback, SubackProperties, Subscribe, SubscriptionId,
    SubscriptionOptions, TopicRequest, Unsuback, Unsubscribe, Version, answer_bytes_min,
};
use super::super::limits::Limit;
use super::super::session::{Cursor, Kept, RetainedPlace, Subscription, SubscriptionKey};
use super::super::told::seldom;
use super::super::{sessions, sys};
use super::{Close, Connection};

/// A packet that changes subscriptions.
pub(super) enum Change {
    Subscribe(Subscribe),
    Unsubscribe(Unsubscribe),
}

/// What became of one filter of a SUBSCRIBE.
enum Outcome {
    /// It is subscribed to; how it was before, if it was.
    Granted {
        key: SubscriptionKey,
        before: Option<Box<Before>>,
        /// Records of this sequence and later ones come from the queue.
        sequence: u64,
        qos: Qos,
        retain: RetainHandling,
    },
    Refused(ReasonCode),
}

/// What a SUBSCRIBE changes of a subscription that there is.
struct Before {
    options: SubscriptionOptions,
    id: Option<SubscriptionId>,
    retained: Option<Box<RetainedPlace>>,
}

impl Connection {
    /// What was published before comes before what is subscribed to after it.
    pub(super) async fn change(&mut self, change: Change) -> Result<(), Close> {
        self.submit().await?;
        match change {
            Change::Subscribe(subscribe) => self.subscribe(subscribe).await,
            Change::Unsubscribe(unsubscribe) => self.unsubscribe(unsubscribe).await,
        }
    }

    /// Makes the subscriptions, writes them down, answers, and only then sends retained messages.
    async fn subscribe(&mut self, subscribe: Subscribe) -> Result<(), Close> {
        self.check_subscribe(&subscribe)?;
        let id = subscribe.properties.subscription_id;
        let mut outcomes: SmallVec<[Outcome; 1]> = SmallVec::new();
        for request in &subscribe.filters {
            let outcome = self.subscribe_one(request, id).await?;
            outcomes.push(outcome);
        }
        for outcome in &outcomes {
            if let Outcome::Granted { key, before, sequence, retain, .. } = outcome {
                self.wants_retained(*key, before.is_none(), *sequence, *retain).await;
            }
        }
        let granted = outcomes.iter().any(|outcome| matches!(outcome, Outcome::Granted { .. }));
        if granted && let Err(error) = self.write_session().await {
            seldom!(warn, client = &*self.session.client, %error, "a subscription cannot be written");
            // The last first: one filter may be there twice.
            for outcome in outcomes.iter_mut().rev() {
                let refused = Outcome::Refused(ReasonCode::UNSPECIFIED_ERROR);
                if let Outcome::Granted { key, before, .. } = std::mem::replace(outcome, refused) {
                    match before {
                        None => self.drop_subscription(key).await,
                        Some(before) => self.restore(key, *before),
                    }
                }
            }
        }
        let reasons = outcomes.iter().map(|outcome| match outcome {
            Outcome::Granted { qos, .. } => ReasonCode(qos.bits()),
            Outcome::Refused(reason) => {
                self.shared.counters.refuse(*reason);
                *reason
            }
        });
        let properties = SubackProperties::default();
        let suback = Suback { id: subscribe.id, properties, reasons: reasons.collect() };
        self.send(&Packet::Suback(suback));
        for outcome in outcomes {
            if let Outcome::Granted { key, before, .. } = outcome {
                self.subscribed(key, before.is_none());
            }
        }
        Ok(())
    }

    /// Refuses a whole SUBSCRIBE before any filter of it is acted on.
    fn check_subscribe(&self, subscribe: &Subscribe) -> Result<(), Close> {
        let shared = |request: &TopicRequest| {
            Requested::parse(&request.filter).is_some_and(|requested| requested.group.is_some())
        };
        if subscribe.filters.iter().any(|request| request.options.no_local && shared(request)) {
            return Err(Close::Refused {
                reason: ReasonCode::PROTOCOL_ERROR,
                what: "No Local on a shared subscription [MQTT-3.8.3-4]",
            });
        }
        self.check_answer(subscribe.filters.len())
    }

    /// Refuses what has an answer that the client does not take ([MQTT-3.1.2-24]): it has a code for each filter.
    fn check_answer(&self, filters: usize) -> Result<(), Close> {
        if self.version == Version::V5 && answer_bytes_min(filters) > self.limits.packet_bytes_max {
            return Err(Close::Refused {
                reason: ReasonCode::PACKET_TOO_LARGE,
                what: "the answer is larger than the client's Maximum Packet Size",
            });
        }
        Ok(())
    }

    async fn subscribe_one(
        &mut self,
        request: &TopicRequest,
        id: Option<SubscriptionId>,
    ) -> Result<Outcome, Close> {
        let options = request.options;
        let Some(requested) = Requested::parse(&request.filter) else {
            return Ok(Outcome::Refused(ReasonCode::TOPIC_FILTER_INVALID));
        };
        if requested.filter.len() > self.shared.options.topic_bytes_max {
            self.shared.counters.reached(Limit::TopicBytes);
            return Ok(Outcome::Refused(ReasonCode::TOPIC_FILTER_INVALID));
        }
        if topic::levels(requested.filter) > self.shared.options.topic_levels_max {
            self.shared.counters.reached(Limit::TopicLevels);
            return Ok(Outcome::Refused(ReasonCode::TOPIC_FILTER_INVALID));
        }
        if let Some(standing) = &mut self.standing
            && !standing.may_subscribe(requested.filter)
        {
            return Ok(Outcome::Refused(ReasonCode::NOT_AUTHORIZED));
        }
        let retain = match requested.group {
            // Retained messages are not sent to shared subscriptions (4.8.2).
            Some(_) => RetainHandling::Never,
            None => options.retain_handling,
        };
        // The same filter again changes how it is delivered and not where it stands (3.8.4).
        if let Some(key) = self.session.subscriptions.find(&request.filter)
            && let Some(subscription) = self.session.subscriptions.get_mut(key)
        {
            let before = Before {
                options: std::mem::replace(&mut subscription.options, options),
                id: std::mem::replace(&mut subscription.id, id),
                retained: subscription.retained.clone(),
            };
            let sequence = self.shared.store.next_sequence();
            let before = Some(Box::new(before));
            return Ok(Outcome::Granted { key, before, sequence, qos: options.qos, retain });
        }
        if self.session.subscriptions.len() >= self.shared.options.subscriptions_per_session_max {
            self.shared.counters.reached(Limit::Subscriptions);
            return Ok(Outcome::Refused(ReasonCode::QUOTA_EXCEEDED));
        }
        let opened = self.open_queue(&requested).await;
        let (queue, cursor, sequence) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                seldom!(warn, client = &*self.session.client, filter = &*request.filter, %error, "cannot subscribe");
                return Ok(Outcome::Refused(ReasonCode::UNSPECIFIED_ERROR));
            }
        };
        // A copy: a slice would keep the read buffer for as long as the subscription.
        let name = ByteString::from(&*request.filter);
        let Some(subscription) = Subscription::new(name, options, id, queue, cursor) else {
            return Ok(Outcome::Refused(ReasonCode::TOPIC_FILTER_INVALID));
        };
        let key = self.session.subscriptions.insert(subscription);
        self.shared.counters.subscribed(1);
        Ok(Outcome::Granted { key, before: None, sequence, qos: options.qos, retain })
    }

    /// Opens the queue of a filter; the place is its end, and the sequence that of the records behind it.
    async fn open_queue(&self, requested: &Requested<'_>) -> Result<(QueueId, Cursor, u64), StoreError> {
        let store = &self.shared.store;
        let Some(group) = requested.group else {
            return sessions::open_queue(store, &self.session.client, requested.filter, self.is_kept()).await;
        };
        let info = store.open_filter(requested.filter).await?;
        if let Err(error) = self.shared.groups.enlist(store, group, (info.id, info.end), true).await {
            sessions::release(store, info.id).await;
            return Err(error);
        }
        Ok((info.id, Cursor::at(CursorPlace { offset: info.end, sequence: 0 }), info.sequence))
    }

    /// Starts delivery of a subscription that stands.
    fn subscribed(&mut self, key: SubscriptionKey, new: bool) {
        if new {
            self.start(key);
        }
        if self.session.subscriptions.get(key).is_some_and(|subscription| subscription.retained.is_some()) {
            self.delivery.replay(key);
        }
        let subscription = self.session.subscriptions.get(key);
        if new && subscription.is_some_and(|subscription| subscription.filter().starts_with(sys::PREFIX)) {
            self.shared.sys_wanted.notify_one();
        }
    }

    /// Notes whether a subscription is to be sent retained messages that were stored `before` what comes from its queue, so that it is written
    /// with it. One that is kept and for which there are none has none noted, and so needs no second writing once they are sent.
    async fn wants_retained(&mut self, key: SubscriptionKey, new: bool, before: u64, retain: RetainHandling) {
        let wants = match retain {
            RetainHandling::Always => true,
            RetainHandling::New => new,
            RetainHandling::Never => false,
        };
        let Some(subscription) = self.session.subscriptions.get(key).filter(|_| wants) else { return };
        if self.is_kept() && subscription.options.qos > Qos::AtMostOnce {
            let filter = subscription.filter().to_owned();
            let first = self.shared.store.retained(&filter, None, 1).await;
            // If they cannot be read, delivery says so.
            if first.is_ok_and(|first| first.is_empty()) {
                if let Some(subscription) = self.session.subscriptions.get_mut(key) {
                    subscription.retained = None;
                }
                return;
            }
        }
        if let Some(subscription) = self.session.subscriptions.get_mut(key) {
            subscription.retained = Some(Box::new(RetainedPlace { before, after: ByteString::new() }));
        }
    }

    /// A subscription is as it was.
    fn restore(&mut self, key: SubscriptionKey, before: Before) {
        if let Some(subscription) = self.session.subscriptions.get_mut(key) {
            let Before { options, id, retained } = before;
            (subscription.options, subscription.id, subscription.retained) = (options, id, retained);
        }
    }

    async fn write_session(&mut self) -> Result<(), StoreError> {
        if self.is_kept() { self.save().await } else { Ok(()) }
    }

    /// Writes the session when these subscriptions were taken out of it: for their groups, what was in flight from them is done.
    async fn write_session_without(&mut self, gone: &[Subscription]) -> Result<(), StoreError> {
        self.shared.groups.keep(&self.shared.store, gone).await?;
        self.write_session().await
    }

    /// Whether all of the session is in the store.
    fn is_kept(&self) -> bool {
        self.session.kept == Kept::Whole
    }

    /// Takes a subscription away, wherever it is known.
    async fn drop_subscription(&mut self, key: SubscriptionKey) {
        let gone = self.forget_subscription(key);
        self.part(&[key]);
        if let Some(gone) = gone {
            sessions::end_subscription(&self.shared, &self.session.client, &gone, self.is_kept()).await;
        }
    }

    /// Takes a subscription out of the session and stops its delivery.
    fn forget_subscription(&mut self, key: SubscriptionKey) -> Option<Subscription> {
        self.stop(key);
        self.session.unsubscribe(key)
    }

    /// Writes the session without the subscriptions, answers, and then lets their queues go.
    async fn unsubscribe(&mut self, unsubscribe: Unsubscribe) -> Result<(), Close> {
        self.check_answer(unsubscribe.filters.len())?;
        let mut before = None;
        let (mut keys, mut gone) = (Vec::new(), Vec::new());
        let mut reasons = SmallVec::new();
        for filter in &unsubscribe.filters {
            reasons.push(match self.session.subscriptions.find(filter) {
                Some(key) => {
                    // If it cannot be written, it has to go on as it was.
                    before.get_or_insert_with(|| self.session.clone());
                    gone.extend(self.forget_subscription(key));
                    keys.push(key);
                    ReasonCode::SUCCESS
                }
                None if Requested::parse(filter).is_none() => ReasonCode::TOPIC_FILTER_INVALID,
                None => ReasonCode::NO_SUBSCRIPTION_EXISTED,
            });
        }
        self.part(&keys);
        if !gone.is_empty()
            && let Err(error) = self.write_session_without(&gone).await
        {
            seldom!(warn, client = &*self.session.client, %error, "an unsubscription cannot be written");
            if let Some(before) = before {
                self.session = before;
            }
            return Err(Close::Refused {
                reason: ReasonCode::UNSPECIFIED_ERROR,
                what: "the session cannot be written",
            });
        }
        for subscription in &gone {
            sessions::end_subscription(&self.shared, &self.session.client, subscription, self.is_kept())
                .await;
        }
        let properties = SubackProperties::default();
        self.send(&Packet::Unsuback(Unsuback { id: unsubscribe.id, properties, reasons }));
        Ok(())
    }
}
