//! The password file and `tidemill passwd`.

use std::os::unix::fs::PermissionsExt;

use tidemill_tests::mqtt::{Client, Connect, Level, Packet, Publish};
use tidemill_tests::services::mosquitto::{self, Version};
use tidemill_tests::services::tidemill::{passwd, tidemill, tidemill_told};
use tidemill_tests::wait;

use super::{LIMIT, connack, hub};

const CONFIGURATION: &str =
    "access: { authentication: [ { name: devices, passwords: { file: passwords } } ], default: allow }\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_let_in_who_knows_them() {
    let hub = hub(CONFIGURATION, &[("bob", "secret"), ("eve", "pass word")]).await;
    for version in Version::ALL {
        let arguments = ["-u", "bob", "-P", "secret", "-t", "a", "-m", "x", "-q", "1"];
        mosquitto::publish(hub.mqtt(), version, &arguments).await;
    }
    for (level, wrong, nobody) in [(Level::V5, 0x86, 0x87), (Level::V311, 4, 5)] {
        let connect = || Connect::clean("c").level(level);
        let answer = async |connect: Connect| connack(hub.mqtt(), &connect).await.unwrap();
        assert_eq!(answer(connect().login("eve", "pass word")).await, 0);
        assert_eq!(answer(connect().login("bob", "Secret")).await, wrong);
        assert_eq!(answer(connect().login("bob", "")).await, wrong);
        assert_eq!(answer(connect().login("nobody", "secret")).await, wrong);
        assert_eq!(answer(connect()).await, nobody);
        assert_eq!(answer(Connect { user: Some("bob".into()), ..connect() }).await, wrong);
    }
    let metrics = hub.metrics().await;
    let of =
        |outcome| metrics.sum("tidemill_mqtt_access_total", &[("source", "devices"), ("outcome", outcome)]);
    assert_eq!((of("accepted"), of("refused")), (Some(4.0), Some(4.0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pub_logs_in_with_a_password_of_standard_input() {
    let hub = hub(CONFIGURATION, &[("bob", "pass word")]).await;
    let mut reader = Client::connect(hub.mqtt(), &Connect::clean("r").login("bob", "pass word")).await;
    reader.subscribe(&[("t", 0)]).await;
    let address = hub.mqtt().to_string();
    let publish = |more: &[&str], input: &str| {
        let output = tidemill_told(hub.dir(), &[&["pub", "--mqtt", &address, "t"], more].concat(), input);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let login = ["hello", "--user", "bob", "--password-stdin"];
    assert_eq!(publish(&login, "pass word\n"), (Some(0), String::new()));
    assert_eq!(reader.message().await.payload, "hello");
    let (status, told) = publish(&login, "password\n");
    assert!(status == Some(1) && told.contains("(0x86)"), "{told}");
    let (status, told) = publish(&["hello"], "");
    assert!(status == Some(1) && told.contains("(0x87)"), "{told}");
    let (status, told) = publish(&["--file", "-", "--user", "bob", "--password-stdin"], "pass word\n");
    assert!(status == Some(1) && told.contains("both read standard input"), "{told}");
    assert_eq!(publish(&["hello", "--password-stdin"], "pass word\n").0, Some(2), "no user");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_the_file_is_cut_and_who_changes_a_password_is_not() {
    let hub = hub(CONFIGURATION, &[("bob", "secret"), ("eve", "secret")]).await;
    let mut bob = Client::connect(hub.mqtt(), &Connect::clean("b").login("bob", "secret")).await;
    let mut eve = Client::connect(hub.mqtt(), &Connect::clean("e").login("eve", "secret")).await;
    assert_eq!(passwd(hub.dir(), "eve", "changed", &[]), "eve: changed\n");
    let deleted = tidemill(hub.dir(), &["passwd", "passwords", "bob", "--delete"]).await;
    assert!(deleted.status.success() && deleted.stdout == "bob: deleted\n", "{}", deleted.output());
    assert_eq!(bob.reader.until_closed().await, [Packet::Disconnect { reason: 0x87 }]);
    assert_eq!(connack(hub.mqtt(), &Connect::clean("b").login("bob", "secret")).await.unwrap(), 0x86);
    eve.publish_acked(Publish::new("t", "x", 1, 1)).await;
    assert_eq!(connack(hub.mqtt(), &Connect::clean("n").login("eve", "secret")).await.unwrap(), 0x86);
    assert_eq!(connack(hub.mqtt(), &Connect::clean("n").login("eve", "changed")).await.unwrap(), 0);
    // A file that is none changes nothing.
    std::fs::write(hub.dir().join("passwords"), "nonsense\n").unwrap();
    wait::until("the bad file to be told of", LIMIT, async || {
        hub.log().contains("passwords:1").then_some(())
    })
    .await;
    assert_eq!(connack(hub.mqtt(), &Connect::clean("n").login("eve", "changed")).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_is_written_by_a_command() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(passwd(dir.path(), "bob", "secret", &[]), "bob: added\n");
    assert_eq!(passwd(dir.path(), "eve", "geheimnüs", &[]).lines().count(), 2);
    assert_eq!(passwd(dir.path(), "tom", "secret", &["--no-scram"]), "tom: added\n");
    let path = dir.path().join("passwords");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&path).unwrap();
    let scram: Vec<bool> = text.lines().map(|line| line.contains(":SCRAM-SHA-256$")).collect();
    assert_eq!(scram, [true, false, false], "{text}");
    for (arguments, what) in [
        (&["passwd", "passwords", "nobody", "--delete"][..], "there is no user"),
        (&["passwd", "passwords", "a:b", "--stdin"], "a password has"),
        (&["passwd", "passwords", "bob"], "use --stdin"),
    ] {
        let ended = tidemill(dir.path(), arguments).await;
        assert!(!ended.status.success() && ended.stderr.contains(what), "{}", ended.output());
    }
    let not_there = "access: { authentication: [ { name: d, passwords: { file: nothing } } ] }\n";
    std::fs::write(dir.path().join("t.yaml"), not_there).unwrap();
    let ended = tidemill(
        dir.path(),
        &["serve", "--config", "t.yaml", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"],
    )
    .await;
    assert!(!ended.status.success() && ended.stderr.contains("password file nothing"), "{}", ended.output());
}
