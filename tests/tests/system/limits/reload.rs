//! SIGHUP while clients are at a limit: limits are read at start only, what a reload takes away gives its place back, and
//! nobody gets past a limit in between.

use tidemill_tests::mqtt::{Client, Connect, Packet, Publish};
use tidemill_tests::wait;
use tokio::sync::watch;

use super::connections::refused;
use super::{LIMIT, acknowledge, hub, reached, shown};
use crate::access;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_limits_wait_for_a_restart_and_say_so() {
    let mut hub =
        hub("connections_max: 3, inflight_max: 2, client_messages_per_s: 20, rate_burst: 100ms").await;
    let mut slow = Client::connect(hub.mqtt(), &Connect::clean("slow")).await;
    slow.subscribe(&[("a", 1)]).await;
    let mut hasty = Client::connect(hub.mqtt(), &Connect::clean("hasty")).await;
    let mut third = Client::connect(hub.mqtt(), &Connect::clean("third")).await;
    // One waits for its budget, the other one's window is full.
    for id in 1..=40 {
        hasty.writer.publish(&Publish::new("a", id.to_string(), 1, id)).await.unwrap();
    }
    hasty.writer.flush().await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..2 {
        let Packet::Publish { id, .. } = slow.packet().await else { panic!("no message") };
        ids.push(id);
    }
    let more = "flush: async\nmqtt: { connections_max: 5, inflight_max: 9, client_messages_per_s: 0, lag_time_max: 5s }\n";
    hub.reload_with(more).await;
    let named = "mqtt.client_messages_per_s, mqtt.connections_max, mqtt.inflight_max, mqtt.lag_time_max, mqtt.rate_burst";
    assert!(hub.log().contains(named), "which limits wait is not said:\n{}", hub.log());
    for (limit, value) in [("connections_max", 3.0), ("inflight_max", 2.0), ("client_messages_per_s", 20.0)] {
        assert_eq!(shown(&hub, limit).await, Some(value), "{limit}: what holds is what is shown");
    }
    assert_eq!(refused(hub.mqtt(), &Connect::clean("fourth")).await, "151");
    slow.nothing_comes().await;
    acknowledge(&mut slow, ids).await;
    for number in 3..=40 {
        assert_eq!(slow.message().await.payload, number.to_string());
    }
    for id in 1..=40 {
        assert_eq!(hasty.packet().await, Packet::PubAck { id, reason: 0 });
    }
    third.nothing_comes().await;
    assert!(reached(&hub, "client_messages_per_s").await >= 1.0);

    drop((slow, hasty, third));
    assert!(hub.terminate().await.success());
    hub.start_again().await;
    let mut all = Vec::new();
    for number in 0..5 {
        all.push(Client::connect(hub.mqtt(), &Connect::clean(format!("c{number}"))).await);
    }
    assert_eq!(refused(hub.mqtt(), &Connect::clean("sixth")).await, "151");
}

/// Bob may subscribe to these, everybody else to everything.
fn rules(bob: &str) -> String {
    format!(
        "flush: async\nmqtt: {{ connections_max: 4, subscriptions_per_session_max: 2 }}\naccess:\n  authentication: \
         [ {{ name: devices, passwords: {{ file: passwords }} }} ]\n  rules:\n    - {{ allow: all, topics: \
         [{bob}], users: [bob] }}\n    - {{ allow: all, topics: [\"#\"], users: [eve] }}\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_reload_takes_away_gives_its_place_back_and_no_more() {
    let mut hub = access::hub(&rules("a, b, c, d"), &[("bob", "p"), ("eve", "p")]).await;
    let bob = Connect::persistent("bob").login("bob", "p");
    let mut client = Client::connect(hub.mqtt(), &bob).await;
    client.subscribe(&[("a", 1), ("b", 1)]).await;
    client.disconnect().await;
    // A reload takes one of two, which makes room for one.
    hub.reload_with(&rules("b, c, d")).await;
    let mut client = Client::connect(hub.mqtt(), &bob).await;
    assert!(client.session_present);
    client.writer.subscribe(2, &[("c", 1), ("d", 1)]).await.unwrap();
    match client.packet().await {
        Packet::SubAck { id: 2, reasons } => assert_eq!(reasons, [1, 0x97]),
        other => panic!("{other:?}"),
    }
    assert_eq!(reached(&hub, "subscriptions_per_session_max").await, 1.0);

    // All places are taken while others try without end, and bob comes and goes with what he may do.
    let mut others = Vec::new();
    for number in 0..3 {
        let eve = Connect::clean(format!("eve-{number}")).login("eve", "p");
        others.push(Client::connect(hub.mqtt(), &eve).await);
    }
    let (stop, stopped) = watch::channel(());
    let mut trying = tokio::task::JoinSet::new();
    for number in 0..4 {
        let (server, mut stopped) = (hub.mqtt(), stopped.clone());
        trying.spawn(async move {
            let connect = Connect::persistent(format!("bob-{number}")).login("bob", "p");
            let mut let_in = 0_u32;
            while stopped.has_changed().is_ok() {
                if let Ok(mut client) = Client::try_connect(server, &connect).await {
                    let_in += 1;
                    if client.writer.subscribe(1, &[("a", 1), ("b", 1)]).await.is_err() {
                        continue;
                    }
                    let cut = client.reader.next();
                    tokio::select! {
                        _ = cut => {}
                        _ = stopped.changed() => {}
                    }
                }
            }
            let_in
        });
    }
    client.disconnect().await;
    for _ in 0..5 {
        for bob in ["a, b", "c, d"] {
            hub.reload_with(&rules(bob)).await;
            let connections = hub.metrics().await.sum("tidemill_mqtt_connections", &[]).unwrap();
            assert!(connections <= 4.0, "{connections} connections");
        }
    }
    drop(stop);
    let let_in: u32 = wait::within("the others", LIMIT, trying.join_all()).await.into_iter().sum();
    assert!(let_in > 0 && reached(&hub, "connections_max").await > 0.0, "nobody got to the limit");
    for other in &mut others {
        other.nothing_comes().await;
    }
    // Not one place is lost, and none too many is there.
    let connections = async || hub.metrics().await.sum("tidemill_mqtt_connections", &[]);
    wait::until_eq("the places that were given back", LIMIT, Some(3.0), connections).await;
    let eve = |client: &str| Connect::clean(client).login("eve", "p");
    let _last = Client::connect(hub.mqtt(), &eve("eve-3")).await;
    assert_eq!(refused(hub.mqtt(), &eve("eve-4")).await, "151");
}
