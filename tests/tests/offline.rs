//! Sessions that are away: each is a document on the disk, and takes next to nothing in memory. They are there after a
//! restart, and get what is published for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidemill_tests::mqtt::{Client, Connect, Publish};
use tidemill_tests::report;
use tidemill_tests::services::Tidemill;
use tidemill_tests::wait::until;

const SESSIONS: u32 = 20_000;
/// Connections open at a time.
const AT_ONCE: u32 = 128;
/// Sessions that are there before memory is looked at first: what the hub allocates once is in it.
const FIRST: u32 = 5_000;
/// What a session may take in memory, the queue of its own filter and what RocksDB has not written out yet included.
const SESSION_BYTES_MAX: u64 = 256;
/// What RocksDB has read and keeps after a start, however many sessions there are.
const CACHE_BYTES_MAX: u64 = 24 << 20;
/// From the start of the process until it listens, with all sessions there.
const START_MAX: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(60);

fn filter(number: u32) -> String {
    format!("dev/{number:05}/cmd")
}

/// Makes the sessions with these numbers, each with a subscription of its own, and leaves them.
async fn make(hub: &Tidemill, numbers: std::ops::Range<u32>) {
    let address = hub.mqtt();
    let next = Arc::new(AtomicU32::new(numbers.start));
    let workers: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (next, end) = (Arc::clone(&next), numbers.end);
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= end {
                        break;
                    }
                    // Something is due for each of them, some day.
                    let connect =
                        Connect { expiry_s: 1_000_000, ..Connect::persistent(format!("dev-{number:05}")) };
                    let mut client = Client::connect(address, &connect).await;
                    client.subscribe(&[(&filter(number), 1)]).await;
                    client.disconnect().await;
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("a client that was served");
    }
    until("the connections are gone", LIMIT, async || (connections(hub).await == 0).then_some(())).await;
}

async fn connections(hub: &Tidemill) -> u64 {
    hub.metrics().await.sum("tidemill_mqtt_connections", &[]).unwrap_or_default() as u64
}

/// What the hub has allocated, once it has given back what it needed for a while.
async fn settled(hub: &Tidemill) -> u64 {
    let before = AtomicU64::new(u64::MAX);
    let settled = async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = hub.memory().anonymous_kib;
        (now.abs_diff(before.swap(now, Ordering::Relaxed)) <= 256).then_some(now)
    };
    until("memory to settle", LIMIT, settled).await * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_away_is_on_the_disk() {
    let mut hub = Tidemill::start("").await;
    let empty = settled(&hub).await;
    let began = Instant::now();
    make(&hub, 0..FIRST).await;
    let first = settled(&hub).await;
    make(&hub, FIRST..SESSIONS).await;
    let all = settled(&hub).await;
    let made = began.elapsed();
    let each = all.saturating_sub(first) / u64::from(SESSIONS - FIRST);
    report!(
        "offline",
        "{SESSIONS} sessions in {made:.1?}: {each} bytes in memory for each after the first {FIRST}"
    );
    assert!(
        each <= SESSION_BYTES_MAX,
        "an offline session takes {each} bytes of memory, over {SESSION_BYTES_MAX}"
    );

    assert!(hub.terminate().await.success());
    let began = Instant::now();
    hub.start_again().await;
    let started = began.elapsed();
    let grown = settled(&hub).await.saturating_sub(empty);
    report!(
        "offline",
        "started again in {started:.1?}: {} KiB in memory more than without sessions",
        grown >> 10
    );
    let most = u64::from(SESSIONS) * SESSION_BYTES_MAX + CACHE_BYTES_MAX;
    assert!(grown <= most, "after a restart, they take {grown} bytes of memory, over {most}");
    assert!(started <= START_MAX, "started in {started:?}, over {START_MAX:?}");

    // They are what they were.
    let mut publisher = Client::connect(hub.mqtt(), &Connect::clean("publisher")).await;
    for number in [0, SESSIONS - 1] {
        publisher.publish_acked(Publish::new(filter(number), number.to_string(), 1, 1)).await;
    }
    for number in [0, SESSIONS - 1] {
        let mut client = Client::connect(hub.mqtt(), &Connect::persistent(format!("dev-{number:05}"))).await;
        assert!(client.session_present, "session {number} is gone");
        assert_eq!(client.message().await.payload, number.to_string());
        client.nothing_comes().await;
        client.disconnect().await;
    }
}
