//! SIGKILL while somebody is owed something that is in no queue: a will, or retained messages.

use std::collections::BTreeSet;

use tidemill_tests::mqtt::{Client, Connect, Level, Packet, Publish};
use tidemill_tests::services::Tidemill;

/// More than fit into one page of retained messages.
const RETAINED: u16 = 80;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wills_are_published_after_the_hub_was_killed() {
    let mut hub = Tidemill::start("").await;
    let listener = Connect::persistent("listener");
    let mut client = Client::connect(hub.mqtt(), &listener).await;
    client.subscribe(&[("wills/#", 1)]).await;
    client.disconnect().await;
    let wills = [
        Connect::clean("clean-5").will("wills/clean-5", "gone", 0),
        Connect::clean("clean-311").level(Level::V311).will("wills/clean-311", "gone", 0),
        // The session ends before the delay does.
        Connect::clean("delayed").will("wills/delayed", "gone", 3600),
        Connect::persistent("persistent").will("wills/persistent", "gone", 0),
        Connect::persistent("waits").will("wills/waits", "too soon", 3600),
    ];
    let mut connected = Vec::new();
    for will in &wills {
        connected.push(Client::connect(hub.mqtt(), will).await);
    }
    let said_goodbye =
        Client::connect(hub.mqtt(), &Connect::clean("polite").will("wills/polite", "no", 0)).await;
    said_goodbye.disconnect().await;
    hub.kill();
    hub.start_again().await;

    let mut client = Client::connect(hub.mqtt(), &listener).await;
    let mut heard = BTreeSet::new();
    for _ in 0..4 {
        let message = client.message().await;
        assert_eq!(message.payload, "gone");
        assert!(heard.insert(message.topic.clone()), "{} twice", message.topic);
    }
    let wanted = ["clean-311", "clean-5", "delayed", "persistent"].map(|name| format!("wills/{name}"));
    assert!(heard.iter().eq(&wanted), "{heard:?}");
    client.nothing_comes().await;

    // A will may be published again if the hub is killed before that is written down. Whoever is let in, it was.
    for name in ["clean-5", "clean-311", "delayed"] {
        let back = Client::connect(hub.mqtt(), &Connect { clean: false, ..Connect::clean(name) }).await;
        assert!(!back.session_present, "the session of {name} was to end");
        back.disconnect().await;
    }
    let back = Client::connect(hub.mqtt(), &Connect::persistent("persistent")).await;
    assert!(back.session_present);
    back.disconnect().await;
    hub.kill();
    hub.start_again().await;
    let back = Client::connect(hub.mqtt(), &Connect::persistent("waits")).await;
    assert!(back.session_present, "who comes back before the delay is over has no will published");
    let (status, published) = hub.get("/api/v1/records?filter=wills/%23&from=earliest").await;
    assert_eq!((status, published.lines().count()), (200, wanted.len()), "{published}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retained_messages_on_their_way_come_after_the_hub_was_killed() {
    let mut hub = Tidemill::start("").await;
    let mut publisher = Client::connect(hub.mqtt(), &Connect::clean("publisher")).await;
    for number in 0..RETAINED {
        publisher
            .publish_acked(Publish::new(format!("state/{number}"), number.to_string(), 1, 1).retained())
            .await;
    }
    for number in 0..RETAINED {
        let publish = Publish::new(format!("twice/{number}"), number.to_string(), 2, 1).retained();
        publisher.publish(publish).await;
        assert_eq!(publisher.packet().await, Packet::PubRec { id: 1, reason: 0 });
        publisher.writer.acknowledge(6, 1).await.expect("an open connection");
        publisher.writer.flush().await.expect("an open connection");
        assert_eq!(publisher.packet().await, Packet::PubComp { id: 1, reason: 0 });
    }
    let session = Connect::persistent("late");
    let mut client = Client::connect(hub.mqtt(), &session).await;
    client.subscribe(&[("state/#", 1), ("twice/#", 2)]).await;
    // Some have come, and none was acknowledged.
    let mut unreleased = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut received = 0;
    for _ in 0..RETAINED {
        if let Packet::Publish { qos: 2, id, topic, .. } = client.packet().await {
            unreleased.insert(id);
            received += 1;
            seen.insert(topic);
        }
    }
    hub.kill();
    hub.start_again().await;

    let mut client = Client::connect(hub.mqtt(), &session).await;
    assert!(client.session_present);
    while seen.len() < 2 * usize::from(RETAINED) || !unreleased.is_empty() {
        match client.packet().await {
            Packet::Publish { qos: 1, id, topic, retain, .. } => {
                assert!(retain, "{topic}");
                seen.insert(topic);
                client.writer.puback(id).await.expect("an open connection");
            }
            Packet::Publish { id, topic, retain, .. } => {
                assert!(retain, "{topic}");
                if unreleased.insert(id) {
                    received += 1;
                    assert!(seen.insert(topic.clone()), "{topic} came twice");
                }
                client.writer.acknowledge(5, id).await.expect("an open connection");
            }
            Packet::PubRel { id, .. } => {
                unreleased.remove(&id);
                client.writer.acknowledge(7, id).await.expect("an open connection");
            }
            other => panic!("not expected: {other:?}"),
        }
        client.writer.flush().await.expect("an open connection");
    }
    assert_eq!(received, RETAINED, "with QoS 2 each once");
    client.nothing_comes().await;
}
