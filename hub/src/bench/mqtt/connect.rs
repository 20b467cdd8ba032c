//! Scenario `connect`: connections a second, and the memory of one that is idle.

use std::time::Duration;

use super::Target;
use super::busy::Used;
use super::net::{Net, Nothing, Session};
use super::outcome::Outcome;
use super::scenario::{Scenario, Size};
use crate::bench::{Result, measure};
use crate::mqtt::codec::Qos;

const CONNECTIONS: usize = 10_000;

/// Timed: from the first SYN to the last CONNACK, where nobody waits for anybody: a fleet that comes back after an outage. Who
/// finds the broker's queue of connections full comes again when its system does: after a second, then after two more, and so on. What
/// the clients themselves need, sockets and packets, is made before. Memory: what the broker's resident memory has grown by from
/// before the first connection to when each has subscribed to a topic of its own and the broker has had time to give back what it
/// needed meanwhile.
pub(super) fn measure(target: &Target, size: &Size) -> Result<Outcome> {
    let count = size.scale(CONNECTIONS, 200);
    let settle = size.scale(Duration::from_secs(3), Duration::from_millis(100));
    let resident = || target.pid.map(measure::resident_of).transpose();
    let run: u32 = rand::random();
    let session =
        |number| Session { client_id: format!("bench-{run:08x}-c{number}"), clean: true, subscribe: None };
    let before = resident()?;
    let mut net = Net::new(target)?;
    net.reserve(count)?;
    for number in 0..count {
        net.prepare(&session(number))?;
    }
    let began = Used::now(target)?;
    net.storm(&mut Nothing)?;
    let opened = Used::now(target)?;

    let mut outcome = Outcome::new(Scenario::Connect);
    outcome.push("rate", measure::rate(count as u64, began.took(&opened)), "connections/s");
    outcome.push_busy(began.until(&opened));
    if let Some(before) = before {
        for number in 0..count {
            net.subscribe(number, &format!("bench/{run:08x}/{number}"), Qos::AtLeastOnce)?;
        }
        net.open_all([], &mut Nothing)?;
        target.pause(settle)?;
        let grown = resident()?.unwrap_or_default() as f64 - before as f64;
        outcome.push("idle-memory", grown / count as f64, "B/connection");
    }
    outcome.push("connections", net.open_count() as f64, "connections");
    net.leave(&mut Nothing)?;
    Ok(outcome)
}
