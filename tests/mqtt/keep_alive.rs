//! Keep alive (3.1.2.10, 3.2.2.3.14, 3.12).

use std::time::{Duration, Instant};

use tidemill_tests::mqtt::Level;
use tidemill_tests::services::tidemill::metrics::Metrics;
use tokio::time::sleep;

use crate::hubs::{hub, hub_with};
use crate::wire::*;

/// Waits for the end of a connection that says nothing, which must come after this time and not much later.
async fn ends_after(wire: &mut Wire, began: Instant, time: Duration) {
    wire.closed_with(0x8d).await;
    let took = began.elapsed();
    assert!(took >= time && took < time + Duration::from_secs(2), "closed after {took:?}, not {time:?}");
}

/// One and a half times a keep alive of a second.
const SILENCE: Duration = Duration::from_millis(1500);

#[tokio::test]
async fn silence_ends_after_one_and_a_half_times_the_keep_alive() {
    let hub = hub().await;
    let ends = async |level| {
        let connect = connect(level, at(level, "keep-alive")).keep_alive(1);
        let began = Instant::now();
        let mut wire = Wire::with(&hub, &connect).await;
        ends_after(&mut wire, began, SILENCE).await;
    };
    tokio::join!(ends(Level::V311), ends(Level::V5));
}

#[tokio::test]
async fn every_packet_counts_and_only_whole_ones() {
    let hub = hub().await;
    let ends = async |level| {
        let connect = connect(level, at(level, "keep-alive-packets")).keep_alive(1);
        let mut wire = Wire::with(&hub, &connect).await;
        let packets = [PINGREQ.to_vec(), publish("a", "x").at(level), puback(9)];
        for packet in &packets {
            sleep(Duration::from_millis(900)).await;
            wire.send(packet).await;
        }
        wire.expect(&PINGRESP).await;
        // Half a packet is none.
        let began = Instant::now();
        sleep(Duration::from_millis(500)).await;
        wire.send(b"\x30").await;
        ends_after(&mut wire, began, SILENCE - Duration::from_millis(50)).await;
    };
    tokio::join!(ends(Level::V311), ends(Level::V5));
}

#[tokio::test]
async fn a_keep_alive_of_0_is_none() {
    let hub = hub().await;
    let stays = async |level| {
        let connect = connect(level, at(level, "keep-alive-0")).keep_alive(0);
        let mut wire = Wire::with(&hub, &connect).await;
        wire.silent_for(SILENCE * 3 / 2).await;
        wire.silent().await;
    };
    tokio::join!(stays(Level::V311), stays(Level::V5));
}

#[tokio::test]
async fn the_end_by_silence_is_a_lost_connection() {
    let hub = hub().await;
    let gone = async |level| {
        let topic = at(level, "keep-alive/will");
        let mut watcher = Wire::connect(&hub, level, &at(level, "keep-alive-watcher")).await;
        watcher.subscribe(&topic, 0).await;
        let will = connect(level, at(level, "keep-alive-will")).keep_alive(1).will(&topic, "gone", 0);
        let mut wire = Wire::with(&hub, &will).await;
        wire.closed_with(0x8d).await;
        assert_eq!(watcher.message().await.text(), "gone");
    };
    tokio::join!(gone(Level::V311), gone(Level::V5));
}

#[tokio::test]
async fn a_keep_alive_of_the_servers_is_said_and_holds() {
    let hub = hub_with("keep_alive_max: 1s").await;
    for asked in [0, 2, 0xffff] {
        let connect = connect(Level::V5, "keep-alive-server").keep_alive(asked);
        let (_, connack) = Wire::accepted(&hub, &connect).await;
        assert_eq!(connack.properties.number(property::SERVER_KEEP_ALIVE), Some(1));
    }
    let connect = connect(Level::V5, "keep-alive-server").keep_alive(60);
    let began = Instant::now();
    let mut wire = Wire::with(&hub, &connect).await;
    ends_after(&mut wire, began, SILENCE).await;
}

#[tokio::test]
async fn without_one_of_the_servers_the_clients_own_holds() {
    let hub = hub().await;
    let connect = connect(Level::V5, "keep-alive-own").keep_alive(1);
    let began = Instant::now();
    let (mut wire, connack) = Wire::accepted(&hub, &connect).await;
    assert!(!connack.properties.has(property::SERVER_KEEP_ALIVE));
    ends_after(&mut wire, began, SILENCE).await;
}

#[tokio::test]
async fn a_ping_is_answered() {
    let hub = hub().await;
    for level in BOTH {
        let mut wire = Wire::connect(&hub, level, &at(level, "keep-alive-ping")).await;
        wire.send(b"\xc0\x00\xc0\x00").await;
        wire.expect(b"\xd0\x00").await;
        wire.expect(b"\xd0\x00").await;
    }
}

#[tokio::test]
async fn it_ends_who_does_not_read_whatever_else_goes_on() {
    // What is looked at each second, and whoever asks for it, wakes the connection again and again.
    let hub = hub_with("lag_policy: skip, lag_messages_max: 1000000, out_buffer_bytes_max: 64KiB").await;
    let mut wires = Vec::new();
    for level in BOTH {
        let client = at(level, "keep-alive-deaf");
        let mut wire = Wire::with(&hub, &connect(level, &client).keep_alive(2)).await;
        wire.subscribe(&client, 0).await;
        let mut other = Wire::connect(&hub, level, &at(level, "keep-alive-other")).await;
        other.publish_much(&client).await;
        wires.push(wire);
    }
    let began = Instant::now();
    let ended = |metrics: &Metrics| {
        metrics.sum("tidemill_mqtt_refused_total", &[("reason", "Keep Alive timeout")]).unwrap_or(0.0)
    };
    while ended(&hub.metrics().await) < 2.0 {
        assert!(began.elapsed() < Duration::from_secs(7), "still there after {:?}", began.elapsed());
        for level in BOTH {
            hub.get(&format!("/api/v1/clients/{}", at(level, "keep-alive-deaf"))).await;
        }
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn it_does_not_end_who_reads_slowly() {
    const MESSAGES: u32 = 64;
    let hub = hub_with("out_buffer_bytes_max: 64KiB").await;
    let mut wire = Wire::with(&hub, &connect(Level::V311, "keep-alive-slow").keep_alive(2)).await;
    wire.subscribe("keep-alive/slow", 0).await;
    let mut other = Wire::connect(&hub, Level::V311, "keep-alive-other").await;
    for _ in 0..MESSAGES {
        other.publish(publish("keep-alive/slow", vec![b'x'; 250_000])).await;
    }
    // What it sends meanwhile waits until it has read.
    let mut messages = 0;
    while messages < MESSAGES {
        sleep(Duration::from_millis(100)).await;
        wire.send(&PINGREQ).await;
        let frame = wire.frame().await;
        messages += u32::from(frame[0] == 0x30);
    }
}
