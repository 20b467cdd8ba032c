//! Every example is good, and its sample message goes through it: to Kafka, RabbitMQ, an HTTP function and files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use serde::Deserialize;
use tidemill_tests::kafka_reader::TopicReader;
use tidemill_tests::mqtt::{Client, Connect, Publish};
use tidemill_tests::services::tidemill::tidemill;
use tidemill_tests::services::{HttpFunction, Kafka, RabbitMq, Tidemill};
use tidemill_tests::{events, report, wait};

const LIMIT: Duration = Duration::from_secs(60);

/// Where an example's sample has to arrive.
struct Example {
    name: &'static str,
    /// Kafka topics.
    topics: &'static [&'static str],
    /// Paths of the HTTP function, and whether a request holds a batch.
    paths: &'static [(&'static str, bool)],
    /// Routing keys at the exchange `amq.topic`.
    routing_keys: &'static [&'static str],
    /// Files of JSON lines.
    files: &'static [&'static str],
}

const EXAMPLES: [Example; 3] = [
    Example {
        name: "connected-vehicles",
        topics: &["vehicle-telemetry", "vehicle-overheat"],
        paths: &[("/alerts", false)],
        routing_keys: &[],
        files: &[],
    },
    Example {
        name: "factory",
        topics: &["rejects-ulm", "machine-records"],
        paths: &[("/mes/rejects", true)],
        routing_keys: &[],
        files: &["factory-audit.jsonl"],
    },
    Example {
        name: "smart-home",
        topics: &["home-readings"],
        paths: &[("/notify", false)],
        routing_keys: &["close.7.valve"],
        files: &[],
    },
];

/// `sample.json` of an example.
#[derive(Deserialize)]
struct Sample {
    topic: String,
    payload: serde_json::Value,
    rule: String,
    targets: Vec<String>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_example_is_known_here_and_good() {
    let mut found: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    found.sort();
    let mut known = EXAMPLES.map(|example| example.name).to_vec();
    known.push(super::charging_stations::NAME);
    known.sort_unstable();
    assert_eq!(found, known);
    for example in EXAMPLES {
        let dir = folder().join(example.name);
        // As a configuration with what it includes, and its rules by themselves, as its README says.
        let ended = tidemill(&dir, &["check", "tidemill.yaml", "rules.yaml"]).await;
        assert!(ended.status.success(), "{}: {}", example.name, ended.output());
        for file in ["README.md", "compose.yaml", "sample.json"] {
            assert!(dir.join(file).is_file(), "{} has no {file}", example.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sample_of_every_example_goes_through() {
    let (kafka, rabbitmq, function) =
        tokio::join!(Kafka::shared(), RabbitMq::shared(), HttpFunction::start());
    let connection = rabbitmq.connect().await;
    let channel = connection.create_channel().await.unwrap();
    for example in EXAMPLES {
        for topic in example.topics {
            kafka.create_topic(topic, 1).await;
        }
        let mut queues = Vec::new();
        for routing_key in example.routing_keys {
            queues.push(bound_queue(&channel, routing_key).await);
        }
        let dir = tempfile::tempdir().unwrap();
        copy(&folder().join(example.name), dir.path(), &|text| {
            text.replace("localhost:9092", &kafka.brokers())
                .replace("localhost:9000", &function.address().to_string())
                .replace("localhost:5672", &format!("127.0.0.1:{}", rabbitmq.port()))
                .replace(
                    "host: localhost, port: 5672",
                    &format!("host: 127.0.0.1, port: {}", rabbitmq.port()),
                )
        });
        let sample = fs::read_to_string(dir.path().join("sample.json")).unwrap();
        let sample: Sample = serde_json::from_str(&sample).unwrap();
        let hub = Tidemill::start_in(dir, vec!["--config".into(), "tidemill.yaml".into()]).await;
        let mut client = Client::connect(hub.mqtt(), &Connect::clean("device")).await;
        client.publish_acked(Publish::new(&sample.topic, sample.payload.to_string(), 1, 1)).await;
        hub.until_delivered(LIMIT).await;

        for target in &sample.targets {
            let target = hub.target(&sample.rule, target).await;
            assert_eq!((target.delivered, target.dead_letters), (1, 0), "{}: {target:?}", example.name);
        }
        let mut arrived = check_files(&hub, &example);
        for topic in example.topics {
            let record = TopicReader::open(&kafka, topic).await.next(LIMIT).await;
            assert!(!cloudevents::AttributesReader::id(&events::of_kafka(&record)).is_empty());
            arrived += 1;
        }
        for (path, batch) in example.paths {
            let request = &function.until_accepted(path, 1, LIMIT).await[0];
            let events = if *batch { events::of_http_batch(request) } else { vec![events::of_http(request)] };
            assert_eq!(events.len(), 1, "{}: {path}", example.name);
            arrived += 1;
        }
        for mut queue in queues {
            let delivery =
                wait::within("a message from RabbitMQ", LIMIT, queue.next()).await.unwrap().unwrap();
            let event = events::of_amqp(&delivery.properties, &delivery.data);
            assert!(!cloudevents::AttributesReader::id(&event).is_empty());
            arrived += 1;
        }
        report!("examples", "{}: its sample arrived at {arrived} places", example.name);
    }
}

/// A consumer of a queue of its own that gets what goes to this routing key.
async fn bound_queue(channel: &Channel, routing_key: &str) -> Consumer {
    let (options, none) = (QueueDeclareOptions::default(), FieldTable::default);
    let queue = routing_key;
    channel.queue_declare(queue.into(), options, none()).await.unwrap();
    let exchange = "amq.topic";
    channel
        .queue_bind(queue.into(), exchange.into(), routing_key.into(), QueueBindOptions::default(), none())
        .await
        .unwrap();
    channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), none()).await.unwrap()
}

/// Each file must hold one event as a line of JSON. How many there are.
fn check_files(hub: &Tidemill, example: &Example) -> usize {
    for file in example.files {
        let text = fs::read_to_string(hub.dir().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let lines: Vec<&str> = text.lines().collect();
        let [line] = lines.as_slice() else { panic!("{}: {file} is {text:?}", example.name) };
        let event: cloudevents::Event =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(!cloudevents::AttributesReader::id(&event).is_empty());
    }
    example.files.len()
}

/// Copies the files of an example, with the addresses of our servers in the place of the usual ones.
fn copy(from: &Path, to: &Path, replace: &dyn Fn(&str) -> String) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let text = fs::read_to_string(&path).unwrap();
            fs::write(to.join(path.file_name().unwrap()), replace(&text)).unwrap();
        }
    }
}
