//! Logs as version 1 wrote them, kept for good: a later version must still read the good one, cut the torn one and refuse the
//! corrupt one. The files are never made anew; a change of format comes with new ones beside them.

use std::path::{Path, PathBuf};

use tidemill_store::{Options, Position, Record, Retain, ScanRequest, Store, StoreError};

/// A data directory whose log is the fixture.
fn directory(name: &str) -> tempfile::TempDir {
    let fixtures: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "fixtures", "v1"].iter().collect();
    let dir = tempfile::tempdir().unwrap();
    let copy = |from: &Path, to: &str| std::fs::copy(from, dir.path().join(to)).unwrap();
    copy(&fixtures.join("FORMAT"), "FORMAT");
    std::fs::create_dir(dir.path().join("log")).unwrap();
    copy(&fixtures.join(name), "log/0-000000000000.seg");
    dir
}

async fn records(store: &Store) -> Vec<Record> {
    let all = ScanRequest { from: Position::ZERO, filter: "#".into(), records_max: 100, bytes_max: 1 << 20 };
    store.scan(all).await.unwrap().records
}

fn check(records: &[Record]) {
    for (number, record) in records.iter().enumerate() {
        assert_eq!(&*record.topic, format!("fixtures/{number}"));
        assert_eq!(record.payload, format!("payload {number}"));
        assert_eq!(&record.properties[..], b"properties");
        assert_eq!(record.attributes, number as u8);
        assert_eq!(record.retain, [Retain::No, Retain::Set, Retain::Clear][number]);
        assert!(record.time_ms > 1_700_000_000_000);
    }
}

#[tokio::test]
async fn a_good_log_is_read() {
    let dir = directory("good.seg");
    let store = Store::open(Options::new(dir.path())).unwrap();
    let records = records(&store).await;
    assert_eq!(records.len(), 3);
    check(&records);
    assert_eq!(store.stats().torn_bytes, 0);
}

#[tokio::test]
async fn a_torn_log_is_cut() {
    let dir = directory("torn.seg");
    let store = Store::open(Options::new(dir.path())).unwrap();
    let records = records(&store).await;
    assert_eq!(records.len(), 2);
    check(&records);
    assert!(store.stats().torn_bytes > 0);
}

#[tokio::test]
async fn a_corrupt_log_is_refused() {
    let dir = directory("corrupt.seg");
    let error = Store::open(Options::new(dir.path())).err().unwrap();
    assert!(matches!(&error, StoreError::Corrupt { what, .. } if what.contains("checksum")), "{error}");
}
