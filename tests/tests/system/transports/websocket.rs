//! WebSocket: section 6 of both specifications, and RFC 6455 as far as a client can make us feel it.

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tidemill_tests::mqtt::{Client, Connect, Level, Publish};
use tidemill_tests::wait;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::{Message, Result};

use super::{LIMIT, Site, Trickle, closed, reads_late, works};

const PLAIN: &str = ", protocol: websocket";

/// Asks for a WebSocket.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    path: &str,
    headers: &[(&'static str, &'static str)],
) -> Result<WebSocketStream<S>> {
    let mut request = format!("ws://localhost{path}").into_client_request()?;
    for (name, value) in headers {
        request.headers_mut().append(*name, HeaderValue::from_static(value));
    }
    let asking = tokio_tungstenite::client_async(request, stream);
    let (socket, response) = wait::within("the answer to a request", LIMIT, asking).await?;
    assert_eq!(response.headers()["sec-websocket-protocol"], "mqtt");
    Ok(socket)
}

pub(crate) async fn open<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> WebSocketStream<S> {
    ask(stream, "/mqtt", &[("sec-websocket-protocol", "mqtt")]).await.unwrap()
}

/// The bytes in the frames.
pub(crate) fn bytes_of<S>(socket: WebSocketStream<S>) -> DuplexStream
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    tokio::spawn(async move {
        let (mut sink, mut messages) = socket.split();
        let (mut read, mut write) = tokio::io::split(theirs);
        let outgoing = async {
            loop {
                let mut bytes = BytesMut::with_capacity(8 << 10);
                match read.read_buf(&mut bytes).await {
                    Ok(count) if count > 0 => sink.send(Message::Binary(bytes.freeze())).await?,
                    _ => return Ok::<(), Error>(()),
                }
            }
        };
        let incoming = async {
            while let Some(Ok(Message::Binary(bytes))) = messages.next().await {
                if write.write_all(&bytes).await.is_err() {
                    break;
                }
            }
        };
        tokio::select! {
            _ = outgoing => {}
            () = incoming => {}
        }
    });
    ours
}

/// The next message.
async fn next<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>) -> Message {
    wait::within("a message", LIMIT, socket.next()).await.expect("an open connection").expect("a message")
}

/// Bytes until there are this many.
async fn bytes<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>, count: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < count {
        match next(socket).await {
            Message::Binary(bytes) => all.extend_from_slice(&bytes),
            other => panic!("binary was expected, not {other:?}"),
        }
    }
    all
}

/// The code that the hub closes with.
async fn close_code<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>) -> CloseCode {
    loop {
        if let Message::Close(frame) = next(socket).await {
            return frame.expect("a reason").code;
        }
    }
}

fn connect(client: &str) -> Bytes {
    Connect::clean(client).level(Level::V311).encode()
}

const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
const PINGREQ: [u8; 2] = [0xC0, 0];
const PINGRESP: [u8; 2] = [0xD0, 0];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_and_packets_have_nothing_to_do_with_each_other() {
    let site = Site::start(&[PLAIN]).await;
    let mut socket = open(site.tcp(0).await).await;
    let connect = connect("halves");
    let (one, other) = connect.split_at(connect.len() / 2);
    for half in [one, other] {
        socket.send(Message::Binary(Bytes::copy_from_slice(half))).await.unwrap();
    }
    assert_eq!(bytes(&mut socket, 4).await, CONNACK);
    // Three packets and a piece of the fourth in one frame, the rest in a message of two fragments.
    let publish = Publish::new("a", "x", 1, 9).encode(Level::V311);
    let many = [&PINGREQ[..], &publish, &PINGREQ, &publish[..3]].concat();
    socket.send(Message::Binary(many.into())).await.unwrap();
    let fragment = |bytes: &[u8], kind, last| {
        Message::Frame(Frame::message(Bytes::copy_from_slice(bytes), OpCode::Data(kind), last))
    };
    socket.send(fragment(&publish[3..5], Data::Binary, false)).await.unwrap();
    socket.send(fragment(&publish[5..], Data::Continue, true)).await.unwrap();
    let puback = [0x40, 2, 0, 9];
    let answers = bytes(&mut socket, 12).await;
    assert_eq!(answers.iter().filter(|&&byte| byte == PINGRESP[0]).count(), 2, "{answers:?}");
    assert_eq!(answers.windows(4).filter(|bytes| *bytes == puback).count(), 2, "{answers:?}");
    // A byte to a frame.
    for byte in PINGREQ {
        socket.send(Message::Binary(Bytes::copy_from_slice(&[byte]))).await.unwrap();
    }
    socket.send(Message::Binary(Bytes::new())).await.unwrap();
    assert_eq!(bytes(&mut socket, 2).await, PINGRESP);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_something_else_is_told() {
    let site = Site::start(&[", protocol: websocket, path: /here, origins: [\"https://a.example\"]"]).await;
    let mqtt = ("sec-websocket-protocol", "mqtt");
    for (path, headers, wanted) in [
        ("/here", &[][..], 400),
        ("/here", &[("sec-websocket-protocol", "mqttv3.1")], 400),
        ("/mqtt", &[mqtt], 404),
        ("/here", &[mqtt, ("origin", "https://b.example")], 403),
    ] {
        match ask(site.tcp(0).await, path, headers).await {
            Err(Error::Http(response)) => {
                assert_eq!(response.status().as_u16(), wanted, "{path} {headers:?}")
            }
            other => panic!("{path} {headers:?}: {other:?}"),
        }
    }
    let several = ("sec-websocket-protocol", "mqttv3.1, mqtt");
    for headers in [&[mqtt][..], &[several, ("origin", "https://a.example")]] {
        let socket = ask(site.tcp(0).await, "/here", headers).await.unwrap();
        works(&mut Client::over(bytes_of(socket), &Connect::clean("")).await, "here").await;
    }
    let mut plain = site.tcp(0).await;
    plain.write_all(b"GET /here HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let said = String::from_utf8(closed(plain).await).unwrap();
    assert!(said.starts_with("HTTP/1.1 400 ") && said.contains("subprotocol"), "{said}");
    let mut long = site.tcp(0).await;
    let _ = long.write_all(format!("GET /{} HTTP/1.1\r\n", "a".repeat(20_000)).as_bytes()).await;
    assert!(String::from_utf8_lossy(&closed(long).await).starts_with("HTTP/1.1 431 "));
    let mut garbage = site.tcp(0).await;
    garbage.write_all(&connect("plain")).await.unwrap();
    garbage.shutdown().await.unwrap();
    closed(garbage).await;
    let mut stalled = site.tcp(0).await;
    stalled.write_all(b"GET /here HTTP/1.1\r\n").await.unwrap();
    assert_eq!(closed(stalled).await, b"", "connect_timeout is over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_mqtt_closes_with_the_code_for_it() {
    let site = Site::start(&[PLAIN]).await;
    let mut text = open(site.tcp(0).await).await;
    text.send(Message::Text("hello".into())).await.unwrap();
    assert_eq!(close_code(&mut text).await, CloseCode::Unsupported);
    let mut large = open(site.tcp(0).await).await;
    // Its length is told first, and enough. With all of it on its way, a reset may overtake what the hub says.
    let head = [&[0x82, 0xFF][..], &(2_u64 << 20).to_be_bytes(), &[0; 4]].concat();
    large.get_mut().write_all(&head).await.unwrap();
    assert_eq!(close_code(&mut large).await, CloseCode::Size);
    let mut wrong = open(site.tcp(0).await).await;
    wrong
        .send(Message::Frame(Frame::message(Bytes::new(), OpCode::Data(Data::Continue), true)))
        .await
        .unwrap();
    assert_eq!(close_code(&mut wrong).await, CloseCode::Protocol);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_are_answered_and_ends_are_said() {
    let mut site = Site::start(&[PLAIN]).await;
    let mut socket = open(site.tcp(0).await).await;
    socket.send(Message::Binary(connect("pings"))).await.unwrap();
    assert_eq!(bytes(&mut socket, 4).await, CONNACK);
    for _ in 0..200 {
        socket.send(Message::Ping(Bytes::from_static(b"there?"))).await.unwrap();
    }
    assert_eq!(next(&mut socket).await, Message::Pong(Bytes::from_static(b"there?")));
    socket.close(None).await.unwrap();
    while let Some(message) = wait::within("the end", LIMIT, socket.next()).await {
        assert!(matches!(message, Ok(Message::Pong(_) | Message::Close(_))), "{message:?}");
    }
    // Closed by the hub: first in MQTT, then the WebSocket.
    let mut last = open(site.tcp(0).await).await;
    last.send(Message::Binary(Connect::clean("last").encode())).await.unwrap();
    assert_eq!(bytes(&mut last, 4).await[0], 0x20);
    let (_, ended) = tokio::join!(site.hub.terminate(), async {
        let disconnect = bytes(&mut last, 3).await;
        (disconnect, close_code(&mut last).await)
    });
    assert!(ended.0[0] == 0xE0 && ended.0[2] == 0x8B, "{:?}", ended.0);
    assert_eq!(ended.1, CloseCode::Normal);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_too_and_for_slow_clients() {
    let site = Site::start(&["", PLAIN, ", protocol: websocket, TLS", ", protocol: websocket, MUTUAL"]).await;
    for (listener, name) in [(1, "ws"), (2, "wss")] {
        let late = if listener == 1 {
            Client::over(bytes_of(open(site.tcp(1).await).await), &Connect::clean(name)).await
        } else {
            Client::over(bytes_of(open(site.tls(2).await).await), &Connect::clean(name)).await
        };
        reads_late(&site, late).await;
    }
    let slow = open(Trickle(site.tcp(1).await)).await;
    works(&mut Client::over(bytes_of(slow), &Connect::clean("slow")).await, "trickle").await;
    let car = site.devices.device("car-7", 7);
    let tls = site.tls_over(site.tcp(3).await, Some(&car)).await.unwrap();
    let mut client = Client::over(bytes_of(open(Trickle(tls)).await), &Connect::clean("car-7")).await;
    works(&mut client, "mutual").await;
}
