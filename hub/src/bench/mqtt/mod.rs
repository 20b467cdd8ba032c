//! `tidemill bench mqtt`: what an MQTT broker does under load, with an account of every message.
//!
//! The load is one thread with all connections (`net`). Each payload says which message it is and when it was to be sent
//! (`stamp`); what was acknowledged and what arrived is kept track of by number (`track`), so that lost, duplicated and reordered
//! messages are counted, not guessed. Latency counts from the intended time.
//!
//! # Layout
//! - `scenario`: the scenarios by name, and their sizes
//! - `messages`, `connect`, `offline`, `kill`: the scenarios
//! - `flow`: publishers, subscribers and the account; `shape`: who publishes to whom; `drive`: closed loops, paces, waiting
//! - `net`: connections; `wire`: packets; `stamp`, `track`, `pace`, `histogram`: what their names say
//! - `busy`: processor time of load and broker; `outcome`: figures, as a table and as JSON lines
//! - `compare`: Tidemill beside mosquitto; `broker`: starting them; `pinned`: a core for each

mod broker;
mod busy;
mod compare;
mod connect;
mod drive;
mod flow;
mod histogram;
mod kill;
mod messages;
mod net;
mod offline;
mod outcome;
mod pace;
pub(super) mod pinned;
mod scenario;
mod shape;
mod stamp;
#[cfg(test)]
mod tests;
mod track;
mod wire;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use self::broker::Brokers;
use self::compare::Compare;
use self::outcome::Outcome;
use self::scenario::{Scenario, Size};
use super::place::Place;
use super::report::{self, Line};
use super::{Error, Result};
use crate::cli::{Failed, print};
use crate::mqtt::codec::Version;

/// Bytes on disk that a comparison needs at most.
const DISK_BYTES: u64 = 8_000_000_000;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The broker's host
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    host: String,
    /// The broker's port
    #[arg(long, value_name = "PORT", default_value_t = 1883)]
    port: u16,
    /// Only these scenarios
    #[arg(long, value_name = "SCENARIO,…", value_enum, value_delimiter = ',')]
    scenarios: Vec<Scenario>,
    #[command(flatten)]
    size: Size,
    /// Speak MQTT 5.0, not 3.1.1
    #[arg(long)]
    v5: bool,
    /// Print a JSON object a line for each figure instead of a table
    #[arg(long)]
    json: bool,
    /// The broker's process, to tell its memory and processor time
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// The broker's data directory, to tell how it grows
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Start Tidemill and mosquitto by turns, each with a core of its own, and hold one against the other
    #[arg(long, conflicts_with_all = ["host", "port", "pid", "data_dir"])]
    compare: bool,
    /// With --compare: how often each scenario is measured, `paced-qos1` and `connect` three times as often; the median counts
    #[arg(long, value_name = "N", default_value_t = 3, requires = "compare", value_parser = clap::value_parser!(u16).range(1..=100))]
    runs: u16,
    /// With --compare: directory on the disk for the brokers' data; a temporary directory is made in it and removed in the end
    #[arg(long, value_name = "DIR", requires = "compare")]
    dir: Option<PathBuf>,
    /// With --compare: mosquitto's program, if it is not where it usually is
    #[arg(long, value_name = "FILE", requires = "compare")]
    mosquitto: Option<PathBuf>,
}

/// The wish to stop, which every wait looks at.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(super) fn wish(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(Error::Other("stopped".into())) } else { Ok(()) }
    }

    fn pause(&self, length: Duration) -> Result<()> {
        let until = Instant::now() + length;
        while Instant::now() < until {
            self.check()?;
            std::thread::sleep(until.saturating_duration_since(Instant::now()).min(net::TURN));
        }
        self.check()
    }
}

/// The broker, and what is known of it.
#[derive(Clone, Debug)]
struct Target {
    address: SocketAddr,
    version: Version,
    pid: Option<u32>,
    data_dir: Option<PathBuf>,
    stop: Stop,
}

impl Target {
    /// One that nobody talks to.
    #[cfg(test)]
    fn unknown(pid: u32) -> Target {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        Target { address, version: Version::V311, pid: Some(pid), data_dir: None, stop: Stop::default() }
    }

    /// Lets time pass, unless there is a wish to stop.
    fn pause(&self, length: Duration) -> Result<()> {
        self.stop.pause(length)
    }
}

/// Runs `tidemill bench mqtt` on this thread.
pub(super) fn run(args: &Args, stop: &Stop) -> Result<(), Failed> {
    let version = if args.v5 { Version::V5 } else { Version::V311 };
    if let Some(busy) = super::measure::busy() {
        eprintln!("bench: {busy}; figures will not be those of this machine");
    }
    if !args.compare {
        let target = target(args, version, stop).map_err(Failed::because)?;
        return measure_all(args, &target);
    }
    let place = Place::new(args.dir.as_deref()).map_err(Failed::because)?;
    eprintln!("bench: temporary data in {place}");
    let done = place.room_for(DISK_BYTES).map_err(Failed::because).and_then(|()| {
        let compare = prepare(args, version, &place, stop).map_err(Failed::because)?;
        compare_all(args, &compare)
    });
    place.remove().map_err(Failed::because).and(done)
}

fn target(args: &Args, version: Version, stop: &Stop) -> Result<Target> {
    let Args { host, port, .. } = args;
    let failed = |error: &dyn std::fmt::Display| Error::Other(format!("--host {host}: {error}"));
    let mut addresses = (host.as_str(), *port).to_socket_addrs().map_err(|error| failed(&error))?;
    let address = addresses.next().ok_or_else(|| failed(&"it has no address"))?;
    Ok(Target { address, version, pid: args.pid, data_dir: args.data_dir.clone(), stop: stop.clone() })
}

/// Measures a scenario once.
fn measure(scenario: Scenario, target: &Target, size: &Size) -> Result<Outcome> {
    match scenario {
        Scenario::Connect => connect::measure(target, size),
        Scenario::Offline => offline::measure(target, size),
        Scenario::Kill => Err(Error::Other("only --compare can kill a broker and start it again".into())),
        _ => messages::measure(scenario, target, size),
    }
}

fn measure_all(args: &Args, target: &Target) -> Result<(), Failed> {
    let mut outcomes = Vec::new();
    let mut failures = Failures::default();
    for scenario in scenario::selected(&args.scenarios, false) {
        eprintln!("bench: {scenario}");
        match measure(scenario, target, &args.size) {
            Ok(outcome) => {
                if args.json {
                    print(&outcome.json())?;
                }
                outcome.broken().into_iter().for_each(|what| failures.add(what));
                outcomes.push(outcome);
            }
            Err(error) => failures.add(format!("{scenario}: {error}")),
        }
        target.stop.check().map_err(Failed::because)?;
    }
    if !args.json {
        print(&outcome::table(&outcomes))?;
    }
    failures.end()
}

/// Finds out what can be started where, and takes a core for the load.
fn prepare(args: &Args, version: Version, place: &Place, stop: &Stop) -> Result<Compare> {
    let mosquitto = broker::find_mosquitto(args.mosquitto.as_deref());
    if mosquitto.is_none() {
        eprintln!(
            "bench: mosquitto is not installed (Debian: the package mosquitto), so that Tidemill is measured \
             alone; --mosquitto names its program if it is elsewhere"
        );
    }
    let core = match pinned::cores()?[..] {
        [broker, load, ..] => {
            pinned::pin(load)?;
            eprintln!("bench: brokers on core {broker}, the load on core {load}");
            Some(broker)
        }
        _ => {
            eprintln!("bench: brokers and load share one core, so that figures are those of both together");
            None
        }
    };
    let brokers = Brokers { dir: place.path().to_owned(), core, mosquitto };
    Ok(Compare { brokers, size: args.size.clone(), version, runs: args.runs.into(), stop: stop.clone() })
}

fn compare_all(args: &Args, compare: &Compare) -> Result<(), Failed> {
    let mut lines: Vec<Line> = Vec::new();
    let mut failures = Failures::default();
    for scenario in scenario::selected(&args.scenarios, true) {
        let mut broken = Vec::new();
        match compare.lines(scenario, &mut broken) {
            Ok(measured) => {
                if args.json {
                    measured.iter().try_for_each(|line| print(&line.json()))?;
                }
                lines.extend(measured);
            }
            Err(error) => failures.add(format!("{scenario}: {error}")),
        }
        broken.into_iter().for_each(|what| failures.add(what));
        compare.stop.check().map_err(Failed::because)?;
    }
    if !args.json {
        print(&report::table(&lines, ["Tidemill", "mosquitto"]))?;
    }
    failures.end()?;
    report::met(&lines, args.size.quick)
}

/// What went wrong. The other scenarios may still be of use, but what was asked for is not complete.
#[derive(Default)]
struct Failures(Option<String>);

impl Failures {
    fn add(&mut self, what: String) {
        eprintln!("bench: {what}");
        self.0.get_or_insert(what);
    }

    fn end(self) -> Result<(), Failed> {
        self.0.map_or(Ok(()), |what| Err(Failed::because(what)))
    }
}
