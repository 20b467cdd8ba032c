//! `tidemill store verify`: is everything whole?

use serde_json::json;
use tidemill_store::tools::{self, Place, Problem, Verified};

use super::Directory;
use crate::cli::api::shown;
use crate::cli::text::{bytes, number, teller};
use crate::cli::{Failed, print};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    directory: Directory,
    /// How many problems to print; all are counted
    #[arg(long, value_name = "N", default_value_t = 20)]
    max_problems: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failed> {
    let mut tell = teller();
    let found =
        tools::verify(&args.directory.find()?, args.max_problems, &mut tell).map_err(Failed::because)?;
    print(&if args.json { format!("{:#}\n", in_json(&found)) } else { told(&found) })?;
    if found.problem_count == 0 { Ok(()) } else { Err(Failed::told()) }
}

fn told(found: &Verified) -> String {
    let mut out = String::new();
    for Problem { place, what } in &found.problems {
        out += &format!("{}: {}\n", shown(&place.to_string()), shown(what));
    }
    let more = found.problem_count - found.problems.len() as u64;
    if more > 0 {
        out += &format!("and {} more\n", number(more));
    }
    for note in &found.notes {
        out += &format!("note: {}\n", shown(note));
    }
    let Verified { records, bytes: size, shards, queues, entries, cursors, retained, .. } = found;
    out += &format!(
        "{} records ({}) in {} shards, {} entries in {} queues, {} cursors, {} retained messages: {}\n",
        number(*records),
        bytes(*size),
        shards,
        number(*entries),
        number(*queues),
        number(*cursors),
        number(*retained),
        match found.problem_count {
            0 => "all well".to_owned(),
            1 => "1 problem".to_owned(),
            count => format!("{} problems", number(count)),
        }
    );
    if found.problems.iter().any(|problem| matches!(problem.place, Place::Index | Place::Entry { .. })) {
        out += "`tidemill store rebuild-index` derives the index again from the log\n";
    }
    out
}

fn in_json(found: &Verified) -> serde_json::Value {
    let problems = found.problems.iter().map(|Problem { place, what }| {
        let place = match place {
            Place::Log(position) => json!({ "position": position.to_string() }),
            Place::Entry { queue, offset } => json!({ "queue": queue.0, "offset": offset }),
            Place::Index => json!({ "index": true }),
            Place::Cursor(key) => json!({ "cursor": key.owner, "queue": key.queue.0 }),
            Place::Retained(topic) => json!({ "retained": topic }),
        };
        json!({ "place": place, "what": what })
    });
    json!({
        "problems": problems.collect::<Vec<_>>(), "problem_count": found.problem_count, "notes": found.notes,
        "shards": found.shards, "records": found.records, "bytes": found.bytes, "queues": found.queues,
        "entries": found.entries, "cursors": found.cursors, "retained": found.retained,
    })
}

#[cfg(test)]
mod tests {
    use tidemill_store::{CursorKey, Position, QueueId};

    use super::*;

    #[test]
    fn tells_the_places() {
        let problem = |place, what: &str| Problem { place, what: what.to_owned() };
        let key = CursorKey { owner: "session/a".to_owned(), queue: QueueId(9) };
        let mut found = Verified {
            problems: vec![
                problem(Place::Log(Position::new(0, 1234)), "the checksum is wrong"),
                problem(
                    Place::Entry { queue: QueueId(7), offset: 512 },
                    "the record at position 0-0000000004d2 should be in this queue here",
                ),
                problem(Place::Cursor(key), "it is at offset 8, and the queue ends at 7"),
            ],
            problem_count: 5,
            notes: vec!["shard 0 has a torn tail of 99 bytes".to_owned()],
            shards: 1,
            records: 1_234_567,
            bytes: 3 << 30,
            queues: 12,
            entries: 9_876_543,
            cursors: 3,
            retained: 4,
        };
        insta::assert_snapshot!(told(&found));
        insta::assert_snapshot!(format!("{:#}", in_json(&found)));
        found.problems.clear();
        found.problem_count = 0;
        found.notes.clear();
        insta::assert_snapshot!(told(&found));
    }
}
