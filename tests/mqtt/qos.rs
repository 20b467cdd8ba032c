//! Delivery with QoS 0, 1 and 2 on one connection (4.3), both ways.

use tidemill_tests::mqtt::Level;

use crate::hubs::hub;
use crate::wire::*;

#[tokio::test]
async fn qos_0_is_sent_once_without_dup() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "qos/0");
        let mut wire = Wire::connect(&hub, level, &at(level, "qos-0")).await;
        wire.subscribe(&topic, 0).await;
        wire.send(&publish(&topic, "x")).await;
        wire.expect(&publish(&topic, "x")).await;
        wire.publish(publish(&topic, "y")).await;
        wire.expect(&publish(&topic, "y")).await;
        wire.silent().await;
    }
}

#[tokio::test]
async fn qos_1_is_sent_with_a_new_identifier_until_its_puback() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "qos/1");
        let mut wire = Wire::connect(&hub, level, &at(level, "qos-1")).await;
        wire.subscribe(&topic, 1).await;
        wire.publish(publish(&topic, "x")).await;
        let message = wire.message().await;
        assert_eq!((message.qos, message.dup), (1, false));
        // Not again on this connection, however long it takes.
        wire.silent().await;
        wire.send(&puback(message.id)).await;
        wire.silent().await;
    }
}

#[tokio::test]
async fn identifiers_in_use_are_not_given_again() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "qos/identifiers");
        let mut wire = Wire::connect(&hub, level, &at(level, "qos-identifiers")).await;
        wire.subscribe(&topic, 2).await;
        let mut used = Vec::new();
        for round in 0..30 {
            if round % 2 == 0 {
                wire.publish(publish(&topic, "x")).await;
            } else {
                wire.publish_exactly_once(publish(&topic, "x")).await;
            }
            let message = wire.message().await;
            assert!(message.id > 0 && !used.contains(&message.id), "{} of {used:?}", message.id);
            match (round % 3, message.qos) {
                (0, 1) => wire.send(&puback(message.id)).await,
                (0, _) => {
                    wire.send(&pubrec(message.id)).await;
                    wire.expect(&pubrel(message.id)).await;
                    wire.send(&pubcomp(message.id)).await;
                }
                // Received and not complete: the identifier is still in use.
                (1, 2) => {
                    wire.send(&pubrec(message.id)).await;
                    wire.expect(&pubrel(message.id)).await;
                    used.push(message.id);
                }
                _ => used.push(message.id),
            }
        }
    }
}

#[tokio::test]
async fn each_side_has_identifiers_of_its_own() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "qos/own");
        let mut wire = Wire::connect(&hub, level, &at(level, "qos-own")).await;
        wire.subscribe(&topic, 1).await;
        wire.publish(publish(&topic, "x")).await;
        let message = wire.message().await;
        // The same number the other way round, at the same time.
        wire.send(&publish(at(level, "qos/elsewhere"), "y").qos(2, message.id)).await;
        wire.expect(&pubrec(message.id)).await;
        wire.send(&puback(message.id)).await;
        wire.send(&pubrel(message.id)).await;
        wire.expect(&pubcomp(message.id)).await;
        wire.silent().await;
    }
}

#[tokio::test]
async fn a_qos_1_message_is_answered_each_time_and_is_new_each_time() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "qos/new");
        let mut wire = Wire::connect(&hub, level, &at(level, "qos-new")).await;
        let mut watcher = Wire::connect(&hub, level, &at(level, "qos-new-watcher")).await;
        watcher.subscribe(&topic, 0).await;
        wire.send(&publish(&topic, "one").qos(1, 5)).await;
        wire.expect(&puback(5)).await;
        wire.send(&publish(&topic, "two").qos(1, 5).dup()).await;
        wire.expect(&puback(5)).await;
        wire.send(&publish(&topic, "three").qos(1, 5)).await;
        wire.expect(&puback(5)).await;
        for text in ["one", "two", "three"] {
            assert_eq!(watcher.message().await.text(), text);
        }
    }
}

#[tokio::test]
async fn a_qos_2_message_is_taken_once_until_it_is_released() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "qos/once");
        let mut wire = Wire::connect(&hub, level, &at(level, "qos-once")).await;
        let mut watcher = Wire::connect(&hub, level, &at(level, "qos-once-watcher")).await;
        watcher.subscribe(&topic, 0).await;
        let message = publish(&topic, "one").qos(2, 5);
        wire.send(&message).await;
        wire.expect(&pubrec(5)).await;
        for _ in 0..3 {
            wire.send(&message.clone().dup()).await;
            wire.expect(&pubrec(5)).await;
        }
        wire.send(&pubrel(5)).await;
        wire.expect(&pubcomp(5)).await;
        // From here on it is another one.
        wire.send(&publish(&topic, "two").qos(2, 5)).await;
        wire.expect(&pubrec(5)).await;
        wire.send(&pubrel(5)).await;
        wire.expect(&pubcomp(5)).await;
        for text in ["one", "two"] {
            assert_eq!(watcher.message().await.text(), text);
        }
        watcher.silent().await;
    }
}

#[tokio::test]
async fn a_pubrel_is_answered_whether_it_is_known_or_not() {
    let hub = hub().await;
    let mut wire = Wire::connect(&hub, Level::V311, "qos-pubrel-4").await;
    wire.send(&pubrel(77)).await;
    wire.expect(&pubcomp(77)).await;
    let mut wire = Wire::connect(&hub, Level::V5, "qos-pubrel-5").await;
    wire.send(&pubrel(77)).await;
    let answer = wire.answer(0x70).await;
    assert_eq!((answer.id, answer.reason), (77, 0x92));
}

#[tokio::test]
async fn a_qos_2_message_is_sent_received_released_and_completed() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "qos/2");
        let mut wire = Wire::connect(&hub, level, &at(level, "qos-2")).await;
        wire.subscribe(&topic, 2).await;
        wire.publish_exactly_once(publish(&topic, "x")).await;
        let message = wire.message().await;
        assert_eq!((message.qos, message.dup), (2, false));
        wire.silent().await;
        wire.send(&pubrec(message.id)).await;
        wire.expect(&pubrel(message.id)).await;
        // A PUBREC that comes again is answered again.
        wire.send(&pubrec(message.id)).await;
        wire.expect(&pubrel(message.id)).await;
        wire.send(&pubcomp(message.id)).await;
        wire.silent().await;
    }
}

#[tokio::test]
async fn a_pubrec_with_an_error_ends_the_exchange() {
    let hub = hub().await;
    let lasting = connect(Level::V5, "qos-refused").lasting();
    let mut wire = Wire::with(&hub, &lasting).await;
    wire.subscribe("qos/refused", 2).await;
    wire.publish_exactly_once(publish("qos/refused", "x")).await;
    let message = wire.message().await;
    wire.send(&bytes().u16(message.id).u8(0x97).packet(0x50)).await;
    // No PUBREL, now or later.
    wire.silent().await;
    wire.publish(publish("qos/refused", "y")).await;
    let message = wire.message().await;
    wire.send(&bytes().u16(message.id).u8(0x80).packet(0x40)).await;
    wire.silent().await;
    wire.disconnect().await;
    let mut wire = Wire::with(&hub, &lasting).await;
    wire.silent().await;
}

#[tokio::test]
async fn a_pubrec_below_0x80_goes_on() {
    let hub = hub().await;
    let mut wire = Wire::connect(&hub, Level::V5, "qos-nobody").await;
    wire.subscribe("qos/nobody", 2).await;
    wire.publish_exactly_once(publish("qos/nobody", "x")).await;
    let message = wire.message().await;
    wire.send(&bytes().u16(message.id).u8(0x10).packet(0x50)).await;
    wire.expect(&pubrel(message.id)).await;
}

#[tokio::test]
async fn an_identifier_refused_with_an_error_is_free() {
    let hub = hub().await;
    let mut wire = Wire::connect(&hub, Level::V5, "qos-free").await;
    let mut watcher = Wire::connect(&hub, Level::V5, "qos-free-watcher").await;
    watcher.subscribe("qos/free", 0).await;
    wire.send(&publish("$SYS/mine", "x").qos(2, 5)).await;
    assert_eq!(wire.answer(0x50).await.reason, 0x87);
    wire.send(&publish("qos/free", "x").qos(2, 5)).await;
    wire.expect(&pubrec(5)).await;
    wire.send(&pubrel(5)).await;
    wire.expect(&pubcomp(5)).await;
    assert_eq!(watcher.message().await.text(), "x");
}

#[tokio::test]
async fn an_unknown_pubrec_is_told_so() {
    let hub = hub().await;
    let mut wire = Wire::connect(&hub, Level::V5, "qos-unknown").await;
    wire.send(&pubrec(99)).await;
    let answer = wire.answer(0x62).await;
    assert_eq!((answer.id, answer.reason), (99, 0x92));
    wire.send(&puback(99)).await;
    wire.send(&pubcomp(99)).await;
    wire.silent().await;
}
