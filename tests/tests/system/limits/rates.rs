//! Messages and bytes in a second: who is over is not read for a while. Nothing is dropped, and nobody is closed.

use std::time::{Duration, Instant};

use tidemill_tests::mqtt::{Client, Connect, Level, Packet, Publish};

use super::{hub, reached};

/// Publishes all at once, and waits until all are acknowledged. Returns how long that took.
async fn publish_all(client: &mut Client, topic: &str, count: u16, bytes: usize) -> Duration {
    let began = Instant::now();
    for id in 1..=count {
        client.writer.publish(&Publish::new(topic, vec![b'x'; bytes], 1, id)).await.unwrap();
    }
    client.writer.flush().await.unwrap();
    for id in 1..=count {
        match client.packet().await {
            Packet::PubAck { id: acked, reason: 0 | 16 } if acked == id => {}
            other => panic!("message {id}: {other:?}"),
        }
    }
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_slowed_down_to_its_messages_in_a_second() {
    let hub = hub("client_messages_per_s: 50, rate_burst: 200ms").await;
    for level in [Level::V5, Level::V311] {
        // Silence that the hub makes is not the client's.
        let hasty = Connect { keep_alive_s: 1, ..Connect::clean("hasty").level(level) };
        let mut hasty = Client::connect(hub.mqtt(), &hasty).await;
        // The burst is 10; the other 100 take two seconds.
        let took = publish_all(&mut hasty, "a", 110, 10).await;
        assert!(took >= Duration::from_millis(1_980), "110 messages in {took:?}");
        hasty.nothing_comes().await;
    }
    assert!(reached(&hub, "client_messages_per_s").await >= 2.0);
    assert_eq!(hub.metrics().await.sum("tidemill_mqtt_published_total", &[]), Some(220.0), "none is lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_slowed_down_to_its_bytes_in_a_second() {
    let hub = hub("client_bytes_per_s: 100KB, rate_burst: 500ms").await;
    let mut hasty = Client::connect(hub.mqtt(), &Connect::clean("hasty")).await;
    // 50 KB at once, and what was read with one call beyond that; the last read is not waited for.
    let took = publish_all(&mut hasty, "a", 30, 10_000).await;
    assert!(took >= Duration::from_millis(2_200), "300 KB in {took:?}");
    assert!(reached(&hub, "client_bytes_per_s").await >= 1.0);
    // Others have budgets of their own.
    let mut other = Client::connect(hub.mqtt(), &Connect::clean("other")).await;
    publish_all(&mut other, "a", 3, 10_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_listener_share_its_rate() {
    let hub = hub("listener_messages_per_s: 60, listener_bytes_per_s: 1MB, rate_burst: 100ms").await;
    let mut a = Client::connect(hub.mqtt(), &Connect::clean("a")).await;
    let mut b = Client::connect(hub.mqtt(), &Connect::clean("b")).await;
    let mut reader = Client::connect(hub.mqtt(), &Connect::clean("reader")).await;
    reader.subscribe(&[("a", 0), ("b", 0)]).await;
    let began = Instant::now();
    tokio::join!(publish_all(&mut a, "a", 66, 10), publish_all(&mut b, "b", 60, 10));
    let took = began.elapsed();
    // 6 at once; the other 120 take two seconds.
    assert!(took >= Duration::from_millis(1_900), "126 messages in {took:?}");
    assert!(reached(&hub, "listener_messages_per_s").await >= 1.0);
    let mut topics: Vec<String> = Vec::new();
    for _ in 0..126 {
        topics.push(reader.message().await.topic);
    }
    assert_eq!(topics.iter().filter(|topic| *topic == "a").count(), 66);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_listener_share_its_bytes() {
    let hub = hub("listener_bytes_per_s: 100KB, rate_burst: 500ms").await;
    let mut a = Client::connect(hub.mqtt(), &Connect::clean("a")).await;
    let mut b = Client::connect(hub.mqtt(), &Connect::clean("b")).await;
    let began = Instant::now();
    tokio::join!(publish_all(&mut a, "a", 15, 10_000), publish_all(&mut b, "b", 15, 10_000));
    let took = began.elapsed();
    // 50 KB at once, and what each was read with one call beyond that; the last reads are not waited for.
    assert!(took >= Duration::from_millis(2_000), "300 KB in {took:?}");
    assert!(reached(&hub, "listener_bytes_per_s").await >= 2.0, "both have waited");
    assert_eq!(reached(&hub, "client_bytes_per_s").await, 0.0);
    assert_eq!(hub.metrics().await.sum("tidemill_mqtt_published_total", &[]), Some(30.0), "none is lost");
}
