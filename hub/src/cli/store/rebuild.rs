//! `tidemill store rebuild-index`: the index derived again from the log.

use serde_json::json;
use tidemill_store::tools::{self, Rebuilt};

use super::Directory;
use crate::cli::api::shown;
use crate::cli::text::{number, teller};
use crate::cli::{Failed, print};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    directory: Directory,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failed> {
    let mut tell = teller();
    let done = tools::rebuild_index(&args.directory.find()?, &mut tell).map_err(Failed::because)?;
    print(&if args.json { format!("{:#}\n", in_json(&done)) } else { told(&done) })
}

fn told(done: &Rebuilt) -> String {
    let notes: String = done.notes.iter().map(|note| format!("note: {}\n", shown(note))).collect();
    format!(
        "{notes}derived {} entries of {} queues from {} records in {:.1} s; {} entries were taken over from the old index\n",
        number(done.entries),
        number(done.queues),
        number(done.records),
        done.took.as_secs_f64(),
        number(done.copied),
    )
}

fn in_json(done: &Rebuilt) -> serde_json::Value {
    json!({
        "records": done.records, "queues": done.queues, "entries": done.entries, "copied": done.copied,
        "seconds": done.took.as_secs_f64(), "notes": done.notes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_was_done() {
        let done = Rebuilt {
            records: 1_000_000,
            queues: 12,
            entries: 3_000_000,
            copied: 400,
            took: std::time::Duration::from_millis(8450),
            notes: vec![
                "derived queues are left out: they are derived again from the log's begin".to_owned(),
            ],
        };
        insta::assert_snapshot!(told(&done));
    }
}
