//! SUBSCRIBE and SUBACK (3.8, 3.9).

use tidemill_tests::mqtt::Level;

use crate::hubs::{hub, refused};
use crate::wire::*;

/// Subscription option: not what this client has published itself.
const NO_LOCAL: u8 = 0x04;

#[tokio::test]
async fn it_is_answered_with_its_identifier_and_a_code_for_each_filter_in_order() {
    let hub = hub().await;
    for level in BOTH {
        let mut wire = Wire::connect(&hub, level, &at(level, "subscribe-codes")).await;
        let filters = [("a", 2), ("b/#/c", 0), ("c", 0), ("", 1), ("d/+", 1), ("e+", 2)];
        wire.send(&subscribe(0xfedc, &filters)).await;
        match level {
            Level::V311 => wire.expect(b"\x90\x08\xfe\xdc\x02\x80\x00\x80\x01\x80").await,
            Level::V5 => wire.expect(b"\x90\x09\xfe\xdc\x00\x02\x8f\x00\x8f\x01\x8f").await,
        }
    }
}

#[tokio::test]
async fn each_qos_that_is_asked_for_is_granted() {
    let hub = hub().await;
    for level in BOTH {
        let mut wire = Wire::connect(&hub, level, &at(level, "subscribe-granted")).await;
        for qos in 0..=2 {
            wire.send(&subscribe(0x5ab, &[("subscribe/granted", qos)])).await;
            wire.granted(&[qos]).await;
        }
    }
}

#[tokio::test]
async fn many_filters_are_as_many_subscribes() {
    let hub = hub().await;
    for level in BOTH {
        let mut wire = Wire::connect(&hub, level, &at(level, "subscribe-many")).await;
        let (one, two) = (at(level, "subscribe/many/1"), at(level, "subscribe/many/2"));
        // The last word on a filter holds.
        wire.send(&subscribe(0x5ab, &[(&one, 0), (&two, 1), (&one, 2)])).await;
        wire.granted(&[0, 1, 2]).await;
        wire.publish_exactly_once(publish(&one, "x")).await;
        assert_eq!(wire.message().await.qos, 2);
        wire.publish_exactly_once(publish(&two, "x")).await;
        assert_eq!(wire.message().await.qos, 1);
        wire.silent().await;
    }
}

#[tokio::test]
async fn without_a_filter_it_is_refused() {
    for level in BOTH {
        refused(level, subscribe::<&str>(1, &[]), 0x82).await;
    }
}

#[tokio::test]
async fn reserved_options_are_refused() {
    for options in [3, 0x30, 0x40, 0x80, 0xc0] {
        refused(Level::V5, subscribe(1, &[("a", options)]), 0x81).await;
    }
    // In 3.1.1 there is nothing but the QoS.
    for options in [3, 4, 8, 0x10, 0x20, 0x40, 0x80] {
        refused(Level::V311, subscribe(1, &[("a", options)]), 0x81).await;
    }
}

#[tokio::test]
async fn the_lower_of_both_qos_is_delivered() {
    let hub = hub().await;
    for level in BOTH {
        let mut publisher = Wire::connect(&hub, level, &at(level, "subscribe-qos-publisher")).await;
        for granted in 0..=2 {
            let topic = at(level, &format!("subscribe/qos/{granted}"));
            let mut wire = Wire::connect(&hub, level, &at(level, "subscribe-qos")).await;
            wire.subscribe(&topic, granted).await;
            publisher.send(&publish(&topic, "x")).await;
            assert_eq!(wire.message().await.qos, 0);
            publisher.publish(publish(&topic, "x")).await;
            assert_eq!(wire.message().await.qos, granted.min(1));
            publisher.publish_exactly_once(publish(&topic, "x").retain()).await;
            assert_eq!(wire.message().await.qos, granted);
            // Retained messages as well.
            let mut late = Wire::connect(&hub, level, &at(level, "subscribe-qos-late")).await;
            late.subscribe(&topic, granted).await;
            assert_eq!(late.message().await.qos, granted);
        }
    }
}

#[tokio::test]
async fn the_same_filter_again_replaces_the_subscription() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "subscribe/again");
        let mut wire = Wire::connect(&hub, level, &at(level, "subscribe-again")).await;
        let mut publisher = Wire::connect(&hub, level, &at(level, "subscribe-publisher")).await;
        publisher.publish(publish(&topic, "retained").retain()).await;
        wire.subscribe(&topic, 0).await;
        assert_eq!(wire.message().await.qos, 0);
        wire.subscribe(&topic, 2).await;
        let message = wire.message().await;
        assert_eq!((message.text(), message.qos, message.retain), ("retained", 1, true), "sent again");
        publisher.publish_exactly_once(publish(&topic, "x")).await;
        let message = wire.message().await;
        assert_eq!((message.text(), message.qos), ("x", 2));
        wire.silent().await;
        // There is one subscription, and it can be taken away once.
        wire.send(&unsubscribe(1, &[&topic])).await;
        assert_eq!(wire.frame().await[0], 0xb0);
        publisher.publish(publish(&topic, "x")).await;
        wire.silent().await;
    }
}

#[tokio::test]
async fn nothing_is_lost_while_a_subscription_is_replaced() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "subscribe/flow");
        let mut wire = Wire::connect(&hub, level, &at(level, "subscribe-flow")).await;
        let mut publisher = Wire::connect(&hub, level, &at(level, "subscribe-flow-publisher")).await;
        wire.subscribe(&topic, 0).await;
        let publishing = async {
            for number in 0..200 {
                publisher.send(&publish(&topic, format!("{number}"))).await;
            }
        };
        let reading = async {
            let mut seen = 0;
            while seen < 200 {
                if seen % 20 == 0 {
                    wire.send(&subscribe(1, &[(&topic, 0)])).await;
                }
                let frame = wire.frame().await;
                if frame[0] >> 4 == 3 {
                    assert_eq!(Message::read(level, &frame).text(), format!("{seen}"));
                    seen += 1;
                } else {
                    assert_eq!(frame[0], 0x90);
                }
            }
        };
        tokio::join!(publishing, reading);
    }
}

#[tokio::test]
async fn no_local_leaves_out_what_the_client_published() {
    let hub = hub().await;
    let mut wire = Wire::connect(&hub, Level::V5, "subscribe-local").await;
    let mut other = Wire::connect(&hub, Level::V5, "subscribe-local-other").await;
    other.subscribe("subscribe/local", 0).await;
    wire.publish(publish("subscribe/local", "mine, retained").retain()).await;
    wire.subscribe("subscribe/local", NO_LOCAL).await;
    wire.publish(publish("subscribe/local", "mine")).await;
    other.publish(publish("subscribe/local", "the other's")).await;
    assert_eq!(wire.message().await.text(), "the other's");
    wire.silent().await;
    for text in ["mine, retained", "mine", "the other's"] {
        assert_eq!(other.message().await.text(), text);
    }
    // By identifier, not by connection.
    drop(wire);
    let mut wire = Wire::connect(&hub, Level::V5, "subscribe-local").await;
    wire.subscribe("subscribe/local", NO_LOCAL | 0x20).await;
    wire.publish(publish("subscribe/local", "mine again")).await;
    wire.silent().await;
    wire.subscribe("subscribe/local", 0x20).await;
    wire.publish(publish("subscribe/local", "mine at last")).await;
    assert_eq!(wire.message().await.text(), "mine at last");
}

#[tokio::test]
async fn an_identifier_comes_with_its_messages() {
    let hub = hub().await;
    let mut wire = Wire::connect(&hub, Level::V5, "subscribe-id").await;
    for id in [1, 127, 128, 268_435_455] {
        wire.send(&subscribe(0x5ab, &[("subscribe/id", 0)]).with(&subscription_id(id))).await;
        wire.granted(&[0]).await;
        wire.publish(publish("subscribe/id", "x")).await;
        wire.expect(&publish("subscribe/id", "x").with(&subscription_id(id))).await;
    }
    // Without one the new subscription has none.
    wire.subscribe("subscribe/id", 0).await;
    wire.publish(publish("subscribe/id", "x")).await;
    wire.expect(&publish("subscribe/id", "x")).await;
}

#[tokio::test]
async fn an_identifier_is_kept_with_the_session() {
    let hub = hub().await;
    let lasting = connect(Level::V5, "subscribe-id-kept").lasting();
    let mut wire = Wire::with(&hub, &lasting).await;
    wire.send(&subscribe(0x5ab, &[("subscribe/id/kept", 0)]).with(&subscription_id(9))).await;
    wire.granted(&[0]).await;
    wire.disconnect().await;
    let mut wire = Wire::with(&hub, &lasting).await;
    wire.publish(publish("subscribe/id/kept", "x")).await;
    wire.expect(&publish("subscribe/id/kept", "x").with(&subscription_id(9))).await;
}

#[tokio::test]
async fn a_subscription_holds_when_its_answer_is_there() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "subscribe/holds");
        let mut other = Wire::connect(&hub, level, &at(level, "subscribe-holds-other")).await;
        for round in 0..20 {
            let mut wire = Wire::connect(&hub, level, &at(level, &format!("subscribe-holds-{round}"))).await;
            wire.subscribe(&topic, 1).await;
            other.send(&publish(&topic, "x")).await;
            wire.expect(&publish(&topic, "x")).await;
        }
    }
}
