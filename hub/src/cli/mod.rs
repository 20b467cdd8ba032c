//! The command line.
//!
//! What was asked for goes to standard output, everything else to standard error. Exit status: 0 for success, 1 for
//! a failure, 2 for a command line that is not one.
//!
//! # Layout
//! - `serve`: run a hub
//! - `check`: is a configuration good?
//! - `passwd`: users of a password file
//! - `access`: what rules say about somebody
//! - `publish`: publish messages
//! - `tail`: print the records of a running hub
//! - `why`: what became of one record
//! - `clients`: the clients of a running hub
//! - `store/`: look at a data directory that no hub has open, and mend its index
//! - `api`: asking a running hub
//! - `text`: sizes, numbers and times for people; progress on standard error
//! - `limits`: open files
//!
//! `demo` is [`crate::demo`]'s, `bench` is `crate::bench`'s, `schema` prints the rule language's JSON Schema.

mod access;
mod api;
mod check;
mod clients;
mod limits;
mod passwd;
mod publish;
mod serve;
mod store;
mod tail;
mod text;
mod why;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{bench, demo};

/// Device messages in over MQTT, stored once, and every consumer served from that one copy.
#[derive(Debug, Parser)]
#[command(name = "tidemill", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a hub
    Serve(serve::Args),
    /// Check configurations and rule files
    Check(check::Args),
    /// Give users of a password file a password, or take them out of it
    Passwd(passwd::Args),
    /// Tell what access rules say about somebody
    Access(access::Args),
    /// Run a hub with a simulated fleet, and account for every message
    Demo(demo::Args),
    /// Print the records of a running hub
    Tail(tail::Args),
    /// Publish messages to a running hub
    Pub(publish::Args),
    /// Tell what became of one record of a running hub
    Why(why::Args),
    /// List, show and send away the clients of a running hub
    Clients(clients::Args),
    /// Look at a data directory that no hub has open, and mend its index
    Store(store::Args),
    /// Measure this machine and what Tidemill does with it
    Bench(bench::Args),
    /// Print the JSON Schema of connections and rules
    Schema,
}

/// A command failed; what to say has been said, or is this text.
#[derive(Debug)]
pub(crate) struct Failed(Option<String>);

impl Failed {
    /// Everything was said.
    pub(crate) fn told() -> Self {
        Failed(None)
    }

    /// Says this.
    pub(crate) fn because(text: impl std::fmt::Display) -> Self {
        Failed(Some(text.to_string()))
    }
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Passwd(args) => passwd::run(&args),
        Command::Access(args) => access::run(&args),
        Command::Demo(args) => limits::raise().and_then(|()| on_runtime(demo::run(args))),
        Command::Tail(args) => on_runtime(tail::run(args)),
        Command::Pub(args) => on_runtime(publish::run(args)),
        Command::Why(args) => on_runtime(why::run(args)),
        Command::Clients(args) => on_runtime(clients::run(args)),
        Command::Store(args) => store::run(&args),
        Command::Bench(args) => limits::raise().and_then(|()| bench::run(args)),
        Command::Schema => print(&format!("{:#}\n", tidemill_rules::schema())),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed(reason)) => {
            if let Some(reason) = reason {
                eprintln!("tidemill: {}", reason.trim_end());
            }
            ExitCode::FAILURE
        }
    }
}

/// Runs a command that waits for things.
fn on_runtime(command: impl Future<Output = Result<(), Failed>>) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| Failed::because(format!("cannot start threads: {error}")))?.block_on(command)
}

/// Writes to standard output. A reader that has gone (`| head`) is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failed> {
    use std::io::{ErrorKind, Write, stdout};
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Failed::told()),
        Err(error) => Err(Failed::because(format!("standard output: {error}"))),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_short_help_names_every_command() {
        insta::assert_snapshot!(Cli::command().render_help().to_string());
    }
}
