//! A broker whose store fails for a while, or whose connections are gone before they are answered: what cannot be brought about
//! from outside.
//!
//! # Layout
//! - this file: the broker and its clients; documents that cannot be written once
//! - `disk`: a disk that is full for a while
//! - `panics`: connections that fail with a panic

mod disk;
mod panics;

use bytes::BytesMut;
use bytestring::ByteString;
use tempfile::TempDir;
use tidemill_store::faults::{fail_documents, hold_documents};
use tidemill_store::{Collection, Due};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::access::certificates::CertificateSettings;
use super::access::settings::{Settings, SourceKind, SourceSettings};
use super::codec::{
    Ack, Connack, Connect, ConnectProperties, Decoder, LastWill, Packet, Publish, PublishProperties, Qos,
    ReasonCode, Subscribe, SubscribeProperties, SubscriptionId, SubscriptionOptions, TopicRequest,
    Unsubscribe, UnsubscribeProperties, Version, WillProperties,
};
use super::registry::{Holder, Mail};
use super::session::{Session, Stored, Will};
use super::sessions::Loaded;
use super::*;

const LIMIT: Duration = Duration::from_secs(20);

struct Hub {
    broker: Broker,
    dir: TempDir,
}

impl Hub {
    async fn start() -> Hub {
        Hub::start_in(tempfile::tempdir().unwrap()).await
    }

    async fn start_in(dir: TempDir) -> Hub {
        Hub::start_with(dir, 2).await
    }

    async fn start_with(dir: TempDir, threads: usize) -> Hub {
        let store = Store::open(tidemill_store::Options::new(dir.path())).unwrap();
        let options = Options { listen: vec!["127.0.0.1:0".parse().unwrap()], threads, ..Options::default() };
        let access = Access::open(&Settings::default()).unwrap();
        Hub { broker: Broker::start(options, access, store).await.unwrap(), dir }
    }

    /// Ends it in order. Left to the end of the process, its index would still be at work while the process takes its
    /// libraries down.
    async fn stop(self) {
        self.broker.stop(LIMIT).await;
        self.broker.shared.store.close().await.unwrap();
    }

    /// Waits until the numbers are these.
    async fn until(&self, what: &str, is_so: impl Fn(&BrokerStats) -> bool) {
        let wait = async {
            while !is_so(&self.broker.stats()) {
                tokio::time::sleep(STOP_POLL).await;
            }
        };
        timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("{what}: {:?}", self.broker.stats()));
    }

    /// Waits until a session has no connection.
    async fn until_offline(&self, client: &str) {
        let wait = async {
            while !matches!(self.broker.shared.registry.holder(client), Holder::Document) {
                tokio::time::sleep(STOP_POLL).await;
            }
        };
        timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("`{client}` still has a connection"));
    }
}

struct Client {
    stream: TcpStream,
    decoder: Decoder,
    input: BytesMut,
}

impl Client {
    /// Connects; what the hub says to that.
    async fn open(hub: &Hub, connect: Connect) -> (Client, Connack) {
        let stream = TcpStream::connect(hub.broker.addresses()[0]).await.unwrap();
        let mut client =
            Client { stream, decoder: Decoder::client(Version::V5, usize::MAX), input: BytesMut::new() };
        client.send(&Packet::Connect(Box::new(connect))).await;
        match client.next().await {
            Some(Packet::Connack(connack)) => (client, *connack),
            other => panic!("no CONNACK: {other:?}"),
        }
    }

    /// The same, and it is let in.
    async fn connect(hub: &Hub, connect: Connect) -> Client {
        let (client, connack) = Client::open(hub, connect).await;
        assert_eq!(connack.reason, ReasonCode::SUCCESS);
        client
    }

    async fn send(&mut self, packet: &Packet) {
        let mut bytes = BytesMut::new();
        packet.encode(Version::V5, &mut bytes).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// The next packet; `None` at the end.
    async fn next(&mut self) -> Option<Packet> {
        let read = async {
            loop {
                if let Some(packet) = self.decoder.decode(&mut self.input).unwrap() {
                    return Some(packet);
                }
                if self.stream.read_buf(&mut self.input).await.unwrap_or(0) == 0 {
                    return None;
                }
            }
        };
        timeout(LIMIT, read).await.expect("nothing came")
    }

    async fn send_subscribe(&mut self, filter: &str, qos: Qos, number: u32) {
        let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
        let properties =
            SubscribeProperties { subscription_id: SubscriptionId::new(number), ..Default::default() };
        let filters = vec![TopicRequest { filter: filter.into(), options }];
        self.send(&Packet::Subscribe(Subscribe {
            id: 1.try_into().unwrap(),
            properties,
            filters: filters.into(),
        }))
        .await;
    }

    async fn subscribe(&mut self, filter: &str, qos: Qos, number: u32) -> ReasonCode {
        self.send_subscribe(filter, qos, number).await;
        match self.next().await {
            Some(Packet::Suback(suback)) => suback.reasons[0],
            other => panic!("no SUBACK: {other:?}"),
        }
    }

    async fn publish(&mut self, topic: &str) {
        let publish = Publish {
            dup: false,
            qos: Qos::AtLeastOnce,
            retain: false,
            topic: topic.into(),
            id: Some(7.try_into().unwrap()),
            properties: PublishProperties::default(),
            payload: "x".into(),
        };
        self.send(&Packet::Publish(publish)).await;
    }

    /// Publishes a retained message, and waits until it is stored.
    async fn publish_retained(&mut self, topic: &str) {
        let reason = self.try_retained(topic).await;
        assert!(!reason.is_error(), "{reason:?}");
    }

    /// Publishes a retained message; the reason code of its PUBACK.
    async fn try_retained(&mut self, topic: &str) -> ReasonCode {
        let publish = Publish {
            dup: false,
            qos: Qos::AtLeastOnce,
            retain: true,
            topic: topic.into(),
            id: Some(7.try_into().unwrap()),
            properties: PublishProperties::default(),
            payload: "retained".into(),
        };
        self.send(&Packet::Publish(publish)).await;
        match self.next().await {
            Some(Packet::Puback(ack)) => ack.reason,
            other => panic!("no PUBACK: {other:?}"),
        }
    }

    /// The next message; acknowledgements before it are passed over.
    async fn message(&mut self) -> Publish {
        loop {
            match self.next().await {
                Some(Packet::Publish(publish)) => return publish,
                Some(Packet::Puback(_)) => {}
                other => panic!("no message: {other:?}"),
            }
        }
    }

    /// Waits for the end.
    async fn closed(mut self) {
        while self.next().await.is_some() {}
    }
}

/// A CONNECT for a session that lasts so many seconds.
fn lasting(client: &str, expiry_s: u32) -> Connect {
    Connect {
        version: Version::V5,
        clean_start: false,
        keep_alive_s: 0,
        client_id: client.into(),
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties { session_expiry_s: Some(expiry_s), ..ConnectProperties::default() },
    }
}

/// A CONNECT for a session that begins and ends here.
fn clean(client: &str) -> Connect {
    Connect { clean_start: true, ..lasting(client, 0) }
}

fn with_will(connect: Connect, delay_s: u32) -> Connect {
    let will = LastWill {
        topic: "will".into(),
        payload: "gone".into(),
        qos: Qos::AtLeastOnce,
        retain: false,
        properties: WillProperties { delay_s: Some(delay_s), ..WillProperties::default() },
    };
    Connect { will: Some(will), ..connect }
}

#[tokio::test]
async fn a_session_that_cannot_be_written_at_its_connect_has_its_will_and_its_end() {
    let hub = Hub::start().await;
    let mut watcher = Client::connect(&hub, clean("watcher")).await;
    watcher.subscribe("will", Qos::AtLeastOnce, 1).await;

    // Taken over: the document still says that there is a connection.
    let first = Client::connect(&hub, with_will(lasting("taken", 2), 1)).await;
    let fault = fail_documents(hub.dir.path(), 1);
    let (_, connack) = Client::open(&hub, lasting("taken", 2)).await;
    assert_eq!((connack.reason, fault.has_struck()), (ReasonCode::UNSPECIFIED_ERROR, true));
    first.closed().await;
    assert_eq!(watcher.message().await.topic, "will");
    hub.until("it expires", |stats| stats.persistent_sessions == 0).await;

    // Come back to: it has been without a connection since before.
    drop(Client::connect(&hub, with_will(lasting("back", 2), 1)).await);
    hub.until_offline("back").await;
    let fault = fail_documents(hub.dir.path(), 1);
    let (_, connack) = Client::open(&hub, lasting("back", 2)).await;
    assert_eq!((connack.reason, fault.has_struck()), (ReasonCode::UNSPECIFIED_ERROR, true));
    assert_eq!(watcher.message().await.topic, "will");
    hub.until("it expires", |stats| stats.persistent_sessions == 0).await;
    hub.stop().await;
}

#[tokio::test]
async fn a_session_that_cannot_be_written_at_its_end_has_its_will_and_its_end() {
    let hub = Hub::start().await;
    let mut watcher = Client::connect(&hub, clean("watcher")).await;
    watcher.subscribe("will", Qos::AtLeastOnce, 1).await;
    let client = Client::connect(&hub, with_will(lasting("c", 2), 1)).await;
    let fault = fail_documents(hub.dir.path(), 1);
    drop(client);
    hub.until_offline("c").await;
    assert!(fault.has_struck());
    assert_eq!(watcher.message().await.topic, "will");
    hub.until("it expires", |stats| stats.persistent_sessions == 0).await;
    hub.stop().await;
}

/// The subscription takes its time; the message comes meanwhile.
#[tokio::test]
async fn a_retained_message_comes_once_to_who_is_just_subscribing() {
    let hub = Hub::start().await;
    let mut publisher = Client::connect(&hub, clean("publisher")).await;
    let mut other = Client::connect(&hub, lasting("other", 100)).await;
    other.subscribe("known", Qos::AtLeastOnce, 1).await;
    let mut client = Client::connect(&hub, lasting("c", 100)).await;
    // The queue is made, or there already.
    for topic in ["new", "known"] {
        let slow = hold_documents(hub.dir.path());
        client.send_subscribe(topic, Qos::AtLeastOnce, 1).await;
        while !slow.has_struck() {
            tokio::time::sleep(STOP_POLL).await;
        }
        publisher.publish_retained(topic).await;
        drop(slow);
        assert!(matches!(client.next().await, Some(Packet::Suback(_))));
        assert_eq!(client.message().await.payload, "retained", "{topic}");
        publisher.publish(topic).await;
        assert_eq!(client.message().await.payload, "x", "{topic}");
    }
    hub.stop().await;
}

#[tokio::test]
async fn an_unsubscription_that_cannot_be_written_takes_nothing_away() {
    let hub = Hub::start().await;
    let mut client = Client::connect(&hub, lasting("c", 100)).await;
    for filter in ["a", "$share/g/b"] {
        assert_eq!(client.subscribe(filter, Qos::AtLeastOnce, 1).await, ReasonCode(1));
    }
    // This write fails, and the one when the connection ends does not.
    let fault = fail_documents(hub.dir.path(), 1);
    let filters = vec!["a".into(), "$share/g/b".into()];
    let properties = UnsubscribeProperties::default();
    client
        .send(&Packet::Unsubscribe(Unsubscribe {
            id: 2.try_into().unwrap(),
            properties,
            filters: filters.into(),
        }))
        .await;
    client.closed().await;
    assert!(fault.has_struck());
    hub.until_offline("c").await;

    let (mut client, connack) = Client::open(&hub, lasting("c", 100)).await;
    assert!(connack.session_present);
    for topic in ["a", "b"] {
        client.publish(topic).await;
        assert_eq!(client.message().await.topic, topic);
    }
    drop(client);
    let _client = Client::connect(&hub, clean("c")).await;
    hub.until("all is given back", |stats| stats.subscriptions == 0).await;
    hub.stop().await;
}

#[tokio::test]
async fn a_subscription_that_cannot_be_changed_stays_as_it_was() {
    let hub = Hub::start().await;
    let mut client = Client::connect(&hub, lasting("c", 100)).await;
    assert_eq!(client.subscribe("a", Qos::AtLeastOnce, 1).await, ReasonCode(1));
    let fault = fail_documents(hub.dir.path(), 1);
    assert_eq!(client.subscribe("a", Qos::AtMostOnce, 2).await, ReasonCode::UNSPECIFIED_ERROR);
    assert!(fault.has_struck());
    client.publish("a").await;
    let message = client.message().await;
    assert_eq!(message.qos, Qos::AtLeastOnce);
    assert_eq!(message.properties.subscription_ids, [SubscriptionId::new(1).unwrap()]);
    hub.stop().await;
}

#[tokio::test]
async fn a_session_that_nobody_takes_over_after_all_is_put_down() {
    let hub = Hub::start().await;
    let registry = &hub.broker.shared.registry;
    let mut client = Client::connect(&hub, lasting("c", 100)).await;
    client.subscribe("a", Qos::AtLeastOnce, 1).await;
    let gate = registry.gate("c").await;
    let Holder::Connection(mail) = registry.holder("c") else { panic!("it has no connection") };
    drop(mail.take_over());
    drop(gate);
    client.closed().await;
    hub.until_offline("c").await;
    let (client, connack) = Client::open(&hub, clean("c")).await;
    assert!(!connack.session_present);
    hub.until("all is given back", |stats| stats.subscriptions == 0).await;
    drop(client);
    hub.stop().await;
}

/// It gave up waiting, and came again. Whoever sent something behind the CONNECT is answered as if it were there.
#[tokio::test]
async fn a_client_that_went_before_it_was_answered_takes_nothing_from_who_came_after() {
    // One thread, which has heard of all that came before what it answers.
    let hub = Hub::start_with(tempfile::tempdir().unwrap(), 1).await;
    let mut client = Client::connect(&hub, clean("c")).await;
    // Gone, gone with half a packet behind its CONNECT, gone with a goodbye.
    for (behind, takes_over) in [(&[][..], false), (&[0xC0], true), (&[0xE0, 0], true)] {
        let gate = hub.broker.shared.registry.gate("c").await;
        let mut gone = TcpStream::connect(hub.broker.addresses()[0]).await.unwrap();
        let mut bytes = BytesMut::new();
        Packet::Connect(Box::new(clean("c"))).encode(Version::V5, &mut bytes).unwrap();
        bytes.extend_from_slice(behind);
        gone.write_all(&bytes).await.unwrap();
        hub.until("it is accepted", |stats| stats.connections == 2).await;
        // Once the CONNECT waits, and once the end has come.
        answers(&mut client).await;
        drop(gone);
        answers(&mut client).await;
        drop(gate);
        if takes_over {
            client.closed().await;
            hub.until("both are gone", |stats| stats.connections == 0).await;
            client = Client::connect(&hub, clean("c")).await;
        } else {
            hub.until("it is gone", |stats| stats.connections == 1).await;
            answers(&mut client).await;
        }
    }
    hub.stop().await;
}

/// The client is not sent away.
async fn answers(client: &mut Client) {
    client.send(&Packet::Pingreq).await;
    assert!(matches!(client.next().await, Some(Packet::Pingresp)), "it was sent away");
}

#[tokio::test]
async fn a_session_whose_connection_failed_as_it_ended_ends_by_itself() {
    let hub = Hub::start().await;
    let shared = &hub.broker.shared;
    drop(Client::connect(&hub, lasting("c", 1)).await);
    hub.until_offline("c").await;
    let (client, mail) = ("c".into(), Arc::new(Mail::default()));
    shared.registry.online(&client, Arc::clone(&mail));
    // That of a connection which reads its mail is its own matter.
    sessions::abandoned(shared, &client).await;
    assert!(matches!(shared.registry.holder("c"), Holder::Connection(_)));
    mail.close();
    sessions::abandoned(shared, &client).await;
    hub.until("it expires", |stats| stats.persistent_sessions == 0).await;
    hub.stop().await;
}

/// Its document says that there is a connection, and none has it.
#[tokio::test]
async fn a_session_whose_connection_failed_as_it_began_ends_by_itself() {
    let hub = Hub::start().await;
    let shared = &hub.broker.shared;
    drop(Client::connect(&hub, lasting("c", 2)).await);
    hub.until_offline("c").await;
    let client = "c".into();
    let gate = shared.registry.gate("c").await;
    let Loaded { mut session, listed_ms } = sessions::load(shared, &client).await.unwrap().unwrap();
    session.offline_since_ms = None;
    sessions::save(shared, &mut session, None, listed_ms).await.unwrap();
    drop(gate);
    assert!(listed(&hub).await.is_empty());
    sessions::abandoned(shared, &client).await;
    hub.until("it expires", |stats| stats.persistent_sessions == 0).await;
    hub.stop().await;
}

/// The same of one that is written for its will alone: it was never counted.
#[tokio::test]
async fn a_will_whose_connection_failed_as_it_began_comes_and_counts_as_no_session() {
    let hub = Hub::start().await;
    let shared = &hub.broker.shared;
    let mut watcher = Client::connect(&hub, clean("watcher")).await;
    watcher.subscribe("will", Qos::AtMostOnce, 1).await;
    let client = ByteString::from("c");
    let mut session = Session::new(client.clone(), 0);
    session.will = with_will(clean("c"), 0).will.map(|will| Box::new(Will::copied(&will, None)));
    let gate = shared.registry.gate("c").await;
    sessions::save(shared, &mut session, None, None).await.unwrap();
    shared.registry.documented("c");
    drop(gate);
    sessions::abandoned(shared, &client).await;
    assert_eq!(watcher.message().await.topic, "will");
    hub.until("it ends", |stats| stats.sessions == 1).await;
    let gate = shared.registry.gate("c").await;
    assert_eq!(hub.broker.stats().persistent_sessions, 0);
    assert_eq!(shared.store.document(Collection::Sessions, "c").await.unwrap(), None);
    drop(gate);
    hub.stop().await;
}

#[tokio::test]
async fn what_is_due_waits_for_nobody() {
    let hub = Hub::start().await;
    let registry = &hub.broker.shared.registry;
    // Whoever has to wait for long until it goes on finds that it has expired.
    let leaves = async |client: &str, expiry_s| {
        drop(Client::connect(&hub, lasting(client, expiry_s)).await);
        while matches!(registry.holder(client), Holder::Connection(_)) {
            tokio::time::sleep(STOP_POLL).await;
        }
    };
    let gate = loop {
        leaves("held", 2).await;
        let gate = registry.gate("held").await;
        if matches!(registry.holder("held"), Holder::Document) {
            break gate;
        }
    };
    // Those are due after it, and have other gates.
    for client in (0..20).map(|number| number.to_string()) {
        if timeout(Duration::ZERO, registry.gate(&client)).await.is_ok() {
            leaves(&client, 3).await;
        }
    }
    hub.until("all but one expire", |stats| stats.persistent_sessions <= 1).await;
    assert!(matches!(registry.holder("held"), Holder::Document));
    drop(gate);
    hub.until("the last one expires too", |stats| stats.persistent_sessions == 0).await;
    hub.stop().await;
}

#[tokio::test]
async fn whoever_sends_a_client_away_while_it_goes_gets_what_was_asked_for() {
    let hub = Hub::start().await;
    let client = Client::connect(&hub, lasting("c", 100)).await;
    let slow = hold_documents(hub.dir.path());
    let first = hub.broker.kick("c", false);
    let second = async {
        while !slow.has_struck() {
            tokio::time::sleep(STOP_POLL).await;
        }
        let kick = hub.broker.kick("c", true);
        let (ended, ()) = tokio::join!(kick, async { drop(slow) });
        ended
    };
    assert_eq!(tokio::join!(first, second), (Ok(()), Ok(())));
    client.closed().await;
    assert_eq!(hub.broker.stats().sessions, 0);
    hub.stop().await;
}

/// Each takes a write, and others with the same gate wait until it goes.
#[tokio::test]
async fn a_client_that_subscribes_all_the_time_goes_when_it_is_wanted() {
    let hub = Hub::start().await;
    let mut client = Client::connect(&hub, lasting("c", 100)).await;
    let slow = hold_documents(hub.dir.path());
    let mut bytes = BytesMut::new();
    for number in 0..10 {
        let filters =
            vec![TopicRequest { filter: format!("f/{number}").into(), options: Default::default() }];
        let properties = SubscribeProperties::default();
        let subscribe = Subscribe { id: 1.try_into().unwrap(), properties, filters: filters.into() };
        Packet::Subscribe(subscribe).encode(Version::V5, &mut bytes).unwrap();
    }
    client.stream.write_all(&bytes).await.unwrap();
    while !slow.has_struck() {
        tokio::time::sleep(STOP_POLL).await;
    }
    let (ended, ()) = tokio::join!(hub.broker.kick("c", false), async { drop(slow) });
    assert_eq!(ended, Ok(()));
    assert!(matches!(client.next().await, Some(Packet::Suback(_))));
    assert!(matches!(client.next().await, Some(Packet::Disconnect(_))), "it went on");
    assert_eq!(hub.broker.stats().subscriptions, 1);
    hub.stop().await;
}

#[tokio::test]
async fn a_client_that_is_sent_away_before_it_hears_of_new_rules_is_not_spared_them() {
    let hub = Hub::start().await;
    let mut connect = with_will(lasting("c", 100), 0);
    connect.will.as_mut().unwrap().retain = true;
    let mut client = Client::connect(&hub, connect).await;
    let slow = hold_documents(hub.dir.path());
    client.send_subscribe("a", Qos::AtLeastOnce, 1).await;
    while !slow.has_struck() {
        tokio::time::sleep(STOP_POLL).await;
    }
    client.publish("last").await;
    let kind = SourceKind::Certificates(CertificateSettings::default());
    let authentication = vec![SourceSettings { name: "devices".to_owned(), kind }];
    hub.broker.replace_access(Access::open(&Settings { authentication, ..Settings::default() }).unwrap());
    let end = hub.broker.shared.store.next_sequence();
    let (ended, ()) = tokio::join!(hub.broker.kick("c", false), async { drop(slow) });
    assert_eq!(ended, Ok(()));
    assert_eq!(hub.broker.shared.store.next_sequence(), end, "it published something");
    hub.stop().await;
}

#[tokio::test]
async fn a_session_ends_though_nobody_waits_for_it_any_more() {
    let hub = Hub::start().await;
    let mut client = Client::connect(&hub, lasting("c", 100)).await;
    client.subscribe("a", Qos::AtLeastOnce, 1).await;
    drop(client);
    hub.until_offline("c").await;
    let slow = hold_documents(hub.dir.path());
    let struck = async {
        while !slow.has_struck() {
            tokio::time::sleep(STOP_POLL).await;
        }
    };
    tokio::select! {
        ended = hub.broker.kick("c", true) => panic!("{ended:?}"),
        () = struck => drop(slow),
    }
    hub.until("all of it goes", |stats| (stats.persistent_sessions, stats.subscriptions) == (0, 0)).await;
    assert!(listed(&hub).await.is_empty());
    hub.stop().await;
}

/// What the store lists as due, by client.
async fn listed(hub: &Hub) -> Vec<String> {
    let store = &hub.broker.shared.store;
    let due = store.documents_due(Collection::Sessions, i64::MIN, None, 1000).await.unwrap();
    due.into_iter().map(|(_, client)| client).collect()
}

#[tokio::test]
async fn what_is_due_is_listed_while_nobody_is_connected() {
    let hub = Hub::start().await;
    let client = Client::connect(&hub, with_will(lasting("c", 100), 50)).await;
    assert!(listed(&hub).await.is_empty());
    drop(client);
    hub.until_offline("c").await;
    assert_eq!(listed(&hub).await, ["c"], "once, although two things are due");
    let (client, connack) = Client::open(&hub, lasting("c", u32::MAX)).await;
    assert!(connack.session_present && listed(&hub).await.is_empty());
    drop(client);
    hub.until_offline("c").await;
    assert!(listed(&hub).await.is_empty(), "nothing is ever due");
    drop(Client::connect(&hub, lasting("c", 1)).await);
    hub.until("it expires", |stats| stats.persistent_sessions == 0).await;
    assert!(listed(&hub).await.is_empty());
    drop(Client::connect(&hub, lasting("d", 100)).await);
    hub.until_offline("d").await;
    assert_eq!(hub.broker.kick("d", true).await, Ok(()));
    assert!(listed(&hub).await.is_empty());
    hub.stop().await;
}

#[tokio::test]
async fn a_session_that_an_earlier_version_wrote_has_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(tidemill_store::Options::new(dir.path())).unwrap();
    let write = async |client: &str, expiry_s, version| {
        let mut session = Session::new(client.into(), expiry_s);
        session.offline_since_ms = Some(shared::now_ms());
        let mut document = Stored::of(&session).encode().to_vec();
        document[0] = version;
        store.put_document(Collection::Sessions, client, document.into(), Due::default()).await.unwrap();
    };
    write("short", 1, 2).await;
    write("long", 100, 2).await;
    write("endless", u32::MAX, 2).await;
    store.close().await.unwrap();
    drop(store);
    let hub = Hub::start_in(dir).await;
    hub.until("it expires", |stats| stats.persistent_sessions == 2).await;
    assert_eq!(listed(&hub).await, ["long"]);
    hub.stop().await;
}

#[tokio::test]
async fn a_client_that_looks_like_another_is_let_in_as_new_and_takes_nothing_from_it() {
    let hub = Hub::start().await;
    let registry = &hub.broker.shared.registry;
    // As if there were a document of a client with the same fingerprint.
    registry.documented("c");
    assert!(hub.broker.client("c").await.is_none());
    for end_session in [false, true] {
        assert_eq!(hub.broker.kick("c", end_session).await, Err(KickError::Unknown("c".into())));
    }
    for connect in [clean("c"), lasting("c", 100), clean("c")] {
        let is_clean = connect.clean_start;
        let (client, connack) = Client::open(&hub, connect).await;
        assert!(!connack.session_present);
        drop(client);
        hub.until_offline("c").await;
        assert_eq!(hub.broker.client("c").await.is_some(), !is_clean);
        assert_eq!(hub.broker.stats().sessions, 1 + u64::from(!is_clean));
    }
    assert!(matches!(registry.holder("c"), Holder::Document), "the other one's");
    hub.stop().await;
}

#[tokio::test]
async fn clients_are_listed_page_by_page_wherever_their_sessions_are() {
    let hub = Hub::start().await;
    let mut online = Vec::new();
    for number in 0..12 {
        let client = format!("{}{number:02}", if number < 9 { "a" } else { "b" });
        match number % 3 {
            0 => online.push(Client::connect(&hub, lasting(&client, 100)).await),
            1 => online.push(Client::connect(&hub, clean(&client)).await),
            _ => {
                drop(Client::connect(&hub, lasting(&client, 100)).await);
                hub.until_offline(&client).await;
            }
        }
    }
    let pages = async |prefix: &str, online, limit| {
        let mut query = ClientQuery { prefix: prefix.into(), online, after: None, limit };
        let mut pages: Vec<Vec<String>> = Vec::new();
        loop {
            let page = hub.broker.clients(&query).await.unwrap();
            pages.push(page.clients.into_iter().map(|info| info.client).collect());
            query.after = page.next;
            if query.after.is_none() {
                return pages;
            }
        }
    };
    let all: Vec<String> = (0..12).map(|n| format!("{}{n:02}", if n < 9 { "a" } else { "b" })).collect();
    assert_eq!(pages("", None, 5).await, [&all[..5], &all[5..10], &all[10..]]);
    assert_eq!(pages("", None, 100).await, [&all[..]]);
    assert_eq!(pages("", Some(false), 2).await, [vec!["a02", "a05"], vec!["a08", "b11"], vec![]]);
    assert_eq!(pages("a", Some(false), 2).await, [vec!["a02", "a05"], vec!["a08"]]);
    assert_eq!(pages("b", Some(true), 100).await, [["b09", "b10"]]);
    assert_eq!(pages("b", None, 2).await, [vec!["b09", "b10"], vec!["b11"]]);
    assert_eq!(pages("c", None, 2).await, [[""; 0]]);
    drop(online);
    hub.stop().await;
}

#[tokio::test]
async fn a_client_that_comes_while_it_is_listed_is_on_the_page() {
    let hub = Hub::start().await;
    let registry = &hub.broker.shared.registry;
    drop(Client::connect(&hub, lasting("c", 100)).await);
    hub.until_offline("c").await;
    let (query, client) = (ClientQuery { limit: 5, ..ClientQuery::default() }, "c".into());
    // It comes when those with a connection have been looked at, and reads no mail.
    let comes = async {
        let mail = Arc::new(Mail::of(None, true));
        mail.close();
        registry.online(&client, mail);
    };
    let (page, ()) = tokio::join!(hub.broker.clients(&query), comes);
    let listed: Vec<_> = page.unwrap().clients.into_iter().map(|info| info.client).collect();
    assert_eq!(listed, ["c"]);
    registry.offline(&client);
    hub.stop().await;
}
