//! A small MQTT 5 client over the hub's own codec: for `tidemill pub`, the demo's vehicles and load.
//!
//! One task drives the connection. [`Client::publish`] encodes straight into the task's buffer, and waits first for room
//! there and in the server's Receive Maximum, so that a fast caller is slowed and never fills the memory.
//! It does not reconnect: what to do when a connection ends is the caller's to say.
//!
//! # Layout
//! - [`Client`], [`Acked`]: publishing, subscribing, going
//! - `options`: [`ClientOptions`], [`ClientError`]
//! - `link`: what the client and its task share: buffer, packet identifiers, who waits for what
//! - `tls`: whom it trusts, and what it shows
//! - `driver`: the task: socket, keep alive, incoming messages; [`Inbox`]

mod driver;
mod link;
mod options;
mod tls;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use bytestring::ByteString;
use tokio::sync::oneshot;

pub use driver::Inbox;
pub use options::{ClientError, ClientOptions, TlsFault};
pub use tls::ClientTls;

use crate::mqtt::codec::{Packet, Subscribe, SubscribeProperties, SubscriptionOptions, TopicRequest, topic};
pub use crate::mqtt::codec::{Publish, Qos, ReasonCode};
use link::{Ending, Link, Waiting};

/// Bytes of a PUBLISH beside topic, payload and properties, at most.
const HEAD_BYTES: usize = 16;

/// A connection. Dropping it cuts the connection as a lost network would; [`Client::disconnect`] says goodbye.
pub struct Client {
    link: Arc<Link>,
    session_present: bool,
    client_id: ByteString,
}

/// Resolves when a message is acknowledged: PUBACK (QoS 1), PUBCOMP or a failed PUBREC (QoS 2), at once (QoS 0).
pub struct Acked(Waits);

enum Waits {
    Not,
    For(oneshot::Receiver<Result<ReasonCode, ClientError>>),
}

impl Future for Acked {
    type Output = Result<ReasonCode, ClientError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Waits::Not => Poll::Ready(Ok(ReasonCode::SUCCESS)),
            Waits::For(answer) => {
                Pin::new(answer).poll(context).map(|answer| answer.unwrap_or(Err(ClientError::Closed(None))))
            }
        }
    }
}

impl Client {
    /// Connects, and waits for the server to accept.
    ///
    /// # Errors
    /// No connection, no CONNACK in time, or a refusal with its reason code.
    pub async fn connect(options: ClientOptions) -> Result<(Client, Inbox), ClientError> {
        let (link, connack, inbox) = driver::connect(&options).await?;
        let assigned = connack.properties.assigned_client_id;
        let client_id = assigned.unwrap_or(options.client_id);
        Ok((Client { link, session_present: connack.session_present, client_id }, inbox))
    }

    /// Whether the server had a session of this client.
    #[must_use]
    pub fn session_present(&self) -> bool {
        self.session_present
    }

    /// Its client identifier, perhaps one the server gave it.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Sends a message once there is room for it. Packet identifier and DUP are set here.
    ///
    /// # Errors
    /// The topic is none, the message is larger than the server accepts, or the connection has ended.
    pub async fn publish(&self, mut publish: Publish) -> Result<Acked, ClientError> {
        topic::check_name(&publish.topic).map_err(|error| ClientError::Topic(error.what))?;
        let properties = &publish.properties.user_properties;
        let properties_bytes: usize =
            properties.iter().map(|(name, value)| name.len() + value.len() + 5).sum();
        let bytes = publish.topic.len() + publish.payload.len() + properties_bytes + HEAD_BYTES;
        self.link.check_size(bytes)?;
        publish.dup = false;
        if publish.qos == Qos::AtMostOnce {
            publish.id = None;
            self.link.room_for(bytes).await?;
            self.link.send(&Packet::Publish(publish))?;
            return Ok(Acked(Waits::Not));
        }
        let permit = self.link.window_room().await?;
        self.link.room_for(bytes).await?;
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting::Publish { qos: publish.qos, reply, _permit: permit };
        self.link.send_waiting(waiting, |id| {
            publish.id = Some(id);
            Packet::Publish(publish)
        })?;
        Ok(Acked(Waits::For(answer)))
    }

    /// Publishes with QoS 1 and waits until the server has the message.
    ///
    /// # Errors
    /// As [`Client::publish`], and a PUBACK that refuses the message.
    pub async fn publish_at_least_once(
        &self,
        topic: impl Into<ByteString>,
        payload: impl Into<Bytes>,
    ) -> Result<(), ClientError> {
        let (topic, payload) = (topic.into(), payload.into());
        let publish = Publish { topic, payload, qos: Qos::AtLeastOnce, ..Publish::default() };
        let reason = self.publish(publish).await?.await?;
        if reason.is_error() { Err(ClientError::refused(reason)) } else { Ok(()) }
    }

    /// Subscribes to one filter; what the server granted.
    ///
    /// # Errors
    /// The connection has ended. A refusal is a reason code.
    pub async fn subscribe(
        &self,
        filter: impl Into<ByteString>,
        qos: Qos,
    ) -> Result<ReasonCode, ClientError> {
        let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
        let request = TopicRequest { filter: filter.into(), options };
        let (reply, answer) = oneshot::channel();
        self.link.send_waiting(Waiting::Subscribe { reply }, |id| {
            let properties = SubscribeProperties::default();
            Packet::Subscribe(Subscribe { id, properties, filters: [request].into_iter().collect() })
        })?;
        answer.await.unwrap_or(Err(ClientError::Closed(None)))
    }

    /// Says goodbye, and waits until everything sent before is written.
    pub async fn disconnect(self) {
        self.link.end(Ending::Goodbye);
        self.link.ended().await;
    }

    /// Waits until the connection has ended by itself, and says why.
    pub async fn closed(&self) -> ClientError {
        self.link.ended().await;
        self.link.error()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.link.end(Ending::Cut);
    }
}
