//! Sources of authentication that change, and who came by them.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::StatusCode;
use serde_json::json;
use tidemill_tests::mqtt::{Client, Connect, Packet, Publish};
use tidemill_tests::services::{HttpFunction, Tidemill};
use tidemill_tests::wait;

use super::tokens::{Signer, publish_keys};
use super::{LIMIT, connack, hub};

async fn is_cut(mut client: Client) {
    assert_eq!(client.reader.until_closed().await, [Packet::Disconnect { reason: 0x87 }]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_an_endpoint_let_in_goes_with_the_endpoint() {
    let server = HttpFunction::start().await;
    server.reply("/ask", |_| (StatusCode::OK, "{\"allow\": true}".into()));
    server.reply("/other", |_| (StatusCode::OK, "{\"allow\": true}".into()));
    let asking = |path: &str, more: &str| {
        let url = server.url(path);
        format!("access: {{ authentication: [ {{ name: shop, http: {{ url: \"{url}\"{more} }} }} ] }}\n")
    };
    let mut hub = hub(&asking("/ask", ""), &[]).await;
    let login = Connect::clean("c").login("u", "p");
    let mut client = Client::connect(hub.mqtt(), &login).await;
    hub.reload_with(&asking("/ask", "")).await;
    assert_eq!(connack(hub.mqtt(), &login).await.unwrap(), 0);
    assert_eq!(client.reader.until_closed().await, [Packet::Disconnect { reason: 0x8e }]);
    assert_eq!(server.received("/ask").len(), 1, "what it said is remembered");
    let mut client = Client::connect(hub.mqtt(), &login).await;
    hub.reload_with(&asking("/ask", ", ttl: 10s, timeout: 2s")).await;
    client.publish_acked(Publish::new("t", "x", 1, 1)).await;
    hub.reload_with(&asking("/other", "")).await;
    is_cut(client).await;
    let client = Client::connect(hub.mqtt(), &login).await;
    assert_eq!(server.received("/other").len(), 1, "another endpoint is asked itself");
    hub.reload_with("access: { rules: [ { allow: all, topics: [\"#\"] } ] }\n").await;
    is_cut(client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_says_how_long_a_connection_may_last() {
    let server = HttpFunction::start().await;
    let gone = std::sync::Arc::new(AtomicBool::new(false));
    let told = std::sync::Arc::clone(&gone);
    server.reply("/ask", move |_| {
        let allow = !told.load(Ordering::Acquire);
        (StatusCode::OK, json!({"allow": allow, "ttl": 600, "expires": 2}).to_string().into())
    });
    let url = server.url("/ask");
    let hub = hub(
        &format!("access: {{ authentication: [ {{ name: shop, http: {{ url: \"{url}\" }} }} ] }}\n"),
        &[],
    )
    .await;
    let login = Connect::clean("c").login("u", "p");
    let mut client = Client::connect(hub.mqtt(), &login).await;
    client.publish_acked(Publish::new("t", "x", 1, 1)).await;
    gone.store(true, Ordering::Release);
    is_cut(client).await;
    assert_eq!(
        connack(hub.mqtt(), &login).await.unwrap(),
        0x87,
        "an answer that has expired is not remembered"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_came_with_a_token_goes_with_its_key() {
    let server = HttpFunction::start().await;
    let (one, two) = (Signer::new("one"), Signer::new("two"));
    publish_keys(&server, &[&one, &two]);
    let url = server.url("/keys");
    let with = |issuer: &str, refresh: &str| {
        format!(
            "access: {{ authentication: [ {{ name: tokens, jwt: {{ keys: {{ url: \"{url}\", refresh: {refresh} }}, issuers: [{issuer}] }} }} ] }}\n"
        )
    };
    let mut hub = hub(&with("test", "5s"), &[]).await;
    let connect = async |hub: &Tidemill, name: &str, signer: &Signer| {
        let token = signer.token(600, json!({}));
        wait::until("the keys to be known", LIMIT, async || {
            let connect = Connect::clean(name).login("", token.clone());
            (connack(hub.mqtt(), &connect).await.unwrap() == 0).then_some(())
        })
        .await;
        Client::connect(hub.mqtt(), &Connect::clean(name).login("", token)).await
    };
    let mut first = connect(&hub, "first", &one).await;
    let mut second = connect(&hub, "second", &two).await;
    hub.reload_with(&with("test", "6s")).await;
    first.publish_acked(Publish::new("t", "x", 1, 1)).await;
    second.publish_acked(Publish::new("t", "x", 1, 1)).await;
    publish_keys(&server, &[&two]);
    is_cut(first).await;
    second.publish_acked(Publish::new("t", "x", 1, 2)).await;
    hub.reload_with(&with("\"test\", other", "6s")).await;
    is_cut(second).await;
}
