//! The network (4.2; 3.1.1: 7.1.1): an ordered and lossless stream of bytes.

use tidemill_tests::mqtt::Level;

use crate::hubs::hub;
use crate::wire::*;

#[tokio::test]
async fn tcp_carries_megabytes_whole_and_in_order() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "transport/tcp");
        let mut wire = Wire::connect(&hub, level, &at(level, "transport-tcp")).await;
        let mut reader = Wire::connect(&hub, level, &at(level, "transport-tcp-reader")).await;
        reader.subscribe(&topic, 1).await;
        for number in 0..40_u8 {
            wire.publish(publish(&topic, vec![number; 100_000])).await;
        }
        for number in 0..40_u8 {
            let message = reader.message().await;
            assert!(message.payload == vec![number; 100_000]);
            reader.send(&puback(message.id)).await;
        }
    }
}

#[tokio::test]
async fn nothing_beyond_the_specification_is_needed() {
    let hub = hub().await;
    // The smallest there is in each version, byte by byte.
    let mut wire = Wire::open(&hub, Level::V311).await;
    wire.send(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01z").await;
    wire.expect(b"\x20\x02\x00\x00").await;
    let mut wire = Wire::open(&hub, Level::V5).await;
    wire.send(b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01y").await;
    assert_eq!(wire.connack().await.reason, 0);
    wire.send(b"\x30\x05\x00\x01a\x00x").await;
    wire.silent().await;
}
