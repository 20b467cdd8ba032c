//! Wills: published, or, as long as the disk is full, kept in memory until the store takes records again ([`Waiting`]). They are
//! in no document any more: what still waits when the process ends is lost. A client that comes back before that has its will stored
//! before anything it says.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytestring::ByteString;
use foldhash::HashMap;
use parking_lot::Mutex;
use tidemill_store::{NewRecord, StoreError};
use tracing::{debug, error, info, warn};

use super::session::Will;
use super::shared::Shared;
use super::told::seldom;
use super::unwritten::AGAIN;
use crate::message::{self, Properties};

/// Bytes of wills that may wait, about; further ones are lost.
const BYTES_MAX: usize = 16 << 20;
/// What one takes beside its texts.
const WILL_BYTES: usize = size_of::<NewRecord>() + 64;
/// Wills tried together.
const AT_ONCE: usize = 256;

/// Wills that wait for room on the disk.
#[derive(Default)]
pub(super) struct Waiting {
    inner: Mutex<Inner>,
    /// Whether there are some: every batch of every client asks.
    any: AtomicBool,
    /// Held by whoever stores them: the first of them must still be the first when they are stored.
    storing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Inner {
    wills: VecDeque<(ByteString, NewRecord)>,
    /// How many of them each client has.
    by_client: HashMap<ByteString, usize>,
    bytes: usize,
    /// How many have waited and are stored, and how many are lost, since none waited.
    stored: usize,
    lost: usize,
}

fn bytes_of(will: &NewRecord) -> usize {
    WILL_BYTES + will.topic.len() + will.properties.len() + will.payload.len()
}

impl Waiting {
    /// One of a client has to wait; the answer is what it is.
    fn put(&self, client: &ByteString, will: NewRecord) -> Put {
        let mut inner = self.inner.lock();
        let bytes = inner.bytes + bytes_of(&will);
        if bytes > BYTES_MAX {
            inner.lost += 1;
            return if inner.lost == 1 { Put::FirstLost } else { Put::Lost };
        }
        inner.bytes = bytes;
        *inner.by_client.entry(client.clone()).or_default() += 1;
        inner.wills.push_back((client.clone(), will));
        self.any.store(true, Ordering::Release);
        if inner.wills.len() == 1 { Put::First } else { Put::Waits }
    }

    /// The next ones.
    fn next(&self) -> Vec<NewRecord> {
        self.inner.lock().wills.iter().take(AT_ONCE).map(|(_, will)| will.clone()).collect()
    }

    /// These need not wait any more. When none does, how many were stored and how many lost.
    fn done(&self, count: usize, stored: bool) -> Option<(usize, usize)> {
        let mut inner = self.inner.lock();
        let Inner { wills, by_client, bytes, .. } = &mut *inner;
        for (client, will) in wills.drain(..count) {
            *bytes -= bytes_of(&will);
            if let Entry::Occupied(mut left) = by_client.entry(client) {
                *left.get_mut() -= 1;
                if *left.get() == 0 {
                    left.remove();
                }
            }
        }
        *(if stored { &mut inner.stored } else { &mut inner.lost }) += count;
        inner.wills.is_empty().then(|| {
            self.any.store(false, Ordering::Release);
            (std::mem::take(&mut inner.stored), std::mem::take(&mut inner.lost))
        })
    }

    /// Whether one of a client waits.
    fn has(&self, client: &str) -> bool {
        self.any.load(Ordering::Acquire) && self.inner.lock().by_client.contains_key(client)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.inner.lock().wills.len()
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Put {
    First,
    Waits,
    FirstLost,
    Lost,
}

/// Publishes a will.
pub(super) async fn publish(shared: &Shared, client: &ByteString, will: Box<Will>) {
    let Will { last_will, user } = *will;
    let encoded = Properties::of_will(client.clone(), user, last_will.properties)
        .and_then(|properties| properties.encode());
    let properties = match encoded {
        Ok(properties) => properties,
        Err(error) => {
            error!(client = &**client, %error, "a will cannot be written, and is lost");
            return;
        }
    };
    let record =
        message::record(last_will.topic, properties, last_will.payload, last_will.qos, last_will.retain);
    let stored = match come_first(shared, client).await {
        Ok(()) => shared.store.append(vec![record.clone()]).await.map(drop),
        full => full,
    };
    let error = match stored {
        Ok(()) => return,
        Err(error @ StoreError::Full { .. }) => error,
        Err(error) => {
            seldom!(error, client = &**client, %error, "a will could not be stored, and is lost");
            return;
        }
    };
    let put = shared.wills.put(client, record);
    let client = &**client;
    match put {
        Put::First => {
            warn!(client, %error, "a will cannot be stored now; it waits in memory, with those that may follow");
        }
        Put::FirstLost => {
            error!(client, %error, "a will cannot be stored, and too many wait already; it is lost")
        }
        Put::Waits => debug!(client, "a will waits until it can be stored"),
        Put::Lost => debug!(client, "a will is lost"),
    }
}

/// Tries to store those that wait, for as long as the broker runs.
pub(super) async fn watch(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(AGAIN).await;
        // What is full now may not be the next time.
        let _ = store_waiting(&shared).await;
    }
}

/// Stores those of a client that wait, before anything else of it.
///
/// # Errors
/// One still waits: the disk is full, also for what comes behind it.
pub(super) async fn come_first(shared: &Shared, client: &str) -> Result<(), StoreError> {
    if !shared.wills.has(client) {
        return Ok(());
    }
    // Boxed: this is rare, and every connection would keep room for it.
    let stored = Box::pin(store_waiting(shared)).await;
    if shared.wills.has(client) { stored } else { Ok(()) }
}

/// Tries to store those that wait now.
///
/// # Errors
/// The disk is full.
pub(super) async fn store_waiting(shared: &Shared) -> Result<(), StoreError> {
    let _storing = shared.wills.storing.lock().await;
    loop {
        let wills = shared.wills.next();
        let count = wills.len();
        if count == 0 {
            return Ok(());
        }
        let stored = match shared.store.append(wills).await {
            Ok(_) => true,
            Err(error @ StoreError::Full { .. }) => return Err(error),
            Err(error) => {
                error!(wills = count, %error, "wills that waited could not be stored, and are lost");
                false
            }
        };
        if let Some((stored, lost)) = shared.wills.done(count, stored) {
            info!(stored, lost, "no will waits to be stored any more");
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::mqtt::codec::Qos;

    fn will(bytes: usize) -> NewRecord {
        message::record("w".into(), Bytes::new(), vec![0; bytes].into(), Qos::AtLeastOnce, false)
    }

    #[test]
    fn wills_that_wait_are_bounded() {
        let waiting = Waiting::default();
        let put = |client: &str, bytes| waiting.put(&client.into(), will(bytes));
        assert_eq!(put("a", BYTES_MAX / 2), Put::First);
        assert_eq!(put("b", BYTES_MAX / 2), Put::FirstLost);
        assert_eq!(put("b", BYTES_MAX / 2), Put::Lost);
        assert_eq!(put("a", 9), Put::Waits);
        assert_eq!((waiting.len(), waiting.next().len()), (2, 2));
        assert_eq!(waiting.done(1, true), None);
        assert!(waiting.has("a") && !waiting.has("b"));
        assert_eq!(waiting.done(1, false), Some((1, 3)));
        assert!(!waiting.has("a"));
        let inner = waiting.inner.lock();
        assert_eq!((inner.bytes, inner.by_client.len()), (0, 0));
        drop(inner);
        assert_eq!(put("b", BYTES_MAX / 2), Put::First);
    }
}
