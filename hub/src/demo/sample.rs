//! [`Sample`]: the numbers of one moment, and what changed between two of them.

use std::time::Instant;

use crate::delivery::State;
use crate::hub::Hub;

/// The numbers of one moment.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    /// Reports acknowledged by the hub.
    pub(super) published: u64,
    /// Records in the log.
    pub(super) stored: u64,
    pub(super) log_bytes: u64,
    /// Vehicles connected.
    pub(super) online: u64,
    /// Records the router has still to look at.
    pub(super) router_lag: u64,
    pub(super) function_up: bool,
    pub(super) rules: Vec<RuleSample>,
}

/// One rule.
#[derive(Clone, Debug)]
pub(super) struct RuleSample {
    pub(super) name: String,
    pub(super) matched: u64,
    pub(super) targets: Vec<TargetSample>,
}

/// One target of a rule.
#[derive(Clone, Debug)]
pub(super) struct TargetSample {
    pub(super) name: String,
    pub(super) delivered: u64,
    pub(super) lag: u64,
    pub(super) retries: u64,
    pub(super) dead_letters: u64,
    pub(super) state: State,
}

impl Sample {
    /// Asks the hub and the fleet.
    pub(super) fn take(hub: &Hub, published: u64, online: u64, function_up: bool) -> Sample {
        let (view, stats) = (hub.view(), hub.store().stats());
        let rules = view.set.rules.iter().enumerate().map(|(index, rule)| RuleSample {
            name: rule.name.clone(),
            matched: view.router.matched(index),
            targets: view
                .targets_of(index)
                .map(|target| {
                    let now = target.snapshot(hub.store());
                    TargetSample {
                        name: target.name.clone(),
                        delivered: now.delivered,
                        lag: now.lag,
                        retries: now.retries,
                        dead_letters: now.dead_letters,
                        state: now.state,
                    }
                })
                .collect(),
        });
        Sample {
            at: Instant::now(),
            published,
            stored: stats.records,
            log_bytes: stats.log_bytes,
            online,
            router_lag: view.router_lag(hub.store()),
            function_up,
            rules: rules.collect(),
        }
    }

    /// Matches of all rules.
    pub(super) fn matched(&self) -> u64 {
        self.rules.iter().map(|rule| rule.matched).sum()
    }

    /// Sum of one number of all targets.
    pub(super) fn total(&self, number: impl Fn(&TargetSample) -> u64) -> u64 {
        self.rules.iter().flat_map(|rule| &rule.targets).map(number).sum()
    }

    /// Whether everything published so far has been routed and delivered.
    pub(super) fn is_drained(&self) -> bool {
        self.router_lag == 0 && self.total(|target| target.lag) == 0
    }
}

/// How much a number grows in a second.
pub(super) fn per_second(before: &Sample, now: &Sample, number: impl Fn(&Sample) -> u64) -> u64 {
    let seconds = now.at.duration_since(before.at).as_secs_f64();
    let grown = number(now).saturating_sub(number(before)) as f64;
    if seconds > 0.0 { (grown / seconds).round() as u64 } else { 0 }
}
