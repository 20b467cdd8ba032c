//! `$SYS/broker/…`: what the broker says of itself, under the names that dashboards know from mosquitto.
//!
//! Each value is a retained message like any other, in the log, and is published when it has changed and some queue takes its
//! topic: a subscription, or a rule. While nobody listens nothing is written. Who subscribes first is not left waiting for
//! the next interval.
//!
//! # Layout
//! - this file: when and what is published
//! - `values`: the topics and their values
//! - `load`: averages over one, five and fifteen minutes

mod load;
mod values;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use tidemill_store::{NewRecord, StoreError};
use tokio::time::Instant;
use tracing::debug;

use self::load::Loads;
use self::values::{Heap, RETAINED, values};
use super::codec::Qos;
use super::shared::{Phase, Shared};
use crate::message::{self, Properties};

/// What the topics begin with.
pub(super) const PREFIX: &str = "$SYS/";

/// Counting retained messages takes no more of the time than one part of so many.
const RETAINED_COUNT_SHARE: u32 = 100;

/// Whether a topic is the broker's own.
pub(crate) fn is_own(topic: &str) -> bool {
    topic.strip_prefix("$SYS").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Publishes what the broker says of itself, for as long as it runs.
pub(super) async fn run(shared: Arc<Shared>) {
    let interval = shared.options.sys_interval;
    if interval.is_zero() {
        return;
    }
    let mut phase = shared.phase.subscribe();
    let mut teller = Teller::new(shared);
    let mut next = Instant::now() + interval;
    loop {
        let asked = tokio::select! {
            () = tokio::time::sleep_until(next) => false,
            () = teller.shared.sys_wanted.notified() => true,
            _ = phase.wait_for(|phase| *phase != Phase::Running) => return,
        };
        if !asked {
            next = Instant::now() + interval;
            teller.loads.advance(&teller.shared.counters.stats(0), Instant::now());
        }
        if let Err(error) = teller.tell(asked).await {
            // The store itself says why it takes no records.
            debug!(%error, "$SYS topics could not be published");
        }
    }
}

struct Teller {
    shared: Arc<Shared>,
    began: Instant,
    loads: Loads,
    heap: Heap,
    /// What was published last, of topics that somebody wants.
    last: HashMap<ByteString, Bytes>,
    /// How many retained messages there were, and when to count them again.
    retained: Option<(u64, Instant)>,
}

impl Teller {
    fn new(shared: Arc<Shared>) -> Self {
        let now = Instant::now();
        let loads = Loads::new(&shared.counters.stats(0), now);
        Teller { shared, began: now, loads, heap: Heap::default(), last: HashMap::new(), retained: None }
    }

    /// Publishes what has changed and is wanted; of that only what was never published if somebody has just `asked`.
    async fn tell(&mut self, asked: bool) -> Result<(), StoreError> {
        self.heap.look();
        let mut found = values(&self.shared, self.began.elapsed(), &self.loads, &self.heap);
        if self.shared.store.takes(RETAINED) {
            let count = self.retained_count().await?;
            found.push((RETAINED.into(), count.to_string()));
        }
        let mut records = Vec::new();
        let mut told = Vec::new();
        for (topic, value) in found {
            let topic = ByteString::from(topic);
            if !self.shared.store.takes(&topic) {
                self.last.remove(&topic);
                continue;
            }
            let value = Bytes::from(value);
            let last = self.last.get(&topic);
            if last.is_none() || (!asked && last != Some(&value)) {
                records.push(record(&topic, value.clone()));
                told.push((topic, value));
            }
        }
        if records.is_empty() {
            return Ok(());
        }
        self.shared.store.append(records).await?;
        self.last.extend(told);
        Ok(())
    }

    /// How many retained messages there are, or were not long ago: they have to be counted one by one.
    async fn retained_count(&mut self) -> Result<u64, StoreError> {
        let began = Instant::now();
        if let Some((count, again_at)) = self.retained
            && began < again_at
        {
            return Ok(count);
        }
        let count = self.shared.store.retained_count().await?;
        let pause: Duration = began.elapsed() * RETAINED_COUNT_SHARE;
        self.retained = Some((count, Instant::now() + pause));
        Ok(count)
    }
}

/// A value as a retained message of the hub's own.
fn record(topic: &ByteString, value: Bytes) -> NewRecord {
    // There is nothing in it that could be too long.
    let properties = Properties::default().encode().unwrap_or_default();
    message::record(topic.clone(), properties, value, Qos::AtMostOnce, true)
}
