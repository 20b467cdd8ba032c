//! The hub's command line and HTTP API, as a person and a script use them.

use std::collections::HashSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tidemill_tests::mqtt::{Client, Connect, Publish};
use tidemill_tests::process::Process;
use tidemill_tests::services::tidemill::{command, ready_line, tidemill};
use tidemill_tests::services::{HttpFunction, Tidemill};
use tidemill_tests::{ports, wait};

const LIMIT: Duration = Duration::from_secs(30);

fn rules(function: &HttpFunction) -> String {
    format!(
        r#"
connections:
  hook: {{ http: {{ url: "{}" }} }}
rules:
  - name: hot
    description: Sensors that are too hot
    from: {{ mqtt: ["sensors/+/temp"] }}
    event: {{ type: com.example.hot, source: "/sensors/{{{{ topic[1] }}}}" }}
    where: {{ data: {{ temp: [ {{ numeric: [">", 50] }} ] }} }}
    to: [ hook: {{}} ]
"#,
        function.url("/hot")
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serve_needs_no_file_and_says_where_it_listens() {
    let dir = tempfile::tempdir().unwrap();
    let arguments =
        ["serve", "--data-dir", "data", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--flush", "async"];
    let mut process = Process::start("tidemill", command(dir.path(), &arguments), dir.path(), Signal::KILL);
    let (mqtt, http) = process.wait_for("the ready line", LIMIT, |stdout, _| ready_line(stdout)).await;
    let [mqtt] = mqtt[..] else { panic!("one address, not {mqtt:?}") };
    assert!(mqtt.port() != 0 && http.port() != 0 && mqtt.ip().is_loopback() && http.ip().is_loopback());
    let mut client = Client::connect(mqtt, &Connect::clean("client")).await;
    client.publish_acked(Publish::new("a", "x", 1, 1)).await;
    let answer = reqwest::get(format!("http://{http}/healthz")).await.unwrap();
    assert!(answer.status().is_success());
    process.signal(Signal::TERM);
    assert!(process.wait(LIMIT).await.success());
    assert_eq!(process.stdout().lines().count(), 1, "{}", process.stdout());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serve_reads_a_configuration_and_flags_override_it() {
    let dir = tempfile::tempdir().unwrap();
    let [in_file, given] = [ports::free_address(), ports::free_address()];
    let http = ports::free_address();
    let function = HttpFunction::start().await;
    fs::write(dir.path().join("rules.yaml"), rules(&function)).unwrap();
    let config = format!(
        "data_dir: from-file\nflush: async\nmqtt: {{ listen: [\"{in_file}\"] }}\nhttp: {{ listen: \"{http}\" }}\n\
         telemetry: {{ log: json, level: info }}\ninclude: [rules.yaml]\n"
    );
    fs::write(dir.path().join("tidemill.yaml"), config).unwrap();
    let checked = tidemill(dir.path(), &["check", "tidemill.yaml"]).await;
    assert!(checked.status.success(), "{}", checked.output());
    assert!(checked.stdout.contains("1 rule"), "{}", checked.stdout);
    let mqtt = given.to_string();
    let serve = command(dir.path(), &["serve", "--config", "tidemill.yaml", "--mqtt", &mqtt]);
    let mut process = Process::start("tidemill", serve, dir.path(), Signal::KILL);
    let ready = process.wait_for("the ready line", LIMIT, |stdout, _| ready_line(stdout)).await;
    assert_eq!(ready, (vec![given], http));
    assert!(dir.path().join("from-file").is_dir());
    process.signal(Signal::TERM);
    assert!(process.wait(LIMIT).await.success());
    let log = process.stderr();
    assert!(!log.is_empty());
    for line in log.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "a log line that is no JSON: {line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_tells_of_health_rules_and_queues() {
    let function = HttpFunction::start().await;
    let hub = Tidemill::start(&rules(&function)).await;
    let mut session = Client::connect(hub.mqtt(), &Connect::persistent("offline")).await;
    session.subscribe(&[("sensors/#", 1)]).await;
    session.disconnect().await;
    let mut client = Client::connect(hub.mqtt(), &Connect::clean("sensor")).await;
    for temp in [40, 60, 70] {
        client.publish_acked(Publish::new("sensors/7/temp", format!("{{\"temp\":{temp}}}"), 1, 1)).await;
    }
    function.until_accepted("/hot", 2, LIMIT).await;
    hub.until_delivered(LIMIT).await;

    for path in ["/healthz", "/readyz"] {
        assert_eq!(hub.get(path).await.0, 200, "{path}");
    }
    let rules = hub.rules().await;
    assert_eq!((rules.router.records, rules.router.lag), (3, 0));
    let [rule] = rules.rules.as_slice() else { panic!("{rules:?}") };
    assert_eq!((rule.name.as_str(), rule.matched), ("hot", 2));
    let [target] = rule.targets.as_slice() else { panic!("{rules:?}") };
    assert_eq!((target.name.as_str(), target.cursor, target.end, target.lag), ("hook", 2, 2, 0));
    let queue = hub.queue("sensors/#").await;
    assert_eq!((queue.kind.as_str(), queue.first, queue.end), ("filter", 0, 3));
    let [reader] = queue.readers.as_slice() else { panic!("{queue:?}") };
    assert_eq!((reader.owner.as_str(), reader.cursor, reader.lag), ("session/offline", 0, 3));
    assert_eq!(hub.queue("rule/hot").await.end, 2);

    let metrics = hub.metrics().await;
    assert_eq!(metrics.sum("tidemill_store_records_total", &[]), Some(3.0));
    assert_eq!(metrics.sum("tidemill_router_matched_total", &[("rule", "hot")]), Some(2.0));
    let delivered = metrics.sum("tidemill_delivery_delivered_total", &[("rule", "hot"), ("target", "hook")]);
    assert_eq!(delivered, Some(2.0));
    for name in metrics.names() {
        // `process_` is what Prometheus' own clients call the numbers of the process.
        assert!(
            name.starts_with("tidemill_") || name.starts_with("process_"),
            "a metric of another name: {name}"
        );
    }
    let (status, body) = hub.get("/api/v1/nothing").await;
    assert_eq!(status, 404, "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pub_and_tail_work_against_a_running_hub() {
    let hub = Tidemill::start("").await;
    let (mqtt, http) = (hub.mqtt().to_string(), hub.http().to_string());
    // Nobody subscribes and no rule reads it: the log is there all the same.
    for number in 0..5 {
        let payload = format!("{{\"n\":{number}}}");
        let ended = tidemill(hub.dir(), &["pub", "--mqtt", &mqtt, "rooms/1/temp", &payload]).await;
        assert!(ended.status.success(), "{}", ended.output());
    }
    let tail =
        tidemill(hub.dir(), &["tail", "--http", &http, "rooms/+/temp", "--from", "earliest", "--limit", "5"])
            .await;
    assert!(tail.status.success(), "{}", tail.output());
    let lines: Vec<&str> = tail.stdout.lines().collect();
    assert_eq!(lines.len(), 5, "{}", tail.stdout);
    for (number, line) in lines.iter().enumerate() {
        assert!(line.contains("rooms/1/temp") && line.contains(&format!("{{\"n\":{number}}}")), "{line}");
    }
    let json = ["tail", "--http", &http, "rooms/#", "--from", "earliest", "--limit", "5", "--json"];
    let tail = tidemill(hub.dir(), &json).await;
    let mut positions = HashSet::new();
    for (number, line) in tail.stdout.lines().enumerate() {
        let record: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(record["topic"], "rooms/1/temp");
        assert_eq!(record["payload"], format!("{{\"n\":{number}}}"));
        assert!(positions.insert(record["position"].to_string()), "{line}");
    }
    assert_eq!(positions.len(), 5);

    // From now on: what comes while it runs.
    let follow: Command = command(hub.dir(), &["tail", "--http", &http, "rooms/#"]);
    let mut follow = Process::start("tail", follow, hub.dir(), Signal::KILL);
    let followed = wait::until("a followed record", LIMIT, async || {
        tidemill(hub.dir(), &["pub", "--mqtt", &mqtt, "rooms/2/temp", "later"]).await;
        Some(follow.stdout()).filter(|stdout| stdout.contains("later"))
    });
    assert!(!followed.await.contains("\"n\""), "only what is new");
    follow.kill();

    let none =
        tidemill(hub.dir(), &["tail", "--http", &http, "cellars/#", "--from", "earliest", "--wait", "0s"])
            .await;
    assert!(none.status.success() && none.stdout.is_empty(), "{}", none.output());
    let refused = tidemill(hub.dir(), &["tail", "--http", &http, "rooms/#/x", "--from", "earliest"]).await;
    assert_eq!(refused.status.code(), Some(1), "{}", refused.output());
    assert!(refused.stderr.contains("rooms/#/x"), "{}", refused.stderr);
    let nobody = ports::free_address().to_string();
    let refused = tidemill(hub.dir(), &["tail", "--http", &nobody, "rooms/#"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.contains(&nobody), "{}", refused.stderr);
}
