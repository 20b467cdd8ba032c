//! Wills: published, or, as long as the disk is full, kept in memory until the store takes records again ([`Waiting`]). They are
//! in no document any more: what still waits when the process ends is lost.

use std::collections::VecDeque;
use std::sync::Arc;

use bytestring::ByteString;
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
    /// Held by whoever stores them: the first of them must still be the first when they are stored.
    storing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Inner {
    wills: VecDeque<NewRecord>,
    bytes: usize,
    /// How many have waited and are stored, and how many are lost, since none waited.
    stored: usize,
    lost: usize,
}

fn bytes_of(will: &NewRecord) -> usize {
    WILL_BYTES + will.topic.len() + will.properties.len() + will.payload.len()
}

impl Waiting {
    /// One has to wait; the answer is what it is.
    fn put(&self, will: NewRecord) -> Put {
        let mut inner = self.inner.lock();
        let bytes = inner.bytes + bytes_of(&will);
        if bytes > BYTES_MAX {
            inner.lost += 1;
            return if inner.lost == 1 { Put::FirstLost } else { Put::Lost };
        }
        inner.bytes = bytes;
        inner.wills.push_back(will);
        if inner.wills.len() == 1 { Put::First } else { Put::Waits }
    }

    /// The next ones.
    fn next(&self) -> Vec<NewRecord> {
        self.inner.lock().wills.iter().take(AT_ONCE).cloned().collect()
    }

    /// These need not wait any more. When none does, how many were stored and how many lost.
    fn done(&self, count: usize, stored: bool) -> Option<(usize, usize)> {
        let mut inner = self.inner.lock();
        let gone: usize = inner.wills.drain(..count).map(|will| bytes_of(&will)).sum();
        inner.bytes -= gone;
        *(if stored { &mut inner.stored } else { &mut inner.lost }) += count;
        inner.wills.is_empty().then(|| (std::mem::take(&mut inner.stored), std::mem::take(&mut inner.lost)))
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
    let error = match shared.store.append(vec![record.clone()]).await {
        Ok(_) => return,
        Err(error @ StoreError::Full { .. }) => error,
        Err(error) => {
            seldom!(error, client = &**client, %error, "a will could not be stored, and is lost");
            return;
        }
    };
    let client = &**client;
    match shared.wills.put(record) {
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
        store_waiting(&shared).await;
    }
}

/// Tries to store those that wait now.
pub(super) async fn store_waiting(shared: &Shared) {
    let _storing = shared.wills.storing.lock().await;
    loop {
        let wills = shared.wills.next();
        let count = wills.len();
        if count == 0 {
            return;
        }
        let stored = match shared.store.append(wills).await {
            Ok(_) => true,
            Err(StoreError::Full { .. }) => return,
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
        assert_eq!(waiting.put(will(BYTES_MAX / 2)), Put::First);
        assert_eq!(waiting.put(will(BYTES_MAX / 2)), Put::FirstLost);
        assert_eq!(waiting.put(will(BYTES_MAX / 2)), Put::Lost);
        assert_eq!(waiting.put(will(9)), Put::Waits);
        assert_eq!((waiting.len(), waiting.next().len()), (2, 2));
        assert_eq!(waiting.done(1, true), None);
        assert_eq!(waiting.done(1, false), Some((1, 3)));
        assert_eq!(waiting.inner.lock().bytes, 0);
        assert_eq!(waiting.put(will(BYTES_MAX / 2)), Put::First);
    }
}
