//! How long a CONNECT may take, and what the hub grants less of than it is asked for: keep alive, and life of a session.

use std::time::{Duration, Instant};

use tidemill_tests::mqtt::{Client, Connect, Level, Packet};
use tidemill_tests::{mqtt::encode, wait};

use super::{LIMIT, hub, reached, shown};

/// Identifiers of CONNACK properties.
const SESSION_EXPIRY: u8 = 0x11;
const SERVER_KEEP_ALIVE: u8 = 0x13;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_come_to_the_end_of_its_connect_is_closed() {
    let hub = hub("connect_timeout: 1s").await;
    let mut there = Client::connect(hub.mqtt(), &Connect::clean("there")).await;
    let connect = Connect::clean("x".repeat(200)).encode();
    // Nothing at all, half of it, and a byte now and then: a client that says something has no more time for it.
    let began = Instant::now();
    let silent = async {
        let (_writer, mut reader) = Client::open(hub.mqtt(), Level::V5).await.unwrap();
        reader.until_closed().await
    };
    let half = async {
        let (mut writer, mut reader) = Client::open(hub.mqtt(), Level::V5).await.unwrap();
        writer.raw(&connect[..100]).await.unwrap();
        reader.until_closed().await
    };
    let slow = async {
        let (mut writer, mut reader) = Client::open(hub.mqtt(), Level::V5).await.unwrap();
        let drip = async {
            for byte in &connect {
                // Until the hub has closed it.
                if writer.raw(&[*byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::join!(reader.until_closed(), drip).0
    };
    let (silent, half, slow) = tokio::join!(silent, half, slow);
    assert!(silent.is_empty() && half.is_empty() && slow.is_empty(), "there is no version to answer in");
    assert!(began.elapsed() >= Duration::from_secs(1), "too early: {:?}", began.elapsed());
    assert_eq!(reached(&hub, "connect_timeout").await, 3.0);
    assert_eq!(shown(&hub, "connect_timeout").await, Some(1.0));
    there.nothing_comes().await;
    let connections = async || hub.metrics().await.sum("tidemill_mqtt_connections", &[]);
    wait::until_eq("their places", LIMIT, Some(1.0), connections).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_longer_keep_alive_is_replaced_and_holds() {
    let hub = hub("keep_alive_max: 1s").await;
    let keep_alive = |client: &str, keep_alive_s| Connect { keep_alive_s, ..Connect::clean(client) };
    let told = async |connect: &Connect| Client::connect(hub.mqtt(), connect).await;
    let mut old = told(&keep_alive("old", 60).level(Level::V311)).await;
    let fits = told(&keep_alive("fits", 1)).await;
    assert_eq!(fits.properties.number(SERVER_KEEP_ALIVE), None, "its own word holds");
    assert_eq!(reached(&hub, "keep_alive_max").await, 0.0, "nobody who can be told has asked for more");
    let began = Instant::now();
    let mut longer = told(&keep_alive("longer", 2)).await;
    let mut none = told(&keep_alive("none", 0)).await;
    for client in [&longer, &none] {
        assert_eq!(client.properties.number(SERVER_KEEP_ALIVE), Some(1));
    }
    assert_eq!(reached(&hub, "keep_alive_max").await, 2.0);
    for client in [&mut longer, &mut none] {
        assert_eq!(client.reader.until_closed().await, [Packet::Disconnect { reason: 0x8d }]);
    }
    assert!(began.elapsed() >= Duration::from_millis(1_500), "too early: {:?}", began.elapsed());
    old.nothing_comes().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_longer_life_of_a_session_is_cut_short() {
    let hub = hub("session_expiry_max: 2s").await;
    let fits = Client::connect(hub.mqtt(), &Connect { expiry_s: 2, ..Connect::persistent("fits") }).await;
    assert_eq!(fits.properties.number(SESSION_EXPIRY), None, "it has what it asked for");
    assert_eq!(reached(&hub, "session_expiry_max").await, 0.0);
    let new = Client::connect(hub.mqtt(), &Connect::persistent("new")).await;
    assert_eq!(new.properties.number(SESSION_EXPIRY), Some(2));
    assert_eq!(reached(&hub, "session_expiry_max").await, 1.0);
    let mut later =
        Client::connect(hub.mqtt(), &Connect { expiry_s: 1, ..Connect::persistent("later") }).await;
    // DISCONNECT, reason 0, one property: Session Expiry Interval, for ever.
    let for_ever = [0x00, 0x05, SESSION_EXPIRY, 0xff, 0xff, 0xff, 0xff];
    later.writer.raw(&encode::packet(0xe0, &for_ever)).await.unwrap();
    later.reader.until_closed().await;
    assert_eq!(reached(&hub, "session_expiry_max").await, 2.0, "whoever says it at the end gets no more");
    let old = Connect { clean: false, ..Connect::clean("old").level(Level::V311) };
    let first = Client::connect(hub.mqtt(), &old).await;
    assert_eq!(reached(&hub, "session_expiry_max").await, 3.0, "in 3.1.1 it is for ever that is asked for");

    let sessions = async || hub.metrics().await.sum("tidemill_mqtt_persistent_sessions", &[]);
    assert_eq!(sessions().await, Some(4.0));
    for client in [fits, new, first] {
        client.disconnect().await;
    }
    wait::until_eq("the end of the sessions", LIMIT, Some(0.0), sessions).await;
    for connect in [Connect::persistent("new"), old] {
        assert!(!Client::connect(hub.mqtt(), &connect).await.session_present, "{}", connect.client);
    }
}
