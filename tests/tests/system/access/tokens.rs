//! JSON Web Tokens and the URL of their keys.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::KeyPair;
use serde_json::{Value, json};
use tidemill_tests::mqtt::{Client, Connect, Packet, Publish};
use tidemill_tests::services::HttpFunction;
use tidemill_tests::services::tidemill::tidemill;
use tidemill_tests::wait;

use super::{LIMIT, connack, hub};

/// A key that signs tokens.
pub(super) struct Signer {
    id: &'static str,
    pair: KeyPair,
}

impl Signer {
    pub(super) fn new(id: &'static str) -> Signer {
        Signer { id, pair: KeyPair::generate().unwrap() }
    }

    /// Its public half as a JWK.
    fn jwk(&self) -> Value {
        // 4, x, y: an uncompressed point of P-256.
        let point = self.pair.public_key_raw();
        let part = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": self.id, "x": part(1..33), "y": part(33..65)})
    }

    pub(super) fn token(&self, good_for_s: i64, more: Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        let mut claims = json!({"sub": "bob", "iss": "test", "exp": now + good_for_s});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let header = Header { kid: Some(self.id.to_owned()), ..Header::new(Algorithm::ES256) };
        let key = EncodingKey::from_ec_pem(self.pair.serialize_pem().as_bytes()).unwrap();
        encode(&header, &claims, &key).unwrap()
    }
}

pub(super) fn publish_keys(server: &HttpFunction, signers: &[&Signer]) {
    let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
    let body = json!({ "keys": keys }).to_string();
    server.reply("/keys", move |_| (StatusCode::OK, body.clone().into()));
}

fn configuration(server: &HttpFunction) -> String {
    format!(
        "access:\n  authentication:\n    - name: tokens\n      jwt: {{ keys: {{ url: \"{}\" }}, issuers: [test], leeway: 0s }}\n",
        server.url("/keys")
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_say_who_somebody_is_and_what_it_may_do() {
    let server = HttpFunction::start().await;
    let signer = Signer::new("one");
    publish_keys(&server, &[&signer]);
    let hub = hub(&configuration(&server), &[]).await;
    let login = |token: String| Connect::clean("c").login("anybody", token);
    let grants = json!({"tidemill": {"publish": ["u/{user}"], "subscribe": ["u/#"]}});
    let mut client = Client::connect(hub.mqtt(), &login(signer.token(60, grants))).await;
    client.subscribe(&[("u/bob", 1)]).await;
    client.publish(Publish::new("u/eve", "x", 1, 1)).await;
    assert_eq!(client.packet().await, Packet::PubAck { id: 1, reason: 0x87 });
    client.publish(Publish::new("u/bob", "x", 1, 2)).await;
    loop {
        match client.packet().await {
            Packet::Publish { topic, .. } => {
                assert_eq!(topic, "u/bob");
                break;
            }
            Packet::PubAck { id: 2, reason: 0 } => {}
            other => panic!("{other:?}"),
        }
    }
    let stranger = Signer::new("one");
    for bad in [
        stranger.token(60, json!({})),
        signer.token(-1, json!({})),
        signer.token(60, json!({"iss": "x"})),
        "a.b.c".to_owned(),
    ] {
        assert_eq!(connack(hub.mqtt(), &login(bad)).await.unwrap(), 0x86);
    }
    assert_eq!(connack(hub.mqtt(), &Connect::clean("c")).await.unwrap(), 0x87);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_ends_with_its_token() {
    let server = HttpFunction::start().await;
    let signer = Signer::new("one");
    publish_keys(&server, &[&signer]);
    let hub = hub(&configuration(&server), &[]).await;
    let connect = Connect::clean("c").login("", signer.token(2, json!({})));
    let mut client = Client::connect(hub.mqtt(), &connect).await;
    client.publish_acked(Publish::new("t", "x", 1, 1)).await;
    assert_eq!(client.reader.until_closed().await, [Packet::Disconnect { reason: 0x87 }]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_change_and_a_url_that_fails_keeps_the_last_ones() {
    let server = HttpFunction::start().await;
    let (one, two) = (Signer::new("one"), Signer::new("two"));
    server.answer_all("/keys", StatusCode::SERVICE_UNAVAILABLE);
    let hub = hub(&configuration(&server), &[]).await;
    let answer = async |signer: &Signer| {
        connack(hub.mqtt(), &Connect::clean("c").login("", signer.token(600, json!({})))).await.unwrap()
    };
    assert_eq!(answer(&one).await, 0x88, "without keys nobody can be judged");
    publish_keys(&server, &[&one]);
    wait::until("the keys to be fetched", LIMIT, async || (answer(&one).await == 0).then_some(())).await;
    assert_eq!(answer(&two).await, 0x86);
    publish_keys(&server, &[&one, &two]);
    wait::until("the new key to be known", LIMIT, async || (answer(&two).await == 0).then_some(())).await;
    server.answer_all("/keys", StatusCode::INTERNAL_SERVER_ERROR);
    let asked = server.received("/keys").len();
    let unknown = Signer::new("three");
    wait::until("the keys to be asked for again", LIMIT, async || {
        assert_eq!(answer(&unknown).await, 0x86);
        (server.received("/keys").len() > asked).then_some(())
    })
    .await;
    for _ in 0..10 {
        assert_eq!(answer(&unknown).await, 0x86);
    }
    assert!(server.received("/keys").len() <= asked + 2, "tokens do not make it ask often");
    assert_eq!((answer(&one).await, answer(&two).await), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_keys_means_none() {
    let server = HttpFunction::start().await;
    let signer = Signer::new("one");
    publish_keys(&server, &[&signer]);
    let hub = hub(&configuration(&server), &[]).await;
    let connect = Connect::clean("c").login("", signer.token(600, json!({})));
    let mut client = Client::connect(hub.mqtt(), &connect).await;
    client.publish_acked(Publish::new("t", "x", 1, 1)).await;
    publish_keys(&server, &[]);
    let stranger = Connect::clean("d").login("", Signer::new("two").token(600, json!({})));
    wait::until("the keys to be gone", LIMIT, async || {
        // One that is not known has the keys asked for again.
        assert_eq!(connack(hub.mqtt(), &stranger).await.unwrap(), 0x86);
        (connack(hub.mqtt(), &Connect { client: "e".to_owned(), ..connect.clone() }).await.unwrap() == 0x86)
            .then_some(())
    })
    .await;
    assert_eq!(client.reader.until_closed().await, [Packet::Disconnect { reason: 0x87 }]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_that_hangs_keeps_nobody_in() {
    // It takes connections, and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", silent.local_addr().unwrap());
    let configuration = format!(
        "access: {{ authentication: [ {{ name: devices, passwords: {{ file: passwords }} }}, {{ name: tokens, jwt: {{ keys: {{ url: \"{url}\" }} }} }} ] }}\n"
    );
    let hub = hub(&configuration, &[("bob", "p"), ("eve", "p")]).await;
    let mut bob = Client::connect(hub.mqtt(), &Connect::clean("b").login("bob", "p")).await;
    bob.publish_acked(Publish::new("t", "x", 1, 1)).await;
    // The hub is asking, and will for seconds.
    let (asking, _) = silent.accept().await.unwrap();
    let deleted = tidemill(hub.dir(), &["passwd", "passwords", "bob", "--delete"]).await;
    assert!(deleted.status.success(), "{}", deleted.output());
    assert_eq!(bob.reader.until_closed().await, [Packet::Disconnect { reason: 0x87 }]);
    // It has not given up meanwhile: what there is to read ends with the request, and not with the connection.
    let mut request = vec![0; 64 << 10];
    while asking.try_read(&mut request).inspect(|read| assert_ne!(*read, 0)).is_ok() {}
}
