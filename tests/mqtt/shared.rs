//! Shared subscriptions (5.0: 4.8.2).

use tidemill_tests::mqtt::Level;

use crate::hubs::hub;
use crate::wire::*;

#[tokio::test]
async fn each_message_goes_to_one_member() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "shared/one");
        let mut members = [
            Wire::connect(&hub, level, &at(level, "shared-one-a")).await,
            Wire::connect(&hub, level, &at(level, "shared-one-b")).await,
        ];
        for member in &mut members {
            member.subscribe(format!("$share/group/{topic}"), 0).await;
        }
        let mut plain = Wire::connect(&hub, level, &at(level, "shared-one-plain")).await;
        plain.subscribe(&topic, 0).await;
        for number in 0..20 {
            plain.publish(publish(&topic, format!("{number}"))).await;
        }
        for number in 0..20 {
            assert_eq!(plain.message().await.text(), format!("{number}"), "who is no member gets all");
        }
        let mut seen = Vec::new();
        // Members are told one by one, so that an answer may overtake what a member still has to fetch.
        for _ in 0..50 {
            for member in &mut members {
                member.send(&PINGREQ).await;
                loop {
                    let frame = member.frame().await;
                    if frame == PINGRESP {
                        break;
                    }
                    seen.push(Message::read(level, &frame).text().to_owned());
                }
            }
            if seen.len() >= 20 {
                break;
            }
        }
        seen.sort_by_key(|number| number.parse::<u32>().expect("a number"));
        assert_eq!(seen, (0..20).map(|number| format!("{number}")).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn groups_of_other_names_get_their_own() {
    let hub = hub().await;
    let mut one = Wire::connect(&hub, Level::V5, "shared-groups-a").await;
    let mut two = Wire::connect(&hub, Level::V5, "shared-groups-b").await;
    one.subscribe("$share/a/shared/groups", 0).await;
    two.subscribe("$share/b/shared/groups", 0).await;
    // Both at once from one session: they are two subscriptions.
    one.subscribe("shared/groups", 0).await;
    one.publish(publish("shared/groups", "x")).await;
    assert_eq!([one.message().await.text(), one.message().await.text()], ["x", "x"]);
    assert_eq!(two.message().await.text(), "x");
}

#[tokio::test]
async fn what_is_no_shared_subscription_is_refused() {
    let hub = hub().await;
    for level in BOTH {
        let mut wire = Wire::connect(&hub, level, &at(level, "shared-bad")).await;
        let bad = [
            "$share",
            "$share/",
            "$share/group",
            "$share/group/",
            "$share//a",
            "$share//",
            "$share/+/a",
            "$share/gr+oup/a",
            "$share/#/a",
            "$share/gr#oup/a",
            "$share/group/a/#/b",
            "$share/group/a+",
        ];
        let bad: Vec<_> = bad.into_iter().map(|filter| (filter, 0)).collect();
        wire.send(&subscribe(0x5ab, &bad)).await;
        wire.granted(&vec![if level == Level::V5 { 0x8f } else { 0x80 }; bad.len()]).await;
    }
}

#[tokio::test]
async fn no_local_is_an_error() {
    let hub = hub().await;
    let mut wire = Wire::connect(&hub, Level::V5, "shared-local").await;
    wire.send(&subscribe(1, &[("$share/group/shared/local", 0x04)])).await;
    wire.closed_with(0x82).await;
}

#[tokio::test]
async fn an_error_among_several_filters_acts_on_none_of_them() {
    let hub = hub().await;
    let lasting = connect(Level::V5, "shared-none").lasting();
    let mut wire = Wire::with(&hub, &lasting).await;
    wire.send(&subscribe(1, &[("shared/none", 0), ("$share/group/shared/local", 0x04)])).await;
    wire.closed_with(0x82).await;
    let mut wire = Wire::with(&hub, &lasting).await;
    wire.publish(publish("shared/none", "x")).await;
    wire.silent().await;
}

#[tokio::test]
async fn retained_messages_are_not_sent_for_one() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "shared/retained");
        let mut wire = Wire::connect(&hub, level, &at(level, "shared-retained")).await;
        wire.publish(publish(&topic, "kept").retain()).await;
        for _ in 0..2 {
            wire.subscribe(format!("$share/group/{topic}"), 0).await;
            wire.silent().await;
        }
        wire.publish(publish(&topic, "new").retain()).await;
        wire.expect(&publish(&topic, "new")).await;
    }
}

#[tokio::test]
async fn each_member_has_its_own_qos_and_identifier() {
    let hub = hub().await;
    for qos in 0..=2 {
        let filter = format!("$share/group/shared/qos/{qos}");
        let mut wire = Wire::connect(&hub, Level::V5, "shared-qos").await;
        wire.send(&subscribe(0x5ab, &[(&filter, qos)]).with(&subscription_id(77))).await;
        wire.granted(&[qos]).await;
        wire.publish_exactly_once(publish(format!("shared/qos/{qos}"), "x")).await;
        let message = wire.message().await;
        assert_eq!((message.qos, message.properties.subscription_ids()), (qos, vec![77]));
    }
}

#[tokio::test]
async fn a_qos_2_message_stays_with_the_member_it_was_sent_to() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "shared/stays");
        let lasting = connect(level, at(level, "shared-stays-a")).lasting();
        let mut first = Wire::with(&hub, &lasting).await;
        first.subscribe(format!("$share/group/{topic}"), 2).await;
        let mut other = Wire::connect(&hub, level, &at(level, "shared-stays-other")).await;
        other.publish_exactly_once(publish(&topic, "x")).await;
        let message = first.message().await;
        let mut second = Wire::connect(&hub, level, &at(level, "shared-stays-b")).await;
        second.subscribe(format!("$share/group/{topic}"), 2).await;
        first.cut_off().await;
        second.silent().await;
        // It is completed when its member is back.
        let mut first = Wire::with(&hub, &lasting).await;
        let again = first.message().await;
        assert_eq!((again.text(), again.id, again.dup), ("x", message.id, true));
        first.send(&pubrec(again.id)).await;
        first.expect(&pubrel(again.id)).await;
        first.send(&pubcomp(again.id)).await;
        first.silent().await;
        second.silent().await;
    }
}

#[tokio::test]
async fn a_qos_2_message_ends_with_the_session_it_was_sent_to() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "shared/ends");
        let mut first = Wire::connect(&hub, level, &at(level, "shared-ends-a")).await;
        first.subscribe(format!("$share/group/{topic}"), 2).await;
        let mut other = Wire::connect(&hub, level, &at(level, "shared-ends-other")).await;
        other.publish_exactly_once(publish(&topic, "x")).await;
        assert_eq!(first.message().await.qos, 2);
        let mut second = Wire::connect(&hub, level, &at(level, "shared-ends-b")).await;
        second.subscribe(format!("$share/group/{topic}"), 2).await;
        first.cut_off().await;
        second.silent().await;
        other.publish_exactly_once(publish(&topic, "y")).await;
        assert_eq!(second.message().await.text(), "y");
        second.silent().await;
    }
}

#[tokio::test]
async fn a_qos_1_message_that_was_not_acknowledged_goes_to_another_member() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "shared/another");
        let mut first = Wire::connect(&hub, level, &at(level, "shared-another-a")).await;
        first.subscribe(format!("$share/group/{topic}"), 1).await;
        let mut other = Wire::connect(&hub, level, &at(level, "shared-another-other")).await;
        other.publish(publish(&topic, "x")).await;
        assert_eq!(first.message().await.text(), "x");
        let mut second = Wire::connect(&hub, level, &at(level, "shared-another-b")).await;
        second.subscribe(format!("$share/group/{topic}"), 1).await;
        first.cut_off().await;
        assert_eq!(second.message().await.text(), "x");
    }
}

#[tokio::test]
async fn a_message_that_a_member_refuses_goes_to_no_other() {
    let hub = hub().await;
    let mut first = Wire::connect(&hub, Level::V5, "shared-refused-a").await;
    first.subscribe("$share/group/shared/refused", 2).await;
    first.publish(publish("shared/refused", "one")).await;
    first.publish_exactly_once(publish("shared/refused", "two")).await;
    let (one, two) = (first.message().await, first.message().await);
    let mut second = Wire::connect(&hub, Level::V5, "shared-refused-b").await;
    second.subscribe("$share/group/shared/refused", 2).await;
    first.send(&bytes().u16(one.id).u8(0x80).packet(0x40)).await;
    first.send(&bytes().u16(two.id).u8(0x83).packet(0x50)).await;
    first.silent().await;
    first.cut_off().await;
    second.publish(publish("shared/refused", "three")).await;
    assert_eq!(second.message().await.text(), "three");
    second.silent().await;
}

#[tokio::test]
async fn it_is_kept_with_its_session_and_taken_away_by_its_name() {
    let hub = hub().await;
    let lasting = connect(Level::V5, "shared-kept").lasting();
    let mut wire = Wire::with(&hub, &lasting).await;
    wire.subscribe("$share/group/shared/kept", 1).await;
    wire.disconnect().await;
    let mut other = Wire::connect(&hub, Level::V5, "shared-kept-other").await;
    other.publish(publish("shared/kept", "meanwhile")).await;
    let mut wire = Wire::with(&hub, &lasting).await;
    let message = wire.message().await;
    assert_eq!(message.text(), "meanwhile");
    wire.send(&puback(message.id)).await;
    // The filter alone is another subscription, which there is not.
    wire.send(&unsubscribe(1, &["shared/kept", "$share/other/shared/kept", "$share/group/shared/kept"]))
        .await;
    wire.expect(b"\xb0\x06\x00\x01\x00\x11\x11\x00").await;
    other.publish(publish("shared/kept", "after")).await;
    wire.silent().await;
}
