//! Wills (3.1.2.5 to 3.1.2.7, 3.1.3.2, 3.14.4).

use std::time::{Duration, Instant};

use tidemill_tests::mqtt::Level;
use tidemill_tests::services::Tidemill;
use tidemill_tests::wait;

use crate::hubs::{hub, hub_with};
use crate::wire::*;

/// How long something may take that must happen.
const LIMIT: Duration = Duration::from_secs(20);

/// A client that hears of wills to a topic.
async fn watcher(hub: &Tidemill, level: Level, topic: &str) -> Wire {
    let mut watcher = Wire::connect(hub, level, &format!("watcher of {topic}")).await;
    watcher.subscribe(topic, 2).await;
    watcher
}

/// A message of the watcher's own comes next: no will came before it, and none is on its way.
async fn no_will(watcher: &mut Wire, topic: &str) {
    watcher.publish(publish(topic, "no will")).await;
    let message = watcher.message().await;
    assert_eq!(message.text(), "no will");
    watcher.send(&puback(message.id)).await;
}

#[tokio::test]
async fn it_is_published_when_the_connection_is_lost() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "will/lost");
        let mut watcher = watcher(&hub, level, &topic).await;
        for qos in 0..=2 {
            let will = connect(level, at(level, "will-lost")).will(&topic, "gone", qos);
            Wire::with(&hub, &will).await.cut_off().await;
            let message = watcher.message().await;
            assert_eq!((message.text(), message.qos, message.retain), ("gone", qos, false));
        }
        watcher.silent().await;
    }
}

#[tokio::test]
async fn it_is_published_when_the_server_closes_for_an_error() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "will/error");
        let mut watcher = watcher(&hub, level, &topic).await;
        let will = connect(level, at(level, "will-error")).will(&topic, "gone", 0);
        let mut wire = Wire::with(&hub, &will).await;
        wire.send(b"\x00\x00").await;
        wire.closed_with(0x81).await;
        assert_eq!(watcher.message().await.text(), "gone");
    }
}

#[tokio::test]
async fn it_is_discarded_by_a_goodbye() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "will/goodbye");
        let mut watcher = watcher(&hub, level, &topic).await;
        let will = connect(level, at(level, "will-goodbye")).will(&topic, "gone", 0);
        Wire::with(&hub, &will).await.disconnect().await;
        no_will(&mut watcher, &topic).await;
        // Neither is it kept for the next connection of the session.
        Wire::with(&hub, &will.lasting()).await.disconnect().await;
        Wire::with(&hub, &connect(level, at(level, "will-goodbye")).lasting()).await.cut_off().await;
        no_will(&mut watcher, &topic).await;
    }
}

#[tokio::test]
async fn a_goodbye_may_ask_for_it() {
    let hub = hub().await;
    let mut watcher = watcher(&hub, Level::V5, "will/asked").await;
    let will = connect(Level::V5, "will-asked").will("will/asked", "gone", 0);
    for reason in [0x04, 0x80, 0x97] {
        let mut wire = Wire::with(&hub, &will).await;
        wire.send(&bytes().u8(reason).packet(0xe0)).await;
        wire.closed().await;
        assert_eq!(watcher.message().await.text(), "gone");
    }
    let mut wire = Wire::with(&hub, &will).await;
    wire.send(&bytes().u8(0).packet(0xe0)).await;
    wire.closed().await;
    no_will(&mut watcher, "will/asked").await;
}

#[tokio::test]
async fn it_is_published_once() {
    let hub = hub().await;
    for level in BOTH {
        let (topic, client) = (at(level, "will/once"), at(level, "will-once"));
        let mut watcher = watcher(&hub, level, &topic).await;
        let will = connect(level, &client).lasting().will(&topic, "gone", 0);
        Wire::with(&hub, &will).await.cut_off().await;
        assert_eq!(watcher.message().await.text(), "gone");
        // The session goes on without it.
        let (wire, connack) = Wire::accepted(&hub, &connect(level, &client).lasting()).await;
        assert!(connack.session_present);
        wire.cut_off().await;
        no_will(&mut watcher, &topic).await;
    }
}

#[tokio::test]
async fn without_one_none_is_published() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "will/none");
        let mut watcher = watcher(&hub, level, &topic).await;
        Wire::connect(&hub, level, &at(level, "will-none")).await.cut_off().await;
        no_will(&mut watcher, &topic).await;
    }
}

#[tokio::test]
async fn it_is_retained_when_it_says_so_and_only_then() {
    let hub = hub().await;
    for level in BOTH {
        for retain in [false, true] {
            let topic = at(level, if retain { "will/retained" } else { "will/passing" });
            let mut watcher = watcher(&hub, level, &topic).await;
            let will = connect(level, at(level, "will-retain")).will(&topic, "gone", 1);
            let will = if retain { will.will_retained() } else { will };
            Wire::with(&hub, &will).await.cut_off().await;
            assert_eq!(watcher.message().await.text(), "gone");
            let mut late = Wire::connect(&hub, level, &at(level, "will-late")).await;
            late.subscribe(&topic, 1).await;
            if retain {
                let message = late.message().await;
                assert_eq!((message.text(), message.qos, message.retain), ("gone", 1, true));
            }
            late.silent().await;
        }
    }
}

#[tokio::test]
async fn it_is_published_when_the_session_is_taken_over() {
    let hub = hub().await;
    for level in BOTH {
        let (topic, client) = (at(level, "will/over"), at(level, "will-over"));
        let mut watcher = watcher(&hub, level, &topic).await;
        let will = connect(level, &client).lasting().will(&topic, "gone", 0);
        let mut old = Wire::with(&hub, &will).await;
        let mut new = Wire::with(&hub, &connect(level, &client).lasting()).await;
        old.closed_with(0x8e).await;
        assert_eq!(watcher.message().await.text(), "gone");
        new.silent().await;
    }
}

#[tokio::test]
async fn a_delay_holds_it_back() {
    let hub = hub().await;
    let mut watcher = watcher(&hub, Level::V5, "will/delay").await;
    let will = connect(Level::V5, "will-delay").lasting();
    let will = will.will_with(&will_delay(1), "will/delay", "gone", 0);
    let wire = Wire::with(&hub, &will).await;
    let began = Instant::now();
    wire.cut_off().await;
    let message = watcher.message().await;
    let took = began.elapsed();
    assert_eq!(message.text(), "gone");
    assert!(!message.properties.has(property::WILL_DELAY), "the delay is the server's");
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(3), "after {took:?}");
}

#[tokio::test]
async fn a_connection_before_the_end_of_the_delay_prevents_it() {
    let hub = hub().await;
    let mut watcher = watcher(&hub, Level::V5, "will/back").await;
    let will = connect(Level::V5, "will-back").lasting();
    let will = will.will_with(&will_delay(1), "will/back", "gone", 0);
    Wire::with(&hub, &will).await.cut_off().await;
    let mut back = Wire::with(&hub, &connect(Level::V5, "will-back").lasting()).await;
    watcher.silent_for(Duration::from_millis(1600)).await;
    back.silent().await;
    // A take-over before it is over prevents it as well.
    let wire = Wire::with(&hub, &will).await;
    let _back = Wire::with(&hub, &connect(Level::V5, "will-back").lasting()).await;
    drop(wire);
    no_will(&mut watcher, "will/back").await;
}

#[tokio::test]
async fn the_end_of_the_session_does_not_wait_for_the_delay() {
    let hub = hub().await;
    let mut watcher = watcher(&hub, Level::V5, "will/end").await;
    let will = |expiry: u32| {
        let connect = connect(Level::V5, "will-end").with(&session_expiry(expiry));
        connect.will_with(&will_delay(600), "will/end", "gone", 0)
    };
    // The session ends with its connection.
    Wire::with(&hub, &will(0)).await.cut_off().await;
    assert_eq!(watcher.message().await.text(), "gone");
    // It ends with its expiry.
    let began = Instant::now();
    Wire::with(&hub, &will(1)).await.cut_off().await;
    assert_eq!(watcher.message().await.text(), "gone");
    assert!(began.elapsed() >= Duration::from_secs(1));
    // It ends with a clean start.
    Wire::with(&hub, &will(600)).await.cut_off().await;
    let _new = Wire::connect(&hub, Level::V5, "will-end").await;
    assert_eq!(watcher.message().await.text(), "gone");
}

#[tokio::test]
async fn its_properties_go_with_it_in_order() {
    let hub = hub().await;
    let mut watcher = watcher(&hub, Level::V5, "will/properties").await;
    let properties = bytes()
        .raw(user_property("b", "1"))
        .u8(property::CONTENT_TYPE)
        .text("text/plain")
        .raw(user_property("a", "2"))
        .u8(property::PAYLOAD_FORMAT)
        .u8(1)
        .u8(property::RESPONSE_TOPIC)
        .text("answers")
        .u8(property::CORRELATION_DATA)
        .text(b"\xff\x00")
        .raw(user_property("b", "3"))
        .raw(message_expiry(60));
    let will = connect(Level::V5, "will-properties");
    let will = will.will_with(&properties, "will/properties", "gone", 1);
    Wire::with(&hub, &will).await.cut_off().await;
    let message = watcher.message().await.properties;
    let pair = |name, value| bytes().text(name).text(value).as_ref().to_vec();
    assert_eq!(message.all(property::USER_PROPERTY), [pair("b", "1"), pair("a", "2"), pair("b", "3")]);
    assert_eq!(message.one(property::CONTENT_TYPE), Some(bytes().text("text/plain").as_ref()));
    assert_eq!(message.one(property::RESPONSE_TOPIC), Some(bytes().text("answers").as_ref()));
    assert_eq!(message.one(property::CORRELATION_DATA), Some(bytes().text(b"\xff\x00").as_ref()));
    assert_eq!(message.number(property::PAYLOAD_FORMAT), Some(1));
    assert!(message.number(property::MESSAGE_EXPIRY).is_some_and(|left| (59..=60).contains(&left)));
}

#[tokio::test]
async fn a_goodbye_counts_behind_more_messages_than_are_acknowledged_at_once() {
    // In 3.1.1 a client is not told how many it may have sent before it is acknowledged (the hub's limit: 1,024).
    let (hub, level) = (hub().await, Level::V311);
    for qos in [1, 2] {
        let topic = format!("will/hasty/{qos}");
        let mut watcher = watcher(&hub, level, &topic).await;
        let mut wire = Wire::with(&hub, &connect(level, "will-hasty").will(&topic, "gone", 0)).await;
        let mut all = bytes();
        for id in 1..=1_100 {
            all = all.raw(publish("will/others", "x").qos(qos, id).at(level));
        }
        wire.send(&all.raw(publish(&topic, "last").at(level)).raw(DISCONNECT)).await;
        wire.cut_off().await;
        assert_eq!(watcher.message().await.text(), "last", "what comes before a goodbye is taken");
        no_will(&mut watcher, &topic).await;
    }
}

#[tokio::test]
async fn a_goodbye_counts_though_the_client_has_not_read_everything() {
    let hub = hub().await;
    for level in BOTH {
        let (topic, much) = (at(level, "will/slow"), at(level, "will/much"));
        let mut watcher = watcher(&hub, level, &topic).await;
        let mut wire =
            Wire::with(&hub, &connect(level, at(level, "will-slow")).will(&topic, "gone", 0)).await;
        wire.subscribe(&much, 0).await;
        watcher.publish_much(&much).await;
        wire.send(&DISCONNECT).await;
        drop(wire);
        // The hub has noticed when another may have the identifier without taking it over.
        Wire::connect(&hub, level, &at(level, "will-slow")).await.disconnect().await;
        no_will(&mut watcher, &topic).await;
    }
}

#[tokio::test]
async fn a_goodbye_counts_of_a_client_that_is_given_up() {
    let hub = hub_with("out_buffer_bytes_max: 64KiB").await;
    for level in BOTH {
        let (topic, much) = (at(level, "will/given-up"), at(level, "will/much"));
        let mut watcher = watcher(&hub, level, &topic).await;
        let client = connect(level, at(level, "will-given-up")).keep_alive(1).will(&topic, "gone", 0);
        let mut wire = Wire::with(&hub, &client).await;
        wire.subscribe(&much, 0).await;
        watcher.publish_much(&much).await;
        // It stays, and reads nothing: the hub sees no more of it than silence.
        wire.send(&DISCONNECT).await;
        wait::until("the hub gives it up", LIMIT, async || {
            let (status, _) = hub.get(&format!("/api/v1/clients/{}", at(level, "will-given-up"))).await;
            (status == 404).then_some(())
        })
        .await;
        no_will(&mut watcher, &topic).await;
    }
}

#[tokio::test]
async fn its_topic_is_checked() {
    let hub = hub().await;
    for level in BOTH {
        for topic in ["", "a/+", "#"] {
            let mut wire = Wire::open(&hub, level).await;
            wire.send(&connect(level, "will-topic").will(topic, "gone", 0)).await;
            if level == Level::V5 {
                assert_eq!(wire.connack().await.reason, 0x90);
            }
            wire.closed().await;
        }
    }
}
