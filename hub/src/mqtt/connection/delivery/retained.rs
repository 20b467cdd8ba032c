//! Retained messages for subscriptions that are new: to each of them, whatever others match too (3.3.1.3).
//!
//! How far they were sent is the subscription's and is written with it, so that a connection that comes back goes on there.

use std::collections::VecDeque;

use tidemill_store::Record;

use super::super::super::codec::Qos;
use super::super::super::session::{Kept, Sources, SubscriptionKey};
use super::super::{Close, Connection};
use super::offer::Offer;
use super::{Delivery, unavailable};

/// Retained messages read at a time.
const RETAINED_PAGE: usize = 32;

/// Retained messages on their way to a subscription; how far they have come is the subscription's to know.
pub(super) struct Replay {
    key: SubscriptionKey,
    page: VecDeque<Record>,
    /// Whether `page` is the last.
    last: bool,
}

impl Delivery {
    /// A subscription has retained messages to be sent.
    pub(in super::super) fn replay(&mut self, key: SubscriptionKey) {
        self.forget_replay(key);
        self.replays.push_back(Replay { key, page: VecDeque::new(), last: false });
        self.blocked = false;
    }

    /// A subscription gets no more of them.
    pub(super) fn forget_replay(&mut self, key: SubscriptionKey) {
        self.replays.retain(|replay| replay.key != key);
    }
}

impl Connection {
    /// Sends retained messages to subscriptions that are new; whether the client's window was in the way.
    pub(super) async fn send_retained(&mut self) -> Result<bool, Close> {
        while self.has_room() {
            let Some(mut replay) = self.delivery.replays.pop_front() else {
                // An idle connection has no room for them.
                self.delivery.replays = VecDeque::new();
                return Ok(false);
            };
            let Some(subscription) = self.session.subscriptions.get(replay.key) else { continue };
            let Some(place) = subscription.retained.as_deref() else { continue };
            let before = place.before;
            let options = subscription.options;
            let subscription_id = subscription.id;
            if replay.page.is_empty() && !replay.last {
                let filter = subscription.filter().to_owned();
                let after = Some(place.after.to_string()).filter(|after| !after.is_empty());
                let page = self.shared.store.retained(&filter, after.as_deref(), RETAINED_PAGE).await;
                let page = page.map_err(|error| unavailable(&error))?;
                replay.last = page.is_empty();
                replay.page = page.into();
            }
            while self.has_room() {
                if options.qos > Qos::AtMostOnce && self.window_room() == 0 {
                    self.delivery.replays.push_front(replay);
                    return Ok(true);
                }
                let Some(record) = replay.page.pop_front() else { break };
                self.retained_seen(replay.key, &record);
                // A kept one is in no queue, however late it was written.
                if record.sequence >= before && !record.kept {
                    continue;
                }
                self.offer(Offer {
                    record: &record,
                    sources: Sources::new(),
                    granted: options.qos,
                    retain: true,
                    subscription_ids: subscription_id.as_slice(),
                    no_local: options.no_local,
                });
            }
            if replay.last {
                self.retained_sent(replay.key);
            } else {
                self.delivery.replays.push_front(replay);
            }
        }
        Ok(false)
    }

    /// A retained message is about to be sent to a subscription, or passed over.
    fn retained_seen(&mut self, key: SubscriptionKey, record: &Record) {
        let subscription = self.session.subscriptions.get_mut(key);
        if let Some(place) = subscription.and_then(|subscription| subscription.retained.as_mut()) {
            place.after = record.topic.clone();
        }
    }

    /// All of them were sent. What is written says otherwise, and would have them sent again after a crash.
    fn retained_sent(&mut self, key: SubscriptionKey) {
        let Some(subscription) = self.session.subscriptions.get_mut(key) else { return };
        subscription.retained = None;
        if subscription.options.qos > Qos::AtMostOnce && self.session.kept == Kept::Whole {
            self.hold();
        }
    }
}
