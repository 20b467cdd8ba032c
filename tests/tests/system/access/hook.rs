//! The HTTP endpoint that is asked about clients.

use axum::http::StatusCode;
use serde_json::{Value, json};
use tidemill_tests::mqtt::{Client, Connect, Level, Packet, Publish};
use tidemill_tests::services::tidemill::folder;
use tidemill_tests::services::{HttpFunction, Tidemill};

use super::connack;

fn configuration(url: &str) -> String {
    format!(
        "access:\n  authentication:\n    - name: shop\n      http: {{ url: \"{url}\", timeout: 1s, headers: {{ x-token: \"${{file:token}}\" }} }}\n"
    )
}

async fn start(url: &str) -> Tidemill {
    let dir = folder();
    std::fs::write(dir.path().join("token"), "s3cret\n").unwrap();
    Tidemill::start_with_config_in(dir, &configuration(url)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_is_asked_and_its_answer_is_remembered() {
    let server = HttpFunction::start().await;
    server.reply("/ask", |received| {
        let asked: Value = serde_json::from_slice(&received.body).unwrap();
        let answer = match asked["password"].as_str() {
            Some("right") => {
                json!({"allow": true, "user": "shop-user", "permissions": {"publish": ["p/{user}"]}})
            }
            Some("brief") => json!({"allow": true, "ttl": 0}),
            _ => json!({"allow": false}),
        };
        (StatusCode::OK, answer.to_string().into())
    });
    let hub = start(&server.url("/ask")).await;
    let login = |password: &str| Connect::clean("c").login("u", password);
    let mut client = Client::connect(hub.mqtt(), &login("right")).await;
    client.publish_acked(Publish::new("p/shop-user", "x", 1, 1)).await;
    client.publish(Publish::new("p/u", "x", 1, 2)).await;
    assert_eq!(client.packet().await, Packet::PubAck { id: 2, reason: 0x87 });
    let received = server.received("/ask");
    let [first] = &received[..] else { panic!("{received:?}") };
    assert_eq!(first.header("x-token"), Some("s3cret"));
    let asked: Value = serde_json::from_slice(&first.body).unwrap();
    let wanted = json!({"client": "c", "user": "u", "password": "right", "address": "127.0.0.1", "listener": hub.mqtt().to_string(), "certificate": null});
    assert_eq!(asked, wanted);
    assert_eq!(connack(hub.mqtt(), &login("right")).await.unwrap(), 0);
    assert_eq!(server.received("/ask").len(), 1, "a yes is remembered");
    for count in [2, 3] {
        assert_eq!(connack(hub.mqtt(), &login("brief")).await.unwrap(), 0);
        assert_eq!(server.received("/ask").len(), count, "unless it says otherwise");
    }
    assert_eq!(connack(hub.mqtt(), &login("wrong")).await.unwrap(), 0x87);
    assert_eq!(connack(hub.mqtt(), &login("wrong").level(Level::V311)).await.unwrap(), 5);
    assert_eq!(server.received("/ask").len(), 5, "a no is not remembered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_clear_answer_nobody_comes_in() {
    let server = HttpFunction::start().await;
    let hub = start(&server.url("/ask")).await;
    let answer = async || connack(hub.mqtt(), &Connect::clean("c").login("u", "p")).await.unwrap();
    for (status, body) in [
        (StatusCode::INTERNAL_SERVER_ERROR, "{\"allow\": true}"),
        (StatusCode::CREATED, "{\"allow\": true}"),
        (StatusCode::FOUND, "{\"allow\": true}"),
        (StatusCode::OK, "{}"),
        (StatusCode::OK, "yes"),
        (StatusCode::OK, "{\"allow\": \"true\"}"),
    ] {
        server.reply("/ask", move |_| (status, body.into()));
        assert_eq!(answer().await, 0x88, "{status} {body}");
    }
    drop(server);
    assert_eq!(answer().await, 0x88);
    let refused = hub.metrics().await.sum("tidemill_mqtt_access_total", &[("outcome", "unavailable")]);
    assert_eq!(refused, Some(7.0));
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let hub = super::hub(&format!("access: {{ authentication: [ {{ name: shop, http: {{ url: \"http://{address}\", timeout: 200ms }} }} ] }}\n"), &[]).await;
    assert_eq!(connack(hub.mqtt(), &Connect::clean("c").level(Level::V311)).await.unwrap(), 3);
}
