//! `tidemill check`: is a configuration good? Opens nothing.

use std::path::PathBuf;

use super::{Failed, print};
use crate::config::{self, Flags, Source};

/// Check configurations and rule files
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configurations or rule files; each is checked by itself, with what it includes
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Further file with connections and rules, as for `serve`; added to each of them
    #[arg(long, value_name = "FILE")]
    rules: Vec<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<(), Failed> {
    let mut good = true;
    for file in &args.files {
        let flags = Flags { config: Some(file.clone()), rules: args.rules.clone(), ..Flags::default() };
        let (text, ok) = verdict(&Source { flags, named_by: Some("tidemill check"), inline: None });
        good &= ok;
        print(&text)?;
    }
    if good { Ok(()) } else { Err(Failed::told()) }
}

/// What to print about one configuration, and whether it is good.
fn verdict(source: &Source) -> (String, bool) {
    let name = source.flags.config.as_ref().map_or_else(String::new, |path| path.display().to_string());
    match config::load(source) {
        Ok(config) => {
            let connections = counted(config.rules.set.connections.len(), "connection");
            let rules = counted(config.rules.set.rules.len(), "rule");
            let warnings: String = config
                .warnings
                .iter()
                .map(|warning| format!("warning: {}\n", warning.render().trim()))
                .collect();
            (format!("{warnings}{name}: ok, {connections}, {rules}\n"), true)
        }
        Err(error) => {
            let problems = counted(error.0.len(), "problem");
            (format!("{}{name}: {problems}\n", error.render()), false)
        }
    }
}

/// `1 rule`, `2 rules`.
pub(super) fn counted(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}
