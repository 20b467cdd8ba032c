//! [`Peer`]: what the tests do with a rumqttc client, of either protocol version.

use std::net::SocketAddr;
use std::time::Duration;

use tidemill_tests::mqtt::client::Arrived;
use tidemill_tests::wait;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How long something may take that must happen.
const LIMIT: Duration = Duration::from_secs(30);

/// What a client was told by the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// CONNACK, and whether there was a session.
    Connected { session_present: bool },
    /// SUBACK.
    Subscribed,
    /// The last acknowledgement of a message we published: PUBACK or PUBCOMP.
    Acknowledged,
    /// A message (rumqttc acknowledges it by itself).
    Message(Arrived),
    /// The event loop ended with this error.
    Broken(String),
}

/// Who connects, and how.
pub(crate) struct Who<'a> {
    pub(crate) client: &'a str,
    pub(crate) persistent: bool,
    /// Topic and payload of a will with QoS 1.
    pub(crate) will: Option<(&'a str, &'a str)>,
}

/// A connected client.
pub(crate) trait Peer: Sized {
    /// For topics: `v4` or `v5`.
    const NAME: &'static str;
    /// Connects and waits for CONNACK; whether there was a session.
    async fn connect(hub: SocketAddr, who: Who<'_>) -> (Self, bool);
    /// What it was told.
    fn seen(&mut self) -> &mut mpsc::Receiver<Seen>;
    /// Sends SUBSCRIBE.
    async fn ask_to_subscribe(&self, filter: &str, qos: u8);
    /// Sends PUBLISH.
    async fn ask_to_publish(&self, topic: &str, payload: &str, qos: u8, retain: bool);
    /// Sends DISCONNECT and waits for the end of the connection.
    async fn leave(self);

    /// The next thing it was told.
    async fn next(&mut self) -> Seen {
        let next = wait::within("a packet from the hub", LIMIT, self.seen().recv()).await;
        next.expect("an event loop that runs")
    }

    /// Subscribes, and waits for SUBACK.
    async fn subscribe(&mut self, filter: &str, qos: u8) {
        self.ask_to_subscribe(filter, qos).await;
        assert_eq!(self.next().await, Seen::Subscribed);
    }

    /// Publishes, and waits for the last acknowledgement if there is one.
    async fn publish(&mut self, topic: &str, payload: &str, qos: u8, retain: bool) {
        self.ask_to_publish(topic, payload, qos, retain).await;
        if qos > 0 {
            assert_eq!(self.next().await, Seen::Acknowledged);
        }
    }

    /// The next thing, which is a message: topic, payload, QoS and retain flag.
    async fn message(&mut self) -> (String, String, u8, bool) {
        match self.next().await {
            Seen::Message(Arrived { topic, payload, qos, retain, .. }) => {
                (topic, String::from_utf8(payload.to_vec()).expect("text"), qos, retain)
            }
            other => panic!("a message was expected, not {other:?}"),
        }
    }
}

/// Implements [`Peer`] for the client of one of rumqttc's two crates, which have the same names for nearly everything.
macro_rules! peer {
    ($peer:ident, $name:literal, $rumqttc:ident, $will:expr, $prepare:expr) => {
        /// A client of this protocol version. Dropped, its connection breaks without DISCONNECT.
        pub(crate) struct $peer {
            client: $rumqttc::AsyncClient,
            seen: mpsc::Receiver<Seen>,
            task: JoinHandle<()>,
        }

        impl Drop for $peer {
            fn drop(&mut self) {
                self.task.abort();
            }
        }

        impl $peer {
            async fn run(mut events: $rumqttc::EventLoop, seen: mpsc::Sender<Seen>) {
                use $rumqttc::{Event, Packet};
                loop {
                    let told = match events.poll().await {
                        Ok(Event::Incoming(Packet::ConnAck(connack))) => {
                            Seen::Connected { session_present: connack.session_present }
                        }
                        Ok(Event::Incoming(Packet::SubAck(_))) => Seen::Subscribed,
                        Ok(Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_))) => Seen::Acknowledged,
                        Ok(Event::Incoming(Packet::Publish(message))) => Seen::Message(Arrived {
                            topic: String::from_utf8(message.topic.to_vec()).expect("a topic is UTF-8"),
                            payload: message.payload,
                            qos: message.qos as u8,
                            retain: message.retain,
                            dup: message.dup,
                            id: message.pkid,
                        }),
                        Ok(_) => continue,
                        Err(error) => Seen::Broken(error.to_string()),
                    };
                    let broken = matches!(told, Seen::Broken(_));
                    if seen.send(told).await.is_err() || broken {
                        return;
                    }
                }
            }
        }

        impl Peer for $peer {
            const NAME: &'static str = $name;

            async fn connect(hub: SocketAddr, who: Who<'_>) -> (Self, bool) {
                let mut options = $rumqttc::MqttOptions::new(who.client, (hub.ip().to_string(), hub.port()));
                options.set_keep_alive(30);
                options.set_session_mode(match who.persistent {
                    true => $rumqttc::SessionMode::Persistent,
                    false => $rumqttc::SessionMode::Clean,
                });
                $prepare(&mut options);
                if let Some((topic, payload)) = who.will {
                    options.set_last_will($will(topic, payload));
                }
                let (client, events) = $rumqttc::AsyncClient::builder(options).capacity(16).build();
                let (sender, seen) = mpsc::channel(256);
                let mut peer = $peer { client, seen, task: tokio::spawn(Self::run(events, sender)) };
                match peer.next().await {
                    Seen::Connected { session_present } => (peer, session_present),
                    other => panic!("{} got {other:?} in the place of CONNACK", who.client),
                }
            }

            fn seen(&mut self) -> &mut mpsc::Receiver<Seen> {
                &mut self.seen
            }

            async fn ask_to_subscribe(&self, filter: &str, qos: u8) {
                let qos = $rumqttc::qos(qos).expect("0, 1 or 2");
                self.client.subscribe(filter, qos).await.expect("a running event loop");
            }

            async fn ask_to_publish(&self, topic: &str, payload: &str, qos: u8, retain: bool) {
                let options =
                    $rumqttc::PublishOptions::new($rumqttc::qos(qos).expect("0, 1 or 2")).retain(retain);
                let payload = payload.to_owned();
                self.client.publish(topic, payload, options).await.expect("a running event loop");
            }

            async fn leave(mut self) {
                self.client.disconnect().await.expect("a running event loop");
                loop {
                    if let Seen::Broken(_) = self.next().await {
                        return;
                    }
                }
            }
        }
    };
}

peer!(
    V4,
    "v4",
    rumqttc_v4,
    |topic, payload| rumqttc_v4::LastWill::new(topic, payload, rumqttc_v4::QoS::AtLeastOnce, false),
    |_: &mut rumqttc_v4::MqttOptions| {}
);
peer!(
    V5,
    "v5",
    rumqttc_v5,
    |topic, payload| rumqttc_v5::LastWill::new(topic, payload, rumqttc_v5::QoS::AtLeastOnce, false, None),
    |options: &mut rumqttc_v5::MqttOptions| {
        // A client that is made anew knows nothing of the session that the hub has kept for it, and is to take it up.
        options.set_broker_session_resume_policy(rumqttc_v5::BrokerSessionResumePolicy::AllowBrokerOnly);
    }
);
