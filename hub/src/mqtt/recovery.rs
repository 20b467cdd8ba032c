//! What happens before a listener opens: every persistent session takes its queues again, so that nothing
//! published from here on passes one by.

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::{StreamExt, TryStreamExt, stream};
use tidemill_store::{Collection, StoreError};
use tracing::{error, info, warn};

use super::codec::topic::Requested;
use super::session::{NEVER, Stored};
use super::shared::{Shared, now_ms};

/// Documents read at a time.
const PAGE: usize = 256;
/// Sessions worked on at a time, so that the writes of some share a sync.
const AT_ONCE: usize = 64;

/// Opens the queues of all sessions again, then lets the store delete those nobody wants.
pub(super) async fn recover(shared: &Shared) -> Result<(), StoreError> {
    let mut after: Option<String> = None;
    let (mut sessions, mut subscriptions) = (0_usize, 0_usize);
    loop {
        let page = shared.store.documents(Collection::Sessions, after.as_deref(), PAGE).await?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        let recovered: Vec<Option<usize>> = stream::iter(page)
            .map(|(client, document)| recover_session(shared, client.into(), document))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        for count in recovered.into_iter().flatten() {
            sessions += 1;
            subscriptions += count;
        }
    }
    let swept = shared.store.sweep().await?;
    info!(sessions, subscriptions, swept_queues = swept, "sessions recovered");
    Ok(())
}

/// Takes the queues of a session; how many subscriptions it has. `None` if it cannot be read.
async fn recover_session(
    shared: &Shared,
    client: ByteString,
    document: Bytes,
) -> Result<Option<usize>, StoreError> {
    let mut stored = match Stored::decode(document) {
        Ok(stored) => stored,
        Err(error) => {
            error!(client = &*client, %error, "a session cannot be read; it is left alone and not served");
            return Ok(None);
        }
    };
    let mut changed = false;
    // It was online when the process died: its absence begins now, and so does its will's delay.
    if stored.offline_since_ms.is_none() {
        stored.offline_since_ms = Some(now_ms());
        changed = true;
    }
    for subscription in &mut stored.subscriptions {
        let Some(requested) = Requested::parse(&subscription.requested) else { continue };
        let info = shared.store.open_filter(requested.filter).await?;
        if info.id != subscription.queue {
            warn!(
                client = &*client,
                filter = requested.filter,
                "the queue of a subscription was gone; it starts anew, and what it had not read is lost to it"
            );
            subscription.queue = info.id;
            subscription.next = info.end;
            changed = true;
        }
        if let Some(group) = requested.group {
            shared.groups.enlist(&shared.store, group, &info, false).await?;
        }
    }
    if changed {
        shared.store.put_document(Collection::Sessions, &client, stored.encode()).await?;
    }
    // However many there may be from now on.
    shared.counters.keep_session(0);
    shared.registry.offline(&client, due(&stored));
    Ok(Some(stored.subscriptions.len()))
}

/// When something is first to be looked at: a will with its delay, or the session's end.
fn due(stored: &Stored) -> Option<i64> {
    let since = stored.offline_since_ms?;
    let after = |seconds: u32| since.saturating_add(i64::from(seconds) * 1000);
    let expires = (stored.expiry_s != NEVER).then(|| after(stored.expiry_s));
    let will = stored.will.as_ref().map(|will| after(will.last_will.properties.delay_s.unwrap_or(0)));
    match (expires, will) {
        (Some(expires), Some(will)) => Some(expires.min(will)),
        (expires, will) => expires.or(will),
    }
}
