//! Data directories that cannot be used: each is refused with its reason, and left as it was.

use std::fs;
use std::path::Path;

use tidemill_tests::mqtt::{Client, Connect, Publish};
use tidemill_tests::process::Ended;
use tidemill_tests::services::Tidemill;
use tidemill_tests::services::tidemill::tidemill;

async fn serve(dir: &Path, data_dir: &Path) -> Ended {
    let data_dir = data_dir.to_str().expect("a path that is text");
    tidemill(dir, &["serve", "--data-dir", data_dir, "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"]).await
}

fn assert_refused(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.status.code(), Some(1), "{}", ended.output());
    assert_eq!(ended.stdout, "", "nothing is ready");
    for word in words {
        assert!(ended.stderr.contains(word), "{word:?} is not in: {}", ended.stderr);
    }
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
}

/// Every file under a directory, with its contents.
fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a readable folder") {
        let path = entry.expect("a readable folder").path();
        match path.is_dir() {
            true => found.extend(contents(&path)),
            false => found.push((path.display().to_string(), fs::read(&path).expect("a readable file"))),
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_another_process_has() {
    let hub = Tidemill::start("").await;
    let ended = serve(hub.dir(), &hub.data_dir()).await;
    assert_refused(&ended, &["data", "in use by another process"]);
    // The first one did not notice.
    let mut client = Client::connect(hub.mqtt(), &Connect::clean("still-there")).await;
    client.publish_acked(Publish::new("a", "x", 1, 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_cannot_be_made() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    for place in ["/proc/tidemill", "file/data"] {
        let ended = serve(dir.path(), Path::new(place)).await;
        assert_refused(&ended, &[place, "cannot be made", "choose one below a directory"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_free_again_after_a_kill() {
    let mut hub = Tidemill::start("").await;
    hub.kill();
    hub.start_again().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_a_newer_version() {
    let mut hub = Tidemill::start("").await;
    let mut client = Client::connect(hub.mqtt(), &Connect::persistent("session")).await;
    client.subscribe(&[("a/#", 1)]).await;
    client.publish_acked(Publish::new("b", "x", 1, 1)).await;
    assert!(hub.terminate().await.success());
    let format = hub.data_dir().join("FORMAT");
    let ours = fs::read_to_string(&format).expect("a FORMAT file");
    let newer = ours.replacen(|c: char| c.is_ascii_digit(), "987", 1);
    fs::write(&format, &newer).unwrap();
    let before = contents(&hub.data_dir());
    let ended = serve(hub.dir(), &hub.data_dir()).await;
    assert_refused(&ended, &["data", "987", "newer"]);
    let mut after = contents(&hub.data_dir());
    // The lock's file names the process that looked.
    let lock = |(path, _): &(String, Vec<u8>)| path.ends_with("/LOCK");
    assert!(after.iter().any(lock));
    after.retain(|file| !lock(file));
    assert!(before.into_iter().filter(|file| !lock(file)).eq(after), "the directory was changed");
    fs::write(&format, ours).unwrap();
    hub.start_again().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_not_ours() {
    let dir = tempfile::tempdir().unwrap();
    let photos = dir.path().join("photos");
    fs::create_dir(&photos).unwrap();
    fs::write(photos.join("holiday.jpg"), "jpg").unwrap();
    assert_refused(&serve(dir.path(), &photos).await, &["photos", "holiday.jpg"]);
    assert_eq!(fs::read(photos.join("holiday.jpg")).unwrap(), b"jpg");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    // Root may read everything, so permissions would show nothing to a test that runs as root.
    fs::write(dir.path().join("file"), "not a directory").unwrap();
    assert_refused(&serve(dir.path(), &dir.path().join("file/data")).await, &["file/data"]);
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("FORMAT"), [0xff, 0xfe, 0x00]).unwrap();
    assert_refused(&serve(dir.path(), &data).await, &["FORMAT"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_is_taken() {
    let hub = Tidemill::start("").await;
    let dir = tempfile::tempdir().unwrap();
    for flag in ["--mqtt", "--http"] {
        let taken = if flag == "--mqtt" { hub.mqtt() } else { hub.http() }.to_string();
        let other = if flag == "--mqtt" { "--http" } else { "--mqtt" };
        let ended =
            tidemill(dir.path(), &["serve", "--data-dir", "data", flag, &taken, other, "127.0.0.1:0"]).await;
        assert_refused(&ended, &[&taken]);
    }
}
