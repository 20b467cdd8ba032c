//! Retained messages (3.3.1.3, 3.8.3.1).

use tidemill_tests::mqtt::Level;

use crate::hubs::hub;
use crate::wire::*;

/// Subscription option: the retain flag stays as it was published.
const AS_PUBLISHED: u8 = 0x08;
/// Subscription option: retained messages only for a subscription that is new.
const NEW_ONLY: u8 = 0x10;
/// Subscription option: no retained messages.
const NEVER: u8 = 0x20;

#[tokio::test]
async fn the_last_one_of_each_topic_is_kept_with_its_qos() {
    let hub = hub().await;
    for level in BOTH {
        let (one, two) = (at(level, "retain/last/1"), at(level, "retain/last/2"));
        let mut wire = Wire::connect(&hub, level, &at(level, "retain-last")).await;
        wire.publish(publish(&one, "old").retain()).await;
        wire.publish(publish(&one, "new").retain()).await;
        wire.send(&publish(&two, "qos 2").qos(2, 1).retain()).await;
        wire.expect(&pubrec(1)).await;
        wire.send(&pubrel(1)).await;
        wire.expect(&pubcomp(1)).await;
        let mut late = Wire::connect(&hub, level, &at(level, "retain-late")).await;
        late.subscribe(&one, 2).await;
        let message = late.message().await;
        assert_eq!((message.text(), message.qos, message.retain), ("new", 1, true));
        late.subscribe(&two, 2).await;
        let message = late.message().await;
        assert_eq!((message.text(), message.qos, message.retain), ("qos 2", 2, true));
        late.silent().await;
    }
}

#[tokio::test]
async fn one_with_qos_0_takes_the_place_of_others() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "retain/qos0");
        let mut wire = Wire::connect(&hub, level, &at(level, "retain-qos0")).await;
        wire.publish(publish(&topic, "qos 1").retain()).await;
        wire.send(&publish(&topic, "qos 0").retain()).await;
        wire.publish(publish("fence", "x")).await;
        wire.subscribe(&topic, 2).await;
        wire.expect(&publish(&topic, "qos 0").retain()).await;
        wire.silent().await;
    }
}

#[tokio::test]
async fn an_empty_payload_removes_it_and_is_sent_on() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "retain/empty");
        let mut wire = Wire::connect(&hub, level, &at(level, "retain-empty")).await;
        wire.publish(publish(&topic, "x").retain()).await;
        let mut other = Wire::connect(&hub, level, &at(level, "retain-empty-other")).await;
        other.subscribe(&topic, 0).await;
        assert_eq!(other.message().await.text(), "x");
        wire.publish(publish(&topic, "").retain()).await;
        other.expect(&publish(&topic, "")).await;
        wire.subscribe(&topic, 0).await;
        wire.silent().await;
        // Nor is the empty one kept where there was none before.
        wire.publish(publish(at(level, "retain/never"), "").retain()).await;
        wire.subscribe(at(level, "retain/never"), 0).await;
        wire.silent().await;
    }
}

#[tokio::test]
async fn a_message_without_the_flag_is_not_kept_and_replaces_nothing() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "retain/plain");
        let mut wire = Wire::connect(&hub, level, &at(level, "retain-plain")).await;
        wire.publish(publish(&topic, "not kept")).await;
        wire.subscribe(&topic, 0).await;
        wire.silent().await;
        wire.publish(publish(&topic, "kept").retain()).await;
        assert!(!wire.message().await.retain);
        wire.publish(publish(&topic, "not kept")).await;
        wire.publish(publish(&topic, "")).await;
        let mut late = Wire::connect(&hub, level, &at(level, "retain-plain-late")).await;
        late.subscribe(&topic, 0).await;
        late.expect(&publish(&topic, "kept").retain()).await;
        late.silent().await;
    }
}

#[tokio::test]
async fn all_that_match_are_sent_for_a_new_subscription() {
    let hub = hub().await;
    for level in BOTH {
        let mut wire = Wire::connect(&hub, level, &at(level, "retain-match")).await;
        let base = at(level, "retain/match");
        for topic in ["a", "b", "b/c", "d/e/f"] {
            wire.publish(publish(format!("{base}/{topic}"), topic).retain()).await;
        }
        wire.subscribe(format!("{base}/+"), 0).await;
        let mut seen = [wire.message().await, wire.message().await].map(|message| message.text().to_owned());
        seen.sort();
        assert_eq!(seen, ["a", "b"]);
        wire.silent().await;
        wire.subscribe(format!("{base}/#"), 0).await;
        for _ in 0..4 {
            assert!(wire.message().await.retain);
        }
        wire.silent().await;
    }
}

#[tokio::test]
async fn the_flag_is_1_for_a_new_subscription_and_0_after() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "retain/flag");
        let mut wire = Wire::connect(&hub, level, &at(level, "retain-flag")).await;
        wire.publish(publish(&topic, "before").retain()).await;
        wire.subscribe(&topic, 0).await;
        wire.expect(&publish(&topic, "before").retain()).await;
        wire.publish(publish(&topic, "after").retain()).await;
        wire.expect(&publish(&topic, "after")).await;
    }
}

#[tokio::test]
async fn retain_as_published_leaves_the_flag() {
    let hub = hub().await;
    let mut wire = Wire::connect(&hub, Level::V5, "retain-as-published").await;
    wire.subscribe("retain/published", AS_PUBLISHED).await;
    let mut plain = Wire::connect(&hub, Level::V5, "retain-not-as-published").await;
    plain.subscribe("retain/published", 0).await;
    let mut publisher = Wire::connect(&hub, Level::V5, "retain-publisher").await;
    publisher.publish(publish("retain/published", "kept").retain()).await;
    wire.expect(&publish("retain/published", "kept").retain()).await;
    plain.expect(&publish("retain/published", "kept")).await;
    publisher.publish(publish("retain/published", "passing")).await;
    wire.expect(&publish("retain/published", "passing")).await;
    plain.expect(&publish("retain/published", "passing")).await;
}

#[tokio::test]
async fn retain_handling_0_sends_them_for_every_subscribe() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "retain/handling0");
        let mut wire = Wire::connect(&hub, level, &at(level, "retain-handling0")).await;
        wire.publish(publish(&topic, "x").retain()).await;
        for _ in 0..3 {
            wire.subscribe(&topic, 0).await;
            wire.expect(&publish(&topic, "x").retain()).await;
            wire.silent().await;
        }
    }
}

#[tokio::test]
async fn retain_handling_1_sends_them_for_a_new_subscription() {
    let hub = hub().await;
    let topic = "retain/handling1";
    let mut wire = Wire::connect(&hub, Level::V5, "retain-handling1").await;
    wire.publish(publish(topic, "x").retain()).await;
    wire.subscribe(topic, NEW_ONLY).await;
    wire.expect(&publish(topic, "x").retain()).await;
    wire.subscribe(topic, NEW_ONLY).await;
    wire.silent().await;
    wire.send(&unsubscribe(1, &[topic])).await;
    wire.expect(b"\xb0\x04\x00\x01\x00\x00").await;
    wire.subscribe(topic, NEW_ONLY).await;
    wire.expect(&publish(topic, "x").retain()).await;
}

#[tokio::test]
async fn retain_handling_2_sends_none() {
    let hub = hub().await;
    let topic = "retain/handling2";
    let mut wire = Wire::connect(&hub, Level::V5, "retain-handling2").await;
    wire.publish(publish(topic, "x").retain()).await;
    wire.subscribe(topic, NEVER).await;
    wire.silent().await;
    wire.publish(publish(topic, "y").retain()).await;
    wire.expect(&publish(topic, "y")).await;
}

#[tokio::test]
async fn they_carry_identifier_and_properties_and_the_lower_qos() {
    let hub = hub().await;
    let mut wire = Wire::connect(&hub, Level::V5, "retain-rest").await;
    wire.publish(publish("retain/rest", "x").retain().with(&user_property("a", "1"))).await;
    wire.send(&subscribe(0x5ab, &[("retain/rest", 0)]).with(&subscription_id(300))).await;
    wire.granted(&[0]).await;
    let message = wire.message().await;
    assert_eq!((message.qos, message.properties.subscription_ids()), (0, vec![300]));
    assert_eq!(message.properties.all(property::USER_PROPERTY).len(), 1);
}
