//! Scenarios `fan-in-*`, `fan-out-*`, `pairs-qos1` and `paced-qos1`: messages from publishers to subscribers that are there.

use super::Target;
use super::drive::{self, Brake};
use super::flow::Flow;
use super::net::Net;
use super::outcome::Outcome;
use super::scenario::{Scenario, Size};
use super::shape::Shape;
use crate::bench::Result;
use crate::mqtt::codec::Qos;

/// Publishers of a fan-in, and pairs.
const PUBLISHERS: usize = 100;
/// Subscribers of a fan-out.
const SUBSCRIBERS: usize = 500;
/// Messages of one publisher that may be under way, of many publishers and of a single one. With fan-out, the latter is so
/// many times the subscribers of deliveries: some 20,000, which no broker need drop.
const WINDOW: u64 = 100;
const WINDOW_FAN_OUT: u64 = 40;

/// Measures one of them. Timed: from the first tenth to the end of publishing. A window holds what is not delivered everywhere, so
/// the rate is one of deliveries, not of what a broker takes in and keeps.
pub(super) fn measure(scenario: Scenario, target: &Target, size: &Size) -> Result<Outcome> {
    let many = Shape::FanIn(PUBLISHERS);
    let fan_out = Shape::FanOut(size.scale(SUBSCRIBERS, 50));
    let window = Brake::Window(WINDOW);
    let (shape, qos, brake) = match scenario {
        Scenario::FanInQos0 => (many, Qos::AtMostOnce, window),
        Scenario::FanInQos1 => (many, Qos::AtLeastOnce, window),
        Scenario::FanOutQos0 => (fan_out, Qos::AtMostOnce, Brake::Window(WINDOW_FAN_OUT)),
        Scenario::FanOutQos1 => (fan_out, Qos::AtLeastOnce, Brake::Window(WINDOW_FAN_OUT)),
        Scenario::PairsQos1 => (Shape::Pairs(PUBLISHERS), Qos::AtLeastOnce, window),
        _ => (many, Qos::AtLeastOnce, Brake::Pace(size.rate())),
    };
    let mut net = Net::new(target)?;
    let mut flow = Flow::new(shape, qos, size.payload_bytes(), target.version);
    flow.connect_subscribers(&mut net, true)?;
    flow.connect_publishers(&mut net)?;
    let measured = drive::run(&mut flow, &mut net, target, brake, size.until())?;
    net.leave(&mut flow)?;

    let mut outcome = Outcome::new(scenario);
    outcome.push("rate", measured.per_s, "deliveries/s");
    outcome.push_latency(&flow);
    if let Brake::Pace(_) = brake {
        outcome.push("send-late-p99", measured.send_late.percentile(99.0) as f64 / 1e6, "ms");
        outcome.push("send-late-max", measured.send_late.max() as f64 / 1e6, "ms");
    }
    outcome.push_busy(measured.busy);
    outcome.push_account(&flow);
    Ok(outcome)
}
