//! Kafka is gone for half a minute: publishers do not notice, the hub's memory does not grow, and all arrives afterwards.

use std::pin::pin;
use std::time::{Duration, Instant};

use tidemill_tests::kafka_reader::TopicReader;
use tidemill_tests::ledger::{Arrivals, Message};
use tidemill_tests::load::{Load, Plan, Published};
use tidemill_tests::process::Memory;
use tidemill_tests::report::quantile;
use tidemill_tests::services::{Kafka, Tidemill};
use tidemill_tests::{report, wait};
use tokio::time::sleep;

/// 2,000 messages of 1 KiB a second: what piles up during the outage is about twice what memory may grow by.
const PLAN: Plan =
    Plan { publishers: 10, every: Duration::from_millis(25), burst: 5, window: 1000, payload_bytes: 1024 };
/// Caches and buffers fill up to their bounds.
const WARM_UP: Duration = Duration::from_secs(10);
/// What is compared with the outage.
const BEFORE: Duration = Duration::from_secs(5);
const OUTAGE: Duration = Duration::from_secs(30);
/// The load goes on while Kafka is back.
const AFTER: Duration = Duration::from_secs(5);
const GROWTH_KIB_MAX: u64 = 32 * 1024;
/// How much it may grow while the lag is worked off: that fills the caches of the log's tail and of both databases, 16 MiB each, and takes
/// what merging files of the index needs meanwhile.
const CACHES_KIB_MAX: u64 = 64 << 10;
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_down_is_lag_and_nothing_else() {
    let mut kafka = Kafka::start().await;
    kafka.create_topic("load", 4).await;
    let hub = Tidemill::start(&rules(&kafka)).await;
    let load = Load::start(hub.mqtt(), PLAN);

    sleep(WARM_UP).await;
    let before_from = load.began().elapsed();
    let before = observe(&hub, sleep(BEFORE)).await;
    let down_from = load.began().elapsed();
    kafka.kill();
    let during = observe(&hub, sleep(OUTAGE)).await;
    let target = hub.target("load", "lake").await;
    let down_until = load.began().elapsed();
    let back = Instant::now();
    kafka.start_again().await;
    let after = observe(&hub, sleep(AFTER)).await;
    let published = load.stop().await;
    let counts: Vec<u32> = published.iter().map(|one| one.sent.len() as u32).collect();
    let after = after.max(observe(&hub, hub.until_delivered(LIMIT)).await);
    let drained = back.elapsed();

    let growth = during.resident_kib.saturating_sub(before.resident_kib);
    let growth_after = after.anonymous_kib.saturating_sub(before.anonymous_kib);
    let mib = |kib: u64| kib as f64 / 1024.0;
    report!(
        "outage",
        "resident memory before {:.1} MiB, during at most {:.1} MiB: growth {:.1} MiB",
        mib(before.resident_kib),
        mib(during.resident_kib),
        mib(growth)
    );
    report!(
        "outage",
        "while catching up at most {:.1} MiB, pages of files included; growth of the hub's own {:.1} MiB",
        mib(after.resident_kib),
        mib(growth_after)
    );
    report!(
        "outage",
        "lag at the end of the outage {} messages, all delivered {drained:.1?} after it",
        target.lag
    );
    let calm = Pace::of(&published, before_from, down_from);
    let down = Pace::of(&published, down_from, down_until);
    report!("outage", "publishers before: {calm}");
    report!("outage", "publishers during: {down}");

    // Some 60,000; were it much less, the outage would not have been one.
    assert!(
        target.lag > (PLAN.rate() * OUTAGE.as_secs_f64() * 0.9) as u64,
        "the lag was only {}",
        target.lag
    );
    assert_eq!(target.state, "retrying", "the target's state during the outage");
    assert_eq!(target.dead_letters, 0, "an outage is no reason to give up");
    assert!(growth <= GROWTH_KIB_MAX, "resident memory grew by {growth} KiB");
    // Caches fill then, each up to its bound.
    assert!(
        growth_after <= CACHES_KIB_MAX,
        "the hub's own memory grew by {growth_after} KiB while catching up"
    );
    assert!(
        published.iter().all(|one| one.broken == 0 && one.refused == 0),
        "publishers were cut off or refused"
    );
    assert!(down.rate >= 0.98 * PLAN.rate(), "publishers reached {:.0}/s of {:.0}/s", down.rate, PLAN.rate());
    down.assert_as_quick_as(&calm);
    check_kafka(&kafka, &counts).await;
}

fn rules(kafka: &Kafka) -> String {
    format!(
        r#"
connections:
  lake: {{ kafka: {{ brokers: "{}" }} }}
rules:
  - name: load
    from: {{ mqtt: ["load/+"] }}
    event: {{ type: com.example.load, source: "/load/{{{{ topic[1] }}}}" }}
    to:
      - lake: {{ topic: load, key: "{{{{ topic[1] }}}}" }}
"#,
        kafka.brokers()
    )
}

/// The most memory the hub had while something lasted.
async fn observe(hub: &Tidemill, lasts: impl Future<Output = ()>) -> Memory {
    let mut lasts = pin!(lasts);
    let mut most = hub.memory();
    loop {
        tokio::select! {
            () = &mut lasts => return most,
            () = sleep(Duration::from_millis(100)) => most = most.max(hub.memory()),
        }
    }
}

/// How quickly publishers were served.
struct Pace {
    rate: f64,
    median_us: u32,
    p99_us: u32,
    max_us: u32,
}

impl Pace {
    /// In a span of time since the load began.
    fn of(published: &[Published], from: Duration, until: Duration) -> Pace {
        let acks = published.iter().flat_map(|one| &one.acks).filter(|ack| ack.at >= from && ack.at < until);
        let mut latencies: Vec<u32> = acks.map(|ack| ack.latency_us).collect();
        latencies.sort_unstable();
        Pace {
            rate: latencies.len() as f64 / (until - from).as_secs_f64(),
            median_us: quantile(&latencies, 500),
            p99_us: quantile(&latencies, 990),
            max_us: quantile(&latencies, 1000),
        }
    }

    /// Within what a machine that does other things as well makes of the same.
    fn assert_as_quick_as(&self, calm: &Pace) {
        assert!(self.median_us <= 2 * calm.median_us + 2_000, "median slowed: {self} was {calm}");
        assert!(self.p99_us <= 2 * calm.p99_us + 20_000, "99th percentile slowed: {self} was {calm}");
    }
}

impl std::fmt::Display for Pace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |us: u32| f64::from(us) / 1000.0;
        let (median, p99, max) = (ms(self.median_us), ms(self.p99_us), ms(self.max_us));
        write!(
            f,
            "{:.0} acknowledged/s after median {median:.2} ms, 99% {p99:.2} ms, max {max:.1} ms",
            self.rate
        )
    }
}

async fn check_kafka(kafka: &Kafka, published: &[u32]) {
    let reader = TopicReader::open(kafka, "load").await;
    let mut arrivals = Arrivals::default();
    for _ in 0..reader.size() {
        let record = reader.next(LIMIT).await;
        arrivals.note(Message::of(&record.value.expect("a payload")));
    }
    let verdict = arrivals.verdict(published);
    report!("outage", "Kafka: {verdict}");
    verdict.assert_good("Kafka");
    // The topic's end did not move meanwhile: nothing was still on its way.
    let read = verdict.distinct + verdict.repeated;
    wait::until_eq("the topic's size", LIMIT, read as i64, async || reader.size()).await;
}
