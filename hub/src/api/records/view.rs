//! [`RecordView`]: a record as JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use tidemill_rules::Message;
use tidemill_store::Record;

use crate::message;

/// A record as the API shows it.
#[derive(Clone, Debug, Serialize)]
pub(in crate::api) struct RecordView {
    position: String,
    /// The position after it, to go on from.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// When it was stored.
    time: String,
    topic: String,
    /// MQTT client identifier of the publisher.
    #[serde(skip_serializing_if = "String::is_empty")]
    client: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    qos: u8,
    retain: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    /// MQTT 5 user properties in the order they were sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    user_properties: Vec<(String, String)>,
    /// The payload, if it is text …
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    /// … or else in base 64.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    /// Why what the publisher said beside the payload cannot be shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl RecordView {
    pub(in crate::api) fn new(record: &Record) -> Self {
        let text = std::str::from_utf8(&record.payload).ok().map(str::to_owned);
        let mut view = RecordView {
            position: record.position.to_string(),
            next: None,
            time: rfc3339(record.time_ms),
            topic: record.topic.to_string(),
            client: String::new(),
            user: None,
            qos: 0,
            retain: false,
            content_type: None,
            user_properties: Vec::new(),
            payload_base64: text.is_none().then(|| STANDARD.encode(&record.payload)),
            payload: text,
            error: None,
        };
        match message::view(record) {
            Ok(stored) => view.tell(&stored.message("")),
            Err(error) => view.error = Some(error.to_string()),
        }
        view
    }

    fn tell(&mut self, message: &Message<'_>) {
        self.client = message.client.to_owned();
        self.user = message.user.map(str::to_owned);
        self.qos = message.qos;
        self.retain = message.retain;
        self.content_type = message.content_type.map(str::to_owned);
        let properties = message.user_properties.iter();
        self.user_properties =
            properties.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    }

    /// The same, with where to go on after it.
    pub(super) fn followed_by(mut self, next: String) -> Self {
        self.next = Some(next);
        self
    }
}

/// A time in milliseconds since the Unix epoch as RFC 3339 in UTC.
pub(in crate::api) fn rfc3339(time_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(time_ms)
        .map_or_else(|_| time_ms.to_string(), |time| format!("{time:.3}"))
}
