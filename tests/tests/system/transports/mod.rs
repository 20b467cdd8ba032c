//! What MQTT is spoken over, with other people's clients and with bytes of our own.
//!
//! # Layout
//! - [`gone`] clients that do not wait to be let in
//! - [`identity`] who a certificate says somebody is, and rules about that
//! - [`tls`] TLS, certificates of clients, certificates that are replaced
//! - [`websocket`] WebSocket, with TLS and without
//! - [`proxy`] a load balancer in front

mod gone;
mod identity;
mod proxy;
mod tls;
pub(crate) mod websocket;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tidemill_tests::mqtt::{Client, Connect, Level, Publish};
use tidemill_tests::pki::{Authority, Identity};
use tidemill_tests::services::Tidemill;
use tidemill_tests::wait;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

/// How long something may take that must happen.
const LIMIT: Duration = Duration::from_secs(30);
/// What a slow reader is sent: more than all buffers on the way hold.
const MESSAGES: u32 = 160;
const MESSAGE_BYTES: usize = 64 << 10;

/// A hub with TLS: who signed its certificate, and who signs those of devices.
struct Site {
    hub: Tidemill,
    servers: Authority,
    devices: Authority,
}

impl Site {
    /// Starts a hub with these entries of `mqtt.listeners`, one a line. In them, `TLS` is the hub's certificate, and `MUTUAL` it
    /// and a demand for one of the client.
    async fn start(listeners: &[&str]) -> Site {
        Self::start_with(listeners, "").await
    }

    /// [`Site::start`] with further sections of the configuration.
    async fn start_with(listeners: &[&str], sections: &str) -> Site {
        let dir = TempDir::new().unwrap();
        let (servers, devices) = (Authority::new("servers"), Authority::new("devices"));
        servers.server(1).write(dir.path(), "server");
        std::fs::write(dir.path().join("servers.pem"), servers.pem()).unwrap();
        std::fs::write(dir.path().join("devices.pem"), devices.pem()).unwrap();
        std::fs::write(dir.path().join("revoked.pem"), devices.revoke(&[REVOKED])).unwrap();
        let mut configuration = "mqtt:\n  connect_timeout: 2s\n  listeners:\n".to_owned();
        for (at, listener) in listeners.iter().enumerate() {
            let own = "certificate: server.pem, key: server.key";
            let mutual = format!("tls: {{ {own}, client_ca: devices.pem, client_crl: revoked.pem }}");
            let listener = listener.replace("MUTUAL", &mutual).replace("TLS", &format!("tls: {{ {own} }}"));
            let line = format!("    - {{ name: listener-{at}, address: \"127.0.0.1:0\"{listener} }}\n");
            configuration.push_str(&line);
        }
        configuration.push_str(sections);
        Site { hub: Tidemill::start_configured(dir, &configuration).await, servers, devices }
    }

    fn address(&self, listener: usize) -> SocketAddr {
        self.hub.mqtt_addresses()[listener]
    }

    async fn tcp(&self, listener: usize) -> TcpStream {
        let stream = TcpStream::connect(self.address(listener)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// A TLS connection that trusts the hub, over what is open already.
    async fn tls_over<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        identity: Option<&Identity>,
    ) -> io::Result<TlsStream<S>> {
        let name = ServerName::try_from("localhost").unwrap();
        let connecting = self.servers.client(identity).connect(name, stream);
        wait::within("a TLS handshake", LIMIT, connecting).await
    }

    async fn tls(&self, listener: usize) -> TlsStream<TcpStream> {
        self.tls_over(self.tcp(listener).await, None).await.unwrap()
    }

    /// Waits until this many handshakes of a listener have failed in a layer.
    async fn failures(&self, listener: usize, layer: &str, count: u32) {
        let name = format!("listener-{listener}");
        let labels = [("listener", name.as_str()), ("layer", layer)];
        wait::until_eq("failed handshakes", LIMIT, Some(f64::from(count)), async || {
            self.hub.metrics().await.sum("tidemill_mqtt_handshakes_failed_total", &labels)
        })
        .await;
    }
}

/// The serial number of a device's certificate that counts no more.
const REVOKED: u64 = 13;

/// Publishes to itself and reads it: the connection does what one is for.
async fn works(client: &mut Client, topic: &str) {
    client.subscribe(&[(topic, 1)]).await;
    client.publish(Publish::new(topic, topic.to_owned(), 0, 0)).await;
    assert_eq!(client.message().await.payload, topic);
}

/// Publishes more than all buffers hold to a client that reads nothing until all of it is stored, then reads it.
async fn reads_late(site: &Site, mut late: Client) {
    late.subscribe(&[("late", 0)]).await;
    let plain = site.tcp(0).await;
    let mut publisher = Client::over(plain, &Connect::clean("publisher").level(Level::V311)).await;
    let body = |number: u32| {
        let mut body = vec![number as u8; MESSAGE_BYTES];
        body[..4].copy_from_slice(&number.to_be_bytes());
        Bytes::from(body)
    };
    for number in 0..MESSAGES {
        publisher.publish_acked(Publish::new("late", body(number), 1, 1)).await;
    }
    for number in 0..MESSAGES {
        assert!(late.message().await.payload == body(number), "message {number}");
    }
    works(&mut late, "late-but-well").await;
}

/// Waits until the hub has closed a connection; what it said before.
async fn closed(mut stream: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut said = Vec::new();
    // A reset is as good an end as any.
    let _ = wait::within("the end of the connection", LIMIT, stream.read_to_end(&mut said)).await;
    said
}

/// A stream that is written to one byte at a time.
struct Trickle<S>(S);

impl<S: AsyncRead + Unpin> AsyncRead for Trickle<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, to)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Trickle<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, &bytes[..bytes.len().min(1)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
