//! A mosquitto that is bridged to the hub, as docs/configuration.md says it has to be.

use std::time::Duration;

use tidemill_tests::services::mosquitto::{Bridge, Subscriber, Version, publish};
use tidemill_tests::wait;

use super::hub;

const LIMIT: Duration = Duration::from_secs(60);

async fn until_there(subscriber: &Subscriber, message: &str) {
    wait::until(message, LIMIT, async || subscriber.lines().contains(&message.to_owned()).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_cross_it_both_ways() {
    let hub = hub().await;
    // Without more, it speaks 3.1.1 and says first that it is a bridge.
    for (name, more) in [("edge311", ""), ("edge5", "bridge_protocol_version mqttv50\n")] {
        let mut bridge = Bridge::start(
            hub.mqtt(),
            &format!(
                "remote_clientid {name}\nnotifications_local_only true\n{more}\
                 topic {name}/up/# out 1\ntopic {name}/down/# in 1\n"
            ),
        );
        let here = Subscriber::start(hub.mqtt(), Version::V5, &["-t", &format!("{name}/up/#"), "-v"]).await;
        bridge.until_it_says("Received SUBACK").await;
        let there =
            Subscriber::start(bridge.address(), Version::V5, &["-t", &format!("{name}/down/#"), "-v"]).await;
        publish(bridge.address(), Version::V5, &["-t", &format!("{name}/up/a"), "-m", "1", "-q", "1"]).await;
        until_there(&here, &format!("{name}/up/a 1")).await;
        publish(hub.mqtt(), Version::V5, &["-t", &format!("{name}/down/b"), "-m", "2", "-q", "1"]).await;
        until_there(&there, &format!("{name}/down/b 2")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_tells_of_itself_is_the_hubs_to_tell() {
    let hub = hub().await;
    // A will below $SYS/broker/connection/, which it has unless it is told otherwise.
    for more in ["try_private false\n", "bridge_protocol_version mqttv50\n"] {
        let lines = format!("remote_clientid notes\n{more}topic notes/# out 1\n");
        Bridge::start(hub.mqtt(), &lines).until_it_says("Connection Refused: ").await;
    }
}
