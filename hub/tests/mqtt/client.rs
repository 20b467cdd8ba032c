//! Our own client against our own broker.

use tidemill_hub::client::{Client, ClientError, ClientOptions};

use super::support::*;

impl Hub {
    fn client_options(&self, name: &str) -> ClientOptions {
        ClientOptions::new(self.broker.addresses()[0], name.to_owned())
    }
}

fn numbered(number: u32, qos: Qos) -> Publish {
    Publish { topic: "a/b".into(), payload: number.to_string().into(), qos, ..Publish::default() }
}

#[tokio::test]
async fn publishes_and_receives_with_every_qos() {
    let hub = Hub::with(Options { receive_maximum: 10, ..options() }).await;
    let mut few = hub.client_options("s");
    few.inbox_messages_max = 4;
    let (subscriber, mut inbox) = Client::connect(few).await.unwrap();
    assert_eq!(subscriber.subscribe("a/#", Qos::ExactlyOnce).await, Ok(ReasonCode::GRANTED_QOS_2));
    assert_eq!(subscriber.subscribe("a#", Qos::ExactlyOnce).await, Ok(ReasonCode::TOPIC_FILTER_INVALID));
    let (publisher, _) = Client::connect(hub.client_options("")).await.unwrap();
    assert!(!publisher.client_id().is_empty() && !publisher.session_present());
    let publishing = async {
        let mut acked = Vec::new();
        for number in 0..300 {
            acked.push(publisher.publish(numbered(number, QOS[number as usize % 3])).await.unwrap());
        }
        for acked in acked {
            assert_eq!(acked.await, Ok(ReasonCode::SUCCESS));
        }
    };
    let receiving = async {
        for number in 0..300 {
            let got = inbox.next().await.unwrap();
            assert_eq!((text(&got), got.qos), (&*number.to_string(), QOS[number % 3]));
        }
    };
    tokio::join!(publishing, receiving);
    publisher.disconnect().await;
    hub.connections(1).await;
    subscriber.disconnect().await;
    assert_eq!(inbox.next().await, None);
    hub.connections(0).await;
    hub.stop().await;
}

#[tokio::test]
async fn says_what_is_wrong() {
    let hub = Hub::with(Options { payload_bytes_max: 10, packet_bytes_max: 1_000, ..options() }).await;
    let (client, _inbox) = Client::connect(hub.client_options("c")).await.unwrap();
    let publish = |topic: &str, bytes: usize| {
        client.publish_at_least_once(topic.to_owned(), Bytes::from(vec![0; bytes]))
    };
    assert_eq!(publish("a", 10).await, Ok(()));
    let refused = ClientError::Refused { reason: ReasonCode::QUOTA_EXCEEDED, text: None };
    assert_eq!(publish("a", 11).await, Err(refused));
    assert!(matches!(publish("a", 1_000).await, Err(ClientError::TooLarge { max: 1_000, .. })));
    assert!(matches!(publish("a/#", 1).await, Err(ClientError::Topic(_))));
    let (_second, _inbox) = Client::connect(hub.client_options("c")).await.unwrap();
    assert_eq!(client.closed().await, ClientError::Closed(Some(ReasonCode::SESSION_TAKEN_OVER)));
    assert!(client.publish_at_least_once("a", "x").await.is_err());
    let address = hub.broker.addresses()[0];
    hub.stop().await;
    let failed = Client::connect(ClientOptions::new(address, "c")).await.err();
    assert!(matches!(failed, Some(ClientError::Connect { .. })), "{failed:?}");
}

#[tokio::test]
async fn a_dropped_client_is_a_lost_one() {
    let hub = Hub::start().await;
    let mut watcher = hub.connect(Version::V5, "w").await;
    watcher.subscribe("will/#", Qos::AtMostOnce).await;
    let with_will = |name| ClientOptions { will: will("will/x", None), ..hub.client_options(name) };
    let (polite, _inbox) = Client::connect(with_will("polite")).await.unwrap();
    polite.disconnect().await;
    let (lost, _inbox) = Client::connect(with_will("lost")).await.unwrap();
    drop(lost);
    assert_eq!(&*watcher.take().await.topic, "will/x");
    watcher.expect_quiet().await;
    hub.stop().await;
}
