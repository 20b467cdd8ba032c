//! UNSUBSCRIBE and UNSUBACK (3.10, 3.11).

use tidemill_tests::mqtt::Level;

use crate::hubs::hub;
use crate::wire::*;

/// The UNSUBACK with these reason codes, which 3.1.1 does not have.
fn unsuback(level: Level, id: u16, reasons: &[u8]) -> Vec<u8> {
    let head = bytes().u16(id);
    if level == Level::V5 { head.u8(0).raw(reasons).packet(0xb0) } else { head.packet(0xb0) }
}

#[tokio::test]
async fn it_is_answered_with_its_identifier_and_a_code_for_each_filter_in_order() {
    let hub = hub().await;
    for level in BOTH {
        let mut wire = Wire::connect(&hub, level, &at(level, "unsubscribe-codes")).await;
        wire.subscribe("unsubscribe/a", 0).await;
        wire.subscribe("unsubscribe/+", 0).await;
        let filters = ["unsubscribe/+", "unsubscribe/b", "a/#/b", "unsubscribe/a", "unsubscribe/a"];
        wire.send(&unsubscribe(0xfedc, &filters)).await;
        wire.expect(&unsuback(level, 0xfedc, &[0, 0x11, 0x8f, 0, 0x11])).await;
    }
}

#[tokio::test]
async fn it_is_answered_where_there_is_nothing_to_take_away() {
    let hub = hub().await;
    for level in BOTH {
        let mut wire = Wire::connect(&hub, level, &at(level, "unsubscribe-nothing")).await;
        wire.send(&unsubscribe(1, &["unsubscribe/never"])).await;
        wire.expect(&unsuback(level, 1, &[0x11])).await;
    }
}

#[tokio::test]
async fn filters_are_compared_character_by_character() {
    let hub = hub().await;
    for level in BOTH {
        let base = at(level, "unsubscribe/exact");
        let mut wire = Wire::connect(&hub, level, &at(level, "unsubscribe-exact")).await;
        wire.subscribe(format!("{base}/+"), 0).await;
        // They match the same topics, or look the same, and are others.
        let others = [format!("{base}/#"), format!("{base}/a"), format!("{base}/+/"), base.to_uppercase()];
        wire.send(&unsubscribe(1, &others)).await;
        wire.expect(&unsuback(level, 1, &[0x11; 4])).await;
        wire.publish(publish(format!("{base}/a"), "x")).await;
        assert_eq!(wire.message().await.text(), "x");
        wire.send(&unsubscribe(2, &[format!("{base}/+")])).await;
        wire.expect(&unsuback(level, 2, &[0])).await;
        wire.publish(publish(format!("{base}/a"), "x")).await;
        wire.silent().await;
    }
}

#[tokio::test]
async fn no_new_message_comes_after_its_answer() {
    let hub = hub().await;
    for level in BOTH {
        let (gone, kept) = (at(level, "unsubscribe/gone"), at(level, "unsubscribe/kept"));
        let mut wire = Wire::connect(&hub, level, &at(level, "unsubscribe-new")).await;
        wire.subscribe(&gone, 1).await;
        wire.subscribe(&kept, 0).await;
        wire.send(&unsubscribe(1, &[&gone])).await;
        wire.expect(&unsuback(level, 1, &[0])).await;
        wire.publish(publish(&gone, "no")).await;
        wire.publish(publish(&kept, "yes")).await;
        assert_eq!(wire.message().await.text(), "yes");
        wire.silent().await;
    }
}

#[tokio::test]
async fn what_is_in_flight_is_completed() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "unsubscribe/flight");
        let lasting = connect(level, at(level, "unsubscribe-flight")).lasting();
        let mut wire = Wire::with(&hub, &lasting).await;
        wire.subscribe(&topic, 2).await;
        let mut other = Wire::connect(&hub, level, &at(level, "unsubscribe-flight-other")).await;
        other.publish(publish(&topic, "once")).await;
        other.publish_exactly_once(publish(&topic, "twice")).await;
        let (once, twice) = (wire.message().await, wire.message().await);
        wire.send(&unsubscribe(1, &[&topic])).await;
        wire.expect(&unsuback(level, 1, &[0])).await;
        // On this connection, and on the next.
        wire.send(&pubrec(twice.id)).await;
        wire.expect(&pubrel(twice.id)).await;
        wire.cut_off().await;
        let mut wire = Wire::with(&hub, &lasting).await;
        let again = wire.message().await;
        assert_eq!((again.text(), again.id, again.dup), ("once", once.id, true));
        wire.expect(&pubrel(twice.id)).await;
        wire.send(&puback(once.id)).await;
        wire.send(&pubcomp(twice.id)).await;
        wire.disconnect().await;
        let mut wire = Wire::with(&hub, &lasting).await;
        wire.silent().await;
    }
}

#[tokio::test]
async fn without_a_filter_it_is_refused() {
    let hub = hub().await;
    for level in BOTH {
        let mut wire = Wire::connect(&hub, level, &at(level, "unsubscribe-empty")).await;
        wire.send(&unsubscribe::<&str>(1, &[])).await;
        wire.closed_with(0x82).await;
    }
}
