//! The PROXY protocol, version 2: what a load balancer says of a client, in bytes of our own.

use std::net::SocketAddr;

use serde::Deserialize;
use tidemill_tests::mqtt::{Client, Connect};
use tidemill_tests::services::tidemill::tidemill;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::websocket::{bytes_of, open};
use super::{Site, Trickle, closed, works};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const PROXY: u8 = 0x21;
const LOCAL: u8 = 0x20;
const TCP4: u8 = 0x11;
const CLIENT: &str = "203.0.113.7:4711";

fn header(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, body].concat()
}

/// From 203.0.113.7:4711 to 192.0.2.1:8883, with a field that nobody knows.
fn known() -> Vec<u8> {
    header(PROXY, TCP4, &[203, 0, 113, 7, 192, 0, 2, 1, 0x12, 0x67, 0x22, 0xB3, 0xEE, 0, 1, 9])
}

#[derive(Deserialize)]
struct Shown {
    address: SocketAddr,
    listener: String,
}

async fn shown(site: &Site, client: &str) -> (String, String) {
    let Shown { address, listener } = site.hub.json(&format!("/api/v1/clients/{client}")).await;
    (address.to_string(), listener)
}

async fn sent<S: AsyncWrite + Unpin>(mut stream: S, bytes: &[u8]) -> S {
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_address_is_the_clients_own() {
    let site = Site::start(&[
        ", proxy_protocol: true",
        ", proxy_protocol: true, TLS",
        ", proxy_protocol: true, protocol: websocket, TLS",
    ])
    .await;
    let plain = sent(site.tcp(0).await, &known()).await;
    let mut plain = Client::over(plain, &Connect::clean("plain")).await;
    works(&mut plain, "plain").await;
    assert_eq!(shown(&site, "plain").await, (CLIENT.to_owned(), "listener-0".to_owned()));
    let slow = sent(Trickle(site.tcp(0).await), &known()).await;
    let _slow = Client::over(slow, &Connect::clean("slow")).await;
    assert_eq!(shown(&site, "slow").await.0, CLIENT);
    let tls = site.tls_over(sent(site.tcp(1).await, &known()).await, None).await.unwrap();
    let mut tls = Client::over(tls, &Connect::clean("tls")).await;
    works(&mut tls, "tls").await;
    assert_eq!(shown(&site, "tls").await, (CLIENT.to_owned(), "listener-1".to_owned()));
    // All layers at once, as the command shows it.
    let all = site.tls_over(Trickle(sent(site.tcp(2).await, &known()).await), None).await.unwrap();
    let mut all = Client::over(bytes_of(open(all).await), &Connect::clean("all")).await;
    works(&mut all, "all").await;
    assert_eq!(shown(&site, "all").await, (CLIENT.to_owned(), "listener-2".to_owned()));
    let http = site.hub.http().to_string();
    for arguments in [&["show", "all"][..], &["list", "--prefix", "all"]] {
        let arguments = [&["clients"], arguments, &["--http", &http]].concat();
        let told = tidemill(site.hub.dir(), &arguments).await;
        assert!(told.status.success() && told.stdout.contains(CLIENT), "{}", told.output());
    }
    // The load balancer for itself, and one that does not know.
    for (name, header) in [("local", header(LOCAL, 0, &[])), ("unknown", header(PROXY, 0, &[]))] {
        let stream = site.tcp(0).await;
        let own = stream.local_addr().unwrap();
        let _client = Client::over(sent(stream, &header).await, &Connect::clean(name)).await;
        assert_eq!(shown(&site, name).await.0, own.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_good_header_nobody_is_let_in() {
    let site = Site::start(&[", proxy_protocol: true"]).await;
    let connect = Connect::clean("none").encode();
    let bad = [
        connect.to_vec(),
        b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 8883\r\n".to_vec(),
        header(PROXY, TCP4, &[203, 0, 113, 7]),
        header(PROXY, TCP4, &[0; 5000]),
        header(0x31, TCP4, &[0; 12]),
        header(PROXY, TCP4, &[&[0; 12][..], &[0x04, 0, 9]].concat()),
    ];
    for (at, bytes) in bad.iter().enumerate() {
        let stream = sent(site.tcp(0).await, &[bytes, &connect[..]].concat()).await;
        assert_eq!(closed(stream).await, b"", "header {at}");
        site.failures(0, "proxy", u32::try_from(at + 1).unwrap()).await;
    }
    // connect_timeout is over.
    assert_eq!(closed(sent(site.tcp(0).await, SIGNATURE).await).await, b"");
}
