//! A whole hub in the process: records in, files and the HTTP API out.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;
use tidemill_store::QueueKind;
use tidemill_store::faults::fail_nth_queues;

use super::{Hub, ReloadError, StartError};
use crate::config::{Config, Flags, Source, load};
use crate::message::{self, Properties};
use crate::mqtt::codec::Qos;

#[path = "../../../store/tests/common/small_disk.rs"]
mod small_disk;

const RULES: &str = r#"
connections:
  out: { file: { path: "@DIR@/out.jsonl" } }
rules:
  - name: hot
    from: { mqtt: ["t/+"] }
    where: { data: { temp: [ { numeric: [">", 10] } ] } }
    data: { temp: "{{ data.temp }}" }
    to: [ { out: } ]
  - name: all
    from: { mqtt: ["t/#"] }
    data: { unit: "{{ data.unit }}" }
    to: [ { out: { name: units } } ]
"#;

fn config(dir: &Path, rules: &str) -> Config {
    let local = "127.0.0.1:0".parse().unwrap();
    let flags =
        Flags { data_dir: Some(dir.join("data")), mqtt: vec![local], http: Some(local), ..Flags::default() };
    let text = rules.replace("@DIR@", &dir.display().to_string());
    load(&Source { flags, inline: Some(("test.yaml".to_owned(), text)), ..Source::default() })
        .unwrap_or_else(|e| panic!("{}", e.render()))
}

async fn start(dir: &Path, rules: &str) -> Hub {
    Hub::start(config(dir, rules)).await.unwrap()
}

async fn publish(hub: &Hub, topic: &str, payload: &str) {
    let properties = Properties { client: "c1".into(), ..Properties::default() }.encode().unwrap();
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    let record = message::record(topic.into(), properties, payload, Qos::AtLeastOnce, false);
    hub.store().append(vec![record]).await.unwrap();
}

async fn ask(hub: &Hub, path: &str) -> Response {
    reqwest::get(format!("http://{}{path}", hub.http_address())).await.unwrap()
}

async fn json(hub: &Hub, path: &str) -> Value {
    let response = ask(hub, path).await;
    let (status, text) = (response.status(), response.text().await.unwrap());
    assert!(status.is_success(), "{path}: {status} {text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
}

async fn until_routed(hub: &Hub) {
    let waited = async {
        while hub.view().router_lag(hub.store()) > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waited).await.expect("everything is routed");
}

async fn until_drained(hub: &Hub) {
    let waited = async {
        loop {
            let view = hub.view();
            let lag: u64 = view.targets.iter().map(|target| target.snapshot(hub.store()).lag).sum();
            if view.router_lag(hub.store()) + lag == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waited).await.expect("everything is delivered");
}

fn lines(dir: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join("out.jsonl")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn stop(hub: Hub) {
    hub.stop(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn records_reach_targets_and_the_api_tells_about_it() {
    let dir = tempfile::tempdir().unwrap();
    let stream = "streams: [ { name: slow, filters: [ \"slow/#\" ], retention: { time: 2h, bytes: 1GB } } ]";
    let hub = start(dir.path(), &format!("{RULES}{stream}\n")).await;
    assert_eq!(ask(&hub, "/healthz").await.status(), StatusCode::OK);
    assert_eq!(ask(&hub, "/readyz").await.status(), StatusCode::OK);
    publish(&hub, "t/a", r#"{"temp":11,"unit":"C"}"#).await;
    publish(&hub, "t/a", r#"{"temp":10,"unit":"C"}"#).await;
    publish(&hub, "t/b", "no json").await;
    publish(&hub, "other", r#"{"temp":99,"unit":"C"}"#).await;
    until_drained(&hub).await;
    let delivered = lines(dir.path());
    assert_eq!(delivered.iter().filter(|event| event["data"]["temp"] == 11).count(), 1);
    assert_eq!(delivered.iter().filter(|event| event["data"]["unit"] == "C").count(), 2);
    assert_eq!(delivered.len(), 3);

    let rules = json(&hub, "/api/v1/rules").await;
    assert_eq!(rules["router"]["not_json"], 1);
    assert_eq!(rules["rules"][0]["matched"], 1);
    assert_eq!(rules["rules"][1]["matched"], 3);
    let target = &rules["rules"][1]["targets"][0];
    assert_eq!(
        (&target["name"], &target["dead_letters"], &target["lag"]),
        (&"units".into(), &1.into(), &0.into())
    );
    assert!(target["since"].as_str().is_some_and(|time| time.ends_with('Z')), "{target}");

    let letters = json(&hub, "/api/v1/dead-letters?rule=all&target=units").await;
    assert_eq!(letters["count"], 1);
    let letter = &letters["dead_letters"][0];
    assert!(letter["error"].as_str().unwrap().contains("data.unit"), "{letter}");
    assert_eq!((&letter["record"]["topic"], &letter["record"]["client"]), (&"t/b".into(), &"c1".into()));
    let position = letter["position"].as_str().unwrap();
    let told = json(&hub, &format!("/api/v1/explain?position={position}")).await;
    assert_eq!(told["rules"][0]["verdict"], "not json");
    assert_eq!(told["rules"][1]["targets"][0]["verdict"], "dead letter");

    let queues = json(&hub, "/api/v1/queues").await;
    let names: Vec<_> =
        queues["queues"].as_array().unwrap().iter().map(|queue| queue["name"].clone()).collect();
    assert_eq!(names, ["router", "rule/hot", "rule/all"]);
    assert_eq!(queues["queues"][2]["readers"][0]["lag"], 0);
    let page = json(&hub, "/api/v1/queues?limit=1").await;
    assert_eq!((page["queues"].as_array().unwrap().len(), page["next"].is_u64()), (1, true));

    let metrics = ask(&hub, "/metrics").await.text().await.unwrap();
    for line in [
        "tidemill_router_matched_total{rule=\"all\"} 3",
        "tidemill_delivery_dead_letters{rule=\"all\",target=\"units\"} 1",
        "tidemill_delivery_lag_entries{rule=\"hot\",target=\"out\"} 0",
        "tidemill_store_records_total 4",
        "tidemill_hub_ready 1",
        "tidemill_limit{name=\"mqtt.packet_bytes_max\"} 1179648",
        "tidemill_limit{name=\"log.checkpoint_interval\"} 0.1",
        "tidemill_limit{name=\"http.tails_max\"} 64",
        "tidemill_limit{name=\"streams.slow.retention.time\"} 7200",
        "tidemill_limit{name=\"streams.slow.retention.bytes\"} 1000000000",
        "tidemill_store_shard_segments{shard=\"0\"} 1",
        "tidemill_store_shard_segments{shard=\"1\"} 1",
        "tidemill_store_shard_undurable_bytes{shard=\"0\"} 0",
        "tidemill_store_shard_oldest_timestamp_seconds{shard=\"0\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let oldest_of_empty = "tidemill_store_shard_oldest_timestamp_seconds{shard=\"1\"}";
    assert!(!metrics.contains(oldest_of_empty), "{metrics}");
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_read_from_the_past_and_as_they_come() {
    let dir = tempfile::tempdir().unwrap();
    let hub = start(dir.path(), RULES).await;
    for n in 0..3 {
        publish(&hub, if n == 1 { "t/b" } else { "t/a" }, &format!("{{\"n\":{n}}}")).await;
    }
    let text = ask(&hub, "/api/v1/records?filter=t/a&from=earliest").await.text().await.unwrap();
    let past: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let payloads: Vec<_> = past.iter().map(|record| record["payload"].as_str().unwrap()).collect();
    assert_eq!(payloads, [r#"{"n":0}"#, r#"{"n":2}"#], "everything that matches, in order");
    assert_eq!(
        (&past[0]["qos"], &past[0]["client"], &past[0]["retain"]),
        (&1.into(), &"c1".into(), &false.into())
    );
    let [next, position] = [&past[0]["next"], &past[1]["position"]].map(|place| place.as_str().unwrap());
    for (what, wanted) in
        [(format!("queue=router&from={next}"), "t/b"), (format!("filter=%23&from={next}"), "t/b")]
    {
        let limited = ask(&hub, &format!("/api/v1/records?{what}&limit=1")).await;
        assert_eq!(limited.headers()["tidemill-next"], next);
        let limited = limited.text().await.unwrap();
        assert!(limited.contains(wanted) && limited.lines().count() == 1, "{what}: {limited}");
    }
    let offset = u64::from_str_radix(position.split_once('-').unwrap().1, 16).unwrap();
    for from in [position, &offset.to_string()] {
        let rest = ask(&hub, &format!("/api/v1/records?filter=%23&from={from}")).await.text().await.unwrap();
        assert!(rest.contains(r#"{\"n\":2}"#) && rest.lines().count() == 1, "{from}: {rest}");
    }
    let time = past[1]["time"].as_str().unwrap();
    let since = ask(&hub, &format!("/api/v1/records?filter=t/a&from={time}")).await.text().await.unwrap();
    assert!(since.contains(r#"{\"n\":2}"#), "{since}");
    let future = ask(&hub, "/api/v1/records?filter=t/a&from=2126-01-01T00:00:00Z").await;
    assert_eq!(future.text().await.unwrap(), "");

    let mut live = ask(&hub, "/api/v1/records?filter=new/%2B&wait=20s&limit=1").await;
    publish(&hub, "new/x", "\u{1}").await;
    let line = live.chunk().await.unwrap().unwrap();
    let record: Value = serde_json::from_slice(&line).unwrap();
    assert_eq!((&record["topic"], &record["payload"]), (&"new/x".into(), &"\u{1}".into()));
    assert_eq!(live.chunk().await.unwrap(), None, "limit=1 ends it");

    // Nobody had asked for this topic before, and no rule reads it.
    let unread = ask(&hub, "/api/v1/records?filter=new/%23&from=earliest").await.text().await.unwrap();
    assert!(unread.contains("new/x") && unread.lines().count() == 1, "{unread}");
    let never = ask(&hub, "/api/v1/records?filter=never/seen&from=earliest").await;
    assert_eq!((never.status(), never.text().await.unwrap().as_str()), (StatusCode::OK, ""));
    let inside = format!("?filter=a&from={}", offset + 1);
    for bad in [
        "",
        "?filter=a&queue=b",
        "?filter=a%23&from=latest",
        "?filter=a&from=soon",
        "?filter=a&limt=1",
        "?filter=a&from=0-ffffffffffff",
        &inside,
    ] {
        let response = ask(&hub, &format!("/api/v1/records{bad}")).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{bad}");
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{bad}");
    }

    let mut live = ask(&hub, "/api/v1/records?filter=t/a&from=earliest&wait=20s").await;
    let end = hub.store().durable_ends()[0].to_string();
    let mut told = Vec::new();
    while told.iter().filter(|byte| **byte == b'\n').count() < 2 {
        told.extend(live.chunk().await.unwrap().unwrap());
    }
    let (rest, ()) = tokio::join!(live.text(), stop(hub));
    let rest = rest.unwrap();
    let last: Value = serde_json::from_str(&rest).unwrap_or_else(|error| panic!("{error}: {rest}"));
    let goes_on = last["next"].as_str().unwrap();
    assert!((past[1]["next"].as_str().unwrap()..=end.as_str()).contains(&goes_on), "{rest}");
    assert!(last["error"].as_str().unwrap().contains("stopping"), "{rest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_explained_whether_or_not_a_rule_has_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let hub = start(dir.path(), "{}").await;
    publish(&hub, "t/a", r#"{"temp":11,"unit":"C"}"#).await;
    publish(&hub, "t/a", r#"{"temp":9,"unit":"C"}"#).await;
    publish(&hub, "other", "x").await;
    hub.reload(config(dir.path(), RULES).rules, Duration::from_secs(5)).await.unwrap();
    publish(&hub, "t/a", r#"{"temp":12,"unit":"C"}"#).await;
    until_drained(&hub).await;
    let text = ask(&hub, "/api/v1/records?filter=%23&from=earliest").await.text().await.unwrap();
    let mut verdicts = Vec::new();
    for line in text.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let position = record["position"].as_str().unwrap();
        let told = json(&hub, &format!("/api/v1/explain?position={position}")).await;
        assert_eq!(told["record"]["payload"], record["payload"]);
        let rules = told["rules"].as_array().unwrap().iter();
        verdicts.push(rules.map(|rule| rule["verdict"].as_str().unwrap().to_owned()).collect::<Vec<_>>());
    }
    let wanted =
        [["earlier", "earlier"], ["pattern", "earlier"], ["filter", "filter"], ["matched", "matched"]];
    assert_eq!(verdicts, wanted);
    let nowhere = ask(&hub, "/api/v1/explain?position=0-000000000001").await;
    assert_eq!(nowhere.status(), StatusCode::NOT_FOUND);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let hub = start(dir.path(), RULES).await;
    publish(&hub, "t/a", r#"{"temp":11,"unit":"C"}"#).await;
    until_drained(&hub).await;
    let locked = Hub::start(config(dir.path(), RULES)).await.err();
    assert!(matches!(locked, Some(StartError::Store(_))), "the directory is in use");
    stop(hub).await;
    let hub = start(dir.path(), RULES).await;
    publish(&hub, "t/a", r#"{"temp":12,"unit":"C"}"#).await;
    until_drained(&hub).await;
    stop(hub).await;
    let temps: Vec<_> = lines(dir.path()).iter().filter_map(|event| event["data"]["temp"].as_u64()).collect();
    assert_eq!(temps, [11, 12]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_reloaded_and_removed_ones_cost_nothing_that_was_pending() {
    let dir = tempfile::tempdir().unwrap();
    // The file cannot be written: its folder is not there.
    let broken = RULES.replace("@DIR@/out.jsonl", "@DIR@/missing/out.jsonl");
    let hub = start(dir.path(), &broken).await;
    publish(&hub, "t/a", r#"{"temp":11,"unit":"C"}"#).await;
    let none = "{}";
    let names = |queues: &Value| -> Vec<String> {
        let queues = queues["queues"].as_array().unwrap().iter();
        queues.map(|queue| queue["name"].as_str().unwrap().to_owned()).collect()
    };
    until_routed(&hub).await;
    hub.reload(config(dir.path(), none).rules, Duration::from_secs(5)).await.unwrap();
    let queues = json(&hub, "/api/v1/queues").await;
    assert_eq!(names(&queues), ["router", "rule/hot", "rule/all"], "nothing undelivered is dropped");

    hub.reload(config(dir.path(), RULES).rules, Duration::from_secs(5)).await.unwrap();
    until_drained(&hub).await;
    assert_eq!(lines(dir.path()).len(), 2, "it goes on when the rules are back");
    hub.reload(config(dir.path(), none).rules, Duration::from_secs(5)).await.unwrap();
    let queues = json(&hub, "/api/v1/queues").await;
    assert_eq!(names(&queues), ["router"], "what has nothing pending goes by itself");
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_cannot_be_started_leave_the_old_ones_at_work() {
    let dir = tempfile::tempdir().unwrap();
    let hub = start(dir.path(), RULES).await;
    // Found good when it was read, and refused by the store all the same.
    let mut refused = config(dir.path(), RULES).rules;
    Arc::get_mut(&mut refused.set).unwrap().rules[0].filters = vec!["t/#/a".to_owned()];
    let kept = hub.reload(refused, Duration::from_secs(5)).await;
    assert!(matches!(kept, Err(ReloadError::Kept(_))), "{kept:?}");
    assert_eq!(ask(&hub, "/readyz").await.status(), StatusCode::OK);
    publish(&hub, "t/a", r#"{"temp":11,"unit":"C"}"#).await;
    until_drained(&hub).await;
    assert_eq!(lines(dir.path()).len(), 2);

    hub.store().close().await.unwrap();
    let stalled = hub.reload(config(dir.path(), RULES).rules, Duration::from_secs(5)).await;
    assert!(matches!(stalled, Err(ReloadError::Stalled { .. })), "{stalled:?}");
    let ready = ask(&hub, "/readyz").await;
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(ready.text().await.unwrap().contains("no rules are at work"));
    let rules = json(&hub, "/api/v1/rules").await;
    assert!(rules["router"]["error"].as_str().is_some_and(|error| error.contains("no rules")), "{rules}");
    assert_eq!(rules["rules"][0]["targets"][0]["state"], "stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_while_other_rules_fail_to_start_is_delivered_by_the_old_ones() {
    let dir = tempfile::tempdir().unwrap();
    // No cursor is written but where that is asked for.
    let rules = format!("{RULES}log: {{ checkpoint_interval: 1h }}\n");
    let hub = start(dir.path(), &rules).await;
    let other = rules.replace("t/", "u/").replace("name: all", "name: other");
    let filters = || async {
        let queues = hub.store().queues(None, 1).await.unwrap();
        queues.into_iter().next().unwrap().kind
    };
    let is_over = AtomicBool::new(false);
    let reload = async {
        // Of the two writes of the catalogue, the one after that of the union.
        let fault = fail_nth_queues(dir.path(), 2);
        let kept = hub.reload(config(dir.path(), &other).rules, Duration::from_secs(5)).await;
        assert!(fault.has_struck() && matches!(kept, Err(ReloadError::Kept(_))), "{kept:?}");
        is_over.store(true, Relaxed);
    };
    let publish = async {
        let mut count = 0;
        while !is_over.load(Relaxed) {
            publish(&hub, "t/a", r#"{"temp":1,"unit":"C"}"#).await;
            count += 1;
        }
        count
    };
    let (_, count) = tokio::join!(reload, publish);
    until_drained(&hub).await;
    assert_eq!(lines(dir.path()).len(), count);
    assert_eq!(filters().await, QueueKind::Union(vec!["t/#".into(), "t/+".into()]));
    hub.reload(config(dir.path(), &other).rules, Duration::from_secs(5)).await.unwrap();
    assert_eq!(filters().await, QueueKind::Union(vec!["u/#".into(), "u/+".into()]));
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_full_disk_the_hub_is_ready_although_nobody_publishes() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = small_disk::SmallDisk::mount(dir.path(), 128) else { return };
    let hub = start(dir.path(), "{}").await;
    disk.fill(8 << 20);
    let large = || {
        let properties = Properties::default().encode().unwrap();
        message::record("t/a".into(), properties, vec![b'x'; 100_000].into(), Qos::AtLeastOnce, false)
    };
    while hub.store().append(vec![large()]).await.is_ok() {}
    let ready = ask(&hub, "/readyz").await;
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    let text = ready.text().await.unwrap();
    assert!(text.contains("no space left"), "{text}");
    assert!(ask(&hub, "/metrics").await.text().await.unwrap().contains("tidemill_store_full 1"));

    disk.clear();
    let ready = async {
        while ask(&hub, "/readyz").await.status() != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ready).await.unwrap();
    hub.store().append(vec![large()]).await.unwrap();
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_api_does_not_have_is_a_problem_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let hub = start(dir.path(), "{}").await;
    let told = async |response: Response| -> (u16, String) {
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let status = response.status().as_u16();
        let problem: Value = response.json().await.unwrap();
        (status, format!("{} | {}", problem["error"], problem["hint"]))
    };
    let (status, unknown) = told(ask(&hub, "/nothing").await).await;
    assert!(status == 404 && unknown.contains("DELETE /api/v1/queues/{id}"), "{unknown}");
    let url = format!("http://{}/api/v1/rules", hub.http_address());
    let posted = reqwest::Client::new().post(url).send().await.unwrap();
    assert_eq!(posted.headers()["allow"], "GET,HEAD");
    let (status, posted) = told(posted).await;
    assert!(status == 405 && posted.contains("`/api/v1/rules` does not take POST"), "{posted}");
    let (status, query) = told(ask(&hub, "/api/v1/queues?limt=1").await).await;
    assert!(status == 400 && query.contains("unknown field `limt`, expected `after` or `limit`"), "{query}");
    assert!(query.contains("?name=value"), "{query}");
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn web_pages_of_other_sites_are_told_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let hub = start(dir.path(), "{}").await;
    let asked = async |hub: &Hub, method: &Method, path: &str, headers: &[(&str, &str)]| {
        let mut request =
            reqwest::Client::new().request(method.clone(), format!("http://{}{path}", hub.http_address()));
        for &(name, value) in headers {
            request = request.header(name, value);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let own = hub.http_address().to_string();
    let (rebound, page) = (("host", "evil.example:8080"), ("origin", "https://evil.example"));
    for (method, path) in [
        (Method::GET, "/healthz"),
        (Method::GET, "/api/v1/records?filter=%23&from=earliest"),
        (Method::DELETE, "/api/v1/clients/foo"),
        (Method::PUT, "/api/v1/clients/foo"),
        (Method::GET, "/nothing"),
    ] {
        let (status, told) = asked(&hub, &method, path, &[rebound]).await;
        assert!(
            status == 403 && told.contains("`Host: evil.example:8080` is not what"),
            "{method} {path}: {told}"
        );
        assert!(told.contains("ask for 127.0.0.1 or localhost"), "{told}");
        let (status, told) = asked(&hub, &method, path, &[page]).await;
        assert!(
            status == 403 && told.contains("`Origin: https://evil.example` is another"),
            "{method} {path}: {told}"
        );
    }
    let same = format!("http://{own}");
    for headers in [&[("host", "localhost")][..], &[("origin", &same)], &[]] {
        assert_eq!(asked(&hub, &Method::GET, "/healthz", headers).await.0, 200, "{headers:?}");
    }
    stop(hub).await;
    let hub = start(dir.path(), "http: { allow_anonymous: true }").await;
    assert_eq!(asked(&hub, &Method::GET, "/healthz", &[rebound]).await.0, 200);
    assert_eq!(asked(&hub, &Method::GET, "/healthz", &[rebound, page]).await.0, 403);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_of_a_removed_rule_can_be_dropped_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let broken = RULES.replace("@DIR@/out.jsonl", "@DIR@/missing/out.jsonl");
    let hub = start(dir.path(), &broken).await;
    publish(&hub, "t/a", r#"{"temp":11,"unit":"C"}"#).await;
    until_routed(&hub).await;
    let queues = json(&hub, "/api/v1/queues").await;
    let id = queues["queues"][1]["id"].as_u64().unwrap();
    let drop_it = || async {
        let url = format!("http://{}/api/v1/queues/{id}", hub.http_address());
        reqwest::Client::new().delete(url).send().await.unwrap().status()
    };
    assert_eq!(drop_it().await, StatusCode::CONFLICT);
    hub.reload(config(dir.path(), "{}").rules, Duration::from_secs(5)).await.unwrap();
    assert_eq!(drop_it().await, StatusCode::NO_CONTENT);
    assert_eq!(drop_it().await, StatusCode::NOT_FOUND);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_target_that_has_everything_leaves_no_cursor() {
    let dir = tempfile::tempdir().unwrap();
    let both = RULES.replace("to: [ { out: } ]", "to: [ { out: }, { out: { name: copy } } ]");
    let hub = start(dir.path(), &both).await;
    publish(&hub, "t/a", r#"{"temp":11,"unit":"C"}"#).await;
    until_drained(&hub).await;
    assert_eq!(lines(dir.path()).len(), 3);
    let owners = |queues: &Value| -> Vec<String> {
        let readers = queues["queues"][1]["readers"].as_array().unwrap().iter();
        readers.map(|reader| reader["owner"].as_str().unwrap().to_owned()).collect()
    };
    let mut before = owners(&json(&hub, "/api/v1/queues").await);
    before.sort_unstable();
    assert_eq!(before, ["target/hot/copy", "target/hot/out"]);
    hub.reload(config(dir.path(), RULES).rules, Duration::from_secs(5)).await.unwrap();
    assert_eq!(owners(&json(&hub, "/api/v1/queues").await), ["target/hot/out"]);
    // Back again, it begins now: what the rule matched before has been delivered.
    hub.reload(config(dir.path(), &both).rules, Duration::from_secs(5)).await.unwrap();
    publish(&hub, "t/a", r#"{"temp":12,"unit":"C"}"#).await;
    until_drained(&hub).await;
    assert_eq!(lines(dir.path()).len(), 6);
    stop(hub).await;
}
