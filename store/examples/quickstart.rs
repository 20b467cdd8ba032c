//! The store in one page: queues, appending, watching and reading, a cursor, a retained message, and a second start that finds it all.
//!
//! ```sh
//! cargo run --release -p tidemill-hub -p tidemill-store --example quickstart            # in a temporary directory
//! cargo run --release -p tidemill-hub -p tidemill-store --example quickstart -- ./data  # in a directory that stays
//! ```
//! `-p tidemill-store` alone does as well; with both packages RocksDB is built with the features that the rest of the workspace uses, and
//! so only once.

use std::error::Error;
use std::path::{Path, PathBuf};

use tidemill_store::{
    CursorKey, CursorPlace, NewRecord, Options, ReadRequest, Retain, Start, Store, Watcher,
};

type Done<T = ()> = Result<T, Box<dyn Error>>;

fn record(topic: &str, payload: &str, retain: Retain) -> NewRecord {
    let payload = payload.as_bytes().to_vec().into();
    NewRecord { topic: topic.into(), properties: Default::default(), payload, attributes: 0, retain }
}

/// Appends, and reads what one consumer has not read yet. What it printed.
async fn tour(dir: &Path) -> Done<Vec<String>> {
    let mut told = Vec::new();
    let options = Options::new(dir);
    // Opening reads files: off the async threads.
    let store = tokio::task::spawn_blocking(move || Store::open(options)).await??;

    // A queue for each filter. Records enter every queue that they match, as pointers.
    let all = store.open_filter("boats/#").await?;
    let depths = store.open_filter("boats/+/depth").await?;
    let key = CursorKey { owner: "quickstart".to_owned(), queue: depths.id };
    let cursor = store.open_cursor(key.clone(), Start::Earliest).await?;

    // A watch rings once the queue has more than this.
    let watcher = Watcher::new();
    store.watch(depths.id, store.queue_end(depths.id).unwrap_or(0), true, &watcher, 7)?;

    // Acknowledged once it survives a power cut.
    let batch = vec![
        record("boats/ada/depth", "4.2", Retain::No),
        record("boats/ada/name", "Ada", Retain::Set),
        record("boats/bob/depth", "3.1", Retain::No),
    ];
    let appended = store.append(batch).await?;
    told.push(format!("appended {} records", appended.positions.len()));
    told.push(format!("rung for {:?}", watcher.ready().await));

    let request = ReadRequest {
        queue: depths.id,
        from: cursor.place.offset,
        records_max: 100,
        bytes_max: 1 << 20,
        durable: true,
    };
    let batch = store.read(request).await?;
    for (_, record) in &batch.records {
        told.push(format!("{}: {}", record.topic, String::from_utf8_lossy(&record.payload)));
    }
    if let Some((_, last)) = batch.records.last() {
        store.commit(cursor.id, CursorPlace { offset: batch.next, sequence: last.sequence });
    }

    for record in store.retained("boats/+/name", None, 100).await? {
        told.push(format!("retained on {}: {}", record.topic, String::from_utf8_lossy(&record.payload)));
    }
    let read = store.queue_end(depths.id).unwrap_or(0) - batch.next;
    told.push(format!(
        "{read} left to read, {} in all queues of boats",
        store.queue_end(all.id).unwrap_or(0)
    ));
    store.close().await?;
    Ok(told)
}

/// Checks that what was printed is what should be: `round` counts the starts of the same directory, from 1.
fn check(told: &[String], round: u64) {
    let expected = [
        "appended 3 records".to_owned(),
        "rung for [7]".to_owned(),
        "boats/ada/depth: 4.2".to_owned(),
        "boats/bob/depth: 3.1".to_owned(),
        "retained on boats/ada/name: Ada".to_owned(),
        format!("0 left to read, {} in all queues of boats", 3 * round),
    ];
    assert_eq!(told, expected);
}

/// In the given directory, or twice in a temporary one, where it is known what must come out.
pub(crate) async fn run(given: Option<PathBuf>) -> Done {
    if let Some(dir) = given {
        tour(&dir).await?.iter().for_each(|line| println!("{line}"));
        return Ok(());
    }
    let temporary = tempfile::tempdir()?;
    for round in 1..=2 {
        // The second start goes on where the first one was.
        let told = tour(temporary.path()).await?;
        told.iter().for_each(|line| println!("{line}"));
        check(&told, round);
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Done {
    run(std::env::args().nth(1).map(PathBuf::from)).await
}
