//! Parts of rows that need a process of their own: one that is killed, one whose memory nothing else has used.
//!
//! The program runs itself with a hidden command. The child tells what it found as a JSON line on standard output; it dies with its
//! parent.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Signal, set_parent_process_death_signal};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::store::{open, queues, sessions};
use super::{Error, Result, blocking};
use crate::cli::print;

/// What a child is asked to do.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    #[arg(value_enum)]
    task: Task,
    /// Data directory
    dir: PathBuf,
    /// How many: see the task
    count: u64,
    /// Small sizes
    #[arg(long)]
    quick: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum Task {
    /// Makes `count` thousand queues; tells the memory before and after
    Create,
    /// Opens a data directory and uses it; tells how long it took, and the memory
    Open,
    /// Appends until it is killed; tells from time to time how much. `count` as for `Create`
    Append,
    /// 1,000 records for `count` cursors; tells how disk and memory grew
    Offline,
}

/// Does what a child is asked to.
pub(super) async fn run(args: Args) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(std::io::Error::from)?;
    let Args { task, dir, count, quick } = args;
    match task {
        Task::Create => tell(&queues::create(dir, count, quick).await?),
        Task::Open => tell(&open::open_and_use(dir, quick).await?),
        Task::Append => open::append_until_killed(dir, count).await,
        Task::Offline => tell(&sessions::offline_growth(dir, count, quick).await?),
    }
}

/// Tells the parent something.
pub(super) fn tell(what: &impl Serialize) -> Result<()> {
    let line = serde_json::to_string(what).map_err(|error| Error::Other(error.to_string()))?;
    print(&(line + "\n")).map_err(|_| Error::Other("the parent is gone".into()))
}

/// A child at work. Dropping it kills it.
pub(super) struct Running {
    child: Child,
    lines: Option<BufReader<ChildStdout>>,
}

impl Running {
    /// Starts a child. To be called on the main thread: the child dies with the thread that started it.
    pub(super) fn start(task: Task, dir: &std::path::Path, count: u64, quick: bool) -> Result<Running> {
        let name = clap::ValueEnum::to_possible_value(&task);
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bench", "child", name.as_ref().map_or("", |name| name.get_name())]);
        command.arg(dir).arg(count.to_string());
        if quick {
            command.arg("--quick");
        }
        // An interrupt from a terminal is for the parent, which then ends its child.
        command.process_group(0);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let lines = child.stdout.take().map(BufReader::new);
        Ok(Running { child, lines })
    }

    /// Reads lines until `enough` says so of one, which is returned. The child goes on.
    pub(super) async fn until<T: DeserializeOwned + Send + 'static>(
        &mut self,
        enough: impl Fn(&T) -> bool + Send + 'static,
    ) -> Result<T> {
        let mut lines =
            self.lines.take().ok_or_else(|| Error::Other("the child was read to its end".into()))?;
        let (lines, told) = blocking(move || {
            loop {
                let mut line = String::new();
                lines.read_line(&mut line)?;
                let told = parsed(&line)?;
                if enough(&told) {
                    return Ok((lines, told));
                }
            }
        })
        .await?;
        self.lines = Some(lines);
        Ok(told)
    }

    /// Waits for its end; what it told.
    pub(super) async fn finish<T: DeserializeOwned + Send + 'static>(mut self) -> Result<T> {
        let lines = self.lines.take();
        let told = blocking(move || {
            let mut text = String::new();
            lines.map(|mut lines| lines.read_to_string(&mut text)).transpose()?;
            Ok(text)
        })
        .await?;
        let status = self.child.wait()?;
        if status.success() {
            parsed(&told)
        } else {
            Err(Error::Other(format!("the child process: {status}")))
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // SIGKILL; it may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parsed<T: DeserializeOwned>(line: &str) -> Result<T> {
    serde_json::from_str(line)
        .map_err(|error| Error::Other(format!("the child process told `{}`: {error}", line.trim())))
}
