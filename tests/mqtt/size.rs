//! Maximum Packet Size (5.0: 3.1.2.11.4, 3.2.2.3.6), both ways.

use tidemill_tests::mqtt::Level;

use crate::hubs::{hub, hub_with};
use crate::wire::*;

#[tokio::test]
async fn a_message_too_large_for_its_subscriber_is_left_out() {
    let hub = hub().await;
    for qos in 0..=2 {
        let name = format!("size-out-{qos}");
        let lasting = connect(Level::V5, &name).lasting().with(&maximum_packet_size(100));
        let mut wire = Wire::with(&hub, &lasting).await;
        wire.subscribe(&name, qos).await;
        let mut other = Wire::connect(&hub, Level::V5, &format!("{name}-other")).await;
        // Exactly as large as may be, and a byte more.
        let whole = publish(&name, "").qos(qos, 1).at(Level::V5).len();
        let fits = "x".repeat(100 - whole);
        other.publish_exactly_once(publish(&name, format!("{fits}x")).retain()).await;
        other.publish_exactly_once(publish(&name, &fits)).await;
        let message = wire.message().await;
        assert_eq!((message.text(), message.qos), (&*fits, qos));
        wire.silent().await;
        match qos {
            0 => {}
            1 => wire.send(&puback(message.id)).await,
            _ => {
                wire.send(&pubrec(message.id)).await;
                wire.expect(&pubrel(message.id)).await;
                wire.send(&pubcomp(message.id)).await;
            }
        }
        // It was as if it had been sent: it does not come later, with more room, and does not hold up others.
        wire.disconnect().await;
        let mut wire = Wire::with(&hub, &connect(Level::V5, &name).lasting()).await;
        wire.silent().await;
        // Others get it.
        other.subscribe(&name, 0).await;
        assert_eq!(other.message().await.text(), format!("{fits}x"));
    }
}

#[tokio::test]
async fn the_answers_of_the_server_fit_too() {
    let hub = hub().await;
    let small = connect(Level::V5, "size-answers").with(&maximum_packet_size(30));
    let mut wire = Wire::with(&hub, &small).await;
    for qos in [1, 2] {
        wire.send(&publish("$SYS/mine", "x").qos(qos, 1)).await;
        let frame = wire.frame().await;
        assert!(frame.len() <= 30, "{frame:x?}");
        assert_eq!(Answer::read(Level::V5, &frame).reason, 0x87);
    }
    wire.send(&pubrel(9)).await;
    assert!(wire.frame().await.len() <= 30);
    wire.send(&pubrec(9)).await;
    assert!(wire.frame().await.len() <= 30);
    wire.send(&subscribe(1, &[("a/#/b", 0)])).await;
    assert!(wire.frame().await.len() <= 30);
    wire.send(&unsubscribe(1, &["a/#/b"])).await;
    assert!(wire.frame().await.len() <= 30);
}

#[tokio::test]
async fn the_server_has_no_user_properties_of_its_own() {
    let hub = hub().await;
    let (mut wire, connack) = Wire::accepted(&hub, &connect(Level::V5, "size-user")).await;
    let mut all = vec![connack.properties];
    wire.send(&publish("$SYS/mine", "x").qos(1, 1).with(&user_property("a", "b"))).await;
    all.push(wire.answer(0x40).await.properties);
    wire.send(&publish("$SYS/mine", "x").qos(2, 1).with(&user_property("a", "b"))).await;
    all.push(wire.answer(0x50).await.properties);
    wire.send(&pubrel(9)).await;
    all.push(wire.answer(0x70).await.properties);
    wire.send(&pubrec(9)).await;
    all.push(wire.answer(0x62).await.properties);
    for (request, first) in [(subscribe(1, &[("a/#/b", 0)]), 0x90), (unsubscribe(1, &["a/#/b"]), 0xb0)] {
        wire.send(&request.with(&user_property("a", "b"))).await;
        let frame = wire.frame().await;
        let mut cut = body(&frame, first, "an answer");
        cut.u16();
        all.push(cut.properties(Level::V5));
    }
    wire.send(b"\x00\x00").await;
    all.push(wire.answer(0xe0).await.properties);
    for properties in all {
        assert!(properties.all(property::USER_PROPERTY).is_empty(), "{properties:?}");
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_shortened_closes_the_connection() {
    let hub = hub().await;
    let many: Vec<(String, u8)> = (0..40).map(|number| (format!("size/many/{number}"), 0)).collect();
    let names: Vec<&String> = many.iter().map(|(name, _)| name).collect();
    for (request, answer) in [(subscribe(1, &many), 0x90), (unsubscribe(1, &names), 0xb0)] {
        let small = connect(Level::V5, "size-many").with(&maximum_packet_size(44));
        let mut wire = Wire::with(&hub, &small).await;
        wire.send(&request).await;
        // 40 reason codes, and five bytes before them.
        wire.closed_with(0x95).await;
        let enough = connect(Level::V5, "size-many").with(&maximum_packet_size(45));
        let mut wire = Wire::with(&hub, &enough).await;
        wire.send(&request).await;
        let frame = wire.frame().await;
        assert_eq!((frame[0], frame.len()), (answer, 45));
    }
}

#[tokio::test]
async fn a_connack_that_does_not_fit_is_not_sent() {
    let hub = hub().await;
    for size in 1..60 {
        let mut wire = Wire::open(&hub, Level::V5).await;
        wire.send(&connect(Level::V5, "").with(&maximum_packet_size(size))).await;
        match wire.next().await {
            None => assert!(size < 5, "there was room to say no"),
            Some(frame) => {
                assert!(frame.len() <= size as usize, "{} bytes with {size}", frame.len());
                match Connack::read(Level::V5, &frame) {
                    // All of it is there: what the client was called cannot be left out.
                    Connack { reason: 0, properties, .. } => {
                        assert!(properties.has(property::ASSIGNED_CLIENT))
                    }
                    Connack { reason, .. } => {
                        assert_eq!(reason, 0x95);
                        wire.closed().await;
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn a_packet_too_large_for_the_server_is_refused_before_it_is_whole() {
    let hub = hub_with("packet_bytes_max: 1KiB, payload_bytes_max: 900B").await;
    for level in BOTH {
        let (mut wire, connack) = Wire::accepted(&hub, &connect(level, "size-in")).await;
        if level == Level::V5 {
            assert_eq!(connack.properties.number(property::MAXIMUM_PACKET_SIZE), Some(1024));
        }
        // 1,024 bytes with the fixed header are taken, in spite of what is in them; one more is not even read.
        let topic = "x".repeat(1023 - 900 - publish("", "").at(level).len());
        let largest = publish(&topic, [b'x'; 900]);
        assert_eq!(largest.at(level).len(), 1024);
        wire.send(&largest).await;
        wire.silent().await;
        wire.send(&bytes().u8(0x30).varint(1022)).await;
        wire.closed_with(0x95).await;
    }
}
