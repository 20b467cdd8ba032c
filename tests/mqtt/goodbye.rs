//! DISCONNECT (3.14) and errors (4.13 in 5.0, 4.8 in 3.1.1).

use std::time::{Duration, Instant};

use tidemill_tests::mqtt::Level;

use crate::hubs::{hub, hub_with};
use crate::wire::*;

#[tokio::test]
async fn a_goodbye_closes_the_connection() {
    let hub = hub().await;
    for level in BOTH {
        let mut wire = Wire::connect(&hub, level, &at(level, "goodbye")).await;
        wire.send(&DISCONNECT).await;
        wire.closed().await;
    }
}

#[tokio::test]
async fn what_follows_a_goodbye_is_not_looked_at() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "goodbye/after");
        let mut watcher = Wire::connect(&hub, level, &at(level, "goodbye-watcher")).await;
        watcher.subscribe(&topic, 0).await;
        let mut wire = Wire::connect(&hub, level, &at(level, "goodbye-after")).await;
        wire.send(&bytes().raw(DISCONNECT).raw(publish(&topic, "after").at(level)).raw(PINGREQ)).await;
        wire.closed().await;
        watcher.publish(publish(&topic, "mine")).await;
        assert_eq!(watcher.message().await.text(), "mine");
    }
}

#[tokio::test]
async fn what_came_before_a_goodbye_is_taken() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "goodbye/before");
        let mut watcher = Wire::connect(&hub, level, &at(level, "goodbye-before-watcher")).await;
        watcher.subscribe(&topic, 0).await;
        let mut wire = Wire::connect(&hub, level, &at(level, "goodbye-before")).await;
        wire.send(&bytes().raw(publish(&topic, "before").at(level)).raw(DISCONNECT)).await;
        wire.closed().await;
        assert_eq!(watcher.message().await.text(), "before");
    }
}

#[tokio::test]
async fn the_server_says_nothing_after_its_own_goodbye() {
    let hub = hub().await;
    let mut wire = Wire::connect(&hub, Level::V5, "goodbye-last").await;
    // What comes behind the error would be answered.
    wire.send(&bytes().raw(b"\x00\x00").raw(PINGREQ).raw(PINGREQ)).await;
    wire.closed_with(0x81).await;
}

#[tokio::test]
async fn a_goodbye_of_the_servers_has_a_reason_and_no_session_expiry() {
    let hub = hub().await;
    let lasting = connect(Level::V5, "goodbye-reason").lasting();
    let mut wire = Wire::with(&hub, &lasting).await;
    wire.send(&PINGRESP).await;
    let said = wire.answer(0xe0).await;
    assert_eq!(said.reason, 0x82);
    assert!(!said.properties.has(property::SESSION_EXPIRY));
    wire.closed().await;
    let mut wire = Wire::with(&hub, &lasting).await;
    let _new = Wire::with(&hub, &lasting).await;
    let said = wire.answer(0xe0).await;
    assert_eq!(said.reason, 0x8e);
    assert!(!said.properties.has(property::SESSION_EXPIRY));
    wire.closed().await;
}

#[tokio::test]
async fn no_goodbye_comes_before_a_connack() {
    let hub = hub().await;
    for packet in [PINGREQ.to_vec(), connect(Level::V5, "goodbye-early").flags(1).bytes(), vec![0, 0]] {
        let mut wire = Wire::open(&hub, Level::V5).await;
        wire.send(&packet).await;
        if let Some(frame) = wire.next().await {
            assert_eq!(frame[0], 0x20, "{frame:x?}");
            wire.closed().await;
        }
    }
}

#[tokio::test]
async fn its_reason_string_is_left_out_where_the_client_has_no_room() {
    let hub = hub().await;
    let small = connect(Level::V5, "goodbye-small").with(&maximum_packet_size(40));
    let mut wire = Wire::with(&hub, &small).await;
    wire.send(b"\x00\x00").await;
    let frame = wire.frame().await;
    assert!(frame[0] == 0xe0 && frame.len() <= 40, "{frame:x?}");
    assert_eq!(Answer::read(Level::V5, &frame).reason, 0x81);
    wire.closed().await;
}

#[tokio::test]
async fn an_error_closes_its_own_connection_only() {
    let hub = hub().await;
    for level in BOTH {
        let mut other = Wire::connect(&hub, level, &at(level, "goodbye-other")).await;
        for bad in [&b"\x00\x00"[..], b"\x36\x05\x00\x01a\x00\x01", b"\x80\x02\x00\x01"] {
            let mut wire = Wire::connect(&hub, level, &at(level, "goodbye-error")).await;
            wire.send(bad).await;
            wire.closed_with(0x81).await;
        }
        other.silent().await;
    }
}

#[tokio::test]
async fn who_sends_on_after_an_error_still_gets_what_was_sent_before_it_and_the_reason() {
    // More than a client's socket takes, less than the hub's buffers hold.
    const MESSAGES: usize = 30;
    let payload = [b'x'; 8 << 10];
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "goodbye/unread");
        let mut wire = Wire::connect(&hub, level, &at(level, "goodbye-unread")).await;
        wire.subscribe(&topic, 0).await;
        let mut other = Wire::connect(&hub, level, &at(level, "goodbye-unread-other")).await;
        other.subscribe(&topic, 0).await;
        for _ in 0..MESSAGES {
            other.publish(publish(&topic, payload)).await;
            other.message().await;
        }
        // All have been written by now.
        tokio::time::sleep(Duration::from_millis(200)).await;
        // Far more than is read at once: most of it is unread when the hub ends the connection.
        wire.send(&bytes().raw(b"\x00\x00").raw(vec![0; 200 << 10])).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        for _ in 0..MESSAGES {
            assert_eq!(wire.message().await.payload.len(), payload.len());
        }
        wire.closed_with(0x81).await;
    }
}

#[tokio::test]
async fn a_server_that_stops_says_so() {
    let mut hub = hub_with("").await;
    let mut new = Wire::connect(&hub, Level::V5, "goodbye-stop-5").await;
    let mut old = Wire::connect(&hub, Level::V311, "goodbye-stop-4").await;
    hub.terminate().await;
    new.closed_with(0x8b).await;
    old.closed().await;
}

#[tokio::test]
async fn a_server_that_stops_does_not_wait_for_who_has_not_come_yet() {
    let mut hub = hub_with("").await;
    let mut silent = Wire::open(&hub, Level::V5).await;
    let mut begun = Wire::open(&hub, Level::V5).await;
    begun.send(&connect(Level::V5, "goodbye-begun").bytes()[..10]).await;
    Wire::connect(&hub, Level::V5, "goodbye-other").await.disconnect().await;
    let began = Instant::now();
    hub.terminate().await;
    assert!(began.elapsed() < Duration::from_secs(2), "it took {:?}", began.elapsed());
    silent.closed().await;
    begun.closed().await;
}

#[tokio::test]
async fn an_error_of_the_servers_own_for_3_1_1_closes() {
    // A payload over the limit cannot be refused in any other way: 3.1.1 has no code for it.
    let hub = hub_with("payload_bytes_max: 10B, packet_bytes_max: 1KiB").await;
    for qos in 0..=2 {
        let mut wire = Wire::connect(&hub, Level::V311, "goodbye-transient").await;
        wire.send(&publish("a", [b'x'; 11]).qos(qos, 1)).await;
        wire.closed().await;
    }
}
