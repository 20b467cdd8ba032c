//! [`Deliveries`]: all targets of a rule set, started and stopped together.

use std::sync::Arc;
use std::time::Duration;

use tidemill_connectors::Connections;
use tidemill_rules::RuleSet;
use tidemill_store::{Cursor, CursorKey, QueueId, Start, Store, StoreError};
use tokio::task::JoinSet;
use tracing::warn;

use super::map::Mapper;
use super::status::{TargetSnapshot, TargetStatus};
use super::task::{Plan, Stop, supervise};
use crate::identity::EventIds;
use crate::router::{RuleQueues, target_owner};

/// How long tasks may take to end once they were told to leave what they do.
const LEAVE: Duration = Duration::from_secs(1);

/// One target of one rule, as others see it.
#[derive(Clone, Debug)]
pub struct TargetHandle {
    /// Index of the rule in its set.
    pub rule: usize,
    /// The target's name within the rule.
    pub name: String,
    /// Where it goes, for people.
    pub describe: String,
    /// Owner of its cursor and of its dead letters.
    pub owner: String,
    /// The rule's queue.
    pub queue: QueueId,
    /// What it counts.
    pub status: Arc<TargetStatus>,
}

impl TargetHandle {
    /// The target at this moment.
    #[must_use]
    pub fn snapshot(&self, store: &Store) -> TargetSnapshot {
        self.status.snapshot(store, self.queue)
    }
}

/// The running targets of a rule set.
pub struct Deliveries {
    targets: Vec<TargetHandle>,
    stop: Stop,
    tasks: JoinSet<()>,
}

impl Deliveries {
    /// Opens the cursor of every target, and starts their tasks.
    ///
    /// A target that is new starts at the end of its rule's queue: for a new rule that is its beginning, for a new
    /// target of a known rule it is now. Called before the router runs, so that nothing slips in between.
    pub async fn start(
        store: &Store,
        set: &Arc<RuleSet>,
        connections: &Connections,
        queues: &RuleQueues,
    ) -> Result<Deliveries, StoreError> {
        let mut started = Deliveries { targets: Vec::new(), stop: Stop::default(), tasks: JoinSet::new() };
        let mut plans = Vec::new();
        for (rule_index, (rule, queue)) in set.rules.iter().zip(&queues.rules).enumerate() {
            for (target_index, def) in rule.targets.iter().enumerate() {
                let target = connections.target(rule_index, target_index);
                let owner = target_owner(&rule.name, &def.name);
                let key = CursorKey { owner: owner.clone(), queue: queue.id };
                let Cursor { id, place } = store.open_cursor(key.clone(), Start::Latest).await?;
                let dead_letters = store.dead_letter_count(&owner).await?;
                let status = Arc::new(TargetStatus::new(place.offset, dead_letters));
                started.targets.push(TargetHandle {
                    rule: rule_index,
                    name: def.name.clone(),
                    describe: target.describe(),
                    owner,
                    queue: queue.id,
                    status: Arc::clone(&status),
                });
                let mapper = Arc::new(Mapper {
                    set: Arc::clone(set),
                    rule: rule_index,
                    target,
                    ids: EventIds::of(store),
                });
                let stop = started.stop.clone();
                plans.push(Plan {
                    store: store.clone(),
                    target: def.name.clone(),
                    mapper,
                    key,
                    cursor: id,
                    done: place.sequence,
                    retry: def.retry,
                    status,
                    stop,
                });
            }
        }
        for plan in plans {
            started.tasks.spawn(supervise(plan));
        }
        Ok(started)
    }

    /// The targets, in the order of rules and of targets within them.
    #[must_use]
    pub fn targets(&self) -> &[TargetHandle] {
        &self.targets
    }

    /// Begins nothing new, waits until `deadline` for what is being sent, then leaves it: what was not confirmed is
    /// sent again after the next start.
    pub async fn stop(mut self, deadline: tokio::time::Instant) {
        self.stop.soft.cancel();
        if tokio::time::timeout_at(deadline, self.all_ended()).await.is_ok() {
            return;
        }
        warn!(
            targets = self.tasks.len(),
            "targets have not confirmed in time; they get the same events again"
        );
        self.stop.hard.cancel();
        if tokio::time::timeout(LEAVE, self.all_ended()).await.is_ok() {
            return;
        }
        // They wait for the store. What takes their place must not find them at work.
        warn!(targets = self.tasks.len(), "targets did not stop in time; they are cut off");
        self.tasks.abort_all();
        if tokio::time::timeout(LEAVE, self.all_ended()).await.is_err() {
            warn!(targets = self.tasks.len(), "targets did not stop");
        }
    }

    async fn all_ended(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}
