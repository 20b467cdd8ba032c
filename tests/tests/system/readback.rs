//! What leaves the hub is a CloudEvent in every binding and mode: read back with cloudevents-sdk, and by header names from
//! AMQP.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cloudevents::event::ExtensionValue;
use cloudevents::{AttributesReader, Data, Event};
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use tidemill_tests::kafka_reader::TopicReader;
use tidemill_tests::mqtt::{Client, Connect, Publish};
use tidemill_tests::services::{HttpFunction, Kafka, RabbitMq, Tidemill};
use tidemill_tests::{events, report, wait};

const LIMIT: Duration = Duration::from_secs(60);
/// Text that every binding has to get right: a space, a percent sign, a quote, and characters beyond ASCII.
const VEHICLE: &str = "Käfer 7% \"€\" 🚗";
const JSON: &str = r#"{"engine":{"temp_c":121.50},"note":"über"}"#;
const BINARY: &[u8] = b"\x00\xff\xfebinary\x80";
/// How often each message is published.
const ROUNDS: usize = 5;

fn rules(kafka: &Kafka, rabbitmq: &RabbitMq, function: &HttpFunction) -> String {
    format!(
        r#"
connections:
  lake: {{ kafka: {{ brokers: "{}" }} }}
  bus: {{ amqp: {{ url: "{}" }} }}
  binary: {{ http: {{ url: "{}" }} }}
  structured: {{ http: {{ url: "{}" }} }}
  batched: {{ http: {{ url: "{}" }} }}
rules:
  - name: everything
    from: {{ mqtt: ["vehicles/+/telemetry"] }}
    event:
      type: com.example.telemetry
      source: "/vehicles"
      subject: "{{{{ topic[1] }}}}"
      dataschema: "https://example.com/schemas/telemetry"
      extensions: {{ site: "Zürich 1" }}
    to:
      - lake: {{ topic: binary, key: "{{{{ topic[1] }}}}", mode: binary }}
      - lake: {{ topic: structured, key: "{{{{ topic[1] }}}}", mode: structured }}
      - bus: {{ exchange: "", routing_key: "events" }}
      - binary: {{ mode: binary }}
      - structured: {{ mode: structured }}
      - batched: {{ mode: batched }}
"#,
        kafka.brokers(),
        rabbitmq.uri(),
        function.url("/binary"),
        function.url("/structured"),
        function.url("/batched")
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_binding_and_mode_carries_the_same_valid_events() {
    let (kafka, rabbitmq, function) =
        tokio::join!(Kafka::shared(), RabbitMq::shared(), HttpFunction::start());
    kafka.create_topic("binary", 2).await;
    kafka.create_topic("structured", 2).await;
    let connection = rabbitmq.connect().await;
    let channel = connection.create_channel().await.unwrap();
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("events".into(), durable, FieldTable::default()).await.unwrap();
    let hub = Tidemill::start(&rules(&kafka, &rabbitmq, &function)).await;

    let published_ms = now_ms();
    let mut client = Client::connect(hub.mqtt(), &Connect::clean("device")).await;
    let topic = format!("vehicles/{VEHICLE}/telemetry");
    for _ in 0..ROUNDS {
        let json =
            Publish { content_type: Some("application/json".into()), ..Publish::new(&topic, JSON, 1, 1) };
        client.publish_acked(json).await;
        let binary = Publish { content_type: Some("image/png".into()), ..Publish::new(&topic, BINARY, 1, 1) };
        client.publish_acked(binary).await;
    }
    hub.until_delivered(LIMIT).await;

    let count = 2 * ROUNDS;
    let mut bindings: Vec<(&str, Vec<Event>)> = Vec::new();
    for topic in ["binary", "structured"] {
        let records = TopicReader::open(&kafka, topic).await.take(count, LIMIT).await;
        assert!(records.iter().all(|record| record.key.as_deref() == Some(VEHICLE.as_bytes())), "the keys");
        let structured = records.iter().all(|record| {
            record
                .header("content-type")
                .is_some_and(|media_type| media_type.starts_with("application/cloudevents+json"))
        });
        assert_eq!(structured, topic == "structured", "the mode of {topic}");
        bindings.push((topic, records.iter().map(events::of_kafka).collect()));
    }
    for path in ["/binary", "/structured"] {
        let requests = function.accepted(path);
        assert_eq!(requests.len(), count, "{path}");
        bindings.push((path, requests.iter().map(events::of_http).collect()));
    }
    let batches = function.accepted("/batched");
    bindings.push(("/batched", batches.iter().flat_map(events::of_http_batch).collect()));
    let mut consumer = channel
        .basic_consume("events".into(), "test".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await
        .unwrap();
    let mut from_amqp = Vec::new();
    while from_amqp.len() < count {
        let delivery =
            wait::within("a message from RabbitMQ", LIMIT, consumer.next()).await.unwrap().unwrap();
        check_amqp(&delivery);
        from_amqp.push(events::of_amqp(&delivery.properties, &delivery.data));
    }
    bindings.push(("amqp", from_amqp));

    let mut ids: Option<Vec<String>> = None;
    for (binding, events) in &bindings {
        assert_eq!(events.len(), count, "{binding}");
        for (at, event) in events.iter().enumerate() {
            check(binding, event, at % 2 == 1, published_ms);
        }
        // The same records have the same ids, wherever they go, and all of them differ.
        let here: Vec<String> = events.iter().map(|event| event.id().to_owned()).collect();
        let mut distinct = here.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), count, "{binding}: {here:?}");
        assert_eq!(*ids.get_or_insert_with(|| here.clone()), here, "{binding}");
    }
    let names: Vec<&str> = bindings.iter().map(|(name, _)| *name).collect();
    report!(
        "readback",
        "{count} events each through {names:?} ({} batches), all valid, all with the same ids",
        batches.len()
    );
}

/// What every event must say.
fn check(binding: &str, event: &Event, binary: bool, published_ms: i64) {
    assert_eq!(event.ty(), "com.example.telemetry", "{binding}");
    assert_eq!(event.source(), "/vehicles", "{binding}");
    assert_eq!(event.subject(), Some(VEHICLE), "{binding}");
    let media_type = if binary { "image/png" } else { "application/json" };
    assert_eq!(event.datacontenttype(), Some(media_type), "{binding}");
    let schema = event.dataschema().map(ToString::to_string);
    assert_eq!(schema.as_deref(), Some("https://example.com/schemas/telemetry"), "{binding}");
    assert_eq!(event.extension("site"), Some(&ExtensionValue::String("Zürich 1".into())), "{binding}");
    let time_ms = event.time().expect("a time").timestamp_millis();
    assert!(
        (published_ms..=now_ms()).contains(&time_ms),
        "{binding}: {time_ms} is not when it was published"
    );
    match event.data().expect("data") {
        Data::Binary(bytes) if binary => assert_eq!(bytes, BINARY, "{binding}"),
        // Untouched: not even the zero after 121.5 is lost.
        Data::Binary(bytes) => assert_eq!(std::str::from_utf8(bytes), Ok(JSON), "{binding}"),
        Data::Json(value) if !binary => {
            assert_eq!(*value, serde_json::from_str::<serde_json::Value>(JSON).unwrap(), "{binding}");
        }
        other => panic!("{binding}: data is {other:?}"),
    }
}

/// What an AMQP message must have beside what makes it an event.
fn check_amqp(delivery: &Delivery) {
    let headers = delivery.properties.headers().as_ref().expect("headers").inner();
    let text = |name: &str| match headers.get(name) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        other => panic!("header {name} is {other:?}"),
    };
    assert_eq!(text("cloudEvents:specversion"), "1.0");
    assert_eq!(text("cloudEvents:type"), "com.example.telemetry");
    assert_eq!(text("cloudEvents:source"), "/vehicles");
    assert_eq!(text("cloudEvents:subject"), VEHICLE);
    assert_eq!(text("cloudEvents:site"), "Zürich 1");
    assert!(!text("cloudEvents:id").is_empty());
    assert!(!headers.contains_key("cloudEvents:datacontenttype"), "it is the message's own content_type");
    assert_eq!(*delivery.properties.delivery_mode(), Some(2), "persistent");
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}
