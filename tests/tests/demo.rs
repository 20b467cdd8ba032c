//! `tidemill demo` by itself, without a terminal: a fleet, an outage, and every message accounted for.

use std::time::{Duration, Instant};

use tidemill_tests::process::run;
use tidemill_tests::report;
use tidemill_tests::services::tidemill::command;

/// The 20 s it was told, and as much for starting and draining on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);
const PUBLISHED_MIN: u64 = 10_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let demo = command(dir.path(), &["demo", "--for", "20s", "--outage", "5s"]);
    let ended = run("demo", demo, LIMIT).await;
    report!("demo", "ended ({}) after {:.1?}", ended.status, began.elapsed());
    let last = ended.stdout.lines().last().unwrap_or_default();
    report!("demo", "{last}");
    assert!(ended.status.success(), "{}: {}", ended.status, ended.output());
    let Summary { published, matched, delivered, lost } = summary(last).unwrap_or_else(|| panic!("{last:?}"));
    assert_eq!(lost, 0);
    assert!(published >= PUBLISHED_MIN, "{last}");
    assert!(matched > 0 && delivered > 0, "{last}");
    assert!(!ended.output().contains('\u{1b}'), "without a terminal there are plain lines: {}", ended.stdout);
    assert!(ended.stdout.lines().count() > 10, "some line for each second: {}", ended.stdout);
    let left: Vec<_> = dir.path().read_dir().unwrap().collect();
    assert!(left.is_empty(), "it left {left:?} in the working directory");
}

struct Summary {
    published: u64,
    matched: u64,
    delivered: u64,
    lost: u64,
}

/// Reads `demo: published N, matched N, delivered N, lost N`.
fn summary(line: &str) -> Option<Summary> {
    let mut counts = line.strip_prefix("demo: ")?.split(", ");
    let mut count = |name: &str| counts.next()?.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
    let summary = Summary {
        published: count("published")?,
        matched: count("matched")?,
        delivered: count("delivered")?,
        lost: count("lost")?,
    };
    counts.next().is_none().then_some(summary)
}

#[test]
fn summaries_are_read_strictly() {
    assert_eq!(summary("demo: published 3, matched 2, delivered 1, lost 0").unwrap().published, 3);
    assert!(summary("demo: published 3, matched 2, delivered 1").is_none());
    assert!(summary("demo: published 3, matched 2, delivered 1, lost 0, more 1").is_none());
}
