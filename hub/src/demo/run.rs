//! The demo from start to account.

use std::collections::VecDeque;
use std::io::{IsTerminal, stdout};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tidemill_rules::units::parse_duration;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::fleet::Fleet;
use super::function::Function;
use super::ledger::Arrivals;
use super::sample::Sample;
use super::terminal::{Key, Terminal};
use super::{archive, setup, view};
use crate::cli::{Failed, print};
use crate::hub::Hub;
use crate::telemetry::{self, LogSink};

/// Length of a demo that nobody watches and nobody gave a length.
const FOR_UNWATCHED: Duration = Duration::from_secs(20);
/// Length of a demo that is watched: until `q`, or this.
const FOR_WATCHED: Duration = Duration::from_secs(600);
/// How long the fleet may take to connect.
const CONNECT: Duration = Duration::from_secs(30);
/// How long everything may take to arrive after publishing has ended.
const DRAIN: Duration = Duration::from_secs(30);
/// How long the hub may take to stop.
const STOP: Duration = Duration::from_secs(10);
/// Time between two frames, and between two lines.
const FRAME: Duration = Duration::from_millis(250);
const LINE: Duration = Duration::from_secs(1);
/// Rates are taken over so many samples.
const SAMPLES: usize = 4;

/// Run a hub with a simulated fleet, and account for every message
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// End by itself after so long [default: 20s, or in a terminal when q is pressed, at most 10 minutes]
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    length: Option<Duration>,
    /// Take the HTTP function down for so long, in the middle
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    outage: Option<Duration>,
    /// How many vehicles
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    vehicles: u32,
    /// How many reports all of them send in a second
    #[arg(long, value_name = "N", default_value_t = 3000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Empty directory for the hub's data, which stays; without it, one that is removed in the end
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Seed of the fleet's life
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Runs the demo. Fails if anything published and acknowledged did not arrive.
pub(crate) async fn run(args: Args) -> Result<(), Failed> {
    let watched = stdout().is_terminal();
    let length = args.length.unwrap_or(if watched { FOR_WATCHED } else { FOR_UNWATCHED });
    if let Some(outage) = args.outage.filter(|outage| *outage > length) {
        return Err(Failed::because(format!("--outage {outage:?} is longer than the demo ({length:?})")));
    }
    let dir = Directory::new(args.data_dir.as_deref())?;
    start_logs(watched, &dir)?;
    let function = Function::start().await;
    let function = function.map_err(|error| Failed::because(format!("the demo's HTTP function: {error}")))?;
    let archive = dir.path().join("archive.jsonl");
    let config = setup::config(&dir.path().join("hub"), function.address(), &archive);
    let config = config.map_err(|error| Failed::because(error.render()))?;
    let hub = Hub::start(config).await.map_err(Failed::because)?;
    let mqtt = hub.mqtt_addresses();
    let mqtt = *mqtt.first().ok_or_else(|| Failed::because("the demo's hub has no MQTT address"))?;
    let fleet = Fleet::start(mqtt, args.vehicles, args.rate, args.seed);
    let terminal = if watched { Some(Terminal::open().map_err(Failed::because)?) } else { None };
    let mut demo = Demo { hub, fleet, function, terminal, samples: VecDeque::new(), vehicles: args.vehicles };
    if !watched {
        let data = dir.path().display().to_string();
        let intro = view::Intro {
            vehicles: args.vehicles,
            rate: args.rate,
            length,
            rules: demo.hub.view().set.rules.len(),
            addresses: &addresses(&demo.hub),
            data: &data,
            stays: matches!(dir, Directory::Given(_)),
        };
        print(&view::intro(&intro))?;
    }
    demo.connect().await?;
    demo.publish(length, args.outage).await?;
    demo.account(&archive).await
}

/// Where the demo's data are.
enum Directory {
    Given(PathBuf),
    Temporary(TempDir),
}

impl Directory {
    fn new(given: Option<&Path>) -> Result<Directory, Failed> {
        let Some(path) = given else {
            let made = tempfile::Builder::new().prefix("tidemill-demo-").tempdir();
            return made.map(Directory::Temporary).map_err(|error| {
                Failed::because(format!(
                    "cannot make a temporary directory: {error}; name one with --data-dir"
                ))
            });
        };
        let failed = |error| Failed::because(format!("--data-dir {}: {error}", path.display()));
        std::fs::create_dir_all(path).map_err(failed)?;
        if std::fs::read_dir(path).map_err(failed)?.next().is_some() {
            let what = "it is not empty, and the account needs to begin with nothing; name another one";
            return Err(Failed::because(format!("--data-dir {}: {what}", path.display())));
        }
        Ok(Directory::Given(path.to_owned()))
    }

    fn path(&self) -> &Path {
        match self {
            Directory::Given(path) => path,
            Directory::Temporary(dir) => dir.path(),
        }
    }
}

/// Warnings go to standard error, or into a file when the terminal shows the live view.
fn start_logs(watched: bool, dir: &Directory) -> Result<(), Failed> {
    let settings = crate::config::Telemetry { level: "warn".to_owned(), ..Default::default() };
    let sink = if watched {
        let path = dir.path().join("demo.log");
        let file = std::fs::File::create(&path);
        LogSink::File(file.map_err(|error| Failed::because(format!("{}: {error}", path.display())))?)
    } else {
        LogSink::Stderr
    };
    telemetry::start(&settings, sink).map_err(Failed::because)
}

struct Demo {
    hub: Hub,
    fleet: Fleet,
    function: Function,
    terminal: Option<Terminal>,
    /// The last few, for rates.
    samples: VecDeque<Sample>,
    vehicles: u32,
}

impl Demo {
    /// Waits for the whole fleet to be connected.
    async fn connect(&mut self) -> Result<(), Failed> {
        let until = Instant::now() + CONNECT;
        while self.fleet.online() < u64::from(self.vehicles) {
            if Instant::now() > until {
                let (online, all) = (self.fleet.online(), self.vehicles);
                let hint = "is the limit of open files high enough (ulimit -n)?";
                return Err(Failed::because(format!(
                    "only {online} of {all} vehicles could connect; {hint}"
                )));
            }
            // Without a terminal there is a line a second, and this takes less.
            if self.terminal.is_some() {
                self.show("connecting")?;
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Publishes for `length`, with an outage of the function in the middle.
    async fn publish(&mut self, length: Duration, outage: Option<Duration>) -> Result<(), Failed> {
        self.fleet.go();
        let start = Instant::now();
        let end = start + length;
        let mut outage = Outage::plan(start, length, outage);
        let mut ticks = interval(if self.terminal.is_some() { FRAME } else { LINE });
        // A tick that is late does not move the next: each second has its line.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut ended = std::pin::pin!(tokio::signal::ctrl_c());
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let (now, all) = (start.elapsed().as_secs(), length.as_secs());
                    self.show(&format!("publishing, {now} s of {all} s"))?;
                }
                () = outage.next() => self.set_function(outage.turn()).await?,
                key = key(self.terminal.as_mut()) => match key {
                    Key::Outage => self.set_function(!self.function.is_up()).await?,
                    Key::Quit => return Ok(()),
                },
                () = sleep_until(end) => return Ok(()),
                _ = &mut ended => return Ok(()),
            }
        }
    }

    async fn set_function(&mut self, up: bool) -> Result<(), Failed> {
        if up {
            let brought_up = self.function.up().await;
            brought_up.map_err(|error| {
                Failed::because(format!("the demo's HTTP function cannot come up: {error}"))
            })?;
        } else {
            self.function.down().await;
        }
        if self.terminal.is_none() {
            print(&format!("demo: the HTTP function is {}\n", if up { "up" } else { "down" }))?;
        }
        Ok(())
    }

    /// Waits for everything to arrive, stops the hub, and holds what arrived against what must have.
    async fn account(mut self, archive: &Path) -> Result<(), Failed> {
        if !self.function.is_up() {
            self.set_function(true).await?;
        }
        let vehicles = self.vehicles;
        let ledger = self.fleet.stop().await;
        let published = ledger.published();
        let until = Instant::now() + DRAIN;
        let mut ticks = interval(if self.terminal.is_some() { FRAME } else { LINE });
        let last = loop {
            let sample = Sample::take(&self.hub, published, 0, true);
            if sample.is_drained() || Instant::now() > until {
                break sample;
            }
            tokio::select! {
                _ = ticks.tick() => {}
                () = sleep(Duration::from_millis(20)) => continue,
            }
            show(
                self.terminal.as_ref(),
                &mut self.samples,
                sample,
                "draining",
                vehicles,
                &addresses(&self.hub),
            )?;
        };
        // The screen is as it was before; what follows stays on it.
        drop(self.terminal.take());
        self.hub.stop(STOP).await.map_err(|error| Failed::because(format!("stopping the hub: {error}")))?;
        self.function.down().await;
        let mut arrivals: Arrivals = archive::arrivals(archive)
            .map_err(|error| Failed::because(format!("reading {}: {error}", archive.display())))?;
        arrivals.merge(self.function.take_arrivals());
        let account = ledger.account(&arrivals);
        print(&view::account(&account, last.matched()))?;
        if account.is_clean() { Ok(()) } else { Err(Failed::told()) }
    }

    fn show(&mut self, doing: &str) -> Result<(), Failed> {
        let (published, online) = (self.fleet.published(), self.fleet.online());
        let sample = Sample::take(&self.hub, published, online, self.function.is_up());
        let addresses = addresses(&self.hub);
        show(self.terminal.as_ref(), &mut self.samples, sample, doing, self.vehicles, &addresses)
    }
}

fn addresses(hub: &Hub) -> String {
    let mqtt: Vec<String> = hub.mqtt_addresses().iter().map(ToString::to_string).collect();
    format!("mqtt {}   http://{}/api/v1/rules", mqtt.join(", "), hub.http_address())
}

/// Shows a sample on the screen, or as a line once a second.
fn show(
    terminal: Option<&Terminal>,
    samples: &mut VecDeque<Sample>,
    now: Sample,
    doing: &str,
    vehicles: u32,
    addresses: &str,
) -> Result<(), Failed> {
    let before = samples.front().unwrap_or(&now);
    match terminal {
        Some(terminal) => {
            let phase = view::Phase { vehicles, doing, addresses };
            terminal.show(&view::frame(before, &now, &phase)).map_err(Failed::because)?;
        }
        // Before there is anything to compare with, a line would only say zero.
        None if samples.is_empty() => {}
        None => print(&(view::line(samples.back().unwrap_or(&now), &now, doing) + "\n"))?,
    }
    samples.push_back(now);
    if samples.len() > SAMPLES {
        samples.pop_front();
    }
    Ok(())
}

/// The next key of a terminal; never, without one.
async fn key(terminal: Option<&mut Terminal>) -> Key {
    match terminal {
        Some(terminal) => terminal.key().await,
        None => std::future::pending().await,
    }
}

/// When the function goes down, and when it comes up again.
struct Outage {
    turns: VecDeque<(Instant, bool)>,
}

impl Outage {
    fn plan(start: Instant, length: Duration, outage: Option<Duration>) -> Outage {
        let turns = outage.map_or_else(VecDeque::new, |outage| {
            let down = start + length.saturating_sub(outage) / 2;
            VecDeque::from([(down, false), (down + outage, true)])
        });
        Outage { turns }
    }

    /// Waits for the next turn; never comes when there is none.
    async fn next(&self) {
        match self.turns.front() {
            Some((at, _)) => sleep_until(*at).await,
            None => std::future::pending().await,
        }
    }

    /// Takes the turn: whether the function is up from now on.
    fn turn(&mut self) -> bool {
        self.turns.pop_front().is_none_or(|(_, up)| up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_outage_is_in_the_middle() {
        let start = Instant::now();
        let mut outage = Outage::plan(start, Duration::from_secs(20), Some(Duration::from_secs(5)));
        let at: Vec<_> = outage.turns.iter().map(|(at, up)| ((*at - start).as_millis(), *up)).collect();
        assert_eq!(at, [(7500, false), (12500, true)]);
        assert!(!outage.turn() && outage.turn());
    }
}
