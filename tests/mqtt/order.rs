//! Order (4.6).

use crate::hubs::hub;
use crate::wire::*;

#[tokio::test]
async fn messages_of_a_client_come_in_the_order_it_sent_them() {
    let hub = hub().await;
    for level in BOTH {
        for qos in 0..=2 {
            let topic = at(level, &format!("order/{qos}"));
            let mut wire = Wire::connect(&hub, level, &at(level, "order-reader")).await;
            wire.subscribe(&topic, qos).await;
            let mut writer = Wire::connect(&hub, level, &at(level, "order-writer")).await;
            let all = (0..300).fold(bytes(), |all, number: u16| {
                all.raw(publish(&topic, number.to_string()).qos(qos, number + 1).at(level))
            });
            writer.send(&all).await;
            for number in 0..300 {
                let message = wire.message().await;
                assert_eq!(message.text(), number.to_string());
                match qos {
                    0 => {}
                    1 => wire.send(&puback(message.id)).await,
                    _ => {
                        wire.send(&pubrec(message.id)).await;
                        wire.expect_among(&pubrel(message.id)).await;
                        wire.send(&pubcomp(message.id)).await;
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn acknowledgements_come_in_the_order_of_what_they_acknowledge() {
    let hub = hub().await;
    for level in BOTH {
        let mut wire = Wire::connect(&hub, level, &at(level, "order-acks")).await;
        for (qos, answer) in [(1, 0x40), (2, 0x50)] {
            let ids: Vec<u16> = (0..200).map(|number| (number * 7919) % 60_000 + 1).collect();
            let all = ids.iter().fold(bytes(), |all, id| {
                all.raw(publish(at(level, "order/acks"), "x").qos(qos, *id).at(level))
            });
            wire.send(&all).await;
            for id in &ids {
                wire.expect(&bytes().u16(*id).packet(answer)).await;
            }
            if qos == 2 {
                for id in &ids {
                    wire.send(&pubrel(*id)).await;
                    wire.expect(&pubcomp(*id)).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn releases_come_in_the_order_of_what_was_received() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "order/releases");
        let lasting = connect(level, at(level, "order-releases")).lasting();
        let mut wire = Wire::with(&hub, &lasting).await;
        wire.subscribe(&topic, 2).await;
        let mut writer = Wire::connect(&hub, level, &at(level, "order-releases-writer")).await;
        let mut ids = Vec::new();
        for number in 0..10 {
            writer.publish_exactly_once(publish(&topic, format!("{number}"))).await;
            ids.push(wire.message().await.id);
        }
        let received = ids.iter().fold(bytes(), |all, id| all.raw(pubrec(*id)));
        wire.send(&received).await;
        for id in &ids {
            wire.expect(&pubrel(*id)).await;
        }
        wire.cut_off().await;
        let mut wire = Wire::with(&hub, &lasting).await;
        for id in &ids {
            wire.expect(&pubrel(*id)).await;
        }
    }
}
