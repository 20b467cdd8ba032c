//! Connections: how they begin, what is refused with which reason code, how they end.

use super::support::*;

#[tokio::test]
async fn connects_in_both_versions_to_the_byte() {
    let hub = Hub::start().await;
    let mut old = hub.raw(Version::V311).await;
    old.bytes(b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01a").await;
    let mut answer = [0; 4];
    old.stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0]);
    old.bytes(&[0xc0, 0]).await;
    assert_eq!(old.recv().await, Packet::Pingresp);

    let mut new = hub.raw(Version::V5).await;
    new.bytes(b"\x10\x0d\0\x04MQTT\x05\x02\0\x3c\0\0\0").await;
    let Packet::Connack(connack) = new.recv().await else { panic!("no CONNACK") };
    assert!(connack.properties.assigned_client_id.is_some_and(|id| !id.is_empty()));
    assert_eq!(connack.properties.receive_maximum.map(|max| max.get()), Some(hub.options.receive_maximum));
    assert_eq!((hub.broker.stats().connections, hub.broker.stats().sessions), (2, 2));
    old.disconnect().await;
    new.disconnect().await;
    hub.connections(0).await;
    assert_eq!(hub.broker.stats().sessions, 0);
    hub.stop().await;
}

#[tokio::test]
async fn silence_closes_after_one_and_a_half_times_the_keep_alive() {
    let hub = Hub::start().await;
    for version in BOTH {
        let (mut peer, _) = hub.connect_with(Connect { keep_alive_s: 1, ..connect(version, "k") }).await;
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        peer.ping().await;
        let since = std::time::Instant::now();
        peer.expect_close(ReasonCode::KEEP_ALIVE_TIMEOUT).await;
        let waited = since.elapsed();
        assert!(waited >= Duration::from_millis(1_450), "{waited:?} after the last packet");
        assert!(waited < Duration::from_millis(3_000), "{waited:?} after the last packet");
    }
    let hub_with_max = Hub::with(Options { keep_alive_max: Duration::from_secs(30), ..options() }).await;
    let (_, connack) = hub_with_max.connect_with(connect(Version::V5, "k")).await;
    assert_eq!(connack.properties.server_keep_alive_s, Some(30));
    hub_with_max.stop().await;
    hub.stop().await;
}

#[tokio::test]
async fn malformed_packets_close_their_own_connection_only() {
    let hub = Hub::start().await;
    let mut bystander = hub.connect(Version::V5, "bystander").await;
    bystander.subscribe("ok", Qos::AtLeastOnce).await;
    let malformed = ReasonCode::MALFORMED_PACKET;
    let protocol = ReasonCode::PROTOCOL_ERROR;
    for (bytes, reason) in [
        (&b"\x36\x05\0\x01a\0\0"[..], malformed),
        (b"\xc1\0", malformed),
        (b"\0\0", malformed),
        (b"\x30\xff\xff\xff\xff\x01", malformed),
        (b"\x30\xff\xff\xff\x7f", ReasonCode::PACKET_TOO_LARGE),
        (b"\x30\x06\0\x03a\xff\xfe\0", malformed),
        (b"\x30\x04\0\x01#\0", ReasonCode::TOPIC_NAME_INVALID),
        (b"\x30\x03\0\0\0", protocol),
        (b"\x30\x07\0\x01a\x03\x23\0\0", ReasonCode::TOPIC_ALIAS_INVALID),
        (b"\x30\x07\0\x01a\x03\x23\xff\xff", ReasonCode::TOPIC_ALIAS_INVALID),
        (b"\x32\x06\0\x01a\0\0\0", malformed),
        (b"\x82\x03\0\x01\0", protocol),
        (b"\x82\x10\0\x01\0\0\x0a$share/g/a\x04", protocol),
        (b"\xf0\0", protocol),
        (b"\x20\x03\0\0\0", protocol),
        (b"\x10\x0d\0\x04MQTT\x05\x02\0\x3c\0\0\0", protocol),
        (b"\xe0\x07\0\x05\x11\0\0\0\x09", protocol),
    ] {
        let mut peer = hub.connect(Version::V5, "bad").await;
        peer.bytes(bytes).await;
        match peer.recv().await {
            Packet::Disconnect(disconnect) => assert_eq!(disconnect.reason, reason, "{bytes:02x?}"),
            other => panic!("{bytes:02x?}: {other:?}"),
        }
        assert_eq!(peer.next().await, None);
    }
    let mut peer = hub.connect(Version::V311, "bad").await;
    peer.bytes(b"\xf0\0").await;
    assert_eq!(peer.next().await, None);
    let mut publisher = hub.connect(Version::V5, "p").await;
    publisher.publish(message("ok", "x", Qos::AtLeastOnce, 1)).await;
    assert_eq!(text(&bystander.take().await), "x");
    hub.wait_for(|stats| stats.refused == 18).await;
    hub.stop().await;
}

#[tokio::test]
async fn connections_that_begin_badly() {
    let hub = Hub::with(Options { connect_timeout: Duration::from_millis(200), ..options() }).await;
    let exactly = async |bytes: &[u8]| {
        let mut peer = hub.raw(Version::V5).await;
        peer.bytes(bytes).await;
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, peer.stream.read_to_end(&mut answer)).await.unwrap();
        answer
    };
    // Too new, too old, 3.1, no CONNECT, no MQTT, an identifier that is missing, nothing at all.
    assert_eq!(exactly(b"\x10\x0d\0\x04MQTT\x06\x02\0\x3c\0\0\0").await[..4], [0x20, 57, 0, 0x84]);
    assert_eq!(exactly(b"\x10\x0c\0\x04MQTT\x03\x02\0\x3c\0\0").await, [0x20, 2, 0, 1]);
    assert_eq!(exactly(b"\x10\x0e\0\x06MQIsdp\x03\x02\0\x3c\0\0").await, [0x20, 2, 0, 1]);
    assert!(exactly(b"\x30\x03\0\x01a").await.is_empty());
    assert!(exactly(b"GET / HTTP/1.1\r\n\r\n").await.is_empty());
    assert_eq!(exactly(b"\x10\x0c\0\x04MQTT\x04\0\0\x3c\0\0").await, [0x20, 2, 0, 2]);
    assert!(exactly(b"").await.is_empty());
    let mut auth = connect(Version::V5, "auth");
    auth.properties.authentication_method = Some("SCRAM-SHA-256".into());
    let (_, connack) = hub.connect_with(auth).await;
    assert_eq!(connack.reason, ReasonCode::BAD_AUTHENTICATION_METHOD);
    hub.connections(0).await;
    hub.stop().await;

    let hub = Hub::with(Options { connections_max: 1, ..options() }).await;
    let one = hub.connect(Version::V5, "one").await;
    let mut two = hub.raw(Version::V5).await;
    assert_eq!(two.next().await, None);
    one.disconnect().await;
    hub.connections(0).await;
    hub.connect(Version::V5, "two").await.disconnect().await;
    hub.stop().await;
}

#[tokio::test]
async fn limits_have_their_reason_codes() {
    let limits = Options {
        payload_bytes_max: 100,
        packet_bytes_max: 300,
        receive_maximum: 2,
        topic_levels_max: 3,
        subscriptions_per_session_max: 2,
        ..options()
    };
    let hub = Hub::with(limits).await;
    let large = || vec![b'x'; 101];
    let mut peer = hub.connect(Version::V5, "p").await;
    for (publish, reason) in [
        (message("a", large(), Qos::AtLeastOnce, 1), ReasonCode::QUOTA_EXCEEDED),
        (message("$SYS/x", "x", Qos::AtLeastOnce, 1), ReasonCode::NOT_AUTHORIZED),
        (message("a/b/c/d", "x", Qos::AtLeastOnce, 1), ReasonCode::TOPIC_NAME_INVALID),
    ] {
        peer.send(&Packet::Publish(publish.clone())).await;
        let Packet::Puback(ack) = peer.recv().await else { panic!("no PUBACK") };
        assert_eq!(ack.reason, reason);
        let twice = Publish { qos: Qos::ExactlyOnce, ..publish };
        peer.send(&Packet::Publish(twice)).await;
        let Packet::Pubrec(ack) = peer.recv().await else { panic!("no PUBREC") };
        assert_eq!(ack.reason, reason);
    }
    peer.publish(message("a", vec![b'x'; 100], Qos::ExactlyOnce, 1)).await;
    peer.send(&Packet::Publish(message("a", large(), Qos::AtMostOnce, 0))).await;
    peer.expect_close(ReasonCode::PACKET_TOO_LARGE).await;
    let mut peer = hub.connect(Version::V5, "p").await;
    peer.send(&Packet::Publish(message("a", vec![b'x'; 400], Qos::AtLeastOnce, 1))).await;
    peer.expect_close(ReasonCode::PACKET_TOO_LARGE).await;
    let mut old = hub.connect(Version::V311, "p").await;
    old.send(&Packet::Publish(message("a", large(), Qos::AtLeastOnce, 1))).await;
    assert_eq!(old.next().await, None);

    let mut peer = hub.connect(Version::V5, "p").await;
    for number in 1..=3 {
        peer.send(&Packet::Publish(message("a", "x", Qos::ExactlyOnce, number))).await;
    }
    assert_eq!(peer.recv().await, Packet::Pubrec(ok(id(1))));
    assert_eq!(peer.recv().await, Packet::Pubrec(ok(id(2))));
    peer.expect_close(ReasonCode::RECEIVE_MAXIMUM_EXCEEDED).await;

    let mut peer = hub.connect(Version::V5, "p").await;
    peer.subscribe("a", Qos::AtMostOnce).await;
    peer.subscribe("b", Qos::AtMostOnce).await;
    let options = SubscriptionOptions::default();
    assert_eq!(peer.try_subscribe("c", options, None).await, ReasonCode::QUOTA_EXCEEDED);
    assert_eq!(peer.try_subscribe("b", options, None).await, ReasonCode::SUCCESS);
    let mut other = hub.connect(Version::V311, "q").await;
    assert_eq!(other.try_subscribe("a/b/c/d", options, None).await.0, 0x80);
    hub.stop().await;
}

#[tokio::test]
async fn a_stopping_broker_says_so() {
    let hub = Hub::start().await;
    let (mut new, _) = hub.connect_with(keep(Version::V5, "new")).await;
    let mut old = hub.connect(Version::V311, "old").await;
    new.send(&Packet::Publish(message("a", "x", Qos::AtLeastOnce, 9))).await;
    new.ping().await;
    hub.broker.drain();
    // The acknowledgement may have come before the PINGRESP; if not, it comes before the goodbye.
    let mut last = new.recv().await;
    if last == Packet::Puback(ok(id(9))) {
        last = new.recv().await;
    }
    assert!(
        matches!(last, Packet::Disconnect(disconnect) if disconnect.reason == ReasonCode::SERVER_SHUTTING_DOWN)
    );
    assert_eq!(new.next().await, None);
    assert_eq!(old.next().await, None);
    hub.stop().await;
}
