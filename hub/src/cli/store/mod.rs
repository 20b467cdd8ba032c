//! `tidemill store`: tools for a data directory that no hub has open. The work is [`tidemill_store::tools`]'s; here is what it says.
//!
//! # Layout
//! - `stats`, `verify`, `dump`, `rebuild`: one command each

mod dump;
mod rebuild;
mod stats;
mod verify;

use std::path::PathBuf;

use clap::Subcommand;

use super::Failed;
use super::check::counted;
use crate::config::{self, Flags, Source};

/// Look at a data directory that no hub has open, and mend its index
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Count what is there: segments, queues, cursors, lag
    Stats(stats::Args),
    /// Read everything and tell what is not as it should be; exit status 1 if something is not
    Verify(verify::Args),
    /// Print the record at a position
    Dump(dump::Args),
    /// Derive the index again from the log (needs room for a second one)
    RebuildIndex(rebuild::Args),
}

/// Which data directory.
#[derive(Debug, Clone, Default, clap::Args)]
struct Directory {
    /// The data directory [default: that of the configuration, or ./tidemill-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Configuration file, as for `serve`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Directory {
    /// Where `serve` would have its data.
    fn find(&self) -> Result<PathBuf, Failed> {
        let flags =
            Flags { config: self.config.clone(), data_dir: self.data_dir.clone(), ..Flags::default() };
        let source = Source { flags, named_by: Some("tidemill store"), ..Source::default() };
        let config = config::load(&source).map_err(|error| {
            eprint!("{}", error.render());
            Failed::because(format!("{} in the configuration", counted(error.0.len(), "problem")))
        })?;
        Ok(config.store.dir)
    }
}

pub(super) fn run(args: &Args) -> Result<(), Failed> {
    match &args.command {
        Command::Stats(args) => stats::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Dump(args) => dump::run(args),
        Command::RebuildIndex(args) => rebuild::run(args),
    }
}
