//! mosquitto's clients, in 3.1.1 and 5.0.

use std::time::Duration;

use tidemill_tests::services::mosquitto::{Subscriber, Version, publish, subscribe_once};
use tidemill_tests::wait;

use super::hub;

/// Topic, QoS, retain flag and payload on one line.
const FORMAT: [&str; 2] = ["-F", "%t %q %r %p"];
const LIMIT: Duration = Duration::from_secs(30);
/// What `mosquitto_sub` exits with when `-W` seconds have passed.
const TIMED_OUT: i32 = 27;

fn sub<'a>(topic: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["-t", topic], &FORMAT[..], more].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_qos_in_every_version_reaches_every_version() {
    let hub = hub().await;
    for (from, to) in [
        (Version::V311, Version::V311),
        (Version::V311, Version::V5),
        (Version::V5, Version::V311),
        (Version::V5, Version::V5),
    ] {
        let filter = format!("mosquitto/{from:?}/{to:?}/+");
        let subscriber = Subscriber::start(hub.mqtt(), to, &sub(&filter, &["-q", "2", "-C", "3"])).await;
        for qos in ["0", "1", "2"] {
            let topic = format!("mosquitto/{from:?}/{to:?}/{qos}");
            publish(hub.mqtt(), from, &["-t", &topic, "-q", qos, "-m", "hello world"]).await;
        }
        let lines = subscriber.ended().await;
        let wanted =
            ["0", "1", "2"].map(|qos| format!("mosquitto/{from:?}/{to:?}/{qos} {qos} 0 hello world"));
        assert_eq!(lines, wanted, "from {from:?} to {to:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delivery_is_no_better_than_what_was_granted() {
    let hub = hub().await;
    let subscriber =
        Subscriber::start(hub.mqtt(), Version::V5, &sub("mosquitto/granted", &["-q", "1", "-C", "2"])).await;
    for qos in ["2", "0"] {
        publish(hub.mqtt(), Version::V5, &["-t", "mosquitto/granted", "-q", qos, "-m", "x"]).await;
    }
    assert_eq!(subscriber.ended().await, ["mosquitto/granted 1 0 x", "mosquitto/granted 0 0 x"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retained_messages_are_kept_replaced_and_cleared() {
    let hub = hub().await;
    for version in Version::ALL {
        let topic = format!("mosquitto/retained/{version:?}");
        for message in ["old", "new"] {
            publish(hub.mqtt(), version, &["-t", &topic, "-q", "1", "-r", "-m", message]).await;
        }
        let got = subscribe_once(hub.mqtt(), version, &sub(&topic, &["-q", "1", "-C", "1"])).await;
        assert_eq!(got.stdout, format!("{topic} 1 1 new\n"), "{version:?}: {}", got.stderr);
        publish(hub.mqtt(), version, &["-t", &topic, "-q", "1", "-r", "-n"]).await;
        let got = subscribe_once(hub.mqtt(), version, &sub(&topic, &["-W", "1"])).await;
        assert_eq!(
            (got.status.code(), got.stdout.as_str()),
            (Some(TIMED_OUT), ""),
            "{version:?}: {}",
            got.stderr
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_will_comes_when_the_connection_breaks_and_only_then() {
    let hub = hub().await;
    for version in Version::ALL {
        let topic = format!("mosquitto/will/{version:?}");
        let watcher = Subscriber::start(hub.mqtt(), Version::V5, &sub(&topic, &["-q", "1"])).await;
        let will = |payload: &'static str| {
            [
                "-t",
                "mosquitto/other",
                "--will-topic",
                topic.as_str(),
                "--will-qos",
                "1",
                "--will-payload",
                payload,
            ]
        };
        // `-E` leaves with DISCONNECT, right after its SUBACK.
        subscribe_once(hub.mqtt(), version, &[&will("left")[..], &["-E"]].concat()).await;
        Subscriber::start(hub.mqtt(), version, &will("died")).await.kill();
        wait::until("the will", LIMIT, async || (!watcher.lines().is_empty()).then_some(())).await;
        assert_eq!(watcher.lines(), [format!("{topic} 1 0 died")], "{version:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_persistent_session_gets_what_it_missed() {
    let hub = hub().await;
    for version in Version::ALL {
        let (topic, client) = (format!("mosquitto/session/{version:?}"), format!("session-{version:?}"));
        let mut session = sub(&topic, &["-i", &client, "-c", "-q", "2"]);
        if version == Version::V5 {
            session.extend(["-x", "3600"]);
        }
        let subscribed = subscribe_once(hub.mqtt(), version, &[&session[..], &["-E"]].concat()).await;
        assert!(subscribed.status.success(), "{version:?}: {}", subscribed.output());
        for qos in ["1", "2"] {
            publish(hub.mqtt(), version, &["-t", &topic, "-q", qos, "-m", "missed"]).await;
        }
        let got =
            subscribe_once(hub.mqtt(), version, &[&session[..], &["-C", "2", "-W", "20"]].concat()).await;
        assert_eq!(
            got.stdout,
            format!("{topic} 1 0 missed\n{topic} 2 0 missed\n"),
            "{version:?}: {}",
            got.stderr
        );
        // All was acknowledged, so nothing is left.
        let got = subscribe_once(hub.mqtt(), version, &[&session[..], &["-W", "1"]].concat()).await;
        assert_eq!(
            (got.status.code(), got.stdout.as_str()),
            (Some(TIMED_OUT), ""),
            "{version:?}: {}",
            got.stderr
        );
    }
}
