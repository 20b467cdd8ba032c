//! The router's loop.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tidemill_rules::{Context, RuleSet};
use tidemill_store::{
    CursorKey, CursorPlace, Pointer, QueueId, ReadBatch, ReadRequest, Record, Store, StoreError, Watcher,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::{OWNER, RouterStatus, RuleQueues};
use crate::identity::EventIds;
use crate::message;

/// Records routed in one step. Enough to share the costs of a step, few enough that a step takes milliseconds.
const BATCH_RECORDS: usize = 1024;
/// Bytes of records routed in one step.
const BATCH_BYTES: usize = 1 << 20;
/// How long to wait after the store failed.
const PAUSE: Duration = Duration::from_secs(1);

const PANICKED: &str = "internal error: the router panicked; please report this";

/// Routes until told to stop or the store is closed. A panic while matching is reported, and routing goes on from
/// its durable place: a record that panics again holds the rules up, visibly, and is not skipped.
pub async fn run(
    store: Store,
    set: Arc<RuleSet>,
    queues: RuleQueues,
    status: Arc<RouterStatus>,
    stop: CancellationToken,
) {
    loop {
        let opened = Router::open(store.clone(), Arc::clone(&set), &queues, Arc::clone(&status)).await;
        let reason = match opened {
            Ok(router) => match tokio::spawn(router.run(stop.clone())).await {
                Err(failed) if failed.is_panic() => PANICKED.to_owned(),
                _ => return,
            },
            Err(StoreError::Closed) => return,
            Err(error) => error.to_string(),
        };
        error!(offset = status.snapshot().cursor, reason, "routing is started anew");
        status.stalled(&reason);
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Routes records to the queues of the rules they match. Owned by one task.
struct Router {
    store: Store,
    set: Arc<RuleSet>,
    key: CursorKey,
    /// The queue of each rule, in the set's order.
    queues: Vec<QueueId>,
    next: u64,
    status: Arc<RouterStatus>,
    ids: EventIds,
    id: String,
    out: Vec<usize>,
}

impl Router {
    /// A router that goes on where the last one stopped, or at the start of the union queue.
    async fn open(
        store: Store,
        set: Arc<RuleSet>,
        queues: &RuleQueues,
        status: Arc<RouterStatus>,
    ) -> Result<Self, StoreError> {
        let key = CursorKey { owner: OWNER.to_owned(), queue: queues.union.id };
        let next = store.derived_to(&key).await?.map_or(queues.union.first, |place| place.offset);
        status.cursor.store(next, Relaxed);
        let ids = EventIds::of(&store);
        let queues = queues.rules.iter().map(|queue| queue.id).collect();
        Ok(Router { store, set, key, queues, next, status, ids, id: String::new(), out: Vec::new() })
    }

    async fn run(mut self, stop: CancellationToken) {
        let watcher = Watcher::new();
        while !stop.is_cancelled() {
            match self.step().await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(StoreError::Closed) => break,
                Err(error) => {
                    if self.status.stalled(&error.to_string()) {
                        error!(%error, offset = self.next, "routing stands still until the store can be read again");
                    }
                    tokio::select! {
                        () = tokio::time::sleep(PAUSE) => continue,
                        () = stop.cancelled() => break,
                    }
                }
            }
            if let Err(error) = self.store.watch(self.key.queue, self.next, true, &watcher, 0) {
                debug!(%error, "the router stops: its queue is gone");
                break;
            }
            tokio::select! {
                _ = watcher.ready() => {}
                () = stop.cancelled() => break,
            }
        }
        self.store.unwatch(self.key.queue, &watcher, Some(0));
    }

    /// Routes what is there, at most one batch; whether there was anything.
    async fn step(&mut self) -> Result<bool, StoreError> {
        let request = ReadRequest {
            queue: self.key.queue,
            from: self.next,
            records_max: BATCH_RECORDS,
            bytes_max: BATCH_BYTES,
            durable: true,
        };
        let batch = self.store.read(request).await?;
        let Some((_, last)) = batch.records.last() else {
            // What was there is gone: else the watch would ring for it again and again.
            self.pass(&batch);
            return Ok(false);
        };
        let place = CursorPlace { offset: batch.next, sequence: last.sequence };
        let routed = self.route(&batch);
        self.store.derive(self.key.clone(), place, routed.entries).await?;
        // Counted only now: a step that is repeated after an error counts once.
        self.pass(&batch);
        self.status.records.fetch_add(batch.records.len() as u64, Relaxed);
        self.status.not_json.fetch_add(routed.not_json, Relaxed);
        self.status.undecodable.fetch_add(routed.undecodable, Relaxed);
        for (counter, matched) in self.status.matched.iter().zip(routed.matched) {
            counter.fetch_add(matched, Relaxed);
        }
        self.status.error.lock().take();
        Ok(true)
    }

    /// Goes on after a batch.
    fn pass(&mut self, batch: &ReadBatch) {
        self.next = batch.next;
        self.status.cursor.store(batch.next, Relaxed);
        self.status.skipped.fetch_add(batch.skipped, Relaxed);
    }

    fn route(&mut self, batch: &ReadBatch) -> Routed {
        let mut routed = Routed { matched: vec![0; self.queues.len()], ..Routed::default() };
        for (_, record) in &batch.records {
            self.route_record(record, &mut routed);
        }
        routed
    }

    fn route_record(&mut self, record: &Record, routed: &mut Routed) {
        let view = match message::view(record) {
            Ok(view) => view,
            Err(error) => {
                warn!(position = %record.position, %error, "no rule can see this record");
                routed.undecodable += 1;
                return;
            }
        };
        self.ids.write(record.position, &mut self.id);
        let message = view.message(&self.id);
        let matched = self.set.matches(&mut Context::new(&message), &mut self.out);
        routed.not_json += u64::from(matched.not_json);
        for &rule in &self.out {
            if let (Some(&queue), Some(count)) = (self.queues.get(rule), routed.matched.get_mut(rule)) {
                routed.entries.push((queue, record.pointer()));
                *count += 1;
            }
        }
    }
}

/// What one batch led to.
#[derive(Default)]
struct Routed {
    entries: Vec<(QueueId, Pointer)>,
    matched: Vec<u64>,
    not_json: u64,
    undecodable: u64,
}
