//! `tidemill store stats`: how much there is of everything.

use serde_json::json;
use tidemill_store::tools::{self, Lag, QueueCount, ShardStats, StoreStats};

use super::Directory;
use crate::cli::api::shown;
use crate::cli::text::{bytes, number, table, time};
use crate::cli::{Failed, print};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    directory: Directory,
    /// How many cursors to name, of those with the largest lag
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failed> {
    let found = tools::stats(&args.directory.find()?, args.top).map_err(Failed::because)?;
    print(&if args.json { format!("{:#}\n", in_json(&found)) } else { told(&found) })
}

fn told(found: &StoreStats) -> String {
    let mut shards = vec![
        ["shard", "stream", "segments", "size", "first", "last", "oldest", "newest"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for shard in &found.shards {
        let ShardStats { shard, stream, segments, bytes: size, first, last, oldest_ms, newest_ms } = shard;
        let at = |position: &Option<tidemill_store::Position>| {
            position.map_or("-".to_owned(), |at| at.to_string())
        };
        let stream = if stream.is_empty() { "(default)".to_owned() } else { shown(stream) };
        let (oldest, newest) = (time(*oldest_ms), time(*newest_ms));
        shards.push(vec![
            shard.to_string(),
            stream,
            number(*segments),
            bytes(*size),
            at(first),
            at(last),
            oldest,
            newest,
        ]);
    }
    let mut out = table(&shards, &[1, 4, 5, 6, 7]);
    let mut queues = vec![["queues", "number", "entries"].map(str::to_owned).to_vec()];
    for (name, QueueCount { queues: count, entries }) in kinds(found) {
        queues.push(vec![name.to_owned(), number(count), number(entries)]);
    }
    out += "\n";
    out += &table(&queues, &[]);
    let log: u64 = found.shards.iter().map(|shard| shard.bytes).sum();
    let rows = [
        ("log", bytes(log)),
        ("index", bytes(found.index_bytes)),
        ("log not in the index", bytes(found.unindexed_bytes)),
        ("meta", bytes(found.meta_bytes)),
        ("oldest record", time(found.oldest_ms)),
        ("retained messages", number(found.retained)),
        ("cursors", number(found.cursors)),
        ("dead letters", number(found.dead_letters)),
    ];
    out += "\n";
    out += &table(&rows.map(|(name, value)| vec![name.to_owned(), value]), &[1]);
    if !found.lags.is_empty() {
        let mut lags = vec![["behind", "cursor", "queue"].map(str::to_owned).to_vec()];
        for Lag { entries, cursor, queue } in &found.lags {
            lags.push(vec![number(*entries), shown(&cursor.owner), shown(queue)]);
        }
        out += "\n";
        out += &table(&lags, &[1, 2]);
    }
    for note in &found.notes {
        out += &format!("\nnote: {note}\n");
    }
    out
}

fn kinds(found: &StoreStats) -> [(&'static str, QueueCount); 3] {
    [("filter", found.filters), ("union", found.unions), ("derived", found.derived)]
}

fn in_json(found: &StoreStats) -> serde_json::Value {
    let at = |position: Option<tidemill_store::Position>| position.map(|at| at.to_string());
    let shards = found.shards.iter().map(|shard| {
        json!({
            "shard": shard.shard, "stream": shard.stream, "segments": shard.segments, "bytes": shard.bytes,
            "first": at(shard.first), "last": at(shard.last),
            "oldest_ms": shard.oldest_ms, "newest_ms": shard.newest_ms,
        })
    });
    let queues = kinds(found)
        .into_iter()
        .map(|(name, count)| (name.to_owned(), json!({ "queues": count.queues, "entries": count.entries })));
    let lags = found.lags.iter().map(|lag| {
        json!({ "entries": lag.entries, "owner": lag.cursor.owner, "queue": lag.queue, "queue_id": lag.cursor.queue.0 })
    });
    json!({
        "shards": shards.collect::<Vec<_>>(),
        "queues": queues.collect::<serde_json::Map<_, _>>(),
        "index_bytes": found.index_bytes, "unindexed_bytes": found.unindexed_bytes, "meta_bytes": found.meta_bytes,
        "retained": found.retained, "cursors": found.cursors, "dead_letters": found.dead_letters,
        "oldest_ms": found.oldest_ms, "lags": lags.collect::<Vec<_>>(), "notes": found.notes,
    })
}

#[cfg(test)]
mod tests {
    use tidemill_store::{CursorKey, Position, QueueId};

    use super::*;

    fn found() -> StoreStats {
        let shard = |shard, stream: &str| ShardStats {
            shard,
            stream: stream.to_owned(),
            segments: 41,
            bytes: 11_000_000_000,
            first: Some(Position::new(shard, 48)),
            last: Some(Position::new(shard, 10_999_999_000)),
            oldest_ms: Some(1_700_000_000_000),
            newest_ms: Some(1_700_086_400_000),
        };
        let empty = ShardStats {
            shard: 2,
            stream: "fast".to_owned(),
            segments: 1,
            bytes: 48,
            ..ShardStats::default()
        };
        let cursor = CursorKey { owner: "rule/overheat/lake".to_owned(), queue: QueueId(7) };
        StoreStats {
            shards: vec![shard(0, ""), shard(1, ""), empty],
            filters: QueueCount { queues: 1_000_000, entries: 31_234_567 },
            derived: QueueCount { queues: 2, entries: 30 },
            index_bytes: 123_456_789,
            meta_bytes: 54_321,
            retained: 1200,
            cursors: 1_000_002,
            oldest_ms: Some(1_700_000_000_000),
            lags: vec![Lag { entries: 31_000, cursor, queue: "overheat".to_owned() }],
            ..StoreStats::default()
        }
    }

    #[test]
    fn is_a_table_for_people() {
        insta::assert_snapshot!(told(&found()));
    }

    #[test]
    fn is_json_for_machines() {
        insta::assert_snapshot!(format!("{:#}", in_json(&found())));
    }
}
