//! `$SYS/broker/…`: what dashboards made for mosquitto find, and that nothing is written when nobody listens.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use tidemill_tests::mqtt::{Client, Connect, Packet, Publish};
use tidemill_tests::services::Tidemill;
use tidemill_tests::services::mosquitto::{Version, subscribe_once};
use tidemill_tests::wait;

const LIMIT: Duration = Duration::from_secs(30);

/// What mosquitto 2.0 publishes below `$SYS/broker/`, but for what is said of each of its bridges.
const MOSQUITTO: &[&str] = &[
    "bytes/received",
    "bytes/sent",
    "clients/active",
    "clients/connected",
    "clients/disconnected",
    "clients/expired",
    "clients/inactive",
    "clients/maximum",
    "clients/total",
    "heap/current",
    "heap/maximum",
    "messages/received",
    "messages/sent",
    "messages/stored",
    "publish/bytes/received",
    "publish/bytes/sent",
    "publish/messages/dropped",
    "publish/messages/received",
    "publish/messages/sent",
    "retained messages/count",
    "store/messages/bytes",
    "store/messages/count",
    "subscriptions/count",
    "uptime",
    "version",
];
/// The same below `load/`, each over one, five and fifteen minutes.
const MOSQUITTO_LOADS: &[&str] = &[
    "bytes/received",
    "bytes/sent",
    "connections",
    "messages/received",
    "messages/sent",
    "publish/dropped",
    "publish/received",
    "publish/sent",
    "sockets",
];

/// A hub that publishes every second.
async fn hub(rules: &str) -> Tidemill {
    Tidemill::start_with_config(&format!("flush: async\nmqtt: {{ sys_interval: 1s }}\n{rules}")).await
}

async fn records(hub: &Tidemill) -> f64 {
    hub.metrics().await.sum("tidemill_store_records_total", &[]).unwrap()
}

/// Waits until the hub has had so many more chances to publish, one in each second of its uptime.
async fn intervals(hub: &Tidemill, count: f64) {
    let uptime = async || hub.metrics().await.sum("tidemill_hub_uptime_seconds", &[]).unwrap();
    let until = uptime().await + count;
    wait::until("uptime", LIMIT, async || Some(uptime().await).filter(|now| *now > until)).await;
}

/// `mosquitto_sub` for so many messages: topics and values.
async fn listen(hub: &Tidemill, filter: &str, count: &str) -> Vec<(String, String)> {
    let arguments = ["-t", filter, "-C", count, "-W", "20", "-F", "%t=%p"];
    let ended = subscribe_once(hub.mqtt(), Version::V5, &arguments).await;
    assert!(ended.status.success(), "{}", ended.output());
    let pair = |line: &str| line.split_once('=').map(|(topic, value)| (topic.to_owned(), value.to_owned()));
    ended.stdout.lines().filter_map(pair).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_for_nobody_and_everything_for_a_dashboard() {
    let hub = hub("").await;
    let mut everything = Client::connect(hub.mqtt(), &Connect::clean("everything")).await;
    everything.subscribe(&[("#", 0), ("+/broker/uptime", 0), ("$other/#", 0)]).await;
    intervals(&hub, 3.0).await;
    assert_eq!(records(&hub).await, 0.0, "nobody has asked for $SYS");

    let mut device = Client::connect(hub.mqtt(), &Connect::persistent("device")).await;
    device.publish_acked(Publish::new("a", "x", 1, 1).retained()).await;
    assert_eq!(everything.message().await.topic, "a");
    let found: HashMap<String, String> = listen(&hub, "$SYS/#", "60").await.into_iter().collect();
    let value = |name: &str| {
        let topic = format!("$SYS/broker/{name}");
        found.get(&topic).unwrap_or_else(|| panic!("no {topic} in {found:?}")).as_str()
    };
    assert!(value("version").starts_with("tidemill version "));
    assert!(value("uptime").ends_with(" seconds"));
    // The two above and mosquitto_sub.
    for (name, wanted) in [
        ("clients/connected", "3"),
        ("clients/total", "3"),
        ("clients/maximum", "3"),
        ("clients/disconnected", "0"),
        ("clients/expired", "0"),
        ("subscriptions/count", "4"),
        ("publish/messages/received", "1"),
        ("publish/messages/dropped", "0"),
        ("retained messages/count", "1"),
        ("store/messages/count", "1"),
    ] {
        // What has changed since the first is told again, with the records of $SYS itself among it.
        let value: u64 = value(name).parse().unwrap();
        assert!(value >= wanted.parse().unwrap(), "{name}: {value}");
    }
    assert_eq!((value("clients/maximum"), value("clients/expired")), ("3", "0"));
    for name in ["messages/received", "messages/sent", "bytes/received", "bytes/sent", "store/messages/bytes"]
    {
        assert!(value(name).parse::<u64>().unwrap() > 0, "{name}");
    }
    // The payload above and none of the hub's own; everything that was sent is more than its payloads.
    assert_eq!(value("publish/bytes/received"), "1");
    let number = |name: &str| value(name).parse::<u64>().unwrap();
    assert!(number("publish/bytes/sent") > 0 && number("publish/bytes/sent") < number("bytes/sent"));
    assert!(number("heap/current") > 1_000_000 && number("heap/maximum") >= number("heap/current"));
    let anonymous = hub.memory().anonymous_kib * 1024;
    assert!(
        number("heap/current").abs_diff(anonymous) < anonymous / 2,
        "{anonymous}: {}",
        value("heap/current")
    );
    everything.nothing_comes().await;

    // Who listened has gone, and its queue with it.
    wait::until("quiet", LIMIT, async || {
        let before = records(&hub).await;
        intervals(&hub, 2.0).await;
        (records(&hub).await == before).then_some(())
    })
    .await;

    // What is retained from then is not what a new listener has to live with.
    let again = listen(&hub, "$SYS/broker/uptime", "2").await;
    let [(_, stale), (_, fresh)] = again.as_slice() else { panic!("{again:?}") };
    assert_ne!(stale, fresh);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_mosquitto_tells_is_told() {
    let hub = hub("").await;
    let loads = MOSQUITTO_LOADS.iter().flat_map(|name| ["1min", "5min", "15min"].map(|over| (name, over)));
    let loads = loads.map(|(name, over)| format!("load/{name}/{over}"));
    let wanted = MOSQUITTO.iter().map(|&name| name.to_owned()).chain(loads);
    let mut wanted: Vec<String> = wanted.map(|name| format!("$SYS/broker/{name}")).collect();
    wanted.sort();
    // All at once, whether anything has happened or not.
    let told = listen(&hub, "$SYS/#", &wanted.len().to_string()).await;
    let mut topics: Vec<String> = told.iter().map(|(topic, _)| topic.clone()).collect();
    topics.sort();
    assert_eq!(topics, wanted);
    for (topic, value) in &told {
        let is_text = ["$SYS/broker/version", "$SYS/broker/uptime"].contains(&&**topic);
        assert!(is_text || value.parse::<f64>().is_ok(), "{topic} is {value}");
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let page = std::fs::read_to_string(page).unwrap();
    let section =
        page.split("\n## $SYS topics\n").nth(1).and_then(|after| after.split("\n## ").next()).unwrap();
    for name in MOSQUITTO {
        let ways = [format!("| `{name}`"), format!(", `{name}`"), format!("`$SYS/broker/{name}`")];
        assert!(ways.iter().any(|way| section.contains(way)), "{name}");
    }
    for name in MOSQUITTO_LOADS {
        assert!(section.contains(&format!("`load/{name}`")), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_is_asked_for_is_written_and_only_when_it_changes() {
    let hub = hub("").await;
    let mut screen = Client::connect(hub.mqtt(), &Connect::clean("screen")).await;
    screen.subscribe(&[("$SYS/broker/clients/+", 1), ("$SYS/broker/version", 1)]).await;
    let mut topics = Vec::new();
    for _ in 0..8 {
        topics.push(screen.message().await.topic);
    }
    topics.sort();
    topics.dedup();
    assert_eq!(topics.len(), 8, "each at once, and once: {topics:?}");
    intervals(&hub, 3.0).await;
    screen.nothing_comes().await;
    assert_eq!(records(&hub).await, 8.0);
    let _second = Client::connect(hub.mqtt(), &Connect::clean("second")).await;
    let changed = screen.message().await;
    assert!(changed.topic.starts_with("$SYS/broker/clients/") && changed.payload == "2", "{changed:?}");

    // A device cannot say what the broker says.
    screen.publish(Publish::new("$SYS/broker/version", "mine", 1, 9)).await;
    loop {
        match screen.packet().await {
            Packet::PubAck { id: 9, reason } => break assert_eq!(reason, 0x87, "Not authorized"),
            Packet::Publish { id, .. } => screen.writer.puback(id).await.unwrap(),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_is_a_listener_too() {
    let rules = "connections: { out: { file: { path: out.jsonl } } }\nrules:\n  - name: uptime\n    \
                 from: { mqtt: [\"$SYS/broker/uptime\"] }\n    to: [ out: {} ]\n";
    let hub = hub(rules).await;
    let path = hub.dir().join("out.jsonl");
    wait::until("an event of $SYS", LIMIT, async || {
        std::fs::read_to_string(&path).ok().filter(|text| text.contains("$SYS/broker/uptime"))
    })
    .await;
}
