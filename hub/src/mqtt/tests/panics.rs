//! Connections that fail with a panic: only they end, and what their end owes to others is done.

use futures_util::future::join_all;
use tidemill_store::StoreError;
use tidemill_store::faults::{Call, panic_in, panic_in_document};

use super::*;

/// Publishes with QoS 2, and waits for the PUBREC.
async fn publish_exactly_once(client: &mut Client, topic: &str, dup: bool) {
    let publish = Publish {
        dup,
        qos: Qos::ExactlyOnce,
        retain: false,
        topic: topic.into(),
        id: Some(9.try_into().unwrap()),
        properties: PublishProperties::default(),
        payload: "once".into(),
    };
    client.send(&Packet::Publish(publish)).await;
    match client.next().await {
        Some(Packet::Pubrec(ack)) => assert_eq!(ack.id.get(), 9),
        other => panic!("no PUBREC: {other:?}"),
    }
}

/// Wherever its end fails: what it had stored is not stored again, what was sent to it is for the other members of its
/// group, and it may come back.
#[tokio::test]
async fn a_session_outlives_a_connection_that_fails_as_it_ends() {
    for call in [Call::Unwatch, Call::PutDocument] {
        let hub = Hub::start().await;
        let mut watcher = Client::connect(&hub, clean("watcher")).await;
        watcher.subscribe("once", Qos::AtMostOnce, 1).await;
        let mut failing = Client::connect(&hub, lasting("failing", 100)).await;
        failing.subscribe("$share/g/work", Qos::AtLeastOnce, 1).await;
        publish_exactly_once(&mut failing, "once", false).await;
        assert_eq!(watcher.message().await.topic, "once");
        // In flight, and not to be acknowledged.
        watcher.publish("work").await;
        assert_eq!(failing.message().await.topic, "work");

        let fault = panic_in(hub.dir.path(), call, 1);
        drop(failing);
        hub.until_offline("failing").await;
        assert!(fault.has_struck(), "{call:?}");
        let mut other = Client::connect(&hub, lasting("other", 100)).await;
        other.subscribe("$share/g/work", Qos::AtLeastOnce, 1).await;
        assert_eq!(other.message().await.topic, "work", "{call:?}: the member that is gone has it");
        for number in 0..10 {
            other.publish("work").await;
            assert_eq!(other.message().await.topic, "work", "{call:?}: message {number}");
        }

        let (mut failing, connack) = Client::open(&hub, lasting("failing", 100)).await;
        assert!(connack.session_present, "{call:?}");
        publish_exactly_once(&mut failing, "once", true).await;
        // What comes next is not it.
        failing.send(&Packet::Pubrel(Ack::new(9.try_into().unwrap(), ReasonCode::SUCCESS))).await;
        other.publish("once").await;
        assert_eq!(watcher.message().await.payload, "x", "{call:?}: it is stored twice");
        hub.stop().await;
    }
}

#[tokio::test]
async fn a_session_ends_with_a_connection_that_fails_as_it_ends() {
    for (call, left) in [(Call::Unwatch, 0), (Call::Release, 1)] {
        let hub = Hub::start().await;
        let mut client = Client::connect(&hub, with_will(clean("c"), 0)).await;
        for filter in ["a", "b", "$share/g/c"] {
            assert_eq!(client.subscribe(filter, Qos::AtLeastOnce, 1).await, ReasonCode(1));
        }
        let mut watcher = Client::connect(&hub, clean("watcher")).await;
        watcher.subscribe("will", Qos::AtLeastOnce, 1).await;
        let fault = panic_in(hub.dir.path(), call, 1);
        drop(client);
        assert_eq!(watcher.message().await.topic, "will");
        hub.until("its session ends", |stats| (stats.sessions, stats.subscriptions) == (1, 1)).await;
        assert!(fault.has_struck(), "{call:?}");
        let store = &hub.broker.shared.store;
        let unwanted = async || store.queues(None, 9).await.unwrap().len() - 1;
        // Durable ones go some time later.
        let live =
            async || store.queues(None, 9).await.unwrap().iter().filter(|queue| queue.live).count() - 1;
        assert_eq!((live().await, unwanted().await), (left, left + 1), "{call:?}");
        hub.stop().await;
    }
}

#[tokio::test]
async fn a_connection_that_fails_as_it_begins_ends_alone() {
    let hub = Hub::start().await;
    let mut other = Client::connect(&hub, lasting("other", 100)).await;
    let mut first = Client::connect(&hub, lasting("c", 100)).await;
    first.subscribe("a", Qos::AtLeastOnce, 1).await;
    // Another connection takes its session, and fails before it has it.
    let fault = panic_in(hub.dir.path(), Call::PutDocument, 1);
    let mut stream = TcpStream::connect(hub.broker.addresses()[0]).await.unwrap();
    let mut bytes = BytesMut::new();
    Packet::Connect(Box::new(lasting("c", 100))).encode(Version::V5, &mut bytes).unwrap();
    stream.write_all(&bytes).await.unwrap();
    assert_eq!(timeout(LIMIT, stream.read(&mut [0])).await.unwrap().unwrap_or(0), 0, "it is answered");
    first.closed().await;
    assert!(fault.has_struck());
    hub.until("their places are free", |stats| stats.connections == 1).await;
    hub.until_offline("c").await;
    other.publish("a").await;
    let (mut client, connack) = Client::open(&hub, lasting("c", 100)).await;
    assert!(connack.session_present);
    assert_eq!(client.message().await.topic, "a");
    hub.stop().await;
}

/// Of those that wait to be written again.
#[tokio::test]
async fn a_session_that_fails_as_it_is_written_again_holds_no_other_up() {
    let hub = Hub::start().await;
    let shared = &hub.broker.shared;
    for client in ["first", "second"] {
        drop(Client::connect(&hub, lasting(client, 100)).await);
        hub.until_offline(client).await;
        unwritten::put_since(shared, &client.into(), 1);
    }
    let fault = panic_in(hub.dir.path(), Call::PutDocument, 1);
    unwritten::write_all(shared, Instant::now()).await;
    assert!(fault.has_struck() && shared.unwritten.len() <= 1);
    unwritten::write_all(shared, Instant::now()).await;
    assert_eq!(shared.unwritten.len(), 0);
    hub.stop().await;
}

/// Those that wait are written together; nobody takes it for the end of the store.
#[tokio::test]
async fn whose_document_was_among_those_that_failed_is_told_so() {
    let hub = Hub::start().await;
    let store = &hub.broker.shared.store;
    let fault = panic_in_document(hub.dir.path());
    let keys: Vec<_> = (0..200).map(|number| format!("test/{number}")).collect();
    let put = |key| store.put_document(Collection::Broker, key, Default::default(), Due::default());
    let failed: Vec<_> =
        join_all(keys.iter().map(|key| put(key))).await.into_iter().filter_map(Result::err).collect();
    assert!(fault.has_struck());
    assert!(failed.iter().all(|error| matches!(error, StoreError::Panicked)), "{failed:?}");
    hub.stop().await;
}

#[tokio::test]
async fn a_will_that_fails_holds_no_other_up() {
    let hub = Hub::start().await;
    let mut watcher = Client::connect(&hub, clean("watcher")).await;
    watcher.subscribe("will", Qos::AtLeastOnce, 1).await;
    let fault = panic_in(hub.dir.path(), Call::Submit, 1);
    for (client, delay_s) in [("first", 1), ("second", 2)] {
        drop(Client::connect(&hub, with_will(lasting(client, 3), delay_s)).await);
        hub.until_offline(client).await;
    }
    assert_eq!(watcher.message().await.topic, "will");
    assert!(fault.has_struck());
    hub.until("both expire", |stats| stats.persistent_sessions == 0).await;
    hub.stop().await;
}
