//! `tidemill bench`: its lines are complete, and it leaves nothing behind. How fast anything is, is not tested here.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tidemill_tests::ports;
use tidemill_tests::process::{Process, run};
use tidemill_tests::services::Tidemill;
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

/// The figures of a scenario, by name.
fn figures<'a>(lines: &'a [Value], scenario: &str) -> HashMap<&'a str, f64> {
    let own = lines.iter().filter(|line| line["scenario"] == scenario);
    own.map(|line| (line["figure"].as_str().unwrap(), line["value"].as_f64().unwrap())).collect()
}

/// That the account finds what is lost is shown beside it, against a broker that loses (`hub/src/bench/mqtt/tests.rs`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hub_keeps_every_message_of_the_load() {
    let hub = Tidemill::start("").await;
    let port = hub.mqtt().port().to_string();
    let dir = directory();
    for version in [&["--v5"][..], &[]] {
        let arguments = ["bench", "mqtt", "--quick", "--json", "--port", &port];
        let bench = command(dir.path(), &[&arguments[..], version].concat());
        let ended = run("bench", bench, LIMIT).await;
        assert!(ended.status.success(), "{}{}", ended.stdout, ended.stderr);
        let lines: Vec<Value> =
            ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let qos0 = ["fan-in-qos0", "fan-out-qos0"];
        let qos1 = ["fan-in-qos1", "fan-out-qos1", "pairs-qos1", "paced-qos1", "offline"];
        for scenario in qos0.into_iter().chain(qos1) {
            let figures = figures(&lines, scenario);
            let copies = match scenario {
                "offline" | "fan-out-qos0" | "fan-out-qos1" => 50.0,
                _ => 1.0,
            };
            assert!(figures["sent"] > 0.0, "{scenario}: {figures:?}");
            assert_eq!(figures["delivered"], figures["sent"] * copies, "{scenario}: {figures:?}");
            let wrong = ["lost", "duplicated", "reordered"].map(|figure| figures[figure]);
            assert_eq!(wrong, [0.0; 3], "{scenario}: {figures:?}");
            assert_eq!(figures.contains_key("acknowledged"), qos1.contains(&scenario));
        }
        assert_eq!(figures(&lines, "connect")["connections"], 200.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_without_a_broker_says_what_to_do() {
    let port = ports::free().to_string();
    let arguments = ["bench", "mqtt", "--quick", "--scenarios", "connect,kill", "--port", &port];
    let ended = run("bench", command(directory().path(), &arguments), LIMIT).await;
    assert_eq!(ended.status.code(), Some(1));
    for told in ["connect: connecting to 127.0.0.1:", "is a broker listening there?", "kill: only --compare"]
    {
        assert!(ended.stderr.contains(told), "{}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_comparison_kills_and_loses_nothing() {
    let dir = directory();
    let arguments =
        ["bench", "mqtt", "--compare", "--quick", "--json", "--runs", "1", "--scenarios", "fan-in-qos1,kill"];
    let bench =
        command(dir.path(), &arguments.map(Into::into).into_iter().chain(in_dir(&dir)).collect::<Vec<_>>());
    let ended = run("bench", bench, LIMIT).await;
    assert!(ended.status.success(), "--quick only tells: {}{}", ended.stdout, ended.stderr);
    let lines: Vec<Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let rows: Vec<&str> = lines.iter().map(|line| line["row"].as_str().unwrap()).collect();
    assert_eq!(rows, ["fan-in-qos1", "kill-lost"]);
    assert!(
        lines[0]["value"].as_f64().unwrap() > 0.0 && lines[0]["must"] == ">= 4.4 x limit",
        "{}",
        lines[0]
    );
    assert_eq!(lines[1]["value"], 0.0);
    assert!(is_empty(dir.path()), "temporary data is left behind");
}
