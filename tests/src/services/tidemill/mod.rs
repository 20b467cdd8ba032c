//! [`Tidemill`]: the hub under test, as the binary that people run.
//!
//! # Layout
//! - this file: starting, killing and stopping it
//! - [`api`] its HTTP API
//! - [`metrics`] a reader of its Prometheus text

pub mod api;
pub mod metrics;

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::process::{Ended, Memory, Process, run};
use crate::{ports, wait};

/// Recovery included.
const START_LIMIT: Duration = Duration::from_secs(60);
/// A graceful stop drains and checkpoints.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// A command that ends by itself.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// A reload stops what the rules before it had under way.
const RELOAD_LIMIT: Duration = Duration::from_secs(30);
/// What the log says of a reload.
const RELOADED: &str = "connections, rules, access and certificates are reloaded";
/// The name of a configuration in a hub's folder.
const CONFIG: &str = "tidemill.yaml";

/// The binary: `$TIDEMILL_BIN`, or the one that was built into the same target folder as this test.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("TIDEMILL_BIN") {
        return path.into();
    }
    // target/PROFILE/deps/TEST
    let test = std::env::current_exe().expect("this test's own path");
    let path = test.ancestors().nth(2).expect("a target folder").join("tidemill");
    assert!(
        path.exists(),
        "{} does not exist: build it first (cargo build --release -p tidemill-hub), in this test's profile",
        path.display()
    );
    path
}

/// `tidemill` with arguments, in folder `dir`.
#[must_use]
pub fn command<S: AsRef<std::ffi::OsStr>>(dir: &Path, arguments: &[S]) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(dir).args(arguments);
    command
}

/// Runs `tidemill` with arguments to its end.
///
/// # Panics
/// When it does not end.
pub async fn tidemill<S: AsRef<std::ffi::OsStr>>(dir: &Path, arguments: &[S]) -> Ended {
    run("tidemill", command(dir, arguments), COMMAND_LIMIT).await
}

/// `tidemill passwd --stdin passwords USER` with further arguments, in folder `dir`: what it prints.
///
/// # Panics
/// When it does not succeed.
pub fn passwd(dir: &Path, user: &str, password: &str, more: &[&str]) -> String {
    let arguments = [&["passwd", "passwords", user, "--stdin"], more].concat();
    let output = tidemill_told(dir, &arguments, &format!("{password}\n"));
    assert!(output.status.success(), "{output:?}");
    [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat()
}

/// A folder for a hub to run in.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn folder() -> TempDir {
    tempfile::Builder::new().prefix("tidemill-hub-").tempdir().expect("a temporary folder")
}

/// The same, with these users (names and passwords) in the file `passwords`.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn folder_of(users: &[(&str, &str)]) -> TempDir {
    let dir = folder();
    for (user, password) in users {
        passwd(dir.path(), user, password, &[]);
    }
    dir
}

/// Runs `tidemill` with arguments, in folder `dir`, to its end. `input` is its standard input.
///
/// # Panics
/// When it cannot be run.
pub fn tidemill_told(dir: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = command(dir, arguments);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("the program");
    let mut pipe = child.stdin.take().expect("its input");
    // It may have ended without reading.
    let _ = pipe.write_all(input.as_bytes());
    drop(pipe);
    child.wait_with_output().expect("its end")
}

/// A running (or just stopped) hub with a data directory of its own.
pub struct Tidemill {
    // Before the folder, so that its log can still be printed when it is dropped.
    process: Option<Process>,
    dir: TempDir,
    /// Where it is to listen; nowhere if its configuration says so.
    told: Option<SocketAddr>,
    mqtt: Vec<SocketAddr>,
    http: SocketAddr,
    arguments: Vec<String>,
    starts: u32,
}

impl Tidemill {
    /// Starts a hub with these rules (YAML; none if empty) on free ports, and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready; the end of its log is printed.
    pub async fn start(rules: &str) -> Tidemill {
        Self::start_with(rules, &[]).await
    }

    /// [`Tidemill::start`] with further arguments of `tidemill serve`.
    ///
    /// # Panics
    /// When it does not become ready; the end of its log is printed.
    pub async fn start_with(rules: &str, arguments: &[&str]) -> Tidemill {
        let dir = folder();
        let mut arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        if !rules.is_empty() {
            fs::write(dir.path().join("rules.yaml"), rules).expect("a writable folder");
            arguments.extend(["--rules".into(), "rules.yaml".into()]);
        }
        Self::start_in(dir, arguments).await
    }

    /// Starts a hub with this configuration, which does not say where to listen.
    ///
    /// # Panics
    /// When it does not become ready; the end of its log is printed.
    pub async fn start_with_config(configuration: &str) -> Tidemill {
        Self::start_with_config_in(folder(), configuration).await
    }

    /// [`Tidemill::start_with_config`] in a folder that was prepared.
    ///
    /// # Panics
    /// When it does not become ready; the end of its log is printed.
    pub async fn start_with_config_in(dir: TempDir, configuration: &str) -> Tidemill {
        fs::write(dir.path().join(CONFIG), configuration).expect("a writable folder");
        Self::start_in(dir, vec!["--config".into(), CONFIG.into()]).await
    }

    /// Starts a hub in a folder that was prepared, with these arguments beside data directory and addresses.
    ///
    /// # Panics
    /// When it does not become ready; the end of its log is printed.
    pub async fn start_in(dir: TempDir, arguments: Vec<String>) -> Tidemill {
        let (mqtt, http) = (ports::free_address(), ports::free_address());
        let (told, mqtt) = (Some(mqtt), vec![mqtt]);
        let mut hub = Tidemill { dir, told, mqtt, http, arguments, process: None, starts: 0 };
        hub.start_again().await;
        hub
    }

    /// Starts a hub whose configuration says where to listen for MQTT: it becomes `tidemill.yaml` in a folder that was
    /// prepared.
    ///
    /// # Panics
    /// When it does not become ready; the end of its log is printed.
    pub async fn start_configured(dir: TempDir, configuration: &str) -> Tidemill {
        fs::write(dir.path().join(CONFIG), configuration).expect("a writable folder");
        let arguments = ["--config", CONFIG].map(str::to_owned).to_vec();
        let http = ports::free_address();
        let mut hub =
            Tidemill { dir, told: None, mqtt: Vec::new(), http, arguments, process: None, starts: 0 };
        hub.start_again().await;
        hub
    }

    /// Where it listens for MQTT; the first address if there are several.
    ///
    /// # Panics
    /// When it was never ready.
    #[must_use]
    pub fn mqtt(&self) -> SocketAddr {
        *self.mqtt.first().expect("an address")
    }

    /// Everywhere it listens for MQTT, in the order of its configuration.
    #[must_use]
    pub fn mqtt_addresses(&self) -> &[SocketAddr] {
        &self.mqtt
    }

    /// Where it listens for HTTP.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// The folder it runs in, which holds its data directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// When it does not end; the end of its log is printed.
    pub async fn terminate(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("a running hub");
        process.signal(Signal::TERM);
        process.wait(STOP_LIMIT).await
    }

    /// SIGHUP: tells it to read its configuration and its certificates again.
    ///
    /// # Panics
    /// When it does not run.
    pub fn reload(&mut self) {
        self.process.as_mut().expect("a running hub").signal(Signal::HUP);
    }

    /// The same with another configuration; waits until all of it is at work.
    ///
    /// # Panics
    /// When it does not run, or does not say that it has reloaded.
    pub async fn reload_with(&mut self, configuration: &str) {
        let reloads = |hub: &Tidemill| hub.log().matches(RELOADED).count();
        let before = reloads(self);
        fs::write(self.dir.path().join(CONFIG), configuration).expect("a writable folder");
        self.reload();
        let reloaded = async || (reloads(self) > before).then_some(());
        wait::until("the configuration to be reloaded", RELOAD_LIMIT, reloaded).await;
    }

    /// Starts it again with the data it had, on the same ports, and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready; the end of its log is printed.
    pub async fn start_again(&mut self) {
        self.spawn();
        self.ready().await;
    }

    /// Starts it again without waiting.
    pub fn spawn(&mut self) {
        self.starts += 1;
        let mut command = command(self.dir.path(), &["serve", "--data-dir", "data"]);
        if let Some(told) = self.told {
            command.args(["--mqtt", &told.to_string()]);
        }
        command.args(["--http", &self.http.to_string()]);
        command.args(&self.arguments);
        let name = format!("tidemill-{}", self.starts);
        self.process = Some(Process::start(&name, command, self.dir.path(), Signal::KILL));
    }

    /// Waits until it says that it is ready.
    ///
    /// # Panics
    /// When it does not; the end of its log is printed.
    pub async fn ready(&mut self) {
        let process = self.process.as_mut().expect("a running hub");
        let (mqtt, http) =
            process.wait_for("`tidemill: ready`", START_LIMIT, |stdout, _| ready_line(stdout)).await;
        assert_eq!(http, self.http, "the address it says and the one it was told");
        if let Some(told) = self.told {
            assert_eq!(mqtt, [told], "the addresses it says and those it was told");
        }
        self.mqtt = mqtt;
    }

    /// Its memory.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn memory(&self) -> Memory {
        self.process.as_ref().expect("a running hub").memory()
    }

    /// Sockets it has open.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn sockets(&self) -> usize {
        self.process.as_ref().expect("a running hub").sockets()
    }

    /// Lets it open about so many files more, and no others.
    ///
    /// # Panics
    /// When it does not run.
    pub fn leave_files(&self, more: u64) {
        self.process.as_ref().expect("a running hub").leave_files(more);
    }

    /// What it has logged since it was last started.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.as_ref().expect("a running hub").stderr()
    }
}

/// The addresses in the line `tidemill: ready mqtt=ADDRESS[,ADDRESS] http=ADDRESS`, once it is there whole.
#[must_use]
pub fn ready_line(stdout: &str) -> Option<(Vec<SocketAddr>, SocketAddr)> {
    let (whole, _) = stdout.rsplit_once('\n')?;
    let said = whole.lines().find_map(|line| line.strip_prefix("tidemill: ready "))?;
    let (mqtt, http) = said.split_once(' ')?;
    let mqtt = mqtt.strip_prefix("mqtt=")?.split(',').map(|address| address.parse().ok());
    Some((mqtt.collect::<Option<_>>()?, http.strip_prefix("http=")?.parse().ok()?))
}
