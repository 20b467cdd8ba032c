//! AMQP 0-9-1, where `TIDEMILL_TEST_AMQP` names a server.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use lapin::options::{BasicGetOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, ExchangeKind};
use tidemill_connectors::{Fault, Follow};

use crate::bench::{Bench, Published};
use crate::checks;
use crate::proxy::Proxy;
use crate::subject::{Received, Subject};

/// How long events may take from the confirm to the reader.
const READ_LIMIT: Duration = Duration::from_secs(10);

struct AmqpSubject {
    name: String,
    url: String,
    proxy: Proxy,
    channel: Channel,
    _connection: Connection,
}

static NAMES: AtomicUsize = AtomicUsize::new(0);

impl AmqpSubject {
    async fn new(url: &str) -> Self {
        let uri: AMQPUri = url.parse().unwrap();
        let proxy = Proxy::to(format!("{}:{}", uri.authority.host, uri.authority.port)).await;
        let user = &uri.authority.userinfo;
        let through = format!("amqp://{}:{}@{}/%2f", user.username, user.password, proxy.address());
        let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let name = format!("conformance-{}-{}", std::process::id(), NAMES.fetch_add(1, Ordering::Relaxed));
        let subject = Self { name, url: through, proxy, channel, _connection: connection };
        subject.declare(FieldTable::default()).await;
        subject
    }

    /// An exchange and a queue bound to everything under `k`.
    async fn declare(&self, arguments: FieldTable) {
        let name = || ShortString::from(self.name.as_str());
        let transient = ExchangeDeclareOptions { auto_delete: true, ..ExchangeDeclareOptions::default() };
        self.channel
            .exchange_declare(name(), ExchangeKind::Topic, transient, FieldTable::default())
            .await
            .unwrap();
        let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(name(), exclusive, arguments).await.unwrap();
        let options = QueueBindOptions::default();
        self.channel.queue_bind(name(), name(), "to.#".into(), options, FieldTable::default()).await.unwrap();
    }
}

fn text(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => text.to_string(),
        AMQPValue::LongInt(number) => number.to_string(),
        AMQPValue::Boolean(flag) => flag.to_string(),
        other => panic!("{other:?}"),
    }
}

#[async_trait(?Send)]
impl Subject for AmqpSubject {
    fn kind(&self) -> &'static str {
        "amqp"
    }

    fn connection(&self) -> String {
        format!("{{ url: {:?} }}", self.url)
    }

    fn nowhere(&self) -> String {
        "{ url: \"amqp://guest:hunter2@127.0.0.1:1/%2f\" }".to_owned()
    }

    fn targets(&self) -> Vec<String> {
        ["binary", "structured"]
            .map(|mode| {
                format!("{{ exchange: {}, routing_key: \"to.{{{{ topic[1] }}}}\", mode: {mode} }}", self.name)
            })
            .to_vec()
    }

    fn missing(&self) -> Option<(String, String)> {
        Some((self.connection(), "{ exchange: surely-missing, routing_key: x }".to_owned()))
    }

    fn narrow(&self) -> Option<String> {
        // The limit of a message is the server's, and by default far above what a test should send.
        std::env::var_os("TIDEMILL_TEST_AMQP_NARROW").map(|_| self.targets().swap_remove(0))
    }

    async fn received(&mut self, expected: usize) -> Vec<Received> {
        let started = Instant::now();
        let mut received = Vec::new();
        while started.elapsed() < READ_LIMIT {
            let got = self
                .channel
                .basic_get(self.name.as_str().into(), BasicGetOptions { no_ack: true })
                .await
                .unwrap();
            let Some(message) = got else {
                if received.len() >= expected {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let properties = &message.properties;
            let media_type = properties.content_type().as_ref().map(ToString::to_string);
            if media_type.as_deref() == Some("application/cloudevents+json") {
                received.push(Received::structured(&message.data));
                continue;
            }
            let headers = properties.headers().clone().unwrap_or_default();
            let mut attributes: BTreeMap<_, _> = headers
                .inner()
                .iter()
                .map(|(name, value)| {
                    (name.as_str().strip_prefix("cloudEvents:").unwrap().to_owned(), text(value))
                })
                .collect();
            assert_eq!(
                properties.message_id().as_ref().map(ShortString::as_str),
                attributes.get("id").map(String::as_str)
            );
            assert_eq!(*properties.delivery_mode(), Some(2));
            attributes.extend(media_type.map(|text| ("datacontenttype".to_owned(), text)));
            received.push(Received { attributes, data: message.data.clone() });
        }
        received
    }

    async fn take_away(&mut self) -> bool {
        self.proxy.cut().await;
        true
    }

    async fn bring_back(&mut self) {
        self.proxy.mend().await;
    }
}

/// The server to test with; says so if there is none.
fn server() -> Option<String> {
    let url = std::env::var("TIDEMILL_TEST_AMQP").ok();
    if url.is_none() {
        eprintln!("skipped: TIDEMILL_TEST_AMQP names no server");
    }
    url
}

#[tokio::test]
async fn conforms() {
    let Some(url) = server() else { return };
    checks::all(async || AmqpSubject::new(&url).await).await;
}

#[tokio::test]
async fn what_no_queue_takes_is_told() {
    let Some(url) = server() else { return };
    let mut subject = AmqpSubject::new(&url).await;
    let published: Vec<_> =
        (0..20).map(|n| Published::json(format!("e-{n:02}"), format!("k{}", n % 2))).collect();
    let outcome = async |target: &str| {
        let bench = Bench::new("amqp", &subject.connection(), &target.replace("NAME", &subject.name));
        bench.sink().send(&bench.events(&published)).await
    };
    // One routing key for all: somebody has to bind a queue.
    let outcomes = outcome("{ exchange: NAME, routing_key: nobody }").await;
    assert!(
        outcomes.iter().all(|outcome| outcome
            .as_ref()
            .is_err_and(|e| (e.follow, e.fault) == (Follow::Stop, Fault::Ours)))
    );
    // Nobody has to take it.
    let outcomes = outcome("{ exchange: NAME, routing_key: nobody, mandatory: false }").await;
    assert!(outcomes.iter().all(Result::is_ok));
    // Routing keys made from events: those without a taker are given up, the others arrive.
    let channel = subject.channel.clone();
    let (name, options) = (|| ShortString::from(subject.name.as_str()), QueueBindOptions::default());
    channel.queue_bind(name(), name(), "k1".into(), options, FieldTable::default()).await.unwrap();
    let outcomes = outcome("{ exchange: NAME, routing_key: \"{{ topic[1] }}\" }").await;
    for (n, outcome) in outcomes.iter().enumerate() {
        assert_eq!(
            outcome.as_ref().err().map(|e| e.follow),
            (n % 2 == 0).then_some(Follow::GiveUp),
            "{outcome:?}"
        );
    }
    let received = subject.received(10).await;
    assert!(received.len() == 10 && received.iter().all(|received| received.key() == "k1"));
}

#[tokio::test]
async fn a_full_queue_is_a_retry() {
    let Some(url) = server() else { return };
    let mut subject = AmqpSubject::new(&url).await;
    subject.name.push_str("-full");
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(5));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    subject.declare(arguments).await;
    let bench = Bench::new("amqp", &subject.connection(), &subject.targets()[0]);
    let mut sink = bench.sink();
    let published: Vec<_> = (0..30).map(|n| Published::json(format!("e-{n:02}"), "k")).collect();
    let mut waiting = bench.events(&published);
    let mut received = Vec::new();
    for _ in 0..30 {
        let outcomes = sink.send(&waiting).await;
        let confirmed = outcomes.iter().take_while(|outcome| outcome.is_ok()).count();
        assert!(
            outcomes[confirmed..]
                .iter()
                .all(|outcome| outcome.as_ref().is_err_and(|e| e.follow == Follow::Retry))
        );
        waiting.drain(..confirmed);
        received.extend(subject.received(1).await);
        if waiting.is_empty() {
            break;
        }
    }
    assert!(waiting.is_empty(), "{} left", waiting.len());
    let mut ids: Vec<_> = received.iter().map(Received::id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 30);
}

#[tokio::test]
async fn silence_is_a_retry_over_a_new_connection() {
    let Some(url) = server() else { return };
    let mut subject = AmqpSubject::new(&url).await;
    let connection = subject.connection().replace(" }", ", timeout: 1s }");
    let bench = Bench::new("amqp", &connection, &subject.targets()[0]);
    let mut sink = bench.sink();
    let published: Vec<_> = (0..30).map(|n| Published::json(format!("e-{n:02}"), "k")).collect();
    let events = bench.events(&published);
    assert!(sink.send(&events[..10]).await.iter().all(Result::is_ok));
    subject.proxy.freeze();
    let started = Instant::now();
    let outcomes = sink.send(&events[10..20]).await;
    assert!(outcomes.iter().all(|outcome| outcome.as_ref().is_err_and(|e| e.follow == Follow::Retry)));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    subject.proxy.thaw();
    assert!(sink.send(&events[10..]).await.iter().all(Result::is_ok));
    let received = subject.received(30).await;
    let mut ids: Vec<_> = received.iter().map(Received::id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 30);
}

#[tokio::test]
async fn wrong_credentials_are_a_stop() {
    let Some(url) = server() else { return };
    let subject = AmqpSubject::new(&url).await;
    let connection = subject.connection().replace("//guest:guest@", "//guest:hunter2@");
    let bench = Bench::new("amqp", &connection, &subject.targets()[0]);
    let error = bench.sink().send(&bench.events(&[Published::json("e", "k")])).await.remove(0).unwrap_err();
    assert_eq!(error.follow, Follow::Stop, "{error:?}");
    assert!(!error.message.contains("hunter2"), "{error:?}");
}
