//! Sessions without a connection: what is due for them comes at its time, whatever happens to the hub meanwhile, and
//! they are found again.

use std::time::{Duration, Instant};

use serde_json::Value;
use tidemill_tests::mqtt::{Client, Connect, Publish};
use tidemill_tests::services::Tidemill;
use tidemill_tests::wait;

const LIMIT: Duration = Duration::from_secs(60);
/// How long those live that are to end.
const LIFE_S: u32 = 10;
const LIFE: Duration = Duration::from_secs(LIFE_S as u64);

/// Identifiers of the clients there are, page by page.
async fn clients(hub: &Tidemill, limit: usize, more: &str) -> Vec<String> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let (status, page) = hub.get(&format!("/api/v1/clients?limit={limit}{more}{after}")).await;
        assert_eq!(status, 200, "{page}");
        let page: Value = serde_json::from_str(&page).unwrap_or_else(|error| panic!("{error}: {page}"));
        let names = page["clients"].as_array().expect("clients").iter();
        all.extend(names.map(|client| client["client"].as_str().expect("a name").to_owned()));
        let Some(next) = page["next"].as_str() else { return all };
        after = format!("&after={next}");
    }
}

fn lasting(client: &str, expiry_s: u32) -> Connect {
    Connect { expiry_s, ..Connect::persistent(client) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_and_wills_have_their_time_across_a_kill() {
    let mut hub = Tidemill::start("").await;
    let mut listener = Client::connect(hub.mqtt(), &Connect::persistent("listener")).await;
    listener.subscribe(&[("wills/#", 1)]).await;
    listener.disconnect().await;

    for number in 0..30 {
        Client::connect(hub.mqtt(), &lasting(&format!("stays-{number:02}"), 3600)).await.disconnect().await;
    }
    let began = Instant::now();
    for number in 0..30 {
        Client::connect(hub.mqtt(), &lasting(&format!("goes-{number:02}"), LIFE_S)).await.disconnect().await;
    }
    // One whose will waits, and one that comes back before its time.
    drop(Client::connect(hub.mqtt(), &lasting("will", 3600).will("wills/late", "gone", LIFE_S)).await);
    drop(Client::connect(hub.mqtt(), &lasting("back", LIFE_S).will("wills/back", "not gone", LIFE_S)).await);
    wait::until("all are written", LIMIT, || async {
        (clients(&hub, 100, "&online=false").await.len() == 63).then_some(())
    })
    .await;
    hub.kill();
    hub.start_again().await;
    let there = clients(&hub, 7, "").await.len();
    assert!(there == 63 || began.elapsed() >= LIFE, "{there}: some have ended too soon");
    let back = Client::connect(hub.mqtt(), &lasting("back", 3600)).await;
    assert!(back.session_present);
    back.disconnect().await;
    hub.kill();
    hub.start_again().await;

    wait::until("the sessions whose time is over end", LIMIT, || async {
        clients(&hub, 7, "&prefix=goes-").await.is_empty().then_some(())
    })
    .await;
    assert!(began.elapsed() >= LIFE, "they ended too soon");
    let mut left: Vec<String> = (0..30).map(|number| format!("stays-{number:02}")).collect();
    left.extend(["back", "listener", "will"].map(str::to_owned));
    left.sort();
    assert_eq!(clients(&hub, 7, "").await, left);
    let mut listener = Client::connect(hub.mqtt(), &Connect::persistent("listener")).await;
    assert_eq!(listener.message().await.topic, "wills/late");
    listener.nothing_comes().await;
    assert!(Client::connect(hub.mqtt(), &lasting("stays-07", 3600)).await.session_present);
    assert!(!Client::connect(hub.mqtt(), &lasting("goes-07", 3600)).await.session_present);
}

/// Clients that come and go while the hub is killed again and again lose nothing, and in the end all of their sessions expire.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_survive_kills_while_their_clients_come_and_go() {
    const CLIENTS: usize = 40;
    let mut hub = Tidemill::start("").await;
    let name = |number: usize| format!("c{number:02}");
    for number in 0..CLIENTS {
        let mut client = Client::connect(hub.mqtt(), &lasting(&name(number), 3600)).await;
        client.subscribe(&[(&format!("to/{}", name(number)), 1)]).await;
        client.disconnect().await;
    }
    let mut expected = vec![0; CLIENTS];
    for round in 0..6 {
        let mut publisher = Client::connect(hub.mqtt(), &Connect::clean("publisher")).await;
        for number in (0..CLIENTS).filter(|number| number % 3 == round % 3) {
            let topic = format!("to/{}", name(number));
            publisher.publish_acked(Publish::new(topic, format!("{}", expected[number]), 1, 1)).await;
            expected[number] += 1;
        }
        // Some are connected when the hub goes, some have just left, and some were away all the time.
        let mut connected = Vec::new();
        for number in (0..CLIENTS).filter(|number| number % 2 == round % 2) {
            let client = Client::connect(hub.mqtt(), &lasting(&name(number), 3600)).await;
            assert!(client.session_present, "{}", name(number));
            match number % 4 {
                0 | 1 => connected.push(client),
                _ => client.disconnect().await,
            }
        }
        hub.kill();
        hub.start_again().await;
        assert_eq!(clients(&hub, 11, "").await, (0..CLIENTS).map(name).collect::<Vec<_>>());
    }
    for (number, expected) in expected.iter().enumerate() {
        let mut client = Client::connect(hub.mqtt(), &lasting(&name(number), 1)).await;
        assert!(client.session_present, "{}", name(number));
        let mut payloads = std::collections::BTreeSet::new();
        while payloads.len() < *expected {
            payloads.insert(client.message().await.payload);
        }
        client.disconnect().await;
    }
    hub.kill();
    hub.start_again().await;
    wait::until("all sessions end", LIMIT, || async { clients(&hub, 11, "").await.is_empty().then_some(()) })
        .await;
}
