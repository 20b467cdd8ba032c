//! What happens before a listener opens: every persistent session takes its queues again, so that nothing
//! published from here on passes one by; and hears which QoS 2 messages it had received that its document does not know of, so
//! that none is stored twice when it comes again.

use bytes::Bytes;
use bytestring::ByteString;
use foldhash::HashMap;
use futures_util::{StreamExt, TryStreamExt, stream};
use tidemill_store::{Collection, Record, ScanRequest, StoreError};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::accounts;
use super::codec::PacketId;
use super::codec::topic::Requested;
use super::session::{NEVER, Stored};
use super::shared::{Shared, now_ms};
use crate::message::Head;

/// Documents read at a time.
const PAGE: usize = 256;
/// Sessions worked on at a time, so that the writes of some share a sync.
const AT_ONCE: usize = 64;
/// Records of the log looked at with one call.
const SCAN_RECORDS: usize = 8192;
/// Bytes of them, about.
const SCAN_BYTES: usize = 4 << 20;

/// QoS 2 messages that the log has: by client and packet identifier, the sequence of the last one.
type Received = HashMap<ByteString, HashMap<PacketId, u64>>;

/// Opens the queues of all sessions again, then lets the store delete those nobody wants.
pub(super) async fn recover(shared: &Shared) -> Result<(), StoreError> {
    let received = received(shared).await?;
    let mut after: Option<String> = None;
    let (mut sessions, mut subscriptions) = (0_usize, 0_usize);
    loop {
        let page = shared.store.documents(Collection::Sessions, after.as_deref(), PAGE).await?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        let recovered: Vec<Option<usize>> = stream::iter(page)
            .map(|(client, document)| recover_session(shared, client.into(), document, &received))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        for count in recovered.into_iter().flatten() {
            sessions += 1;
            subscriptions += count;
        }
    }
    shared.groups.sweep(&shared.store).await?;
    let swept = shared.store.sweep().await?;
    // Every document that is there now accounts for what the log has.
    shared.accounts.keep(&shared.store, None).await?;
    info!(sessions, subscriptions, swept_queues = swept, "sessions recovered");
    Ok(())
}

/// Reads the log from where on documents do not account for it.
async fn received(shared: &Shared) -> Result<Received, StoreError> {
    let mut received = Received::default();
    // Whoever never wrote that never stored an identifier.
    let Some(mut from) = accounts::kept(&shared.store).await? else { return Ok(received) };
    let (began, mut records) = (Instant::now(), 0_usize);
    loop {
        let request = ScanRequest { from, filter: None, records_max: SCAN_RECORDS, bytes_max: SCAN_BYTES };
        let batch = match shared.store.scan(request).await {
            Ok(batch) => batch,
            Err(error) => {
                error!(%error, "the log cannot be read on; QoS 2 messages behind may be stored again when they come again");
                break;
            }
        };
        records += batch.records.len();
        batch.records.iter().for_each(|record| note(record, &mut received));
        if batch.at_end {
            break;
        }
        from = batch.next;
    }
    info!(records, clients = received.len(), took = ?began.elapsed(), "looked for QoS 2 messages in the log");
    Ok(received)
}

/// Notes a QoS 2 message. Of those under one identifier the last counts: the others were released before it came.
fn note(record: &Record, received: &mut Received) {
    // What cannot be read, nobody waits for: delivery says it.
    let Ok(Head { client, packet_id: Some(id), .. }) = Head::decode(&record.properties) else { return };
    match received.get_mut(client) {
        Some(ids) => {
            ids.insert(id, record.sequence);
        }
        None => {
            received.insert(client.into(), HashMap::from_iter([(id, record.sequence)]));
        }
    }
}

/// Takes the queues of a session; how many subscriptions it has. `None` if it cannot be read.
async fn recover_session(
    shared: &Shared,
    client: ByteString,
    document: Bytes,
    received: &Received,
) -> Result<Option<usize>, StoreError> {
    let mut stored = match Stored::decode(document) {
        Ok(stored) => stored,
        Err(error) => {
            error!(client = &*client, %error, "a session cannot be read; it is left alone and not served");
            return Ok(None);
        }
    };
    let mut changed = stored.limit_to(shared.store.next_sequence());
    if let Some(ids) = received.get(&client) {
        changed |= stored.account_for(ids.iter().map(|(id, sequence)| (*id, *sequence)));
    }
    // It was online when the process died: its absence begins now, and so does its will's delay.
    if stored.offline_since_ms.is_none() {
        stored.offline_since_ms = Some(now_ms());
        changed = true;
    }
    let mut replaced = Vec::new();
    for (index, subscription) in (0..).zip(&mut stored.subscriptions) {
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
            replaced.push(index);
        }
        if let Some(group) = requested.group {
            shared.groups.enlist(&shared.store, group, &info, false).await?;
        }
    }
    changed |= !replaced.is_empty();
    stored.forget_places(&replaced);
    for (subscription, offset) in stored.exactly_once_in_flight() {
        if let Some(group) = Requested::parse(&subscription.requested).and_then(|requested| requested.group) {
            shared.groups.hold(group, subscription.queue, offset);
        }
    }
    if changed {
        shared.store.put_document(Collection::Sessions, &client, stored.encode()).await?;
    }
    // However many there may be from now on.
    shared.counters.keep_session(0);
    shared.counters.subscribed(stored.subscriptions.len());
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
