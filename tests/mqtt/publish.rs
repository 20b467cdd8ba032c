//! PUBLISH from a client (3.3): what is taken, and how it is answered.

use tidemill_tests::mqtt::Level;

use crate::hubs::{hub, refused};
use crate::wire::*;

#[tokio::test]
async fn qos_3_is_refused() {
    for level in BOTH {
        for first in [0x36, 0x37, 0x3e, 0x3f] {
            let packet = Publish { first, ..publish("a", "x").qos(1, 1) };
            refused(level, packet, 0x81).await;
        }
    }
}

#[tokio::test]
async fn dup_with_qos_0_is_refused() {
    for level in BOTH {
        refused(level, publish("a", "x").dup(), 0x81).await;
    }
}

#[tokio::test]
async fn dup_is_not_passed_on() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "publish/dup");
        let mut wire = Wire::connect(&hub, level, &at(level, "publish-dup")).await;
        wire.subscribe(&topic, 2).await;
        for qos in [1, 2] {
            wire.send(&publish(&topic, "x").qos(qos, 5).dup()).await;
            let frames = [wire.frame().await, wire.frame().await];
            let message = frames.iter().find(|frame| frame[0] >> 4 == 3).expect("the message");
            let message = Message::read(level, message);
            assert_eq!((message.dup, message.qos), (false, qos));
        }
    }
}

#[tokio::test]
async fn the_answer_is_that_of_the_qos() {
    let hub = hub().await;
    for level in BOTH {
        let mut wire = Wire::connect(&hub, level, &at(level, "publish-answer")).await;
        wire.send(&publish("publish/answer", "x")).await;
        wire.silent().await;
        wire.send(&publish("publish/answer", "x").qos(1, 0x1234)).await;
        wire.expect(b"\x40\x02\x12\x34").await;
        wire.send(&publish("publish/answer", "x").qos(2, 0xffff)).await;
        wire.expect(b"\x50\x02\xff\xff").await;
        wire.send(&pubrel(0xffff)).await;
        wire.expect(b"\x70\x02\xff\xff").await;
    }
}

#[tokio::test]
async fn a_topic_with_wildcards_is_refused() {
    for level in BOTH {
        for topic in ["#", "+", "a/+", "a/#", "a+b", "a#", "+/a"] {
            refused(level, publish(topic, "x"), 0x90).await;
            refused(level, publish(topic, "x").qos(1, 1), 0x90).await;
        }
    }
}

#[tokio::test]
async fn a_topic_of_no_characters_is_refused() {
    refused(Level::V311, publish("", "x"), 0x90).await;
    refused(Level::V5, publish("", "x"), 0x82).await;
}

#[tokio::test]
async fn a_subscription_identifier_of_a_clients_is_refused() {
    for qos in 0..=2 {
        refused(Level::V5, publish("a", "x").qos(qos, 1).with(&subscription_id(1)), 0x82).await;
    }
}

#[tokio::test]
async fn the_topic_goes_on_as_it_came_to_those_whose_filter_matches() {
    let hub = hub().await;
    for level in BOTH {
        let mut wire = Wire::connect(&hub, level, &at(level, "publish-topic")).await;
        wire.subscribe(at(level, "publish/+/topic"), 0).await;
        for topic in ["publish/a/no", "publish/topic", "publish/a/b/topic", "Publish/a/topic"] {
            wire.publish(publish(at(level, topic), "no")).await;
        }
        wire.send(&publish(at(level, "publish/a/topic"), "yes")).await;
        wire.expect(&publish(at(level, "publish/a/topic"), "yes")).await;
        wire.silent().await;
    }
}

#[tokio::test]
async fn what_is_refused_is_told_in_its_answer_or_by_closing() {
    let hub = hub().await;
    let topic = "$SYS/mine";
    for (qos, first) in [(1, 0x40), (2, 0x50)] {
        let mut wire = Wire::nobody(&hub, Level::V5).await;
        wire.send(&publish(topic, "x").qos(qos, 3)).await;
        let answer = wire.answer(first).await;
        assert_eq!((answer.id, answer.reason), (3, 0x87));
        wire.silent().await;
    }
    refused(Level::V5, publish(topic, "x"), 0x87).await;
    for qos in 0..=2 {
        refused(Level::V311, publish(topic, "x").qos(qos, 1), 0x87).await;
    }
}

#[tokio::test]
async fn reason_strings_come_only_where_they_are_welcome() {
    let hub = hub().await;
    for (asked, welcome) in [(None, true), (Some(1), true), (Some(0), false)] {
        let connect = connect(Level::V5, "publish-problem");
        let connect = match asked {
            Some(value) => connect.with(&bytes().u8(property::REQUEST_PROBLEM).u8(value)),
            None => connect,
        };
        let mut wire = Wire::with(&hub, &connect).await;
        wire.send(&publish("$SYS/mine", "x").qos(1, 3)).await;
        let puback = wire.answer(0x40).await;
        wire.send(&publish("$SYS/mine", "x").qos(2, 4)).await;
        let pubrec = wire.answer(0x50).await;
        wire.send(&pubrel(9)).await;
        let pubcomp = wire.answer(0x70).await;
        wire.send(&crate::wire::pubrec(9)).await;
        let pubrel = wire.answer(0x62).await;
        wire.send(&subscribe(1, &[("a/#/b", 0)])).await;
        let suback = body(&wire.frame().await, 0x90, "SUBACK").0[2..].to_vec();
        wire.send(&unsubscribe(2, &["a/#/b"])).await;
        let unsuback = body(&wire.frame().await, 0xb0, "UNSUBACK").0[2..].to_vec();
        for answer in [&puback, &pubrec] {
            assert_eq!(answer.properties.has(property::REASON_STRING), welcome, "{answer:?}");
        }
        if !welcome {
            for answer in [&puback, &pubrec, &pubcomp, &pubrel] {
                assert_eq!(answer.properties, Properties::default());
            }
            assert_eq!((suback, unsuback), (vec![0, 0x8f], vec![0, 0x8f]));
        }
    }
}

#[tokio::test]
async fn payloads_of_any_bytes_go_through() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "publish/bytes");
        let mut wire = Wire::connect(&hub, level, &at(level, "publish-bytes")).await;
        wire.subscribe(&topic, 0).await;
        let all: Vec<u8> = (0..=255).collect();
        for payload in [Vec::new(), all, vec![0; 127], vec![0xff; 128], vec![7; 16_384], vec![8; 200_000]] {
            wire.send(&publish(&topic, &payload)).await;
            wire.expect(&publish(&topic, &payload)).await;
        }
    }
}
