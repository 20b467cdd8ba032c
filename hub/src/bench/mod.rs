//! `tidemill bench`: what the embedded store does on this machine, and what an MQTT broker does under load.
//!
//! `bench store`: each row has a requirement. Where the requirement is a part of what the machine can do (a bare `pwritev`, a bare
//! sequential read), that limit is measured in the same run, on the same disk, with the same bytes. Only the store's public interface
//! is used. What is timed is said where it is timed; records are made before.
//!
//! # Layout
//! - `store/`: the rows of `bench store`, one file for each group of them; `row`: their names; `limits`: the bare system calls;
//!   `child`: parts that need a process of their own: to be killed, or to have memory that nothing else has used
//! - `mqtt/`: `bench mqtt`: a load for any broker, and Tidemill beside mosquitto
//! - `measure`: medians, memory and processor time of a process, sizes of files
//! - `place`: where the temporary data goes, and whether it fits
//! - `report`: requirements, the table and the JSON lines

mod child;
mod limits;
mod measure;
mod mqtt;
mod place;
mod report;
mod row;
mod store;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tidemill_store::StoreError;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use self::place::Place;
use self::report::Line;
use self::row::Row;
use self::store::ManyQueues;
use crate::cli::{Failed, print};
use crate::telemetry::{self, LogSink};

/// How long threads may take to end before the temporary data is removed.
const END: Duration = Duration::from_secs(10);

/// Measure this machine and what Tidemill does with it
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Measure the embedded store and the limits of the disk beside it
    Store(StoreArgs),
    /// Measure an MQTT broker under load, and account for every message
    Mqtt(Box<mqtt::Args>),
    /// Run a program on a core of its own, for as long as the bench runs
    #[command(hide = true)]
    Pinned(mqtt::pinned::Args),
    /// A part of a row that needs a process of its own
    #[command(hide = true)]
    Child(child::Args),
}

#[derive(Debug, clap::Args)]
struct StoreArgs {
    /// Print a JSON object a line instead of a table
    #[arg(long)]
    json: bool,
    /// Only these rows (a row may print several lines)
    #[arg(long, value_name = "ROW,…", value_enum, value_delimiter = ',')]
    rows: Vec<Row>,
    /// Small sizes, about half a minute: shows that it works; missing a requirement does not fail the run
    #[arg(long)]
    quick: bool,
    /// Directory on the disk to measure; a temporary directory is made in it and removed in the end
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How often each row is measured; the median counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    runs: u16,
}

/// Why a row could not be measured.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Other(String),
}

type Result<T, E = Error> = std::result::Result<T, E>;

/// What the rows have in common.
struct Bench {
    dir: PathBuf,
    quick: bool,
    runs: usize,
    row: Row,
    /// The store with very many queues, once a row has asked for it.
    many: Option<ManyQueues>,
}

impl Bench {
    /// `full`, or `quick` with `--quick`.
    fn scale<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// Tells on standard error what is going on.
    fn say(&self, what: impl std::fmt::Display) {
        eprintln!("bench: {}: {what}", self.row);
    }

    fn say_run(&self, run: usize) {
        self.say(format_args!("run {} of {}", run + 1, self.runs));
    }

    /// A directory of this name that is not there yet.
    fn fresh(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        remove(&dir)?;
        Ok(dir)
    }
}

fn remove(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Runs what blocks off the async threads.
async fn blocking<T: Send + 'static>(job: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(job).await;
    done.unwrap_or_else(|failed| Err(Error::Other(format!("a thread of the bench failed: {failed}"))))
}

/// Runs `tidemill bench`.
pub(crate) fn run(args: Args) -> Result<(), Failed> {
    let settings = crate::config::Telemetry { level: "warn".to_owned(), ..Default::default() };
    telemetry::start(&settings, LogSink::Stderr).map_err(Failed::because)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failed::because(format!("cannot start threads: {error}")))?;
    match args.what {
        What::Store(args) => measure_store(&args, runtime),
        What::Mqtt(args) => {
            let stop = mqtt::Stop::default();
            let wish = stop.clone();
            runtime.spawn(async move {
                ended().await;
                wish.wish();
            });
            mqtt::run(&args, &stop)
        }
        What::Child(args) => runtime.block_on(child::run(args)).map_err(Failed::because),
        What::Pinned(args) => mqtt::pinned::run(args).map_err(Failed::because),
    }
}

/// Runs `tidemill bench store`.
fn measure_store(args: &StoreArgs, runtime: Runtime) -> Result<(), Failed> {
    let place = Place::new(args.dir.as_deref()).map_err(Failed::because)?;
    eprintln!("bench: temporary data in {place}");
    if let Some(busy) = measure::busy() {
        eprintln!(
            "bench: {busy}; figures, and those of the limits above all, will not be those of this machine"
        );
    }
    let done = runtime.block_on(async {
        tokio::select! {
            done = measure_rows(args, &place) => done,
            ended = ended() => Err(ended),
        }
    });
    // Whatever still writes has to end before its directory can be removed.
    runtime.shutdown_timeout(END);
    place.remove().map_err(Failed::because).and(done)
}

/// Waits for the signal to end.
async fn ended() -> Failed {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return Failed::because("cannot watch for signals");
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Failed::because("stopped; the temporary data is removed")
}

async fn measure_rows(args: &StoreArgs, place: &Place) -> Result<(), Failed> {
    let mut bench = Bench {
        dir: place.path().to_owned(),
        quick: args.quick,
        runs: args.runs.into(),
        row: Row::Append,
        many: None,
    };
    let mut lines: Vec<Line> = Vec::new();
    let mut failed = None;
    for row in row::selected(&args.rows) {
        bench.row = row;
        if row > Row::OpenCrash
            && let Some(many) = bench.many.take()
        {
            // No later row uses it, and it is the largest thing there is.
            many.remove().map_err(Failed::because)?;
        }
        let measured = match place.room_for(row.disk_bytes(args.quick)) {
            Ok(()) => store::measure(&mut bench, row).await,
            Err(error) => Err(error),
        };
        match measured {
            Ok(measured) => {
                if args.json {
                    for line in &measured {
                        print(&line.json())?;
                    }
                }
                lines.extend(measured);
            }
            // The other rows may still be of use, but what was asked for is not complete.
            Err(error) => {
                bench.say(&error);
                failed.get_or_insert_with(|| format!("row {row}: {error}"));
            }
        }
    }
    if !args.json {
        print(&report::table(&lines, ["value", "limit"]))?;
    }
    if let Some(failed) = failed {
        return Err(Failed::because(failed));
    }
    report::met(&lines, args.quick)
}
