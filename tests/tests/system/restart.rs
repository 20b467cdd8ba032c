//! A graceful stop and a start in place: sessions, retained messages, lag, dead letters and rules go on where they were.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::StatusCode;
use tidemill_tests::mqtt::{Client, Connect, Level, Packet, Publish};
use tidemill_tests::report;
use tidemill_tests::services::tidemill::api::Queue;
use tidemill_tests::services::{HttpFunction, Tidemill};

const LIMIT: Duration = Duration::from_secs(60);
const MESSAGES: u32 = 300;
/// Messages that the sessions have acknowledged before the stop.
const DONE: u32 = 100;

fn rules(function: &HttpFunction) -> String {
    let (up, down) = (function.url("/up"), function.url("/down"));
    format!(
        r#"
connections:
  up: {{ http: {{ url: "{up}" }} }}
  down: {{ http: {{ url: "{down}" }} }}
rules:
  - name: things
    from: {{ mqtt: ["things/+"] }}
    event: {{ type: com.example.thing, source: "/things/{{{{ topic[1] }}}}" }}
    to: [ up: {{}}, down: {{}} ]
"#
    )
}

fn sessions() -> Vec<Connect> {
    let old = Connect::persistent("session-311").level(Level::V311);
    vec![Connect::persistent("session-5"), old]
}

/// Receives the messages numbered `numbers`, in order and each once; acknowledges them. Some may have been on their way to the
/// session when it left, so the DUP flag is as it may be.
async fn receive(client: &mut Client, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let arrived = client.message().await;
        assert_eq!(arrived.payload, number.to_string());
    }
}

/// Ends of queues and places of cursors by name. Numbers of queues and the order of the answer are the hub's own business.
fn places(queues: &[Queue]) -> BTreeMap<String, (u64, u64, BTreeMap<String, u64>)> {
    let place = |queue: &Queue| {
        let readers = queue.readers.iter().map(|reader| (reader.owner.clone(), reader.cursor)).collect();
        (queue.name.clone(), (queue.first, queue.end, readers))
    };
    queues.iter().map(place).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_goes_on_where_it_was() {
    let function = HttpFunction::start().await;
    function.answer_all("/down", StatusCode::SERVICE_UNAVAILABLE);
    let mut hub = Tidemill::start(&rules(&function)).await;
    for session in sessions() {
        let mut client = Client::connect(hub.mqtt(), &session).await;
        client.subscribe(&[("things/#", 1)]).await;
        client.disconnect().await;
    }
    let mut publisher = Client::connect(hub.mqtt(), &Connect::clean("publisher")).await;
    publisher.publish_acked(Publish::new("state/door", "open", 1, 1).retained()).await;
    publisher.publish_acked(Publish::new("state/window", "open", 1, 1).retained()).await;
    publisher.publish_acked(Publish::new("state/window", "", 1, 1).retained()).await;
    for number in 0..MESSAGES {
        publisher
            .publish_acked(Publish::new(format!("things/{}", number % 5), number.to_string(), 1, 1))
            .await;
    }
    for session in sessions() {
        let mut client = Client::connect(hub.mqtt(), &session).await;
        receive(&mut client, 0..DONE).await;
        client.disconnect().await;
    }
    // One that is connected when the hub stops; it has acknowledged all, so it is owed nothing.
    let mut connected = Client::connect(hub.mqtt(), &Connect::persistent("connected")).await;
    connected.subscribe(&[("later/#", 1)]).await;
    function.until_accepted("/up", MESSAGES as usize, LIMIT).await;
    let up = async |hub: &Tidemill| {
        (hub.target("things", "up").await.cursor, hub.target("things", "down").await.lag)
    };
    tidemill_tests::wait::until_eq("the cursors", LIMIT, (300, 300), async || up(&hub).await).await;
    let before = places(&hub.queues().await);

    let began = std::time::Instant::now();
    let status = hub.terminate().await;
    assert!(status.success(), "after SIGTERM: {status}");
    let stopped = began.elapsed();
    let packets = connected.reader.until_closed().await;
    assert_eq!(packets, [Packet::Disconnect { reason: 0x8b }], "Server Shutting Down");
    hub.start_again().await;
    report!("restart", "stopped in {stopped:.1?}, ready again {:.1?} after SIGTERM", began.elapsed());

    let after = places(&hub.queues().await);
    assert_eq!(before, after, "queues, their offsets and their cursors");
    assert_eq!(up(&hub).await, (300, 300), "the targets' cursor and lag");
    for session in sessions() {
        let mut client = Client::connect(hub.mqtt(), &session).await;
        assert!(client.session_present, "{} is gone", session.client);
        receive(&mut client, DONE..MESSAGES).await;
        client.nothing_comes().await;
        client.disconnect().await;
    }
    let mut late = Client::connect(hub.mqtt(), &Connect::clean("late")).await;
    late.subscribe(&[("state/#", 1)]).await;
    let retained = late.message().await;
    assert_eq!((retained.topic.as_str(), retained.retain), ("state/door", true));
    assert_eq!(retained.payload, "open");
    late.nothing_comes().await;

    // Rules are at work again, and nothing that was delivered before is delivered again.
    let mut publisher = Client::connect(hub.mqtt(), &Connect::clean("publisher")).await;
    publisher.publish_acked(Publish::new("things/1", "300", 1, 1)).await;
    publisher.publish_acked(Publish::new("later/1", "x", 1, 1)).await;
    function.answer_all("/down", StatusCode::OK);
    hub.until_delivered(LIMIT).await;
    for path in ["/up", "/down"] {
        let accepted = function.accepted(path);
        let mut bodies: Vec<u32> = accepted
            .iter()
            .map(|request| std::str::from_utf8(&request.body).unwrap().parse().unwrap())
            .collect();
        bodies.sort_unstable();
        assert!(bodies.into_iter().eq(0..=MESSAGES), "{path}: each message was to be accepted once");
    }
    let mut connected = Client::connect(hub.mqtt(), &Connect::persistent("connected")).await;
    assert!(connected.session_present);
    assert_eq!(connected.message().await.topic, "later/1");
}
