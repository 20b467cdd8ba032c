//! A broker on a store of its own, and a client's end of a connection to it.

pub(crate) use std::net::SocketAddr;
pub(crate) use std::time::Duration;

pub(crate) use bytes::{Bytes, BytesMut};
pub(crate) use tempfile::TempDir;
use tidemill_hub::mqtt::access::Access;
use tidemill_hub::mqtt::access::settings::Settings;
pub(crate) use tidemill_hub::mqtt::codec::{
    Ack, Connack, Connect, ConnectProperties, Decoder, Disconnect, DisconnectProperties, LastWill, Packet,
    PacketId, Publish, PublishProperties, Qos, ReasonCode, RetainHandling, Subscribe, SubscribeProperties,
    SubscriptionId, SubscriptionOptions, TopicRequest, Unsubscribe, UnsubscribeProperties, Version,
    WillProperties,
};
pub(crate) use tidemill_hub::mqtt::{Broker, BrokerStats, Options};
pub(crate) use tidemill_store::Store;
pub(crate) use tokio::io::{AsyncReadExt, AsyncWriteExt};
pub(crate) use tokio::net::TcpStream;
pub(crate) use tokio::time::timeout;

pub(crate) const BOTH: [Version; 2] = [Version::V311, Version::V5];
pub(crate) const QOS: [Qos; 3] = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];
/// Far longer than anything here takes; only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How long nothing must come for it to count as nothing.
pub(crate) const QUIET: Duration = Duration::from_millis(150);

/// A broker on a store.
pub(crate) struct Hub {
    pub(crate) broker: Broker,
    pub(crate) store: Store,
    pub(crate) options: Options,
    pub(crate) dir: TempDir,
}

pub(crate) fn options() -> Options {
    Options { listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))], threads: 2, ..Options::default() }
}

/// Everybody may do everything.
pub(crate) fn everybody() -> Access {
    Access::open(&Settings::default()).unwrap()
}

pub(crate) async fn open(dir: &TempDir) -> Store {
    let options =
        tidemill_store::Options { segment_bytes: 8 << 20, ..tidemill_store::Options::new(dir.path()) };
    tokio::task::spawn_blocking(move || Store::open(options)).await.unwrap().unwrap()
}

impl Hub {
    pub(crate) async fn start() -> Hub {
        Hub::with(options()).await
    }

    pub(crate) async fn with(options: Options) -> Hub {
        let dir = TempDir::new().unwrap();
        let store = open(&dir).await;
        let broker = Broker::start(options.clone(), everybody(), store.clone()).await.unwrap();
        Hub { broker, store, options, dir }
    }

    /// Stops in order, and starts again on the same data.
    pub(crate) async fn restart(self) -> Hub {
        let Hub { broker, store, options, dir } = self;
        broker.stop(PATIENCE).await;
        drop(broker);
        store.close().await.unwrap();
        drop(store);
        let store = open(&dir).await;
        let broker = Broker::start(options.clone(), everybody(), store.clone()).await.unwrap();
        Hub { broker, store, options, dir }
    }

    pub(crate) async fn stop(self) {
        self.broker.stop(PATIENCE).await;
        self.store.close().await.unwrap();
    }

    pub(crate) async fn raw(&self, version: Version) -> Peer {
        let stream = TcpStream::connect(self.broker.addresses()[0]).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Peer { stream, version, input: BytesMut::new(), decoder: Decoder::client(version, usize::MAX) }
    }

    /// Connects with a clean session.
    pub(crate) async fn connect(&self, version: Version, client: &str) -> Peer {
        self.connect_with(connect(version, client)).await.0
    }

    pub(crate) async fn connect_with(&self, connect: Connect) -> (Peer, Connack) {
        let mut peer = self.raw(connect.version).await;
        peer.send(&Packet::Connect(Box::new(connect))).await;
        let Packet::Connack(connack) = peer.recv().await else { panic!("no CONNACK") };
        (peer, *connack)
    }

    pub(crate) async fn wait_for(&self, what: impl Fn(BrokerStats) -> bool) {
        let found = async {
            while !what(self.broker.stats()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let waited = timeout(PATIENCE, found).await;
        assert!(waited.is_ok(), "{:?}", self.broker.stats());
    }

    /// Waits until this many connections are open.
    pub(crate) async fn connections(&self, count: u64) {
        self.wait_for(|stats| stats.connections == count).await;
    }
}

pub(crate) fn connect(version: Version, client: &str) -> Connect {
    Connect {
        version,
        clean_start: true,
        keep_alive_s: 0,
        client_id: client.into(),
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
    }
}

/// A session that is kept.
pub(crate) fn keep(version: Version, client: &str) -> Connect {
    let session_expiry_s = (version == Version::V5).then_some(u32::MAX);
    let properties = ConnectProperties { session_expiry_s, ..Default::default() };
    Connect { clean_start: false, properties, ..connect(version, client) }
}

pub(crate) fn will(topic: &str, delay_s: Option<u32>) -> Option<LastWill> {
    Some(LastWill {
        topic: topic.to_owned().into(),
        payload: Bytes::from_static(b"gone"),
        qos: Qos::AtLeastOnce,
        retain: false,
        properties: WillProperties { delay_s, ..Default::default() },
    })
}

pub(crate) fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

pub(crate) fn message(topic: &str, payload: impl Into<Bytes>, qos: Qos, packet_id: u16) -> Publish {
    let id = (qos > Qos::AtMostOnce).then(|| id(packet_id));
    Publish { qos, topic: topic.to_owned().into(), id, payload: payload.into(), ..Default::default() }
}

/// A client's end of a connection.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    pub(crate) version: Version,
    pub(crate) input: BytesMut,
    pub(crate) decoder: Decoder,
}

impl Peer {
    pub(crate) async fn bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn send(&mut self, packet: &Packet) {
        let mut out = BytesMut::new();
        packet.encode(self.version, &mut out).unwrap();
        self.bytes(&out).await;
    }

    /// The next packet; `None` when the server has closed the connection.
    pub(crate) async fn next(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = self.decoder.decode(&mut self.input).unwrap() {
                return Some(packet);
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.input)).await;
            match read.expect("the server says nothing") {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) async fn recv(&mut self) -> Packet {
        self.next().await.expect("the server has closed the connection")
    }

    pub(crate) async fn recv_publish(&mut self) -> Publish {
        match self.recv().await {
            Packet::Publish(publish) => publish,
            other => panic!("not a PUBLISH: {other:?}"),
        }
    }

    /// Receives a message and acknowledges it in full.
    pub(crate) async fn take(&mut self) -> Publish {
        let publish = self.recv_publish().await;
        match publish.qos {
            Qos::AtMostOnce => {}
            Qos::AtLeastOnce => self.send(&Packet::Puback(ok(publish.id.unwrap()))).await,
            Qos::ExactlyOnce => {
                let id = publish.id.unwrap();
                self.send(&Packet::Pubrec(ok(id))).await;
                assert_eq!(self.recv().await, Packet::Pubrel(ok(id)));
                self.send(&Packet::Pubcomp(ok(id))).await;
            }
        }
        publish
    }

    pub(crate) async fn expect_close(&mut self, reason: ReasonCode) {
        if self.version == Version::V5 {
            match self.recv().await {
                Packet::Disconnect(disconnect) => assert_eq!(disconnect.reason, reason),
                other => panic!("not a DISCONNECT: {other:?}"),
            }
        }
        assert_eq!(self.next().await, None);
    }

    pub(crate) async fn expect_quiet(&mut self) {
        let more = timeout(QUIET, self.next()).await;
        assert!(more.is_err(), "{more:?}");
    }

    /// Everything sent before has been handled when this returns.
    pub(crate) async fn ping(&mut self) {
        self.send(&Packet::Pingreq).await;
        assert_eq!(self.recv().await, Packet::Pingresp);
    }

    pub(crate) async fn subscribe(&mut self, filter: &str, qos: Qos) {
        self.subscribe_with(filter, SubscriptionOptions { qos, ..Default::default() }, None).await;
    }

    pub(crate) async fn subscribe_with(
        &mut self,
        filter: &str,
        options: SubscriptionOptions,
        number: Option<u32>,
    ) {
        let reason = self.try_subscribe(filter, options, number).await;
        assert_eq!(reason, ReasonCode(options.qos.bits()), "{filter}");
    }

    pub(crate) async fn try_subscribe(
        &mut self,
        filter: &str,
        options: SubscriptionOptions,
        number: Option<u32>,
    ) -> ReasonCode {
        let subscription_id = number.map(|number| SubscriptionId::new(number).unwrap());
        let properties = SubscribeProperties { subscription_id, user_properties: Vec::new() };
        let filters = vec![TopicRequest { filter: filter.to_owned().into(), options }].into();
        self.send(&Packet::Subscribe(Subscribe { id: id(99), properties, filters })).await;
        match self.recv().await {
            Packet::Suback(suback) => {
                assert_eq!((suback.id, suback.reasons.len()), (id(99), 1));
                suback.reasons[0]
            }
            other => panic!("not a SUBACK: {other:?}"),
        }
    }

    pub(crate) async fn unsubscribe(&mut self, filter: &str) -> Packet {
        let filters = vec![filter.to_owned().into()].into();
        let properties = UnsubscribeProperties::default();
        self.send(&Packet::Unsubscribe(Unsubscribe { id: id(98), properties, filters })).await;
        self.recv().await
    }

    /// Publishes, and waits until it is acknowledged in full.
    pub(crate) async fn publish(&mut self, publish: Publish) {
        let (qos, packet_id) = (publish.qos, publish.id);
        self.send(&Packet::Publish(publish)).await;
        match qos {
            Qos::AtMostOnce => self.ping().await,
            Qos::AtLeastOnce => assert_eq!(self.recv().await, Packet::Puback(ok(packet_id.unwrap()))),
            Qos::ExactlyOnce => {
                let id = packet_id.unwrap();
                assert_eq!(self.recv().await, Packet::Pubrec(ok(id)));
                self.send(&Packet::Pubrel(ok(id))).await;
                assert_eq!(self.recv().await, Packet::Pubcomp(ok(id)));
            }
        }
    }

    /// Publishes numbers with QoS 1.
    pub(crate) async fn publish_numbers(&mut self, topic: &str, numbers: std::ops::Range<u32>) {
        for number in numbers {
            self.publish(message(topic, number.to_string(), Qos::AtLeastOnce, 7)).await;
        }
    }

    pub(crate) async fn disconnect(mut self) {
        self.send(&Packet::Disconnect(Disconnect::default())).await;
        assert_eq!(self.next().await, None);
    }
}

pub(crate) fn ok(id: PacketId) -> Ack {
    Ack::new(id, ReasonCode::SUCCESS)
}

pub(crate) fn text(publish: &Publish) -> &str {
    std::str::from_utf8(&publish.payload).unwrap()
}
