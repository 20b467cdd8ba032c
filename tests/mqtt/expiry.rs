//! Message expiry (5.0: 3.3.2.3.3, 4.3.3).

use std::time::Duration;

use tidemill_tests::mqtt::Level;
use tokio::time::sleep;

use crate::hubs::hub;
use crate::wire::*;

#[tokio::test]
async fn what_has_expired_is_not_sent() {
    let hub = hub().await;
    let lasting = connect(Level::V5, "expiry-gone").lasting();
    let mut wire = Wire::with(&hub, &lasting).await;
    wire.subscribe("expiry/gone", 2).await;
    wire.disconnect().await;
    let mut other = Wire::connect(&hub, Level::V5, "expiry-other").await;
    other.publish(publish("expiry/gone", "short").with(&message_expiry(1)).retain()).await;
    other.publish_exactly_once(publish("expiry/gone", "short").with(&message_expiry(1))).await;
    other.publish(publish("expiry/gone", "long").with(&message_expiry(60))).await;
    other.publish(publish("expiry/gone", "for ever")).await;
    sleep(Duration::from_millis(2100)).await;
    let mut wire = Wire::with(&hub, &lasting).await;
    assert_eq!(wire.message().await.text(), "long");
    assert_eq!(wire.message().await.text(), "for ever");
    wire.silent().await;
    // A retained one neither.
    other.subscribe("expiry/gone", 0).await;
    other.silent().await;
}

#[tokio::test]
async fn the_time_it_has_waited_is_taken_off() {
    let hub = hub().await;
    let lasting = connect(Level::V5, "expiry-waited").lasting();
    let mut wire = Wire::with(&hub, &lasting).await;
    wire.subscribe("expiry/waited", 1).await;
    wire.publish(publish("expiry/waited", "at once").with(&message_expiry(60))).await;
    let left = |message: &Message| message.properties.number(property::MESSAGE_EXPIRY).expect("an expiry");
    let message = wire.message().await;
    assert!((59..=60).contains(&left(&message)), "{message:?}");
    wire.send(&puback(message.id)).await;
    wire.disconnect().await;
    let mut other = Wire::connect(&hub, Level::V5, "expiry-waited-other").await;
    other.publish(publish("expiry/waited", "later").with(&message_expiry(60)).retain()).await;
    sleep(Duration::from_millis(2100)).await;
    let mut wire = Wire::with(&hub, &lasting).await;
    let message = wire.message().await;
    assert!((56..=58).contains(&left(&message)), "{message:?}");
    // A retained one is counted down as well.
    other.subscribe("expiry/waited", 0).await;
    let message = other.message().await;
    assert!((56..=58).contains(&left(&message)), "{message:?}");
}

#[tokio::test]
async fn what_was_sent_once_does_not_expire() {
    let hub = hub().await;
    let lasting = connect(Level::V5, "expiry-sent").lasting();
    let mut wire = Wire::with(&hub, &lasting).await;
    wire.subscribe("expiry/sent", 2).await;
    let mut other = Wire::connect(&hub, Level::V5, "expiry-sent-other").await;
    other.publish_exactly_once(publish("expiry/sent", "unreceived").with(&message_expiry(1))).await;
    other.publish_exactly_once(publish("expiry/sent", "received").with(&message_expiry(1))).await;
    let (first, second) = (wire.message().await, wire.message().await);
    wire.send(&pubrec(second.id)).await;
    wire.expect(&pubrel(second.id)).await;
    wire.cut_off().await;
    sleep(Duration::from_millis(2100)).await;
    let mut wire = Wire::with(&hub, &lasting).await;
    let again = wire.message().await;
    assert_eq!((again.text(), again.id, again.dup), ("unreceived", first.id, true));
    wire.expect(&pubrel(second.id)).await;
}

#[tokio::test]
async fn an_exchange_goes_on_when_its_message_has_expired() {
    let hub = hub().await;
    let mut wire = Wire::connect(&hub, Level::V5, "expiry-exchange").await;
    wire.send(&publish("expiry/exchange", "x").qos(2, 7).with(&message_expiry(1))).await;
    wire.expect(&pubrec(7)).await;
    sleep(Duration::from_millis(2100)).await;
    wire.send(&publish("expiry/exchange", "x").qos(2, 7).with(&message_expiry(1)).dup()).await;
    wire.expect(&pubrec(7)).await;
    wire.send(&pubrel(7)).await;
    wire.expect(&pubcomp(7)).await;
}
