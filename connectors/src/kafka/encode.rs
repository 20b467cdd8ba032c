//! Kafka messages by the CloudEvents Kafka protocol binding 1.0.2.

use std::borrow::Cow;

use rdkafka::message::{Header, OwnedHeaders};
use tidemill_rules::CloudEvent;

use super::config::{TargetConfig, topic_problem};
use crate::cloudevents::json::{self, Layout};
use crate::cloudevents::{JSON_TYPE, Mode, attributes};
use crate::{OutEvent, SendError};

/// A message, borrowed from its event as far as possible.
pub(super) struct Encoded<'a> {
    pub(super) topic: &'a str,
    pub(super) key: Option<Cow<'a, str>>,
    pub(super) headers: OwnedHeaders,
    pub(super) payload: Option<Cow<'a, [u8]>>,
}

/// Encodes an event. What cannot be encoded can never be sent.
pub(super) fn encode<'a>(config: &'a TargetConfig, out: &'a OutEvent) -> Result<Encoded<'a>, SendError> {
    let topic = config.topic.of(out)?;
    if config.topic.varies()
        && let Some(problem) = topic_problem(topic)
    {
        return Err(SendError::give_up(problem));
    }
    // Section 3.1: without a mapping of its own, the extension `partitionkey` is the key.
    let key = match &config.key {
        Some(key) => Some(Cow::Borrowed(key.of(out)?)),
        None => attributes::extension(&out.event, "partitionkey"),
    };
    let (headers, payload) = match config.mode {
        Mode::Binary => (binary_headers(&out.event), out.event.data.as_deref().map(Cow::Borrowed)),
        Mode::Structured => {
            let mut document = Vec::with_capacity(out.event.data.as_ref().map_or(0, |data| data.len()) + 512);
            json::write_event(&mut document, &out.event, Layout::AsIs);
            let headers = OwnedHeaders::new_with_capacity(1)
                .insert(Header { key: "content-type", value: Some(JSON_TYPE) });
            (headers, Some(Cow::Owned(document)))
        }
    };
    Ok(Encoded { topic, key, headers, payload })
}

/// Section 3.2: `content-type`, and each attribute as `ce_` and its name, in UTF-8 as it is.
fn binary_headers(event: &CloudEvent) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new_with_capacity(8 + event.extensions.len());
    if let Some(media_type) = &event.datacontenttype {
        headers = headers.insert(Header { key: "content-type", value: Some(media_type) });
    }
    // `insert` consumes what it is called on, and a closure cannot move out of what it captures.
    let mut headers = Some(headers);
    let mut key = String::with_capacity(24);
    attributes::for_each(event, |name, value| {
        key.clear();
        key.push_str("ce_");
        key.push_str(name);
        headers =
            headers.take().map(|headers| headers.insert(Header { key: &key, value: Some(&*value.text()) }));
    });
    headers.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Headers;

    use super::*;
    use crate::slots::Field;
    use crate::testing;

    fn target(mode: Mode, key: Option<Field>) -> TargetConfig {
        TargetConfig { topic: Field::Slot(0), topic_shown: String::new(), key, mode }
    }

    fn event(topic: &str) -> OutEvent {
        OutEvent { event: testing::full_event(), slots: vec![topic.to_owned(), "k".to_owned()], order_key: 0 }
    }

    #[test]
    fn binary_puts_attributes_into_headers() {
        let (target, event) = (target(Mode::Binary, Some(Field::Slot(1))), event("overheat"));
        let message = encode(&target, &event).unwrap();
        assert_eq!((message.topic, message.key.as_deref()), ("overheat", Some("k")));
        assert_eq!(message.payload.as_deref(), Some(&b"{\"temp_c\": 121.5}"[..]));
        let headers: Vec<_> = message
            .headers
            .iter()
            .map(|header| (header.key.to_owned(), String::from_utf8(header.value.unwrap().to_vec()).unwrap()))
            .collect();
        let headers: Vec<_> = headers.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(
            headers,
            [
                ("content-type", "application/json"),
                ("ce_specversion", "1.0"),
                ("ce_id", "id-1"),
                ("ce_source", "/vehicles/v1"),
                ("ce_type", "com.example.overheat"),
                ("ce_subject", "v1"),
                ("ce_time", "2024-02-29T12:34:56.789Z"),
                ("ce_dataschema", "https://example.com/schema"),
                ("ce_partitionkey", "v1"),
                ("ce_hops", "-3"),
                ("ce_urgent", "true"),
            ]
        );
    }

    #[test]
    fn structured_is_one_document_and_partitionkey_is_the_key() {
        let (target, event) = (target(Mode::Structured, None), event("overheat"));
        let message = encode(&target, &event).unwrap();
        assert_eq!(message.key.as_deref(), Some("v1"));
        let header = message.headers.get(0);
        assert_eq!((header.key, header.value), ("content-type", Some(&b"application/cloudevents+json"[..])));
        let read: cloudevents::Event = serde_json::from_slice(message.payload.as_deref().unwrap()).unwrap();
        assert_eq!(cloudevents::AttributesReader::id(&read), "id-1");
    }

    #[test]
    fn no_data_is_a_null_value_in_binary_mode() {
        let mut event = event("overheat");
        event.event = CloudEvent { data: None, ..event.event };
        assert!(encode(&target(Mode::Binary, None), &event).unwrap().payload.is_none());
    }

    #[test]
    fn a_topic_made_of_a_device_s_data_is_checked() {
        for topic in ["", ".", "a/b", "gr\u{fc}n", &"x".repeat(250)] {
            let error = encode(&target(Mode::Binary, None), &event(topic)).err().unwrap();
            assert_eq!(error.follow, crate::Follow::GiveUp, "{topic}");
        }
    }
}
