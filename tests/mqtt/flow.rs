//! Flow control by Receive Maximum (5.0: 3.1.2.11.3, 3.2.2.3.3, 3.3.4, 4.9), both ways.

use tidemill_tests::mqtt::Level;

use crate::hubs::{hub, hub_with};
use crate::wire::*;

#[tokio::test]
async fn no_more_than_the_client_takes_are_sent_to_it() {
    let hub = hub().await;
    let mut wire = Wire::with(&hub, &connect(Level::V5, "flow-out").with(&receive_maximum(2))).await;
    wire.subscribe("flow/out", 2).await;
    let mut other = Wire::connect(&hub, Level::V5, "flow-out-other").await;
    for number in 0..3 {
        other.publish(publish("flow/out", format!("{number}"))).await;
        other.publish_exactly_once(publish("flow/out", format!("{number}"))).await;
    }
    let (one, two) = (wire.message().await, wire.message().await);
    wire.silent().await;
    // PUBREC is no end; PUBCOMP and PUBACK are.
    wire.send(&pubrec(two.id)).await;
    wire.expect(&pubrel(two.id)).await;
    wire.silent().await;
    wire.send(&puback(one.id)).await;
    let three = wire.message().await;
    wire.silent().await;
    wire.send(&pubcomp(two.id)).await;
    let four = wire.message().await;
    wire.silent().await;
    assert_eq!([three.text(), four.text()], ["1", "1"]);
    // Neither is a PUBREC that refuses.
    wire.send(&bytes().u16(four.id).u8(0x97).packet(0x50)).await;
    assert_eq!(wire.message().await.text(), "2");
    wire.silent().await;
}

#[tokio::test]
async fn everything_else_goes_on_while_the_window_is_full() {
    let hub = hub().await;
    let mut wire = Wire::with(&hub, &connect(Level::V5, "flow-full").with(&receive_maximum(1))).await;
    wire.subscribe("flow/full", 1).await;
    wire.publish(publish("flow/full", "in flight")).await;
    wire.publish(publish("flow/full", "waits")).await;
    let message = wire.message().await;
    wire.silent().await;
    wire.subscribe("flow/other", 0).await;
    wire.send(&publish("flow/other", "qos 0")).await;
    wire.expect(&publish("flow/other", "qos 0")).await;
    wire.publish_exactly_once(publish("flow/nobody", "x")).await;
    wire.send(&unsubscribe(9, &["flow/other"])).await;
    wire.expect(b"\xb0\x04\x00\x09\x00\x00").await;
    wire.silent().await;
    wire.send(&puback(message.id)).await;
    assert_eq!(wire.message().await.text(), "waits");
}

#[tokio::test]
async fn what_is_sent_again_counts_as_well() {
    let hub = hub().await;
    let lasting = connect(Level::V5, "flow-again").lasting();
    let mut wire = Wire::with(&hub, &lasting).await;
    wire.subscribe("flow/again", 1).await;
    for number in 0..5 {
        wire.publish(publish("flow/again", format!("{number}"))).await;
    }
    for _ in 0..5 {
        wire.message().await;
    }
    wire.cut_off().await;
    // A client may come back with less room.
    let mut wire = Wire::with(&hub, &lasting.with(&receive_maximum(2))).await;
    for number in 0..5 {
        let message = wire.message().await;
        assert_eq!((message.text(), message.dup), (&*format!("{number}"), true));
        if number == 0 {
            // The second is on its way already; a third is not.
            let second = wire.message().await;
            wire.silent().await;
            wire.send(&puback(message.id)).await;
            wire.send(&puback(second.id)).await;
            assert_eq!(wire.message().await.text(), "2");
            assert_eq!(wire.message().await.text(), "3");
            wire.silent().await;
            return;
        }
    }
}

#[tokio::test]
async fn more_than_the_server_takes_is_an_error() {
    let hub = hub_with("receive_maximum: 2").await;
    let (mut wire, connack) = Wire::accepted(&hub, &connect(Level::V5, "flow-in")).await;
    assert_eq!(connack.properties.number(property::RECEIVE_MAXIMUM), Some(2));
    for id in [1, 2] {
        wire.send(&publish("flow/in", "x").qos(2, id)).await;
        wire.expect(&pubrec(id)).await;
    }
    // One of these again is no further one.
    wire.send(&publish("flow/in", "x").qos(2, 2).dup()).await;
    wire.expect(&pubrec(2)).await;
    wire.send(&pubrel(1)).await;
    wire.expect(&pubcomp(1)).await;
    wire.publish(publish("flow/in", "x")).await;
    wire.send(&publish("flow/in", "x").qos(2, 3)).await;
    wire.expect(&pubrec(3)).await;
    wire.send(&publish("flow/in", "x").qos(2, 4)).await;
    wire.closed_with(0x93).await;
}

#[tokio::test]
async fn the_count_starts_anew_with_each_connection() {
    let hub = hub_with("receive_maximum: 2").await;
    let lasting = connect(Level::V5, "flow-anew").lasting();
    let mut wire = Wire::with(&hub, &lasting).await;
    for id in [1, 2] {
        wire.send(&publish("flow/anew", "x").qos(2, id)).await;
        wire.expect(&pubrec(id)).await;
    }
    wire.cut_off().await;
    let mut wire = Wire::with(&hub, &lasting).await;
    for id in [3, 4] {
        wire.send(&publish("flow/anew", "x").qos(2, id)).await;
        wire.expect(&pubrec(id)).await;
    }
}

#[tokio::test]
async fn a_client_of_3_1_1_is_slowed_down_and_not_cut_off() {
    let hub = hub_with("receive_maximum: 2").await;
    let mut wire = Wire::connect(&hub, Level::V311, "flow-old").await;
    let all = (1..=50).fold(bytes(), |all, id| all.raw(publish("flow/old", "x").qos(1, id).at(Level::V311)));
    wire.send(&all).await;
    for id in 1..=50 {
        wire.expect(&puback(id)).await;
    }
}
