//! Logs as each version wrote them, kept for good: a later version must still read the good one, cut the torn one and refuse the
//! corrupt one. The files are never made anew; a change of format comes with new ones beside them.

use std::path::{Path, PathBuf};

use tidemill_store::{NewRecord, Options, Record, Retain, ScanRequest, Store, StoreError};

/// Every version of a segment there was, with what its first record's sequence is: in version 1 it was the offset.
const VERSIONS: [(&str, u64); 3] = [("v1", 48), ("v2", 40), ("v3", 40)];

/// A data directory whose log is the fixture.
fn directory(version: &str, name: &str) -> tempfile::TempDir {
    let fixtures: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "fixtures", version].iter().collect();
    let dir = tempfile::tempdir().unwrap();
    let copy = |from: &Path, to: &str| std::fs::copy(from, dir.path().join(to)).unwrap();
    copy(&fixtures.join("FORMAT"), "FORMAT");
    std::fs::create_dir(dir.path().join("log")).unwrap();
    copy(&fixtures.join(name), "log/0-000000000000.seg");
    dir
}

async fn records(store: &Store) -> Vec<Record> {
    let all =
        ScanRequest { from: Vec::new(), filter: Some("#".into()), records_max: 100, bytes_max: 1 << 20 };
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
    for (version, first) in VERSIONS {
        let dir = directory(version, "good.seg");
        let store = Store::open(Options::new(dir.path())).unwrap();
        let records = records(&store).await;
        assert_eq!(records.len(), 3, "{version}");
        check(&records);
        assert_eq!(records[0].sequence, first, "{version}");
        assert!(store.next_sequence() > records[2].sequence);
        assert_eq!(store.stats().torn_bytes, 0);
    }
}

#[tokio::test]
async fn a_torn_log_is_cut() {
    for (version, _) in VERSIONS {
        let dir = directory(version, "torn.seg");
        let store = Store::open(Options::new(dir.path())).unwrap();
        let records = records(&store).await;
        assert_eq!(records.len(), 2, "{version}");
        check(&records);
        assert!(store.stats().torn_bytes > 0);
    }
}

#[tokio::test]
async fn a_corrupt_log_is_refused() {
    for (version, _) in VERSIONS {
        let dir = directory(version, "corrupt.seg");
        let read = || std::fs::read_to_string(dir.path().join("FORMAT")).unwrap();
        let format = read();
        let error = Store::open(Options::new(dir.path())).err().unwrap();
        assert!(matches!(&error, StoreError::Corrupt { what, .. } if what.contains("checksum")), "{error}");
        assert_eq!(read(), format, "it is left as it was");
    }
}

#[tokio::test]
async fn a_kept_record_is_a_retained_message_and_in_no_queue() {
    for version in ["v2", "v3"] {
        let dir = directory(version, "good.seg");
        let store = Store::open(Options::new(dir.path())).unwrap();
        assert_eq!(store.next_sequence(), 48);
        let retained = store.retained("#", None, 10).await.unwrap();
        let topics: Vec<&str> = retained.iter().map(|record| &*record.topic).collect();
        assert_eq!(topics, ["fixtures/1", "fixtures/kept"]);
        let kept = &retained[1];
        assert_eq!((&kept.payload[..], kept.sequence), (&b"payload kept"[..], 47));
        assert_eq!(kept.time_ms, 1_760_000_000_000, "when the message was stored first");
        assert_eq!(store.record_at(kept.position).await.unwrap().as_ref(), Some(kept));
    }
}

#[tokio::test]
async fn a_log_of_an_earlier_version_goes_on_in_a_new_segment() {
    for version in ["v1", "v2"] {
        let dir = directory(version, "good.seg");
        let old = dir.path().join("log/0-000000000000.seg");
        let bytes = std::fs::read(&old).unwrap();
        let open = |shards| Store::open(Options { shards, ..Options::new(dir.path()) }).unwrap();
        for round in 0..3 {
            // With more shards it is the same log.
            let store = open(if round == 2 { 3 } else { 1 });
            let before = records(&store).await;
            assert_eq!(before.len(), 3 + round);
            let record = NewRecord {
                topic: format!("new/{round}").into(),
                properties: Default::default(),
                payload: Default::default(),
                attributes: 0,
                retain: Retain::No,
            };
            store.append(vec![record]).await.unwrap();
            let records = records(&store).await;
            check(&records[..3]);
            assert!(records.is_sorted_by(|a, b| a.sequence < b.sequence));
            let names = records[3..].iter().map(|record| record.topic.to_string());
            assert!(names.eq((0..=round).map(|round| format!("new/{round}"))));
            assert_eq!(std::fs::read(&old).unwrap(), bytes, "nothing is appended to the old segment");
            let format = std::fs::read_to_string(dir.path().join("FORMAT")).unwrap();
            assert!(format.starts_with("tidemill data 2\nlog "), "{format}");
        }
    }
}
