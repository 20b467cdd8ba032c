//! [`establish`]: the layers of a listener on an accepted socket.

use std::io;
use std::sync::Arc;

use metrics::counter;
use tokio::net::TcpStream;
use tracing::debug;

use super::super::listener::Protocol;
use super::super::peer::Peer;
use super::layered::{Layered, Stream};
use super::socket::Socket;
use super::tls::Tls;
use super::{Transport, proxy, upgrade};

/// A layer that could not be put on.
struct Failed {
    layer: &'static str,
    error: io::Error,
}

/// Does all that a listener wants before MQTT begins. `None` if it comes to nothing; the client was told what its
/// layer has for it. `message_bytes_max` bounds a message of a WebSocket.
pub(in crate::mqtt) async fn establish(
    socket: TcpStream,
    peer: &mut Peer,
    message_bytes_max: usize,
) -> Option<Transport> {
    let address = peer.address;
    match layers(socket, peer, message_bytes_max).await {
        Ok(transport) => Some(transport),
        Err(Failed { layer, error }) => {
            let listener = peer.listener.options.name.clone();
            debug!(peer = %address, listener, layer, %error, "a handshake failed; closed");
            counter!("tidemill_mqtt_handshakes_failed_total", "listener" => listener, "layer" => layer)
                .increment(1);
            None
        }
    }
}

async fn layers(socket: TcpStream, peer: &mut Peer, message_bytes_max: usize) -> Result<Transport, Failed> {
    let listener = Arc::clone(&peer.listener);
    let failed = |layer| move |error| Failed { layer, error };
    if listener.options.proxy_protocol {
        let told = proxy::read(&socket).await.map_err(failed("proxy"))?;
        if let Some(address) = told.address {
            peer.set_address(address);
        }
        peer.certificate = told.certificate.map(Arc::new);
    }
    let stream = match listener.tls() {
        None => Stream::Tcp(Socket(socket)),
        Some(config) => {
            let tls = Tls::accept(config, socket).await.map_err(failed("tls"))?;
            // Also if there is none: what is said before TLS proves nothing.
            peer.certificate = tls.certificate().map(Arc::new);
            Stream::Tls(tls)
        }
    };
    Ok(match (listener.options.protocol, stream) {
        (Protocol::Tcp, Stream::Tcp(Socket(socket))) => Transport::Tcp(socket),
        (Protocol::Tcp, Stream::Tls(tls)) => Transport::Layered(Box::new(Layered::tls(tls))),
        (Protocol::Websocket, stream) => {
            let accepted = upgrade::accept(stream, &listener.options, message_bytes_max).await;
            Transport::Layered(Box::new(Layered::websocket(accepted.map_err(failed("websocket"))?)))
        }
    })
}
