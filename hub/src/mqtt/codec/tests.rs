//! Every packet there and back, in both versions and however it is cut; and what must be refused.
//!
//! # Layout
//! - this file: generated packets, and single rules
//! - `corpus`: what the fuzz targets begin with, and changes of it
//! - `compare`: beside mqtt-protocol-core; `theirs`: its packets

mod compare;
mod corpus;
mod theirs;

use std::num::{NonZeroU16, NonZeroU32};

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

fn text() -> impl Strategy<Value = ByteString> {
    "[a-zA-Z0-9 /äß水😀]{0,24}".prop_map(ByteString::from)
}

fn name() -> impl Strategy<Value = ByteString> {
    "[a-z0-9/ä]{1,24}".prop_map(ByteString::from)
}

fn binary() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

fn pairs() -> impl Strategy<Value = Vec<(ByteString, ByteString)>> {
    vec((text(), text()), 0..4)
}

fn qos() -> impl Strategy<Value = Qos> {
    prop_oneof![Just(Qos::AtMostOnce), Just(Qos::AtLeastOnce), Just(Qos::ExactlyOnce)]
}

fn id() -> impl Strategy<Value = PacketId> {
    any::<NonZeroU16>()
}

fn subscription_id() -> impl Strategy<Value = SubscriptionId> {
    (1..=VARINT_MAX).prop_map(|value| SubscriptionId::new(value).unwrap())
}

fn code(codes: &'static [u8]) -> impl Strategy<Value = ReasonCode> {
    proptest::sample::select(codes).prop_map(ReasonCode)
}

/// The properties only where the version has them.
fn when<T: Default>(version: Version, properties: T) -> T {
    if version == Version::V5 { properties } else { T::default() }
}

fn connect(version: Version) -> impl Strategy<Value = Packet> {
    let properties = (
        (option::of(any::<u32>()), option::of(any::<NonZeroU16>()), option::of(any::<NonZeroU32>())),
        (option::of(any::<u16>()), option::of(any::<bool>()), option::of(any::<bool>())),
        (pairs(), option::of((text(), option::of(binary())))),
    )
        .prop_map(|((expiry, receive, packet), (alias, response, problem), (pairs, auth))| {
            ConnectProperties {
                session_expiry_s: expiry,
                receive_maximum: receive,
                packet_bytes_max: packet,
                topic_alias_maximum: alias,
                request_response_information: response,
                request_problem_information: problem,
                user_properties: pairs,
                authentication_method: auth.as_ref().map(|(method, _)| method.clone()),
                authentication_data: auth.and_then(|(_, data)| data),
            }
        });
    let will_properties = (
        (option::of(any::<u32>()), option::of(any::<bool>()), option::of(any::<u32>()), option::of(text())),
        (option::of(name()), option::of(binary()), pairs()),
    )
        .prop_map(|((delay, is_text, expiry, content), (response, correlation, pairs))| WillProperties {
            delay_s: delay,
            payload_is_text: is_text,
            message_expiry_s: expiry,
            content_type: content,
            response_topic: response,
            correlation_data: correlation,
            user_properties: pairs,
        });
    let will = (name(), binary(), qos(), any::<bool>(), will_properties).prop_map(
        move |(topic, payload, qos, retain, properties)| LastWill {
            topic,
            payload,
            qos,
            retain,
            properties: when(version, properties),
        },
    );
    (
        any::<bool>(),
        any::<u16>(),
        text(),
        option::of(will),
        option::of((text(), option::of(binary()))),
        properties,
    )
        .prop_map(move |(clean_start, keep_alive_s, client_id, will, user, properties)| {
            Packet::Connect(Box::new(Connect {
                version,
                clean_start,
                keep_alive_s,
                client_id,
                will,
                username: user.as_ref().map(|(name, _)| name.clone()),
                password: user.and_then(|(_, password)| password),
                properties: when(version, properties),
            }))
        })
}

fn connack(version: Version) -> impl Strategy<Value = Packet> {
    let codes: &'static [u8] = match version {
        Version::V5 => &[0x00, 0x80, 0x84, 0x85, 0x86, 0x87, 0x88, 0x97, 0x9F],
        Version::V311 => &[0x00, 0x84, 0x85, 0x88, 0x86, 0x87],
    };
    let properties = (
        (option::of(any::<u32>()), option::of(any::<NonZeroU16>()), option::of(any::<NonZeroU32>())),
        (option::of(prop_oneof![Just(Qos::AtMostOnce), Just(Qos::AtLeastOnce)]), vec(any::<bool>(), 4)),
        (option::of(text()), option::of(any::<u16>()), option::of(text()), pairs(), option::of(any::<u16>())),
        (option::of(text()), option::of(text()), option::of(text()), option::of(binary())),
    )
        .prop_map(|(first, (maximum_qos, flags), second, third)| ConnackProperties {
            session_expiry_s: first.0,
            receive_maximum: first.1,
            packet_bytes_max: first.2,
            maximum_qos,
            retain_available: Some(flags[0]),
            wildcard_available: Some(flags[1]),
            subscription_id_available: Some(flags[2]),
            shared_available: flags[3].then_some(true),
            assigned_client_id: second.0,
            topic_alias_maximum: second.1,
            reason_string: second.2,
            user_properties: second.3,
            server_keep_alive_s: second.4,
            response_information: third.0,
            server_reference: third.1,
            authentication_method: third.2,
            authentication_data: third.3,
        });
    (any::<bool>(), code(codes), properties).prop_map(move |(present, reason, properties)| {
        let session_present = present && !reason.is_error();
        Packet::Connack(Box::new(Connack { session_present, reason, properties: when(version, properties) }))
    })
}

fn publish(version: Version) -> impl Strategy<Value = Packet> {
    let properties = (
        (option::of(any::<bool>()), option::of(any::<u32>()), option::of(text()), option::of(name())),
        (option::of(binary()), vec(subscription_id(), 0..3), option::of(1..=u16::MAX), pairs()),
    )
        .prop_map(|((is_text, expiry, content, response), (correlation, ids, alias, pairs))| {
            PublishProperties {
                payload_is_text: is_text,
                message_expiry_s: expiry,
                content_type: content,
                response_topic: response,
                correlation_data: correlation,
                subscription_ids: ids,
                topic_alias: alias,
                user_properties: pairs,
            }
        });
    (any::<bool>(), qos(), any::<bool>(), name(), id(), properties, binary()).prop_map(
        move |(dup, qos, retain, topic, id, properties, payload)| {
            let certain = qos != Qos::AtMostOnce;
            Packet::Publish(Publish {
                dup: dup && certain,
                qos,
                retain,
                topic,
                id: certain.then_some(id),
                properties: when(version, properties),
                payload,
            })
        },
    )
}

fn ack(version: Version, codes: &'static [u8]) -> impl Strategy<Value = Ack> {
    (id(), code(codes), option::of(text()), pairs()).prop_map(move |(id, reason, why, pairs)| Ack {
        id,
        reason: when(version, reason),
        properties: when(version, AckProperties { reason_string: why, user_properties: pairs }),
    })
}

fn subscribe(version: Version) -> impl Strategy<Value = Packet> {
    let options =
        (qos(), any::<bool>(), any::<bool>(), 0..3_u8).prop_map(move |(qos, local, published, handling)| {
            let all = SubscriptionOptions {
                qos,
                no_local: local,
                retain_as_published: published,
                retain_handling: [RetainHandling::Always, RetainHandling::New, RetainHandling::Never]
                    [usize::from(handling)],
            };
            if version == Version::V5 { all } else { SubscriptionOptions { qos, ..Default::default() } }
        });
    let filter = (text(), options).prop_map(|(filter, options)| TopicRequest { filter, options });
    (id(), vec(filter, 1..4), option::of(subscription_id()), pairs()).prop_map(
        move |(id, filters, subscription_id, user_properties)| {
            let properties = when(version, SubscribeProperties { subscription_id, user_properties });
            Packet::Subscribe(Subscribe { id, properties, filters: filters.into() })
        },
    )
}

fn suback_properties(version: Version) -> impl Strategy<Value = SubackProperties> {
    (option::of(text()), pairs()).prop_map(move |(reason_string, user_properties)| {
        when(version, SubackProperties { reason_string, user_properties })
    })
}

fn packet(version: Version) -> BoxedStrategy<Packet> {
    let received: &'static [u8] = &[0x00, 0x10, 0x80, 0x87, 0x97];
    let released: &'static [u8] = &[0x00, 0x92];
    let granted: &'static [u8] =
        if version == Version::V5 { &[0x00, 0x01, 0x02, 0x8F, 0x9E] } else { &[0x00, 0x01, 0x02, 0x80] };
    let gone: &'static [u8] = if version == Version::V5 { &[0x00, 0x04, 0x8B, 0x8E, 0x93] } else { &[0x00] };
    let disconnect = (code(gone), option::of(any::<u32>()), option::of(text()), pairs(), option::of(text()))
        .prop_map(move |(reason, session_expiry_s, reason_string, user_properties, server_reference)| {
            let properties =
                DisconnectProperties { session_expiry_s, reason_string, user_properties, server_reference };
            Packet::Disconnect(Disconnect { reason, properties: when(version, properties) })
        });
    let unsubscribe = (id(), vec(text(), 1..4), pairs()).prop_map(move |(id, filters, user_properties)| {
        let properties = when(version, UnsubscribeProperties { user_properties });
        Packet::Unsubscribe(Unsubscribe { id, properties, filters: filters.into() })
    });
    let suback =
        (id(), suback_properties(version), vec(code(granted), 1..5)).prop_map(|(id, properties, reasons)| {
            Packet::Suback(Suback { id, properties, reasons: reasons.into() })
        });
    let unsuback = (id(), suback_properties(version), vec(code(&[0x00, 0x11, 0x80]), 1..5)).prop_map(
        move |(id, properties, reasons)| {
            let reasons = if version == Version::V5 { reasons } else { Vec::new() };
            Packet::Unsuback(Unsuback { id, properties, reasons: reasons.into() })
        },
    );
    let auth = (code(&[0x00, 0x18, 0x19]), text(), option::of(binary()), pairs()).prop_map(
        |(reason, method, authentication_data, user_properties)| {
            let authentication_method = Some(method);
            Packet::Auth(Auth {
                reason,
                properties: AuthProperties {
                    authentication_method,
                    authentication_data,
                    reason_string: None,
                    user_properties,
                },
            })
        },
    );
    let common = prop_oneof![
        connack(version),
        publish(version),
        ack(version, received).prop_map(Packet::Puback),
        ack(version, received).prop_map(Packet::Pubrec),
        ack(version, released).prop_map(Packet::Pubrel),
        ack(version, released).prop_map(Packet::Pubcomp),
        subscribe(version),
        suback,
        unsubscribe,
        unsuback,
        Just(Packet::Pingreq),
        Just(Packet::Pingresp),
        disconnect,
    ];
    if version == Version::V5 { prop_oneof![9 => common, 1 => auth].boxed() } else { common.boxed() }
}

fn versioned() -> impl Strategy<Value = (Version, Vec<Packet>, Packet)> {
    prop_oneof![Just(Version::V311), Just(Version::V5)]
        .prop_flat_map(|version| (Just(version), vec(packet(version), 1..8), connect(version)))
}

/// What comes out of a decoder that is fed `bytes` in pieces that end at `cuts`.
fn feed(decoder: &mut Decoder, bytes: &[u8], cuts: &[usize]) -> (Vec<Packet>, Option<DecodeError>) {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).chain([bytes.len()]).collect();
    ends.sort_unstable();
    let (mut buffer, mut packets, mut from) = (BytesMut::new(), Vec::new(), 0);
    for end in ends {
        buffer.extend_from_slice(&bytes[from..end]);
        from = end;
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => break,
                Err(error) => return (packets, Some(error)),
            }
        }
    }
    (packets, None)
}

proptest! {
    #[test]
    fn packets_come_back_however_they_are_cut(
        (version, packets, connect) in versioned(),
        cuts in vec(any::<usize>(), 0..20),
    ) {
        let mut bytes = BytesMut::new();
        for packet in &packets {
            packet.encode(version, &mut bytes).unwrap();
        }
        let (decoded, error) = feed(&mut Decoder::client(version, usize::MAX), &bytes, &cuts);
        prop_assert_eq!(error, None);
        prop_assert_eq!(&decoded, &packets);

        let mut with_connect = BytesMut::new();
        connect.encode(version, &mut with_connect).unwrap();
        with_connect.extend_from_slice(&bytes);
        let mut server = Decoder::server(usize::MAX);
        let (decoded, error) = feed(&mut server, &with_connect, &cuts);
        prop_assert_eq!(error, None);
        prop_assert_eq!(server.version(), Some(version));
        prop_assert_eq!(decoded.len(), packets.len() + 1);
        prop_assert_eq!(&decoded[0], &connect);
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_read_the_same_way_however_they_are_cut(
        bytes in vec(any::<u8>(), 0..200),
        cuts in vec(any::<usize>(), 0..20),
        version in prop_oneof![Just(None), Just(Some(Version::V311)), Just(Some(Version::V5))],
    ) {
        let fresh = || match version {
            None => Decoder::server(1000),
            Some(version) => Decoder::client(version, 1000),
        };
        let whole = feed(&mut fresh(), &bytes, &[]);
        let pieces = feed(&mut fresh(), &bytes, &cuts);
        prop_assert_eq!(whole, pieces);
    }

    #[test]
    fn a_damaged_packet_never_panics(
        (version, packets, connect) in versioned(),
        damage in vec((any::<usize>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = BytesMut::new();
        connect.encode(version, &mut bytes).unwrap();
        for packet in &packets {
            packet.encode(version, &mut bytes).unwrap();
        }
        for (at, value) in damage {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        feed(&mut Decoder::server(100_000), &bytes, &[]);
    }

    #[test]
    fn a_head_and_a_payload_are_the_packet(
        packet in publish(Version::V5),
        version in prop_oneof![Just(Version::V311), Just(Version::V5)],
        expiry in option::of(any::<u32>()),
        subscriptions in vec(subscription_id(), 0..4),
    ) {
        let Packet::Publish(mut publish) = packet else { unreachable!() };
        let forwarded = Forwarded {
            payload_is_text: publish.properties.payload_is_text,
            content_type: publish.properties.content_type.clone(),
            response_topic: publish.properties.response_topic.clone(),
            correlation_data: publish.properties.correlation_data.clone(),
            user_properties: publish.properties.user_properties.clone(),
        };
        let mut wire = BytesMut::new();
        forwarded.put_wire(&mut wire).unwrap();
        prop_assert_eq!(Forwarded::from_wire(wire.clone().freeze()), Some(forwarded));
        let head = PublishHead {
            dup: publish.dup,
            qos: publish.qos,
            retain: publish.retain,
            topic: &publish.topic,
            topic_alias: publish.properties.topic_alias,
            id: publish.id,
            message_expiry_s: expiry,
            subscription_ids: &subscriptions,
            forwarded: &wire,
            payload_bytes: publish.payload.len(),
        };
        let mut bytes = BytesMut::new();
        head.encode(version, &mut bytes).unwrap();
        bytes.extend_from_slice(&publish.payload);
        prop_assert_eq!(head.packet_bytes(version).unwrap(), bytes.len());
        publish.properties.message_expiry_s = expiry;
        publish.properties.subscription_ids = subscriptions;
        if version == Version::V311 {
            publish.properties = PublishProperties::default();
        }
        let decoded = Decoder::client(version, usize::MAX).decode(&mut bytes).unwrap();
        prop_assert_eq!(decoded, Some(Packet::Publish(publish)));
        prop_assert!(bytes.is_empty());
    }
}

/// The error that these bytes give on a connection whose version is known.
fn refused(version: Version, bytes: &[u8]) -> DecodeError {
    let (packets, error) = feed(&mut Decoder::client(version, 1000), bytes, &[]);
    assert_eq!(packets, []);
    error.unwrap_or_else(|| panic!("{bytes:02x?} was not refused"))
}

/// The error that these bytes give at the beginning of a connection.
fn refused_first(bytes: &[u8]) -> DecodeError {
    let (packets, error) = feed(&mut Decoder::server(1000), bytes, &[]);
    assert_eq!(packets, []);
    error.unwrap_or_else(|| panic!("{bytes:02x?} was not refused"))
}

#[test]
fn broken_fixed_headers_are_refused_with_their_section() {
    for (bytes, section) in [
        (&[0x00, 0x00][..], "2.1.2"),
        (&[0x36, 0x00], "MQTT-3.3.1-4"),
        (&[0x38, 0x00], "MQTT-3.3.1-2"),
        (&[0x41, 0x02, 0, 1], "MQTT-2.1.3-1"),
        (&[0x60, 0x02, 0, 1], "MQTT-2.1.3-1"),
        (&[0x80, 0x02, 0, 1], "MQTT-2.1.3-1"),
        (&[0xc0, 0x80, 0x80, 0x80, 0x80, 0x01], "2.1.4"),
        (&[0xc0, 0x80, 0x00], "MQTT-1.5.5-1"),
        (&[0xc0, 0x01, 0x00], "3.12.1"),
    ] {
        assert_eq!(refused(Version::V5, bytes).section, section, "{bytes:02x?}");
    }
    let padded = feed(&mut Decoder::client(Version::V311, 1000), &[0xc0, 0x80, 0x00], &[]);
    assert_eq!(padded, (vec![Packet::Pingreq], None), "3.1.1 lets a Remaining Length be padded");
    assert_eq!(refused(Version::V311, &[0xf0, 0x00]).section, "3.1.1 2.2.1");
}

#[test]
fn a_packet_over_the_limit_is_refused_from_its_header() {
    // 998 bytes of body and 3 of header: one over. None of the body is there yet.
    let error = refused(Version::V5, &[0x30, 0xe6, 0x07]);
    assert_eq!(error.reason, ReasonCode::PACKET_TOO_LARGE);
    let within = feed(&mut Decoder::client(Version::V5, 1000), &[0x30, 0xe5, 0x07], &[]);
    assert_eq!(within, (vec![], None));
}

#[test]
fn a_connect_that_breaks_a_rule_is_refused() {
    const V5: &[u8] = b"\0\x04MQTT\x05";
    const V4: &[u8] = b"\0\x04MQTT\x04";
    let connect = |head: &[u8], rest: &[u8]| {
        let mut bytes = vec![0x10, (head.len() + rest.len()) as u8];
        bytes.extend_from_slice(head);
        bytes.extend_from_slice(rest);
        bytes
    };
    for (bytes, section) in [
        (connect(b"\0\x04MQTX\x05", b"\x02\0\0\0\0\0"), "MQTT-3.1.2-1"),
        (connect(b"\0\x04MQTT\x06", b"\x02\0\0\0\0\0"), "MQTT-3.1.2-2"),
        (connect(b"\0\x06MQIsdp\x03", b"\x02\0\0\0\0"), "MQTT-3.1.2-2"),
        (connect(V5, b"\x03\0\0\0\0\0"), "MQTT-3.1.2-3"),
        (connect(V5, b"\x0a\0\0\0\0\0"), "MQTT-3.1.2-11"),
        (connect(V5, b"\x22\0\0\0\0\0"), "MQTT-3.1.2-13"),
        (connect(V5, b"\x1e\0\0\0\0\0"), "MQTT-3.1.2-12"),
        (connect(V4, b"\x42\0\0\0\0\0\0"), "3.1.1 MQTT-3.1.2-22"),
        // A will to a topic with a wildcard.
        (connect(V4, b"\x06\0\0\0\0\0\x01#\0\0"), "MQTT-3.3.2-2"),
        // Session expiry twice; Receive Maximum 0; authentication data alone; a PUBLISH's property.
        (connect(V5, b"\x02\0\0\x0a\x11\0\0\0\x01\x11\0\0\0\x01\0\0"), "2.2.2.2"),
        (connect(V5, b"\x02\0\0\x03\x21\0\0\0\0"), "3.1.2.11.3"),
        (connect(V5, b"\x02\0\0\x05\x27\0\0\0\0\0\0"), "3.1.2.11.4"),
        (connect(V5, b"\x02\0\0\x03\x16\0\0\0\0"), "3.1.2.11.10"),
        (connect(V5, b"\x02\0\0\x03\x23\0\x01\0\0"), "2.2.2.2"),
        // Bytes after the end, and an end too early.
        (connect(V5, b"\x02\0\0\0\0\0x"), "4.13.1"),
        (connect(V5, b"\x02\0\0\0\0\x05x"), "4.13.1"),
    ] {
        assert_eq!(refused_first(&bytes).section, section, "{bytes:02x?}");
    }
    assert_eq!(refused_first(&[0xc0, 0x00]).section, "MQTT-3.1.0-1");
    let mut decoder = Decoder::server(1000);
    let (_, error) = feed(&mut decoder, &connect(b"\0\x04MQTT\x03", b"\x02\0\0\0\0"), &[]);
    assert_eq!(error.unwrap().reason, ReasonCode::UNSUPPORTED_PROTOCOL_VERSION);
    assert_eq!(decoder.version(), Some(Version::V311), "the refusal is written in a form the client knows");
}

#[test]
fn broken_bodies_are_refused_with_their_section() {
    for (bytes, section) in [
        // PUBLISH: id 0; wildcard; empty topic; alias 0; identifier 0; wildcard in the response topic.
        (&b"\x32\x06\0\x01a\0\0\0"[..], "MQTT-2.2.1-3"),
        (b"\x30\x04\0\x01#\0", "MQTT-3.3.2-2"),
        (b"\x30\x03\0\0\0", "3.3.2.1"),
        (b"\x30\x07\0\x01a\x03\x23\0\0", "MQTT-3.3.2-8"),
        (b"\x30\x06\0\x01a\x02\x0b\0", "3.8.2.1.2"),
        (b"\x30\x08\0\x01a\x04\x08\0\x01+", "MQTT-3.3.2-2"),
        (b"\x30\x06\0\x01a\x02\x01\x02", "2.2.2.2"),
        // Acknowledgements: id 0; a code of another packet.
        (b"\x40\x02\0\0", "MQTT-2.2.1-3"),
        (b"\x62\x03\0\x01\x80", "2.4"),
        // SUBSCRIBE and UNSUBSCRIBE: no filter, QoS 3, reserved bits, retain handling 3.
        (b"\x82\x03\0\x01\0", "MQTT-3.8.3-2"),
        (b"\x82\x07\0\x01\0\0\x01a\x03", "MQTT-3.8.3-5"),
        (b"\x82\x07\0\x01\0\0\x01a\x40", "MQTT-3.8.3-5"),
        (b"\x82\x07\0\x01\0\0\x01a\x30", "MQTT-3.8.3-5"),
        (b"\xa2\x03\0\x01\0", "MQTT-3.10.3-2"),
        (b"\xe0\x01\x03", "3.14.2.1"),
        (b"\xf0\x02\x01\0", "MQTT-3.15.2-1"),
        (b"\xf0\x01\x18", "3.15.2.2.2"),
        (b"\x20\x03\x01\x80\0", "MQTT-3.2.2-6"),
        (b"\x20\x03\x02\x00\0", "MQTT-3.2.2-1"),
        (b"\x10\x00", "MQTT-3.1.0-2"),
    ] {
        assert_eq!(refused(Version::V5, bytes).section, section, "{bytes:02x?}");
    }
    assert_eq!(refused(Version::V311, b"\x82\x06\0\x01\0\x01a\x04").section, "MQTT-3.8.3-5");
}

#[test]
fn strings_and_payloads_share_the_buffer() {
    let mut buffer = BytesMut::from(&b"\x30\x08\0\x01a\0hello"[..]);
    buffer[1] = 9;
    let range = buffer.as_ptr_range();
    let Some(Packet::Publish(publish)) = Decoder::client(Version::V5, 1000).decode(&mut buffer).unwrap()
    else {
        panic!("no PUBLISH")
    };
    assert!(range.contains(&publish.payload.as_ptr()) && range.contains(&publish.topic.as_bytes().as_ptr()));
}
