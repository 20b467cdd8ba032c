//! [`ListenerRates`] and [`Rates`]: how fast connections, messages and bytes may come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::bucket::{Bucket, instant, now_ns};
use super::{Limit, ListenerLimits};

/// Clients that wait for a rate they share look again one after the other, on average so far apart.
const LOOKS_APART: Duration = Duration::from_millis(1);
/// But each at least so often.
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(250);

/// The rates of a listener.
#[derive(Debug)]
pub(in crate::mqtt) struct ListenerRates {
    /// Connections accepted.
    pub(in crate::mqtt) connections: Option<Bucket>,
    /// From all clients together.
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
    /// What each client has.
    client_messages_per_s: u64,
    client_bytes_per_s: u64,
    burst: Duration,
    /// Clients that wait for what they share.
    waiting: AtomicU32,
}

impl ListenerRates {
    /// What limits say, of which none is left out.
    pub(in crate::mqtt) fn new(limits: &ListenerLimits, burst: Duration) -> Self {
        let bucket = |per_s: Option<u64>| Bucket::new(per_s.unwrap_or(0), burst);
        ListenerRates {
            connections: bucket(limits.connection_rate),
            messages: bucket(limits.listener_messages_per_s),
            bytes: bucket(limits.listener_bytes_per_s),
            client_messages_per_s: limits.client_messages_per_s.unwrap_or(0),
            client_bytes_per_s: limits.client_bytes_per_s.unwrap_or(0),
            burst,
            waiting: AtomicU32::new(0),
        }
    }
}

/// The rates that a connection has to keep to: its own, and those it shares.
#[derive(Debug)]
pub(in crate::mqtt) struct Rates {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
    listener: Arc<ListenerRates>,
    /// Whether it is one of those that wait.
    waits: bool,
}

impl Rates {
    /// Those of a new connection; `None` if there are none.
    pub(in crate::mqtt) fn new(listener: &Arc<ListenerRates>) -> Option<Rates> {
        let messages = Bucket::new(listener.client_messages_per_s, listener.burst);
        let bytes = Bucket::new(listener.client_bytes_per_s, listener.burst);
        let any = messages.is_some() || bytes.is_some();
        let any = any || listener.messages.is_some() || listener.bytes.is_some();
        any.then(|| Rates { messages, bytes, listener: Arc::clone(listener), waits: false })
    }

    fn of_messages(&self) -> [(Option<&Bucket>, Limit); 2] {
        [
            (self.messages.as_ref(), Limit::ClientMessages),
            (self.listener.messages.as_ref(), Limit::ListenerMessages),
        ]
    }

    fn of_bytes(&self) -> [(Option<&Bucket>, Limit); 2] {
        [(self.bytes.as_ref(), Limit::ClientBytes), (self.listener.bytes.as_ref(), Limit::ListenerBytes)]
    }

    /// A message was taken.
    pub(in crate::mqtt) fn message(&self) {
        take(self.of_messages(), 1);
    }

    /// Bytes were read.
    pub(in crate::mqtt) fn bytes(&self, count: usize) {
        take(self.of_bytes(), count as u64);
    }

    /// Whether one more message may be taken.
    pub(in crate::mqtt) fn message_may_come(&self) -> bool {
        let now_ns = now_ns();
        let mut buckets = self.of_messages().into_iter().filter_map(|(bucket, _)| bucket);
        buckets.all(|bucket| bucket.ready_at(now_ns).is_none())
    }

    /// From when on the client may be read, and what it waits for; `None` if it may be now.
    pub(in crate::mqtt) fn pause(&self) -> Option<(Instant, Limit)> {
        let now_ns = now_ns();
        let buckets = self.of_messages().into_iter().chain(self.of_bytes());
        let waits = buckets.filter_map(|(bucket, limit)| Some((bucket?.ready_at(now_ns)?, limit)));
        waits.max_by_key(|(at_ns, _)| *at_ns).map(|(at_ns, limit)| (instant(at_ns), limit))
    }

    /// When to look again after this pause. What many share is soon there for one of them: if all looked then, all others
    /// would have looked in vain.
    pub(in crate::mqtt) fn look_again_at(&mut self, pause: Option<(Instant, Limit)>) -> Option<Instant> {
        let shares = matches!(pause, Some((_, Limit::ListenerMessages | Limit::ListenerBytes)));
        self.set_waits(shares);
        let (at, _) = pause?;
        if !shares {
            return Some(at);
        }
        let round = LOOKS_APART * self.listener.waiting.load(Ordering::Relaxed);
        Some(at + round.min(LOOK_AGAIN_MAX).mul_f32(rand::random()))
    }

    fn set_waits(&mut self, waits: bool) {
        match (self.waits, waits) {
            (false, true) => self.listener.waiting.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.listener.waiting.fetch_sub(1, Ordering::Relaxed),
            _ => return,
        };
        self.waits = waits;
    }
}

impl Drop for Rates {
    fn drop(&mut self) {
        self.set_waits(false);
    }
}

fn take(buckets: [(Option<&Bucket>, Limit); 2], count: u64) {
    let now_ns = now_ns();
    for (bucket, _) in buckets {
        if let Some(bucket) = bucket {
            bucket.take(count, now_ns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(limits: &ListenerLimits) -> Arc<ListenerRates> {
        Arc::new(ListenerRates::new(limits, Duration::from_secs(1)))
    }

    #[test]
    fn clients_have_buckets_of_their_own_and_one_together() {
        assert!(Rates::new(&listener(&ListenerLimits::default())).is_none(), "no limit, no buckets");
        let limits = ListenerLimits {
            client_messages_per_s: Some(2),
            listener_messages_per_s: Some(3),
            ..ListenerLimits::default()
        };
        let listener = listener(&limits);
        let (a, b) = (Rates::new(&listener).unwrap(), Rates::new(&listener).unwrap());
        a.message();
        assert!(a.message_may_come() && a.pause().is_none());
        a.message();
        assert!(!a.message_may_come() && b.message_may_come());
        assert!(a.pause().is_some_and(|(at, limit)| at > Instant::now() && limit == Limit::ClientMessages));
        b.message();
        assert!(!b.message_may_come());
        assert_eq!(b.pause().map(|(_, limit)| limit), Some(Limit::ListenerMessages));
    }

    #[test]
    fn those_who_wait_together_look_again_one_after_the_other() {
        let limits = ListenerLimits { listener_messages_per_s: Some(1), ..ListenerLimits::default() };
        let listener = listener(&limits);
        let mut all: Vec<Rates> = (0..200).map(|_| Rates::new(&listener).unwrap()).collect();
        all[0].message();
        let pause = all[0].pause();
        let looks: Vec<Duration> =
            all.iter_mut().map(|one| one.look_again_at(pause).unwrap() - pause.unwrap().0).collect();
        assert!(looks.iter().all(|look| *look <= LOOK_AGAIN_MAX));
        // The last hundred know of at least a hundred others: hardly ten of them come in the first hundredth.
        let early = looks[100..].iter().filter(|look| **look < Duration::from_millis(1)).count();
        assert!(early < 10, "{early} look at once");
        all[0].look_again_at(None);
        all.truncate(150);
        assert_eq!(listener.waiting.load(Ordering::Relaxed), 149, "who goes on or goes does not wait");
        let own = ListenerLimits { client_messages_per_s: Some(1), ..ListenerLimits::default() };
        let mut alone = Rates::new(&self::listener(&own)).unwrap();
        alone.message();
        let (at, limit) = alone.pause().unwrap();
        assert_eq!(alone.look_again_at(Some((at, limit))), Some(at));
    }

    #[test]
    fn bytes_stop_reading_and_not_the_message_that_was_read() {
        let limits = ListenerLimits { client_bytes_per_s: Some(1_000), ..ListenerLimits::default() };
        let rates = Rates::new(&listener(&limits)).unwrap();
        rates.bytes(5_000);
        assert!(rates.message_may_come());
        let (until, limit) = rates.pause().unwrap();
        let wait = until - Instant::now();
        assert!(limit == Limit::ClientBytes && wait > Duration::from_millis(3_900), "{wait:?}");
        assert!(wait < Duration::from_millis(4_100), "{wait:?}");
    }
}
