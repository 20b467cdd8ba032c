//! Cores: the broker on one, the load on another, so that neither takes from the other and runs can be compared.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::bench::Result;

/// The program of a broker, run in place of this one.
#[derive(Clone, Debug, clap::Args)]
pub(in crate::bench) struct Args {
    /// The core it gets
    #[arg(long)]
    core: Option<usize>,
    program: OsString,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// A command that runs a program on a core, and as long as the thread that starts it lives.
pub(super) fn command(core: Option<usize>, program: impl Into<OsString>) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench", "pinned"]);
    if let Some(core) = core {
        command.arg("--core").arg(core.to_string());
    }
    command.arg("--").arg(program.into());
    Ok(command)
}

/// Becomes the program. Returns only if that fails.
pub(in crate::bench) fn run(args: Args) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(std::io::Error::from)?;
    if let Some(core) = args.core {
        pin(core)?;
    }
    Err(Command::new(args.program).args(args.arguments).exec().into())
}

/// Binds this thread, and what it starts from now on, to a core.
pub(super) fn pin(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(None, &cores).map_err(std::io::Error::from)?)
}

/// The cores this thread may use.
pub(super) fn cores() -> Result<Vec<usize>> {
    let cores = sched_getaffinity(None).map_err(std::io::Error::from)?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| cores.is_set(*core)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_pinned_to_one_of_its_cores() {
        let last = *cores().unwrap().last().unwrap();
        pin(last).unwrap();
        assert_eq!(cores().unwrap(), [last]);
    }
}
