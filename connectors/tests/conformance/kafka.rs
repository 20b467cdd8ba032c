//! Kafka: librdkafka's mock cluster in this process, and a real one where `TIDEMILL_TEST_KAFKA` names it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tidemill_connectors::Follow;

use crate::bench::{Bench, Published};
use crate::checks;
use crate::subject::{Received, Subject};

const PARTITIONS: i32 = 3;
/// How long events may take from the confirm to the reader.
const READ_LIMIT: Duration = Duration::from_secs(10);

struct KafkaSubject {
    mock: Option<MockCluster<'static, DefaultProducerContext>>,
    brokers: String,
    topic: String,
    reader: BaseConsumer,
}

static TOPICS: AtomicUsize = AtomicUsize::new(0);

impl KafkaSubject {
    async fn mock() -> Self {
        let mock = MockCluster::new(1).unwrap();
        let brokers = mock.bootstrap_servers();
        mock.create_topic("events", PARTITIONS, 1).unwrap();
        Self::reading(Some(mock), brokers, "events".to_owned())
    }

    async fn real(brokers: &str) -> Self {
        let number = TOPICS.fetch_add(1, Ordering::Relaxed);
        let topic = format!("conformance-{}-{number}", std::process::id());
        let admin: rdkafka::admin::AdminClient<_> =
            ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
        let new =
            rdkafka::admin::NewTopic::new(&topic, PARTITIONS, rdkafka::admin::TopicReplication::Fixed(1));
        let made = admin.create_topics([&new], &rdkafka::admin::AdminOptions::new()).await.unwrap();
        assert!(made.iter().all(Result::is_ok), "{made:?}");
        Self::reading(None, brokers.to_owned(), topic)
    }

    fn reading(
        mock: Option<MockCluster<'static, DefaultProducerContext>>,
        brokers: String,
        topic: String,
    ) -> Self {
        let reader: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &brokers)
            // Only assigned partitions are read: the group is a name without members or commits.
            .set("group.id", "reader")
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        let mut partitions = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            partitions.add_partition_offset(&topic, partition, Offset::Beginning).unwrap();
        }
        reader.assign(&partitions).unwrap();
        Self { mock, brokers, topic, reader }
    }
}

fn read(message: &BorrowedMessage<'_>) -> Received {
    let headers: BTreeMap<_, _> = message
        .headers()
        .map(|headers| {
            headers.iter().map(|h| (h.key.to_owned(), String::from_utf8(h.value.unwrap().to_vec()).unwrap()))
        })
        .into_iter()
        .flatten()
        .collect();
    let data = message.payload().unwrap_or_default();
    if headers.get("content-type").is_some_and(|text| text.starts_with("application/cloudevents+json")) {
        return Received::structured(data);
    }
    let attribute = |(name, value): (&String, &String)| match name.strip_prefix("ce_") {
        Some(name) => (name.to_owned(), value.clone()),
        None => ("datacontenttype".to_owned(), value.clone()),
    };
    let attributes: BTreeMap<_, _> = headers.iter().map(attribute).collect();
    assert_eq!(
        message.key().map(<[u8]>::to_vec),
        attributes.get("subject").map(|key| key.clone().into_bytes())
    );
    Received { attributes, data: data.to_vec() }
}

#[async_trait(?Send)]
impl Subject for KafkaSubject {
    fn kind(&self) -> &'static str {
        "kafka"
    }

    fn connection(&self) -> String {
        format!("{{ brokers: {:?} }}", self.brokers)
    }

    fn nowhere(&self) -> String {
        "{ brokers: [\"127.0.0.1:1\"], security: { sasl: { mechanism: PLAIN, username: u, password: hunter2 } } }".to_owned()
    }

    fn targets(&self) -> Vec<String> {
        ["binary", "structured"]
            .map(|mode| format!("{{ topic: {}, key: \"{{{{ topic[1] }}}}\", mode: {mode} }}", self.topic))
            .to_vec()
    }

    fn missing(&self) -> Option<(String, String)> {
        // Both the mock cluster and a cluster as it comes make every topic they are asked for; the mock can be told.
        let mock = self.mock.as_ref()?;
        mock.topic_error("missing", RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART).unwrap();
        Some((self.connection(), "{ topic: missing, key: k }".to_owned()))
    }

    fn narrow(&self) -> Option<String> {
        Some(self.targets().swap_remove(0))
    }

    async fn received(&mut self, expected: usize) -> Vec<Received> {
        let started = Instant::now();
        let mut received = Vec::new();
        // A little longer than needed, so that events too many show.
        let mut enough: Option<Instant> = None;
        while enough.map_or(started.elapsed() < READ_LIMIT, |at| at.elapsed() < Duration::from_millis(300)) {
            match self.reader.poll(Duration::from_millis(50)) {
                Some(Ok(message)) => received.push(read(&message)),
                Some(Err(error)) => eprintln!("reader: {error}"),
                None => tokio::task::yield_now().await,
            }
            if received.len() >= expected {
                enough.get_or_insert_with(Instant::now);
            }
        }
        received
    }

    async fn take_away(&mut self) -> bool {
        let Some(mock) = &self.mock else { return false };
        mock.broker_down(1).unwrap();
        true
    }

    async fn bring_back(&mut self) {
        if let Some(mock) = &self.mock {
            mock.broker_up(1).unwrap();
        }
    }
}

#[tokio::test]
async fn conforms() {
    checks::all(KafkaSubject::mock).await;
}

#[tokio::test]
async fn conforms_with_a_real_cluster() {
    match std::env::var("TIDEMILL_TEST_KAFKA") {
        Ok(brokers) => checks::all(async || KafkaSubject::real(&brokers).await).await,
        Err(_) => eprintln!("skipped: TIDEMILL_TEST_KAFKA names no cluster"),
    }
}

/// What the broker answers to produce requests, and what becomes of ten events of one key.
async fn with_answers(errors: &[RDKafkaRespErr]) -> (Vec<Option<Follow>>, Vec<String>) {
    let mut subject = KafkaSubject::mock().await;
    let bench = Bench::new("kafka", &subject.connection(), &subject.targets()[0]);
    let mut sink = bench.sink();
    let published: Vec<_> = (0..10).map(|n| Published::json(format!("e-{n}"), "k")).collect();
    // The first event alone, so that the connection is there and the errors meet the batch.
    assert_eq!(sink.send(&bench.events(&published[..1])).await, [Ok(())]);
    subject.mock.as_ref().unwrap().request_errors(RDKafkaApiKey::Produce, errors);
    let outcomes = sink.send(&bench.events(&published[1..])).await;
    let follows = outcomes.iter().map(|outcome| outcome.as_ref().err().map(|error| error.follow)).collect();
    let confirmed = 1 + outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let received = subject.received(confirmed).await;
    (follows, received.iter().map(|received| received.id().to_owned()).collect())
}

#[tokio::test]
async fn a_passing_trouble_is_librdkafka_s_to_solve() {
    let not_enough = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS;
    let not_leader = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION;
    let (follows, ids) = with_answers(&[not_enough, not_leader, not_enough]).await;
    assert_eq!(follows, [None; 9]);
    let expected: Vec<_> = (0..10).map(|n| format!("e-{n}")).collect();
    assert_eq!(ids, expected);
}

#[tokio::test]
async fn a_request_refused_for_its_size_is_taken_apart() {
    // The whole batch is refused once, then each event goes through alone.
    let too_large = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    let (follows, ids) = with_answers(&[too_large]).await;
    assert_eq!(follows, [None; 9]);
    assert_eq!(ids.len(), 10);
    // Refused again when it is alone, the first event is the one.
    let (follows, ids) = with_answers(&[too_large, too_large]).await;
    assert_eq!(follows[0], Some(Follow::GiveUp));
    assert_eq!(follows[1..], [None; 8]);
    assert!(!ids.contains(&"e-1".to_owned()) && ids.len() == 9, "{ids:?}");
}

#[tokio::test]
async fn no_right_to_write_is_a_stop() {
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    let (follows, _) = with_answers(&[refused; 20]).await;
    assert_eq!(follows, [Some(Follow::Stop); 9]);
}

/// Two targets share the producer of a connection: when one retires it, the other loses nothing and keeps its order.
#[tokio::test]
async fn a_retired_producer_costs_its_other_targets_nothing() {
    let mut subject = KafkaSubject::mock().await;
    let bench = Bench::new("kafka", &subject.connection(), &subject.targets()[0]);
    let (mut one, mut two) = (bench.sink(), bench.sink());
    let published: Vec<_> = (0..20).map(|n| Published::json(format!("e-{n:02}"), "k")).collect();
    let events = bench.events(&published);
    assert!(one.send(&events[..5]).await.iter().all(Result::is_ok));
    subject.take_away().await;
    let (first, second) = tokio::join!(one.send(&events[5..10]), two.send(&events[10..15]));
    assert!(
        first
            .iter()
            .chain(&second)
            .all(|outcome| outcome.as_ref().is_err_and(|error| error.follow == Follow::Retry))
    );
    subject.bring_back().await;
    for batch in [&events[5..10], &events[10..15], &events[15..]] {
        while one.send(batch).await.iter().any(Result::is_err) {}
    }
    let received = subject.received(20).await;
    let mut ids: Vec<_> = received.iter().map(Received::id).collect();
    ids.dedup();
    let expected: Vec<_> = published.iter().map(|published| published.id.as_str()).collect();
    assert_eq!(ids, expected);
}
