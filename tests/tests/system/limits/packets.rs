//! How large packets may be, how deep and long topics, how many subscriptions and messages in flight there may be.

use tidemill_tests::mqtt::{Client, Connect, Level, Packet, Publish, encode};
use tidemill_tests::wait;
use tokio::net::TcpSocket;

use super::{LIMIT, acknowledge, hub, reached, take_three};

/// A QoS 1 PUBLISH of MQTT 5 with an alias for its topic, and no payload.
fn aliased(topic: &str, id: u16, alias: u16) -> Vec<u8> {
    let mut body = (topic.len() as u16).to_be_bytes().to_vec();
    body.extend(topic.bytes());
    body.extend(id.to_be_bytes());
    // One property: Topic Alias.
    body.extend([3, 0x23]);
    body.extend(alias.to_be_bytes());
    encode::packet(0x32, &body).to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_refused_with_its_reason() {
    let hub =
        hub("packet_bytes_max: 2KiB, payload_bytes_max: 1KiB, topic_levels_max: 3, topic_bytes_max: 20, \
         subscriptions_per_session_max: 2, receive_maximum: 2")
        .await;
    let mut client = Client::connect(hub.mqtt(), &Connect::clean("client")).await;
    assert_eq!(client.properties.number(0x27), Some(2048), "it is told the Maximum Packet Size");
    assert_eq!(client.properties.number(0x21), Some(2), "and the Receive Maximum");
    for (topic, bytes, reason) in [
        ("a/b/c/d", 1, 0x90),
        ("a/234567890123456789x", 1, 0x90),
        ("a", 1025, 0x97),
        ("a/2345678901234567/x", 1024, 0),
    ] {
        client.publish(Publish::new(topic, vec![b'x'; bytes], 1, 7)).await;
        match client.packet().await {
            Packet::PubAck { id: 7, reason: said } => assert_eq!(said, reason, "{topic}, {bytes} bytes"),
            other => panic!("{topic}, {bytes} bytes: {other:?}"),
        }
    }
    client
        .writer
        .subscribe(
            2,
            &[("a/b/c/d", 0), ("a/234567890123456789x", 0), ("a/#", 1), ("b", 0), ("c", 0), ("a/#", 1)],
        )
        .await
        .unwrap();
    match client.packet().await {
        Packet::SubAck { id: 2, reasons } => assert_eq!(reasons, [0x8f, 0x8f, 1, 0, 0x97, 1]),
        other => panic!("{other:?}"),
    }
    // A PUBACK cannot refuse QoS 0.
    client.publish(Publish::new("a", vec![b'x'; 1025], 0, 0)).await;
    assert_eq!(client.reader.until_closed().await, [Packet::Disconnect { reason: 0x95 }]);

    let mut client = Client::connect(hub.mqtt(), &Connect::clean("client")).await;
    client.publish(Publish::new("a", vec![b'x'; 3000], 1, 1)).await;
    assert_eq!(client.reader.until_closed().await, [Packet::Disconnect { reason: 0x95 }]);

    let mut client = Client::connect(hub.mqtt(), &Connect::clean("client")).await;
    for id in 1..=3 {
        // QoS 2 counts until PUBCOMP, however fast the hub is.
        client.writer.publish(&Publish::new("a", "x", 2, id)).await.unwrap();
    }
    client.writer.flush().await.unwrap();
    let last = client.reader.until_closed().await.pop();
    assert_eq!(last, Some(Packet::Disconnect { reason: 0x93 }));

    for (limit, times) in [
        ("topic_levels_max", 2.0),
        ("topic_bytes_max", 2.0),
        ("payload_bytes_max", 2.0),
        ("packet_bytes_max", 1.0),
        ("subscriptions_per_session_max", 1.0),
        ("receive_maximum", 1.0),
    ] {
        assert_eq!(reached(&hub, limit).await, times, "{limit}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_3_1_1_what_cannot_be_told_closes_and_what_is_too_much_waits() {
    let hub = hub(
        "payload_bytes_max: 1KiB, topic_bytes_max: 20, subscriptions_per_session_max: 1, receive_maximum: 2",
    )
    .await;
    let old = |client: &str| Connect::clean(client).level(Level::V311);
    for (topic, bytes) in [("a/234567890123456789x", 1), ("a", 1025)] {
        let mut client = Client::connect(hub.mqtt(), &old("client")).await;
        client.publish(Publish::new(topic, vec![b'x'; bytes], 1, 1)).await;
        assert_eq!(client.reader.until_closed().await, [], "{topic}, {bytes} bytes");
    }
    let mut client = Client::connect(hub.mqtt(), &old("client")).await;
    client.writer.subscribe(2, &[("a", 1), ("b", 0)]).await.unwrap();
    match client.packet().await {
        Packet::SubAck { id: 2, reasons } => assert_eq!(reasons, [1, 0x80]),
        other => panic!("{other:?}"),
    }
    // It was told no Receive Maximum, so it cannot keep to one.
    let mut client = Client::connect(hub.mqtt(), &old("client")).await;
    for id in 1..=50 {
        client.writer.publish(&Publish::new("b", "x", 1, id)).await.unwrap();
    }
    client.writer.flush().await.unwrap();
    for id in 1..=50 {
        assert_eq!(client.packet().await, Packet::PubAck { id, reason: 0 });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_acknowledge_gets_no_more_than_the_window() {
    let hub = hub("inflight_max: 3").await;
    let mut slow = Client::connect(hub.mqtt(), &Connect::clean("slow")).await;
    slow.subscribe(&[("a", 1)]).await;
    let mut sender = Client::connect(hub.mqtt(), &Connect::clean("sender")).await;
    for number in 0..10 {
        sender.publish_acked(Publish::new("a", number.to_string(), 1, 1)).await;
    }
    let ids = take_three(&mut slow).await;
    slow.nothing_comes().await;
    assert!(reached(&hub, "inflight_max").await >= 1.0);
    acknowledge(&mut slow, ids).await;
    for number in 3..10 {
        assert_eq!(slow.message().await.payload, number.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alias_over_the_highest_one_closes() {
    for (highest, told) in [(2, Some(2)), (0, None)] {
        let hub = hub(&format!("topic_alias_max: {highest}")).await;
        let mut client = Client::connect(hub.mqtt(), &Connect::clean("client")).await;
        assert_eq!(client.properties.number(0x22), told, "the Topic Alias Maximum");
        for alias in 1..=highest {
            client.writer.raw(&aliased("a", alias, alias)).await.unwrap();
            assert_eq!(client.packet().await, Packet::PubAck { id: alias, reason: 0 });
        }
        assert_eq!(reached(&hub, "topic_alias_max").await, 0.0);
        client.writer.raw(&aliased("a", 9, highest + 1)).await.unwrap();
        assert_eq!(client.reader.until_closed().await, [Packet::Disconnect { reason: 0x94 }]);
        assert_eq!(reached(&hub, "topic_alias_max").await, 1.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_socket_is_bounded_and_the_rest_waits_in_the_log() {
    const COUNT: u16 = 300;
    const BYTES: usize = 100_000;
    let hub = hub("out_buffer_bytes_max: 64KiB").await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    let stream = socket.connect(hub.mqtt()).await.unwrap();
    let mut deaf = Client::over(stream, &Connect::clean("deaf")).await;
    let mut other = Client::connect(hub.mqtt(), &Connect::clean("other")).await;
    deaf.subscribe(&[("a", 0)]).await;
    other.subscribe(&[("a", 0)]).await;
    // More than the buffers of both sockets hold.
    let mut sender = Client::connect(hub.mqtt(), &Connect::clean("sender")).await;
    for number in 0..COUNT {
        let payload = [&number.to_be_bytes(), &[b'x'; BYTES][..]].concat();
        sender.publish_acked(Publish::new("a", payload.clone(), 1, 1)).await;
        assert_eq!(other.message().await.payload, payload, "others are served as ever");
    }
    let full = async || (reached(&hub, "out_buffer_bytes_max").await >= 1.0).then_some(());
    wait::until("a buffer that is full", LIMIT, full).await;
    let told: serde_json::Value = hub.json("/api/v1/clients/deaf").await;
    let (waiting, lag) = (told["waiting_bytes"].as_u64().unwrap(), told["lag"].as_u64().unwrap());
    // One message always fits.
    assert!(waiting > 0 && waiting < 64 * 1024 + 2 * BYTES as u64, "{waiting} bytes wait");
    assert!(lag > 0, "{told}");
    // Nothing is lost, and what it says is heard when it has read what is there.
    deaf.writer.ping().await.unwrap();
    let mut numbers = Vec::new();
    let mut answered = false;
    while numbers.len() < usize::from(COUNT) || !answered {
        match deaf.packet().await {
            Packet::Publish { payload, .. } => numbers.push(u16::from_be_bytes([payload[0], payload[1]])),
            Packet::PingResp => answered = true,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(numbers, (0..COUNT).collect::<Vec<_>>());
}
