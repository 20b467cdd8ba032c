//! CONNECT (3.1): what is let in, and what is told to those who are not.

use tidemill_tests::mqtt::Level;

use crate::hubs::{hub, not_let_in};
use crate::wire::*;

#[tokio::test]
async fn the_first_packet_has_to_be_a_connect() {
    let hub = hub().await;
    for level in BOTH {
        let others = [
            publish("a", "x").at(level),
            subscribe(1, &[("a", 0)]).at(level),
            PINGREQ.to_vec(),
            DISCONNECT.to_vec(),
            puback(1),
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        ];
        for packet in others {
            let mut wire = Wire::open(&hub, level).await;
            wire.send(&packet).await;
            // Nobody knows which version it speaks, so that there is nothing to say.
            wire.closed().await;
        }
    }
}

#[tokio::test]
async fn a_second_connect_closes_the_connection() {
    let hub = hub().await;
    for level in BOTH {
        let connect = connect(level, "connect-second");
        let mut wire = Wire::with(&hub, &connect).await;
        wire.send(&connect).await;
        wire.closed_with(0x82).await;
        // Another identifier makes it no better.
        let mut wire = Wire::with(&hub, &connect).await;
        wire.send(&crate::wire::connect(level, "connect-other")).await;
        wire.closed_with(0x82).await;
    }
}

#[tokio::test]
async fn another_protocol_name_closes_the_connection() {
    let hub = hub().await;
    for level in BOTH {
        for name in ["mqtt", "MQTTX", "MQT", "", "AMQP"] {
            let body = connect(level, "connect-name").body();
            let mut wire = Wire::open(&hub, level).await;
            wire.send(&bytes().text(name).raw(&body.as_ref()[6..]).packet(0x10)).await;
            wire.closed().await;
        }
    }
}

#[tokio::test]
async fn an_unacceptable_version_is_told_in_a_form_its_client_reads() {
    let hub = hub().await;
    let connect = |name: &str, version| {
        bytes().text(name).u8(version).u8(2).u16(60).text("connect-version").packet(0x10)
    };
    // Up to 4 a CONNACK has four bytes, and return code 1 says it.
    // 0x84 is 4 as mosquitto's bridges say it: they try again without the highest bit when they are told so.
    for (name, version) in [("MQIsdp", 3), ("MQTT", 3), ("MQTT", 0), ("MQTT", 2), ("MQTT", 0x84)] {
        let mut wire = Wire::open(&hub, Level::V311).await;
        wire.send(&connect(name, version)).await;
        wire.expect(b"\x20\x02\x00\x01").await;
        wire.closed().await;
    }
    // From 5 on it has properties, and reason code 0x84 says it.
    for version in [6, 9, 0x85, 0xff] {
        let mut wire = Wire::open(&hub, Level::V5).await;
        wire.send(&connect("MQTT", version)).await;
        assert_eq!(wire.connack().await.reason, 0x84);
        wire.closed().await;
    }
}

#[tokio::test]
async fn the_reserved_connect_flag_has_to_be_0() {
    for level in BOTH {
        not_let_in(level, connect(level, "connect-reserved").flags(CLEAN | 1), 0x81).await;
    }
}

#[tokio::test]
async fn will_flags_without_a_will_are_refused() {
    for level in BOTH {
        for flags in [1 << 3, 2 << 3, 3 << 3, WILL_RETAIN, WILL_RETAIN | 1 << 3] {
            not_let_in(level, connect(level, "connect-will").flags(CLEAN | flags), 0x81).await;
        }
    }
}

#[tokio::test]
async fn a_will_with_qos_3_is_refused() {
    for level in BOTH {
        not_let_in(level, connect(level, "connect-qos3").will("will", "gone", 3), 0x81).await;
    }
}

#[tokio::test]
async fn flags_and_payload_have_to_say_the_same() {
    for level in BOTH {
        let plain = connect(level, "connect-flags");
        // Announced, and not there.
        for flags in [WILL, USER_NAME, USER_NAME | PASSWORD] {
            not_let_in(level, plain.clone().flags(CLEAN | flags), 0x81).await;
        }
        let user = plain.clone().user("u");
        not_let_in(level, user.clone().flags(CLEAN | USER_NAME | PASSWORD), 0x81).await;
        // There, and not announced.
        not_let_in(level, user.flags(CLEAN), 0x81).await;
        not_let_in(level, plain.clone().will("will", "gone", 0).flags(CLEAN), 0x81).await;
        not_let_in(level, plain.user("u").password("p").flags(CLEAN | USER_NAME), 0x81).await;
    }
    // A will without its payload.
    let cut = connect(Level::V311, "connect-flags").flags(CLEAN | WILL).body().text("will");
    not_let_in(Level::V311, cut.packet(0x10), 0x81).await;
}

#[tokio::test]
async fn a_password_needs_a_user_name_in_3_1_1_only() {
    not_let_in(Level::V311, connect(Level::V311, "connect-password").password("p"), 0x81).await;
    let hub = hub().await;
    let alone = connect(Level::V5, "connect-password").password("p");
    assert_eq!(alone.flags, CLEAN | PASSWORD);
    Wire::with(&hub, &alone).await;
}

#[tokio::test]
async fn fields_of_the_payload_are_read_in_their_order() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "connect/order");
        let mut watcher = Wire::connect(&hub, level, &at(level, "connect-watcher")).await;
        watcher.subscribe(&topic, 0).await;
        let whole = connect(level, at(level, "connect-order")).will(&topic, "payload", 0);
        Wire::with(&hub, &whole.user("user").password("password")).await.cut_off().await;
        watcher.expect(&publish(&topic, "payload")).await;
    }
}

#[tokio::test]
async fn a_connect_that_is_cut_short_is_refused() {
    for level in BOTH {
        let whole = connect(level, "connect-cut").will("will", "gone", 0).user("u").password("p");
        let body = whole.body();
        // From the version on, so that it is known in which form to answer.
        for length in 7..body.as_ref().len() {
            not_let_in(level, bytes().raw(&body.as_ref()[..length]).packet(0x10), 0x81).await;
        }
        not_let_in(level, body.u8(0).packet(0x10), 0x81).await;
    }
}

#[tokio::test]
async fn identifiers_of_1_to_23_letters_and_digits_are_taken() {
    let hub = hub().await;
    let all = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for level in BOTH {
        for part in all.as_bytes().chunks(23) {
            Wire::with(&hub, &connect(level, part)).await;
        }
        Wire::with(&hub, &connect(level, "Z")).await;
        // Others are too.
        Wire::with(&hub, &connect(level, format!("connect/ü+#$ {}", "x".repeat(200)))).await;
    }
}

#[tokio::test]
async fn no_identifier_is_given_a_new_one_each_time() {
    let hub = hub().await;
    let mut given = Vec::new();
    let mut open = Vec::new();
    for _ in 0..3 {
        let (wire, connack) = Wire::accepted(&hub, &connect(Level::V5, "")).await;
        let value = connack.properties.one(property::ASSIGNED_CLIENT).expect("an identifier");
        let name = Cut(value).text().to_vec();
        assert!(!name.is_empty() && !given.contains(&name), "{given:x?}");
        given.push(name);
        open.push(wire);
    }
    for mut wire in open {
        wire.silent().await;
    }
}

#[tokio::test]
async fn an_identifier_that_was_given_names_the_session() {
    let hub = hub().await;
    let nameless = connect(Level::V5, "").with(&session_expiry(60));
    let (wire, connack) = Wire::accepted(&hub, &nameless).await;
    assert!(!connack.session_present);
    let value = connack.properties.one(property::ASSIGNED_CLIENT).expect("an identifier").to_vec();
    wire.disconnect().await;
    let again = connect(Level::V5, Cut(&value).text()).lasting();
    let (_, connack) = Wire::accepted(&hub, &again).await;
    assert!(connack.session_present);
    assert!(!connack.properties.has(property::ASSIGNED_CLIENT), "it has one already");
    // Clean Start 0 without an identifier is no contradiction in 5.0.
    let (_, connack) = Wire::accepted(&hub, &connect(Level::V5, "").lasting()).await;
    assert!(connack.properties.has(property::ASSIGNED_CLIENT));
}

#[tokio::test]
async fn no_identifier_in_3_1_1_needs_a_clean_session() {
    let hub = hub().await;
    let mut wire = Wire::open(&hub, Level::V311).await;
    wire.send(&connect(Level::V311, "").lasting()).await;
    wire.expect(b"\x20\x02\x00\x02").await;
    wire.closed().await;
    // Two that are clean do not take each other's place.
    let mut first = Wire::connect(&hub, Level::V311, "").await;
    let mut second = Wire::connect(&hub, Level::V311, "").await;
    first.silent().await;
    second.silent().await;
}

#[tokio::test]
async fn what_follows_a_refused_connect_is_not_looked_at() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "connect/after");
        let mut watcher = Wire::connect(&hub, level, &at(level, "connect-after-watcher")).await;
        watcher.subscribe(&topic, 0).await;
        let bad = connect(level, "connect-after").flags(CLEAN | 1).bytes();
        let mut wire = Wire::open(&hub, level).await;
        wire.send(&bytes().raw(bad).raw(publish(&topic, "from nobody").at(level))).await;
        if level == Level::V5 {
            assert_eq!(wire.connack().await.reason, 0x81);
        }
        wire.closed().await;
        watcher.publish(publish(&topic, "mine")).await;
        assert_eq!(watcher.message().await.text(), "mine");
    }
}

#[tokio::test]
async fn packets_may_follow_a_connect_before_its_connack() {
    let hub = hub().await;
    for level in BOTH {
        let early = connect(level, at(level, "connect-early")).bytes();
        let filter = subscribe(0x5ab, &[("connect/early", 1)]).at(level);
        let mut wire = Wire::open(&hub, level).await;
        wire.send(&bytes().raw(early).raw(filter).raw(PINGREQ)).await;
        assert_eq!(wire.connack().await.reason, 0);
        wire.granted(&[1]).await;
        wire.expect(&PINGRESP).await;
    }
}

#[tokio::test]
async fn properties_of_a_connect_are_checked() {
    let number = |id: u8, value: u8| bytes().u8(id).u8(value);
    let protocol_errors = [
        twice(&session_expiry(1)),
        twice(&receive_maximum(1)),
        twice(&maximum_packet_size(100)),
        twice(&topic_alias_maximum(1)),
        twice(&number(property::REQUEST_PROBLEM, 1)),
        twice(&number(property::REQUEST_RESPONSE, 1)),
        twice(&bytes().u8(property::AUTHENTICATION_METHOD).text("x")),
        receive_maximum(0),
        maximum_packet_size(0),
        number(property::REQUEST_PROBLEM, 2),
        number(property::REQUEST_RESPONSE, 2),
        bytes().u8(property::AUTHENTICATION_DATA).text("data without a method"),
    ];
    for property in protocol_errors {
        not_let_in(Level::V5, connect(Level::V5, "connect-properties").with(&property), 0x82).await;
    }
    let malformed = [
        topic_alias(1),
        message_expiry(1),
        subscription_id(1),
        will_delay(1),
        bytes().u8(property::ASSIGNED_CLIENT).text("x"),
        bytes().u8(property::REASON_STRING).text("x"),
        number(0x7f, 0),
        number(0, 0),
    ];
    for property in malformed {
        not_let_in(Level::V5, connect(Level::V5, "connect-properties").with(&property), 0x81).await;
    }
    let will = |property: &Build| connect(Level::V5, "connect-will").will_with(property, "will", "x", 0);
    not_let_in(Level::V5, will(&twice(&will_delay(1))), 0x82).await;
    not_let_in(Level::V5, will(&twice(&message_expiry(1))), 0x82).await;
    not_let_in(Level::V5, will(&number(property::PAYLOAD_FORMAT, 2)), 0x82).await;
    not_let_in(Level::V5, will(&session_expiry(1)), 0x81).await;
    not_let_in(Level::V5, will(&topic_alias(1)), 0x81).await;
}
