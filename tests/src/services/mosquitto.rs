//! mosquitto's command line clients, and mosquitto itself with a bridge: somebody else's idea of MQTT.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::ports;
use crate::process::{Ended, Process, run};

/// No run of a client takes longer.
const LIMIT: Duration = Duration::from_secs(60);

/// MQTT protocol versions that the clients speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1.
    V311,
    /// MQTT 5.0.
    V5,
}

impl Version {
    /// Both.
    pub const ALL: [Version; 2] = [Version::V311, Version::V5];

    fn argument(self) -> &'static str {
        match self {
            Version::V311 => "mqttv311",
            Version::V5 => "mqttv5",
        }
    }
}

fn command(program: &str, hub: SocketAddr, version: Version, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(["-h", &hub.ip().to_string(), "-p", &hub.port().to_string(), "-V", version.argument()]);
    command.args(arguments);
    command
}

/// Runs `mosquitto_pub` with further arguments, to its end.
///
/// # Panics
/// When it does not exit with status 0: with QoS 1 or 2 that means it was not acknowledged.
pub async fn publish(hub: SocketAddr, version: Version, arguments: &[&str]) -> Ended {
    let ended = run("mosquitto_pub", command("mosquitto_pub", hub, version, arguments), LIMIT).await;
    assert!(ended.status.success(), "mosquitto_pub {arguments:?}: {}", ended.output());
    ended
}

/// Runs `mosquitto_sub` with further arguments, to its end (give `-C COUNT` or `-E`, and `-W SECONDS`).
pub async fn subscribe_once(hub: SocketAddr, version: Version, arguments: &[&str]) -> Ended {
    run("mosquitto_sub", command("mosquitto_sub", hub, version, arguments), LIMIT).await
}

/// A `mosquitto_sub` that runs until it is dropped or has what it was told to wait for.
pub struct Subscriber {
    process: Process,
    _dir: TempDir,
}

impl Subscriber {
    /// Starts `mosquitto_sub` with further arguments and waits until its subscription was acknowledged.
    ///
    /// # Panics
    /// When it is not.
    pub async fn start(hub: SocketAddr, version: Version, arguments: &[&str]) -> Subscriber {
        let dir = tempfile::tempdir().expect("a temporary folder");
        // Debug messages are how it says that it has subscribed; line buffering is how we see it say so.
        let plain = command("mosquitto_sub", hub, version, arguments);
        let mut command = Command::new("stdbuf");
        command.arg("-oL").arg(plain.get_program()).args(plain.get_args()).arg("-d");
        let mut process = Process::start("mosquitto_sub", command, dir.path(), Signal::KILL);
        process.wait_for("SUBACK", LIMIT, |stdout, _| stdout.contains("received SUBACK").then_some(())).await;
        Subscriber { process, _dir: dir }
    }

    /// The messages it has printed so far, without its debug messages.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        messages(&self.process.stdout())
    }

    /// Waits until it has ended by itself, and gives all the messages it has printed.
    ///
    /// # Panics
    /// When it does not end, or with an error.
    pub async fn ended(mut self) -> Vec<String> {
        let status = self.process.wait(LIMIT).await;
        assert!(status.success(), "mosquitto_sub: {status}: {}", self.process.stderr());
        self.lines()
    }

    /// Kills it: the connection breaks without DISCONNECT.
    pub fn kill(mut self) {
        self.process.kill();
    }
}

/// A mosquitto with a bridge to the hub.
pub struct Bridge {
    process: Process,
    address: SocketAddr,
    _dir: TempDir,
}

impl Bridge {
    /// Starts mosquitto with a bridge to `hub` that has these lines in its configuration beside its name and address.
    #[must_use]
    pub fn start(hub: SocketAddr, lines: &str) -> Bridge {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()));
        let configuration = format!(
            "listener {} {}\nallow_anonymous true\nuser root\nlog_dest stderr\nlog_type all\n\
             connection edge\naddress {hub}\nrestart_timeout 1\n{lines}",
            address.port(),
            address.ip(),
        );
        let path = dir.path().join("mosquitto.conf");
        std::fs::write(&path, configuration).expect("a writable folder");
        let mut command = Command::new("mosquitto");
        // Servers are in sbin, which the PATH of a plain user may lack.
        let programs = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{programs}:/usr/local/sbin:/usr/sbin")).arg("-c").arg(&path);
        let process = Process::start("mosquitto", command, dir.path(), Signal::KILL);
        Bridge { process, address, _dir: dir }
    }

    /// Where its own clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until its log says something.
    ///
    /// # Panics
    /// When it does not.
    pub async fn until_it_says(&mut self, words: &str) {
        self.process.wait_for(words, LIMIT, |_, log| log.contains(words).then_some(())).await;
    }
}

/// Lines that are messages, not debug output.
fn messages(stdout: &str) -> Vec<String> {
    let debug = |line: &&str| !line.starts_with("Client ") && !line.starts_with("Subscribed (mid");
    stdout.lines().filter(debug).map(str::to_owned).collect()
}
