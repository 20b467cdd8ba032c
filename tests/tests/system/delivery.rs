//! Targets that refuse, fail or are away: dead letters for what cannot be delivered, lag for what cannot be yet.

use std::time::Duration;

use axum::http::StatusCode;
use tidemill_tests::mqtt::{Client, Connect, Publish};
use tidemill_tests::services::tidemill::api::{DeadLetter, DeadLetters};
use tidemill_tests::services::{HttpFunction, Tidemill};
use tidemill_tests::{report, wait};

const LIMIT: Duration = Duration::from_secs(60);
const MESSAGES: usize = 200;

/// One rule with a target for each of these paths, all over connections of their own.
fn rules(function: &HttpFunction, targets: &[(&str, &str)]) -> String {
    let connections: String = targets
        .iter()
        .map(|(name, _)| {
            format!("  {name}: {{ http: {{ url: \"{}\" }} }}\n", function.url(&format!("/{name}")))
        })
        .collect();
    let to: String = targets.iter().map(|(name, body)| format!("      - {name}: {body}\n")).collect();
    format!(
        "connections:\n{connections}rules:\n  - name: all\n    from: {{ mqtt: [\"things/+\"] }}\n    \
         event: {{ type: com.example.thing, source: \"/things/{{{{ topic[1] }}}}\" }}\n    to:\n{to}"
    )
}

async fn publish(hub: &Tidemill, messages: std::ops::Range<usize>) {
    let mut client = Client::connect(hub.mqtt(), &Connect::clean("publisher")).await;
    for number in messages {
        client.publish_acked(Publish::new(format!("things/{}", number % 7), number.to_string(), 1, 1)).await;
    }
}

/// Bodies as the numbers they are, in the order they were accepted.
fn numbers(function: &HttpFunction, path: &str) -> Vec<usize> {
    let accepted = function.accepted(path);
    accepted.iter().map(|request| std::str::from_utf8(&request.body).unwrap().parse().unwrap()).collect()
}

/// Whether each thing's messages are in order.
fn in_order(numbers: &[usize]) -> bool {
    (0..7).all(|thing| numbers.iter().filter(|number| **number % 7 == thing).is_sorted())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_function_refuses_is_a_dead_letter_and_the_rest_arrives() {
    let function = HttpFunction::start().await;
    let unlucky = |number: usize| number % 20 == 13;
    function.answer("/picky", move |request| {
        let number: usize = std::str::from_utf8(&request.body).unwrap().parse().unwrap();
        if unlucky(number) { StatusCode::BAD_REQUEST } else { StatusCode::NO_CONTENT }
    });
    let mut hub = Tidemill::start(&rules(&function, &[("picky", "{}"), ("easy", "{}")])).await;
    publish(&hub, 0..MESSAGES).await;
    hub.until_delivered(LIMIT).await;

    let refused: Vec<usize> = (0..MESSAGES).filter(|number| unlucky(*number)).collect();
    let delivered = numbers(&function, "/picky");
    let mut sorted = delivered.clone();
    sorted.sort_unstable();
    assert!(sorted.into_iter().eq((0..MESSAGES).filter(|number| !unlucky(*number))), "{delivered:?}");
    assert!(in_order(&delivered), "{delivered:?}");
    assert_eq!(numbers(&function, "/easy").len(), MESSAGES);
    let tries = function.received("/picky").len();
    assert_eq!(tries, MESSAGES, "a refusal is final: nothing was tried again");
    assert_eq!(dead_letters(&hub, "picky").await, refused);
    assert_eq!(hub.target("all", "easy").await.dead_letters, 0);
    let counted = hub.metrics().await.sum("tidemill_delivery_dead_letters", &[("target", "picky")]);
    assert_eq!(counted, Some(refused.len() as f64));

    // A stop and a start change nothing about them.
    assert!(hub.terminate().await.success());
    hub.start_again().await;
    hub.until_delivered(LIMIT).await;
    assert_eq!(dead_letters(&hub, "picky").await, refused);
    assert_eq!(function.received("/picky").len(), MESSAGES, "what was given up is not tried again");

    // A kill loses none. What was given up just before it may be tried and given up once more, and is one dead letter.
    publish(&hub, MESSAGES..MESSAGES + 100).await;
    hub.until_delivered(LIMIT).await;
    hub.kill();
    hub.start_again().await;
    hub.until_delivered(LIMIT).await;
    let refused: Vec<usize> = (0..MESSAGES + 100).filter(|number| unlucky(*number)).collect();
    assert_eq!(dead_letters(&hub, "picky").await, refused);
    report!(
        "delivery",
        "{} messages refused with 400: all are dead letters, once, also after a kill",
        refused.len()
    );
}

/// The dead letters of a target as the numbers that their payloads are, sorted.
async fn dead_letters(hub: &Tidemill, target: &str) -> Vec<usize> {
    let letters: DeadLetters =
        hub.json(&format!("/api/v1/dead-letters?rule=all&target={target}&limit=500")).await;
    assert_eq!(letters.count as usize, letters.dead_letters.len());
    assert_eq!(letters.count, hub.target("all", target).await.dead_letters);
    let number = |letter: &DeadLetter| {
        assert!(letter.error.contains("400"), "{letter:?}");
        assert_eq!(letter.attempts, 1, "{letter:?}");
        letter.record.as_ref().unwrap().payload.as_ref().unwrap().parse().unwrap()
    };
    let mut numbers: Vec<usize> = letters.dead_letters.iter().map(number).collect();
    numbers.sort_unstable();
    numbers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_is_down_is_lag_and_holds_up_nobody_else() {
    let function = HttpFunction::start().await;
    function.answer_all("/down", StatusCode::SERVICE_UNAVAILABLE);
    let hub = Tidemill::start(&rules(&function, &[("down", "{}"), ("up", "{}")])).await;
    publish(&hub, 0..MESSAGES).await;
    function.until_accepted("/up", MESSAGES, LIMIT).await;
    let retrying = wait::until("the target to be retrying", LIMIT, async || {
        Some(hub.target("all", "down").await)
            .filter(|target| target.state == "retrying" && target.retries > 0)
    });
    let down = retrying.await;
    assert_eq!((down.lag, down.dead_letters), (MESSAGES as u64, 0));
    assert!(down.last_error.as_ref().is_some_and(|error| error.contains("503")), "{down:?}");
    let lag =
        hub.metrics().await.sum("tidemill_delivery_lag_entries", &[("rule", "all"), ("target", "down")]);
    assert_eq!(lag, Some(MESSAGES as f64));

    function.answer_all("/down", StatusCode::OK);
    hub.until_delivered(LIMIT).await;
    let mut delivered = numbers(&function, "/down");
    assert!(in_order(&delivered), "{delivered:?}");
    delivered.sort_unstable();
    assert!(delivered.into_iter().eq(0..MESSAGES), "each message was accepted once");
    assert_eq!(hub.target("all", "down").await.state, "running");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_end_when_the_rule_says_so() {
    let function = HttpFunction::start().await;
    function.answer_all("/never", StatusCode::INTERNAL_SERVER_ERROR);
    let hub = Tidemill::start(&rules(
        &function,
        &[("never", "{ retry: { attempts: 3, first: 20ms, max: 40ms } }")],
    ))
    .await;
    publish(&hub, 0..3).await;
    hub.until_delivered(LIMIT).await;
    assert_eq!(hub.target("all", "never").await.dead_letters, 3);
    for number in 0..3 {
        let tries =
            function.received("/never").iter().filter(|request| request.body == number.to_string()).count();
        assert_eq!(tries, 3, "message {number}");
    }
}
