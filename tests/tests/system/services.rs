//! The services themselves: they start, work, survive what the tests do to them, and stop.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use rdkafka::producer::{FutureProducer, FutureRecord};
use tidemill_tests::kafka_reader::TopicReader;
use tidemill_tests::services::{HttpFunction, Kafka, RabbitMq};
use tidemill_tests::{report, wait};

const LIMIT: Duration = Duration::from_secs(30);

async fn produce(kafka: &Kafka, key: &str) {
    let producer: FutureProducer = kafka.client().create().unwrap();
    let record = FutureRecord::to("things").key(key).payload("value");
    producer.send(record, LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_keeps_its_data_when_killed() {
    let began = std::time::Instant::now();
    let mut kafka = Kafka::start().await;
    let first_start = began.elapsed();
    kafka.create_topic("things", 3).await;
    produce(&kafka, "one").await;
    kafka.kill();
    let began = std::time::Instant::now();
    kafka.start_again().await;
    produce(&kafka, "two").await;
    let reader = TopicReader::open(&kafka, "things").await;
    let mut keys: Vec<_> = reader.take(2, LIMIT).await.into_iter().filter_map(|record| record.key).collect();
    keys.sort();
    assert_eq!(keys, [b"one", b"two"]);
    assert_eq!(reader.size(), 2);
    report!(
        "services",
        "Kafka started in {first_start:.1?}, after a kill and until it took a record {:.1?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_keeps_durable_queues_when_stopped() {
    let began = std::time::Instant::now();
    let mut rabbitmq = RabbitMq::start().await;
    let first_start = began.elapsed();
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let connection = rabbitmq.connect().await;
    let channel = connection.create_channel().await.unwrap();
    channel.queue_declare("things".into(), durable, FieldTable::default()).await.unwrap();
    drop((channel, connection));
    rabbitmq.stop().await;
    rabbitmq.start_again().await;
    let connection = rabbitmq.connect().await;
    let channel = connection.create_channel().await.unwrap();
    let options = BasicPublishOptions::default();
    channel
        .basic_publish("".into(), "things".into(), options, b"value", lapin::BasicProperties::default())
        .await
        .unwrap();
    let mut consumer = channel
        .basic_consume("things".into(), "test".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await
        .unwrap();
    let delivery = wait::within("a message from RabbitMQ", LIMIT, consumer.next()).await.unwrap().unwrap();
    assert_eq!(delivery.data, b"value");
    report!("services", "RabbitMQ started in {first_start:.1?}");
}

#[tokio::test]
async fn http_function_records_and_fails_when_told() {
    let function = HttpFunction::start().await;
    function.answer("/hook", |request| if request.body == "bad" { 400 } else { 204 }.try_into().unwrap());
    let client = reqwest::Client::new();
    for (body, status) in [("good", 204), ("bad", 400)] {
        let answer = client.post(function.url("/hook")).body(body).send().await.unwrap();
        assert_eq!(answer.status(), status);
    }
    assert_eq!(function.received("/hook").len(), 2);
    assert_eq!(function.until_accepted("/hook", 1, LIMIT).await[0].body, "good");
}
