//! What happens before a listener opens: every persistent session takes its queues again, so that nothing
//! published from here on passes one by; and hears which QoS 2 messages it had received that its document does not know of, so
//! that none is stored twice when it comes again.

use bytes::Bytes;
use bytestring::ByteString;
use foldhash::HashMap;
use futures_util::{StreamExt, TryStreamExt, stream};
use tidemill_store::{Collection, Due, Record, ScanRequest, StoreError};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::accounts;
use super::codec::PacketId;
use super::codec::topic::Requested;
use super::session::Stored;
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
        let stored: Vec<_> =
            page.into_iter().filter_map(|(client, document)| read(client, document)).collect();
        sessions += stored.len();
        subscriptions += stored.iter().map(|(_, stored)| stored.subscriptions.len()).sum::<usize>();
        // Of all at once: a start with a million sessions asks for nothing of each.
        let queues = stored.iter().flat_map(|(_, stored)| &stored.subscriptions);
        let are_there = shared.store.refer_filters(queues.map(|of| of.queue).collect()).await?;
        let mut are_there = are_there.into_iter();
        let each = stored.into_iter().map(|(client, stored)| {
            let are_there = are_there.by_ref().take(stored.subscriptions.len()).collect();
            recover_session(shared, client, stored, are_there, &received)
        });
        stream::iter(each).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
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

/// Reads a session.
fn read(client: String, document: Bytes) -> Option<(ByteString, Stored)> {
    match Stored::decode(document) {
        Ok(stored) => Some((client.into(), stored)),
        Err(error) => {
            error!(client, %error, "a session cannot be read; it is left alone and not served");
            None
        }
    }
}

/// Brings a session up to what the log has, and gives it other queues for those that are not there any more.
async fn recover_session(
    shared: &Shared,
    client: ByteString,
    mut stored: Stored,
    are_there: Vec<bool>,
    received: &Received,
) -> Result<(), StoreError> {
    shared.registry.documented(&client);
    let mut changed = stored.limit_to(shared.store.next_sequence());
    if let Some(ids) = received.get(&client) {
        changed |= stored.account_for(ids.iter().map(|(id, sequence)| (*id, *sequence)));
    }
    // It was online when the process died: its absence begins now, and so does its will's delay.
    if stored.offline_since_ms.is_none() {
        stored.offline_since_ms = Some(now_ms());
        changed = true;
    }
    let due = Due { was: stored.listed_ms, is: stored.due_ms() };
    changed |= due.was != due.is;
    let mut replaced = Vec::new();
    for ((index, subscription), is_there) in (0..).zip(&mut stored.subscriptions).zip(are_there) {
        let Some(requested) = Requested::parse(&subscription.requested) else { continue };
        if !is_there {
            let info = shared.store.open_filter(requested.filter).await?;
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
            let end = shared.store.queue_end(subscription.queue).unwrap_or(subscription.next);
            shared.groups.enlist(&shared.store, group, (subscription.queue, end), false).await?;
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
        shared.store.put_document(Collection::Sessions, &client, stored.encode(), due).await?;
    }
    if !stored.is_for_will {
        // However many there may be from now on.
        shared.counters.keep_session(0);
    }
    shared.counters.subscribed(stored.subscriptions.len());
    Ok(())
}
