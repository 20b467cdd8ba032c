//! [`Message`]: one published message as rules see it.

use bytes::Bytes;

/// One published message, borrowed from whoever read it. Rules never see the store's own types.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    /// The CloudEvents `id`: the log's own UUID and the position. The same record always has the same.
    pub id: &'a str,
    /// The topic it was published to.
    pub topic: &'a str,
    /// The payload, shared and never copied.
    pub payload: &'a Bytes,
    /// When the hub stored it, in milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// MQTT client identifier of the publisher.
    pub client: &'a str,
    /// User name the publisher authenticated with.
    pub user: Option<&'a str>,
    /// QoS it was published with (0, 1 or 2).
    pub qos: u8,
    /// Whether it was published with the retain flag.
    pub retain: bool,
    /// MQTT 5 content type.
    pub content_type: Option<&'a str>,
    /// MQTT 5 user properties in the order they were sent.
    pub user_properties: &'a [(&'a str, &'a str)],
}
