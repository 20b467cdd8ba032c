//! Enhanced authentication with SCRAM-SHA-256: the client is rsasl's.

use tidemill_tests::mqtt::encode::auth;
use tidemill_tests::mqtt::{Client, Connect, Level, Packet, Reader, Writer};
use tidemill_tests::pki::Authority;
use tidemill_tests::scram::{METHOD, Proof};
use tidemill_tests::services::Tidemill;
use tidemill_tests::services::tidemill::folder_of;
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::ServerName;

use super::{connack, hub};

const CONFIGURATION: &str =
    "access: { authentication: [ { name: devices, passwords: { file: passwords } } ], default: allow }\n";
const AUTHENTICATION_METHOD: u8 = 0x15;
const AUTHENTICATION_DATA: u8 = 0x16;

/// The data of an AUTH that asks to go on.
async fn challenge(reader: &mut Reader) -> String {
    match reader.packet().await {
        Packet::Auth { reason: 0x18, properties } => {
            assert_eq!(properties.text(AUTHENTICATION_METHOD), Some(METHOD));
            properties.text(AUTHENTICATION_DATA).unwrap_or_default().to_owned()
        }
        other => panic!("{other:?}"),
    }
}

/// Connects as far as to the packet that ends the authentication.
async fn prove(hub: &Tidemill, user: &str, password: &str) -> (Writer, Reader, Proof, Packet) {
    prove_over(Client::open(hub.mqtt(), Level::V5).await.unwrap(), user, password).await
}

/// [`prove`] over a connection.
async fn prove_over(
    (mut writer, mut reader): (Writer, Reader),
    user: &str,
    password: &str,
) -> (Writer, Reader, Proof, Packet) {
    let mut proof = Proof::new(user, password);
    let first = proof.say(None);
    let connect = Connect::clean("c").method(METHOD, Some(&first));
    writer.raw(&connect.encode()).await.unwrap();
    let challenge = challenge(&mut reader).await;
    let last = proof.say(Some(challenge.as_bytes()));
    writer.raw(&auth(0x18, METHOD, &last)).await.unwrap();
    let end = reader.packet().await;
    (writer, reader, proof, end)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_proves_that_it_knows_the_password_and_so_does_the_server() {
    let hub = hub(CONFIGURATION, &[("bob", "secret"), ("a,b=c", "x")]).await;
    let (mut writer, mut reader, mut proof, end) = prove(&hub, "bob", "secret").await;
    let Packet::ConnAck { reason: 0, properties, .. } = end else { panic!("{end:?}") };
    assert_eq!(properties.text(AUTHENTICATION_METHOD), Some(METHOD));
    // The client looks at the server's proof.
    proof.say(properties.text(AUTHENTICATION_DATA).map(str::as_bytes));

    // Anew, on the running connection (4.12.1).
    let mut again = Proof::new("bob", "secret");
    writer.raw(&auth(0x19, METHOD, &again.say(None))).await.unwrap();
    let asked = challenge(&mut reader).await;
    writer.raw(&auth(0x18, METHOD, &again.say(Some(asked.as_bytes())))).await.unwrap();
    let Packet::Auth { reason: 0, properties } = reader.packet().await else { panic!("no success") };
    again.say(properties.text(AUTHENTICATION_DATA).map(str::as_bytes));
    writer.ping().await.unwrap();
    writer.flush().await.unwrap();
    assert_eq!(reader.packet().await, Packet::PingResp);

    // Another user, another method, out of turn: each ends it.
    let mut other = Proof::new("a,b=c", "x");
    writer.raw(&auth(0x19, METHOD, &other.say(None))).await.unwrap();
    let asked = challenge(&mut reader).await;
    writer.raw(&auth(0x18, METHOD, &other.say(Some(asked.as_bytes())))).await.unwrap();
    assert_eq!(reader.until_closed().await, [Packet::Disconnect { reason: 0x87 }]);
    for (packet, reason) in [
        (auth(0x19, "OTHER", b"x"), 0x82),
        (auth(0x18, METHOD, b"x"), 0x82),
        (auth(0x19, METHOD, b"x"), 0x87),
    ] {
        let (mut writer, mut reader, _, end) = prove(&hub, "bob", "secret").await;
        assert!(matches!(end, Packet::ConnAck { reason: 0, .. }), "{end:?}");
        writer.raw(&packet).await.unwrap();
        assert_eq!(reader.until_closed().await, [Packet::Disconnect { reason }]);
    }
    let (.., end) = prove(&hub, "a,b=c", "x").await;
    assert!(matches!(end, Packet::ConnAck { reason: 0, .. }), "{end:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_too() {
    let dir = folder_of(&[("bob", "secret")]);
    let servers = Authority::new("servers");
    servers.server(1).write(dir.path(), "server");
    let listener =
        "{ name: tls, address: \"127.0.0.1:0\", tls: { certificate: server.pem, key: server.key } }";
    let configuration = format!("mqtt: {{ listeners: [ {listener} ] }}\n{CONFIGURATION}");
    let hub = Tidemill::start_configured(dir, &configuration).await;
    for (password, reason) in [("secret", 0), ("wrong", 0x87)] {
        let stream = TcpStream::connect(hub.mqtt()).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let tls = servers.client(None).connect(name, stream).await.unwrap();
        let (.., end) = prove_over(Client::open_over(tls, Level::V5), "bob", password).await;
        let Packet::ConnAck { reason: said, .. } = end else { panic!("{end:?}") };
        assert_eq!(said, reason, "{password}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_know_it_learns_nothing() {
    let mut hub = hub(CONFIGURATION, &[("bob", "secret")]).await;
    for (user, password) in [("bob", "wrong"), ("nobody", "secret")] {
        let (.., end) = prove(&hub, user, password).await;
        assert!(matches!(end, Packet::ConnAck { reason: 0x87, .. }), "{user}: {end:?}");
    }
    let first = |user: &str| format!("n,,n={user},r=abc");
    let asked = async |hub: &Tidemill, user: &str| {
        let (mut writer, mut reader) = Client::open(hub.mqtt(), Level::V5).await.unwrap();
        writer.raw(&Connect::clean("c").method(METHOD, Some(first(user).as_bytes())).encode()).await.unwrap();
        let challenge = challenge(&mut reader).await;
        challenge.split_once(",s=").unwrap().1.to_owned()
    };
    let (known, unknown, again) =
        (asked(&hub, "bob").await, asked(&hub, "nobody").await, asked(&hub, "nobody").await);
    assert_eq!((known.len(), &unknown), (unknown.len(), &again));
    // Nor from asking again later.
    hub.reload_with(CONFIGURATION).await;
    assert_eq!((asked(&hub, "bob").await, asked(&hub, "nobody").await), (known.clone(), unknown.clone()));
    hub.terminate().await;
    hub.start_again().await;
    assert_eq!((asked(&hub, "bob").await, asked(&hub, "nobody").await), (known, unknown));
    // A client may leave its first message to an AUTH.
    let (mut writer, mut reader) = Client::open(hub.mqtt(), Level::V5).await.unwrap();
    writer.raw(&Connect::clean("c").method(METHOD, None).encode()).await.unwrap();
    assert_eq!(challenge(&mut reader).await, "");
    writer.raw(&auth(0x18, METHOD, first("bob").as_bytes())).await.unwrap();
    assert!(challenge(&mut reader).await.starts_with("r=abc"));
    // Something else in between.
    writer.ping().await.unwrap();
    writer.flush().await.unwrap();
    assert!(matches!(reader.packet().await, Packet::ConnAck { reason: 0x82, .. }));
    let answer = async |connect: Connect| connack(hub.mqtt(), &connect).await.unwrap();
    assert_eq!(answer(Connect::clean("c").method("GS2-KRB5", Some(b"x"))).await, 0x8c);
    assert_eq!(answer(Connect::clean("c").method(METHOD, Some(b"nonsense"))).await, 0x87);
}
