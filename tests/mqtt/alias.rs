//! Topic aliases (5.0: 3.1.2.11.5, 3.2.2.3.8, 3.3.2.3.4), both ways.

use tidemill_tests::mqtt::Level;

use crate::hubs::{hub, hub_with};
use crate::wire::*;

#[tokio::test]
async fn every_alias_up_to_the_maximum_is_taken() {
    let hub = hub().await;
    let (mut wire, connack) = Wire::accepted(&hub, &connect(Level::V5, "alias-all")).await;
    let maximum = connack.properties.number(property::TOPIC_ALIAS_MAXIMUM).expect("aliases");
    let maximum = u16::try_from(maximum).expect("two bytes");
    wire.subscribe("alias/all/+", 0).await;
    for alias in 1..=maximum {
        wire.send(&publish(format!("alias/all/{alias}"), "set").with(&topic_alias(alias))).await;
        wire.expect(&publish(format!("alias/all/{alias}"), "set")).await;
    }
    for alias in 1..=maximum {
        wire.send(&publish("", "used").with(&topic_alias(alias))).await;
        wire.expect(&publish(format!("alias/all/{alias}"), "used")).await;
    }
    // One that is set again stands for the new topic.
    wire.send(&publish("alias/all/new", "set").with(&topic_alias(1))).await;
    wire.expect(&publish("alias/all/new", "set")).await;
    wire.send(&publish("", "used").with(&topic_alias(1))).await;
    wire.expect(&publish("alias/all/new", "used")).await;
}

#[tokio::test]
async fn an_alias_goes_with_qos_1_and_2_too() {
    let hub = hub().await;
    let mut wire = Wire::connect(&hub, Level::V5, "alias-qos").await;
    let mut watcher = Wire::connect(&hub, Level::V5, "alias-qos-watcher").await;
    watcher.subscribe("alias/qos", 0).await;
    wire.publish(publish("alias/qos", "one").with(&topic_alias(3))).await;
    wire.publish_exactly_once(publish("", "two").with(&topic_alias(3))).await;
    watcher.expect(&publish("alias/qos", "one")).await;
    watcher.expect(&publish("alias/qos", "two")).await;
}

#[tokio::test]
async fn one_of_0_or_over_the_maximum_is_refused() {
    let hub = hub().await;
    let (_, connack) = Wire::accepted(&hub, &connect(Level::V5, "alias-bad")).await;
    let maximum = connack.properties.number(property::TOPIC_ALIAS_MAXIMUM).expect("aliases");
    let over = u16::try_from(maximum + 1).expect("two bytes");
    for alias in [0, over, 0xffff] {
        let mut wire = Wire::nobody(&hub, Level::V5).await;
        wire.send(&publish("a", "x").with(&topic_alias(alias))).await;
        wire.closed_with(0x94).await;
    }
}

#[tokio::test]
async fn none_may_be_used_where_none_is_allowed() {
    let hub = hub_with("topic_alias_max: 0").await;
    let (mut wire, connack) = Wire::accepted(&hub, &connect(Level::V5, "alias-none")).await;
    assert!(connack.properties.number(property::TOPIC_ALIAS_MAXIMUM).is_none_or(|maximum| maximum == 0));
    wire.send(&publish("a", "x").with(&topic_alias(1))).await;
    wire.closed_with(0x94).await;
}

#[tokio::test]
async fn one_that_stands_for_nothing_is_refused() {
    let hub = hub().await;
    let mut wire = Wire::connect(&hub, Level::V5, "alias-unknown").await;
    wire.send(&publish("", "x").with(&topic_alias(1))).await;
    wire.closed_with(0x82).await;
}

#[tokio::test]
async fn they_end_with_their_connection() {
    let hub = hub().await;
    let lasting = connect(Level::V5, "alias-end").lasting();
    let mut wire = Wire::with(&hub, &lasting).await;
    wire.publish(publish("a", "x").with(&topic_alias(1))).await;
    wire.disconnect().await;
    let (mut wire, connack) = Wire::accepted(&hub, &lasting).await;
    assert!(connack.session_present);
    wire.send(&publish("", "x").with(&topic_alias(1))).await;
    wire.closed_with(0x82).await;
}

#[tokio::test]
async fn the_server_uses_none_that_were_not_allowed() {
    let hub = hub().await;
    for (name, property) in [("alias-not", bytes()), ("alias-zero", topic_alias_maximum(0))] {
        let mut wire = Wire::with(&hub, &connect(Level::V5, name).with(&property)).await;
        wire.subscribe(name, 0).await;
        for _ in 0..5 {
            wire.send(&publish(name, "x")).await;
            wire.expect(&publish(name, "x")).await;
        }
    }
}

#[tokio::test]
async fn the_server_uses_none_over_the_clients_maximum() {
    let hub = hub().await;
    let mut wire = Wire::with(&hub, &connect(Level::V5, "alias-out").with(&topic_alias_maximum(2))).await;
    wire.subscribe("alias/out/+", 0).await;
    let mut topics = [None, None, None];
    for round in 0..4 {
        for name in ["a", "b", "c", "d"] {
            let topic = format!("alias/out/{name}");
            wire.send(&publish(&topic, format!("{round}"))).await;
            let message = wire.message().await;
            // The topic itself, or an alias that was given it on this connection.
            let said = match message.properties.number(property::TOPIC_ALIAS) {
                None => Some(message.topic),
                Some(alias) => {
                    assert!((1..=2).contains(&alias), "alias {alias}");
                    let place = &mut topics[alias as usize];
                    if !message.topic.is_empty() {
                        *place = Some(message.topic);
                    }
                    place.clone()
                }
            };
            assert_eq!(said, Some(topic));
        }
    }
}

#[tokio::test]
async fn the_server_uses_those_that_are_allowed_for_each_connection_anew() {
    let hub = hub().await;
    let allowing = connect(Level::V5, "alias-used").lasting().with(&topic_alias_maximum(1));
    for _ in 0..2 {
        let mut wire = Wire::with(&hub, &allowing).await;
        wire.subscribe("alias/used", 0).await;
        wire.send(&publish("alias/used", "x")).await;
        wire.expect(&publish("alias/used", "x").with(&topic_alias(1))).await;
        wire.send(&publish("alias/used", "x")).await;
        wire.expect(&publish("", "x").with(&topic_alias(1))).await;
        wire.disconnect().await;
    }
}
