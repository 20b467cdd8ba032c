//! [`ClientOptions`] and [`ClientError`].

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use tokio_rustls::rustls;

use super::ClientTls;
use crate::mqtt::codec::{DecodeError, LastWill, ReasonCode};

/// How to connect.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// The server.
    pub address: SocketAddr,
    /// TLS, if it is to be spoken.
    pub tls: Option<ClientTls>,
    /// Who this is; empty lets the server give a name.
    pub client_id: ByteString,
    /// Whether to begin with a new session.
    pub clean_start: bool,
    /// Seconds the session lives on after the connection.
    pub session_expiry_s: u32,
    /// Seconds without a packet after which the server is pinged; 0 is never.
    pub keep_alive_s: u16,
    /// User name.
    pub username: Option<ByteString>,
    /// Password.
    pub password: Option<Bytes>,
    /// What the server publishes if this client is lost.
    pub will: Option<LastWill>,
    /// How long connecting may take, CONNACK included.
    pub connect_timeout: Duration,
    /// Messages received that may wait in the [`super::Inbox`]; with more, the socket is not read.
    pub inbox_messages_max: usize,
    /// Bytes that may wait for the socket; with more, publishing waits.
    pub out_buffer_bytes_max: usize,
}

impl ClientOptions {
    /// A clean session that ends with its connection, and the defaults: keep alive 30 s, 10 s to connect, 1,024
    /// messages and 1 MiB to wait.
    #[must_use]
    pub fn new(address: SocketAddr, client_id: impl Into<ByteString>) -> Self {
        ClientOptions {
            address,
            tls: None,
            client_id: client_id.into(),
            clean_start: true,
            session_expiry_s: 0,
            keep_alive_s: 30,
            username: None,
            password: None,
            will: None,
            connect_timeout: Duration::from_secs(10),
            inbox_messages_max: 1024,
            out_buffer_bytes_max: 1 << 20,
        }
    }
}

/// What can go wrong for a client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// No connection.
    #[error("connecting to {address}: {error}")]
    Connect {
        /// The server.
        address: SocketAddr,
        /// What the system said.
        error: String,
    },
    /// A connection, and no TLS over it.
    #[error("TLS with {address}: {error}")]
    Tls {
        /// The server.
        address: SocketAddr,
        /// What TLS said.
        error: String,
        /// Whose fault it is, if that is known.
        fault: Option<TlsFault>,
    },
    /// The server speaks TLS, and this client does not.
    #[error("the server answers in TLS")]
    SpeaksTls,
    /// The server refused the connection or a message.
    #[error("the server refused: {reason}{}", .text.as_deref().map(|text| format!(": {text}")).unwrap_or_default())]
    Refused {
        /// The reason code.
        reason: ReasonCode,
        /// What it said in words.
        text: Option<String>,
    },
    /// The server does not answer.
    #[error("the server does not answer")]
    Silent,
    /// The connection has ended; with the reason code the server gave.
    #[error("the connection is closed{}", .0.map(|reason| format!(": {reason}")).unwrap_or_default())]
    Closed(Option<ReasonCode>),
    /// The network failed.
    #[error("the connection is lost: {0}")]
    Lost(String),
    /// The server sent something that is no MQTT.
    #[error("the server broke the protocol: {0}")]
    Protocol(#[from] DecodeError),
    /// Not a topic.
    #[error("the topic cannot be published to: {0}")]
    Topic(&'static str),
    /// The message is larger than the server accepts.
    #[error("a message of {bytes} bytes is larger than the {max} bytes that the server accepts")]
    TooLarge {
        /// Bytes of the packet, about.
        bytes: usize,
        /// What the server accepts.
        max: usize,
    },
    /// A part of the packet is longer than MQTT can say.
    #[error("the packet cannot be written: {0}")]
    Encode(#[from] crate::mqtt::codec::EncodeError),
}

/// Why there is no TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFault {
    /// The server wants a certificate of the client, another one if it was shown one.
    Identity,
    /// The server's certificate is not for the name it was called by.
    Name,
    /// The server's certificate is not trusted for another reason.
    Trust,
}

impl TlsFault {
    /// Whose fault an error is.
    pub(super) fn of(error: &rustls::Error) -> Option<TlsFault> {
        use rustls::{AlertDescription as Alert, CertificateError, Error};
        match error {
            Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => Some(TlsFault::Name),
            Error::InvalidCertificate(_) => Some(TlsFault::Trust),
            Error::AlertReceived(
                Alert::CertificateRequired
                | Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied,
            ) => Some(TlsFault::Identity),
            _ => None,
        }
    }
}

impl ClientError {
    /// A refusal without words.
    pub(super) fn refused(reason: ReasonCode) -> Self {
        ClientError::Refused { reason, text: None }
    }
}
