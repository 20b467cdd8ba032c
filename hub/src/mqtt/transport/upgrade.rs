//! From an HTTP request to a WebSocket (RFC 6455, section 4), with the subprotocol `mqtt` ([MQTT-6.0.0-3],
//! [MQTT-6.0.0-4]).

use std::io::{self, Read, Write};

use tokio::io::Interest;
use tungstenite::error::{Error, ProtocolError};
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{Request, Response, create_response, write_response};
use tungstenite::http::header::{ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use tungstenite::http::{HeaderValue, StatusCode};

use super::super::listener::ListenerOptions;
use super::layered::Stream;
use super::websocket::WebSocket;

/// Longest request, in bytes.
const REQUEST_BYTES_MAX: usize = 16 << 10;
/// Bytes read with one call.
const READ_BYTES: usize = 4 << 10;
/// What a request ends with.
const END: &[u8] = b"\r\n\r\n";
/// The subprotocol.
const SUBPROTOCOL: &str = "mqtt";

/// A request that is not accepted.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    status: StatusCode,
    what: String,
}

/// Reads the request and answers it.
pub(super) async fn accept(
    mut stream: Stream,
    options: &ListenerOptions,
    message_bytes_max: usize,
) -> io::Result<Box<WebSocket>> {
    let mut input = Vec::new();
    let answered = match read(&mut stream, &mut input).await? {
        Some(end) => {
            let early = input.split_off(end);
            answer(&input, options).map(|response| (response, early))
        }
        None => {
            let what = format!("a request of more than {REQUEST_BYTES_MAX} bytes");
            Err(Refusal { status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, what })
        }
    };
    match answered {
        Ok((response, early)) => {
            write(&mut stream, &response).await?;
            Ok(Box::new(WebSocket::new(stream, early, message_bytes_max)))
        }
        Err(refusal) => {
            write(&mut stream, &refusal.response()).await?;
            Err(io::Error::new(io::ErrorKind::InvalidData, refusal.what))
        }
    }
}

/// Reads a request; where it ends, or `None` if it is too long.
async fn read(stream: &mut Stream, input: &mut Vec<u8>) -> io::Result<Option<usize>> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                // The end may have begun in what came before.
                let from = input.len().saturating_sub(END.len() - 1);
                input.extend_from_slice(buffer.get(..count).unwrap_or_default());
                let new = input.get(from..).unwrap_or_default();
                if let Some(at) = new.windows(END.len()).position(|bytes| bytes == END) {
                    return Ok(Some(from + at + END.len()));
                }
                if input.len() > REQUEST_BYTES_MAX {
                    return Ok(None);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                stream.socket().ready(Interest::READABLE).await?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Writes all of it.
async fn write(stream: &mut Stream, mut bytes: &[u8]) -> io::Result<()> {
    loop {
        let written = match bytes {
            [] => stream.flush().map(|()| 0),
            bytes => stream.write(bytes),
        };
        match written {
            Ok(_) if bytes.is_empty() => return Ok(()),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                stream.socket().ready(Interest::WRITABLE).await?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// The answer to a whole request.
fn answer(request: &[u8], options: &ListenerOptions) -> Result<Vec<u8>, Refusal> {
    let bad = |error: Error| {
        let status = match error {
            Error::Protocol(ProtocolError::MissingSecWebSocketVersionHeader) => StatusCode::UPGRADE_REQUIRED,
            _ => StatusCode::BAD_REQUEST,
        };
        Refusal { status, what: error.to_string() }
    };
    let parsed = Request::try_parse(request).map_err(bad)?;
    let Some((_, request)) = parsed else {
        return Err(Refusal { status: StatusCode::BAD_REQUEST, what: "a request that is none".to_owned() });
    };
    check(&request, options)?;
    let mut response: Response = create_response(&request).map_err(bad)?;
    response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    let mut bytes = Vec::new();
    write_response(&mut bytes, &response).map_err(bad)?;
    Ok(bytes)
}

/// Refuses what a WebSocket may ask for and we do not have.
fn check(request: &Request, options: &ListenerOptions) -> Result<(), Refusal> {
    let refuse = |status, what| Err(Refusal { status, what });
    if request.uri().path() != options.path {
        return refuse(StatusCode::NOT_FOUND, format!("MQTT is at {}", options.path));
    }
    let origin = request.headers().get(ORIGIN);
    // Only browsers say where a page is from, and they always do.
    if let Some(origin) = origin.filter(|_| !options.origins.is_empty()) {
        let known = |known: &String| known.as_bytes().eq_ignore_ascii_case(origin.as_bytes());
        if !options.origins.iter().any(known) {
            return refuse(StatusCode::FORBIDDEN, "pages of this origin are not let in".to_owned());
        }
    }
    let offered = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL).into_iter();
    let mut offered = offered.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    if !offered.any(|name| name.trim() == SUBPROTOCOL) {
        return refuse(StatusCode::BAD_REQUEST, format!("the subprotocol `{SUBPROTOCOL}` is not offered"));
    }
    Ok(())
}

impl Refusal {
    fn response(&self) -> Vec<u8> {
        let Refusal { status, what } = self;
        let version = match *status {
            StatusCode::UPGRADE_REQUIRED => "Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n",
            _ => "",
        };
        let length = what.len() + 1;
        let head = "Connection: close\r\nContent-Type: text/plain; charset=utf-8";
        format!("HTTP/1.1 {status}\r\n{version}{head}\r\nContent-Length: {length}\r\n\r\n{what}\n")
            .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::listener::Protocol;
    use super::*;

    fn options(origins: &[&str]) -> ListenerOptions {
        let plain = ListenerOptions::plain(([127, 0, 0, 1], 0).into());
        let origins = origins.iter().map(|&origin| origin.to_owned()).collect();
        ListenerOptions { protocol: Protocol::Websocket, origins, ..plain }
    }

    fn request(path: &str, more: &str) -> String {
        format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
        )
    }

    const GOOD: &str = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqttv3.1, mqtt\r\n";

    fn status(request: &str, origins: &[&str]) -> u16 {
        match answer(request.as_bytes(), &options(origins)) {
            Ok(response) => {
                let response = String::from_utf8(response).unwrap();
                assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
                assert!(response.contains("sec-websocket-protocol: mqtt\r\n"), "{response}");
                assert!(response.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{response}");
                101
            }
            Err(refusal) => {
                let response = String::from_utf8(refusal.response()).unwrap();
                assert!(response.ends_with(&format!("{}\n", refusal.what)), "{response}");
                refusal.status.as_u16()
            }
        }
    }

    #[test]
    fn the_subprotocol_is_demanded_and_echoed() {
        assert_eq!(status(&request("/mqtt", GOOD), &[]), 101);
        assert_eq!(status(&request("/mqtt?a=b", GOOD), &[]), 101);
        assert_eq!(status(&request("/", GOOD), &[]), 404);
        assert_eq!(status(&request("/mqtt", "Sec-WebSocket-Version: 13\r\n"), &[]), 400);
        let other = GOOD.replace(", mqtt", "");
        assert_eq!(status(&request("/mqtt", &other), &[]), 400);
        assert_eq!(status(&request("/mqtt", &GOOD.replace("13", "8")), &[]), 426);
        assert_eq!(status(&request("/mqtt", GOOD).replace("GET", "POST"), &[]), 400);
        assert_eq!(status("GET / HTTP/1.1\r\n\r\n", &[]), 404);
        assert_eq!(status("GET /mqtt HTTP/1.1\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n", &[]), 400);
    }

    #[test]
    fn an_origin_is_looked_at_where_some_are_named() {
        let from = |origin: &str| request("/mqtt", &format!("{GOOD}Origin: {origin}\r\n"));
        let known = &["https://console.example.com"];
        assert_eq!(status(&from("https://evil.example.com"), &[]), 101);
        assert_eq!(status(&from("https://evil.example.com"), known), 403);
        assert_eq!(status(&from("https://Console.example.com"), known), 101);
        assert_eq!(status(&request("/mqtt", GOOD), known), 101);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, headers in "[ -~]{0,200}") {
            let _ = answer(&bytes, &options(&[]));
            let _ = answer(request("/mqtt", &format!("{headers}\r\n")).as_bytes(), &options(&[]));
            let _ = answer(format!("GET {headers} HTTP/1.1\r\n\r\n").as_bytes(), &options(&[]));
        }
    }
}
