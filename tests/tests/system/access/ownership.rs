//! Whose a session is.

use tidemill_tests::mqtt::{Client, Connect, Level, Publish};

use super::{connack, hub};

const CONFIGURATION: &str = "\
access:
  authentication:
    - { name: devices, passwords: { file: passwords } }
  default: allow
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_takes_somebody_elses_session() {
    let hub = hub(CONFIGURATION, &[("bob", "p"), ("eve", "p")]).await;
    let bob = || Connect::persistent("c").login("bob", "p");
    let mut watch = Client::connect(hub.mqtt(), &Connect::clean("w").login("eve", "p")).await;
    watch.subscribe(&[("will", 1)]).await;
    let mut online = Client::connect(hub.mqtt(), &bob().will("will", "gone", 0)).await;
    online.subscribe(&[("t", 1)]).await;
    let refused = async || {
        for (level, reason) in [(Level::V5, 0x85), (Level::V311, 2)] {
            for connect in [Connect::clean("c"), Connect::persistent("c")] {
                let connect = connect.level(level).login("eve", "p");
                assert_eq!(connack(hub.mqtt(), &connect).await.unwrap(), reason);
            }
        }
    };
    refused().await;
    // The connection is there, with its session.
    watch.publish_acked(Publish::new("t", "still", 1, 1)).await;
    assert_eq!(&online.message().await.payload[..], b"still");
    online.disconnect().await;
    refused().await;
    // Its owner finds it again, and nobody has heard the will.
    let mut back = Client::connect(hub.mqtt(), &bob()).await;
    assert!(back.session_present);
    back.publish_acked(Publish::new("will", "from bob", 1, 1)).await;
    assert_eq!(&watch.message().await.payload[..], b"from bob");
}
