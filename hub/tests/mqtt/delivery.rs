//! Messages from one client to another.

use super::support::*;

#[tokio::test]
async fn every_qos_both_ways_in_both_versions() {
    let hub = Hub::start().await;
    for from in BOTH {
        for to in BOTH {
            let mut publisher = hub.connect(from, "publisher").await;
            let mut subscriber = hub.connect(to, "subscriber").await;
            for granted in QOS {
                subscriber.subscribe("a/+/c", granted).await;
                for sent in QOS {
                    publisher.publish(message("a/b/c", "hello", sent, 5)).await;
                    let got = subscriber.take().await;
                    assert_eq!((&*got.topic, text(&got)), ("a/b/c", "hello"));
                    assert_eq!(got.qos, sent.min(granted), "delivery QoS is min(published, granted)");
                    assert!(!got.dup && !got.retain);
                }
            }
            publisher.disconnect().await;
            subscriber.disconnect().await;
        }
    }
    hub.stop().await;
}

#[tokio::test]
async fn many_messages_keep_their_order() {
    let hub = Hub::start().await;
    let mut subscriber = hub.connect(Version::V5, "s").await;
    subscriber.subscribe("load/#", Qos::AtLeastOnce).await;
    let mut publisher = hub.connect(Version::V311, "p").await;
    let mut out = BytesMut::new();
    for number in 0..5_000_u16 {
        let packet =
            Packet::Publish(message("load/x", number.to_string(), Qos::AtLeastOnce, number % 999 + 1));
        packet.encode(Version::V311, &mut out).unwrap();
    }
    let (mut reader, mut writer) = publisher.stream.split();
    let writing = async { writer.write_all(&out).await.unwrap() };
    let acknowledgements = async {
        let mut acks = vec![0; 5_000 * 4];
        reader.read_exact(&mut acks).await.unwrap();
        acks
    };
    let receiving = async {
        for number in 0..5_000 {
            assert_eq!(text(&subscriber.take().await), number.to_string());
        }
    };
    let (_, acks, ()) = tokio::join!(writing, acknowledgements, receiving);
    for (number, ack) in acks.chunks(4).enumerate() {
        assert_eq!(u16::from_be_bytes([ack[2], ack[3]]), number as u16 % 999 + 1, "PUBACKs are in order");
    }
    hub.wait_for(|stats| stats.published == 5_000 && stats.delivered == 5_000).await;
    hub.stop().await;
}

#[tokio::test]
async fn retained_messages() {
    let hub = Hub::start().await;
    let mut publisher = hub.connect(Version::V311, "p").await;
    for (topic, payload) in [("r/1", "one"), ("r/2", "two"), ("r/3", "three"), ("r/2", "")] {
        let retained = Publish { retain: true, ..message(topic, payload, Qos::AtLeastOnce, 1) };
        publisher.publish(retained).await;
    }
    for version in BOTH {
        let mut subscriber = hub.connect(version, "s").await;
        subscriber.subscribe("r/+", Qos::AtLeastOnce).await;
        for expected in [("r/1", "one"), ("r/3", "three")] {
            let got = subscriber.take().await;
            assert_eq!((&*got.topic, text(&got), got.retain), (expected.0, expected.1, true));
        }
        // To those that are subscribed already it is a message like any other.
        publisher.publish(Publish { retain: true, ..message("r/1", "uno", Qos::AtLeastOnce, 1) }).await;
        let got = subscriber.take().await;
        assert_eq!((text(&got), got.retain, got.qos), ("uno", false, Qos::AtLeastOnce));
        subscriber.expect_quiet().await;
        subscriber.disconnect().await;
        publisher.publish(Publish { retain: true, ..message("r/1", "one", Qos::AtLeastOnce, 1) }).await;
    }
    let mut subscriber = hub.connect(Version::V5, "s").await;
    let options = |retain_handling, retain_as_published| SubscriptionOptions {
        retain_handling,
        retain_as_published,
        ..Default::default()
    };
    subscriber.subscribe_with("r/1", options(RetainHandling::Never, true), None).await;
    subscriber.expect_quiet().await;
    publisher.publish(Publish { retain: true, ..message("r/1", "uno", Qos::AtLeastOnce, 1) }).await;
    assert!(subscriber.take().await.retain, "Retain As Published");
    subscriber.subscribe_with("r/1", options(RetainHandling::New, false), None).await;
    subscriber.expect_quiet().await;
    subscriber.subscribe_with("r/3", options(RetainHandling::New, false), None).await;
    assert_eq!(text(&subscriber.take().await), "three");
    subscriber.subscribe_with("r/3", options(RetainHandling::Always, false), None).await;
    assert_eq!(text(&subscriber.take().await), "three");
    hub.stop().await;
}

#[tokio::test]
async fn more_retained_messages_than_fit_into_a_page_or_a_window() {
    let hub = Hub::start().await;
    let mut publisher = hub.connect(Version::V5, "p").await;
    for number in 0..100 {
        let retained = message(&format!("many/{number:03}"), "x", Qos::AtLeastOnce, 1);
        publisher.publish(Publish { retain: true, ..retained }).await;
    }
    let mut few = connect(Version::V5, "few");
    few.properties.receive_maximum = std::num::NonZeroU16::new(3);
    let (mut subscriber, _) = hub.connect_with(few).await;
    subscriber.subscribe("many/#", Qos::AtLeastOnce).await;
    for number in 0..100 {
        assert_eq!(&*subscriber.take().await.topic, format!("many/{number:03}"));
    }
    subscriber.expect_quiet().await;
    hub.stop().await;
}

#[tokio::test]
async fn wildcards_match_what_they_should() {
    let hub = Hub::start().await;
    let mut publisher = hub.connect(Version::V5, "p").await;
    let mut subscriber = hub.connect(Version::V5, "s").await;
    for (number, filter) in [(1, "#"), (2, "+/b"), (3, "a/#"), (4, "$device/#"), (5, "+/+/c")] {
        subscriber.subscribe_with(filter, SubscriptionOptions::default(), Some(number)).await;
    }
    for (topic, expected) in [
        ("a", vec![1, 3]),
        ("a/b", vec![1, 2, 3]),
        ("$device/b", vec![4]),
        ("/b", vec![1, 2]),
        ("a//c", vec![1, 3, 5]),
    ] {
        publisher.publish(message(topic, "x", Qos::AtMostOnce, 0)).await;
        let publish = subscriber.take().await;
        assert_eq!(&*publish.topic, topic);
        let mut got: Vec<_> = publish.properties.subscription_ids.iter().map(|id| id.get()).collect();
        got.sort_unstable();
        assert_eq!(got, expected, "{topic}");
    }
    subscriber.expect_quiet().await;
    assert!(matches!(subscriber.unsubscribe("#").await, Packet::Unsuback(ack) if ack.reasons[0].0 == 0));
    assert!(matches!(subscriber.unsubscribe("#").await, Packet::Unsuback(ack) if ack.reasons[0].0 == 0x11));
    publisher.publish(message("x", "x", Qos::AtMostOnce, 0)).await;
    subscriber.expect_quiet().await;
    for bad in ["a#", "a/#/b", "", "$share/g", "$share//a", "$share/a+/b"] {
        let reason = subscriber.try_subscribe(bad, SubscriptionOptions::default(), None).await;
        assert_eq!(reason, ReasonCode::TOPIC_FILTER_INVALID, "{bad}");
    }
    hub.stop().await;
}

#[tokio::test]
async fn what_a_client_accepts_is_respected() {
    let hub = Hub::start().await;
    let mut publisher = hub.connect(Version::V5, "p").await;
    let mut small = connect(Version::V5, "small");
    small.properties.packet_bytes_max = std::num::NonZeroU32::new(50);
    small.properties.receive_maximum = std::num::NonZeroU16::new(1);
    let (mut subscriber, _) = hub.connect_with(small).await;
    subscriber.subscribe("a", Qos::AtLeastOnce).await;
    for payload in ["0".to_owned(), "x".repeat(60), "1".to_owned(), "2".to_owned()] {
        publisher.publish(message("a", payload, Qos::AtLeastOnce, 1)).await;
    }
    for expected in ["0", "1", "2"] {
        let got = subscriber.recv_publish().await;
        assert_eq!(text(&got), expected, "one at a time, and not the one too large");
        subscriber.expect_quiet().await;
        subscriber.send(&Packet::Puback(ok(got.id.unwrap()))).await;
    }
    hub.wait_for(|stats| stats.oversized == 1).await;
    hub.stop().await;
}

#[tokio::test]
async fn version_5_properties_come_through() {
    let hub = Hub::start().await;
    let mut peer = hub.connect(Version::V5, "p").await;
    let mut old = hub.connect(Version::V311, "old").await;
    old.subscribe("t/#", Qos::AtMostOnce).await;
    peer.subscribe_with("t/1", SubscriptionOptions::default(), Some(77)).await;
    let local = SubscriptionOptions { no_local: true, ..Default::default() };
    peer.subscribe_with("t/+", local, Some(78)).await;
    let properties = PublishProperties {
        payload_is_text: Some(true),
        message_expiry_s: Some(100),
        content_type: Some("text/plain".into()),
        response_topic: Some("answer/here".into()),
        correlation_data: Some(Bytes::from_static(b"\0\x01")),
        topic_alias: Some(5),
        user_properties: vec![("b".into(), "2".into()), ("a".into(), "1".into()), ("b".into(), "3".into())],
        ..Default::default()
    };
    let publish = Publish { properties: properties.clone(), ..message("t/1", "x", Qos::AtMostOnce, 0) };
    peer.send(&Packet::Publish(publish.clone())).await;
    let got = peer.take().await;
    let mut expected = properties;
    expected.topic_alias = None;
    expected.subscription_ids = vec![SubscriptionId::new(77).unwrap()];
    let left = got.properties.message_expiry_s.unwrap();
    assert!((95..=100).contains(&left), "{left}");
    expected.message_expiry_s = Some(left);
    assert_eq!(got.properties, expected);
    assert_eq!((&*old.take().await.topic, text(&got)), ("t/1", "x"));
    // The alias alone.
    peer.send(&Packet::Publish(Publish { topic: "".into(), ..publish })).await;
    assert_eq!(&*peer.take().await.topic, "t/1");
    old.take().await;
    peer.expect_quiet().await;
    // One that was never given a topic.
    let unknown = PublishProperties { topic_alias: Some(6), ..Default::default() };
    peer.send(&Packet::Publish(Publish { properties: unknown, ..message("", "x", Qos::AtMostOnce, 0) }))
        .await;
    peer.expect_close(ReasonCode::PROTOCOL_ERROR).await;
    hub.stop().await;
}

#[tokio::test]
async fn a_group_shares_one_cursor() {
    let hub = Hub::start().await;
    let filter = "$share/workers/jobs/#";
    let (mut one, _) = hub.connect_with(keep(Version::V5, "one")).await;
    let (mut two, _) = hub.connect_with(keep(Version::V311, "two")).await;
    one.subscribe(filter, Qos::AtLeastOnce).await;
    two.subscribe(filter, Qos::AtLeastOnce).await;
    let mut alone = hub.connect(Version::V5, "alone").await;
    alone.subscribe("jobs/#", Qos::AtMostOnce).await;
    let mut publisher = hub.connect(Version::V5, "p").await;
    publisher.publish_numbers("jobs/x", 0..20).await;
    for number in 0..20 {
        assert_eq!(text(&alone.take().await), number.to_string(), "others are not affected");
    }
    let (mut of_one, mut of_two) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        of_one.push(one.take().await);
        of_two.push(two.recv_publish().await);
    }
    let mut all: Vec<u32> = of_one.iter().chain(&of_two).map(|got| text(got).parse().unwrap()).collect();
    all.sort_unstable();
    assert_eq!(all, (0..20).collect::<Vec<_>>(), "each message once, in turns");
    one.expect_quiet().await;
    // `two` leaves without having acknowledged any: `one` gets them.
    drop(two);
    let mut again = Vec::new();
    for _ in 0..10 {
        again.push(text(&one.take().await).to_owned());
    }
    let lost: Vec<_> = of_two.iter().map(|got| text(got).to_owned()).collect();
    assert_eq!(again, lost);
    one.ping().await;
    // With no member there, nothing is lost, even over a restart.
    one.disconnect().await;
    publisher.publish_numbers("jobs/y", 20..25).await;
    let hub = hub.restart().await;
    let (mut two, connack) = hub.connect_with(keep(Version::V311, "two")).await;
    assert!(connack.session_present);
    for number in 20..25 {
        assert_eq!(text(&two.take().await), number.to_string());
    }
    two.expect_quiet().await;
    hub.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_stalls_nobody_else() {
    let hub = Hub::with(Options { out_buffer_bytes_max: 64 << 10, ..options() }).await;
    let mut lazy = hub.connect(Version::V5, "lazy").await;
    lazy.subscribe("bulk", Qos::AtMostOnce).await;
    let mut eager = hub.connect(Version::V5, "eager").await;
    eager.subscribe("bulk", Qos::AtMostOnce).await;
    let mut publisher = hub.connect(Version::V5, "p").await;
    let payload = Bytes::from(vec![7; 200_000]);
    for _ in 0..100 {
        publisher.publish(message("bulk", payload.clone(), Qos::AtLeastOnce, 1)).await;
        assert_eq!(eager.take().await.payload, payload);
    }
    for _ in 0..100 {
        assert_eq!(lazy.take().await.payload, payload, "and it gets everything when it does read");
    }
    hub.stop().await;
}
