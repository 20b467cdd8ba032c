//! What follows from a function's answers.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tidemill_connectors::{Follow, SendError};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::server::{Answer, Seen, Server};
use crate::bench::{Bench, Published};

type Outcome = Result<(), SendError>;

fn id(seen: &Seen) -> &str {
    seen.events.first().map_or("", |event| event.id())
}

fn published(count: usize, keys: usize) -> Vec<Published> {
    (0..count).map(|n| Published::json(format!("e-{n:03}"), format!("k{}", n % keys))).collect()
}

fn bench(server: &Server, target: &str) -> Bench {
    Bench::new("http", &format!("{{ url: \"http://{}/f\" }}", server.address), target)
}

async fn send(bench: &Bench, published: &[Published]) -> Vec<Outcome> {
    bench.sink().send(&bench.events(published)).await
}

fn follows(outcomes: &[Outcome]) -> Vec<Option<Follow>> {
    outcomes.iter().map(|outcome| outcome.as_ref().err().map(|error| error.follow)).collect()
}

#[tokio::test]
async fn a_failed_event_holds_back_its_key_and_no_other() {
    let server = Server::start().await;
    server.script(|seen| Answer::status(if id(seen) == "e-003" { 500 } else { 200 }));
    let outcomes = send(&bench(&server, "{ }"), &published(12, 3)).await;
    let failed: Vec<_> = (0..12).filter(|n| outcomes[*n].is_err()).collect();
    assert_eq!(failed, [3, 6, 9]);
    assert_eq!(outcomes[9], outcomes[3]);
    let seen = server.seen();
    assert!(!seen.iter().any(|seen| matches!(id(seen), "e-006" | "e-009")), "sent behind a failure");
    assert_eq!(seen.len(), 10);
}

#[tokio::test]
async fn an_event_refused_for_good_holds_nothing_back() {
    let server = Server::start().await;
    server.script(|seen| {
        let mut answer = Answer::status(if id(seen) == "e-003" { 422 } else { 202 });
        answer.body = format!("no\r\n{}", "such thing ".repeat(1_000));
        answer
    });
    let outcomes = send(&bench(&server, "{ }"), &published(12, 3)).await;
    let error = outcomes[3].clone().unwrap_err();
    assert_eq!(error.follow, Follow::GiveUp);
    assert!(error.message.contains("422 Unprocessable Entity: no such thing") && error.message.len() < 400);
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 11);
}

#[tokio::test]
async fn a_request_to_wait_is_passed_on_and_ends_the_batch() {
    let server = Server::start().await;
    server.script(|_| Answer { headers: vec![("retry-after", "17".to_owned())], ..Answer::status(429) });
    let outcomes = send(&bench(&server, "{ concurrency: 2 }"), &published(100, 100)).await;
    for outcome in &outcomes {
        let error = outcome.as_ref().unwrap_err();
        assert_eq!((error.follow, error.retry_after), (Follow::Retry, Some(Duration::from_secs(17))));
    }
    assert!(server.seen().len() <= 4, "asked again after it was told to wait");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (server, other) = (Server::start().await, Server::start().await);
    let elsewhere = format!("http://{}/there?token=hunter2", other.address);
    server.script(move |_| Answer { headers: vec![("location", elsewhere.clone())], ..Answer::status(307) });
    let outcomes = send(&bench(&server, "{ }"), &published(1, 1)).await;
    let error = outcomes[0].clone().unwrap_err();
    assert_eq!(error.follow, Follow::Stop);
    assert!(
        error.message.contains("/there; redirects are not followed") && !error.message.contains("hunter2")
    );
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn silence_ends_in_bounded_time() {
    let server = Server::start().await;
    server.script(|_| Answer { wait: Duration::from_secs(30), ..Answer::status(200) });
    let started = Instant::now();
    let outcomes = send(&bench(&server, "{ timeout: 300ms, concurrency: 4 }"), &published(64, 64)).await;
    assert!(
        outcomes.iter().all(|outcome| outcome.as_ref().is_err_and(|error| error.follow == Follow::Retry))
    );
    // Without the breaker: 64 events, 4 at once, 300 ms each = 4.8 s.
    assert!(started.elapsed() < Duration::from_millis(2_400), "{:?}", started.elapsed());
}

#[tokio::test]
async fn one_slow_event_does_not_end_the_batch() {
    let server = Server::start().await;
    server.script(|seen| {
        let wait = Duration::from_millis(if id(seen) == "e-000" { 30_000 } else { 0 });
        Answer { wait, ..Answer::status(200) }
    });
    let outcomes = send(&bench(&server, "{ timeout: 300ms, concurrency: 2 }"), &published(40, 40)).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_err()).count(), 1);
    assert!(outcomes[0].is_err());
}

#[tokio::test]
async fn no_more_requests_than_allowed_run_at_once() {
    let server = Server::start().await;
    server.script(|_| Answer { wait: Duration::from_millis(5), ..Answer::status(200) });
    assert!(send(&bench(&server, "{ concurrency: 3 }"), &published(48, 48)).await.iter().all(Result::is_ok));
    assert_eq!(server.running_max(), 3);
}

#[tokio::test]
async fn a_refused_document_is_taken_apart() {
    let server = Server::start().await;
    server.script(|seen| {
        let bad = |id: &str| matches!(id, "e-007" | "e-008" | "e-031");
        Answer::status(if seen.events.iter().any(|event| bad(event.id())) { 400 } else { 200 })
    });
    let outcomes = send(&bench(&server, "{ mode: batched }"), &published(40, 4)).await;
    let failed: Vec<_> = (0..40).filter(|n| outcomes[*n].is_err()).collect();
    assert_eq!(failed, [7, 8, 31]);
    assert!(failed.iter().all(|n| follows(&outcomes)[*n] == Some(Follow::GiveUp)));
    let ids: Vec<_> = server.taken().iter().map(|event| event.id().to_owned()).collect();
    let expected: Vec<_> = (0..40).filter(|n| !failed.contains(n)).map(|n| format!("e-{n:03}")).collect();
    assert_eq!(ids, expected, "each once, and in order");
    assert!(server.seen().len() < 40);
}

#[tokio::test]
async fn a_document_that_fails_holds_back_what_follows() {
    let server = Server::start().await;
    server.script(|seen| {
        Answer::status(if seen.events.iter().any(|event| event.id() == "e-025") { 503 } else { 200 })
    });
    let outcomes = send(&bench(&server, "{ mode: batched, batch_max: 10 }"), &published(40, 4)).await;
    assert!(outcomes[..20].iter().all(Result::is_ok));
    assert!(follows(&outcomes[20..]).iter().all(|follow| *follow == Some(Follow::Retry)));
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn an_address_made_from_the_event_is_the_event_s() {
    let server = Server::start().await;
    server.script(|seen| Answer::status(if seen.path == "/f/k1" { 404 } else { 200 }));
    let outcomes = send(&bench(&server, "{ path: \"{{ topic[1] }}\" }"), &published(4, 2)).await;
    assert_eq!(follows(&outcomes), [None, Some(Follow::GiveUp), None, Some(Follow::GiveUp)]);
}

#[tokio::test]
async fn a_secret_from_a_file_is_read_again_after_a_refusal() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "old\n").unwrap();
    server.script(|seen| {
        let good = seen.headers.get("authorization").is_some_and(|value| value == "Bearer new");
        Answer::status(if good { 200 } else { 401 })
    });
    let connection = format!(
        "{{ url: \"http://{}\", headers: {{ authorization: \"Bearer ${{file:{}}}\" }} }}",
        server.address,
        path.display()
    );
    let bench = Bench::new("http", &connection, "{ }");
    let mut sink = bench.sink();
    let events = bench.events(&published(1, 1));
    let error = sink.send(&events).await.remove(0).unwrap_err();
    assert_eq!(error.follow, Follow::Stop);
    assert!(!error.message.contains("old"), "{error:?}");
    std::fs::write(&path, "new\n").unwrap();
    assert_eq!(sink.send(&events).await, [Ok(())]);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(sink.send(&events).await, [Ok(())], "known until it is refused");
}

#[tokio::test]
async fn a_connection_lost_in_the_middle_is_a_retry() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let breaking = tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-le").await;
        }
    });
    let bench = Bench::new("http", &format!("{{ url: \"http://{address}\" }}"), "{ }");
    assert_eq!(follows(&send(&bench, &published(3, 1)).await), [Some(Follow::Retry); 3]);
    breaking.abort();
}

#[tokio::test]
async fn attempts_follow_the_script() {
    let server = Server::start().await;
    let attempts: Mutex<HashMap<String, u16>> = Mutex::default();
    server.script(move |seen| {
        let mut attempts = attempts.lock().unwrap();
        let attempt = attempts.entry(id(seen).to_owned()).or_default();
        *attempt += 1;
        Answer::status(if *attempt < 3 { 500 + *attempt } else { 200 })
    });
    let bench = bench(&server, "{ }");
    let events = bench.events(&published(1, 1));
    let mut sink = bench.sink();
    let outcomes = [sink.send(&events).await, sink.send(&events).await, sink.send(&events).await];
    let statuses = outcomes.map(|mut outcomes| match outcomes.remove(0) {
        Ok(()) => "200".to_owned(),
        Err(error) => error.message.split(": ").last().unwrap_or_default().to_owned(),
    });
    assert_eq!(statuses, ["501 Not Implemented", "502 Bad Gateway", "200"]);
}
