//! The loop of one target.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tidemill_connectors::{BatchMax, Follow, SendError, Sink};
use tidemill_rules::Retry;
use tidemill_store::{CursorId, CursorKey, ReadRequest, Store, StoreError, Watcher};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::backoff::Backoff;
use super::batch::{Attempt, Batch, Failure};
use super::map::Mapper;
use super::status::{State, TargetStatus, now_ms};

/// How long to wait after the store failed.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// How a task is told to end.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop {
    /// Begin nothing new.
    pub(super) soft: CancellationToken,
    /// Leave what has begun: what was not confirmed is sent again after the next start.
    pub(super) hard: CancellationToken,
}

/// What a target's task is made from; enough to start it anew.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) store: Store,
    /// The target's name.
    pub(super) target: String,
    pub(super) mapper: Arc<Mapper>,
    pub(super) key: CursorKey,
    /// The store's number for that cursor.
    pub(super) cursor: CursorId,
    /// Entries of records up to this one were done before. After a crash the router may derive them anew, behind the
    /// cursor's offset; they are passed over.
    pub(super) done: u64,
    pub(super) retry: Retry,
    pub(super) status: Arc<TargetStatus>,
    pub(super) stop: Stop,
}

impl Plan {
    /// Rule, target and destination, for log lines.
    fn names(&self) -> (&str, &str, String) {
        (&self.mapper.rule().name, &self.target, self.mapper.target.describe())
    }
}

/// Delivers one rule's queue to one target.
pub(super) struct Delivery {
    plan: Plan,
    next: u64,
    sink: Option<Box<dyn Sink>>,
    backoff: Backoff,
    watcher: Watcher,
}

/// The task is to end.
struct Ended;

/// Delivers until told to stop or the store is closed. A panic of a connector ends only this target's attempt: it
/// is reported, and the target goes on from its cursor. Whoever drops this has ended the attempt as well.
pub(super) async fn supervise(plan: Plan) {
    loop {
        let delivery = Delivery::new(plan.clone());
        if AssertUnwindSafe(delivery.run()).catch_unwind().await.is_ok() {
            return;
        }
        let reason = "internal error: the delivery task panicked; please report this";
        plan.status.failed(State::Stopped, reason);
        let (rule, target, destination) = plan.names();
        error!(rule, target, destination, reason, "delivery is started anew");
        tokio::select! {
            () = tokio::time::sleep(plan.retry.max) => {}
            () = plan.stop.soft.cancelled() => return,
        }
    }
}

impl Delivery {
    /// Goes on at the place that the status names.
    fn new(plan: Plan) -> Self {
        let backoff = Backoff::new(plan.retry.first, plan.retry.max);
        Delivery { next: plan.status.cursor(), plan, sink: None, backoff, watcher: Watcher::new() }
    }

    async fn run(mut self) {
        while self.deliver_next().await.is_ok() {}
        self.plan.store.unwatch(self.plan.key.queue, &self.watcher, Some(0));
    }

    /// Waits for a batch and sends it until all of it is done.
    async fn deliver_next(&mut self) -> Result<(), Ended> {
        let most = self.plan.mapper.target.batch_max();
        let Some(mut batch) = self.read(most).await? else {
            self.plan.status.idle();
            self.plan
                .store
                .watch(self.plan.key.queue, self.next, true, &self.watcher, 0)
                .map_err(|_| Ended)?;
            return tokio::select! {
                _ = self.watcher.ready() => Ok(()),
                () = self.plan.stop.soft.cancelled() => Err(Ended),
            };
        };
        let mut failure = None;
        loop {
            self.settle_dead(&mut batch).await?;
            if let Some(failure) = failure.take() {
                self.wait(&failure).await?;
            }
            if batch.is_done() {
                return Ok(());
            }
            failure = self.attempt(&mut batch, most.bytes).await?;
        }
    }

    /// The next batch; `None` when the queue has nothing more.
    async fn read(&mut self, most: BatchMax) -> Result<Option<Batch>, Ended> {
        let request = ReadRequest {
            queue: self.plan.key.queue,
            from: self.next,
            records_max: most.events.max(1),
            bytes_max: most.bytes,
            durable: true,
        };
        loop {
            if self.plan.stop.soft.is_cancelled() {
                return Err(Ended);
            }
            match self.plan.store.read(request).await {
                Ok(read) => {
                    // Also without a record: those that are gone are passed, else the watch would ring for them again and again.
                    self.next = read.next;
                    self.plan.status.skipped(read.skipped);
                    if read.records.is_empty() {
                        self.plan.status.moved(read.next);
                        return Ok(None);
                    }
                    return Ok(Some(self.plan.mapper.batch(&read, self.plan.done, now_ms())));
                }
                Err(error) => self.store_failed("reading the rule's queue", &error).await?,
            }
        }
    }

    /// Sends what is left of a batch once. What failed so that it is sent again, if anything did.
    async fn attempt(&mut self, batch: &mut Batch, bytes_max: usize) -> Result<Option<Failure>, Ended> {
        self.plan.status.oldest(batch.oldest_ms());
        let hard = self.plan.stop.hard.clone();
        let events = batch.window(bytes_max);
        let (sent, started) = (events.len(), Instant::now());
        let outcomes = match self.open() {
            Ok(sink) => tokio::select! {
                biased;
                outcomes = sink.send(events) => outcomes,
                () = hard.cancelled() => return Err(Ended),
            },
            Err(error) => vec![Err(error); sent],
        };
        let attempt = Attempt { sent, started, ended: Instant::now(), ended_ms: now_ms() };
        let settled = batch.settle(attempt, outcomes, &self.plan.retry);
        self.plan.status.delivered(settled.confirmed);
        self.plan.status.retried(settled.again);
        if settled.confirmed > 0 {
            self.backoff.reset();
        }
        if settled.failure.is_none() && settled.confirmed > 0 {
            self.works();
        }
        Ok(settled.failure)
    }

    /// The sink, opened if it is not. Failing to open it is no event's fault: nothing is given up for it.
    fn open(&mut self) -> Result<&mut Box<dyn Sink>, SendError> {
        match &mut self.sink {
            Some(sink) => Ok(sink),
            none => {
                let opened = self.plan.mapper.target.open();
                Ok(none.insert(opened.map_err(|error| SendError { follow: Follow::Stop, ..error })?))
            }
        }
    }

    /// Writes dead letters, then moves the cursor past all that is done.
    async fn settle_dead(&mut self, batch: &mut Batch) -> Result<(), Ended> {
        while let Some(first) = batch.dead().first() {
            let (count, reason) = (batch.dead().len(), first.error.clone());
            match self.plan.store.put_dead_letters(&self.plan.key.owner, batch.dead().to_vec()).await {
                Ok(in_all) => {
                    batch.buried();
                    self.plan.status.buried(in_all);
                    let (rule, target, destination) = self.plan.names();
                    error!(
                        rule,
                        target,
                        destination,
                        count,
                        reason,
                        "gave up on events; they are in the dead-letter queue"
                    );
                }
                Err(error) => self.store_failed("writing dead letters", &error).await?,
            }
        }
        if let Some(place) = batch.place() {
            self.plan.store.commit(self.plan.cursor, place);
            self.plan.status.moved(place.offset);
        }
        Ok(())
    }

    async fn wait(&mut self, failure: &Failure) -> Result<(), Ended> {
        let (state, wait) = if failure.stop {
            (State::Stopped, self.backoff.stopped(&mut rand::rng()))
        } else {
            (State::Retrying, self.backoff.failed(failure.retry_after, &mut rand::rng()))
        };
        if self.plan.status.failed(state, &failure.message) {
            let (rule, target, destination) = self.plan.names();
            let reason = &failure.message;
            if failure.stop {
                error!(
                    rule,
                    target,
                    destination,
                    reason,
                    "the target cannot be used until this is changed; nothing is lost"
                );
            } else {
                warn!(rule, target, destination, reason, "delivery failed and is tried again");
            }
        }
        self.pause(wait).await
    }

    fn works(&self) {
        if let Some(failing_ms) = self.plan.status.works() {
            let (rule, target, destination) = self.plan.names();
            info!(rule, target, destination, failing_ms, "delivering again");
        }
    }

    async fn store_failed(&mut self, action: &str, failed: &StoreError) -> Result<(), Ended> {
        if matches!(failed, StoreError::Closed | StoreError::NoQueue(_)) {
            return Err(Ended);
        }
        let message = format!("{action}: {failed}");
        if self.plan.status.failed(State::Stopped, &message) {
            let (rule, target, destination) = self.plan.names();
            error!(
                rule,
                target,
                destination,
                reason = message,
                "delivery stands still until the store works again"
            );
        }
        self.pause(STORE_PAUSE).await
    }

    async fn pause(&mut self, wait: Duration) -> Result<(), Ended> {
        tokio::select! {
            () = tokio::time::sleep(wait) => Ok(()),
            () = self.plan.stop.soft.cancelled() => Err(Ended),
        }
    }
}
