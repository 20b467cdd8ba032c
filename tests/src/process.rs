//! [`Process`]: a child process that does not outlive its test.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Resource, Rlimit, Signal, kill_process_group, prlimit, set_parent_process_death_signal,
};

/// Bytes of a log's end that are printed when a test fails.
const TAIL_BYTES: u64 = 8 * 1024;

/// A child process in a process group of its own, its output in files. Dropping it kills the group.
pub struct Process {
    name: String,
    child: Child,
    group: Pid,
    stdout: PathBuf,
    stderr: PathBuf,
    exited: Option<ExitStatus>,
}

type Spawned = io::Result<Child>;

/// The thread that starts all children. The kernel sends the "parent died" signal when the *thread* that started
/// the child ends, and each test has a thread of its own; this one lives as long as the test process.
static SPAWNER: LazyLock<mpsc::SyncSender<(Command, mpsc::SyncSender<Spawned>)>> = LazyLock::new(|| {
    let (sender, receiver) = mpsc::sync_channel::<(Command, mpsc::SyncSender<Spawned>)>(16);
    std::thread::Builder::new()
        .name("spawner".into())
        .spawn(move || {
            for (mut command, answer) in receiver {
                // The asker waits for the answer, so it is there.
                let _ = answer.send(command.spawn());
            }
        })
        .expect("a thread");
    sender
});

impl Process {
    /// Starts `command` with its output in `dir/NAME.stdout` and `dir/NAME.stderr`, which are emptied before.
    /// If this test process dies, whatever the reason, the child gets `on_orphaned`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(name: &str, mut command: Command, dir: &Path, on_orphaned: Signal) -> Process {
        let stdout = dir.join(format!("{name}.stdout"));
        let stderr = dir.join(format!("{name}.stderr"));
        let program = command.get_program().to_owned();
        command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).expect("a writable folder"))
            .stderr(File::create(&stderr).expect("a writable folder"))
            .process_group(0);
        // SAFETY: the closure runs between fork and exec, where only async-signal-safe calls are allowed; it makes
        // one prctl system call and allocates nothing.
        unsafe {
            command.pre_exec(move || Ok(set_parent_process_death_signal(Some(on_orphaned))?));
        }
        let (answer, spawned) = mpsc::sync_channel(1);
        SPAWNER.send((command, answer)).expect("the spawner lives as long as the process");
        let child = match spawned.recv().expect("the spawner answers") {
            Ok(child) => child,
            Err(error) => panic!("starting {name} ({}): {error}", program.display()),
        };
        let group = Pid::from_child(&child);
        Process { name: name.to_owned(), child, group, stdout, stderr, exited: None }
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All it has written to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        read_lossy(&self.stdout)
    }

    /// All it has written to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        read_lossy(&self.stderr)
    }

    /// The exit status, if it has ended.
    ///
    /// # Panics
    /// When the system does not say.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.exited.is_none() {
            self.exited = self.child.try_wait().expect("a child of ours");
        }
        self.exited
    }

    /// Sends a signal to the whole process group.
    pub fn signal(&mut self, signal: Signal) {
        // Once waited for, the number may belong to somebody else.
        if self.exited().is_none() {
            let _ = kill_process_group(self.group, signal);
        }
    }

    /// SIGKILL to the group, and waits for the end.
    ///
    /// # Panics
    /// When the system does not say how it ended.
    pub fn kill(&mut self) {
        if self.exited().is_none() {
            let _ = kill_process_group(self.group, Signal::KILL);
            self.exited = Some(self.child.wait().expect("a child of ours"));
        }
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// When it has not within `limit`; the end of its log is printed.
    pub async fn wait(&mut self, limit: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.exited() {
                return status;
            }
            assert!(began.elapsed() < limit, "{} still runs after {limit:?}", self.name);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until `ready` finds what it looks for in the standard output and standard error.
    ///
    /// # Panics
    /// When it has not within `limit`, or the process has ended; the end of its log is printed.
    pub async fn wait_for<T>(
        &mut self,
        what: &str,
        limit: Duration,
        ready: impl Fn(&str, &str) -> Option<T>,
    ) -> T {
        let began = Instant::now();
        loop {
            // Asked before looking, so that what was written before the end is still seen.
            let exited = self.exited();
            if let Some(found) = ready(&self.stdout(), &self.stderr()) {
                return found;
            }
            if let Some(status) = exited {
                panic!("{} ended ({status}) while waiting for {what}", self.name);
            }
            assert!(began.elapsed() < limit, "{}: waited {limit:?} for {what}", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Resident memory, from `/proc/PID/status`.
    ///
    /// # Panics
    /// When the process has ended.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let path = format!("/proc/{}/status", self.id());
        let status = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let field = |name: &str| {
            let line =
                status.lines().find_map(|line| line.strip_prefix(name)).expect("a field of /proc/PID/status");
            line.trim().trim_end_matches(" kB").parse().expect("a number of kB")
        };
        Memory { resident_kib: field("VmRSS:"), anonymous_kib: field("RssAnon:") }
    }

    /// Sockets it has open, from `/proc/PID/fd`.
    ///
    /// # Panics
    /// When the process has ended.
    #[must_use]
    pub fn sockets(&self) -> usize {
        let path = format!("/proc/{}/fd", self.id());
        let open = std::fs::read_dir(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let names = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        names.filter(|name| name.to_string_lossy().starts_with("socket:")).count()
    }

    /// Lets it open about so many files more, and no others.
    ///
    /// # Panics
    /// When the process has ended.
    pub fn leave_files(&self, more: u64) {
        let path = format!("/proc/{}/fd", self.id());
        let open = std::fs::read_dir(&path).unwrap_or_else(|error| panic!("{path}: {error}")).count() as u64;
        let limit = Rlimit { current: Some(open + more), maximum: Some(open + more) };
        prlimit(Pid::from_raw(self.id().cast_signed()), Resource::Nofile, limit).expect("its limit");
    }

    fn print_tail(&self) {
        for (stream, path) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            let tail = tail(path).unwrap_or_else(|error| format!("(unreadable: {error})"));
            if !tail.is_empty() {
                eprintln!("--- end of {} {stream} ---\n{tail}\n--- ---", self.name);
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            self.print_tail();
        }
    }
}

/// Resident memory of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// VmRSS in KiB: mapped files too, as far as they are in memory.
    pub resident_kib: u64,
    /// RssAnon in KiB: what the process allocated.
    pub anonymous_kib: u64,
}

impl Memory {
    /// The larger of each number.
    #[must_use]
    pub fn max(self, other: Memory) -> Memory {
        Memory {
            resident_kib: self.resident_kib.max(other.resident_kib),
            anonymous_kib: self.anonymous_kib.max(other.anonymous_kib),
        }
    }
}

/// What a command that ends by itself wrote, and how it ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ended {
    /// Standard output and standard error, one after the other.
    #[must_use]
    pub fn output(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Runs a command to its end.
///
/// # Panics
/// When it has not ended within `limit`; it is killed then.
pub async fn run(name: &str, command: Command, limit: Duration) -> Ended {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut process = Process::start(name, command, dir.path(), Signal::KILL);
    let status = process.wait(limit).await;
    Ended { status, stdout: process.stdout(), stderr: process.stderr() }
}

fn read_lossy(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let from = file.metadata()?.len().saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
