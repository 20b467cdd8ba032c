//! [`Way`]: what a connection is made over, and [`Doors`], the listeners of a hub for all of them.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

use super::damage;
use super::faulty::Faulty;
use super::web::{REQUEST, Web};

/// The layers between TCP and MQTT, in the order in which they begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// A PROXY protocol header.
    pub proxy: bool,
    /// TLS.
    pub tls: bool,
    /// A WebSocket.
    pub web: bool,
}

/// All that are tried. The first has no layers.
pub(super) const WAYS: [Way; 6] = [
    Way { proxy: false, tls: false, web: false },
    Way { proxy: false, tls: true, web: false },
    Way { proxy: false, tls: false, web: true },
    Way { proxy: false, tls: true, web: true },
    Way { proxy: true, tls: false, web: false },
    Way { proxy: true, tls: true, web: true },
];

/// A layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    Proxy,
    Tls,
    Web,
}

impl Way {
    /// One of them, which has this layer if there is one; without, mostly the one that has none.
    pub(super) fn of(layer: Option<Layer>, random: &mut StdRng) -> Way {
        if layer.is_none() && random.random_bool(0.6) {
            return WAYS[0];
        }
        loop {
            let way = WAYS[random.random_range(1..WAYS.len())];
            if layer.is_none_or(|layer| way.has(layer)) {
                return way;
            }
        }
    }

    fn has(self, layer: Layer) -> bool {
        match layer {
            Layer::Proxy => self.proxy,
            Layer::Tls => self.tls,
            Layer::Web => self.web,
        }
    }

    /// What its first layer begins with; `None` if there is none.
    pub(super) fn beginning(self) -> Option<&'static [u8]> {
        match self {
            Way { proxy: true, .. } => Some(PROXY),
            // A record of 512 bytes, with a ClientHello that has some more than these.
            Way { tls: true, .. } => Some(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
            Way { web: true, .. } => Some(REQUEST.as_bytes()),
            _ => None,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Way { proxy, tls, web } = *self;
        let layers = [(proxy, "PROXY+"), (tls, "TLS+"), (web, "WebSocket+")];
        layers.iter().filter(|(there, _)| *there).try_for_each(|(_, name)| f.write_str(name))?;
        f.write_str("TCP")
    }
}

/// A connection with all its layers.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {
    /// What is below them.
    fn socket(&self) -> &TcpStream;
}

impl Stream for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl<S: Stream> Stream for TlsStream<S> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0.socket()
    }
}

impl<S: Stream + ?Sized> Stream for Box<S> {
    fn socket(&self) -> &TcpStream {
        (**self).socket()
    }
}

/// Where a hub lets clients in.
#[derive(Clone)]
pub struct Doors {
    addresses: Vec<SocketAddr>,
    tls: TlsConnector,
}

impl Doors {
    /// The entries of `mqtt.listeners` that a hub needs for it; `tls` is what they say of its certificate.
    #[must_use]
    pub fn listeners(tls: &str) -> String {
        let entry = |(number, way): (usize, &Way)| {
            let proxy = if way.proxy { ", proxy_protocol: true" } else { "" };
            let web = if way.web { ", protocol: websocket" } else { "" };
            let tls = if way.tls { format!(", tls: {{ {tls} }}") } else { String::new() };
            format!("    - {{ name: way-{number}, address: \"127.0.0.1:0\"{proxy}{web}{tls} }}\n")
        };
        WAYS.iter().enumerate().map(entry).collect()
    }

    /// Those of a hub that has them, by its addresses in their order, and what trusts its certificate.
    ///
    /// # Panics
    /// When it has others.
    #[must_use]
    pub fn of(addresses: &[SocketAddr], tls: TlsConnector) -> Doors {
        assert_eq!(addresses.len(), WAYS.len(), "a listener for each way");
        Doors { addresses: addresses.to_vec(), tls }
    }

    /// TCP alone, to where this way begins.
    pub(super) async fn knock(&self, way: Way) -> io::Result<TcpStream> {
        let at = WAYS.iter().position(|other| *other == way).expect("one of them");
        let stream = TcpStream::connect(self.addresses[at]).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Puts the layers on. What the `faulty` one writes is damaged on its way. An error when the hub wants none of it.
    pub(super) async fn enter(
        &self,
        mut stream: TcpStream,
        way: Way,
        faulty: Option<Layer>,
        random: &mut StdRng,
    ) -> io::Result<Box<dyn Stream>> {
        if way.proxy {
            let header = proxy(random);
            let header = if faulty == Some(Layer::Proxy) { damage::layer(&header, random) } else { header };
            stream.write_all(&header).await?;
        }
        let mut stream: Box<dyn Stream> = Box::new(stream);
        if way.tls {
            if faulty == Some(Layer::Tls) {
                stream = Box::new(Faulty::new(stream, StdRng::from_rng(random)));
            }
            let name = ServerName::try_from("localhost").expect("a name");
            stream = Box::new(self.tls.connect(name, stream).await?);
        }
        if way.web {
            if faulty == Some(Layer::Web) {
                stream = Box::new(Faulty::new(stream, StdRng::from_rng(random)));
            }
            stream = Box::new(Web::open(stream, StdRng::from_rng(random)).await?);
        }
        Ok(stream)
    }
}

/// The signature of a PROXY protocol header of version 2.
const PROXY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A good header.
fn proxy(random: &mut StdRng) -> Vec<u8> {
    let (command, family, addresses) = match random.random_range(0..4) {
        0 => (0x20, 0x00, 0),
        1 => (0x21, 0x21, 36),
        _ => (0x21, 0x11, 12),
    };
    let mut body: Vec<u8> = (0..addresses).map(|_| random.random()).collect();
    if random.random_bool(0.3) {
        // A field that nobody knows.
        body.extend([0xee, 0, 3, 1, 2, 3]);
    }
    [PROXY, &[command, family], &(body.len() as u16).to_be_bytes(), &body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layer_can_be_faulty_and_all_ways_have_names_of_their_own() {
        let mut random = StdRng::seed_from_u64(1);
        for layer in [Layer::Proxy, Layer::Tls, Layer::Web] {
            assert!((0..100).all(|_| Way::of(Some(layer), &mut random).has(layer)));
        }
        let mut names = WAYS.map(|way| way.to_string());
        assert_eq!((names[0].as_str(), names[5].as_str()), ("TCP", "PROXY+TLS+WebSocket+TCP"));
        names.sort();
        assert!(names.windows(2).all(|two| two[0] != two[1]));
    }
}
