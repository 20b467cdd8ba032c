//! CloudEvents as they arrived, read back. The headers are taken apart here by the rules of each binding;
//! whether the attributes make a valid event is cloudevents-sdk's to judge.

use std::collections::BTreeMap;

use cloudevents::event::SpecVersion;
use cloudevents::message::{
    BinaryDeserializer, BinarySerializer, MessageAttributeValue, Result, StructuredDeserializer,
    StructuredSerializer,
};
use cloudevents::{AttributesReader, Event};
use lapin::types::AMQPValue;
use percent_encoding::percent_decode_str;

use crate::kafka_reader::KafkaRecord;
use crate::services::http::Received;

/// Media type of an event in structured mode.
const STRUCTURED: &str = "application/cloudevents+json";
/// Media type of a batch of events.
const BATCHED: &str = "application/cloudevents-batch+json";

/// Reads a Kafka record, in binary or structured mode (Kafka protocol binding 1.0.2, section 3).
///
/// # Panics
/// When it is no valid event.
#[must_use]
pub fn of_kafka(record: &KafkaRecord) -> Event {
    let value = record.value.clone();
    if record.header("content-type").is_some_and(|media_type| media_type.starts_with(STRUCTURED)) {
        return structured(value.expect("a record with a value"));
    }
    let mut attributes = Attributes::default();
    for (name, value) in &record.headers {
        let text = || String::from_utf8(value.clone()).expect("a header that is UTF-8");
        match name.strip_prefix("ce_") {
            Some(name) => attributes.set(name, text()),
            None if name == "content-type" => attributes.set("datacontenttype", text()),
            None => {}
        }
    }
    binary(attributes, value)
}

/// Reads an HTTP request, in binary or structured mode (HTTP protocol binding 1.0.2, section 3).
///
/// # Panics
/// When it is no valid event.
#[must_use]
pub fn of_http(request: &Received) -> Event {
    let content_type = request.header("content-type");
    if content_type.is_some_and(|media_type| media_type.starts_with(STRUCTURED)) {
        return structured(request.body.to_vec());
    }
    let mut attributes = Attributes::default();
    if let Some(media_type) = content_type {
        attributes.set("datacontenttype", media_type.to_owned());
    }
    for (name, value) in &request.headers {
        if let Some(name) = name.as_str().strip_prefix("ce-") {
            // Section 3.1.3.2: values are percent-encoded, and sent as printable ASCII only.
            let text = value.to_str().expect("a header of printable ASCII");
            let text = percent_decode_str(text).decode_utf8().expect("a value that is UTF-8");
            attributes.set(name, text.into_owned());
        }
    }
    binary(attributes, Some(request.body.to_vec()).filter(|body| !body.is_empty()))
}

/// Reads an HTTP request in batched mode (HTTP protocol binding 1.0.2, section 3.3).
///
/// # Panics
/// When it is no batch of valid events.
#[must_use]
pub fn of_http_batch(request: &Received) -> Vec<Event> {
    let content_type = request.header("content-type").unwrap_or_default();
    assert!(content_type.starts_with(BATCHED), "content-type of a batch: {content_type}");
    let events: Vec<Event> = serde_json::from_slice(&request.body).expect("a JSON array of events");
    events.into_iter().map(checked).collect()
}

/// Reads an AMQP 0-9-1 message in binary mode: there is no official binding, so the names are those of the AMQP 1.0
/// binding (section 3.1.3), `cloudEvents:NAME` among the headers, and `content_type` for the data's media type.
///
/// # Panics
/// When it is no valid event.
#[must_use]
pub fn of_amqp(properties: &lapin::BasicProperties, data: &[u8]) -> Event {
    let mut attributes = Attributes::default();
    if let Some(media_type) = properties.content_type() {
        if media_type.as_str().starts_with(STRUCTURED) {
            return structured(data.to_vec());
        }
        attributes.set("datacontenttype", media_type.to_string());
    }
    for (name, value) in properties.headers().iter().flat_map(|headers| headers.inner()) {
        let Some(name) = name.as_str().strip_prefix("cloudEvents:") else { continue };
        let text = match value {
            AMQPValue::LongString(text) => text.to_string(),
            AMQPValue::ShortString(text) => text.to_string(),
            AMQPValue::Boolean(value) => value.to_string(),
            AMQPValue::LongInt(value) => value.to_string(),
            other => panic!("header cloudEvents:{name} is {other:?}"),
        };
        attributes.set(name, text);
    }
    binary(attributes, Some(data.to_vec()).filter(|data| !data.is_empty()))
}

fn structured(json: Vec<u8>) -> Event {
    let event = StructuredDeserializer::into_event(Json(json))
        .unwrap_or_else(|error| panic!("not an event: {error}"));
    checked(event)
}

fn binary(attributes: Attributes, data: Option<Vec<u8>>) -> Event {
    let shown = format!("{attributes:?}");
    let event = BinaryDeserializer::into_event(Binary { attributes: attributes.0, data });
    checked(event.unwrap_or_else(|error| panic!("{shown} is not an event: {error}")))
}

/// What the specification wants beyond what the SDK looks at (CloudEvents 1.0.2, "Context Attributes").
fn checked(event: Event) -> Event {
    assert_eq!(event.specversion(), SpecVersion::V10);
    assert!(!event.id().is_empty(), "an empty id: {event:?}");
    assert!(!event.source().is_empty(), "an empty source: {event:?}");
    assert!(!event.ty().is_empty(), "an empty type: {event:?}");
    assert!(event.subject() != Some(""), "an empty subject: {event:?}");
    for (name, _) in event.iter_extensions() {
        let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        assert!(plain && !name.is_empty(), "a bad attribute name {name:?}: {event:?}");
    }
    event
}

/// Attributes by name, as text.
#[derive(Debug, Default)]
struct Attributes(BTreeMap<String, String>);

impl Attributes {
    fn set(&mut self, name: &str, value: String) {
        let before = self.0.insert(name.to_owned(), value);
        assert!(before.is_none(), "attribute {name} is there twice: {:?} and {before:?}", self.0.get(name));
    }
}

struct Json(Vec<u8>);

impl StructuredDeserializer for Json {
    fn deserialize_structured<R: Sized, V: StructuredSerializer<R>>(self, serializer: V) -> Result<R> {
        serializer.set_structured_event(self.0)
    }
}

struct Binary {
    attributes: BTreeMap<String, String>,
    data: Option<Vec<u8>>,
}

impl BinaryDeserializer for Binary {
    fn deserialize_binary<R: Sized, V: BinarySerializer<R>>(mut self, mut serializer: V) -> Result<R> {
        let version = self.attributes.remove("specversion").unwrap_or_default();
        let version = SpecVersion::try_from(version.as_str())?;
        serializer = serializer.set_spec_version(version.clone())?;
        for (name, value) in self.attributes {
            let value = MessageAttributeValue::String(value);
            serializer = match version.attribute_names().contains(&name.as_str()) {
                true => serializer.set_attribute(&name, value)?,
                false => serializer.set_extension(&name, value)?,
            };
        }
        match self.data {
            Some(data) => serializer.end_with_data(data),
            None => serializer.end(),
        }
    }
}
