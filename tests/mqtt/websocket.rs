//! MQTT in WebSocket frames (chapter 6 of both versions), with requests and frames written out by hand.

use std::time::Duration;

use tempfile::TempDir;
use tidemill_tests::mqtt::Level;
use tidemill_tests::scram::{METHOD, Proof};
use tidemill_tests::services::Tidemill;
use tidemill_tests::services::tidemill::{folder, folder_of};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::wire::*;

/// How long a test waits for what must come.
const LIMIT: Duration = Duration::from_secs(20);
/// First bytes of frames (RFC 6455, 5.2): text and binary, whole; a close.
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;

async fn hub() -> Tidemill {
    hub_in(folder(), "").await
}

/// A hub with this beside the listener in its configuration.
async fn hub_in(dir: TempDir, more: &str) -> Tidemill {
    let listener = r#"{ name: web, address: "127.0.0.1:0", protocol: websocket }"#;
    let mqtt = format!("mqtt: {{ listeners: [ {listener} ] }}\n");
    Tidemill::start_configured(dir, &format!("flush: async\n{mqtt}{more}")).await
}

/// A connection that has become a WebSocket.
struct Web(TcpStream);

impl Web {
    /// Asks for a WebSocket with these subprotocols. The head of the answer.
    async fn ask(hub: &Tidemill, subprotocols: Option<&str>) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(hub.mqtt()).await.expect("a listening hub");
        let offer =
            subprotocols.map(|names| format!("Sec-WebSocket-Protocol: {names}\r\n")).unwrap_or_default();
        let request = format!(
            "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{offer}\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("an open connection");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = timeout(LIMIT, stream.read_u8()).await.expect("an answer");
            head.push(byte.expect("an answer"));
        }
        (stream, String::from_utf8(head).expect("text").to_lowercase())
    }

    async fn open(hub: &Tidemill) -> Web {
        let (stream, head) = Self::ask(hub, Some("mqtt")).await;
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        Web(stream)
    }

    /// Sends a frame, masked as a client has to, with the mask of all zeros.
    async fn frame(&mut self, first: u8, payload: &[u8]) {
        let head = bytes().u8(first);
        let head = match payload.len() {
            short @ ..=125 => head.u8(0x80 | short as u8),
            long => head.u8(0x80 | 126).u16(u16::try_from(long).expect("a short frame")),
        };
        let frame = head.u32(0).raw(payload);
        self.0.write_all(frame.as_ref()).await.expect("an open connection");
    }

    /// The next frame: its first byte and its payload.
    async fn next(&mut self) -> (u8, Vec<u8>) {
        let reading = async {
            let first = self.0.read_u8().await?;
            let length = match self.0.read_u8().await? {
                126 => self.0.read_u16().await?.into(),
                short => u64::from(short),
            };
            let mut payload = vec![0; usize::try_from(length).expect("a short frame")];
            self.0.read_exact(&mut payload).await?;
            std::io::Result::Ok((first, payload))
        };
        timeout(LIMIT, reading).await.expect("a frame").expect("an open connection")
    }

    /// The next bytes of MQTT are these, however they are cut into frames, all of which are binary.
    async fn expect(&mut self, wanted: &[u8]) {
        let mut seen = Vec::new();
        while seen.len() < wanted.len() {
            let (first, payload) = self.next().await;
            assert_eq!(first, BINARY, "a binary frame");
            seen.extend(payload);
        }
        assert_eq!(seen, wanted);
    }
}

const CONNACK: &[u8] = b"\x20\x02\x00\x00";

#[tokio::test]
async fn the_subprotocol_is_mqtt() {
    let hub = hub().await;
    for offered in ["mqtt", "mqttv3.1, mqtt", "chat,mqtt,superchat"] {
        let (_, head) = Web::ask(&hub, Some(offered)).await;
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(head.contains("\r\nsec-websocket-protocol: mqtt\r\n"), "{head}");
    }
}

#[tokio::test]
async fn who_does_not_offer_it_is_refused() {
    let hub = hub().await;
    for offered in [None, Some("mqttv3.1"), Some("mqtt2")] {
        let (_, head) = Web::ask(&hub, offered).await;
        assert!(head.starts_with("http/1.1 400 "), "{offered:?}: {head}");
    }
}

#[tokio::test]
async fn frames_and_packets_need_not_coincide() {
    let hub = hub().await;
    for level in BOTH {
        let mut web = Web::open(&hub).await;
        let connect = connect(level, at(level, "websocket")).bytes();
        for part in connect.chunks(5) {
            web.frame(BINARY, part).await;
        }
        let (first, connack) = web.next().await;
        assert_eq!((first, &connack[..1]), (BINARY, &CONNACK[..1]));
        // Packets and parts of packets in one frame.
        let publish = publish("websocket", "x").qos(1, 5).at(level);
        let (half, rest) = publish.split_at(4);
        web.frame(BINARY, bytes().raw(PINGREQ).raw(PINGREQ).raw(half).as_ref()).await;
        web.expect(bytes().raw(PINGRESP).raw(PINGRESP).as_ref()).await;
        web.frame(BINARY, rest).await;
        web.expect(&puback(5)).await;
    }
}

#[tokio::test]
async fn frames_that_are_not_binary_close_the_connection() {
    let hub = hub().await;
    for before in [false, true] {
        let mut web = Web::open(&hub).await;
        if before {
            web.frame(BINARY, &connect(Level::V311, "websocket-text").bytes()).await;
            web.expect(CONNACK).await;
        }
        web.frame(TEXT, &PINGREQ).await;
        let (first, _) = web.next().await;
        assert_eq!(first, CLOSE);
        let mut rest = Vec::new();
        let end = timeout(LIMIT, web.0.read_to_end(&mut rest)).await.expect("the end of the connection");
        assert!(end.is_err() || rest.is_empty(), "{rest:x?}");
    }
}

#[tokio::test]
async fn an_authentication_goes_to_and_fro_in_it() {
    let users = "access: { authentication: [ { name: users, passwords: { file: passwords } } ] }\n";
    let hub = hub_in(folder_of(&[("bob", "secret")]), users).await;
    let mut proof = Proof::new("bob", "secret");
    let said = |data: &[u8]| {
        let method = bytes().u8(property::AUTHENTICATION_METHOD).text(METHOD);
        method.raw(bytes().u8(property::AUTHENTICATION_DATA).text(data))
    };
    let mut web = Web::open(&hub).await;
    let first = connect(Level::V5, "websocket-auth").with(&said(&proof.say(None)));
    web.frame(BINARY, &first.bytes()).await;
    let (first, challenge) = web.next().await;
    assert_eq!((first, challenge[0]), (BINARY, 0xf0), "{challenge:x?}");
    let asked = Answer::read(Level::V5, &challenge);
    assert_eq!(asked.reason, 0x18);
    let asked = asked.properties.one(property::AUTHENTICATION_DATA).expect("a challenge").to_vec();
    let answer = bytes().u8(0x18).section(&said(&proof.say(Some(Cut(&asked).text())))).packet(0xf0);
    web.frame(BINARY, &answer).await;
    let (first, connack) = web.next().await;
    assert_eq!(first, BINARY, "no end of the WebSocket");
    assert_eq!(Connack::read(Level::V5, &connack).reason, 0);
}

#[tokio::test]
async fn what_the_hub_sends_is_in_binary_frames() {
    let hub = hub().await;
    let mut web = Web::open(&hub).await;
    web.frame(BINARY, &connect(Level::V311, "websocket-binary").bytes()).await;
    web.expect(CONNACK).await;
    web.frame(BINARY, &subscribe(1, &[("websocket/binary", 0)]).at(Level::V311)).await;
    web.expect(b"\x90\x03\x00\x01\x00").await;
    let message = publish("websocket/binary", vec![7; 2000]).at(Level::V311);
    web.frame(BINARY, &message).await;
    web.expect(&message).await;
}
