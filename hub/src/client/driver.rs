//! The task that drives a client's connection, and the [`Inbox`] of what comes in.

use std::collections::{HashSet, VecDeque};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{Interest, Ready};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::rustls;

use super::link::{Ending, Link, Waiting};
use super::{ClientError, ClientOptions, ClientTls, TlsFault};
use crate::mqtt::codec::{
    Ack, Connack, Connect, ConnectProperties, Decoder, Disconnect, Packet, PacketId, Publish, Qos,
    ReasonCode, VARINT_MAX, Version,
};
use crate::mqtt::transport::Transport;

/// Bytes read with one call.
const READ_BYTES: usize = 64 << 10;
/// How an alert of TLS begins (RFC 8446, section 5.1): what a server that speaks it says to a CONNECT. No packet begins so.
const TLS_ALERT: [u8; 2] = [21, 3];

/// Messages that came in, in order. They are acknowledged when they are put in here; if it is dropped, they are
/// acknowledged and forgotten.
pub struct Inbox(mpsc::Receiver<Publish>);

impl Inbox {
    /// The next message; `None` when the connection has ended and all were taken.
    pub async fn next(&mut self) -> Option<Publish> {
        self.0.recv().await
    }
}

/// Connects and starts the task.
pub(super) async fn connect(options: &ClientOptions) -> Result<(Arc<Link>, Connack, Inbox), ClientError> {
    let connecting = timeout(options.connect_timeout, handshake(options));
    let (stream, connack, decoder, input) = connecting.await.map_err(|_| ClientError::Silent)??;
    let window =
        connack.properties.receive_maximum.map_or(usize::from(u16::MAX), |max| usize::from(max.get()));
    let packet_bytes_max = connack.properties.packet_bytes_max.map_or(VARINT_MAX, |max| max.get()) as usize;
    let keep_alive_s = connack.properties.server_keep_alive_s.unwrap_or(options.keep_alive_s);
    // Some identifiers are left over for SUBSCRIBEs.
    let link = Link::new(window.min(60_000), packet_bytes_max, options.out_buffer_bytes_max);
    let (inbox, messages) = mpsc::channel(options.inbox_messages_max.max(1));
    let driver = Driver {
        link: Arc::clone(&link),
        stream,
        decoder,
        input,
        out: BytesMut::new(),
        inbox,
        arrived: VecDeque::new(),
        unreleased: HashSet::new(),
        keep_alive: (keep_alive_s > 0).then(|| Duration::from_secs(u64::from(keep_alive_s))),
        last_written: Instant::now(),
        pinged: None,
    };
    tokio::spawn(driver.run());
    Ok((link, connack, Inbox(messages)))
}

async fn handshake(options: &ClientOptions) -> Result<(Transport, Connack, Decoder, BytesMut), ClientError> {
    let failed = |error: io::Error| not_connected(options.address, &error);
    let stream = TcpStream::connect(options.address).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let mut stream = match options.tls.clone() {
        None => Transport::Tcp(stream),
        Some(ClientTls { config, server }) => {
            Transport::connect_tls(config, server, stream).await.map_err(failed)?
        }
    };
    let session_expiry_s = Some(options.session_expiry_s).filter(|expiry| *expiry > 0);
    let connect = Connect {
        version: Version::V5,
        clean_start: options.clean_start,
        keep_alive_s: options.keep_alive_s,
        client_id: options.client_id.clone(),
        will: options.will.clone(),
        username: options.username.clone(),
        password: options.password.clone(),
        properties: ConnectProperties { session_expiry_s, ..ConnectProperties::default() },
    };
    let mut out = BytesMut::new();
    Packet::Connect(Box::new(connect)).encode(Version::V5, &mut out)?;
    stream.write_all(&out).await.map_err(failed)?;
    let mut decoder = Decoder::client(Version::V5, VARINT_MAX as usize);
    let mut input = BytesMut::new();
    loop {
        if options.tls.is_none() && input.starts_with(&TLS_ALERT) {
            return Err(ClientError::SpeaksTls);
        }
        match decoder.decode(&mut input)? {
            Some(Packet::Connack(connack)) if connack.reason.is_error() => {
                let text = connack.properties.reason_string.map(|text| text.to_string());
                return Err(ClientError::Refused { reason: connack.reason, text });
            }
            Some(Packet::Connack(connack)) => return Ok((stream, *connack, decoder, input)),
            Some(_) => return Err(ClientError::Closed(Some(ReasonCode::PROTOCOL_ERROR))),
            None => {}
        }
        stream.ready(Interest::READABLE).await.map_err(failed)?;
        input.reserve(READ_BYTES);
        match stream.try_read_buf(&mut input) {
            Ok(0) => return Err(ClientError::Closed(None)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Why there is no connection: TLS says so itself.
fn not_connected(address: SocketAddr, error: &io::Error) -> ClientError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(tls) => ClientError::Tls { address, error: tls.to_string(), fault: TlsFault::of(tls) },
        None => ClientError::Connect { address, error: error.to_string() },
    }
}

/// What the task waits for.
enum Event {
    /// The client has something to write or to end.
    Work,
    /// The socket.
    Socket(io::Result<Ready>),
    /// The inbox has room again, or is gone.
    Room,
    /// The keep alive wants something.
    Silence,
}

struct Driver {
    link: Arc<Link>,
    stream: Transport,
    decoder: Decoder,
    input: BytesMut,
    /// What is being written.
    out: BytesMut,
    inbox: mpsc::Sender<Publish>,
    /// Messages for which the inbox had no room.
    arrived: VecDeque<Publish>,
    /// QoS 2 messages that were not released.
    unreleased: HashSet<PacketId>,
    keep_alive: Option<Duration>,
    last_written: Instant,
    /// When a PINGREQ was sent that is not answered.
    pinged: Option<Instant>,
}

impl Driver {
    async fn run(mut self) {
        let error = loop {
            if let Err(error) = self.turn().await {
                break error;
            }
        };
        self.link.fail(&error);
    }

    async fn turn(&mut self) -> Result<(), ClientError> {
        self.link.take_output(&mut self.out);
        match self.link.ending() {
            Some(Ending::Cut) => return Err(ClientError::Closed(None)),
            Some(Ending::Goodbye) => return self.goodbye().await,
            None => {}
        }
        self.write()?;
        // With a full inbox the server is not read.
        let blocked = !self.arrived.is_empty();
        let written = self.out.is_empty() && !self.stream.has_unsent();
        let interest = match (blocked, written) {
            (false, true) => Some(Interest::READABLE),
            (false, false) => Some(Interest::READABLE | Interest::WRITABLE),
            (true, false) => Some(Interest::WRITABLE),
            (true, true) => None,
        };
        let deadline =
            self.keep_alive.map(|keep_alive| self.pinged.unwrap_or(self.last_written) + keep_alive);
        let Self { link, stream, inbox, .. } = self;
        let event = tokio::select! {
            () = link.work.notified() => Event::Work,
            ready = stream.ready(interest.unwrap_or(Interest::READABLE)), if interest.is_some() => Event::Socket(ready),
            _ = inbox.reserve(), if blocked => Event::Room,
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => Event::Silence,
        };
        match event {
            Event::Work => Ok(()),
            Event::Socket(ready) => {
                let readable = ready.map_err(lost)?.is_readable();
                if readable && !blocked { self.read() } else { Ok(()) }
            }
            Event::Room => {
                for publish in std::mem::take(&mut self.arrived) {
                    self.put(publish);
                }
                Ok(())
            }
            Event::Silence => self.ping(blocked),
        }
    }

    /// Nothing was written for the keep alive, or a PINGREQ not answered for as long.
    fn ping(&mut self, blocked: bool) -> Result<(), ClientError> {
        // An answer cannot be seen while the server is not read.
        if self.pinged.is_some() && !blocked {
            return Err(ClientError::Silent);
        }
        self.send(&Packet::Pingreq);
        self.pinged = Some(Instant::now());
        Ok(())
    }

    fn send(&mut self, packet: &Packet) {
        // Acknowledgements and pings always fit.
        let encoded = packet.encode(Version::V5, &mut self.out);
        debug_assert!(encoded.is_ok());
    }

    fn write(&mut self) -> Result<(), ClientError> {
        while !self.out.is_empty() {
            match self.stream.try_write_vectored(&[IoSlice::new(&self.out)]) {
                Ok(count) => {
                    self.out.advance(count);
                    self.last_written = Instant::now();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(lost(error)),
            }
        }
        self.stream.try_flush().map_err(lost)
    }

    /// Writes what is left and a DISCONNECT.
    async fn goodbye(&mut self) -> Result<(), ClientError> {
        self.send(&Packet::Disconnect(Disconnect::default()));
        self.stream.write_all(&self.out).await.map_err(lost)?;
        self.stream.close();
        let _ = self.stream.write_all(&[]).await;
        Err(ClientError::Closed(Some(ReasonCode::SUCCESS)))
    }

    fn read(&mut self) -> Result<(), ClientError> {
        self.input.reserve(READ_BYTES);
        match self.stream.try_read_buf(&mut self.input) {
            Ok(0) => return Err(ClientError::Closed(None)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(lost(error)),
        }
        while let Some(packet) = self.decoder.decode(&mut self.input)? {
            self.handle(packet)?;
        }
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        Ok(())
    }

    fn handle(&mut self, packet: Packet) -> Result<(), ClientError> {
        let publish_of = |qos| move |waiting: &Waiting| matches!(waiting, Waiting::Publish { qos: sent, .. } if *sent == qos);
        match packet {
            Packet::Publish(publish) => self.arrive(publish),
            Packet::Puback(ack) => self.link.answer(ack.id, ack.reason, publish_of(Qos::AtLeastOnce)),
            Packet::Pubrec(ack) if ack.reason.is_error() => {
                self.link.answer(ack.id, ack.reason, publish_of(Qos::ExactlyOnce));
            }
            Packet::Pubrec(ack) => self.send(&Packet::Pubrel(Ack::new(ack.id, ReasonCode::SUCCESS))),
            Packet::Pubcomp(ack) => self.link.answer(ack.id, ack.reason, publish_of(Qos::ExactlyOnce)),
            Packet::Pubrel(ack) => {
                self.unreleased.remove(&ack.id);
                self.send(&Packet::Pubcomp(Ack::new(ack.id, ReasonCode::SUCCESS)));
            }
            Packet::Suback(suback) => {
                let reason = suback.reasons.first().copied().unwrap_or(ReasonCode::UNSPECIFIED_ERROR);
                self.link.answer(suback.id, reason, |waiting| matches!(waiting, Waiting::Subscribe { .. }));
            }
            Packet::Pingresp => self.pinged = None,
            Packet::Disconnect(disconnect) => return Err(ClientError::Closed(Some(disconnect.reason))),
            _ => return Err(ClientError::Closed(Some(ReasonCode::PROTOCOL_ERROR))),
        }
        Ok(())
    }

    /// A message came in: into the inbox, and then acknowledged.
    fn arrive(&mut self, publish: Publish) {
        let ack = ack_of(&publish);
        if let Some((Qos::ExactlyOnce, id)) = ack
            && !self.unreleased.insert(id)
        {
            // It is here already.
            self.acknowledge(ack);
            return;
        }
        self.put(publish);
    }

    /// Puts a message into the inbox, or behind those that wait for room there.
    fn put(&mut self, publish: Publish) {
        if !self.arrived.is_empty() {
            self.arrived.push_back(publish);
            return;
        }
        let ack = ack_of(&publish);
        match self.inbox.try_send(publish) {
            // If nobody listens any more, it is acknowledged and forgotten.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => self.acknowledge(ack),
            Err(mpsc::error::TrySendError::Full(publish)) => self.arrived.push_back(publish),
        }
    }

    fn acknowledge(&mut self, ack: Option<(Qos, PacketId)>) {
        match ack {
            Some((Qos::ExactlyOnce, id)) => self.send(&Packet::Pubrec(Ack::new(id, ReasonCode::SUCCESS))),
            Some((_, id)) => self.send(&Packet::Puback(Ack::new(id, ReasonCode::SUCCESS))),
            None => {}
        }
    }
}

/// What is owed for a message.
fn ack_of(publish: &Publish) -> Option<(Qos, PacketId)> {
    publish.id.map(|id| (publish.qos, id))
}

fn lost(error: io::Error) -> ClientError {
    ClientError::Lost(error.to_string())
}
