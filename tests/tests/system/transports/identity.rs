//! Certificates that say who somebody is, and rules about the name in them, from the handshake to the topic.

use std::io;

use tidemill_tests::mqtt::{Client, Connect, Level, Packet, Publish};
use tidemill_tests::pki::Identity;

use super::websocket::{bytes_of, open};
use super::{REVOKED, Site};

const ACCESS: &str = "\
access:
  authentication:
    - { name: devices, certificates: { user: common_name } }
  groups: { operators: [console] }
  rules:
    - { allow: [publish, subscribe], topics: [\"cars/{cert.cn}/#\"] }
    - { allow: [retain], topics: [\"cars/{cert.cn}/state\"] }
    - { allow: all, topics: [\"#\"], groups: [operators] }
";
const LISTENERS: [&str; 3] = [
    ", MUTUAL",
    ", protocol: websocket, MUTUAL",
    ", tls: { certificate: server.pem, key: server.key, client_ca: devices.pem, client_certificate: optional }",
];
const WEB: usize = 1;
const OPTIONAL: usize = 2;
/// Not authorized.
const DENIED: u8 = 0x87;

impl Site {
    /// Connects with a certificate, through a WebSocket where the listener has them.
    async fn known(&self, listener: usize, connect: &Connect, identity: &Identity) -> io::Result<Client> {
        let tls = self.tls_over(self.tcp(listener).await, Some(identity)).await?;
        if listener == WEB {
            return Client::try_over(bytes_of(open(tls).await), connect).await;
        }
        Client::try_over(tls, connect).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_name_in_a_certificate_is_what_rules_allow() {
    let site = Site::start_with(&LISTENERS, ACCESS).await;
    let console = site.devices.device("console", 8);
    let mut operator = site.known(0, &Connect::clean("operator"), &console).await.unwrap();
    let mut watch = site.known(0, &Connect::clean("watch"), &console).await.unwrap();
    watch.subscribe(&[("#", 1)]).await;
    for listener in [0, WEB, OPTIONAL] {
        let name = format!("car-{listener}");
        let car = site.devices.device(&name, 20 + listener as u64);
        // Neither the client identifier nor the user name of CONNECT has a say.
        let connect = Connect::clean("car-8").login("console", "x");
        let mut client = site.known(listener, &connect, &car).await.unwrap();
        let filters = [
            (format!("cars/{name}/#"), 1, 1),
            (format!("cars/{name}/orders"), 0, 0),
            ("cars/car-8/orders".to_owned(), 0, DENIED),
            ("cars/+/orders".to_owned(), 0, DENIED),
            ("#".to_owned(), 0, DENIED),
            (format!("$share/g/cars/{name}/jobs"), 1, 1),
            ("$share/g/cars/car-8/jobs".to_owned(), 1, DENIED),
        ];
        let asked: Vec<_> = filters.iter().map(|(filter, qos, _)| (filter.as_str(), *qos)).collect();
        client.writer.subscribe(7, &asked).await.unwrap();
        let reasons = filters.iter().map(|(.., reason)| *reason).collect();
        assert_eq!(client.packet().await, Packet::SubAck { id: 7, reasons }, "listener {listener}");
        operator.publish_acked(Publish::new("cars/car-8/orders", "for another", 1, 1)).await;
        assert_eq!(watch.message().await.payload, "for another");
        client.nothing_comes().await;

        let mut client = site.known(listener, &connect, &car).await.unwrap();
        let (own, others) = (format!("cars/{name}"), "cars/car-8");
        for (id, topic, retain, reason) in [
            (1, format!("{own}/speed"), false, 0),
            (2, format!("{others}/speed"), false, DENIED),
            (3, format!("{own}/state"), true, 0),
            (4, format!("{own}/speed"), true, DENIED),
            (5, format!("{others}/state"), true, DENIED),
        ] {
            let publish = Publish::new(&topic, format!("{id}"), 1, id);
            client.publish(if retain { publish.retained() } else { publish }).await;
            assert_eq!(client.packet().await, Packet::PubAck { id, reason }, "{topic}, {retain}");
        }
        assert_eq!(watch.message().await.payload, "1", "listener {listener}");
        assert_eq!(watch.message().await.payload, "3", "listener {listener}");
        watch.nothing_comes().await;
        // The next car gets the identifier of a client that is gone.
        client.disconnect().await;
    }
    let metrics = site.hub.metrics().await;
    let denied = |action| metrics.sum("tidemill_mqtt_access_denied_total", &[("action", action)]);
    assert_eq!(
        (denied("publish"), denied("retain"), denied("subscribe")),
        (Some(6.0), Some(3.0), Some(12.0))
    );
    let mut late = site.known(0, &Connect::clean("late"), &console).await.unwrap();
    late.subscribe(&[("cars/+/state", 0), ("cars/+/speed", 0)]).await;
    let mut kept = [late.message().await, late.message().await, late.message().await].map(|kept| kept.topic);
    kept.sort();
    assert_eq!(kept, [0, 1, 2].map(|listener| format!("cars/car-{listener}/state")));
    late.nothing_comes().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_would_reach_further_reaches_nothing() {
    let site = Site::start_with(&LISTENERS, ACCESS).await;
    for (serial, name) in [(21, "#"), (22, "+"), (23, "car-7/x")] {
        let bad = site.devices.device(name, serial);
        let mut client = site.known(0, &Connect::clean("c"), &bad).await.unwrap();
        client.writer.subscribe(7, &[("cars/#", 0), ("cars/+/x", 0), ("cars/car-7/x", 0)]).await.unwrap();
        assert_eq!(client.packet().await, Packet::SubAck { id: 7, reasons: vec![DENIED; 3] }, "{name}");
        client.publish(Publish::new("cars/car-7/x/y", "x", 1, 8)).await;
        assert_eq!(client.packet().await, Packet::PubAck { id: 8, reason: DENIED }, "{name}");
        client.disconnect().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_good_certificate_nobody_has_a_name() {
    let site = Site::start_with(&LISTENERS, ACCESS).await;
    let connect = Connect::clean("car-7").login("car-7", "x");
    let revoked = site.devices.device("car-7", REVOKED);
    let others = site.servers.device("car-7", 7);
    for identity in [&revoked, &others] {
        assert!(site.known(0, &connect, identity).await.is_err(), "let in");
    }
    // Where none is demanded it is the hub that says no, in words: to a name that is not proved, and to no name.
    let nobody = Connect::clean("car-7");
    for (connect, level, word) in [
        (&connect, Level::V5, "reason: 134,"),
        (&connect, Level::V311, "reason: 4,"),
        (&nobody, Level::V5, "reason: 135,"),
        (&nobody, Level::V311, "reason: 5,"),
    ] {
        let refused = Client::try_over(site.tls(OPTIONAL).await, &connect.clone().level(level)).await;
        let said = refused.err().unwrap().to_string();
        assert!(said.contains(word), "{said}");
    }
}
