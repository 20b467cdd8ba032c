//! Sessions: what outlives a connection, and for how long (3.1.2.4, 3.1.2.11.2, 3.1.4, 4.1).

use std::time::Duration;

use tidemill_tests::mqtt::Level;
use tokio::time::sleep;

use crate::hubs::hub;
use crate::wire::*;

#[tokio::test]
async fn a_clean_start_discards_what_there_was() {
    let hub = hub().await;
    for level in BOTH {
        let (client, topic) = (at(level, "session-clean"), at(level, "session/clean"));
        let mut wire = Wire::with(&hub, &connect(level, &client).lasting()).await;
        wire.subscribe(&topic, 1).await;
        wire.publish(publish(&topic, "in flight")).await;
        assert_eq!(wire.message().await.qos, 1);
        wire.disconnect().await;
        let (mut wire, connack) = Wire::accepted(&hub, &connect(level, &client)).await;
        assert!(!connack.session_present);
        wire.silent().await;
        // The subscription is gone too.
        wire.publish(publish(&topic, "x")).await;
        wire.silent().await;
    }
}

#[tokio::test]
async fn a_session_that_was_clean_leaves_nothing() {
    let hub = hub().await;
    for level in BOTH {
        let (client, topic) = (at(level, "session-once"), at(level, "session/once"));
        let mut wire = Wire::connect(&hub, level, &client).await;
        wire.subscribe(&topic, 1).await;
        wire.disconnect().await;
        let mut other = Wire::connect(&hub, level, &at(level, "session-once-other")).await;
        other.publish(publish(&topic, "x")).await;
        let (mut wire, connack) = Wire::accepted(&hub, &connect(level, &client).lasting()).await;
        assert!(!connack.session_present);
        wire.silent().await;
        wire.publish(publish(&topic, "y")).await;
        wire.silent().await;
    }
}

#[tokio::test]
async fn a_session_goes_on_with_its_subscriptions_and_what_came_meanwhile() {
    let hub = hub().await;
    for level in BOTH {
        let (client, topic) = (at(level, "session-on"), at(level, "session/on"));
        let lasting = connect(level, &client).lasting();
        let mut wire = Wire::with(&hub, &lasting).await;
        wire.subscribe(&topic, 2).await;
        wire.disconnect().await;
        let mut other = Wire::connect(&hub, level, &at(level, "session-on-other")).await;
        other.publish(publish(&topic, "one")).await;
        other.send(&publish(&topic, "two").qos(2, 9)).await;
        other.expect(&pubrec(9)).await;
        other.send(&pubrel(9)).await;
        other.expect(&pubcomp(9)).await;
        let (mut wire, connack) = Wire::accepted(&hub, &lasting).await;
        assert!(connack.session_present);
        let (one, two) = (wire.message().await, wire.message().await);
        assert_eq!((one.text(), one.qos, two.text(), two.qos), ("one", 1, "two", 2));
        other.publish(publish(&topic, "three")).await;
        assert_eq!(wire.message().await.text(), "three", "the subscription goes on");
    }
}

#[tokio::test]
async fn a_session_belongs_to_its_identifier() {
    let hub = hub().await;
    for level in BOTH {
        let first = connect(level, at(level, "session-name-a")).lasting();
        let second = connect(level, at(level, "session-name-b")).lasting();
        let mut wire = Wire::with(&hub, &first).await;
        wire.subscribe(at(level, "session/name"), 1).await;
        wire.disconnect().await;
        let (mut wire, connack) = Wire::accepted(&hub, &second).await;
        assert!(!connack.session_present);
        wire.publish(publish(at(level, "session/name"), "x")).await;
        wire.silent().await;
        let (mut wire, connack) = Wire::accepted(&hub, &first).await;
        assert!(connack.session_present);
        assert_eq!(wire.message().await.text(), "x");
    }
}

#[tokio::test]
async fn a_session_lives_as_long_as_its_expiry_and_no_longer() {
    let hub = hub().await;
    let expiring = connect(Level::V5, "session-expiry").flags(0).with(&session_expiry(2));
    let mut wire = Wire::with(&hub, &expiring).await;
    // The time counts from the end of the connection.
    wire.silent_for(Duration::from_millis(2300)).await;
    wire.disconnect().await;
    sleep(Duration::from_millis(700)).await;
    let (wire, connack) = Wire::accepted(&hub, &expiring).await;
    assert!(connack.session_present, "less than 2 s have passed");
    wire.cut_off().await;
    sleep(Duration::from_millis(2500)).await;
    assert!(!Wire::accepted(&hub, &expiring).await.1.session_present, "2 s have passed");
}

#[tokio::test]
async fn without_an_expiry_a_session_of_5_0_ends_with_its_connection() {
    let hub = hub().await;
    for connect in [
        connect(Level::V5, "session-none").flags(0),
        connect(Level::V5, "session-none").flags(0).with(&session_expiry(0)),
    ] {
        Wire::with(&hub, &connect).await.disconnect().await;
        assert!(!Wire::accepted(&hub, &connect).await.1.session_present);
    }
}

#[tokio::test]
async fn the_expiry_can_be_changed_when_saying_goodbye() {
    let hub = hub().await;
    let lasting = connect(Level::V5, "session-goodbye").lasting();
    let mut wire = Wire::with(&hub, &lasting).await;
    wire.send(&bytes().u8(0).section(&session_expiry(0)).packet(0xe0)).await;
    wire.closed().await;
    assert!(!Wire::accepted(&hub, &lasting).await.1.session_present);
}

#[tokio::test]
async fn a_session_that_was_to_end_cannot_be_kept_after_all() {
    let hub = hub().await;
    let connect = connect(Level::V5, "session-regret").flags(0);
    let mut wire = Wire::with(&hub, &connect).await;
    wire.send(&bytes().u8(0).section(&session_expiry(9)).packet(0xe0)).await;
    wire.closed_with(0x82).await;
    assert!(!Wire::accepted(&hub, &connect).await.1.session_present);
}

#[tokio::test]
async fn the_same_identifier_takes_the_session_over() {
    let hub = hub().await;
    for (first, second) in [
        (Level::V311, Level::V311),
        (Level::V311, Level::V5),
        (Level::V5, Level::V311),
        (Level::V5, Level::V5),
    ] {
        let client = format!("session-over-{}{}", first as u8, second as u8);
        let topic = client.replace('-', "/");
        let mut old = Wire::with(&hub, &connect(first, &client).lasting()).await;
        old.subscribe(&topic, 1).await;
        let (mut new, connack) = Wire::accepted(&hub, &connect(second, &client).lasting()).await;
        assert!(connack.session_present);
        old.closed_with(0x8e).await;
        new.publish(publish(&topic, "x")).await;
        assert_eq!(new.message().await.text(), "x");
        // A clean start takes over as well, and finds nothing.
        let (_, connack) = Wire::accepted(&hub, &connect(second, &client)).await;
        assert!(!connack.session_present);
        new.closed_with(0x8e).await;
    }
}

#[tokio::test]
async fn a_session_is_kept_while_its_connection_is_open() {
    let hub = hub().await;
    let mut wire = Wire::with(&hub, &connect(Level::V5, "session-open").with(&session_expiry(1))).await;
    wire.subscribe("session/open", 1).await;
    // Longer than the expiry, which does not count before the end of the connection.
    wire.silent_for(Duration::from_millis(1500)).await;
    wire.publish(publish("session/open", "x")).await;
    assert_eq!(wire.message().await.text(), "x");
}

#[tokio::test]
async fn retained_messages_outlive_sessions() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "session/retained");
        let mut wire = Wire::connect(&hub, level, &at(level, "session-retained")).await;
        wire.publish(publish(&topic, "kept").retain()).await;
        wire.disconnect().await;
        let mut wire = Wire::connect(&hub, level, &at(level, "session-retained")).await;
        wire.subscribe(&topic, 0).await;
        assert_eq!(wire.message().await.text(), "kept");
    }
}
