//! Rules about topics.

use std::net::{Ipv4Addr, SocketAddr};

use tidemill_tests::mqtt::{Client, Connect, Level, Packet, Publish};
use tidemill_tests::services::Tidemill;
use tidemill_tests::services::tidemill::{folder_of, tidemill};
use tidemill_tests::wait;

use super::{LIMIT, connack, hub};

const CONFIGURATION: &str = "\
access:
  authentication:
    - { name: devices, passwords: { file: passwords } }
  groups: { operators: [op] }
  rules:
    - { deny: all, topics: [\"+/secret\"], users: [bob] }
    - { allow: [publish, subscribe], topics: [\"d/{client}/#\", \"+/secret\", \"u/{user}\"] }
    - { allow: all, topics: [\"#\", \"$SYS/#\"], groups: [operators] }
";
const USERS: &[(&str, &str)] = &[("bob", "p"), ("op", "p")];

async fn client(hub: &Tidemill, name: &str, user: &str, level: Level) -> Client {
    Client::connect(hub.mqtt(), &Connect::clean(name).level(level).login(user, "p")).await
}

/// What SUBSCRIBE is answered with.
async fn subscribe(client: &mut Client, filters: &[(&str, u8)]) -> Vec<u8> {
    client.writer.subscribe(7, filters).await.unwrap();
    match client.packet().await {
        Packet::SubAck { id: 7, reasons } => reasons,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_denied_says_so() {
    let hub = hub(CONFIGURATION, USERS).await;
    let mut op = client(&hub, "op", "op", Level::V5).await;
    op.subscribe(&[("#", 1)]).await;
    client(&hub, "watch", "op", Level::V5).await.subscribe(&[("$SYS/#", 0)]).await;
    let mut bob = client(&hub, "b", "bob", Level::V5).await;
    let filters = [
        ("d/b/#", 1),
        ("d/+/x", 1),
        ("#", 0),
        ("u/bob", 0),
        ("u/op", 0),
        ("d/secret", 0),
        ("$share/g/d/b/t", 1),
        ("$share/g/d/c/t", 1),
        ("$SYS/#", 0),
    ];
    let reasons = subscribe(&mut bob, &filters).await;
    assert_eq!(reasons, [1, 0x87, 0x87, 0, 0x87, 0x87, 1, 0x87, 0x87]);
    // One that gets nothing back.
    let mut bob = client(&hub, "b2", "bob", Level::V5).await;
    bob.publish_acked(Publish::new("u/bob", "allowed", 1, 1)).await;
    bob.publish(Publish::new("u/op", "x", 1, 2)).await;
    assert_eq!(bob.packet().await, Packet::PubAck { id: 2, reason: 0x87 });
    bob.publish(Publish::new("d/c/t", "x", 2, 3)).await;
    assert_eq!(bob.packet().await, Packet::PubRec { id: 3, reason: 0x87 });
    bob.publish(Publish::new("u/bob", "x", 1, 4).retained()).await;
    assert_eq!(bob.packet().await, Packet::PubAck { id: 4, reason: 0x87 }, "it may publish, and not retain");
    // QoS 0 has no answer: it is dropped, and the connection goes on.
    bob.publish(Publish::new("u/op", "x", 0, 0)).await;
    bob.publish_acked(Publish::new("u/bob", "last", 1, 5)).await;
    assert_eq!(op.message().await.payload, "allowed");
    assert_eq!(op.message().await.payload, "last");
    let metrics = hub.metrics().await;
    let denied = |action| metrics.sum("tidemill_mqtt_access_denied_total", &[("action", action)]);
    assert_eq!((denied("publish"), denied("retain"), denied("subscribe")), (Some(3.0), Some(1.0), Some(6.0)));
    assert!(hub.log().contains("not allowed"), "{}", hub.log());
    let mut op = client(&hub, "op2", "op", Level::V5).await;
    op.publish_acked(Publish::new("u/op", "x", 1, 6).retained()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn version_3_1_1_has_its_own_ways() {
    let hub = hub(CONFIGURATION, USERS).await;
    let mut bob = client(&hub, "b", "bob", Level::V311).await;
    assert_eq!(subscribe(&mut bob, &[("d/b/#", 1), ("#", 0)]).await, [1, 0x80]);
    bob.publish(Publish::new("u/op", "x", 0, 0)).await;
    bob.publish_acked(Publish::new("u/bob", "x", 1, 1)).await;
    // An acknowledgement would say that it is stored.
    bob.publish(Publish::new("u/op", "x", 1, 2)).await;
    assert_eq!(bob.reader.until_closed().await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wills_are_looked_at_when_they_are_made() {
    let hub = hub(CONFIGURATION, USERS).await;
    for (level, refused) in [(Level::V5, 0x87), (Level::V311, 5)] {
        let with_will = |topic: &str| Connect {
            will: Some((topic.to_owned(), "gone".to_owned(), 0)),
            ..Connect::clean("b").level(level).login("bob", "p")
        };
        assert_eq!(connack(hub.mqtt(), &with_will("u/bob")).await.unwrap(), 0);
        assert_eq!(connack(hub.mqtt(), &with_will("u/op")).await.unwrap(), refused);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_allowed_any_more_is_cut() {
    let mut hub = hub(CONFIGURATION, USERS).await;
    let mut op = client(&hub, "op", "op", Level::V5).await;
    let mut kept = client(&hub, "k", "bob", Level::V5).await;
    kept.subscribe(&[("u/bob", 1)]).await;
    let persistent = |client: &str| Connect::persistent(client).login("bob", "p");
    let mut online = Client::connect(hub.mqtt(), &persistent("on")).await;
    online.subscribe(&[("d/on/a", 1), ("u/bob", 1)]).await;
    let mut offline = Client::connect(hub.mqtt(), &persistent("off")).await;
    offline.subscribe(&[("d/off/a", 1), ("u/bob", 1)]).await;
    // In flight, and not acknowledged.
    op.publish_acked(Publish::new("d/off/a", "in flight", 1, 1)).await;
    assert!(matches!(offline.packet().await, Packet::Publish { .. }));
    offline.disconnect().await;
    op.publish_acked(Publish::new("d/off/a", "secret", 1, 2)).await;

    let fewer = CONFIGURATION.replace("\"d/{client}/#\", ", "");
    std::fs::write(hub.dir().join("tidemill.yaml"), fewer).unwrap();
    hub.reload();
    assert_eq!(online.reader.until_closed().await, [Packet::Disconnect { reason: 0x87 }]);
    op.publish_acked(Publish::new("u/bob", "open", 1, 3)).await;
    assert_eq!(kept.message().await.payload, "open", "who may do all it does goes on");
    for name in ["on", "off"] {
        let mut client = Client::connect(hub.mqtt(), &persistent(name)).await;
        assert!(client.session_present);
        assert_eq!(client.message().await.payload, "open", "{name}");
        client.nothing_comes().await;
        assert_eq!(subscribe(&mut client, &[("d/off/a", 1)]).await, [0x87]);
    }

    // A configuration that is not good changes nothing.
    std::fs::write(hub.dir().join("tidemill.yaml"), "access: { rules: [ nothing ] }\n").unwrap();
    hub.reload();
    wait::until("the bad configuration to be told of", LIMIT, async || {
        hub.log().contains("a rule is a map").then_some(())
    })
    .await;
    let mut bob = client(&hub, "b", "bob", Level::V5).await;
    assert_eq!(subscribe(&mut bob, &[("u/bob", 0), ("u/op", 0)]).await, [0, 0x87]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_opens_no_listener_to_everybody() {
    let open = format!("mqtt: {{ listen: [\"0.0.0.0:0\"] }}\n{CONFIGURATION}");
    let mut hub = Tidemill::start_configured(folder_of(&[("bob", "p")]), &open).await;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, hub.mqtt().port()));
    // Good by itself: nobody needs a name on loopback. But the socket that is open is reached from everywhere.
    std::fs::write(hub.dir().join("tidemill.yaml"), "mqtt: { listen: [\"127.0.0.1:0\"] }\n").unwrap();
    hub.reload();
    wait::until("the refusal to be told of", LIMIT, async || {
        hub.log().contains("listener `127.0.0.1:0`: it is new").then_some(())
    })
    .await;
    assert_eq!(connack(address, &Connect::clean("anybody")).await.unwrap(), 0x87);
    assert_eq!(connack(address, &Connect::clean("bob").login("bob", "p")).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_gets_nothing_of_a_session_of_nobody_that_it_may_not_read() {
    let rule = "    - { allow: all, topics: [x], anonymous: true }\n";
    let hub = hub(&format!("mqtt: {{ allow_anonymous: true }}\n{CONFIGURATION}{rule}"), USERS).await;
    let mut nobody = Client::connect(hub.mqtt(), &Connect::persistent("s")).await;
    nobody.subscribe(&[("x", 1)]).await;
    nobody.publish(Publish::new("x", "for nobody", 1, 1)).await;
    while !matches!(nobody.packet().await, Packet::Publish { .. }) {}
    let mut bob = Client::connect(hub.mqtt(), &Connect::persistent("s").login("bob", "p")).await;
    assert!(bob.session_present);
    bob.nothing_comes().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_explains_what_decides() {
    let dir = folder_of(USERS);
    std::fs::write(dir.path().join("t.yaml"), CONFIGURATION).unwrap();
    let check = async |arguments: &[&str]| {
        let mut all = vec!["access", "check", "--config", "t.yaml"];
        all.extend(arguments);
        let ended = tidemill(dir.path(), &all).await;
        (ended.status.success(), ended.stdout)
    };
    let answer = check(&["--user", "bob", "--client", "b", "publish", "d/b/t"]).await;
    assert_eq!(answer, (true, "allowed: publish d/b/t: by the rule at t.yaml:7\n".to_owned()));
    let answer = check(&["--user", "bob", "subscribe", "+/+"]).await;
    assert_eq!(answer, (false, "denied: subscribe +/+: by the rule at t.yaml:6\n".to_owned()));
    let answer = check(&["--user", "op", "retain", "x"]).await;
    let both = "allowed: publish x: by the rule at t.yaml:8\nallowed: retain x: by the rule at t.yaml:8\n";
    assert_eq!(answer, (true, both.to_owned()));
    let answer = check(&["publish", "x"]).await;
    assert_eq!(answer, (false, "denied: publish x: by the default: no rule speaks of it\n".to_owned()));
    let answer = check(&["--user", "op", "publish", "$SYS/broker/x"]).await;
    let by_hub = "denied: publish $SYS/broker/x: by the hub: topics under $SYS/ are its own\n";
    assert_eq!(answer, (false, by_hub.to_owned()));
    let listener = ["access", "check", "--config", "t.yaml", "--user", "op", "publish", "x", "--listener"];
    let typo = tidemill(dir.path(), &[&listener[..], &["127.0.0.1:188"]].concat()).await;
    let told = "there is no listener `127.0.0.1:188`; there are `127.0.0.1:1883`";
    assert!(
        !typo.status.success() && typo.stdout.is_empty() && typo.stderr.contains(told),
        "{}",
        typo.output()
    );
    let known = tidemill(dir.path(), &[&listener[..], &["127.0.0.1:1883"]].concat()).await;
    assert!(known.status.success(), "{}", known.output());
}
