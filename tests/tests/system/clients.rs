//! `tidemill clients` and `/api/v1/clients`: who is there, how far behind, and sending one away.

use std::time::Duration;

use serde_json::Value;
use tidemill_tests::mqtt::{Client, Connect, Level, Packet, Publish};
use tidemill_tests::process::Ended;
use tidemill_tests::services::Tidemill;
use tidemill_tests::services::tidemill::tidemill;
use tidemill_tests::wait;

const LIMIT: Duration = Duration::from_secs(30);

/// `tidemill clients …` against a hub.
async fn clients(hub: &Tidemill, arguments: &[&str]) -> Ended {
    let http = hub.http().to_string();
    let (command, arguments) = arguments.split_first().expect("a command");
    // Before what may come after `--`.
    let all = [&["clients", command, "--http", &http], arguments].concat();
    tidemill(hub.dir(), &all).await
}

/// `tidemill clients show CLIENT --json`.
async fn show(hub: &Tidemill, client: &str) -> Value {
    let shown = clients(hub, &["show", client, "--json"]).await;
    assert!(shown.status.success(), "{}", shown.output());
    serde_json::from_str(&shown.stdout).unwrap_or_else(|error| panic!("{error}: {}", shown.stdout))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_told_with_their_subscriptions_and_lag() {
    let mut hub = Tidemill::start("").await;
    let mut sensor = Client::connect(hub.mqtt(), &Connect::clean("sensor").level(Level::V311)).await;
    let mut screen = Client::connect(hub.mqtt(), &Connect::persistent("wall/screen 1")).await;
    screen.subscribe(&[("rooms/#", 1), ("$share/walls/halls/#", 0)]).await;
    for _ in 0..3 {
        sensor.publish_acked(Publish::new("rooms/1/temp", "x", 1, 1)).await;
    }
    // Two of three are acknowledged.
    screen.message().await;
    screen.message().await;
    let Packet::Publish { id: third, .. } = screen.packet().await else { panic!("no third message") };
    screen.nothing_comes().await;

    let told = show(&hub, "wall/screen 1").await;
    assert_eq!((&told["online"], &told["version"]), (&Value::from(true), &Value::from("5.0")), "{told}");
    assert_eq!(
        (&told["keep_alive_s"], &told["session_expiry_s"]),
        (&Value::from(60), &Value::Null),
        "{told}"
    );
    assert!(told["address"].as_str().is_some_and(|address| address.starts_with("127.0.0.1:")), "{told}");
    assert_eq!((&told["messages_out"], &told["in_flight"]), (&Value::from(3), &Value::from(1)), "{told}");
    let [rooms, halls] = told["subscriptions"].as_array().unwrap().as_slice() else { panic!("{told}") };
    assert_eq!((&rooms["filter"], &rooms["qos"]), (&Value::from("rooms/#"), &Value::from(1)));
    assert_eq!((&rooms["cursor"], &rooms["lag"]), (&Value::from(2), &Value::from(1)), "{told}");
    assert_eq!((&halls["filter"], &halls["lag"]), (&Value::from("$share/walls/halls/#"), &Value::from(0)));
    let told = show(&hub, "sensor").await;
    assert_eq!((&told["version"], &told["messages_in"]), (&Value::from("3.1.1"), &Value::from(3)), "{told}");

    screen.disconnect().await;
    sensor.publish_acked(Publish::new("rooms/2/temp", "x", 1, 1)).await;
    let offline = async || Some(show(&hub, "wall/screen 1").await).filter(|told| told["online"] == false);
    let told = wait::until("the session without its connection", LIMIT, offline).await;
    assert_eq!((&told["in_flight"], &told["lag"]), (&Value::from(1), &Value::from(2)), "{told}");
    assert!(told["since"].is_string() && told.get("address").is_none(), "{told}");

    // It is what the store says, so also after a restart; the session goes on as it was.
    drop(sensor);
    assert!(hub.terminate().await.success());
    hub.start_again().await;
    let told = show(&hub, "wall/screen 1").await;
    assert_eq!((&told["in_flight"], &told["lag"]), (&Value::from(1), &Value::from(2)), "{told}");
    let table = clients(&hub, &["show", "wall/screen 1"]).await;
    assert!(table.stdout.contains("rooms/#") && table.stdout.contains("offline"), "{}", table.stdout);
    let mut screen = Client::connect(hub.mqtt(), &Connect::persistent("wall/screen 1")).await;
    assert!(screen.session_present);
    let again = screen.message().await;
    assert_eq!((again.id, again.dup, again.topic.as_str()), (third, true, "rooms/1/temp"));
    assert_eq!(screen.message().await.topic, "rooms/2/temp");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_listed_page_by_page() {
    let hub = Tidemill::start("").await;
    let mut online = Vec::new();
    for number in 0..5 {
        online.push(Client::connect(hub.mqtt(), &Connect::clean(format!("car-{number}"))).await);
        let offline = Client::connect(hub.mqtt(), &Connect::persistent(format!("van-{number}"))).await;
        offline.disconnect().await;
    }
    let all =
        async || Some(hub.get("/api/v1/clients?online=false").await.1).filter(|body| body.contains("van-4"));
    wait::until("sessions without their connections", LIMIT, all).await;
    let names = async |query: &str| {
        let page: Value = hub.json(&format!("/api/v1/clients?{query}")).await;
        let clients = page["clients"].as_array().unwrap();
        let names: Vec<String> =
            clients.iter().map(|client| client["client"].as_str().unwrap().to_owned()).collect();
        (names, page.get("next").and_then(Value::as_str).map(str::to_owned))
    };
    let (page, next) = names("limit=4").await;
    assert_eq!(
        (page.as_slice(), next.as_deref()),
        (&["car-0", "car-1", "car-2", "car-3"].map(String::from)[..], Some("car-3"))
    );
    let (page, next) = names("limit=100&after=car-3").await;
    assert_eq!((page.len(), page.first().map(String::as_str), next), (6, Some("car-4"), None));
    assert_eq!(names("prefix=van-&limit=2&after=van-2").await.0, ["van-3", "van-4"]);
    assert_eq!(names("online=true&after=car-2").await.0, ["car-3", "car-4"]);
    let listed = clients(&hub, &["list", "--offline", "--prefix", "van", "--limit", "3"]).await;
    assert!(listed.status.success(), "{}", listed.output());
    assert_eq!(
        listed.stdout.lines().count(),
        5,
        "heads, three clients, and that there are more: {}",
        listed.stdout
    );
    assert!(listed.stdout.contains("--after='van-2'"), "{}", listed.stdout);
    for bad in ["online=perhaps", "limit=x", "nothing=1"] {
        assert_eq!(hub.get(&format!("/api/v1/clients?{bad}")).await.0, 400, "{bad}");
    }
    let unknown = clients(&hub, &["show", "nobody"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(unknown.stderr.contains("`nobody`"), "{}", unknown.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_sent_away_and_its_session_only_if_that_is_asked_for() {
    let hub = Tidemill::start("").await;
    let mut client = Client::connect(hub.mqtt(), &Connect::persistent("car/7")).await;
    client.subscribe(&[("orders", 1)]).await;
    let kicked = clients(&hub, &["kick", "car/7"]).await;
    assert!(kicked.status.success() && kicked.stdout == "car/7: sent away\n", "{}", kicked.output());
    assert_eq!(client.reader.until_closed().await, [Packet::Disconnect { reason: 0x98 }]);
    let again = clients(&hub, &["kick", "car/7"]).await;
    assert_eq!(again.status.code(), Some(1));
    assert!(again.stderr.contains("not connected"), "{}", again.stderr);

    let mut old = Client::connect(hub.mqtt(), &Connect::clean("old").level(Level::V311)).await;
    assert!(clients(&hub, &["kick", "old"]).await.status.success());
    assert_eq!(old.reader.until_closed().await, [], "3.1.1 has no packet for it");

    let mut client = Client::connect(hub.mqtt(), &Connect::persistent("car/7")).await;
    assert!(client.session_present, "the session stayed");
    assert!(clients(&hub, &["kick", "car/7", "--end-session"]).await.status.success());
    assert_eq!(client.reader.until_closed().await, [Packet::Disconnect { reason: 0x98 }]);
    assert_eq!(clients(&hub, &["show", "car/7"]).await.status.code(), Some(1), "it is gone");
    let client = Client::connect(hub.mqtt(), &Connect::persistent("car/7")).await;
    assert!(!client.session_present);

    client.disconnect().await;
    let offline = async || Some(show(&hub, "car/7").await).filter(|told| told["online"] == false);
    wait::until("the session without its connection", LIMIT, offline).await;
    assert!(clients(&hub, &["kick", "car/7", "--end-session"]).await.status.success());
    let mut hub = hub;
    assert!(hub.terminate().await.success());
    hub.start_again().await;
    let client = Client::connect(hub.mqtt(), &Connect::persistent("car/7")).await;
    assert!(!client.session_present, "an ended session does not come back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_client_calls_itself_it_is_found_and_no_other() {
    let hub = Tidemill::start("").await;
    let names = [
        "with space",
        " ",
        "a//b",
        "/",
        "%2e%2e",
        "a%2Fb",
        "a?b#c=&d",
        "quote'd",
        "dq\"x\\",
        "tab\there",
        "line\nend",
        "--help",
        "-x",
        "\u{202e}right",
        "ünï-коде-車🚗",
        "...",
        "+",
        "a;b",
    ];
    // Who would be meant if something were left out on the way.
    let others = ["tabhere", "lineend", "a/b", "..", "a"];
    let mut there = Vec::new();
    for name in names.into_iter().chain(others) {
        there.push((name, Client::connect(hub.mqtt(), &Connect::clean(name)).await));
    }
    for (name, client) in there.iter_mut().take(names.len()) {
        let shown = clients(&hub, &["show", "--json", "--", name]).await;
        assert!(shown.status.success(), "{name:?}: {}", shown.output());
        let told: Value = serde_json::from_str(&shown.stdout).unwrap();
        assert_eq!(told["client"], *name);
        let kicked = clients(&hub, &["kick", "--", name]).await;
        assert!(kicked.status.success(), "{name:?}: {}", kicked.output());
        assert_eq!(kicked.stdout.lines().count(), 1, "{name:?}: {:?}", kicked.stdout);
        assert_eq!(client.reader.until_closed().await, [Packet::Disconnect { reason: 0x98 }], "{name:?}");
    }
    // A URL has no place for this one; the hint says what helps, and it does.
    let dots = clients(&hub, &["kick", ".."]).await;
    assert_eq!(dots.status.code(), Some(1));
    let hint = format!("curl --path-as-is -X DELETE 'http://{}/api/v1/clients/%2E%2E'", hub.http());
    assert!(dots.stderr.contains(&hint), "{}", dots.stderr);
    assert_eq!(clients(&hub, &["show", ""]).await.status.code(), Some(2), "no name is no name");
    for (name, client) in there.iter_mut().skip(names.len()) {
        client.nothing_comes().await;
        assert!(hub.log().lines().all(|line| !line.contains(&format!("client=\"{name}\""))), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_are_listed_and_nobody_is_told_as_well() {
    const COUNT: usize = 2_100;
    let hub = Tidemill::start("").await;
    let nobody = clients(&hub, &["list"]).await;
    assert!(nobody.status.success() && nobody.stdout == "no clients\n", "{}", nobody.output());
    let long = "x".repeat(200);
    let mut online = vec![Client::connect(hub.mqtt(), &Connect::clean(&*long)).await];
    for number in 0..COUNT {
        online.push(Client::connect(hub.mqtt(), &Connect::clean(format!("car-{number:04}"))).await);
    }
    // More than the hub gives at a time, and one row a client, no wider than it has to be.
    let listed = clients(&hub, &["list", "--limit", "100000"]).await;
    let lines: Vec<&str> = listed.stdout.lines().collect();
    assert_eq!(lines.len(), 1 + COUNT + 1, "heads, and each once");
    for (number, line) in lines[1..=COUNT].iter().enumerate() {
        assert!(line.starts_with(&format!("car-{number:04}  online")) && line.len() < 120, "{line}");
    }
    assert!(lines[COUNT + 1].starts_with(&format!("{long}  online")), "{}", lines[COUNT + 1]);
    let json = clients(&hub, &["list", "--limit", "1500", "--json"]).await;
    let page: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(
        (page["clients"].as_array().map(Vec::len), &page["next"]),
        (Some(1_500), &Value::from("car-1499"))
    );
    assert_eq!(clients(&hub, &["list", "--limit", "0"]).await.status.code(), Some(2));

    let mut hub = hub;
    hub.kill();
    let silent = clients(&hub, &["list"]).await;
    assert_eq!(silent.status.code(), Some(1));
    let told = format!("no hub answers at {}", hub.http());
    assert!(silent.stderr.contains(&told) && silent.stderr.contains("is it running"), "{}", silent.stderr);
}
