//! Scenario `offline`: what a broker does with messages for sessions that are away, and how fast they get them back.

use std::time::{Duration, Instant};

use super::Target;
use super::busy::Used;
use super::drive::{self, Brake, Quiet, Until};
use super::flow::Flow;
use super::net::{Net, Nothing, PATIENCE, Session, TURN};
use super::outcome::Outcome;
use super::scenario::{Scenario, Size};
use super::shape::Shape;
use crate::bench::{Error, Result, measure};
use crate::mqtt::codec::Qos;

const SESSIONS: usize = 2000;
const PAYLOAD_BYTES: usize = 1000;
/// Messages without a PUBACK while publishing.
const WINDOW: u64 = 100;

/// What the broker has of memory and of disk, as far as it is known where.
fn used(target: &Target) -> Result<(Option<u64>, Option<u64>)> {
    let resident = target.pid.map(measure::resident_of).transpose()?;
    let written = target.data_dir.as_deref().map(measure::written_bytes).transpose()?;
    Ok((resident, written))
}

/// Timed: publishing from the first PUBLISH to the last PUBACK; draining from the first CONNECT of a session to the last
/// delivery. Memory and disk are those before and after publishing.
pub(super) fn measure(target: &Target, size: &Size) -> Result<Outcome> {
    let shape = Shape::FanOut(size.scale(SESSIONS, 50));
    let settle = size.scale(Duration::from_secs(2), Duration::from_millis(200));
    let messages = size.offline_messages();
    let mut flow = Flow::new(shape, Qos::AtLeastOnce, PAYLOAD_BYTES, target.version);
    let mut net = Net::new(target)?;
    flow.connect_subscribers(&mut net, false)?;
    net.leave(&mut flow)?;
    flow.disconnected();

    let mut net = Net::new(target)?;
    flow.connect_publishers(&mut net)?;
    target.pause(settle)?;
    let before = used(target)?;
    let began = Instant::now();
    drive::publish(&mut flow, &mut net, target, Brake::Unacknowledged(WINDOW), Until::Sent(messages))?;
    drive::drain(&mut flow, &mut net, |flow| flow.acknowledged_count() == flow.sent())?;
    let publishing = began.elapsed();
    target.pause(settle)?;
    let after = used(target)?;

    let began = Used::now(target)?;
    come_back(&mut flow, &mut net, shape.subscribers())?;
    let drained = Used::now(target)?;
    net.leave(&mut flow)?;
    forget(target, &flow, shape.subscribers())?;

    let mut outcome = Outcome::new(Scenario::Offline);
    outcome.push("publish-rate", measure::rate(messages, publishing), "messages/s");
    outcome.push("drain-rate", measure::rate(flow.delivered(), began.took(&drained)), "deliveries/s");
    outcome.push_busy(began.until(&drained));
    let megabytes = |(before, after): (u64, u64)| (after as f64 - before as f64) / 1e6;
    if let Some(resident) = before.0.zip(after.0) {
        outcome.push("memory-growth", megabytes(resident), "MB");
    }
    if let Some(written) = before.1.zip(after.1) {
        outcome.push("disk-growth", megabytes(written), "MB");
    }
    outcome.push_account(&flow);
    Ok(outcome)
}

/// Connects the sessions again, and waits until they have everything or nothing comes any more.
fn come_back(flow: &mut Flow, net: &mut Net, sessions: usize) -> Result<()> {
    let mut quiet = Quiet::new(flow);
    let mut next = 0;
    while !flow.complete() && quiet.lasts() < PATIENCE {
        while next < sessions && net.may_open() {
            flow.expect_subscriber(next);
            net.open(&flow.returning(next))?;
            next += 1;
        }
        net.flush()?;
        net.turn(TURN, flow)?;
        quiet.look(flow);
    }
    if next < sessions {
        return Err(Error::Other(format!("only {next} of {sessions} sessions could come back")));
    }
    net.flush()
}

/// Leaves no session behind on a broker that goes on.
fn forget(target: &Target, flow: &Flow, sessions: usize) -> Result<()> {
    let mut net = Net::new(target)?;
    let anew = |number| Session { subscribe: None, ..flow.subscriber(number, true) };
    net.open_all((0..sessions).map(anew), &mut Nothing)?;
    net.leave(&mut Nothing)
}
