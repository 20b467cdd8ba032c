//! A full disk: records are refused with a clear error, reads go on, and publishing works again once there is room.

use std::path::Path;
use std::process::Command;

use tidemill_store::{NewRecord, Options, ReadRequest, Retain, Store, StoreError};

/// A small file system of its own, gone with the value.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    /// `None` where this process may not mount.
    fn mount(path: &'a Path, mebibytes: u32) -> Option<Self> {
        let options = format!("size={mebibytes}m");
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).output().ok()?;
        status.status.success().then_some(SmallDisk(path))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

fn record(number: u32) -> NewRecord {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(100_000, b'x');
    NewRecord {
        topic: "t".into(),
        properties: Default::default(),
        payload: payload.into(),
        attributes: 0,
        retain: Retain::No,
    }
}

#[tokio::test]
async fn records_are_refused_until_there_is_room_and_none_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let options = || Options { segment_bytes: 4 << 20, ..Options::new(dir.path()) };
    drop(Store::open(options()).unwrap());
    std::fs::remove_dir_all(&log).unwrap();
    std::fs::create_dir(&log).unwrap();
    let Some(_disk) = SmallDisk::mount(&log, 24) else {
        println!("skipped: this needs the right to mount a file system");
        return;
    };
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let ballast = log.join("ballast");
    std::fs::write(&ballast, vec![1; 12 << 20]).unwrap();

    let store = Store::open(options()).unwrap();
    let queue = store.open_filter("t").await.unwrap().id;
    let mut stored = 0;
    let error = loop {
        match store.append(vec![record(stored)]).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 300, "the disk is never full");
    };
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert!(stored > 80, "only {stored} records of 100 kB on 12 MiB");
    assert!(matches!(store.fault(), Some(StoreError::Full { .. })));
    assert!(store.append(vec![record(stored)]).await.is_err());
    let request = ReadRequest { queue, from: 3, records_max: 2, bytes_max: 1 << 20, durable: true };
    assert_eq!(store.read(request).await.unwrap().records.len(), 2);

    std::fs::remove_file(&ballast).unwrap();
    for _ in 0..20 {
        store.append(vec![record(stored)]).await.unwrap();
        stored += 1;
    }
    assert!(store.fault().is_none());
    drop(store);

    let store = Store::open(options()).unwrap();
    for number in 0..stored {
        let request =
            ReadRequest { queue, from: number.into(), records_max: 1, bytes_max: 1 << 20, durable: true };
        let batch = store.read(request).await.unwrap();
        assert_eq!(batch.records[0].1.payload[..4], number.to_be_bytes());
    }
    println!("stored {stored} records around a full disk");
}
