//! What is sent again, when, and in which order (4.4, 4.6, 3.3.1.1).

use tidemill_tests::mqtt::Level;
use tidemill_tests::services::Tidemill;

use crate::hubs::{hub, hub_with};
use crate::wire::*;

/// A lasting session with a message of each kind in flight: QoS 1, QoS 2, and QoS 2 that was received. Says their
/// identifiers.
async fn in_flight(hub: &Tidemill, level: Level, name: &str) -> (Connect, Wire, [u16; 3]) {
    let lasting = connect(level, at(level, name)).lasting();
    let mut wire = Wire::with(hub, &lasting).await;
    wire.subscribe(at(level, name), 2).await;
    let mut other = Wire::connect(hub, level, &at(level, &format!("{name}-other"))).await;
    other.publish(publish(at(level, name), "one")).await;
    other.publish_exactly_once(publish(at(level, name), "two")).await;
    other.publish_exactly_once(publish(at(level, name), "three")).await;
    let mut ids = [0; 3];
    for id in &mut ids {
        let message = wire.message().await;
        assert!(!message.dup);
        *id = message.id;
    }
    wire.send(&pubrec(ids[2])).await;
    wire.expect(&pubrel(ids[2])).await;
    (lasting, wire, ids)
}

/// All of it comes again, in its order.
async fn all_again(wire: &mut Wire, [one, two, three]: [u16; 3]) {
    for (text, id, qos) in [("one", one, 1), ("two", two, 2)] {
        let again = wire.message().await;
        assert_eq!((again.text(), again.id, again.qos, again.dup), (text, id, qos, true));
    }
    // What was received is not sent again, but released again.
    wire.expect(&pubrel(three)).await;
    wire.silent().await;
}

#[tokio::test]
async fn what_was_not_acknowledged_is_sent_again_on_the_next_connection() {
    let hub = hub().await;
    for level in BOTH {
        let (lasting, wire, ids) = in_flight(&hub, level, "resend-next").await;
        wire.cut_off().await;
        let (mut wire, connack) = Wire::accepted(&hub, &lasting).await;
        assert!(connack.session_present);
        all_again(&mut wire, ids).await;
        // And on the one after it.
        wire.disconnect().await;
        let mut wire = Wire::with(&hub, &lasting).await;
        all_again(&mut wire, ids).await;
        // The exchange goes on where it was.
        wire.send(&puback(ids[0])).await;
        wire.send(&pubrec(ids[1])).await;
        wire.expect(&pubrel(ids[1])).await;
        wire.send(&pubcomp(ids[1])).await;
        wire.send(&pubcomp(ids[2])).await;
        wire.silent().await;
        wire.disconnect().await;
        Wire::with(&hub, &lasting).await.silent().await;
    }
}

#[tokio::test]
async fn a_take_over_sends_again_as_well() {
    let hub = hub().await;
    for level in BOTH {
        let (lasting, mut old, ids) = in_flight(&hub, level, "resend-over").await;
        let mut wire = Wire::with(&hub, &lasting).await;
        old.closed_with(0x8e).await;
        all_again(&mut wire, ids).await;
    }
}

#[tokio::test]
async fn nothing_is_sent_again_on_an_open_connection() {
    let hub = hub().await;
    for level in BOTH {
        let (_, mut wire, _) = in_flight(&hub, level, "resend-never").await;
        wire.silent_for(std::time::Duration::from_millis(600)).await;
        wire.silent().await;
    }
}

#[tokio::test]
async fn a_clean_start_sends_nothing_again() {
    let hub = hub().await;
    for level in BOTH {
        let (lasting, wire, _) = in_flight(&hub, level, "resend-clean").await;
        wire.cut_off().await;
        let mut wire = Wire::with(&hub, &connect(level, &lasting.client)).await;
        wire.silent().await;
    }
}

#[tokio::test]
async fn what_comes_again_comes_in_the_order_of_the_first_time() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "resend/order");
        let lasting = connect(level, at(level, "resend-order")).lasting();
        let mut wire = Wire::with(&hub, &lasting).await;
        wire.subscribe(&topic, 2).await;
        let mut other = Wire::connect(&hub, level, &at(level, "resend-order-other")).await;
        for number in 0..30 {
            let message = publish(&topic, format!("{number}"));
            if number % 3 == 0 {
                other.publish_exactly_once(message).await;
            } else {
                other.publish(message).await;
            }
        }
        let mut first = Vec::new();
        for number in 0..30 {
            let message = wire.message().await;
            // Some are acknowledged out of order, so that identifiers are no order either.
            if number % 7 == 1 {
                wire.send(&puback(message.id)).await;
            }
            first.push((message.id, message.payload, message.qos));
        }
        wire.cut_off().await;
        first.retain(|(_, payload, qos)| {
            let number: u32 = String::from_utf8_lossy(payload).parse().expect("a number");
            number % 7 != 1 || *qos == 2
        });
        let mut wire = Wire::with(&hub, &lasting).await;
        for wanted in first {
            let again = wire.message().await;
            assert!(again.dup);
            assert_eq!((again.id, again.payload, again.qos), wanted);
        }
        wire.silent().await;
    }
}

#[tokio::test]
async fn a_qos_2_message_of_a_client_is_known_on_its_next_connection() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "resend/inbound");
        let mut watcher = Wire::connect(&hub, level, &at(level, "resend-watcher")).await;
        watcher.subscribe(&topic, 0).await;
        let lasting = connect(level, at(level, "resend-inbound")).lasting();
        let mut wire = Wire::with(&hub, &lasting).await;
        wire.send(&publish(&topic, "once").qos(2, 5)).await;
        wire.expect(&pubrec(5)).await;
        wire.cut_off().await;
        let mut wire = Wire::with(&hub, &lasting).await;
        wire.send(&publish(&topic, "once").qos(2, 5).dup()).await;
        wire.expect(&pubrec(5)).await;
        wire.cut_off().await;
        let mut wire = Wire::with(&hub, &lasting).await;
        wire.send(&pubrel(5)).await;
        wire.expect(&pubcomp(5)).await;
        assert_eq!(watcher.message().await.text(), "once");
        wire.publish(publish(&topic, "another")).await;
        assert_eq!(watcher.message().await.text(), "another");
    }
}

#[tokio::test]
async fn what_comes_again_keeps_retain_flag_and_properties() {
    let hub = hub().await;
    let lasting = connect(Level::V5, "resend-properties").lasting();
    let mut wire = Wire::with(&hub, &lasting).await;
    wire.publish(publish("resend/properties", "x").retain().with(&user_property("a", "b"))).await;
    wire.send(&subscribe(0x5ab, &[("resend/properties", 1)]).with(&subscription_id(5))).await;
    wire.granted(&[1]).await;
    let first = wire.message().await;
    assert!(first.retain);
    wire.cut_off().await;
    let mut wire = Wire::with(&hub, &lasting).await;
    let again = wire.message().await;
    assert_eq!((again.id, again.retain, again.dup, again.text()), (first.id, true, true, "x"));
    assert_eq!(again.properties.all(property::SUBSCRIPTION_ID), [[5]]);
    assert_eq!(first.properties.all(property::SUBSCRIPTION_ID), [[5]]);
    assert_eq!(again.properties.all(property::USER_PROPERTY), first.properties.all(property::USER_PROPERTY));
}

#[tokio::test]
async fn an_answer_may_come_before_it_is_asked_for_again() {
    let hub = hub_with("inflight_max: 1").await;
    for level in BOTH {
        let name = at(level, "resend-early");
        let lasting = connect(level, &name).lasting();
        let mut wire = Wire::with(&hub, &lasting).await;
        wire.subscribe(&name, 1).await;
        let mut other = Wire::connect(&hub, level, &at(level, "resend-early-other")).await;
        other.publish(publish(&name, "one")).await;
        let one = wire.message().await;
        wire.cut_off().await;
        let mut wire = Wire::open(&hub, level).await;
        // In one piece: the answer is there when the session is taken up.
        wire.send(&[lasting.bytes(), puback(one.id)].concat()).await;
        assert!(wire.connack().await.session_present);
        other.publish(publish(&name, "two")).await;
        let two = wire.message().await;
        assert_eq!((two.text(), two.dup), ("two", false));
        wire.send(&puback(two.id)).await;
        wire.silent().await;
    }
}

#[tokio::test]
async fn an_identifier_is_not_given_away_while_the_client_may_still_use_it() {
    let hub = hub().await;
    let lasting = connect(Level::V5, "resend-open").lasting();
    let mut wire = Wire::with(&hub, &lasting).await;
    wire.subscribe("resend/open", 2).await;
    let mut other = Wire::connect(&hub, Level::V5, "resend-open-other").await;
    other.publish_exactly_once(publish("resend/open", [b'x'; 200])).await;
    let large = wire.message().await;
    assert_eq!(large.qos, 2);
    wire.cut_off().await;
    // It has the message, and comes back without room for it.
    let small = connect(Level::V5, "resend-open").lasting().with(&maximum_packet_size(60));
    let mut wire = Wire::with(&hub, &small).await;
    wire.expect(&pubrel(large.id)).await;
    other.publish_exactly_once(publish("resend/open", "small")).await;
    let small = wire.message().await;
    assert!(small.text() == "small" && small.id != large.id && !small.dup, "{small:?}");
    wire.send(&pubcomp(large.id)).await;
    wire.send(&pubrec(small.id)).await;
    wire.expect(&pubrel(small.id)).await;
    wire.send(&pubcomp(small.id)).await;
    wire.disconnect().await;
    let mut wire = Wire::with(&hub, &lasting).await;
    wire.silent().await;
}
