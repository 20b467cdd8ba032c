//! Scenario `kill`: SIGKILL under load, and whether everything that was acknowledged arrives after the broker is back.

use std::time::{Duration, Instant};

use super::Target;
use super::broker::{Broker, Brokers};
use super::drive::{self, Brake, Until};
use super::flow::Flow;
use super::net::Net;
use super::outcome::Outcome;
use super::scenario::{Scenario, Size};
use super::shape::Shape;
use crate::bench::Result;
use crate::mqtt::codec::Qos;

const PUBLISHERS: usize = 100;
/// Messages of a publisher without a PUBACK. What is not delivered yet does not slow them: the broker is killed with a
/// backlog.
const WINDOW: u64 = 100;
/// The load goes on for so long at most.
const LENGTH: Duration = Duration::from_secs(2);

/// 100 publishers and one subscriber with a persistent session. What the broker has written to a socket counts as said: PUBACKs
/// are read to the last one after it is dead.
pub(super) fn measure(
    brokers: &Brokers,
    broker: &mut Broker,
    target: &mut Target,
    size: &Size,
) -> Result<Outcome> {
    let mut flow =
        Flow::new(Shape::FanIn(PUBLISHERS), Qos::AtLeastOnce, size.payload_bytes(), target.version);
    let mut net = Net::new(target)?;
    flow.connect_subscribers(&mut net, false)?;
    flow.connect_publishers(&mut net)?;
    let until = Until::Elapsed(LENGTH.min(size.length()));
    drive::publish(&mut flow, &mut net, target, Brake::Unacknowledged(WINDOW), until)?;
    broker.kill()?;
    net.let_go();
    net.until_gone(&mut flow)?;
    flow.disconnected();

    let began = Instant::now();
    brokers.restart(broker, &target.stop)?;
    let restart = began.elapsed();
    target.pid = Some(broker.pid());
    let mut net = Net::new(target)?;
    flow.expect_subscriber(0);
    net.open_all([flow.returning(0)], &mut flow)?;
    let arrived_before = flow.delivered();
    drive::drain(&mut flow, &mut net, Flow::acknowledged_arrived)?;
    net.leave(&mut flow)?;

    let mut outcome = Outcome::new(Scenario::Kill);
    outcome.push("restart", restart.as_secs_f64(), "s");
    outcome.push("after-restart", (flow.delivered() - arrived_before) as f64, "messages");
    outcome.push_account(&flow);
    Ok(outcome)
}
