//! `tidemill serve`: run a hub.
//!
//! One line on standard output says that every listener is open; logs go to standard error. SIGTERM or SIGINT stop
//! gracefully, another one at once if it is not an echo of the first. SIGHUP reads connections, rules and certificates
//! again: a bad configuration is reported and changes nothing.

use std::time::{Duration, Instant};

use tidemill_rules::units;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use super::check::counted;
use super::{Failed, limits, on_runtime, print};
use crate::config::{self, Config, Flags, Source};
use crate::hub::{Hub, ReloadError, open_access};
use crate::telemetry::{self, LogSink};

/// A signal so soon after the first is the same one: `timeout` and shells signal a program and its group.
const ECHO: Duration = Duration::from_secs(1);

/// Run a hub
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    flags: Flags,
    /// How long a graceful stop may take
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = units::parse_duration)]
    stop_within: Duration,
}

/// Open files that are no devices' connections: the log, the index, the API, connectors.
const OTHER_FILES: usize = 1024;

pub(super) fn run(args: &Args) -> Result<(), Failed> {
    let source = Source { flags: args.flags.clone(), ..Source::default() };
    let config = config::load(&source).map_err(|error| {
        eprint!("{}", error.render());
        Failed::because(format!("not started: {} in the configuration", counted(error.0.len(), "problem")))
    })?;
    telemetry::start(&config.telemetry, LogSink::Stderr).map_err(Failed::because)?;
    limits::raise()?;
    limits::reserve(config.mqtt.connections_max.saturating_add(OTHER_FILES));
    on_runtime(serve(config, &source, args.stop_within))
}

async fn serve(config: Config, source: &Source, patience: Duration) -> Result<(), Failed> {
    let mut signals =
        Signals::new().map_err(|error| Failed::because(format!("cannot watch for signals: {error}")))?;
    let started = tokio::select! {
        started = Hub::start(config) => started,
        // Before it is ready there is nothing to drain: the store repairs itself when it is opened.
        () = signals.end.received() => return Err(Failed::because("stopped before it was ready")),
    };
    let hub = started.map_err(|error| Failed::because(format!("not started: {error}")))?;
    print(&ready_line(&hub))?;
    loop {
        tokio::select! {
            () = signals.end.received() => break,
            _ = signals.reload.recv() => reload(&hub, source, patience).await,
        }
    }
    info!("stopping; a second signal stops at once");
    tokio::select! {
        closed = hub.stop(patience) => closed.map_err(|error| Failed::because(format!("stopping: {error}"))),
        () = signals.end.repeated() => Err(Failed::because("stopped at once")),
    }
}

/// `tidemill: ready mqtt=ADDR[,ADDR] http=ADDR`: for scripts, and for tests that listen on port 0.
fn ready_line(hub: &Hub) -> String {
    let mqtt: Vec<String> = hub.mqtt_addresses().iter().map(ToString::to_string).collect();
    format!("tidemill: ready mqtt={} http={}\n", mqtt.join(","), hub.http_address())
}

/// Puts the rules of the files as they are now to work, if they are good.
async fn reload(hub: &Hub, source: &Source, patience: Duration) {
    let reread = source.clone();
    let loaded = tokio::task::spawn_blocking(move || config::load(&reread)).await;
    match loaded {
        Ok(Ok(config)) => {
            let rules = config.rules.set.rules.len();
            // What the file asks of clients was found good for its listeners, and for no others.
            if let Err(error) = hub.check_listeners(&config.mqtt) {
                error!(%error, "the configuration is not reloaded: restart the hub");
                return;
            }
            let to_come = hub.limits_to_come(&config).join(", ");
            let access = match open_access(config.access).await {
                Ok(access) => access,
                Err(error) => {
                    error!(%error, "the configuration is not reloaded: the rules at work stay");
                    return;
                }
            };
            // First, so that nobody waits for targets to be told that it may not go on.
            hub.replace_access(access);
            hub.reload_certificates(&config.mqtt);
            if !to_come.is_empty() {
                warn!(
                    limits = to_come,
                    "limits are not what they were at start: restart the hub to put them to work"
                );
            }
            match hub.reload(config.rules, patience).await {
                Ok(()) => {
                    info!(
                        rules,
                        "connections, rules, access and certificates are reloaded; other settings are read at start only"
                    );
                }
                Err(error @ ReloadError::Kept(_)) => {
                    error!(
                        %error,
                        "access and certificates are reloaded, connections and rules are not: those from before stay"
                    );
                }
                Err(error @ ReloadError::Stalled { .. }) => {
                    error!(
                        %error,
                        "access and certificates are reloaded, but no rules are at work until a reload succeeds; what \
                         comes in is stored"
                    );
                }
            }
        }
        Ok(Err(problems)) => {
            for problem in &problems.0 {
                error!(%problem, hint = problem.hint, "the configuration is not reloaded: the rules at work stay");
            }
        }
        Err(failed) => warn!(%failed, "the configuration is not reloaded: the rules at work stay"),
    }
}

struct Signals {
    end: EndSignals,
    reload: Signal,
}

/// What ends the program.
struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let end = EndSignals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        };
        Ok(Signals { end, reload: signal(SignalKind::hangup())? })
    }
}

impl EndSignals {
    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// One more, meant as one: after the first was received.
    async fn repeated(&mut self) {
        let first = Instant::now();
        loop {
            self.received().await;
            if first.elapsed() >= ECHO {
                return;
            }
        }
    }
}
