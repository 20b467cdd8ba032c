//! A disk that is full for a while: what was to be written then is written later, and nobody notices.

use tidemill_store::StoreError;
use tidemill_store::faults::fail_appends;

use super::*;

impl Hub {
    /// Waits until everything is written.
    async fn until_written(&self) {
        let wait = async {
            while self.broker.shared.unwritten.len() > 0 {
                tokio::time::sleep(STOP_POLL).await;
            }
        };
        timeout(LIMIT, wait).await.expect("sessions are not written");
    }

    /// What the store has of a session.
    async fn document(&self, client: &str) -> Result<Option<bytes::Bytes>, StoreError> {
        self.broker.shared.store.document(tidemill_store::Collection::Sessions, client).await
    }
}

async fn acknowledge(client: &mut Client, publish: &Publish) {
    client.send(&Packet::Puback(Ack::new(publish.id.unwrap(), ReasonCode::SUCCESS))).await;
}

/// The document cannot be written as the message is sent, as the connection ends and as it is put down.
#[tokio::test]
async fn a_group_s_message_that_could_not_be_written_is_not_stuck() {
    let hub = Hub::start().await;
    let mut member = Client::connect(&hub, lasting("member", 100)).await;
    member.subscribe("$share/g/work", Qos::ExactlyOnce, 1).await;
    let mut publisher = Client::connect(&hub, clean("publisher")).await;
    // Those of the publisher need none.
    let fault = fail_documents(hub.dir.path(), 3);
    let publish = Publish {
        dup: false,
        qos: Qos::ExactlyOnce,
        retain: false,
        topic: "work".into(),
        id: Some(9.try_into().unwrap()),
        properties: PublishProperties::default(),
        payload: "x".into(),
    };
    publisher.send(&Packet::Publish(publish)).await;
    member.closed().await;
    hub.until_offline("member").await;
    assert!(fault.has_struck());
    let (mut member, connack) = Client::open(&hub, lasting("member", 100)).await;
    assert!(connack.session_present);
    assert_eq!(member.message().await.topic, "work");
    hub.stop().await;
}

/// It waits in memory and is written when that succeeds; what its client does meanwhile, it does with it.
#[tokio::test]
async fn a_session_that_cannot_be_written_waits() {
    let hub = Hub::start().await;
    let mut client = Client::connect(&hub, lasting("c", 100)).await;
    client.subscribe("a", Qos::AtLeastOnce, 1).await;
    client.publish("a").await;
    let unanswered = client.message().await;
    let before = hub.document("c").await.unwrap();
    let fault = fail_documents(hub.dir.path(), 2);
    drop(client);
    hub.until_offline("c").await;
    // Refused: it could not be kept. The second of the writes.
    let (_, connack) = Client::open(&hub, lasting("c", 100)).await;
    assert_eq!((connack.reason, fault.has_struck()), (ReasonCode::UNSPECIFIED_ERROR, true));
    assert_eq!(hub.document("c").await.unwrap(), before, "it was written");
    let (mut client, connack) = Client::open(&hub, lasting("c", 100)).await;
    assert!(connack.session_present && hub.broker.shared.unwritten.len() == 0);
    let again = client.message().await;
    assert_eq!((again.dup, again.id), (true, unanswered.id));
    acknowledge(&mut client, &again).await;

    let fault = fail_documents(hub.dir.path(), 1);
    drop(client);
    hub.until_offline("c").await;
    assert!(fault.has_struck());
    assert_eq!((listed(&hub).await.len(), hub.broker.shared.due.unlisted_len()), (0, 1));
    hub.until_written().await;
    assert_ne!(hub.document("c").await.unwrap(), before);
    // Once it is listed, nothing is kept of it in memory.
    assert_eq!(listed(&hub).await, ["c"]);
    let gate = hub.broker.shared.registry.gate("c").await;
    assert_eq!(hub.broker.shared.due.unlisted_len(), 0);
    drop(gate);
    hub.stop().await;
}

#[tokio::test]
async fn a_session_that_cannot_be_read_holds_no_other_up() {
    let hub = Hub::start().await;
    drop(Client::connect(&hub, lasting("c", 100)).await);
    hub.until_offline("c").await;
    let shared = &hub.broker.shared;
    let broken: Vec<_> = (0..20).map(|number| ByteString::from(format!("broken-{number}"))).collect();
    for client in &broken {
        let document = bytes::Bytes::from_static(b"no session");
        shared.store.put_document(Collection::Sessions, client, document, Due::default()).await.unwrap();
        unwritten::put_since(shared, client, 1);
    }
    unwritten::put_since(shared, &"c".into(), 1);
    unwritten::write_all(shared, Instant::now()).await;
    assert_eq!(shared.unwritten.len(), broken.len());
    assert!(shared.unwritten.of("c").is_none(), "it was not tried");
    hub.stop().await;
}

#[tokio::test]
async fn a_session_that_cannot_be_deleted_ends_all_the_same() {
    let hub = Hub::start().await;
    let mut client = Client::connect(&hub, lasting("c", 100)).await;
    for filter in ["a", "$share/g/b"] {
        client.subscribe(filter, Qos::AtLeastOnce, 1).await;
    }
    drop(client);
    hub.until_offline("c").await;
    let fault = fail_documents(hub.dir.path(), 1);
    let _client = Client::connect(&hub, clean("c")).await;
    assert!(fault.has_struck());
    hub.until("all is given back", |stats| (stats.subscriptions, stats.persistent_sessions) == (0, 0)).await;
    hub.until_written().await;
    assert_eq!(hub.document("c").await.unwrap(), None);
    let cursors = hub.broker.shared.store.cursors("session/", None, 9).await.unwrap();
    assert!(cursors.is_empty(), "{cursors:?}");
    hub.stop().await;
}

/// One that begins before the old one could be deleted is not deleted for it.
#[tokio::test]
async fn a_new_session_takes_the_place_of_one_that_could_not_be_deleted() {
    let hub = Hub::start().await;
    let mut client = Client::connect(&hub, lasting("c", 100)).await;
    client.subscribe("a", Qos::AtLeastOnce, 1).await;
    let fault = fail_documents(hub.dir.path(), 1);
    let mut client = Client::connect(&hub, Connect { clean_start: true, ..lasting("c", 100) }).await;
    assert!(fault.has_struck() && hub.broker.shared.unwritten.len() == 0);
    client.subscribe("b", Qos::AtLeastOnce, 1).await;
    assert_eq!(hub.broker.shared.store.cursors("session/", None, 9).await.unwrap().len(), 1);
    drop(client);
    hub.until_offline("c").await;
    let (_, connack) = Client::open(&hub, lasting("c", 100)).await;
    assert!(connack.session_present);
    hub.stop().await;
}

#[tokio::test]
async fn a_will_comes_once_though_that_cannot_be_written() {
    let hub = Hub::start().await;
    let mut watcher = Client::connect(&hub, clean("watcher")).await;
    watcher.subscribe("#", Qos::AtLeastOnce, 1).await;
    drop(Client::connect(&hub, with_will(lasting("c", 100), 1)).await);
    hub.until_offline("c").await;
    let fault = fail_documents(hub.dir.path(), 2);
    let will = watcher.message().await;
    assert_eq!(will.topic, "will");
    acknowledge(&mut watcher, &will).await;
    while !fault.has_struck() {
        tokio::time::sleep(STOP_POLL).await;
    }
    hub.until_written().await;
    let _client = Client::connect(&hub, lasting("c", 100)).await;
    watcher.publish("next").await;
    assert_eq!(watcher.message().await.topic, "next");
    hub.stop().await;
}

#[tokio::test]
async fn wills_wait_until_the_disk_has_room() {
    let hub = Hub::start().await;
    let mut watcher = Client::connect(&hub, clean("watcher")).await;
    watcher.subscribe("will", Qos::AtLeastOnce, 1).await;
    // One that ends with its connection, one that outlives it, and one whose will is due later.
    let connects = [clean("ends"), lasting("lasts", 100), lasting("later", 100)];
    for (connect, delay_s) in connects.into_iter().zip([0, 0, 1]) {
        let client = connect.client_id.clone();
        let fault = fail_appends(hub.dir.path(), 1);
        let connection = Client::connect(&hub, with_will(connect, delay_s)).await;
        drop(connection);
        while !fault.has_struck() {
            tokio::time::sleep(STOP_POLL).await;
        }
        let will = watcher.message().await;
        assert_eq!(will.topic, "will", "{client}");
        acknowledge(&mut watcher, &will).await;
    }
    hub.stop().await;
}

/// The broker stops while they are being stored.
#[tokio::test]
async fn a_will_that_waits_is_stored_once() {
    let hub = Hub::start().await;
    let mut watcher = Client::connect(&hub, clean("watcher")).await;
    watcher.subscribe("#", Qos::AtMostOnce, 1).await;
    let fault = fail_appends(hub.dir.path(), 1);
    drop(Client::connect(&hub, with_will(clean("c"), 0)).await);
    hub.until("its session ends", |stats| stats.sessions == 1).await;
    assert!(fault.has_struck());
    let shared = &hub.broker.shared;
    let stored = tokio::join!(wills::store_waiting(shared), wills::store_waiting(shared));
    assert!(matches!(stored, (Ok(()), Ok(()))), "{stored:?}");
    watcher.publish("next").await;
    for topic in ["will", "next"] {
        assert_eq!(watcher.message().await.topic, topic);
    }
    hub.stop().await;
}

/// Its retained will says that it is gone, and what it says next that it is back.
#[tokio::test]
async fn a_will_that_waits_comes_before_what_its_client_says_next() {
    // There is room when it is back, or not yet.
    for failures in [1, 2] {
        let hub = Hub::start().await;
        let shared = &hub.broker.shared;
        let mut connect = with_will(clean("c"), 0);
        connect.will.as_mut().unwrap().retain = true;
        let client = Client::connect(&hub, connect).await;
        let fault = fail_appends(hub.dir.path(), failures);
        drop(client);
        hub.until("its session ends", |stats| stats.sessions == 0).await;
        let mut client = Client::connect(&hub, clean("c")).await;
        if failures > 1 {
            assert_eq!(client.try_retained("will").await, ReasonCode::QUOTA_EXCEEDED);
            while shared.wills.len() > 0 {
                tokio::time::sleep(STOP_POLL).await;
            }
        }
        assert!(fault.has_struck());
        client.publish_retained("will").await;
        assert_eq!(shared.wills.len(), 0);
        let retained = shared.store.retained("will", None, 9).await.unwrap();
        assert_eq!(retained[0].payload, "retained", "{failures} failures");
        hub.stop().await;
    }
}

/// What could not be written by then is, when the broker stops.
#[tokio::test]
async fn what_waits_is_written_as_the_broker_stops() {
    let hub = Hub::start().await;
    let client = Client::connect(&hub, lasting("c", 100)).await;
    let before = hub.document("c").await.unwrap();
    let fault = fail_documents(hub.dir.path(), 1);
    drop(client);
    hub.until_offline("c").await;
    assert!(fault.has_struck());
    assert_eq!(hub.document("c").await.unwrap(), before);
    hub.broker.stop(LIMIT).await;
    assert_ne!(hub.document("c").await.unwrap(), before);
    hub.broker.shared.store.close().await.unwrap();
}

/// As the broker does when it stops.
#[tokio::test]
async fn a_session_that_somebody_else_has_is_waited_for() {
    let hub = Hub::start().await;
    let shared = &hub.broker.shared;
    drop(Client::connect(&hub, lasting("c", 100)).await);
    hub.until_offline("c").await;
    let gate = shared.registry.gate("c").await;
    unwritten::put_since(shared, &"c".into(), 1);
    let left = async {
        unwritten::write_all(shared, Instant::now() + LIMIT).await;
        shared.unwritten.len()
    };
    let done = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(gate);
    };
    assert_eq!(tokio::join!(left, done).0, 0);
    hub.stop().await;
}
