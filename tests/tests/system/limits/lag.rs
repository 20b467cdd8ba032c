//! Subscribers that are too far behind: they wait, are disconnected, or skip to the newest.

use tidemill_tests::mqtt::{Client, Connect, Packet, Publish};
use tidemill_tests::services::Tidemill;
use tidemill_tests::wait;

use super::{LIMIT, acknowledge, hub, reached, take_three};

/// A session that subscribes to `a` with QoS 1 and has three messages that it does not acknowledge, of `count` numbers.
async fn slow_subscriber(hub: &Tidemill, count: u32) -> (Client, Vec<u16>) {
    let mut slow = Client::connect(hub.mqtt(), &Connect::persistent("slow")).await;
    slow.subscribe(&[("a", 1)]).await;
    let mut sender = Client::connect(hub.mqtt(), &Connect::clean("sender")).await;
    for number in 0..count {
        sender.publish_acked(Publish::new("a", number.to_string(), 1, 1)).await;
    }
    let ids = take_three(&mut slow).await;
    (slow, ids)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_subscriber_is_disconnected_and_loses_nothing() {
    for bound in ["lag_messages_max: 10", "lag_time_max: 1s"] {
        let limit = bound.split(':').next().unwrap();
        let hub = hub(&format!("inflight_max: 3, lag_policy: disconnect, {bound}")).await;
        let (mut slow, _) = slow_subscriber(&hub, 40).await;
        assert_eq!(slow.reader.until_closed().await, [Packet::Disconnect { reason: 0x97 }], "{bound}");
        assert_eq!(reached(&hub, limit).await, 1.0);
        // Who catches up is let.
        let mut slow = Client::connect(hub.mqtt(), &Connect::persistent("slow")).await;
        assert!(slow.session_present);
        for number in 0..40 {
            assert_eq!(slow.message().await.payload, number.to_string());
        }
        slow.nothing_comes().await;
        assert_eq!(reached(&hub, limit).await, 1.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_subscriber_skips_to_the_newest() {
    for bound in ["lag_messages_max: 10", "lag_time_max: 1s"] {
        let hub = hub(&format!("inflight_max: 3, lag_policy: skip, {bound}")).await;
        let (mut slow, ids) = slow_subscriber(&hub, 40).await;
        let skipped = async || hub.metrics().await.sum("tidemill_mqtt_lag_skipped_total", &[]).unwrap_or(0.0);
        wait::until_eq("messages that were skipped", LIMIT, 36.0, skipped).await;
        acknowledge(&mut slow, ids).await;
        assert_eq!(slow.message().await.payload, "39", "{bound}: the newest");
        slow.nothing_comes().await;
        let limit = bound.split(':').next().unwrap();
        assert_eq!(reached(&hub, limit).await, 1.0);
        // What was skipped is done for: it does not come with the next connection.
        slow.disconnect().await;
        let mut slow = Client::connect(hub.mqtt(), &Connect::persistent("slow")).await;
        assert!(slow.session_present);
        slow.nothing_comes().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_that_overlap_skip_each_to_its_own_newest() {
    for bound in ["lag_messages_max: 10", "lag_time_max: 1s"] {
        let hub = hub(&format!("inflight_max: 3, lag_policy: skip, {bound}")).await;
        let mut slow = Client::connect(hub.mqtt(), &Connect::persistent("slow")).await;
        slow.subscribe(&[("a", 1), ("#", 1)]).await;
        let mut sender = Client::connect(hub.mqtt(), &Connect::clean("sender")).await;
        for number in 0..40 {
            sender.publish_acked(Publish::new("a", number.to_string(), 1, 1)).await;
        }
        sender.publish_acked(Publish::new("b", "late", 1, 1)).await;
        let ids = take_three(&mut slow).await;
        // From 3 to 38 of the one, and to 39 of the other.
        let skipped = async || hub.metrics().await.sum("tidemill_mqtt_lag_skipped_total", &[]).unwrap_or(0.0);
        wait::until_eq("messages that were skipped", LIMIT, 36.0 + 37.0, skipped).await;
        acknowledge(&mut slow, ids).await;
        assert_eq!(slow.message().await.payload, "39", "{bound}: the newest of `a`");
        assert_eq!(slow.message().await.payload, "late", "{bound}: the newest of `#`");
        slow.nothing_comes().await;
        assert_eq!(reached(&hub, bound.split(':').next().unwrap()).await, 2.0);
        slow.disconnect().await;
        let mut slow = Client::connect(hub.mqtt(), &Connect::persistent("slow")).await;
        assert!(slow.session_present);
        slow.nothing_comes().await;
    }
}
