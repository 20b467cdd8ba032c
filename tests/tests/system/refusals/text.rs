//! Payloads that are said to be text and are not, where that is looked at.

use tidemill_tests::mqtt::encode::packet;
use tidemill_tests::mqtt::{Client, Connect, Level, Packet};
use tidemill_tests::services::Tidemill;

/// A PUBLISH to `a` with Payload Format Indicator 1.
fn said_to_be_text(qos: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 1, b'a'];
    if qos > 0 {
        body.extend([0, 7]);
    }
    body.extend([2, 0x01, 1]);
    body.extend(payload);
    packet(0x30 | qos << 1, &body).to_vec()
}

/// A CONNECT with such a will.
fn with_will(payload: &[u8]) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x05\x06\0\x3c\0\0\x04text\x02\x01\x01\0\x01w".to_vec();
    body.extend([0, payload.len() as u8]);
    body.extend(payload);
    packet(0x10, &body).to_vec()
}

async fn hub(check: bool) -> Tidemill {
    Tidemill::start_with_config(&format!("mqtt: {{ payload_format_check: {check} }}\n")).await
}

#[tokio::test]
async fn what_is_said_to_be_text_must_be() {
    let hub = hub(true).await;
    let mut client = Client::connect(hub.mqtt(), &Connect::clean("text")).await;
    for (qos, payload, reason) in [(1, &b"t\xc3\xa4xt"[..], 0), (1, b"\xff", 0x99), (2, b"\xc3", 0x99)] {
        client.writer.raw(&said_to_be_text(qos, payload)).await.unwrap();
        match client.packet().await {
            Packet::PubAck { id: 7, reason: said } | Packet::PubRec { id: 7, reason: said } => {
                assert_eq!(said, reason);
            }
            other => panic!("{other:?}"),
        }
    }
    // The connection lives on; with QoS 0 there is nothing else to say it with.
    client.nothing_comes().await;
    client.writer.raw(&said_to_be_text(0, b"\xff")).await.unwrap();
    assert_eq!(client.reader.until_closed().await, [Packet::Disconnect { reason: 0x99 }]);

    let (mut writer, mut reader) = Client::open(hub.mqtt(), Level::V5).await.unwrap();
    writer.raw(&with_will(b"\xff")).await.unwrap();
    let said = reader.until_closed().await;
    assert!(matches!(said[..], [Packet::ConnAck { reason: 0x99, .. }]), "{said:?}");
    let (mut writer, mut reader) = Client::open(hub.mqtt(), Level::V5).await.unwrap();
    writer.raw(&with_will(b"text")).await.unwrap();
    assert!(matches!(reader.packet().await, Packet::ConnAck { reason: 0, .. }));
}

#[tokio::test]
async fn it_is_passed_on_as_it_is_where_nobody_looks() {
    let hub = hub(false).await;
    let mut client = Client::connect(hub.mqtt(), &Connect::clean("text")).await;
    client.subscribe(&[("a", 0)]).await;
    client.writer.raw(&said_to_be_text(0, b"\xff")).await.unwrap();
    match client.packet().await {
        Packet::Publish { payload, properties, .. } => {
            assert_eq!((&payload[..], properties.number(0x01)), (&b"\xff"[..], Some(1)));
        }
        other => panic!("{other:?}"),
    }
}
