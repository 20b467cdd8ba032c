//! Strings (5.0: 1.5.4, 1.5.7; 3.1.1: 1.5.3).

use tidemill_tests::mqtt::Level;

use crate::hubs::{hub, not_let_in, refused};
use crate::wire::*;

/// A surrogate half, an overlong form, a byte that starts nothing, a code point past the last, a character cut short.
const ILL_FORMED: [&[u8]; 5] = [b"a\xed\xa0\x80", b"a\xc0\xaf", b"a\xff", b"a\xf4\x90\x80\x80", b"a\xe2\x82"];

/// Every CONNECT with a bad string in one of its places.
fn bad_connects(level: Level, bad: &[u8]) -> Vec<Connect> {
    let mut all = vec![
        connect(level, bad),
        connect(level, "text").will(bad, "gone", 0),
        connect(level, "text").user(bad),
    ];
    if level == Level::V5 {
        all.push(connect(level, "text").with(&user_property(bad, "value")));
        all.push(connect(level, "text").with(&user_property("name", bad)));
        let will = bytes().u8(property::CONTENT_TYPE).text(bad);
        all.push(connect(level, "text").will_with(&will, "will", "gone", 0));
        let will = bytes().u8(property::RESPONSE_TOPIC).text(bad);
        all.push(connect(level, "text").will_with(&will, "will", "gone", 0));
        all.push(connect(level, "text").with(&bytes().u8(property::AUTHENTICATION_METHOD).text(bad)));
    }
    all
}

/// Every other packet with a bad string in one of its places.
fn bad_packets(level: Level, bad: &[u8]) -> Vec<Vec<u8>> {
    let mut all = vec![
        publish(bad, "x").at(level),
        publish(bad, "x").qos(1, 1).at(level),
        subscribe(1, &[(bad, 0)]).at(level),
        subscribe(1, &[(&b"good"[..], 0), (bad, 0)]).at(level),
        unsubscribe(1, &[bad]).at(level),
    ];
    if level == Level::V5 {
        for id in [property::CONTENT_TYPE, property::RESPONSE_TOPIC] {
            all.push(publish("a", "x").with(&bytes().u8(id).text(bad)).at(level));
        }
        for pair in [user_property(bad, "value"), user_property("name", bad)] {
            all.push(publish("a", "x").with(&pair).at(level));
            all.push(subscribe(1, &[("a", 0)]).with(&pair).at(level));
            all.push(unsubscribe(1, &["a"]).with(&pair).at(level));
            all.push(bytes().u16(1).u8(0).section(&pair).packet(0x40));
            all.push(bytes().u8(0).section(&pair).packet(0xe0));
        }
        let reason = bytes().u8(property::REASON_STRING).text(bad);
        all.push(bytes().u16(1).u8(0).section(&reason).packet(0x50));
    }
    all
}

async fn all_are_refused(bad: &[u8]) {
    for level in BOTH {
        for connect in bad_connects(level, bad) {
            not_let_in(level, connect, 0x81).await;
        }
        for packet in bad_packets(level, bad) {
            refused(level, packet, 0x81).await;
        }
    }
}

#[tokio::test]
async fn ill_formed_utf8_is_refused_wherever_it_stands() {
    for bad in ILL_FORMED {
        all_are_refused(bad).await;
    }
}

#[tokio::test]
async fn the_null_character_is_refused_wherever_it_stands() {
    all_are_refused(b"a\0b").await;
}

#[tokio::test]
async fn a_byte_order_mark_is_a_character_like_others() {
    let hub = hub().await;
    for level in BOTH {
        let marked = format!("\u{feff}{}", at(level, "text-bom"));
        let mut wire = Wire::connect(&hub, level, &at(level, "text-bom")).await;
        wire.subscribe(&marked, 0).await;
        wire.subscribe(at(level, "text-bom"), 0).await;
        wire.send(&publish(&marked, "x")).await;
        assert_eq!(wire.message().await.topic, marked);
        wire.send(&publish(at(level, "text-bom"), "y")).await;
        let message = wire.message().await;
        assert_eq!((message.topic, message.payload), (at(level, "text-bom"), b"y".to_vec()));
        wire.silent().await;
    }
}

#[tokio::test]
async fn a_user_name_is_text_and_a_password_is_bytes() {
    let hub = hub().await;
    let connect = connect(Level::V311, "text-user").user("ünï").password(b"\xff\0\xfe");
    Wire::with(&hub, &connect).await;
}
