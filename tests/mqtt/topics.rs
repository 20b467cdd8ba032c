//! Topic names and filters (4.7).

use tidemill_tests::mqtt::Level;

use crate::hubs::hub;
use crate::wire::*;

/// Which of these topics a filter brings.
async fn brought(level: Level, name: &str, filter: &str, topics: &[&str]) -> Vec<String> {
    let hub = hub().await;
    let base = at(level, name);
    let mut wire = Wire::connect(&hub, level, &base).await;
    wire.subscribe(format!("{base}/{filter}"), 0).await;
    for topic in topics {
        let topic = if topic.is_empty() { base.clone() } else { format!("{base}/{topic}") };
        wire.publish(publish(topic, "x")).await;
    }
    wire.send(&publish(format!("{base}/end"), "")).await;
    wire.send(&unsubscribe(1, &[format!("{base}/{filter}")])).await;
    let mut seen = Vec::new();
    loop {
        let frame = wire.frame().await;
        if frame[0] == 0xb0 {
            seen.retain(|topic| topic != "end");
            return seen;
        }
        let topic = Message::read(level, &frame).topic;
        let topic = topic.strip_prefix(&base).expect("a topic of this test");
        seen.push(topic.strip_prefix('/').unwrap_or(topic).to_owned());
    }
}

#[tokio::test]
async fn a_hash_stands_for_all_levels_from_there_on() {
    for level in BOTH {
        let topics = ["", "a", "a/b", "/", "a/b/c/d"];
        assert_eq!(brought(level, "topics-hash", "#", &topics).await, topics);
        let topics = ["a", "a/", "a/b", "a/b/c"];
        assert_eq!(brought(level, "topics-hash-a", "a/#", &["b", "ab", "aa/b"]).await, [""; 0]);
        assert_eq!(brought(level, "topics-hash-a", "a/#", &topics).await, topics);
    }
}

#[tokio::test]
async fn a_plus_stands_for_one_level() {
    for level in BOTH {
        let topics = ["", "a", "a/b", "a/b/c", "a/"];
        assert_eq!(brought(level, "topics-plus", "+", &topics).await, ["a"]);
        assert_eq!(brought(level, "topics-plus-b", "+/b", &["a/b", "/b", "b", "a/a/b"]).await, ["a/b", "/b"]);
        let topics = ["a/x/c", "a//c", "a/c", "a/x/y/c"];
        assert_eq!(brought(level, "topics-plus-mid", "a/+/c", &topics).await, ["a/x/c", "a//c"]);
        let topics = ["x/y", "/", "x/", "x", "x/y/z"];
        assert_eq!(brought(level, "topics-plus-two", "+/+", &topics).await, ["x/y", "/", "x/"]);
        assert_eq!(
            brought(level, "topics-plus-hash", "+/b/#", &["a/b", "a/b/c", "b"]).await,
            ["a/b", "a/b/c"]
        );
    }
}

#[tokio::test]
async fn wildcards_elsewhere_make_no_filter() {
    let hub = hub().await;
    for level in BOTH {
        let mut wire = Wire::connect(&hub, level, &at(level, "topics-bad")).await;
        let bad = ["a#", "a/#/b", "#/a", "a/b#", "##", "a+", "+a", "a/b+/c", "++", "a/+b"];
        let bad: Vec<_> = bad.into_iter().map(|filter| (filter, 0)).collect();
        wire.send(&subscribe(0x5ab, &bad)).await;
        wire.granted(&vec![if level == Level::V5 { 0x8f } else { 0x80 }; bad.len()]).await;
        wire.silent().await;
    }
}

#[tokio::test]
async fn a_filter_has_at_least_one_character() {
    let hub = hub().await;
    for level in BOTH {
        let mut wire = Wire::connect(&hub, level, &at(level, "topics-empty")).await;
        wire.send(&subscribe(0x5ab, &[("", 0)])).await;
        wire.granted(&[if level == Level::V5 { 0x8f } else { 0x80 }]).await;
    }
}

#[tokio::test]
async fn topics_with_a_dollar_are_not_for_leading_wildcards() {
    let hub = hub().await;
    for level in BOTH {
        let topic = at(level, "$topics/dollar");
        let mut wire = Wire::connect(&hub, level, &at(level, "topics-dollar")).await;
        let mut named = Wire::connect(&hub, level, &at(level, "topics-dollar-named")).await;
        wire.publish(publish(&topic, "kept").retain()).await;
        for filter in ["#", "+/#", "+/+", &at(level, "+/dollar")] {
            wire.send(&subscribe(0x5ab, &[(filter, 0)])).await;
            wire.granted(&[0]).await;
        }
        named.subscribe("$topics/#", 0).await;
        loop {
            let message = named.message().await;
            if message.topic == topic {
                assert_eq!(message.text(), "kept");
                break;
            }
        }
        named.publish(publish(&topic, "new")).await;
        while named.message().await.topic != topic {}
        // Everything else comes in through `#`; this does not.
        wire.publish(publish(at(level, "topics/fence"), "fence")).await;
        loop {
            let message = wire.message().await;
            assert!(!message.topic.starts_with('$'), "{message:?}");
            if message.topic == at(level, "topics/fence") {
                break;
            }
        }
    }
}

#[tokio::test]
async fn nothing_is_made_equal_that_is_not_the_same() {
    for level in BOTH {
        let near = ["ACCOUNTS", "accounts", " Accounts", "Accounts ", "Accounts/", "/Accounts"];
        assert_eq!(brought(level, "topics-same", "Accounts", &near).await, [""; 0]);
        // Composed and decomposed, and characters that look alike.
        let near = ["e\u{301}", "\u{e8}", "\u{ff45}\u{301}", "\u{e9}"];
        assert_eq!(brought(level, "topics-nfc", "\u{e9}", &near).await, ["\u{e9}"]);
        assert_eq!(brought(level, "topics-slash", "a//b", &["a/b", "a//b", "a///b"]).await, ["a//b"]);
        // A code point nobody has given a meaning yet, and one that never will have.
        assert_eq!(brought(level, "topics-odd", "\u{378}\u{fdd0}", &["\u{378}\u{fdd0}"]).await.len(), 1);
    }
}

#[tokio::test]
async fn a_topic_may_have_65535_bytes() {
    let hub = hub().await;
    for level in BOTH {
        let start = at(level, "topics-long/");
        let long = format!("{start}{}", "x".repeat(65_535 - start.len()));
        let mut wire = Wire::connect(&hub, level, &at(level, "topics-long")).await;
        wire.subscribe(&long, 0).await;
        wire.send(&publish(&long, "x")).await;
        wire.expect(&publish(&long, "x")).await;
    }
}
