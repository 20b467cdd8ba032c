//! TLS: with and without certificates of clients, and certificates that are replaced while it runs.

use tidemill_tests::mqtt::{Client, Connect};
use tidemill_tests::pki::Authority;
use tidemill_tests::services::mosquitto::{Subscriber, Version, publish, subscribe_once};
use tidemill_tests::services::tidemill::tidemill;
use tidemill_tests::wait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::{LIMIT, REVOKED, Site, Trickle, closed, reads_late, works};

/// The serial number of the certificate that the hub has shown.
fn serial(stream: &TlsStream<TcpStream>) -> u8 {
    let shown = &stream.get_ref().1.peer_certificates().unwrap()[0];
    // A version, then the serial number: INTEGER, its length, the number.
    let at = shown.windows(3).position(|bytes| bytes == [2, 1, 2]).unwrap() + 3;
    assert_eq!(shown[at..at + 2], [2, 1], "a serial number of one byte");
    shown[at + 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mosquitto_clients_trust_the_hub_and_show_certificates() {
    let site = Site::start(&[", TLS", ", MUTUAL"]).await;
    site.devices.device("car-7", 7).write(site.hub.dir(), "car-7");
    let path = |name: &str| site.hub.dir().join(name).display().to_string();
    let (ca, certificate, key) = (path("servers.pem"), path("car-7.pem"), path("car-7.key"));
    let trusting = ["--cafile", &ca];
    let known = ["--cafile", &ca, "--cert", &certificate, "--key", &key];
    for version in Version::ALL {
        let topic = format!("tls/{version:?}");
        let subscribed = [&["-t", &topic, "-q", "1", "-C", "2"], &trusting[..]].concat();
        let subscriber = Subscriber::start(site.address(0), version, &subscribed).await;
        publish(site.address(0), version, &[&["-t", &topic, "-q", "1", "-m", "one"], &trusting[..]].concat())
            .await;
        publish(site.address(1), version, &[&["-t", &topic, "-q", "2", "-m", "two"], &known[..]].concat())
            .await;
        assert_eq!(subscriber.ended().await, ["one", "two"], "{version:?}");
    }
    let stranger = [&["-t", "a", "-E", "-W", "5"], &trusting[..]].concat();
    let refused = subscribe_once(site.address(1), Version::V5, &stranger).await;
    assert!(!refused.status.success(), "let in without a certificate: {}", refused.output());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_certificates_of_our_own_authority_are_let_in() {
    let site = Site::start(&[
        ", MUTUAL",
        ", tls: { certificate: server.pem, key: server.key, client_ca: devices.pem, client_certificate: optional }",
    ])
    .await;
    let connect = async |listener, identity| {
        // In TLS 1.3 the client is done before it is judged: reading says what came of it.
        let tls = site.tls_over(site.tcp(listener).await, identity).await?;
        Client::try_over(tls, &Connect::clean("")).await.map(|_| ())
    };
    let ours = site.devices.device("car-7", 7);
    let revoked = site.devices.device("car-13", REVOKED);
    let others = site.servers.device("car-7", 7);
    assert!(connect(0, Some(&ours)).await.is_ok());
    for (listener, who, identity) in
        [(0, "nobody", None), (0, "a stranger", Some(&others)), (0, "one that was revoked", Some(&revoked))]
    {
        assert!(connect(listener, identity).await.is_err(), "{who} was let in");
    }
    site.failures(0, "tls", 3).await;
    assert!(connect(1, None).await.is_ok());
    assert!(connect(1, Some(&ours)).await.is_ok());
    assert!(connect(1, Some(&others)).await.is_err(), "a stranger was let in");
    site.failures(1, "tls", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_may_read_late_or_a_byte_at_a_time() {
    let site = Site::start(&["", ", TLS"]).await;
    reads_late(&site, Client::over(site.tls(1).await, &Connect::clean("late")).await).await;
    let slow = site.tls_over(Trickle(site.tcp(1).await), None).await.unwrap();
    works(&mut Client::over(slow, &Connect::clean("slow")).await, "trickle").await;
    let mut fine = Client::over(Trickle(site.tls(1).await), &Connect::clean("fine")).await;
    works(&mut fine, "a-record-for-each-byte").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_tls_is_let_go() {
    let site = Site::start(&["", ", TLS"]).await;
    let mut garbage = site.tcp(1).await;
    garbage.write_all(&Connect::clean("plain").encode()).await.unwrap();
    closed(garbage).await;
    site.failures(1, "tls", 1).await;
    // The hub says nothing and waits; then connect_timeout is over.
    let mut stalled = site.tcp(1).await;
    stalled.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    assert_eq!(closed(stalled).await, b"");
    let mut silent = site.tls(1).await;
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap_or(0), 0, "no CONNECT came over TLS");
    works(&mut Client::over(site.tls(1).await, &Connect::clean("fine")).await, "fine").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_goodbye_has_one_of_tls_behind_it() {
    let mut site = Site::start(&[", TLS"]).await;
    let mut tls = site.tls(0).await;
    tls.write_all(&Connect::clean("last").encode()).await.unwrap();
    let mut connack = [0; 4];
    tls.read_exact(&mut connack).await.unwrap();
    assert_eq!(connack[0], 0x20);
    let stopping = site.hub.terminate();
    let mut rest = Vec::new();
    let (_, read) = tokio::join!(stopping, tls.read_to_end(&mut rest));
    read.expect("an end that TLS knows of");
    assert!(rest.windows(3).any(|bytes| bytes[0] == 0xE0 && bytes[2] == 0x8B), "{rest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pub_speaks_tls_and_shows_a_certificate() {
    // The certificate is for another address.
    let misnamed = "    - { name: misnamed, address: \"127.0.0.2:0\", tls: { certificate: server.pem, key: server.key } }\n";
    let site = Site::start_with(&["", ", MUTUAL"], misnamed).await;
    site.devices.device("car-7", 7).write(site.hub.dir(), "car-7");
    let mut subscriber = Client::connect(site.address(0), &Connect::clean("subscriber")).await;
    subscriber.subscribe(&[("pub", 0)]).await;
    let address = format!("localhost:{}", site.address(1).port());
    let message = "x".repeat(100_000);
    let plain = ["pub", "pub", &message, "--mqtt", &address];
    let known = [&plain[..], &["--ca", "servers.pem", "--cert", "car-7.pem", "--key", "car-7.key"]].concat();
    let published = tidemill(site.hub.dir(), &known).await;
    assert!(published.status.success(), "{}", published.output());
    assert_eq!(subscriber.message().await.payload, message);
    let other = site.address(2).to_string();
    let other = ["pub", "pub", "x", "--mqtt", &other, "--ca", "servers.pem"];
    for (stranger, hint) in [
        (&plain[..], "the server answers in TLS; speak it too"),
        (&[&plain[..], &["--ca", "servers.pem"]].concat(), "with --cert and --key"),
        (&[&plain[..], &["--ca", "devices.pem"]].concat(), "in the file of --ca"),
        (&[&plain[..], &["--ca", "none.pem"]].concat(), "none.pem"),
        (&other, "call it in --mqtt by a name that its certificate is for"),
    ] {
        let refused = tidemill(site.hub.dir(), stranger).await;
        assert!(!refused.status.success(), "{stranger:?} was let in");
        assert!(refused.stderr.contains(hint), "{}", refused.output());
    }
}

/// How often certificates were read again, with this result.
async fn reloads(site: &Site, result: &str) -> f64 {
    let labels = [("listener", "listener-0"), ("result", result)];
    site.hub.metrics().await.sum("tidemill_mqtt_certificate_reloads_total", &labels).unwrap_or(0.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_replaced_while_connections_go_on() {
    let mut site = Site::start(&[", TLS"]).await;
    let dir = site.hub.dir().to_owned();
    let first = site.tls(0).await;
    assert_eq!(serial(&first), 1);
    let mut old = Client::over(first, &Connect::clean("old")).await;
    // Found by looking at the files. Certificate and key are two files: a look between them finds two that do not belong
    // together, and the next one finds better.
    site.servers.server(2).write(&dir, "server");
    wait::until("the second certificate", LIMIT, async || (serial(&site.tls(0).await) == 2).then_some(()))
        .await;
    works(&mut old, "old").await;
    // A bad one changes nothing, and is told.
    std::fs::write(dir.join("server.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .unwrap();
    let failed = reloads(&site, "failed").await;
    wait::until("the failure", LIMIT, async || (reloads(&site, "failed").await > failed).then_some(())).await;
    assert_eq!(serial(&site.tls(0).await), 2);
    assert!(site.hub.log().contains("certificates are not reloaded"), "{}", site.hub.log());
    // Nor does a good one without its key.
    let (third, fourth) = (site.servers.server(3), site.servers.server(4));
    let failed = reloads(&site, "failed").await;
    std::fs::write(dir.join("server.pem"), &fourth.certificate).unwrap();
    wait::until("another failure", LIMIT, async || (reloads(&site, "failed").await > failed).then_some(()))
        .await;
    assert_eq!(serial(&site.tls(0).await), 2);
    works(&mut old, "old-after-bad-ones").await;
    works(&mut Client::over(site.tls(0).await, &Connect::clean("new")).await, "new-after-bad-ones").await;
    // And on SIGHUP.
    third.write(&dir, "server");
    site.hub.reload();
    wait::until("the third certificate", LIMIT, async || (serial(&site.tls(0).await) == 3).then_some(()))
        .await;
    works(&mut old, "still-old").await;
    let metrics = site.hub.metrics().await;
    let expiry = metrics
        .sum("tidemill_mqtt_certificate_expiry_timestamp_seconds", &[("listener", "listener-0")])
        .unwrap();
    assert!(expiry > 1e9, "{expiry}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_the_hub_trusts_is_replaced_while_connections_go_on() {
    let site = Site::start(&[", MUTUAL"]).await;
    let dir = site.hub.dir().to_owned();
    let connect = async |identity, name: &str| {
        let tls = site.tls_over(site.tcp(0).await, Some(identity)).await?;
        Client::try_over(tls, &Connect::clean(name)).await
    };
    let (one, two) = (site.devices.device("car-1", 1), site.devices.device("car-2", 2));
    let mut first = connect(&one, "first").await.unwrap();
    std::fs::write(dir.join("revoked.pem"), site.devices.revoke(&[1])).unwrap();
    let refused = async || connect(&one, "again").await.is_err().then_some(());
    wait::until("the certificate to count no more", LIMIT, refused).await;
    works(&mut first, "first").await;
    works(&mut connect(&two, "second").await.unwrap(), "second").await;

    let others = Authority::new("others");
    std::fs::write(dir.join("revoked.pem"), others.revoke(&[])).unwrap();
    std::fs::write(dir.join("devices.pem"), others.pem()).unwrap();
    let three = others.device("car-3", 3);
    let let_in = async || connect(&three, "third").await.ok();
    works(&mut wait::until("the other authority", LIMIT, let_in).await, "third").await;
    assert!(connect(&two, "second").await.is_err(), "the old authority still counts");
    works(&mut first, "still-first").await;
}
