//! Topics that the hub sends as numbers, to clients that allow it.

use std::collections::BTreeMap;

use tidemill_tests::mqtt::{Client, Connect, Packet, Publish};
use tidemill_tests::report;
use tidemill_tests::services::Tidemill;

const TOPICS: usize = 100;
const ROUNDS: usize = 30;

/// A session that stays, of a client that knows so many topics by number and takes packets up to a size.
async fn connect(hub: &Tidemill, name: &str, aliases: u16, packet_bytes_max: u32) -> Client {
    let properties = [&[0x22][..], &aliases.to_be_bytes(), &[0x27], &packet_bytes_max.to_be_bytes()].concat();
    let connect = Connect { expiry_s: 200, properties, ..Connect::persistent(name) };
    Client::connect(hub.mqtt(), &connect).await
}

/// The topics that numbers stand for on one connection.
#[derive(Default)]
struct Numbers(BTreeMap<u32, String>);

impl Numbers {
    /// The next message: its topic in full, its payload, and whether a number stood for the topic.
    async fn message(&mut self, client: &mut Client) -> (String, String, bool) {
        let (topic, id, properties, payload) = match client.packet().await {
            Packet::Publish { topic, id, properties, payload, .. } => (topic, id, properties, payload),
            other => panic!("a PUBLISH was expected, not {other:?}"),
        };
        if id > 0 {
            client.writer.puback(id).await.unwrap();
            client.writer.flush().await.unwrap();
        }
        let payload = String::from_utf8(payload.to_vec()).unwrap();
        let number = properties.number(0x23);
        if !topic.is_empty() {
            if let Some(number) = number {
                self.0.insert(number, topic.clone());
            }
            return (topic, payload, false);
        }
        let number = number.expect("a topic or a number for it");
        (self.0.get(&number).expect("a number that was given a topic here").clone(), payload, true)
    }
}

/// Bytes that a fan-in of 100 topics takes for a client that allows so many aliases.
async fn fan_in(hub: &Tidemill, aliases: u16) -> f64 {
    let mut client = connect(hub, &format!("fan-in-{aliases}"), aliases, u32::MAX).await;
    client.subscribe(&[("plants/+/telemetry", 0)]).await;
    let mut publisher = Client::connect(hub.mqtt(), &Connect::clean("fan-in-publisher")).await;
    let bytes = async || hub.metrics().await.sum("tidemill_mqtt_bytes_out_total", &[]).unwrap();
    let before = bytes().await;
    let topic = |number: usize| format!("plants/hall-{:02}/telemetry", number % TOPICS);
    for number in 0..TOPICS * ROUNDS {
        publisher.writer.publish(&Publish::new(topic(number), vec![b'x'; 64], 0, 0)).await.unwrap();
    }
    publisher.writer.flush().await.unwrap();
    let mut numbers = Numbers::default();
    for number in 0..TOPICS * ROUNDS {
        assert_eq!(numbers.message(&mut client).await.0, topic(number));
    }
    assert!(numbers.0.len() <= usize::from(aliases));
    client.disconnect().await;
    bytes().await - before
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fan_in_takes_fewer_bytes() {
    let hub = Tidemill::start("").await;
    let none = fan_in(&hub, 0).await;
    for aliases in [16, 64, 1000] {
        let bytes = fan_in(&hub, aliases).await;
        assert!(bytes < none, "{aliases} aliases: {bytes} bytes, and {none} without");
        report!(
            "topic_alias",
            "{TOPICS} topics in turn, {aliases} aliases allowed: {bytes} bytes, {none} without"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_end_with_their_connection() {
    let hub = Tidemill::start("").await;
    let mut publisher = Client::connect(hub.mqtt(), &Connect::clean("publisher")).await;
    publisher.publish_acked(Publish::new("aliases/retained", "kept", 1, 1).retained()).await;
    for round in 0..3 {
        let mut client = connect(&hub, "reconnecting", 8, u32::MAX).await;
        let mut numbers = Numbers::default();
        // Retained messages come again, in a connection that knows no numbers yet.
        client.subscribe(&[("aliases/+", 1)]).await;
        assert_eq!(numbers.message(&mut client).await, ("aliases/retained".into(), "kept".into(), false));
        for number in 0..3 {
            publisher.publish_acked(Publish::new("aliases/live", number.to_string(), 1, 1)).await;
            let (topic, payload, short) = numbers.message(&mut client).await;
            assert_eq!(
                (topic, payload, short),
                ("aliases/live".into(), number.to_string(), number > 0),
                "{round}"
            );
        }
        // One that is left unacknowledged comes again by its name.
        publisher.publish_acked(Publish::new("aliases/live", "unacknowledged", 1, 1)).await;
        assert!(matches!(client.packet().await, Packet::Publish { dup: false, .. }));
        client.disconnect().await;
        let mut client = connect(&hub, "reconnecting", 8, u32::MAX).await;
        let mut numbers = Numbers::default();
        let again = numbers.message(&mut client).await;
        assert_eq!(again, ("aliases/live".into(), "unacknowledged".into(), false));
        client.disconnect().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_size_that_counts_is_that_of_what_is_sent() {
    let hub = Tidemill::start("").await;
    let mut publisher = Client::connect(hub.mqtt(), &Connect::clean("publisher")).await;
    // Fixed header 2, topic 2 + 12, properties 1 or 1 + 3 with an alias, payload 47: 64 bytes in full, 55 by a number.
    let mut client = connect(&hub, "narrow", 8, 64).await;
    client.subscribe(&[("sizes/a-name", 0)]).await;
    let mut numbers = Numbers::default();
    let mut publish = async |bytes: usize| {
        publisher.publish_acked(Publish::new("sizes/a-name", vec![b'x'; bytes], 1, 1)).await;
    };
    publish(47).await;
    let (_, payload, short) = numbers.message(&mut client).await;
    assert_eq!((payload.len(), short, numbers.0.len()), (47, false, 0), "no room for the number");
    publish(48).await;
    client.nothing_comes().await;
    publish(44).await;
    assert_eq!((numbers.message(&mut client).await.1.len(), numbers.0.len()), (44, 1));
    // By its number, more fits.
    publish(56).await;
    let (_, payload, short) = numbers.message(&mut client).await;
    assert_eq!((payload.len(), short), (56, true));
    publish(57).await;
    client.nothing_comes().await;
}
