//! [`Client`]: a connection to a server.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter};
use tokio::net::TcpStream;

use super::encode::{self, Connect, Publish};
use super::packet::{self, Packet};
use super::{Level, Properties};

/// How long a test waits for a packet that must come.
pub const PACKET_LIMIT: Duration = Duration::from_secs(30);

/// A connection: its two halves, which may be taken apart.
pub struct Client {
    /// Sends packets.
    pub writer: Writer,
    /// Receives packets.
    pub reader: Reader,
    /// Whether the server had a session of ours.
    pub session_present: bool,
    /// The properties of CONNACK.
    pub properties: Properties,
}

/// The half that sends. Packets wait in a buffer until [`Writer::flush`].
pub struct Writer {
    level: Level,
    stream: BufWriter<Box<dyn AsyncWrite + Send + Sync + Unpin>>,
}

/// The half that receives.
pub struct Reader {
    level: Level,
    stream: Box<dyn AsyncRead + Send + Sync + Unpin>,
    buffer: BytesMut,
}

/// A message that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// The topic.
    pub topic: String,
    /// The payload.
    pub payload: Bytes,
    /// QoS.
    pub qos: u8,
    /// The retain flag.
    pub retain: bool,
    /// The DUP flag.
    pub dup: bool,
    /// Packet identifier, 0 with QoS 0.
    pub id: u16,
}

impl Client {
    /// Opens a connection without sending anything: for tests of what comes before CONNECT.
    pub async fn open(server: SocketAddr, level: Level) -> io::Result<(Writer, Reader)> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        Ok(Self::halves(read, write, level))
    }

    /// [`Client::open`] over what is open already: TLS, a WebSocket.
    pub fn open_over(
        stream: impl AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static,
        level: Level,
    ) -> (Writer, Reader) {
        let (read, write) = tokio::io::split(stream);
        Self::halves(read, write, level)
    }

    fn halves(
        read: impl AsyncRead + Send + Sync + Unpin + 'static,
        write: impl AsyncWrite + Send + Sync + Unpin + 'static,
        level: Level,
    ) -> (Writer, Reader) {
        let writer = Writer { level, stream: BufWriter::with_capacity(64 * 1024, Box::new(write)) };
        let reader = Reader { level, stream: Box::new(read), buffer: BytesMut::with_capacity(64 * 1024) };
        (writer, reader)
    }

    /// Connects over what is open already. An error when the server refuses or says something else
    /// than CONNACK.
    pub async fn try_over(
        stream: impl AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static,
        connect: &Connect,
    ) -> io::Result<Client> {
        let (writer, reader) = Self::open_over(stream, connect.level);
        Self::begin(writer, reader, connect).await
    }

    /// [`Client::try_over`].
    ///
    /// # Panics
    /// When that fails, or takes longer than [`PACKET_LIMIT`].
    pub async fn over(
        stream: impl AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static,
        connect: &Connect,
    ) -> Client {
        match tokio::time::timeout(PACKET_LIMIT, Self::try_over(stream, connect)).await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => panic!("client {} cannot connect: {error}", connect.client),
            Err(_) => panic!("client {} got no CONNACK in {PACKET_LIMIT:?}", connect.client),
        }
    }

    /// Connects. An error when the server cannot be reached, refuses or says something else than CONNACK.
    pub async fn try_connect(server: SocketAddr, connect: &Connect) -> io::Result<Client> {
        let (writer, reader) = Self::open(server, connect.level).await?;
        Self::begin(writer, reader, connect).await
    }

    async fn begin(mut writer: Writer, mut reader: Reader, connect: &Connect) -> io::Result<Client> {
        writer.raw(&connect.encode()).await?;
        match reader.next().await? {
            Some(Packet::ConnAck { session_present, reason: 0, properties }) => {
                Ok(Client { writer, reader, session_present, properties })
            }
            other => Err(io::Error::other(format!("CONNECT was answered with {other:?}"))),
        }
    }

    /// Connects.
    ///
    /// # Panics
    /// When that fails, or takes longer than [`PACKET_LIMIT`].
    pub async fn connect(server: SocketAddr, connect: &Connect) -> Client {
        let connected = tokio::time::timeout(PACKET_LIMIT, Self::try_connect(server, connect)).await;
        match connected {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => panic!("client {} cannot connect to {server}: {error}", connect.client),
            Err(_) => panic!("client {} got no CONNACK from {server} in {PACKET_LIMIT:?}", connect.client),
        }
    }

    /// Subscribes and waits for SUBACK.
    ///
    /// # Panics
    /// When the connection breaks, or a filter is refused or granted less than was asked for.
    pub async fn subscribe(&mut self, filters: &[(&str, u8)]) {
        self.writer.subscribe(1, filters).await.expect("an open connection");
        let wanted: Vec<u8> = filters.iter().map(|(_, qos)| *qos).collect();
        match self.packet().await {
            Packet::SubAck { id: 1, reasons } if reasons == wanted => {}
            other => panic!("SUBSCRIBE {filters:?} was answered with {other:?}"),
        }
    }

    /// Publishes, and waits for nothing.
    ///
    /// # Panics
    /// When the connection breaks.
    pub async fn publish(&mut self, publish: Publish) {
        self.writer.publish(&publish).await.expect("an open connection");
        self.writer.flush().await.expect("an open connection");
    }

    /// Publishes with QoS 1 and waits for PUBACK.
    ///
    /// # Panics
    /// When the connection breaks, or the message is refused.
    pub async fn publish_acked(&mut self, publish: Publish) {
        let id = if publish.id == 0 { 1 } else { publish.id };
        let topic = publish.topic.clone();
        self.publish(Publish { qos: 1, id, ..publish }).await;
        match self.packet().await {
            // 16: no matching subscribers, which is no refusal.
            Packet::PubAck { id: acked, reason: 0 | 16 } if acked == id => {}
            other => panic!("PUBLISH to {topic} was answered with {other:?}"),
        }
    }

    /// The next packet.
    ///
    /// # Panics
    /// When none comes within [`PACKET_LIMIT`], or the connection ends.
    pub async fn packet(&mut self) -> Packet {
        self.reader.packet().await
    }

    /// The next message, acknowledged as its QoS wants.
    ///
    /// # Panics
    /// When another packet than the expected comes, or none within [`PACKET_LIMIT`].
    pub async fn message(&mut self) -> Arrived {
        let arrived = match self.packet().await {
            Packet::Publish { dup, qos, retain, topic, id, payload, .. } => {
                Arrived { topic, payload, qos, retain, dup, id }
            }
            other => panic!("a PUBLISH was expected, not {other:?}"),
        };
        match arrived.qos {
            0 => {}
            1 => self.writer.puback(arrived.id).await.expect("an open connection"),
            _ => {
                self.writer.acknowledge(5, arrived.id).await.expect("an open connection");
                self.writer.flush().await.expect("an open connection");
                match self.packet().await {
                    Packet::PubRel { id, reason: 0 } if id == arrived.id => {}
                    other => panic!("PUBREC was answered with {other:?}"),
                }
                self.writer.acknowledge(7, arrived.id).await.expect("an open connection");
            }
        }
        self.writer.flush().await.expect("an open connection");
        arrived
    }

    /// Shows that nothing more is being sent: everything the server sent before it answered our PINGREQ is here.
    ///
    /// # Panics
    /// When a packet other than PINGRESP comes first.
    pub async fn nothing_comes(&mut self) {
        self.writer.ping().await.expect("an open connection");
        match self.packet().await {
            Packet::PingResp => {}
            other => panic!("nothing was expected, not {other:?}"),
        }
    }

    /// Sends DISCONNECT and waits until the server has closed the connection.
    ///
    /// # Panics
    /// When it does not.
    pub async fn disconnect(mut self) {
        self.writer.raw(&encode::DISCONNECT).await.expect("an open connection");
        let closed = async { while let Ok(Some(_)) = self.reader.next().await {} };
        tokio::time::timeout(PACKET_LIMIT, closed).await.expect("the server closes after DISCONNECT");
    }
}

impl Writer {
    /// Sends bytes as they are, at once.
    pub async fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.flush().await
    }

    /// Sends what is buffered.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.stream.flush().await
    }

    /// PUBLISH, buffered.
    pub async fn publish(&mut self, publish: &Publish) -> io::Result<()> {
        self.stream.write_all(&publish.encode(self.level)).await
    }

    /// PUBACK, buffered.
    pub async fn puback(&mut self, id: u16) -> io::Result<()> {
        self.acknowledge(4, id).await
    }

    /// PUBACK (4), PUBREC (5), PUBREL (6) or PUBCOMP (7), buffered.
    pub async fn acknowledge(&mut self, kind: u8, id: u16) -> io::Result<()> {
        self.stream.write_all(&encode::acknowledgement(kind, id)).await
    }

    /// SUBSCRIBE, at once.
    pub async fn subscribe(&mut self, id: u16, filters: &[(&str, u8)]) -> io::Result<()> {
        let packet = encode::subscribe(self.level, id, filters);
        self.raw(&packet).await
    }

    /// PINGREQ, at once.
    pub async fn ping(&mut self) -> io::Result<()> {
        self.raw(&encode::PINGREQ).await
    }
}

impl Reader {
    /// The next packet; `None` when the server has closed the connection in good order.
    /// Can be cancelled without losing anything.
    pub async fn next(&mut self) -> io::Result<Option<Packet>> {
        loop {
            if let Some(packet) = self.buffered()? {
                return Ok(Some(packet));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                let whole = self.buffer.is_empty();
                return if whole { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// The next packet if it has already been received whole.
    pub fn buffered(&mut self) -> io::Result<Option<Packet>> {
        packet::decode(self.level, &mut self.buffer)
    }

    /// The next packet.
    ///
    /// # Panics
    /// When none comes within [`PACKET_LIMIT`], or the connection ends.
    pub async fn packet(&mut self) -> Packet {
        match tokio::time::timeout(PACKET_LIMIT, self.next()).await {
            Ok(Ok(Some(packet))) => packet,
            Ok(Ok(None)) => panic!("the server closed the connection"),
            Ok(Err(error)) => panic!("the connection broke: {error}"),
            Err(_) => panic!("no packet in {PACKET_LIMIT:?}"),
        }
    }

    /// All packets until the server closes the connection.
    ///
    /// # Panics
    /// When it is still open after [`PACKET_LIMIT`].
    pub async fn until_closed(&mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        let closed = async {
            while let Ok(Some(packet)) = self.next().await {
                packets.push(packet);
            }
        };
        let closed = tokio::time::timeout(PACKET_LIMIT, closed).await;
        assert!(closed.is_ok(), "the server left the connection open; it sent {packets:?}");
        packets
    }
}
