//! Overlapping subscriptions (3.3.4 in 5.0, 3.3.5 in 3.1.1): one copy that says all.

use tidemill_tests::mqtt::Level;

use crate::hubs::hub;
use crate::wire::*;

#[tokio::test]
async fn a_message_comes_once_with_the_highest_qos() {
    let hub = hub().await;
    for level in BOTH {
        let base = at(level, "overlap/qos");
        let mut wire = Wire::connect(&hub, level, &at(level, "overlap-qos")).await;
        for (filter, qos) in [("+", 0), ("#", 2), ("a", 1)] {
            wire.subscribe(format!("{base}/{filter}"), qos).await;
        }
        let mut other = Wire::connect(&hub, level, &at(level, "overlap-qos-other")).await;
        other.publish_exactly_once(publish(format!("{base}/a"), "x")).await;
        let message = wire.message().await;
        assert_eq!((message.text(), message.qos), ("x", 2));
        wire.silent().await;
        // The published QoS still bounds it.
        other.publish(publish(format!("{base}/a"), "y")).await;
        assert_eq!(wire.message().await.qos, 1);
        wire.silent().await;
    }
}

#[tokio::test]
async fn one_copy_carries_the_identifiers_of_all_that_match() {
    let hub = hub().await;
    let mut wire = Wire::connect(&hub, Level::V5, "overlap-ids").await;
    for (filter, id) in
        [("overlap/ids/+", 7), ("overlap/ids/#", 300), ("overlap/ids/a", 7), ("overlap/no", 9)]
    {
        wire.send(&subscribe(0x5ab, &[(filter, 0)]).with(&subscription_id(id))).await;
        wire.granted(&[0]).await;
    }
    wire.subscribe("+/ids/a", 0).await;
    wire.publish(publish("overlap/ids/a", "x")).await;
    let mut ids = wire.message().await.properties.subscription_ids();
    // An identifier that two subscriptions share may be said once or twice.
    ids.dedup();
    assert_eq!(ids, [7, 300]);
    wire.silent().await;
}

#[tokio::test]
async fn no_local_and_retain_as_published_hold_for_their_own_subscription() {
    let hub = hub().await;
    let mut wire = Wire::connect(&hub, Level::V5, "overlap-options").await;
    // One of two subscriptions leaves out what is the client's own; the other one does not.
    wire.subscribe("overlap/options/+", 0x04).await;
    wire.subscribe("overlap/options/a", 0).await;
    wire.publish(publish("overlap/options/a", "mine")).await;
    assert_eq!(wire.message().await.text(), "mine");
    wire.publish(publish("overlap/options/b", "mine")).await;
    wire.silent().await;
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_when_a_session_comes_back() {
    let hub = hub().await;
    for level in BOTH {
        let base = at(level, "overlap/back");
        let lasting = connect(level, at(level, "overlap-back")).lasting();
        let mut wire = Wire::with(&hub, &lasting).await;
        wire.subscribe(format!("{base}/+"), 1).await;
        wire.subscribe(format!("{base}/#"), 1).await;
        wire.disconnect().await;
        let mut other = Wire::connect(&hub, level, &at(level, "overlap-back-other")).await;
        for number in 0..20 {
            other.publish(publish(format!("{base}/a"), format!("{number}"))).await;
        }
        let mut wire = Wire::with(&hub, &lasting).await;
        for number in 0..20 {
            let message = wire.message().await;
            assert_eq!(message.text(), format!("{number}"));
            wire.send(&puback(message.id)).await;
        }
        wire.silent().await;
    }
}
