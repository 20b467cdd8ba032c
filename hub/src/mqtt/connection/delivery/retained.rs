//! Retained messages for subscriptions that are new: to each of them, whatever others match too (3.3.1.3).

use std::collections::VecDeque;

use tidemill_store::Record;

use super::super::super::codec::Qos;
use super::super::super::session::{Sources, SubscriptionKey};
use super::super::{Close, Connection};
use super::offer::Offer;
use super::{Delivery, unavailable};

/// Retained messages read at a time.
const RETAINED_PAGE: usize = 32;

/// Retained messages on their way to a new subscription.
pub(super) struct Replay {
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
    /// Retained messages stored before a sequence are to be sent to a subscription.
    pub(in super::super) fn replay(&mut self, key: SubscriptionKey, before: u64) {
        self.forget_replay(key);
        let page = VecDeque::new();
        self.replays.push_back(Replay { key, after: None, before, page, last: false });
        self.blocked = false;
    }

    /// A subscription gets no more of them.
    pub(super) fn forget_replay(&mut self, key: SubscriptionKey) {
        self.replays.retain(|replay| replay.key != key);
    }
}

impl Connection {
    /// Sends retained messages to subscriptions that are new.
    pub(super) async fn send_retained(&mut self) -> Result<(), Close> {
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
                self.offer(Offer {
                    record: &record,
                    sources: Sources::new(),
                    granted: options.qos,
                    retain: true,
                    subscription_ids: subscription_id.as_slice(),
                    no_local: options.no_local,
                });
            }
            if !replay.last {
                self.delivery.replays.push_front(replay);
            }
        }
        Ok(())
    }
}
