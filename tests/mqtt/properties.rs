//! Properties of a PUBLISH (5.0: 3.3.2.3): those that go on, and those that must not come.

use tidemill_tests::mqtt::Level;

use crate::hubs::{hub, hub_with, refused};
use crate::wire::*;

fn format(value: u8) -> Build {
    bytes().u8(property::PAYLOAD_FORMAT).u8(value)
}

fn text(id: u8, value: &str) -> Build {
    bytes().u8(id).text(value)
}

/// What a subscriber gets of a message with these properties.
async fn passed_on(name: &str, properties: &Build) -> Properties {
    let hub = hub().await;
    let mut wire = Wire::connect(&hub, Level::V5, name).await;
    wire.subscribe(name, 1).await;
    wire.publish(publish(name, "x").with(properties)).await;
    wire.message().await.properties
}

#[tokio::test]
async fn the_payload_format_goes_on() {
    assert_eq!(passed_on("properties-format1", &format(1)).await.number(property::PAYLOAD_FORMAT), Some(1));
    let zero = passed_on("properties-format0", &format(0)).await;
    assert_eq!(zero.number(property::PAYLOAD_FORMAT), Some(0));
    let none = passed_on("properties-format", &bytes()).await;
    assert_eq!(none, Properties::default(), "what was not said is not said");
}

#[tokio::test]
async fn the_content_type_goes_on() {
    let properties = passed_on("properties-type", &text(property::CONTENT_TYPE, "text/ü")).await;
    assert_eq!(properties.one(property::CONTENT_TYPE), Some(bytes().text("text/ü").as_ref()));
}

#[tokio::test]
async fn a_request_names_where_to_answer_and_what_to() {
    let request = text(property::RESPONSE_TOPIC, "answers/here")
        .raw(bytes().u8(property::CORRELATION_DATA).text(b"\x00\xff\xed\xa0"));
    let properties = passed_on("properties-request", &request).await;
    assert_eq!(properties.one(property::RESPONSE_TOPIC), Some(bytes().text("answers/here").as_ref()));
    assert_eq!(properties.one(property::CORRELATION_DATA), Some(bytes().text(b"\x00\xff\xed\xa0").as_ref()));
}

#[tokio::test]
async fn user_properties_go_on_in_their_order() {
    let pairs = [("b", "1"), ("a", "2"), ("b", "1"), ("", ""), ("ü", "€"), ("a", "1")];
    let all = pairs.iter().fold(bytes(), |all, (name, value)| all.raw(user_property(name, value)));
    let properties = passed_on("properties-user", &all).await;
    let wanted: Vec<Vec<u8>> =
        pairs.iter().map(|(name, value)| bytes().text(name).text(value).as_ref().to_vec()).collect();
    assert_eq!(properties.all(property::USER_PROPERTY), wanted);
}

#[tokio::test]
async fn they_are_left_out_for_3_1_1() {
    let hub = hub().await;
    let mut old = Wire::connect(&hub, Level::V311, "properties-old").await;
    old.subscribe("properties/old", 0).await;
    let mut new = Wire::connect(&hub, Level::V5, "properties-new").await;
    new.publish(publish("properties/old", "x").with(&user_property("a", "b")).with(&format(1))).await;
    old.expect(&publish("properties/old", "x")).await;
    old.publish(publish("properties/old", "y")).await;
    old.expect(&publish("properties/old", "y")).await;
}

#[tokio::test]
async fn a_response_topic_with_wildcards_is_refused() {
    for topic in ["a/+", "#", ""] {
        refused(Level::V5, publish("a", "x").with(&text(property::RESPONSE_TOPIC, topic)), 0x90).await;
    }
}

#[tokio::test]
async fn what_may_come_once_is_refused_twice() {
    for property in [
        format(1),
        message_expiry(1),
        text(property::CONTENT_TYPE, "a"),
        text(property::RESPONSE_TOPIC, "a"),
        text(property::CORRELATION_DATA, "a"),
        topic_alias(1),
    ] {
        refused(Level::V5, publish("a", "x").with(&twice(&property)), 0x82).await;
    }
    refused(Level::V5, subscribe(1, &[("a", 0)]).with(&twice(&subscription_id(1))), 0x82).await;
    let reason = text(property::REASON_STRING, "why");
    refused(Level::V5, bytes().u16(1).u8(0).section(&twice(&reason)).packet(0x40), 0x82).await;
    refused(Level::V5, bytes().u8(0).section(&twice(&session_expiry(1))).packet(0xe0), 0x82).await;
}

#[tokio::test]
async fn values_out_of_range_are_refused() {
    refused(Level::V5, publish("a", "x").with(&format(2)), 0x82).await;
    refused(Level::V5, publish("a", "x").with(&topic_alias(0)), 0x94).await;
    refused(Level::V5, subscribe(1, &[("a", 0)]).with(&subscription_id(0)), 0x82).await;
    let five = bytes().u8(property::SUBSCRIPTION_ID).raw(b"\x80\x80\x80\x80\x01");
    refused(Level::V5, subscribe(1, &[("a", 0)]).with(&five), 0x81).await;
}

#[tokio::test]
async fn properties_of_other_packets_are_refused() {
    let reason = text(property::REASON_STRING, "why");
    for property in
        [&reason, &session_expiry(1), &receive_maximum(1), &will_delay(1), &bytes().u8(0x7f).u8(0)]
    {
        refused(Level::V5, publish("a", "x").with(property), 0x81).await;
        refused(Level::V5, subscribe(1, &[("a", 0)]).with(property), 0x81).await;
        refused(Level::V5, unsubscribe(1, &["a"]).with(property), 0x81).await;
    }
    for property in [&message_expiry(1), &session_expiry(1), &topic_alias(1)] {
        for first in [0x40, 0x50, 0x62, 0x70] {
            refused(Level::V5, bytes().u16(1).u8(0).section(property).packet(first), 0x81).await;
        }
    }
    refused(Level::V5, unsubscribe(1, &["a"]).with(&subscription_id(1)), 0x81).await;
    refused(Level::V5, bytes().u8(0).section(&message_expiry(1)).packet(0xe0), 0x81).await;
}

#[tokio::test]
async fn a_server_reference_is_the_servers_alone() {
    let reference = text(property::SERVER_REFERENCE, "elsewhere");
    refused(Level::V5, bytes().u8(0x9c).section(&reference).packet(0xe0), 0x82).await;
}

#[tokio::test]
async fn reason_codes_of_other_packets_are_refused() {
    // PUBACK and PUBREC, PUBREL and PUBCOMP.
    for (first, bad) in [(0x40, 0x92), (0x40, 0x01), (0x50, 0x92), (0x50, 0x8e), (0x62, 0x10), (0x70, 0x80)] {
        refused(Level::V5, bytes().u16(1).u8(bad).packet(first), 0x81).await;
    }
    for bad in [0x01, 0x10, 0x84, 0xff] {
        refused(Level::V5, bytes().u8(bad).packet(0xe0), 0x81).await;
    }
}

#[tokio::test]
async fn a_payload_that_is_not_what_it_is_said_to_be_is_refused_where_that_is_checked() {
    let hub = hub_with("payload_format_check: true").await;
    for (qos, first) in [(1, 0x40), (2, 0x50)] {
        let mut wire = Wire::nobody(&hub, Level::V5).await;
        wire.send(&publish("a", b"\xff").qos(qos, 1).with(&format(1))).await;
        assert_eq!(wire.answer(first).await.reason, 0x99);
        wire.publish(publish("a", "text").with(&format(1))).await;
        wire.publish(publish("a", b"\xff").with(&format(0))).await;
        wire.publish(publish("a", b"\xff")).await;
    }
    let mut wire = Wire::nobody(&hub, Level::V5).await;
    wire.send(&publish("a", b"\xff").with(&format(1))).await;
    wire.closed_with(0x99).await;
}
