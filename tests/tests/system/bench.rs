//! `tidemill bench store`: its lines are complete, and it leaves nothing behind. How fast the store is, is not tested here.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tidemill_tests::process::{Process, run};
use tidemill_tests::services::tidemill::command;

const LIMIT: Duration = Duration::from_secs(120);

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}

/// A directory on a disk: the system's one for temporary files may be in memory, which the bench refuses.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_is_told_in_full() {
    let dir = directory();
    let arguments = ["bench", "store", "--quick", "--json", "--rows", "tail,append,sync", "--runs", "1"];
    let bench =
        command(dir.path(), &arguments.map(Into::into).into_iter().chain(in_dir(&dir)).collect::<Vec<_>>());
    let ended = run("bench", bench, LIMIT).await;
    assert!(ended.status.success(), "--quick only tells: {}{}", ended.stdout, ended.stderr);
    assert!(ended.stderr.contains("bench: append: run 1 of 1"), "{}", ended.stderr);
    let lines: Vec<Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let rows: Vec<&str> = lines.iter().map(|line| line["row"].as_str().unwrap()).collect();
    assert_eq!(rows, ["append", "sync", "sync-fdatasyncs", "tail"]);
    for line in &lines {
        let value = line["value"].as_f64().unwrap();
        assert!(value > 0.0, "{line}");
        assert!(line["unit"].as_str().unwrap().starts_with("records/"), "{line}");
        assert!(line["must"].as_str().unwrap().starts_with(">= ") && line["ok"].is_boolean(), "{line}");
        let limited = ["append", "sync"].contains(&line["row"].as_str().unwrap());
        match (line["limit"].as_f64(), line["ratio"].as_f64()) {
            (Some(limit), Some(ratio)) if limited => assert!((value / limit - ratio).abs() < 1e-6, "{line}"),
            (None, None) if !limited => {
                assert!(line["limit"].is_null() && line["ratio"].is_null(), "{line}");
            }
            _ => panic!("a limit where there is none, or none where there is one: {line}"),
        }
    }
    assert!(is_empty(dir.path()), "temporary data is left behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupt_leaves_nothing_behind() {
    let [logs, data] = [directory(), directory()];
    // Row `memory` has child processes, which are to end as well.
    let rows = ["bench", "store", "--quick", "--rows", "memory", "--runs", "100"];
    let arguments: Vec<_> = rows.map(Into::into).into_iter().chain(in_dir(&data)).collect();
    let mut bench = Process::start("bench", command(logs.path(), &arguments), logs.path(), Signal::KILL);
    bench.wait_for("a run", LIMIT, |_, stderr| stderr.contains("run 2 of 100").then_some(())).await;
    assert!(!is_empty(data.path()));
    bench.signal(Signal::INT);
    assert_eq!(bench.wait(LIMIT).await.code(), Some(1));
    assert!(bench.stderr().contains("stopped; the temporary data is removed"), "{}", bench.stderr());
    assert!(is_empty(data.path()), "temporary data is left behind");
}

fn in_dir(dir: &tempfile::TempDir) -> [std::ffi::OsString; 2] {
    ["--dir".into(), dir.path().into()]
}
