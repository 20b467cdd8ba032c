//! [`Bounds`]: what a connection has to keep to beside the protocol: rates, and how far behind it may be.

use std::time::Duration;

use foldhash::HashMap;
use tidemill_store::ReadRequest;
use tokio::time::Instant;
use tracing::{debug, info};

use super::super::codec::ReasonCode;
use super::super::limits::{Limit, Rates};
use super::super::options::LagPolicy;
use super::super::peer::Peer;
use super::super::session::SubscriptionKey;
use super::super::shared::{Shared, now_ms};
use super::delivery::unavailable;
use super::{Close, Connection};

/// How often it is looked how far behind a client is that has something waiting.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The bounds of a connection. Most have none.
pub(super) struct Bounds {
    rates: Option<Rates>,
    /// Whether a rate stops the client.
    stopped: bool,
    lag: Option<Lag>,
}

/// How far behind a client is.
struct Lag {
    next_look: Instant,
    /// Subscriptions that were too far behind when last looked at.
    over: HashMap<SubscriptionKey, Behind>,
}

/// How far a subscription is behind, and in what it is too far. Of a smaller one it has come closer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Behind {
    limit: Limit,
    by: u64,
}

impl Bounds {
    /// Those of a new connection; `None` if there are none.
    pub(super) fn new(shared: &Shared, peer: &Peer) -> Option<Box<Bounds>> {
        let rates = Rates::new(&peer.listener.rates);
        let lag = (shared.options.lag_policy != LagPolicy::Wait)
            .then(|| Lag { next_look: Instant::now() + LOOK_EVERY, over: HashMap::default() });
        (rates.is_some() || lag.is_some()).then(|| Box::new(Bounds { rates, stopped: false, lag }))
    }

    /// Bytes were read.
    pub(super) fn bytes(&self, count: usize) {
        if let Some(rates) = &self.rates {
            rates.bytes(count);
        }
    }

    /// A message was taken.
    pub(super) fn message(&self) {
        if let Some(rates) = &self.rates {
            rates.message();
        }
    }

    /// Whether one more message may be taken.
    pub(super) fn message_may_come(&self) -> bool {
        self.rates.as_ref().is_none_or(Rates::message_may_come)
    }

    /// From when on the client may be read, and what it waits for; `None` if it may be now.
    pub(super) fn pause(&self) -> Option<(Instant, Limit)> {
        self.rates.as_ref()?.pause()
    }

    /// When to look how far behind the client is.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.lag.as_ref().map(|lag| lag.next_look)
    }

    /// Whether it is time to look how far behind the client is.
    pub(super) fn look_is_due(&self) -> bool {
        self.next_look().is_some_and(|next_look| next_look <= Instant::now())
    }
}

impl Connection {
    /// When something is due by the bounds: reading again, or looking how far behind a client is for whom something
    /// waits.
    pub(super) fn bounds_wake_at(&mut self, pause: Option<(Instant, Limit)>) -> Option<Instant> {
        let is_waiting = self.delivery.is_waiting();
        let bounds = self.bounds.as_mut()?;
        // Each time that it is stopped, however often it looks again.
        if let Some((_, limit)) = pause.filter(|_| !bounds.stopped) {
            self.shared.counters.reached(limit);
        }
        bounds.stopped = pause.is_some();
        let again = bounds.rates.as_mut().and_then(|rates| rates.look_again_at(pause));
        again.into_iter().chain(bounds.next_look().filter(|_| is_waiting)).min()
    }

    /// Looks how far behind the client is, and does what `lag_policy` says about a subscription that is too far behind
    /// and has come no closer since the last look.
    pub(super) async fn look_at_lag(&mut self) -> Result<(), Close> {
        let waiting: Vec<SubscriptionKey> = self.delivery.waiting().collect();
        let mut over = HashMap::default();
        for key in waiting {
            let Some(behind) = self.too_far_behind(key).await? else { continue };
            over.insert(key, behind);
            let before = self.bounds.as_ref().and_then(|bounds| bounds.lag.as_ref()?.over.get(&key).copied());
            let stands = before.is_some_and(|before| before.limit == behind.limit && behind.by >= before.by);
            if stands {
                self.act_on_lag(key, behind.limit)?;
            }
        }
        if let Some(lag) = self.bounds.as_mut().and_then(|bounds| bounds.lag.as_mut()) {
            *lag = Lag { next_look: Instant::now() + LOOK_EVERY, over };
        }
        Ok(())
    }

    /// How far a subscription is behind, if that is too far. A shared one never is: others of its group get what it
    /// does not.
    async fn too_far_behind(&self, key: SubscriptionKey) -> Result<Option<Behind>, Close> {
        let options = &self.shared.options;
        let Some(subscription) = self.session.subscriptions.get(key) else { return Ok(None) };
        let (queue, next) = (subscription.queue, subscription.cursor.next());
        let end = self.shared.store.queue_end(queue).unwrap_or(next);
        let entries = end.saturating_sub(next);
        if subscription.is_shared() || entries == 0 {
            return Ok(None);
        }
        if options.lag_messages_max > 0 && entries > options.lag_messages_max {
            return Ok(Some(Behind { limit: Limit::LagMessages, by: entries }));
        }
        if options.lag_time_max.is_zero() {
            return Ok(None);
        }
        let request = ReadRequest { queue, from: next, records_max: 1, bytes_max: 1, durable: false };
        let oldest = self.shared.store.read(request).await.map_err(|error| unavailable(&error))?;
        let age_ms = oldest.records.first().map_or(0, |(_, record)| now_ms().saturating_sub(record.time_ms));
        let age_ms = u64::try_from(age_ms).unwrap_or(0);
        let over = u128::from(age_ms) > options.lag_time_max.as_millis();
        Ok(over.then_some(Behind { limit: Limit::LagTime, by: age_ms }))
    }

    fn act_on_lag(&mut self, key: SubscriptionKey, limit: Limit) -> Result<(), Close> {
        let client = &*self.session.client;
        match self.shared.options.lag_policy {
            LagPolicy::Wait => {}
            LagPolicy::Disconnect => {
                self.shared.counters.reached(limit);
                info!(client, limit = limit.key(), "a slow subscriber is disconnected; its session stays");
                let what = "a subscription is too far behind (lag_messages_max or lag_time_max)";
                return Err(Close::GivenUp { reason: ReasonCode::QUOTA_EXCEEDED, what });
            }
            LagPolicy::Skip => {
                let Some(subscription) = self.session.subscriptions.get_mut(key) else { return Ok(()) };
                let next = subscription.cursor.next();
                let end = self.shared.store.queue_end(subscription.queue).unwrap_or(next);
                // The newest one stays to be sent.
                let skipped = end.saturating_sub(1).saturating_sub(next);
                if skipped > 0 {
                    subscription.cursor.skip_to(end - 1);
                    debug!(
                        client,
                        filter = &*subscription.requested,
                        skipped,
                        "a slow subscriber skips to the newest"
                    );
                    self.shared.counters.reached(limit);
                    self.shared.counters.lag_skip(skipped);
                    self.delivery.note_moved(key);
                }
            }
        }
        Ok(())
    }
}
