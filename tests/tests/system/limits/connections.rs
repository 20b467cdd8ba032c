//! How many connections, how fast, and how many sessions.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tidemill_tests::mqtt::{Client, Connect, Level};
use tidemill_tests::process::Process;
use tidemill_tests::services::Tidemill;
use tidemill_tests::services::tidemill::{command, ready_line};
use tidemill_tests::wait;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::{LIMIT, hub, reached, shown};

/// The reason of the CONNACK that refuses a client.
pub(super) async fn refused(server: SocketAddr, connect: &Connect) -> String {
    let answer = tokio::time::timeout(LIMIT, Client::try_connect(server, connect)).await.expect("an answer");
    let error = answer.err().unwrap_or_else(|| panic!("{} was let in", connect.client)).to_string();
    let (_, reason) = error.split_once(" reason: ").unwrap_or_else(|| panic!("no CONNACK: {error}"));
    reason.split(',').next().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_too_many_is_told_so() {
    let hub = hub("connections_max: 2").await;
    let mut one = Client::connect(hub.mqtt(), &Connect::clean("one")).await;
    let two = Client::connect(hub.mqtt(), &Connect::clean("two")).await;
    assert_eq!(refused(hub.mqtt(), &Connect::clean("three")).await, "151", "Quota exceeded");
    assert_eq!(refused(hub.mqtt(), &Connect::clean("three").level(Level::V311)).await, "3", "unavailable");
    assert_eq!(
        (reached(&hub, "connections_max").await, shown(&hub, "connections_max").await),
        (2.0, Some(2.0))
    );

    // A flood costs those who are there nothing, and is answered to the end, with a word or without.
    let mut flood = Vec::new();
    for _ in 0..1_000 {
        flood.push(TcpStream::connect(hub.mqtt()).await.unwrap());
    }
    one.nothing_comes().await;
    for mut stream in flood {
        let closed = tokio::time::timeout(LIMIT, stream.read_to_end(&mut Vec::new())).await;
        assert!(closed.is_ok(), "a refused connection is left open");
    }
    assert_eq!(reached(&hub, "connections_max").await, 1_002.0);

    two.disconnect().await;
    let again = async || Client::try_connect(hub.mqtt(), &Connect::clean("three")).await.ok();
    wait::until("the place that was given back", LIMIT, again).await;
    one.nothing_comes().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_come_too_fast_are_told_so() {
    let hub = hub("connection_rate: 4, rate_burst: 2s").await;
    let mut connected = Vec::new();
    for number in 0..8 {
        connected.push(Client::connect(hub.mqtt(), &Connect::clean(format!("c{number}"))).await);
    }
    let mut tries = 0;
    // The burst is over; a slow machine may have let a token grow in between.
    let reason = loop {
        tries += 1;
        match Client::try_connect(hub.mqtt(), &Connect::clean("fast")).await {
            Ok(_) if tries < 100 => {}
            Ok(_) => panic!("{tries} connections at once, at 4 in a second"),
            Err(error) => break error.to_string(),
        }
    };
    assert!(reason.contains("reason: 159,"), "Connection rate exceeded: {reason}");
    assert!(reached(&hub, "connection_rate").await >= 1.0);
    let again = async || Client::try_connect(hub.mqtt(), &Connect::clean("patient")).await.ok();
    wait::until("budget for one more", LIMIT, again).await;
    for client in &mut connected {
        client.nothing_comes().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_has_limits_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let config = "flush: async\nmqtt:\n  listeners:\n    - name: few\n      address: 127.0.0.1:0\n      \
                  limits: { connections_max: 1, client_messages_per_s: 1000 }\n";
    fs::write(dir.path().join("tidemill.yaml"), config).unwrap();
    let serve = command(dir.path(), &["serve", "--config", "tidemill.yaml", "--http", "127.0.0.1:0"]);
    let mut process = Process::start("tidemill", serve, dir.path(), Signal::KILL);
    let (mqtt, http) = process.wait_for("the ready line", LIMIT, |stdout, _| ready_line(stdout)).await;
    let [mqtt] = mqtt[..] else { panic!("one address, not {mqtt:?}") };
    let one = Client::connect(mqtt, &Connect::clean("one")).await;
    assert_eq!(refused(mqtt, &Connect::clean("two")).await, "151");
    let metrics = reqwest::get(format!("http://{http}/metrics")).await.unwrap().text().await.unwrap();
    for line in [
        "tidemill_limit{name=\"mqtt.listeners.few.limits.connections_max\"} 1",
        "tidemill_limit{name=\"mqtt.listeners.few.limits.client_messages_per_s\"} 1000",
        "tidemill_mqtt_limit_reached_total{limit=\"mqtt.listeners.limits.connections_max\"} 1",
    ] {
        assert!(metrics.lines().any(|given| given == line), "{line}\n{metrics}");
    }
    drop(one);
    let again = async || Client::try_connect(mqtt, &Connect::clean("two")).await.ok();
    wait::until("the place that was given back", LIMIT, again).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_outlive_their_connection_are_counted() {
    let mut hub = hub("sessions_max: 2").await;
    let one = Client::connect(hub.mqtt(), &Connect::persistent("one")).await;
    let two = Client::connect(hub.mqtt(), &Connect::persistent("two")).await;
    assert_eq!(refused(hub.mqtt(), &Connect::persistent("three")).await, "151");
    let mut old = Connect::clean("three").level(Level::V311);
    old.clean = false;
    assert_eq!(refused(hub.mqtt(), &old).await, "3");
    // Others are not touched: clean sessions, and those there are.
    Client::connect(hub.mqtt(), &Connect::clean("clean")).await.disconnect().await;
    one.disconnect().await;
    let one = Client::connect(hub.mqtt(), &Connect::persistent("one")).await;
    assert!(one.session_present);
    assert_eq!(reached(&hub, "sessions_max").await, 2.0);

    drop((one, two));
    assert!(hub.terminate().await.success());
    hub.start_again().await;
    assert_eq!(
        refused(hub.mqtt(), &Connect::persistent("three")).await,
        "151",
        "they are there after a restart"
    );
    // A clean start ends what there was.
    Client::connect(hub.mqtt(), &Connect::clean("two")).await.disconnect().await;
    let three = Client::connect(hub.mqtt(), &Connect::persistent("three")).await;
    assert!(!three.session_present);
    assert_eq!(hub.metrics().await.sum("tidemill_mqtt_persistent_sessions", &[]), Some(2.0));
}

/// The limit of the system, which is none of the hub's own: who comes waits until there is room, and people are told what to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_files_connections_wait_and_one_line_says_so() {
    let hub = hub("").await;
    let mut first = Client::connect(hub.mqtt(), &Connect::clean("first")).await;
    hub.leave_files(8);
    let mut flood = Vec::new();
    for _ in 0..50 {
        flood.push(TcpStream::connect(hub.mqtt()).await.unwrap());
    }
    let told = |hub: &Tidemill| {
        let log = hub.log();
        log.lines().filter(|line| line.contains("raise the limit of open files")).count()
    };
    let said = async || (told(&hub) > 0).then_some(());
    wait::until("the line that says so", LIMIT, said).await;
    let (waiting, ()) =
        tokio::join!(async { Client::connect(hub.mqtt(), &Connect::clean("waiting")).await }, async {
            // It is tried again ten times a second, and those who are there do not notice.
            let until = Instant::now() + Duration::from_secs(1);
            while Instant::now() < until {
                first.nothing_comes().await;
            }
            drop(flood);
        },);
    waiting.disconnect().await;
    assert!(told(&hub) <= 2, "{}", hub.log());
}
