//! Passwords that take long to look at, many at a time: who waits for it waits no longer than `connect_timeout`, and
//! nobody else waits at all.

use std::io::Write;
use std::net::SocketAddr;

use tidemill_tests::mqtt::{Client, Connect, Level, Packet, Publish};
use tidemill_tests::services::Tidemill;
use tidemill_tests::services::tidemill::folder_of;
use tidemill_tests::wait;
use tokio::task::JoinSet;

use super::{LIMIT, reached};
use crate::access;

/// A hub that knows `bob`, and `slow`, whose password takes `passes` passes over `kib` KiB to look at.
async fn hub(mqtt: &str, kib: u32, passes: u32) -> Tidemill {
    let dir = folder_of(&[("bob", "secret")]);
    let mut file = std::fs::OpenOptions::new().append(true).open(dir.path().join("passwords")).unwrap();
    let (salt, hash) = ("c29tZXNhbHRzb21lc2FsdA", "A".repeat(43));
    writeln!(file, "slow:$argon2id$v=19$m={kib},t={passes},p=1${salt}${hash}").unwrap();
    let configuration = format!(
        "flush: async\nmqtt: {{ allow_anonymous: true, {mqtt} }}\naccess:\n  default: allow\n  authentication: \
         [ {{ name: devices, passwords: {{ file: passwords }} }} ]\n"
    );
    Tidemill::start_with_config_in(dir, &configuration).await
}

/// Begins so many logins with a wrong password. Each gives the reason of its CONNACK.
fn logins(server: SocketAddr, count: usize, level: Level) -> JoinSet<u8> {
    let mut logins = JoinSet::new();
    for number in 0..count {
        let connect = Connect::clean(format!("slow-{number}")).level(level).login("slow", "wrong");
        logins.spawn(async move {
            let answer = access::connack(server, &connect);
            wait::within("a CONNACK", LIMIT, answer).await.expect("an answer, and no end of the connection")
        });
    }
    logins
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_slow_logins_hold_nobody_else_up() {
    let hub = hub("connect_timeout: 20s", 19_456, 20).await;
    let bob = Connect::clean("bob").login("bob", "secret");
    Client::connect(hub.mqtt(), &bob).await.disconnect().await;
    let mut there = Client::connect(hub.mqtt(), &Connect::clean("there")).await;

    let mut waiting = logins(hub.mqtt(), 30, Level::V5);
    // The first has its answer: passwords are looked at from now on.
    assert_eq!(waiting.join_next().await.unwrap().unwrap(), 0x86, "Bad User Name or Password");
    there.subscribe(&[("a", 1)]).await;
    for number in 0..20 {
        there.publish(Publish::new("a", number.to_string(), 0, 0)).await;
        assert_eq!(there.message().await.payload, number.to_string());
    }
    // Without a password, and with one that is known by now.
    Client::connect(hub.mqtt(), &Connect::clean("anonymous")).await.disconnect().await;
    Client::connect(hub.mqtt(), &bob).await.disconnect().await;
    let mut answered = 1;
    while let Some(answer) = waiting.try_join_next() {
        assert_eq!(answer.unwrap(), 0x86);
        answered += 1;
    }
    assert!(answered < 30, "the others waited for all logins");
    waiting.abort_all();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_waits_no_longer_than_connect_timeout() {
    let hub = hub("connect_timeout: 500ms", 65_536, 40).await;
    let mut there = Client::connect(hub.mqtt(), &Connect::clean("there")).await;
    for (level, reason, so_far) in [(Level::V5, 0x88, 10.0), (Level::V311, 3, 20.0)] {
        let answers = logins(hub.mqtt(), 10, level).join_all().await;
        assert_eq!(answers, vec![reason; 10], "Server unavailable, in {level:?}");
        assert_eq!(reached(&hub, "connect_timeout").await, so_far);
    }
    there.nothing_comes().await;
    // Those who do not wait any more leave their room to others, and so do those who were looked at.
    let bob = async || {
        let connect = Connect::clean("bob").login("bob", "secret");
        access::connack(hub.mqtt(), &connect).await.ok().filter(|reason| *reason == 0)
    };
    wait::until("room for a login", LIMIT, bob).await;
    let connections = async || hub.metrics().await.sum("tidemill_mqtt_connections", &[]);
    wait::until_eq("their places", LIMIT, Some(1.0), connections).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_that_does_not_come_to_its_end_counts_as_well() {
    let hub = hub("connect_timeout: 500ms", 8, 1).await;
    let begun = Connect::clean("c").method("SCRAM-SHA-256", Some(b"n,,n=bob,r=rOprNGfwEbeRWgbNEkqO"));
    let (mut writer, mut reader) = Client::open(hub.mqtt(), Level::V5).await.unwrap();
    writer.raw(&begun.encode()).await.unwrap();
    let packets = reader.until_closed().await;
    assert!(
        matches!(packets[..], [Packet::Auth { reason: 0x18, .. }, Packet::ConnAck { reason: 0x88, .. }]),
        "{packets:?}"
    );
    assert_eq!(reached(&hub, "connect_timeout").await, 1.0);
}
