//! kill -9 at any moment: what was acknowledged is there, in order, once, in every queue, and no cursor is past what was read.
//!
//! The test starts itself as another process, which says on a pipe what was acknowledged.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidemill_store::{
    Cursor, CursorKey, CursorPlace, FilterRequest, History, Keep, NewRecord, Options, QueueId, ReadRequest,
    Record, Retain, Start, Store,
};

#[path = "common/read.rs"]
mod read;

use read::read_all;

/// Where the other process has its store; set for it alone.
const DIR: &str = "TIDEMILL_KILL_DIR";
const SHARDS: &str = "TIDEMILL_KILL_SHARDS";
const ROUND: &str = "TIDEMILL_KILL_ROUND";
const ROUNDS: u64 = 10;
const TASKS: u64 = 3;

fn options(dir: &Path, shards: u16) -> Options {
    Options {
        shards,
        segment_bytes: 20_000,
        index_buffer_bytes: 20_000,
        tail_cache_bytes: 10_000,
        checkpoint_interval: Duration::from_millis(3),
        ..Options::new(dir)
    }
}

/// Says something to the parent; what it does not hear was not said.
fn say(what: std::fmt::Arguments<'_>) {
    println!("@{what}");
}

async fn append(store: Store, round: u64, task: u64) {
    for number in 0.. {
        let one = |part: u64| NewRecord {
            topic: format!("t/{}", (number + part + task) % 7).into(),
            properties: Default::default(),
            payload: format!("{round} {task} {} {}", number * 2 + part, "x".repeat(number as usize % 90))
                .into(),
            attributes: 0,
            retain: Retain::No,
        };
        store.append(vec![one(0), one(1)]).await.unwrap();
        say(format_args!("acknowledged {task} {}", number * 2 + 1));
    }
}

async fn consume(store: Store, queue: QueueId) {
    let key = CursorKey { owner: "consumer".into(), queue };
    let Cursor { id, mut place } = store.open_cursor(key, Start::Earliest).await.unwrap();
    loop {
        let request =
            ReadRequest { queue, from: place.offset, records_max: 9, bytes_max: 1 << 20, durable: true };
        let batch = store.read(request).await.unwrap();
        match batch.records.last() {
            Some((offset, record)) => {
                place = CursorPlace { offset: offset + 1, sequence: record.sequence };
                say(format_args!("consumed {}", place.offset));
                store.commit(id, place);
            }
            None => tokio::task::yield_now().await,
        }
    }
}

async fn open_more(store: Store, round: u64) {
    for number in (round * 3..).take(3) {
        let filter = format!("t/{}", number % 7);
        let request = FilterRequest { filter, keep: Keep::Durable, history: History::Earliest };
        store.open_filters(vec![request]).await.unwrap();
        store.checkpoint().await.unwrap();
    }
}

/// The other process; nothing when the tests are run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (Ok(dir), Some(shards), Some(round)) = (std::env::var(DIR), number(SHARDS), number(ROUND)) else {
        return;
    };
    let store = Store::open(options(&PathBuf::from(dir), shards as u16)).unwrap();
    let all = store.open_filter("#").await.unwrap().id;
    store.open_union("union", &["t/1".into(), "t/+".into()]).await.unwrap();
    say(format_args!("ready"));
    let mut tasks = tokio::task::JoinSet::new();
    (0..TASKS).for_each(|task| drop(tasks.spawn(append(store.clone(), round, task))));
    tasks.spawn(consume(store.clone(), all));
    tasks.spawn(open_more(store.clone(), round));
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

/// What the other process said before it was killed.
#[derive(Debug, Default)]
struct Said {
    /// Last number of each task.
    acknowledged: BTreeMap<u64, u64>,
    consumed: u64,
}

fn run_and_kill(dir: &Path, shards: u16, round: u64, pause: Duration) -> Said {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(DIR, dir)
        .env(SHARDS, shards.to_string())
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = Said::default();
    let mut pipe = BufReader::new(child.stdout.take().unwrap());
    let mut killer = None;
    let mut line = String::new();
    // A line that was cut off was not said.
    while pipe.read_line(&mut line).unwrap() > 0 && line.ends_with('\n') {
        let words: Vec<&str> = line.split_once('@').map_or("", |(_, said)| said).split_whitespace().collect();
        match words[..] {
            ["ready"] => {
                // SIGKILL, while this thread goes on reading.
                let id = rustix::process::Pid::from_child(&child);
                killer = Some(std::thread::spawn(move || {
                    std::thread::sleep(pause);
                    rustix::process::kill_process(id, rustix::process::Signal::KILL).unwrap();
                }));
            }
            ["acknowledged", task, number] => {
                said.acknowledged.insert(task.parse().unwrap(), number.parse().unwrap());
            }
            ["consumed", offset] => said.consumed = offset.parse().unwrap(),
            _ => {}
        }
        line.clear();
    }
    killer.expect("it was ready").join().unwrap();
    assert!(!child.wait().unwrap().success());
    said
}

/// Round, task and number of a record.
fn numbers(record: &Record) -> [u64; 3] {
    let text = std::str::from_utf8(&record.payload).unwrap();
    let mut words = text.split_whitespace().map(|word| word.parse().unwrap());
    [(); 3].map(|()| words.next().unwrap())
}

#[tokio::test]
async fn a_killed_store_has_all_that_it_acknowledged() {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
    println!("seed {seed}");
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut known: [BTreeMap<(u64, u64), u64>; 2] = Default::default();
    let mut consumed = [0; 2];
    for round in 0..ROUNDS {
        let which = round as usize % 2;
        let (dir, shards) = (dirs[which].path(), [1, 3][which]);
        let pause = Duration::from_millis(5 + u64::from(seed.rotate_left(round as u32 * 3) % 150));
        let said = run_and_kill(dir, shards, round, pause);
        known[which].extend(said.acknowledged.iter().map(|(task, number)| ((round, *task), *number)));

        consumed[which] = consumed[which].max(said.consumed);

        let store = Store::open(options(dir, shards)).unwrap();
        let queues = store.queues(None, 100).await.unwrap();
        let named = |name: &str| queues.iter().find(|queue| queue.name == name).unwrap();
        let all = read_all(&store, named("#").id, 0).await;
        // Each task's records in order, once, without a hole, up to the last acknowledged at least.
        let mut counts: BTreeMap<(u64, u64), u64> = BTreeMap::new();
        for ((expected, (offset, record)), sequence) in (0..).zip(&all).zip(1..) {
            assert_eq!((*offset, record.sequence), (expected, sequence), "round {round}");
            let [of_round, task, number] = numbers(record);
            let count = counts.entry((of_round, task)).or_default();
            assert_eq!(*count, number, "round {round}, task {task}");
            *count += 1;
        }
        for (task, last) in &known[which] {
            assert!(
                counts.get(task).is_some_and(|count| count > last),
                "round {round}: {task:?} {last} {counts:?}"
            );
        }
        for queue in &queues {
            let entries = read_all(&store, queue.id, 0).await;
            assert!(entries.iter().map(|(offset, _)| *offset).eq(queue.first..queue.end));
            let filter = if queue.name == "union" { "t/+" } else { &queue.name };
            let wanted =
                all.iter().filter(|(_, record)| tidemill_store::filter::matches(filter, &record.topic));
            let wanted: Vec<u64> = wanted.map(|(_, record)| record.sequence).collect();
            let found: Vec<u64> = entries.iter().map(|(_, record)| record.sequence).collect();
            // A queue that was being filled with history when the end came has the newer records only.
            let is_suffix = wanted.ends_with(&found);
            assert!(is_suffix, "round {round}, queue {}: {} of {}", queue.name, found.len(), wanted.len());
            let history = FilterRequest {
                filter: queue.name.clone(),
                keep: Keep::Durable,
                history: if queue.name == "#" { History::None } else { History::Earliest },
            };
            if queue.name != "union" {
                let again = store.open_filters(vec![history]).await.unwrap().remove(0);
                assert_eq!((again.id, again.end), (queue.id, queue.end));
                let found = read_all(&store, queue.id, 0).await;
                assert!(found.into_iter().map(|(_, record)| record.sequence).eq(wanted), "{}", queue.name);
            } else {
                assert_eq!(found, wanted);
            }
        }
        let cursors = store.cursors("consumer", None, 9).await.unwrap();
        for (_, place) in cursors {
            let end = named("#").end;
            assert!(place.offset <= end && place.offset <= consumed[which], "{place:?}, {consumed:?}, {end}");
            let done = place.offset.checked_sub(1).map_or(0, |last| all[last as usize].1.sequence);
            assert_eq!(place.sequence, done);
        }
        drop(store);
    }
}
