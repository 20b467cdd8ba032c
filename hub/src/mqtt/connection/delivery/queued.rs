//! The queues that have something, in turn.

use std::sync::Arc;

use tidemill_store::{ReadRequest, Retain};
use tracing::error;

use super::super::super::codec::Qos;
use super::super::super::limits::Limit;
use super::super::super::session::{Source, Sources, Subscription, SubscriptionKey};
use super::super::super::share::Group;
use super::super::{Close, Connection};
use super::offer::{Offer, Sent};
use super::unavailable;

/// Records read from a queue at a time.
const RECORDS_MAX: usize = 128;
/// Records looked at in one turn, whether they are sent or left out.
const RECORDS_PER_TURN: usize = 4096;

impl Connection {
    /// Reads the queues that have something, in turn, as long as something comes of it.
    pub(super) async fn send_queued(&mut self) -> Result<(), Close> {
        let (mut idle, mut left) = (0, RECORDS_PER_TURN);
        while left > 0 && self.has_room() && idle < self.delivery.ready.len() {
            let Some(key) = self.delivery.ready.pop_front() else { break };
            let Some(subscription) = self.session.subscriptions.get(key) else { continue };
            let certain = self.is_certain(key, subscription);
            let room = if certain { self.window_room().min(RECORDS_MAX) } else { RECORDS_MAX };
            if room == 0 {
                self.delivery.ready.push_back(key);
                idle += 1;
                continue;
            }
            idle = 0;
            let looked_at = match (subscription.is_shared(), self.delivery.group(key).cloned()) {
                (false, _) if self.delivery.overlaps.lead(key).is_some() => {
                    Box::pin(self.send_merged(key, room)).await?
                }
                (false, _) => self.send_from_queue(key, room).await?,
                (true, Some(group)) => Box::pin(self.send_from_group(key, &group, room)).await?,
                (true, None) => {
                    error!(client = &*self.session.client, "a shared subscription has no group");
                    0
                }
            };
            left = left.saturating_sub(looked_at);
        }
        self.delivery.blocked = idle > 0 && idle >= self.delivery.ready.len();
        if self.delivery.blocked {
            self.shared.counters.reached(Limit::InFlight);
        }
        Ok(())
    }

    /// Whether something with QoS 1 or 2 may come of a turn of this subscription and those it overlaps with.
    fn is_certain(&self, key: SubscriptionKey, subscription: &Subscription) -> bool {
        let of = |key: &SubscriptionKey| self.session.subscriptions.get(*key);
        let is_certain = |subscription: &Subscription| subscription.options.qos > Qos::AtMostOnce;
        is_certain(subscription) || self.delivery.overlaps.beside(key).iter().filter_map(of).any(is_certain)
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
            let sent = self.offer(Offer {
                record,
                sources: Sources::from_buf([Source { subscription: key, offset: *offset }]),
                granted: options.qos,
                retain: options.retain_as_published && record.retain != Retain::No,
                subscription_ids: id.as_slice(),
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
            let sent = self.offer(Offer {
                record,
                sources: Sources::from_buf([Source { subscription: key, offset: *offset }]),
                granted: options.qos,
                retain: options.retain_as_published && record.retain != Retain::No,
                subscription_ids: id.as_slice(),
                no_local: false,
            });
            if sent == Sent::Done {
                group.pass(&self.shared.store, *offset);
            }
        }
        Ok(records.len())
    }
}
