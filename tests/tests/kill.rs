//! SIGKILL at random moments, under load: whatever was acknowledged reaches every session and Kafka, in order.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tidemill_tests::environment::seed;
use tidemill_tests::kafka_reader::TopicReader;
use tidemill_tests::kills::Kills;
use tidemill_tests::ledger::{Arrivals, Message, topic};
use tidemill_tests::load::{Load, Plan};
use tidemill_tests::mqtt::{Client, Connect, Packet, Publish};
use tidemill_tests::services::{Kafka, Tidemill};
use tidemill_tests::{events, report, wait};

const KILLS: Kills = Kills {
    count: 10,
    working_max: Duration::from_secs(1),
    starting: 0.3,
    starting_max: Duration::from_millis(200),
};
const SESSIONS: usize = 20;
const PLAN: Plan = Plan {
    publishers: 20,
    // 8,000 a second, spread evenly, so that the hub always has some in its hands.
    every: Duration::from_millis(5),
    burst: 2,
    window: 200,
    payload_bytes: 200,
};
/// The last message of all: the first and only one of a publisher that is not one of the plan's.
const LAST: Message = Message { publisher: PLAN.publishers, number: 0 };
const LIMIT: Duration = Duration::from_secs(60);

fn rules(kafka: &Kafka) -> String {
    format!(
        r#"
connections:
  lake: {{ kafka: {{ brokers: "{}" }} }}
rules:
  - name: load
    from: {{ mqtt: ["load/+"] }}
    event: {{ type: com.example.load, source: "/load/{{{{ topic[1] }}}}" }}
    where: {{ data: {{ n: [ {{ numeric: [">=", 0] }} ] }} }}
    to:
      - lake: {{ topic: load, key: "{{{{ topic[1] }}}}" }}
"#,
        kafka.brokers()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost() {
    let seed = seed("kill");
    let kafka = Kafka::start().await;
    kafka.create_topic("load", 4).await;
    let mut hub = Tidemill::start(&rules(&kafka)).await;
    for session in 0..SESSIONS {
        let mut client = Client::connect(hub.mqtt(), &persistent(session)).await;
        client.subscribe(&[("load/#", 1)]).await;
        client.disconnect().await;
    }

    let load = Load::start(hub.mqtt(), PLAN);
    let killed = KILLS.run(&mut hub, seed, async || some_acknowledged(&load, 500).await).await;
    some_acknowledged(&load, 1000).await;
    let published = load.stop().await;
    let mut client = Client::connect(hub.mqtt(), &Connect::clean("last")).await;
    client.publish_acked(Publish::new(topic(LAST.publisher), LAST.payload(100), 1, 1)).await;

    let mut counts: Vec<u32> = published.iter().map(|one| one.sent.len() as u32).collect();
    counts.push(1);
    let sum = |count: fn(&tidemill_tests::load::Published) -> u32| published.iter().map(count).sum::<u32>();
    let again: u64 = published.iter().flat_map(|one| &one.sent).map(|sent| u64::from(*sent) - 1).sum();
    report!(
        "kill",
        "{} kills under load and {} while starting; slowest start {:.1?}; \
         {} publishers were cut off {} times and sent {again} messages again",
        KILLS.count,
        killed.starting,
        killed.start_max,
        PLAN.publishers,
        sum(|one| one.broken)
    );
    assert!(again > 0, "no kill hit a message in flight: the test showed nothing");
    assert_eq!(sum(|one| one.refused), 0, "messages refused");
    assert_eq!(sum(|one| one.misordered_acks), 0, "acknowledgements out of order");

    let stored = check_kafka(&kafka, &hub, &counts).await;
    for (publisher, published) in published.iter().enumerate() {
        for (number, &sent) in published.sent.iter().enumerate() {
            let message = Message { publisher: publisher as u32, number: number as u32 };
            let ids = stored.count(message);
            assert!(ids <= sent, "{message:?} was sent {sent} times and has {ids} ids in Kafka");
        }
    }
    check_sessions(hub.mqtt(), &counts, &stored).await;
}

fn persistent(session: usize) -> Connect {
    Connect::persistent(format!("session-{session}"))
}

/// Waits until `count` more messages were acknowledged.
async fn some_acknowledged(load: &Load, count: u64) {
    let wanted = load.acknowledged() + count;
    wait::until("acknowledgements", LIMIT, async || (load.acknowledged() >= wanted).then_some(())).await;
}

/// Reads the topic to its end and checks it. Gives what the log holds: one arrival for each distinct event id.
async fn check_kafka(kafka: &Kafka, hub: &Tidemill, published: &[u32]) -> Arrivals {
    hub.until_delivered(LIMIT).await;
    let reader = TopicReader::open(kafka, "load").await;
    let (mut arrivals, mut stored) = (Arrivals::default(), Arrivals::default());
    let mut payloads: HashMap<String, Vec<u8>> = HashMap::new();
    let mut partitions: HashMap<u32, i32> = HashMap::new();
    let records = reader.size();
    for _ in 0..records {
        let record = reader.next(LIMIT).await;
        let event = events::of_kafka(&record);
        let payload = record.value.expect("a payload");
        let message = Message::of(&payload);
        assert_eq!(
            record.key.as_deref(),
            Some(message.publisher.to_string().as_bytes()),
            "the key of {message:?}"
        );
        let partition = *partitions.entry(message.publisher).or_insert(record.partition);
        assert_eq!(partition, record.partition, "{message:?} is not where its publisher's others are");
        arrivals.note(message);
        let id = cloudevents::AttributesReader::id(&event);
        match payloads.get(id) {
            Some(before) => assert_eq!(*before, payload, "id {id} came with two payloads"),
            None => {
                stored.note(message);
                payloads.insert(id.to_owned(), payload);
            }
        }
    }
    let verdict = arrivals.verdict(published);
    let again = records as usize - payloads.len();
    report!(
        "kill",
        "Kafka: {verdict}; {records} records of {} event ids, {again} delivered again",
        payloads.len()
    );
    verdict.assert_good("Kafka");
    stored
}

/// Drains all sessions at once and checks them.
async fn check_sessions(hub: SocketAddr, published: &[u32], stored: &Arrivals) {
    let began = Instant::now();
    let drains: Vec<_> = (0..SESSIONS).map(|session| tokio::spawn(drain(hub, session))).collect();
    let mut total = 0;
    for (session, drain) in drains.into_iter().enumerate() {
        let arrivals = drain.await.expect("a session that gets everything");
        let verdict = arrivals.verdict(published);
        total += verdict.distinct + verdict.repeated;
        if session == 0 {
            report!("kill", "each of {SESSIONS} sessions: {verdict}");
        }
        verdict.assert_good(&format!("session {session}"));
        // All read one log: what a session got twice must have been stored twice, under two ids.
        let difference = stored.first_difference(&arrivals);
        assert_eq!(difference, None, "(message, ids in Kafka, arrivals at session {session})");
    }
    let rate = total as f64 / began.elapsed().as_secs_f64();
    report!("kill", "{SESSIONS} sessions drained {total} messages at {rate:.0}/s");
}

/// Reads a session up to the last message.
async fn drain(hub: SocketAddr, session: usize) -> Arrivals {
    let mut client = Client::connect(hub, &persistent(session)).await;
    assert!(client.session_present, "session {session} is gone");
    let mut arrivals = Arrivals::default();
    while arrivals.count(LAST) == 0 {
        let mut packet = Some(client.packet().await);
        while let Some(Packet::Publish { dup, qos, id, payload, .. }) = packet {
            assert_eq!((dup, qos), (false, 1), "a first delivery with QoS 1");
            arrivals.note(Message::of(&payload));
            client.writer.puback(id).await.expect("an open connection");
            packet = client.reader.buffered().expect("a good packet");
        }
        assert_eq!(packet, None, "only PUBLISH is expected");
        client.writer.flush().await.expect("an open connection");
    }
    client.nothing_comes().await;
    client.disconnect().await;
    arrivals
}
