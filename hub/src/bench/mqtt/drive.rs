//! Driving a [`Flow`]: in a closed loop or at a pace, for a time or a number of messages; then waiting for the rest.

use std::time::{Duration, Instant};

use super::Target;
use super::busy::{Busy, Used};
use super::flow::Flow;
use super::histogram::Histogram;
use super::net::{Net, PATIENCE, TURN};
use super::pace::Pace;
use crate::bench::measure;
use crate::bench::{Error, Result};

/// With QoS 0, messages that have not come after this long were dropped.
const DROPPED_AFTER: Duration = Duration::from_millis(500);
/// A wait for the next message of a pace that is shorter than this is not slept through: the system's timers would be late.
const SPIN_BELOW_NS: u64 = 2_000_000;

/// When publishing ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    Elapsed(Duration),
    Sent(u64),
}

/// What keeps publishers from sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Brake {
    /// So many messages of a publisher may be under way: not acknowledged, or not delivered everywhere.
    Window(u64),
    /// So many messages of a publisher may be not acknowledged; nobody is there to whom they are delivered.
    Unacknowledged(u64),
    /// So many messages a second of all publishers together, whatever becomes of them.
    Pace(u64),
}

enum Sending {
    Window(u64),
    Unacknowledged(u64),
    Pace(Pace),
}

/// The state of things at one moment.
#[derive(Clone, Copy, Debug)]
struct Mark {
    delivered: u64,
    used: Used,
}

impl Mark {
    fn take(flow: &Flow, target: &Target) -> Result<Mark> {
        Ok(Mark { delivered: flow.delivered(), used: Used::now(target)? })
    }
}

/// What was measured between the first tenth, which is for warming up, and the end of publishing (or the last
/// arrival, where a number of messages was asked for).
#[derive(Clone, Debug)]
pub(super) struct Measured {
    /// Deliveries a second.
    pub(super) per_s: f64,
    pub(super) busy: Busy,
    /// How late messages of a pace were sent, in nanoseconds: more than a little means that the load was the limit.
    pub(super) send_late: Histogram,
}

impl Measured {
    fn between(from: &Mark, to: &Mark, send_late: Histogram) -> Measured {
        Measured {
            per_s: measure::rate(to.delivered - from.delivered, from.used.took(&to.used)),
            busy: from.used.until(&to.used),
            send_late,
        }
    }
}

/// Publishes until the end, and waits until everything has come or nothing comes any more.
pub(super) fn run(
    flow: &mut Flow,
    net: &mut Net,
    target: &Target,
    brake: Brake,
    until: Until,
) -> Result<Measured> {
    let Published { warm, mut end, send_late } = publish(flow, net, target, brake, until)?;
    drain(flow, net, Flow::complete)?;
    if matches!(until, Until::Sent(_)) {
        end = Mark::take(flow, target)?;
    }
    Ok(Measured::between(&warm, &end, send_late))
}

/// What [`publish`] has seen: the end of warming up, and the end.
pub(super) struct Published {
    warm: Mark,
    end: Mark,
    send_late: Histogram,
}

/// Publishes until the end.
pub(super) fn publish(
    flow: &mut Flow,
    net: &mut Net,
    target: &Target,
    brake: Brake,
    until: Until,
) -> Result<Published> {
    let began = Instant::now();
    let mut sending = match brake {
        Brake::Window(window) => Sending::Window(window),
        Brake::Unacknowledged(window) => Sending::Unacknowledged(window),
        Brake::Pace(per_s) => Sending::Pace(Pace::new(net.now_ns(), per_s)),
    };
    let mut send_late = Histogram::default();
    let mut warm = None;
    let mut sent = 0;
    let mut quiet = Quiet::new(flow);
    loop {
        let left = match until {
            Until::Elapsed(length) if began.elapsed() >= length => 0,
            Until::Elapsed(_) => u64::MAX,
            Until::Sent(count) => count.saturating_sub(sent),
        };
        let warmed = match until {
            Until::Elapsed(length) => began.elapsed() * 10 >= length,
            Until::Sent(count) => sent * 10 >= count,
        };
        if warm.is_none() && warmed {
            warm = Some(Mark::take(flow, target)?);
            flow.latency.clear();
            send_late.clear();
        }
        if left == 0 {
            break;
        }
        let mut wait = TURN;
        match &mut sending {
            Sending::Window(window) => sent += flow.fill(net, *window, true, left),
            Sending::Unacknowledged(window) => sent += flow.fill(net, *window, false, left),
            Sending::Pace(pace) => {
                let now_ns = net.now_ns();
                let end = sent.saturating_add(left);
                while sent < end
                    && let Some((number, intended_ns)) = pace.due(now_ns)
                    && flow.send(net, number, intended_ns)
                {
                    send_late.record(now_ns - intended_ns);
                    pace.sent();
                    sent += 1;
                }
                let ahead_ns = pace.next_ns().saturating_sub(net.now_ns());
                wait = if ahead_ns < SPIN_BELOW_NS { Duration::ZERO } else { Duration::from_millis(1) };
            }
        }
        net.flush()?;
        net.turn(wait, flow)?;
        quiet.look(flow);
        if quiet.lasts() > DROPPED_AFTER && flow.drops() {
            flow.write_off();
        }
        if quiet.lasts() > PATIENCE {
            return Err(Error::Other(format!(
                "nothing was delivered or acknowledged for {PATIENCE:?}, {} of {} messages in; look in the broker's log",
                flow.delivered(),
                flow.sent()
            )));
        }
    }
    let end = Mark::take(flow, target)?;
    Ok(Published { warm: warm.unwrap_or(end), end, send_late })
}

/// Waits until what is wanted is there, or nothing comes any more.
pub(super) fn drain(flow: &mut Flow, net: &mut Net, wanted: impl Fn(&Flow) -> bool) -> Result<()> {
    let patience = if flow.drops() { 4 * DROPPED_AFTER } else { PATIENCE };
    let mut quiet = Quiet::new(flow);
    while !wanted(flow) && quiet.lasts() < patience {
        net.flush()?;
        net.turn(TURN, flow)?;
        quiet.look(flow);
    }
    // The last acknowledgements.
    net.flush()
}

/// How long nothing has happened.
pub(super) struct Quiet {
    events: u64,
    since: Instant,
}

impl Quiet {
    pub(super) fn new(flow: &Flow) -> Quiet {
        Quiet { events: flow.events(), since: Instant::now() }
    }

    pub(super) fn look(&mut self, flow: &Flow) {
        if flow.events() != self.events {
            *self = Quiet::new(flow);
        }
    }

    pub(super) fn lasts(&self) -> Duration {
        self.since.elapsed()
    }
}
