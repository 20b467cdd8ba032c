//! What stays when a connection ends, and what follows from its end.

use super::support::*;

#[tokio::test]
async fn a_persistent_session_misses_nothing_and_resends_with_dup() {
    let mut hub = Hub::start().await;
    for version in BOTH {
        let name = format!("{version:?}");
        let (mut subscriber, connack) = hub.connect_with(keep(version, &name)).await;
        assert!(!connack.session_present);
        subscriber.subscribe("keep/#", Qos::AtLeastOnce).await;
        let mut publisher = hub.connect(Version::V5, "p").await;
        publisher.publish_numbers("keep/a", 0..3).await;
        // Two are received, one of them acknowledged; then the client is gone without a word.
        let first = subscriber.recv_publish().await;
        let second = subscriber.recv_publish().await;
        let third = subscriber.recv_publish().await;
        assert_eq!([text(&first), text(&second), text(&third)], ["0", "1", "2"]);
        subscriber.send(&Packet::Puback(ok(second.id.unwrap()))).await;
        subscriber.ping().await;
        drop(subscriber);
        hub.connections(1).await;
        publisher.publish_numbers("keep/b", 3..6).await;
        publisher.disconnect().await;

        // The same after a restart of the broker, which forgets nothing either.
        if version == Version::V5 {
            hub = hub.restart().await;
        }
        let (mut subscriber, connack) = hub.connect_with(keep(version, &name)).await;
        assert!(connack.session_present);
        let again = subscriber.take().await;
        assert_eq!((text(&again), again.dup, again.id), ("0", true, first.id));
        let again = subscriber.take().await;
        assert_eq!((text(&again), again.dup, again.id), ("2", true, third.id), "1 was acknowledged");
        for number in 3..6 {
            let new = subscriber.take().await;
            assert_eq!((text(&new), new.dup), (&*number.to_string(), false));
        }
        subscriber.expect_quiet().await;
        // A clean start ends it.
        drop(subscriber);
        let (subscriber, connack) = hub.connect_with(connect(version, &name)).await;
        assert!(!connack.session_present);
        subscriber.disconnect().await;
        let (subscriber, connack) = hub.connect_with(keep(version, &name)).await;
        assert!(!connack.session_present);
        subscriber.disconnect().await;
    }
    hub.stop().await;
}

#[tokio::test]
async fn a_session_is_there_after_the_death_of_the_broker() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let hub = Hub {
        broker: Broker::start(options(), everybody(), store.clone()).await.unwrap(),
        store,
        options: options(),
        dir,
    };
    let (mut subscriber, _) = hub.connect_with(keep(Version::V311, "s")).await;
    subscriber.subscribe("a", Qos::AtLeastOnce).await;
    let mut publisher = hub.connect(Version::V5, "p").await;
    publisher.publish_numbers("a", 0..4).await;
    assert_eq!(text(&subscriber.take().await), "0");
    // Nothing is told to anybody: threads end, the store is dropped as it is.
    let Hub { broker, store, dir, .. } = hub;
    drop(broker);
    while subscriber.next().await.is_some() {}
    drop(subscriber);
    drop(store);
    // The last handle may still be on its way out on another thread of this process.
    let opening = async {
        loop {
            let options = tidemill_store::Options::new(dir.path());
            match tokio::task::spawn_blocking(move || Store::open(options)).await.unwrap() {
                Ok(store) => break store,
                Err(error) => {
                    eprintln!("not yet: {error}");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
    };
    let store = timeout(PATIENCE, opening).await.unwrap();
    let hub = Hub {
        broker: Broker::start(options(), everybody(), store.clone()).await.unwrap(),
        store,
        options: options(),
        dir,
    };
    let (mut subscriber, connack) = hub.connect_with(keep(Version::V311, "s")).await;
    assert!(connack.session_present);
    let mut got = Vec::new();
    while got.last().map(String::as_str) != Some("3") {
        got.push(text(&subscriber.take().await).to_owned());
    }
    assert!(got == ["1", "2", "3"] || got == ["0", "1", "2", "3"], "{got:?}");
    hub.stop().await;
}

#[tokio::test]
async fn qos_2_is_stored_once_however_often_it_is_sent() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut subscriber = hub.connect(Version::V5, "s").await;
        subscriber.subscribe("once", Qos::AtMostOnce).await;
        let (mut publisher, _) = hub.connect_with(keep(version, "p2")).await;
        let first = message("once", "x", Qos::ExactlyOnce, 3);
        publisher.send(&Packet::Publish(first.clone())).await;
        assert_eq!(publisher.recv().await, Packet::Pubrec(ok(id(3))));
        publisher.send(&Packet::Publish(Publish { dup: true, ..first.clone() })).await;
        assert_eq!(publisher.recv().await, Packet::Pubrec(ok(id(3))));
        drop(publisher);
        hub.connections(1).await;
        let (mut publisher, _) = hub.connect_with(keep(version, "p2")).await;
        publisher.send(&Packet::Publish(Publish { dup: true, ..first.clone() })).await;
        assert_eq!(publisher.recv().await, Packet::Pubrec(ok(id(3))));
        publisher.send(&Packet::Pubrel(ok(id(3)))).await;
        assert_eq!(publisher.recv().await, Packet::Pubcomp(ok(id(3))));
        // Released twice: 5.0 can say that there is nothing to release.
        publisher.send(&Packet::Pubrel(ok(id(3)))).await;
        let Packet::Pubcomp(ack) = publisher.recv().await else { panic!("no PUBCOMP") };
        let unknown = ReasonCode::PACKET_IDENTIFIER_NOT_FOUND;
        assert_eq!(ack.reason, if version == Version::V5 { unknown } else { ReasonCode::SUCCESS });
        publisher.publish(message("once", "y", Qos::ExactlyOnce, 3)).await;
        assert_eq!(text(&subscriber.take().await), "x");
        assert_eq!(text(&subscriber.take().await), "y");
        publisher.disconnect().await;
        subscriber.disconnect().await;
    }
    hub.stop().await;
}

#[tokio::test]
async fn qos_2_to_a_client_goes_on_where_it_stopped() {
    let hub = Hub::start().await;
    let (mut subscriber, _) = hub.connect_with(keep(Version::V5, "s")).await;
    subscriber.subscribe("a", Qos::ExactlyOnce).await;
    let mut publisher = hub.connect(Version::V5, "p").await;
    for number in 0..3_u32 {
        publisher.publish(message("a", number.to_string(), Qos::ExactlyOnce, 1)).await;
    }
    let (zero, one, two) =
        (subscriber.recv_publish().await, subscriber.recv_publish().await, subscriber.recv_publish().await);
    let (zero, one, two) = (zero.id.unwrap(), one.id.unwrap(), two.id.unwrap());
    // 0: sent; 1: received; 2: complete.
    for id in [one, two] {
        subscriber.send(&Packet::Pubrec(ok(id))).await;
        assert_eq!(subscriber.recv().await, Packet::Pubrel(ok(id)));
    }
    subscriber.send(&Packet::Pubcomp(ok(two))).await;
    subscriber.ping().await;
    drop(subscriber);
    hub.connections(1).await;
    let (mut subscriber, _) = hub.connect_with(keep(Version::V5, "s")).await;
    let again = subscriber.recv_publish().await;
    assert_eq!((again.id, again.dup, text(&again)), (Some(zero), true, "0"));
    assert_eq!(subscriber.recv().await, Packet::Pubrel(ok(one)));
    subscriber.expect_quiet().await;
    hub.stop().await;
}

#[tokio::test]
async fn a_will_is_published_when_there_was_no_goodbye() {
    let hub = Hub::start().await;
    let mut watcher = hub.connect(Version::V5, "w").await;
    watcher.subscribe("will/#", Qos::AtLeastOnce).await;
    for version in BOTH {
        let (peer, _) =
            hub.connect_with(Connect { will: will("will/a", None), ..connect(version, "c") }).await;
        drop(peer);
        let got = watcher.take().await;
        assert_eq!((&*got.topic, text(&got), got.qos), ("will/a", "gone", Qos::AtLeastOnce));

        let (peer, _) =
            hub.connect_with(Connect { will: will("will/b", None), ..connect(version, "c") }).await;
        peer.disconnect().await;
        watcher.expect_quiet().await;

        // Taken over.
        let (_old, _) =
            hub.connect_with(Connect { will: will("will/c", None), ..connect(version, "c") }).await;
        let new = hub.connect(version, "c").await;
        assert_eq!(&*watcher.take().await.topic, "will/c");
        new.disconnect().await;
    }
    // With a DISCONNECT that asks for it.
    let (mut peer, _) =
        hub.connect_with(Connect { will: will("will/d", None), ..connect(Version::V5, "c") }).await;
    let reason = ReasonCode::DISCONNECT_WITH_WILL;
    peer.send(&Packet::Disconnect(Disconnect { reason, ..Default::default() })).await;
    assert_eq!(&*watcher.take().await.topic, "will/d");
    hub.stop().await;
}

#[tokio::test]
async fn a_will_waits_for_its_delay_and_is_dropped_if_the_client_is_back() {
    let hub = Hub::start().await;
    let mut watcher = hub.connect(Version::V5, "w").await;
    watcher.subscribe("will/#", Qos::AtLeastOnce).await;
    let with_will = |name: &str| Connect { will: will("will/late", Some(1)), ..keep(Version::V5, name) };
    let (peer, _) = hub.connect_with(with_will("c")).await;
    drop(peer);
    hub.connections(1).await;
    let (peer, connack) = hub.connect_with(with_will("c")).await;
    assert!(connack.session_present);
    drop(peer);
    watcher.expect_quiet().await;
    assert_eq!(&*watcher.take().await.topic, "will/late", "of the second connection");
    tokio::time::sleep(Duration::from_millis(300)).await;
    watcher.expect_quiet().await;
    // The session's end is sooner than the delay.
    let mut short = with_will("d");
    short.will = will("will/short", Some(1_000));
    short.properties.session_expiry_s = Some(1);
    let (peer, _) = hub.connect_with(short).await;
    drop(peer);
    assert_eq!(&*watcher.take().await.topic, "will/short");
    hub.wait_for(|stats| stats.sessions == 2).await;
    hub.stop().await;
}

#[tokio::test]
async fn a_client_identifier_has_one_connection() {
    let hub = Hub::start().await;
    for version in BOTH {
        let (mut first, _) = hub.connect_with(keep(version, "same")).await;
        first.subscribe("a", Qos::AtLeastOnce).await;
        let (mut second, connack) = hub.connect_with(keep(version, "same")).await;
        assert!(connack.session_present);
        first.expect_close(ReasonCode::SESSION_TAKEN_OVER).await;
        hub.connections(1).await;
        let mut publisher = hub.connect(Version::V5, "p").await;
        publisher.publish(message("a", "x", Qos::AtLeastOnce, 1)).await;
        assert_eq!(text(&second.take().await), "x");
        publisher.disconnect().await;
        second.disconnect().await;
        let cleaned = hub.connect(version, "same").await;
        cleaned.disconnect().await;
        hub.connections(0).await;
    }
    // Many at once: one is left, and it works.
    let mut all = Vec::new();
    for _ in 0..20 {
        let mut peer = hub.raw(Version::V5).await;
        peer.send(&Packet::Connect(Box::new(keep(Version::V5, "crowd")))).await;
        all.push(peer);
    }
    hub.wait_for(|stats| stats.connections == 1 && stats.sessions == 1).await;
    hub.stop().await;
}

#[tokio::test]
async fn messages_and_sessions_expire() {
    let hub = Hub::start().await;
    let (mut subscriber, _) = hub.connect_with(keep(Version::V5, "s")).await;
    subscriber.subscribe("e", Qos::AtLeastOnce).await;
    let mut short = keep(Version::V5, "short");
    short.properties.session_expiry_s = Some(1);
    let (peer, _) = hub.connect_with(short.clone()).await;
    peer.disconnect().await;
    subscriber.disconnect().await;
    let mut publisher = hub.connect(Version::V5, "p").await;
    let expiry = PublishProperties { message_expiry_s: Some(1), ..Default::default() };
    publisher.publish(Publish { properties: expiry, ..message("e", "old", Qos::AtLeastOnce, 1) }).await;
    publisher.publish(message("e", "new", Qos::AtLeastOnce, 1)).await;
    hub.wait_for(|stats| stats.sessions == 2).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (mut subscriber, connack) = hub.connect_with(keep(Version::V5, "s")).await;
    assert!(connack.session_present);
    assert_eq!(text(&subscriber.take().await), "new");
    hub.wait_for(|stats| stats.expired == 1).await;
    let (mut peer, connack) = hub.connect_with(short).await;
    assert!(!connack.session_present);
    // DISCONNECT may shorten the expiry to nothing.
    let properties = DisconnectProperties { session_expiry_s: Some(0), ..Default::default() };
    peer.send(&Packet::Disconnect(Disconnect { reason: ReasonCode::SUCCESS, properties })).await;
    assert_eq!(peer.next().await, None);
    hub.wait_for(|stats| stats.sessions == 2).await;
    hub.stop().await;
}
