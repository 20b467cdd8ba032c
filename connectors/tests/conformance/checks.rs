//! The checks.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidemill_connectors::{Fault, Follow, OutEvent, SendError, Sink};

use crate::bench::{Bench, Published, load};
use crate::subject::{LARGE, Received, Subject};

/// Longest time a failing send may take: the timeouts of connections are 10 s, those of requests 5 s.
const FAILURE_LIMIT: Duration = Duration::from_secs(15);

/// All checks, each on a subject of its own.
pub(crate) async fn all<S: Subject>(mut subject: impl AsyncFnMut() -> S) {
    configuration_is_checked(&subject().await);
    says_where_it_goes_and_no_secret(&subject().await);
    nothing_to_send_is_nothing_sent(&mut subject().await).await;
    every_event_arrives_whole(&mut subject().await).await;
    events_of_a_key_stay_in_order(&mut subject().await).await;
    nobody_there_is_a_retry_soon(&subject().await).await;
    what_is_missing_is_told_and_nothing_given_up(&subject().await).await;
    an_event_too_large_is_given_up_alone(&mut subject().await).await;
    an_outage_loses_and_reorders_nothing(&mut subject().await).await;
}

fn configuration_is_checked(subject: &impl Subject) {
    let kind = subject.kind();
    let target = &subject.targets()[0];
    for (connection, target) in [
        ("{ surely_unknown: 1 }", target.as_str()),
        (&subject.connection(), "{ surely_unknown: 1 }"),
        ("just text", target.as_str()),
    ] {
        let problems =
            load(kind, connection, target).err().unwrap_or_else(|| panic!("{kind}: {connection} {target}"));
        assert!(
            problems.iter().all(|problem| problem.line > 0 && !problem.message.is_empty()),
            "{problems:?}"
        );
    }
}

fn says_where_it_goes_and_no_secret(subject: &impl Subject) {
    let bench = Bench::new(subject.kind(), &subject.nowhere(), &subject.targets()[0]);
    let description = bench.target.describe();
    assert!(description.starts_with(subject.kind()), "{description}");
    assert!(!description.contains("hunter2"), "{description}");
    let max = bench.target.batch_max();
    assert!(max.events > 0 && max.bytes > 0);
}

async fn nothing_to_send_is_nothing_sent(subject: &mut impl Subject) {
    let bench = Bench::new(subject.kind(), &subject.connection(), &subject.targets()[0]);
    assert_eq!(bench.sink().send(&[]).await, []);
}

async fn every_event_arrives_whole(subject: &mut impl Subject) {
    let payloads: [(Option<&str>, &[u8]); 6] = [
        (Some("application/json"), b"{\"temp_c\":121.5}"),
        (Some("application/json"), b"[1,{\n\"a\":null}]"),
        (Some("text/plain"), "grün \"€\"\n".as_bytes()),
        (Some("application/octet-stream"), b"\x00\xff\r\n\"\\"),
        (None, b"\x01not json"),
        (Some("application/json"), b""),
    ];
    let published: Vec<_> = payloads
        .iter()
        .enumerate()
        .map(|(n, (media_type, payload))| Published {
            id: format!("whole-{n}"),
            key: format!("grün {n} \"€\""),
            media_type: media_type.map(str::to_owned),
            payload: Bytes::copy_from_slice(payload),
        })
        .collect();
    for target in subject.targets() {
        let bench = Bench::new(subject.kind(), &subject.connection(), &target);
        let mut sink = bench.sink();
        sink.probe().await.unwrap_or_else(|error| panic!("{target}: {error}"));
        let events = bench.events(&published);
        let outcomes = sink.send(&events).await;
        assert!(outcomes.iter().all(Result::is_ok), "{target}: {outcomes:?}");
        assert_eq!(outcomes.len(), events.len());
        let mut received = subject.received(events.len()).await;
        received.sort_by(|a, b| a.id().cmp(b.id()));
        assert_eq!(received.len(), events.len(), "{target}");
        for (received, event) in received.iter().zip(&events) {
            assert_same(received, event, &target);
        }
    }
}

fn assert_same(received: &Received, sent: &OutEvent, target: &str) {
    let event = &sent.event;
    let mut expected = BTreeMap::from([
        ("specversion".to_owned(), "1.0".to_owned()),
        ("id".to_owned(), event.id.clone()),
        ("source".to_owned(), event.source.clone()),
        ("type".to_owned(), event.ty.clone()),
        ("time".to_owned(), "2024-02-29T12:34:56.789Z".to_owned()),
    ]);
    expected.extend(event.subject.clone().map(|text| ("subject".to_owned(), text)));
    let mut attributes = received.attributes.clone();
    let media_type = attributes.remove("datacontenttype");
    for (name, value) in &expected {
        assert_eq!(attributes.get(name), Some(value), "{target}: {received:?}");
    }
    // In the JSON format bytes without a media type are named for what they are.
    let octets = event.datacontenttype.is_none() && media_type.as_deref() == Some("application/octet-stream");
    assert!(media_type == event.datacontenttype || octets, "{target}: {received:?}");
    let data = event.data.clone().unwrap_or_default();
    let json = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).ok();
    assert!(
        received.data == data || json(&data).is_some_and(|sent| json(&received.data) == Some(sent)),
        "{received:?}"
    );
}

async fn events_of_a_key_stay_in_order(subject: &mut impl Subject) {
    const KEYS: usize = 7;
    for target in subject.targets() {
        let bench = Bench::new(subject.kind(), &subject.connection(), &target);
        let mut sink = bench.sink();
        let mut sent = Vec::new();
        for batch in 0..5 {
            let published: Vec<_> = (0..60)
                .map(|n| Published::json(format!("{batch}-{n:02}"), format!("k{}", (n * n + batch) % KEYS)))
                .collect();
            let outcomes = sink.send(&bench.events(&published)).await;
            assert!(outcomes.iter().all(Result::is_ok), "{target}: {outcomes:?}");
            sent.extend(published);
        }
        let received = subject.received(sent.len()).await;
        assert_eq!(ids_by_key(&received), sent_by_key(&sent), "{target}");
    }
}

fn sent_by_key(sent: &[Published]) -> BTreeMap<String, Vec<String>> {
    let mut by_key: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for published in sent {
        by_key.entry(published.key.clone()).or_default().push(published.id.clone());
    }
    by_key
}

/// Identities by key, without those that came before: what a reader that drops duplicates sees.
fn ids_by_key(received: &[Received]) -> BTreeMap<String, Vec<String>> {
    let mut by_key: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for received in received {
        let ids = by_key.entry(received.key().to_owned()).or_default();
        if !ids.iter().any(|id| id == received.id()) {
            ids.push(received.id().to_owned());
        }
    }
    by_key
}

async fn nobody_there_is_a_retry_soon(subject: &impl Subject) {
    let bench = Bench::new(subject.kind(), &subject.nowhere(), &subject.targets()[0]);
    let published: Vec<_> =
        (0..100).map(|n| Published::json(format!("n-{n}"), format!("k{}", n % 50))).collect();
    let mut sink = bench.sink();
    for _ in 0..2 {
        let started = Instant::now();
        let outcomes = sink.send(&bench.events(&published)).await;
        assert!(started.elapsed() < FAILURE_LIMIT, "{}: took {:?}", subject.kind(), started.elapsed());
        assert_eq!(outcomes.len(), published.len());
        for outcome in &outcomes {
            assert_told(outcome.as_ref().unwrap_err(), subject.kind());
        }
    }
    let started = Instant::now();
    assert_told(&sink.probe().await.unwrap_err(), subject.kind());
    assert!(started.elapsed() < FAILURE_LIMIT, "{}: probe took {:?}", subject.kind(), started.elapsed());
}

/// A failure of the way to the destination, that names the connection and no secret.
fn assert_told(error: &SendError, kind: &str) {
    // A folder that is not there is nobody's fault but ours, and the same for all events.
    let follow = if kind == "file" { Follow::Stop } else { Follow::Retry };
    assert_eq!(error.follow, follow, "{error:?}");
    assert!(error.message.contains("connection `subject`"), "{error:?}");
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
}

async fn what_is_missing_is_told_and_nothing_given_up(subject: &impl Subject) {
    let Some((connection, target)) = subject.missing() else { return };
    let bench = Bench::new(subject.kind(), &connection, &target);
    let published: Vec<_> = (0..10).map(|n| Published::json(format!("m-{n}"), "k")).collect();
    let outcomes = bench.sink().send(&bench.events(&published)).await;
    for outcome in &outcomes {
        let error = outcome.as_ref().unwrap_err();
        assert_eq!((error.follow, error.fault), (Follow::Stop, Fault::Ours), "{error:?}");
    }
}

async fn an_event_too_large_is_given_up_alone(subject: &mut impl Subject) {
    let Some(target) = subject.narrow() else { return };
    let bench = Bench::new(subject.kind(), &subject.connection(), &target);
    let mut published: Vec<_> =
        (0..9).map(|n| Published::json(format!("s-{n}"), format!("k{}", n % 2))).collect();
    published[4].payload = format!("\"{}\"", "x".repeat(LARGE)).into();
    let outcomes = bench.sink().send(&bench.events(&published)).await;
    for (n, outcome) in outcomes.iter().enumerate() {
        match outcome {
            Ok(()) => assert_ne!(n, 4),
            Err(error) => {
                assert_eq!((n, error.follow, error.fault), (4, Follow::GiveUp, Fault::Event), "{error:?}")
            }
        }
    }
    published.remove(4);
    let received = subject.received(published.len()).await;
    assert_eq!(ids_by_key(&received), sent_by_key(&published));
}

/// Sends as the hub does: what was not confirmed goes again, before what stands behind it.
async fn an_outage_loses_and_reorders_nothing(subject: &mut impl Subject) {
    let bench = Bench::new(subject.kind(), &subject.connection(), &subject.targets()[0]);
    let mut sink = bench.sink();
    let published: Vec<_> =
        (0..400).map(|n| Published::json(format!("o-{n:03}"), format!("k{}", n % 11))).collect();
    let events = bench.events(&published);
    let (first, rest) = events.split_at(100);
    assert_eq!(send_until_confirmed(&mut sink, first, 1).await, 1, "before the outage");
    if !subject.take_away().await {
        return;
    }
    let failed = sink.send(&rest[..100]).await;
    assert_held_back(&rest[..100], &failed);
    assert!(failed.iter().all(|outcome| outcome.as_ref().is_err_and(SendError::holds_back)), "{failed:?}");
    let unconfirmed = rest.to_vec();
    subject.bring_back().await;
    let attempts = send_until_confirmed(&mut sink, &unconfirmed, 60).await;
    assert!(attempts <= 60, "still not confirmed");
    let received = subject.received(published.len()).await;
    assert_eq!(ids_by_key(&received), sent_by_key(&published));
}

/// Sends until everything is confirmed; the attempts that took.
async fn send_until_confirmed(sink: &mut Box<dyn Sink>, events: &[OutEvent], attempts_max: usize) -> usize {
    let mut events = events.to_vec();
    for attempt in 1..=attempts_max {
        let outcomes = sink.send(&events).await;
        assert_held_back(&events, &outcomes);
        let mut outcomes = outcomes.into_iter();
        events.retain(|_| outcomes.next().is_none_or(|outcome| outcome.is_err()));
        if events.is_empty() {
            return attempt;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    attempts_max + 1
}

/// After the first event of a key that will be tried again none of that key is confirmed.
fn assert_held_back(events: &[OutEvent], outcomes: &[Result<(), SendError>]) {
    let mut held = std::collections::HashSet::new();
    for (event, outcome) in events.iter().zip(outcomes) {
        match outcome {
            Ok(()) => assert!(!held.contains(&event.order_key), "{} overtook", event.event.id),
            Err(error) if error.holds_back() => {
                held.insert(event.order_key);
            }
            Err(_) => {}
        }
    }
}
