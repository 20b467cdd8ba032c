//! Clients that do not wait to be let in, and come again.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use bytes::Bytes;
use futures_util::SinkExt;
use tidemill_tests::mqtt::{Client, Connect, Packet};
use tidemill_tests::wait;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::websocket::{bytes_of, open};
use super::{LIMIT, Site};

/// An endpoint that takes its time.
#[derive(Default)]
struct Endpoint {
    asked: Notify,
    answer: Notify,
}

/// Lets everybody in: who has the password `slow`, when it is told to.
async fn ask(State(endpoint): State<Arc<Endpoint>>, asked: String) -> &'static str {
    if asked.contains("slow") {
        endpoint.asked.notify_one();
        endpoint.answer.notified().await;
    }
    "{\"allow\": true, \"user\": \"u\"}"
}

const CLIENT: &str = "c";

/// The CONNECT of who does not wait.
fn slow() -> Bytes {
    Connect::clean(CLIENT).login("u", "slow").encode()
}

async fn sent<S: AsyncWrite + Unpin>(mut stream: S) -> S {
    stream.write_all(&slow()).await.unwrap();
    stream.flush().await.unwrap();
    stream
}

async fn sent_as_message<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> WebSocketStream<S> {
    let mut socket = open(stream).await;
    socket.send(Message::Binary(slow())).await.unwrap();
    socket
}

/// Who sent a CONNECT over `first` does not wait to be let in, and comes again over `second`.
async fn comes_again(
    site: &Site,
    endpoint: &Endpoint,
    first: impl Send,
    second: impl AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static,
) {
    wait::within("a question", LIMIT, endpoint.asked.notified()).await;
    drop(first);
    let mut client = Client::over(second, &Connect::clean(CLIENT).login("u", "quick")).await;
    endpoint.answer.notify_one();
    wait::until_eq("open connections", LIMIT, Some(1.0), async || {
        site.hub.metrics().await.sum("tidemill_mqtt_connections", &[])
    })
    .await;
    client.writer.ping().await.unwrap();
    assert_eq!(client.packet().await, Packet::PingResp);
    client.disconnect().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gave_up_takes_nothing_from_who_came_after() {
    let endpoint = Arc::new(Endpoint::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let router = Router::new().fallback(ask).with_state(Arc::clone(&endpoint));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let access = format!("access: {{ authentication: [ {{ name: slow, http: {{ url: \"{url}\" }} }} ] }}\n");
    let listeners = ["", ", TLS", ", protocol: websocket", ", protocol: websocket, TLS"];
    let site = Site::start_with(&listeners, &access).await;
    let first = sent(site.tcp(0).await).await;
    comes_again(&site, &endpoint, first, site.tcp(0).await).await;
    let first = sent(site.tls(1).await).await;
    comes_again(&site, &endpoint, first, site.tls(1).await).await;
    let first = sent_as_message(site.tcp(2).await).await;
    comes_again(&site, &endpoint, first, bytes_of(open(site.tcp(2).await).await)).await;
    let first = sent_as_message(site.tls(3).await).await;
    comes_again(&site, &endpoint, first, bytes_of(open(site.tls(3).await).await)).await;
}
