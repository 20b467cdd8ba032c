//! rumqttc's clients, for 3.1.1 and for 5.0.

use super::hub;
use super::peer::{Peer, V4, V5, Who};

fn clean(client: &str) -> Who<'_> {
    Who { client, persistent: false, will: None }
}

fn text(topic: &str, payload: &str, qos: u8, retain: bool) -> (String, String, u8, bool) {
    (topic.to_owned(), payload.to_owned(), qos, retain)
}

async fn every_qos<From: Peer, To: Peer>() {
    let hub = hub().await;
    let names = format!("{}-{}", From::NAME, To::NAME);
    let (mut subscriber, _) = To::connect(hub.mqtt(), clean(&format!("qos-sub-{names}"))).await;
    subscriber.subscribe(&format!("rumqttc/qos/{names}/+"), 2).await;
    let (mut publisher, _) = From::connect(hub.mqtt(), clean(&format!("qos-pub-{names}"))).await;
    for qos in 0..=2 {
        publisher.publish(&format!("rumqttc/qos/{names}/{qos}"), "hello", qos, false).await;
    }
    for qos in 0..=2 {
        let topic = format!("rumqttc/qos/{names}/{qos}");
        assert_eq!(subscriber.message().await, text(&topic, "hello", qos, false));
    }
}

async fn retained<P: Peer>() {
    let hub = hub().await;
    let topic = format!("rumqttc/retained/{}", P::NAME);
    let (mut publisher, _) = P::connect(hub.mqtt(), clean(&format!("retained-pub-{}", P::NAME))).await;
    publisher.publish(&topic, "old", 1, true).await;
    publisher.publish(&topic, "new", 2, true).await;
    let (mut subscriber, _) = P::connect(hub.mqtt(), clean(&format!("retained-sub-{}", P::NAME))).await;
    subscriber.subscribe(&topic, 2).await;
    assert_eq!(subscriber.message().await, text(&topic, "new", 2, true));
    // To a subscription that exists, the flag says how the message came: not retained.
    publisher.publish(&topic, "", 1, true).await;
    assert_eq!(subscriber.message().await, text(&topic, "", 1, false));
    let (mut late, _) = P::connect(hub.mqtt(), clean(&format!("retained-late-{}", P::NAME))).await;
    late.subscribe(&topic, 2).await;
    publisher.publish(&topic, "after", 1, false).await;
    assert_eq!(late.message().await, text(&topic, "after", 1, false), "the retained message was cleared");
}

async fn will<P: Peer>() {
    let hub = hub().await;
    let topic = format!("rumqttc/will/{}", P::NAME);
    let (mut watcher, _) = V5::connect(hub.mqtt(), clean(&format!("will-watcher-{}", P::NAME))).await;
    watcher.subscribe(&topic, 1).await;
    let client = format!("will-{}", P::NAME);
    for (payload, dies) in [("left", false), ("died", true)] {
        let who = Who { client: &client, persistent: false, will: Some((&topic, payload)) };
        let (peer, _) = P::connect(hub.mqtt(), who).await;
        if dies {
            drop(peer);
        } else {
            peer.leave().await;
        }
    }
    assert_eq!(watcher.message().await, text(&topic, "died", 1, false));
}

async fn persistent_session<P: Peer>() {
    let hub = hub().await;
    let topic = format!("rumqttc/session/{}", P::NAME);
    let client = format!("persistent-{}", P::NAME);
    let who = || Who { client: &client, persistent: true, will: None };
    let (mut session, present) = P::connect(hub.mqtt(), who()).await;
    assert!(!present, "a session before the first connection");
    session.subscribe(&topic, 2).await;
    session.leave().await;
    let (mut publisher, _) = P::connect(hub.mqtt(), clean(&format!("persistent-pub-{}", P::NAME))).await;
    for number in 0..100 {
        publisher.publish(&topic, &number.to_string(), 1 + number % 2, false).await;
    }
    let (mut session, present) = P::connect(hub.mqtt(), who()).await;
    assert!(present, "the session is gone");
    for number in 0..100 {
        assert_eq!(session.message().await, text(&topic, &number.to_string(), 1 + number % 2, false));
    }
}

macro_rules! for_both {
    ($($test:ident: $run:expr, $with:expr;)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                $run.await;
                $with.await;
            }
        )+
    };
}

for_both! {
    qos_within_a_version: every_qos::<V4, V4>(), every_qos::<V5, V5>();
    qos_across_versions: every_qos::<V4, V5>(), every_qos::<V5, V4>();
    retained_messages: retained::<V4>(), retained::<V5>();
    wills: will::<V4>(), will::<V5>();
    persistent_sessions: persistent_session::<V4>(), persistent_session::<V5>();
}
