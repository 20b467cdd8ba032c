//! [`Flow`]: a rule set at work. A reload stops one flow and starts the next over the same queues and cursors.

use std::sync::Arc;

use tidemill_rules::RuleSet;
use tidemill_store::{Store, StoreError};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Rules;
use crate::delivery::{self, Deliveries, TargetHandle};
use crate::router::{self, RouterStatus, RuleQueues};

/// A running rule set.
pub struct Flow {
    view: Arc<View>,
    deliveries: Deliveries,
    router: JoinHandle<()>,
    stop: CancellationToken,
}

/// What others may see of a flow.
pub struct View {
    /// The rules.
    pub set: Arc<RuleSet>,
    /// Their queues.
    pub queues: RuleQueues,
    /// What the router counts.
    pub router: Arc<RouterStatus>,
    /// The targets, in the order of rules and of targets within them.
    pub targets: Vec<TargetHandle>,
}

impl View {
    /// The targets of one rule.
    pub fn targets_of(&self, rule: usize) -> impl Iterator<Item = &TargetHandle> {
        self.targets.iter().filter(move |target| target.rule == rule)
    }

    /// Records that the router has still to look at.
    #[must_use]
    pub fn router_lag(&self, store: &Store) -> u64 {
        let end = store.queue_end(self.queues.union.id).unwrap_or_default();
        end.saturating_sub(self.router.snapshot().cursor)
    }

    /// Says of the router and of every target that they stand still, and why: their tasks cannot.
    pub fn stalled(&self, reason: &str) {
        self.router.stalled(reason);
        for target in &self.targets {
            target.status.failed(delivery::State::Stopped, reason);
        }
    }
}

impl Flow {
    /// Opens queues and cursors, retires those of removed rules, then starts deliveries and the router. If it fails, the rules `before` miss
    /// nothing until they are started again.
    pub async fn start(store: &Store, rules: &Rules, before: Option<&RuleSet>) -> Result<Flow, StoreError> {
        let set = Arc::clone(&rules.set);
        let queues = router::open(store, &set, before).await?;
        router::retire(store, &set).await?;
        let deliveries = Deliveries::start(store, &set, &rules.connections, &queues).await?;
        // Nothing fails from here on.
        router::narrow(store, &set).await;
        let status = Arc::new(RouterStatus::new(set.rules.len()));
        let stop = CancellationToken::new();
        let running =
            router::run(store.clone(), Arc::clone(&set), queues.clone(), Arc::clone(&status), stop.clone());
        let router = tokio::spawn(running);
        let view = Arc::new(View { set, queues, router: status, targets: deliveries.targets().to_vec() });
        Ok(Flow { view, deliveries, router, stop })
    }

    /// What others may see.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view)
    }

    /// Stops routing between two batches, and deliveries by `deadline`.
    pub async fn stop(self, deadline: Instant) {
        self.stop.cancel();
        let (_, ended) = tokio::join!(self.deliveries.stop(deadline), self.router);
        if let Err(error) = ended {
            tracing::error!(%error, "the router had failed");
        }
    }
}
