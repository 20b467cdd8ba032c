//! Fixed headers, lengths, packet identifiers and property lists (5.0: 1.5.5, 2; 3.1.1: 2).

use tidemill_tests::mqtt::Level;

use crate::hubs::{hub, refused};
use crate::wire::*;

#[tokio::test]
async fn reserved_flags_of_the_fixed_header_are_refused() {
    let hub = hub().await;
    for level in BOTH {
        let all = [
            (PINGREQ.to_vec(), 0),
            (DISCONNECT.to_vec(), 0),
            (puback(1), 0),
            (pubrec(1), 0),
            (pubrel(1), 2),
            (pubcomp(1), 0),
            (subscribe(1, &[("a", 0)]).at(level), 2),
            (unsubscribe(1, &["a"]).at(level), 2),
        ];
        for (packet, right) in all {
            for flags in (0..16).filter(|flags| *flags != right) {
                let mut packet = packet.clone();
                packet[0] = packet[0] & 0xf0 | flags;
                refused(level, packet, 0x81).await;
            }
        }
        for flags in 1..16 {
            let mut wire = Wire::open(&hub, level).await;
            let mut packet = connect(level, "framing").bytes();
            packet[0] |= flags;
            wire.send(&packet).await;
            wire.closed().await;
        }
    }
    for flags in 1..16 {
        refused(Level::V5, bytes().packet(0xf0 | flags), 0x81).await;
    }
}

#[tokio::test]
async fn packet_types_that_do_not_exist_are_refused() {
    refused(Level::V5, bytes().packet(0x00), 0x81).await;
    refused(Level::V311, bytes().packet(0x00), 0x81).await;
    refused(Level::V311, bytes().packet(0xf0), 0x81).await;
}

#[tokio::test]
async fn packets_that_only_a_server_sends_are_refused() {
    for level in BOTH {
        let empty = if level == Level::V5 { bytes().u8(0) } else { bytes() };
        refused(level, bytes().u8(0).u8(0).raw(&empty).packet(0x20), 0x82).await;
        refused(level, bytes().u16(1).raw(&empty).u8(0).packet(0x90), 0x82).await;
        let reasons = if level == Level::V5 { bytes().u8(0) } else { bytes() };
        refused(level, bytes().u16(1).raw(&empty).raw(reasons).packet(0xb0), 0x82).await;
        refused(level, PINGRESP, 0x82).await;
    }
}

#[tokio::test]
async fn a_length_of_more_than_four_bytes_is_refused() {
    for level in BOTH {
        refused(level, b"\x30\xff\xff\xff\xff\x01", 0x81).await;
        refused(level, b"\x30\x80\x80\x80\x80\x00", 0x81).await;
    }
    refused(Level::V5, bytes().text("a").raw(b"\x80\x80\x80\x80\x00").packet(0x30), 0x81).await;
}

#[tokio::test]
async fn a_length_longer_than_it_needs_to_be_is_refused() {
    refused(Level::V5, b"\xc0\x80\x00", 0x81).await;
    refused(Level::V5, bytes().text("a").raw(b"\x80\x00").packet(0x30), 0x81).await;
    let overlong = bytes().u8(property::SUBSCRIPTION_ID).raw(b"\x81\x00");
    refused(Level::V5, subscribe(1, &[("a", 0)]).with(&overlong), 0x81).await;

    let hub = hub().await;
    let mut wire = Wire::open(&hub, Level::V5).await;
    let body = connect(Level::V5, "framing").body();
    let length = u8::try_from(body.as_ref().len()).expect("a short CONNECT");
    wire.send(&bytes().u8(0x10).u8(length | 0x80).u8(0).raw(body)).await;
    assert_eq!(wire.connack().await.reason, 0x81);
    wire.closed().await;
}

#[tokio::test]
async fn a_packet_that_ends_in_the_middle_of_a_field_is_refused() {
    for level in BOTH {
        let packets = [
            publish("a", "").qos(1, 1).at(level),
            subscribe(1, &[("a", 1)]).at(level),
            unsubscribe(1, &["a"]).at(level),
            puback(1),
            pubrel(1),
        ];
        for packet in packets {
            // Cut so that no field before ends there: the first byte of a length, or of an identifier.
            for body in [&packet[2..3], &packet[2..packet.len().min(4) - 1]] {
                refused(level, bytes().raw(body).packet(packet[0]), 0x81).await;
            }
        }
        refused(level, bytes().u16(9).raw("a").packet(0x30), 0x81).await;
        refused(level, bytes().u16(1).u8(0).u16(9).raw("a").packet(0x82), 0x81).await;
    }
    // Properties longer than their packet, and a property longer than the properties.
    refused(Level::V5, bytes().text("a").u8(9).u8(1).u8(0).packet(0x30), 0x81).await;
    let cut = bytes().u8(property::MESSAGE_EXPIRY).u16(1);
    refused(Level::V5, publish("a", "x").with(&cut), 0x81).await;
}

#[tokio::test]
async fn bytes_after_the_last_field_are_refused() {
    for level in BOTH {
        refused(level, bytes().raw("x").packet(0xc0), 0x81).await;
    }
    // In 5.0 a reason code and properties may follow; after them nothing.
    refused(Level::V311, bytes().u16(1).u8(0).packet(0x40), 0x81).await;
    refused(Level::V311, bytes().u16(1).u8(0).packet(0x62), 0x81).await;
    refused(Level::V311, bytes().u8(0).packet(0xe0), 0x81).await;
    refused(Level::V5, bytes().u16(1).u8(0).u8(0).u8(0).packet(0x40), 0x81).await;
    refused(Level::V5, bytes().u8(0).u8(0).u8(0).packet(0xe0), 0x81).await;
}

#[tokio::test]
async fn packet_identifier_0_is_refused() {
    for level in BOTH {
        for qos in [1, 2] {
            refused(level, publish("a", "x").qos(qos, 0), 0x81).await;
        }
        refused(level, subscribe(0, &[("a", 0)]), 0x81).await;
        refused(level, unsubscribe(0, &["a"]), 0x81).await;
        refused(level, puback(0), 0x81).await;
        refused(level, pubrel(0), 0x81).await;
    }
}

#[tokio::test]
async fn qos_0_has_no_packet_identifier() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "framing/qos0");
        let mut wire = Wire::connect(&hub, level, &at(level, "framing-qos0")).await;
        wire.subscribe(&topic, 2).await;
        wire.send(&publish(&topic, "x")).await;
        // Byte for byte: nothing stands between the topic and the payload but, in 5.0, the length of no properties.
        wire.expect(&publish(&topic, "x")).await;
    }
}

#[tokio::test]
async fn no_properties_is_a_length_of_zero() {
    let hub = hub().await;
    let mut wire = Wire::connect(&hub, Level::V5, "framing-empty").await;
    wire.send(&subscribe(7, &[("framing/empty", 0)])).await;
    wire.expect(b"\x90\x04\x00\x07\x00\x00").await;
    wire.send(&publish("framing/empty", "x")).await;
    wire.expect(b"\x30\x11\x00\x0dframing/empty\x00x").await;
    wire.send(&unsubscribe(8, &["framing/empty"])).await;
    wire.expect(b"\xb0\x04\x00\x08\x00\x00").await;
    // The client too must say that there are none.
    wire.send(&bytes().u16(9).packet(0x82)).await;
    wire.closed_with(0x81).await;
}

#[tokio::test]
async fn packets_may_come_byte_by_byte_and_many_at_once() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "framing/cut");
        let mut wire = Wire::open(&hub, level).await;
        for byte in connect(level, at(level, "framing-cut")).bytes() {
            wire.send(&[byte]).await;
        }
        assert_eq!(wire.connack().await.reason, 0);
        wire.subscribe(&topic, 0).await;
        let one = publish(&topic, "one").at(level);
        for byte in &one {
            wire.send(&[*byte]).await;
        }
        wire.send(&bytes().raw(&one).raw(PINGREQ).raw(&one).raw(PINGREQ)).await;
        let mut seen = [0, 0];
        for _ in 0..5 {
            let frame = wire.frame().await;
            assert!(frame == one || frame == PINGRESP, "{frame:x?}");
            seen[usize::from(frame == PINGRESP)] += 1;
        }
        assert_eq!(seen, [3, 2]);
    }
}
