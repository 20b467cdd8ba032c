//! MQTT that is not: the connection is closed with the right reason code, and nobody else notices.

use std::time::Duration;

use bytes::Bytes;
use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};
use tidemill_tests::mqtt::encode::packet;
use tidemill_tests::mqtt::{Client, Connect, Level, Packet, Publish};
use tidemill_tests::services::{HttpFunction, Tidemill};
use tidemill_tests::{report, wait};

const LIMIT: Duration = Duration::from_secs(30);

/// Identifier of the property Maximum Packet Size (MQTT 5.0, section 3.2.2.3.6).
const MAXIMUM_PACKET_SIZE: u8 = 0x27;

/// What is wrong, the packet, and the reason codes of MQTT 5.0 that say so.
fn malformed() -> Vec<(&'static str, Bytes, &'static [u8])> {
    vec![
        ("PUBLISH with QoS 3", packet(0x36, b"\0\x01a\0\x01\0"), &[0x81]),
        ("PUBLISH with DUP and QoS 0", packet(0x38, b"\0\x01a\0"), &[0x81, 0x82]),
        ("PUBLISH with packet identifier 0", packet(0x32, b"\0\x01a\0\0\0"), &[0x81, 0x82]),
        ("PUBLISH to a topic that is no UTF-8", packet(0x30, b"\0\x02\xff\xfe\0"), &[0x81]),
        ("PUBLISH to a topic with a zero character", packet(0x30, b"\0\x03a\0b\0"), &[0x81]),
        ("PUBLISH to a wildcard", packet(0x30, b"\0\x03a/#\0"), &[0x81, 0x82, 0x90]),
        ("PUBLISH to no topic", packet(0x30, b"\0\0\0"), &[0x82]),
        ("PUBLISH with a topic longer than the packet", packet(0x30, b"\0\x09a\0"), &[0x81]),
        ("PUBLISH with an unknown property", packet(0x30, b"\0\x01a\x02\x7f\x00"), &[0x81]),
        ("PUBLISH with a property twice", packet(0x30, b"\0\x01a\x04\x01\x00\x01\x00"), &[0x82]),
        ("PUBLISH with a topic alias over the maximum", packet(0x30, b"\0\x01a\x03\x23\xff\xff"), &[0x94]),
        ("SUBSCRIBE with reserved flags", packet(0x80, b"\0\x01\0\0\x01a\x00"), &[0x81]),
        ("SUBSCRIBE to nothing", packet(0x82, b"\0\x01\0"), &[0x82]),
        ("SUBSCRIBE with reserved options", packet(0x82, b"\0\x01\0\0\x01a\xc0"), &[0x81, 0x82]),
        ("SUBSCRIBE with packet identifier 0", packet(0x82, b"\0\0\0\0\x01a\x00"), &[0x81, 0x82]),
        ("UNSUBSCRIBE from nothing", packet(0xa2, b"\0\x01\0"), &[0x82]),
        ("PINGREQ with a body", packet(0xc0, b"x"), &[0x81]),
        ("a packet of type 0", packet(0x00, b""), &[0x81, 0x82]),
        ("a CONNACK from a client", packet(0x20, b"\0\0\0"), &[0x81, 0x82]),
        ("a remaining length of five bytes", Bytes::from_static(b"\x30\xff\xff\xff\xff\x01"), &[0x81]),
        ("PUBREL with wrong flags", packet(0x60, b"\0\x01"), &[0x81]),
        ("a second CONNECT", packet(0x10, b"\0\x04MQTT\x05\x02\0\x3c\0\0\x01z"), &[0x82]),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_packets_close_their_connection_only() {
    let hub = Tidemill::start("").await;
    let mut other = Client::connect(hub.mqtt(), &Connect::clean("other")).await;
    other.subscribe(&[("a", 1), ("still/#", 1)]).await;
    for (what, bytes, reasons) in malformed() {
        for level in [Level::V5, Level::V311] {
            if level == Level::V311 && !wrong_in_311(what) {
                continue;
            }
            let connect = Connect::clean("bad").level(level);
            let mut client = Client::connect(hub.mqtt(), &connect).await;
            client.writer.raw(&bytes).await.expect("an open connection");
            let packets = client.reader.until_closed().await;
            match (level, packets.as_slice()) {
                (Level::V5, [Packet::Disconnect { reason }]) => {
                    assert!(reasons.contains(reason), "{what}: {reason:#x} is not one of {reasons:x?}");
                }
                // A server of 3.1.1 has no DISCONNECT to send.
                (Level::V311, []) => {}
                (_, packets) => panic!("{what} ({level:?}) was answered with {packets:?}"),
            }
        }
    }
    // The other one lives, and has seen nothing of all this.
    other.publish_acked(Publish::new("nobody", "x", 1, 9)).await;
    let mut publisher = Client::connect(hub.mqtt(), &Connect::clean("good")).await;
    publisher.publish_acked(Publish::new("still/there", "x", 1, 1)).await;
    assert_eq!(other.message().await.topic, "still/there");
    report!("refusals", "{} kinds of malformed packets refused", malformed().len());
}

/// Whether a packet of [`malformed`] is wrong in 3.1.1 too, where the bytes of its properties mean something else.
fn wrong_in_311(what: &str) -> bool {
    !(what.contains("propert")
        || what.contains("alias")
        || what.contains("reserved options")
        || what.contains("nothing"))
        && what != "a CONNACK from a client"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_connect_is_not_let_in() {
    let hub = Tidemill::start("").await;
    let first_packets: [(&str, Bytes, &[u8]); 6] = [
        ("PUBLISH first", packet(0x30, b"\0\x01ax"), &[]),
        ("HTTP", Bytes::from_static(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), &[]),
        ("another protocol", packet(0x10, b"\0\x04QTTM\x05\x02\0\x3c\0\0\x01z"), &[0x84]),
        ("version 9", packet(0x10, b"\0\x04MQTT\x09\x02\0\x3c\0\0\x01z"), &[0x84, 1]),
        ("the reserved flag", packet(0x10, b"\0\x04MQTT\x05\x03\0\x3c\0\0\x01z"), &[0x81]),
        ("will QoS 3", packet(0x10, b"\0\x04MQTT\x05\x1e\0\x3c\0\0\x01z\0\0\x01t\0\0"), &[0x81]),
    ];
    for (what, bytes, reasons) in first_packets {
        let (mut writer, mut reader) = Client::open(hub.mqtt(), Level::V5).await.unwrap();
        writer.raw(&bytes).await.unwrap();
        for packet in reader.until_closed().await {
            match packet {
                Packet::ConnAck { reason, session_present: false, .. } => {
                    assert!(reasons.contains(&reason), "{what}: {reason:#x} is not one of {reasons:x?}");
                }
                other => panic!("{what} was answered with {other:?}"),
            }
        }
    }
    Client::connect(hub.mqtt(), &Connect::clean("good")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_does_not_hurt() {
    let hub = Tidemill::start("").await;
    let seed: u64 = rand::random();
    report!("refusals", "noise with seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut other = Client::connect(hub.mqtt(), &Connect::clean("other")).await;
    for round in 0..300 {
        let mut noise = vec![0; random.random_range(1..2000)];
        random.fill_bytes(&mut noise);
        let connected = round % 2 == 0;
        let (mut writer, _reader) = match connected {
            true => {
                let client = Client::connect(hub.mqtt(), &Connect::clean("noisy")).await;
                (client.writer, client.reader)
            }
            false => Client::open(hub.mqtt(), Level::V5).await.unwrap(),
        };
        // Refused in the middle is fine.
        let _ = writer.raw(&noise).await;
    }
    other.publish_acked(Publish::new("a", "x", 1, 1)).await;
    assert!(!hub.log().contains("panicked"), "a panic:\n{}", hub.log());
}

/// Default of `mqtt.payload_bytes_max`.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_over_the_limit_is_refused_with_its_reason() {
    let hub = Tidemill::start("").await;
    let mut other = Client::connect(hub.mqtt(), &Connect::clean("other")).await;
    other.subscribe(&[("a", 0)]).await;
    let mut client = Client::connect(hub.mqtt(), &Connect::clean("large")).await;
    let packet_max =
        client.properties.number(MAXIMUM_PACKET_SIZE).expect("a limit that is announced") as usize;
    assert!(packet_max > PAYLOAD_BYTES_MAX);
    client.publish_acked(Publish::new("a", vec![b'x'; PAYLOAD_BYTES_MAX], 1, 1)).await;
    assert_eq!(other.message().await.payload.len(), PAYLOAD_BYTES_MAX);

    // With QoS 1 and 2 one message is refused and the connection goes on.
    for (qos, id) in [(1, 2), (2, 3)] {
        let over = Publish::new("a", vec![b'x'; PAYLOAD_BYTES_MAX + 1], qos, id);
        client.publish(over).await;
        match (qos, client.packet().await) {
            (1, Packet::PubAck { id: 2, reason: 0x97 }) | (2, Packet::PubRec { id: 3, reason: 0x97 }) => {}
            (_, other) => panic!("QoS {qos}: {other:?} is no refusal with reason 0x97"),
        }
    }
    client.publish_acked(Publish::new("a", "fits", 1, 4)).await;
    assert_eq!(other.message().await.payload, "fits");

    // With QoS 0 there is no acknowledgement that could say so, nor in 3.1.1, nor for a packet that is not read at all.
    let cases = [
        (Level::V5, 0, PAYLOAD_BYTES_MAX + 1),
        (Level::V311, 1, PAYLOAD_BYTES_MAX + 1),
        (Level::V5, 1, packet_max),
        (Level::V311, 1, packet_max),
    ];
    for (level, qos, bytes) in cases {
        let mut client = Client::connect(hub.mqtt(), &Connect::clean("large").level(level)).await;
        // The hub may close while we are still writing.
        let _ = client.writer.publish(&Publish::new("a", vec![b'x'; bytes], qos, 5)).await;
        let _ = client.writer.flush().await;
        let packets = client.reader.until_closed().await;
        let wanted = if level == Level::V5 { vec![Packet::Disconnect { reason: 0x95 }] } else { vec![] };
        assert_eq!(packets, wanted, "{level:?}, QoS {qos}, {bytes} bytes");
    }
    other.nothing_comes().await;
    report!("refusals", "payloads of {PAYLOAD_BYTES_MAX} bytes are taken, of one more refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_that_is_no_json_matches_no_data_pattern_and_is_counted() {
    let function = HttpFunction::start().await;
    let rules = format!(
        r#"
connections:
  hook: {{ http: {{ url: "{}" }} }}
rules:
  - name: hot
    from: {{ mqtt: ["sensors/+"] }}
    event: {{ type: com.example.hot, source: /sensors }}
    where: {{ data: {{ temp: [ {{ numeric: [">", 50] }} ] }} }}
    to: [ hook: {{}} ]
"#,
        function.url("/hot")
    );
    let hub = Tidemill::start(&rules).await;
    let mut client = Client::connect(hub.mqtt(), &Connect::clean("sensor")).await;
    for payload in ["not json", "{\"temp\": 60", "\u{fe}", "", "{\"temp\": 40}", "{\"temp\": 60}"] {
        client.publish_acked(Publish::new("sensors/1", payload, 1, 1)).await;
    }
    let accepted = function.until_accepted("/hot", 1, LIMIT).await;
    hub.until_delivered(LIMIT).await;
    assert_eq!(accepted[0].body, "{\"temp\": 60}");
    assert_eq!(function.received("/hot").len(), 1, "only what matched is sent");
    // The empty payload is no JSON either.
    let metrics = hub.metrics().await;
    assert_eq!(metrics.sum("tidemill_router_not_json_total", &[]), Some(4.0));
    assert_eq!(metrics.sum("tidemill_router_matched_total", &[("rule", "hot")]), Some(1.0));
    wait::until("the delivery to be counted", LIMIT, async || {
        let delivered = hub.metrics().await.sum("tidemill_delivery_delivered_total", &[("rule", "hot")]);
        (delivered == Some(1.0)).then_some(())
    })
    .await;
}
