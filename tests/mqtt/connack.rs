//! CONNACK (3.2).

use tidemill_tests::mqtt::Level;

use crate::hubs::{hub, hub_with};
use crate::wire::*;

#[tokio::test]
async fn it_comes_first_and_once() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "connack/first");
        let lasting = connect(level, at(level, "connack-first")).lasting();
        let mut wire = Wire::with(&hub, &lasting).await;
        wire.subscribe(&topic, 1).await;
        wire.disconnect().await;
        let mut other = Wire::connect(&hub, level, &at(level, "connack-other")).await;
        other.publish(publish(&topic, "waiting")).await;
        // There is a message to send, and CONNACK comes before it; then none comes any more.
        let mut wire = Wire::open(&hub, level).await;
        wire.send(&bytes().raw(lasting.bytes()).raw(PINGREQ)).await;
        assert_eq!(wire.frame().await[0], 0x20);
        let rest = [wire.frame().await[0], wire.frame().await[0]];
        assert!(rest == [0x32, 0xd0] || rest == [0xd0, 0x32], "{rest:x?}");
        wire.silent().await;
    }
}

#[tokio::test]
async fn a_new_session_is_said_in_exact_bytes() {
    let hub = hub().await;
    let mut wire = Wire::open(&hub, Level::V311).await;
    wire.send(&connect(Level::V311, "connack-bytes")).await;
    wire.expect(b"\x20\x02\x00\x00").await;
    let mut wire = Wire::open(&hub, Level::V5).await;
    wire.send(&connect(Level::V5, "connack-bytes")).await;
    let frame = wire.frame().await;
    assert_eq!((frame[0], &frame[2..4]), (0x20, &[0, 0][..]), "flags and reason code");
}

#[tokio::test]
async fn session_present_is_0_with_a_clean_start() {
    let hub = hub().await;
    for level in BOTH {
        let lasting = connect(level, at(level, "connack-clean")).lasting();
        Wire::with(&hub, &lasting).await.disconnect().await;
        let (_, connack) = Wire::accepted(&hub, &connect(level, at(level, "connack-clean"))).await;
        assert!(!connack.session_present);
    }
}

#[tokio::test]
async fn session_present_says_whether_there_was_one() {
    let hub = hub().await;
    for level in BOTH {
        let lasting = connect(level, at(level, "connack-present")).lasting();
        let (wire, connack) = Wire::accepted(&hub, &lasting).await;
        assert!(!connack.session_present, "there was none");
        wire.disconnect().await;
        let (wire, connack) = Wire::accepted(&hub, &lasting).await;
        assert!(connack.session_present);
        wire.cut_off().await;
        assert!(Wire::accepted(&hub, &lasting).await.1.session_present);
    }
}

#[tokio::test]
async fn a_refusal_has_no_session_and_closes() {
    let hub = hub().await;
    // There is a session, and it is not present in a refusal.
    let lasting = connect(Level::V5, "connack-refusal").lasting();
    Wire::with(&hub, &lasting).await.disconnect().await;
    let mut wire = Wire::open(&hub, Level::V5).await;
    let method = bytes().u8(property::AUTHENTICATION_METHOD).text("no such method");
    wire.send(&lasting.with(&method)).await;
    let connack = wire.connack().await;
    assert_eq!((connack.session_present, connack.reason), (false, 0x8c));
    wire.closed().await;
    let mut wire = Wire::open(&hub, Level::V311).await;
    wire.send(&connect(Level::V311, "").lasting()).await;
    wire.expect(b"\x20\x02\x00\x02").await;
    wire.closed().await;
}

#[tokio::test]
async fn without_a_code_for_it_3_1_1_gets_no_connack() {
    let hub = hub().await;
    let mut wire = Wire::open(&hub, Level::V311).await;
    wire.send(&connect(Level::V311, "connack-none").will("no/+/wildcards", "x", 0)).await;
    wire.closed().await;
}

#[tokio::test]
async fn everything_optional_is_available() {
    let hub = hub().await;
    let (_, connack) = Wire::accepted(&hub, &connect(Level::V5, "connack-all")).await;
    let properties = connack.properties;
    // Absent means yes, and QoS 2; 2 must not be said.
    assert_eq!(properties.one(property::MAXIMUM_QOS), None);
    for id in [
        property::RETAIN_AVAILABLE,
        property::WILDCARD_AVAILABLE,
        property::SUBSCRIPTION_ID_AVAILABLE,
        property::SHARED_AVAILABLE,
    ] {
        assert!(properties.number(id).is_none_or(|available| available == 1));
    }
    assert!(properties.number(property::RECEIVE_MAXIMUM).is_none_or(|maximum| maximum > 0));
    assert!(properties.number(property::MAXIMUM_PACKET_SIZE).is_none_or(|maximum| maximum > 0));
}

#[tokio::test]
async fn wills_of_every_qos_and_retained_ones_are_taken() {
    let hub = hub().await;
    for level in BOTH {
        for qos in 0..=2 {
            let will = connect(level, at(level, "connack-will")).will("connack/will", "x", qos);
            Wire::with(&hub, &will.clone()).await.disconnect().await;
            Wire::with(&hub, &will.will_retained()).await.disconnect().await;
        }
    }
}

#[tokio::test]
async fn response_information_is_not_given_unasked() {
    let hub = hub().await;
    for asked in [bytes(), bytes().u8(property::REQUEST_RESPONSE).u8(0)] {
        let (_, connack) = Wire::accepted(&hub, &connect(Level::V5, "connack-info").with(&asked)).await;
        assert!(!connack.properties.has(property::RESPONSE_INFORMATION));
    }
}

#[tokio::test]
async fn no_authentication_method_is_said_where_none_was_named() {
    let hub = hub().await;
    let (mut wire, connack) = Wire::accepted(&hub, &connect(Level::V5, "connack-auth")).await;
    assert!(!connack.properties.has(property::AUTHENTICATION_METHOD));
    assert!(!connack.properties.has(property::AUTHENTICATION_DATA));
    wire.silent().await;
}

#[tokio::test]
async fn a_shorter_session_expiry_is_said() {
    let hub = hub_with("session_expiry_max: 60s").await;
    let expiry = |asked: u32| connect(Level::V5, "connack-expiry").with(&session_expiry(asked));
    let (_, connack) = Wire::accepted(&hub, &expiry(61)).await;
    assert_eq!(connack.properties.number(property::SESSION_EXPIRY), Some(60));
    let (_, connack) = Wire::accepted(&hub, &expiry(59)).await;
    assert!(connack.properties.number(property::SESSION_EXPIRY).is_none_or(|said| said == 59));
}

#[tokio::test]
async fn optional_texts_are_left_out_where_the_client_has_no_room() {
    let hub = hub().await;
    let bad = connect(Level::V5, "connack-size").with(&maximum_packet_size(20));
    let mut wire = Wire::open(&hub, Level::V5).await;
    wire.send(&bad.with(&bytes().u8(property::AUTHENTICATION_METHOD).text("x"))).await;
    let frame = wire.frame().await;
    assert!(frame.len() <= 20, "{frame:x?}");
    assert_eq!(Connack::read(Level::V5, &frame).reason, 0x8c);
    wire.closed().await;
}
