//! [`Broker`]: a broker that the bench starts, kills and starts again: Tidemill or mosquitto.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rand::Rng;

use super::{Stop, pinned};
use crate::bench::{Error, Result};

/// Below Linux's range for outgoing connections, so that no client can be given the port while the broker is away.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// How long a broker may take until it accepts connections, recovery included.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Characters of a broker's log that are shown when it fails.
const LOG_CHARS: usize = 2000;

/// Which broker, and how it is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// With its defaults.
    Tidemill,
    /// The same with `flush: async`.
    TidemillAsync,
    Mosquitto,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Tidemill => "Tidemill",
            Kind::TidemillAsync => "Tidemill (flush: async)",
            Kind::Mosquitto => "mosquitto",
        })
    }
}

/// What is needed to start brokers.
pub(super) struct Brokers {
    /// Where their data goes.
    pub(super) dir: PathBuf,
    /// The core they get.
    pub(super) core: Option<usize>,
    /// mosquitto's program, if it is there.
    pub(super) mosquitto: Option<PathBuf>,
}

/// A running broker. Dropping it kills it.
pub(super) struct Broker {
    kind: Kind,
    child: Child,
    address: SocketAddr,
    dir: PathBuf,
}

/// mosquitto's program: the given one, or where it usually is.
pub(super) fn find_mosquitto(given: Option<&Path>) -> Option<PathBuf> {
    if let Some(given) = given {
        return Some(given.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Servers are in sbin, which the PATH of a plain user may lack.
    let dirs = std::env::split_paths(&path).chain(["/usr/local/sbin", "/usr/sbin"].map(PathBuf::from));
    dirs.map(|dir| dir.join("mosquitto")).find(|program| program.is_file())
}

impl Brokers {
    /// Starts a broker with no data, and waits until it accepts connections.
    pub(super) fn start(&self, kind: Kind, stop: &Stop) -> Result<Broker> {
        let dir = self.dir.join("broker");
        crate::bench::remove(&dir)?;
        std::fs::create_dir_all(dir.join("data"))?;
        let address = free_address()?;
        let child = self.spawn(kind, &dir, address)?;
        let mut broker = Broker { kind, child, address, dir };
        broker.until_ready(stop)?;
        Ok(broker)
    }

    /// Starts it again after [`Broker::kill`], with the data it has left.
    pub(super) fn restart(&self, broker: &mut Broker, stop: &Stop) -> Result<()> {
        broker.child = self.spawn(broker.kind, &broker.dir, broker.address)?;
        broker.until_ready(stop)
    }

    fn spawn(&self, kind: Kind, dir: &Path, address: SocketAddr) -> Result<Child> {
        let mut command = match kind {
            Kind::Tidemill => self.tidemill("sync", dir, address)?,
            Kind::TidemillAsync => self.tidemill("async", dir, address)?,
            Kind::Mosquitto => self.mosquitto(dir, address)?,
        };
        let log = File::create(dir.join("log"))?;
        // An interrupt from a terminal is for the bench, which then ends the broker.
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command.spawn()?)
    }

    fn tidemill(&self, flush: &str, dir: &Path, address: SocketAddr) -> Result<Command> {
        let mut command = pinned::command(self.core, std::env::current_exe()?)?;
        command.arg("serve").arg("--data-dir").arg(dir.join("data")).args(["--flush", flush]);
        command.arg("--mqtt").arg(address.to_string()).args(["--http", "127.0.0.1:0"]);
        Ok(command)
    }

    fn mosquitto(&self, dir: &Path, address: SocketAddr) -> Result<Command> {
        let program =
            self.mosquitto.clone().ok_or_else(|| Error::Other("mosquitto is not installed".into()))?;
        let config = dir.join("mosquitto.conf");
        std::fs::write(&config, mosquitto_conf(&dir.join("data"), address))?;
        let mut command = pinned::command(self.core, OsString::from(program))?;
        command.arg("-c").arg(config);
        Ok(command)
    }
}

/// Persistent, with no bound on what it queues, and as many messages in flight to a client as Tidemill has. What persists is written
/// at its own default interval and when it ends. Started by root, it would take another user, who may not write here.
fn mosquitto_conf(data: &Path, address: SocketAddr) -> String {
    format!(
        "listener {} {}\nallow_anonymous true\nuser root\npersistence true\npersistence_location {}/\n\
         autosave_interval 1800\nmax_queued_messages 0\nmax_inflight_messages 1024\nset_tcp_nodelay true\n\
         log_dest stderr\nlog_type error\nlog_type warning\n",
        address.port(),
        address.ip(),
        data.display()
    )
}

impl Broker {
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn until_ready(&mut self, stop: &Stop) -> Result<()> {
        let began = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            let ended = self.child.try_wait()?;
            if ended.is_some() || began.elapsed() > START_LIMIT {
                let how = ended.map_or_else(
                    || format!("does not listen on {} after {START_LIMIT:?}", self.address),
                    |status| format!("ended ({status}) before it listened on {}", self.address),
                );
                return Err(Error::Other(format!("{} {how}; it said: {}", self.kind, self.log_end())));
            }
            stop.pause(Duration::from_millis(10))?;
        }
        Ok(())
    }

    /// The end of what it said.
    fn log_end(&self) -> String {
        let log = std::fs::read(self.dir.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let start = log.char_indices().rev().nth(LOG_CHARS).map_or(0, |(at, _)| at);
        log.get(start..).unwrap_or_default().trim().to_owned()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended already. Its data goes with its directory.
        let _ = self.kill();
    }
}

fn free_address() -> Result<SocketAddr> {
    for _ in 0..1000 {
        let port = rand::rng().random_range(PORTS);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        }
    }
    Err(Error::Other(format!("no port of 127.0.0.1 is free in {PORTS:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_does_not_start_is_told_with_what_it_said() {
        let dir = tempfile::tempdir().unwrap();
        let child = Command::new("false").spawn().unwrap();
        std::fs::write(dir.path().join("log"), "Error: no such option\n").unwrap();
        let address = free_address().unwrap();
        let mut broker = Broker { kind: Kind::Mosquitto, child, address, dir: dir.path().to_owned() };
        let error = broker.until_ready(&Stop::default()).unwrap_err().to_string();
        assert!(
            error.starts_with("mosquitto ended (exit status: 1) before it listened on 127.0.0.1:"),
            "{error}"
        );
        assert!(error.ends_with("it said: Error: no such option"), "{error}");
    }

    #[test]
    fn mosquitto_is_found_where_it_is_given() {
        let given = Path::new("/opt/mosquitto");
        assert_eq!(find_mosquitto(Some(given)).as_deref(), Some(given));
    }
}
