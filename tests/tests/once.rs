//! A payload is kept once, whatever the number of those who want it.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::RngCore;
use tidemill_tests::kafka_reader::TopicReader;
use tidemill_tests::mqtt::{Client, Connect, Publish};
use tidemill_tests::services::{HttpFunction, Kafka, Tidemill};
use tidemill_tests::{events, report};

const SESSIONS: usize = 1000;
/// Filters that all match the topic, so that there are several queues too.
const FILTERS: [&str; 4] = ["big/#", "big/+", "big/one", "+/one"];
/// Sessions that come back for it in the end.
const FETCHED: usize = 20;
const PAYLOAD_BYTES: usize = 1_000_000;
const LIMIT: Duration = Duration::from_secs(60);

fn rules(kafka: &Kafka, function: &HttpFunction) -> String {
    let (brokers, binary, structured) =
        (kafka.brokers(), function.url("/binary"), function.url("/structured"));
    format!(
        r#"
connections:
  lake: {{ kafka: {{ brokers: "{brokers}", properties: {{ message.max.bytes: 2000000 }} }} }}
  binary: {{ http: {{ url: "{binary}" }} }}
  structured: {{ http: {{ url: "{structured}" }} }}
rules:
  - name: to-kafka
    from: {{ mqtt: ["big/#"] }}
    event: {{ type: com.example.big, source: "/big" }}
    to: [ lake: {{ topic: big }} ]
  - name: to-binary
    from: {{ mqtt: ["big/+"] }}
    event: {{ type: com.example.big, source: "/big" }}
    to: [ binary: {{ mode: binary }} ]
  - name: to-structured
    from: {{ mqtt: ["big/one"] }}
    event: {{ type: com.example.big, source: "/big" }}
    to: [ structured: {{ mode: structured }} ]
"#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_payload_for_three_rules_and_a_thousand_sessions_is_stored_once() {
    let kafka = Kafka::start().await;
    kafka.create_topic("big", 1).await;
    let function = HttpFunction::start().await;
    let mut hub = Tidemill::start(&rules(&kafka, &function)).await;
    for session in 0..SESSIONS {
        let mut client = Client::connect(hub.mqtt(), &persistent(session)).await;
        client.subscribe(&[(FILTERS[session % FILTERS.len()], 1)]).await;
        client.disconnect().await;
    }

    // Random bytes, so that no compression can hide a copy; the marks are at its two ends and in between.
    let mut payload = vec![0; PAYLOAD_BYTES];
    rand::rng().fill_bytes(&mut payload);
    let marks =
        [0, PAYLOAD_BYTES / 3, PAYLOAD_BYTES - MARK_BYTES].map(|at| payload[at..at + MARK_BYTES].to_vec());
    let mut publisher = Client::connect(hub.mqtt(), &Connect::clean("publisher")).await;
    publisher.publish_acked(Publish::new("big/one", payload.clone(), 1, 1)).await;

    let record = TopicReader::open(&kafka, "big").await.next(LIMIT).await;
    assert!(record.value.as_deref() == Some(payload.as_slice()), "Kafka got another payload");
    let binary = function.until_accepted("/binary", 1, LIMIT).await;
    assert!(binary[0].body == payload, "the function got another payload");
    let structured = events::of_http(&function.until_accepted("/structured", 1, LIMIT).await[0]);
    let Some(cloudevents::Data::Binary(data)) = structured.data() else { panic!("no binary data") };
    assert!(*data == payload, "the function got another payload in structured mode");
    hub.until_delivered(LIMIT).await;

    let began = Instant::now();
    let (bytes, found) = search(&hub.data_dir(), &marks);
    let took = began.elapsed();
    report!(
        "once",
        "1 MB for 3 rules and {SESSIONS} sessions: marks found {:?} times while running",
        times(&found)
    );
    report!("once", "{} MiB of files searched in {took:.1?}", bytes >> 20);
    assert_once(&found);
    let status = hub.terminate().await;
    assert!(status.success(), "after SIGTERM: {status}");
    let (_, found) = search(&hub.data_dir(), &marks);
    report!("once", "marks found {:?} times after the stop", times(&found));
    assert_once(&found);

    hub.start_again().await;
    for session in (0..SESSIONS).step_by(SESSIONS / FETCHED) {
        let mut client = Client::connect(hub.mqtt(), &persistent(session)).await;
        assert!(client.session_present, "session {session} is gone");
        let arrived = client.message().await;
        assert_eq!(
            (arrived.topic.as_str(), arrived.qos, arrived.dup),
            ("big/one", 1, false),
            "session {session}"
        );
        assert!(arrived.payload == payload, "session {session} got another payload");
        client.disconnect().await;
    }
    let (_, found) = search(&hub.data_dir(), &marks);
    report!("once", "marks found {:?} times after {FETCHED} sessions have fetched it", times(&found));
    assert_once(&found);
}

fn persistent(session: usize) -> Connect {
    Connect::persistent(format!("offline-{session}"))
}

const MARK_BYTES: usize = 64;

/// The files in which each mark was found, once for each time.
type Found = Vec<Vec<PathBuf>>;

fn times(found: &Found) -> Vec<usize> {
    found.iter().map(Vec::len).collect()
}

fn assert_once(found: &Found) {
    assert!(found.iter().all(|files| files.len() == 1), "each mark was to be found once: {found:?}");
}

/// Searches all files under a folder: their bytes, and where each mark was found.
fn search(folder: &Path, marks: &[Vec<u8>]) -> (u64, Found) {
    let mut found: Found = vec![Vec::new(); marks.len()];
    let mut bytes = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // RocksDB deletes files at any time; what is gone holds no copy.
            let Ok(mut file) = fs::File::open(&path) else { continue };
            let mut text = Vec::new();
            file.read_to_end(&mut text).expect("a readable file");
            bytes += text.len() as u64;
            for (mark, files) in marks.iter().zip(&mut found) {
                files.extend(occurrences(&text, mark).map(|_| path.clone()));
            }
        }
    }
    (bytes, found)
}

/// Places of a mark in a text. Marks are random, so looking for their first bytes sifts nearly everything out.
fn occurrences<'a>(text: &'a [u8], mark: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let first = mark[0];
    text.iter()
        .enumerate()
        .filter(move |(_, byte)| **byte == first)
        .map(|(at, _)| at)
        .filter(|at| text[*at..].starts_with(mark))
}

#[test]
fn the_search_finds_every_copy() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir(dir.path().join("inner")).expect("a writable folder");
    fs::write(dir.path().join("one"), b"..mark..").expect("a writable folder");
    fs::write(dir.path().join("inner/two"), b"markmark").expect("a writable folder");
    let (bytes, found) = search(dir.path(), &[b"mark".to_vec(), b"none".to_vec()]);
    assert_eq!((bytes, times(&found)), (16, vec![3, 0]));
}
