//! CloudEvents as AMQP 0-9-1 messages.
//!
//! There is no official binding; the names are those of the AMQP 1.0 binding (1.0.2): each attribute is a header
//! `cloudEvents:` and its name, the media type the property `content-type`. The properties `message-id`, `type` and
//! `timestamp` repeat `id`, `type` and `time` for tools that know nothing of CloudEvents.

use std::borrow::Cow;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use tidemill_rules::CloudEvent;

use super::config::TargetConfig;
use crate::cloudevents::attributes::{self, Value};
use crate::cloudevents::json::{self, Layout};
use crate::cloudevents::{JSON_TYPE, Mode};
use crate::{OutEvent, SendError};

/// Delivery modes (AMQP 0-9-1, class `basic`).
const TRANSIENT: u8 = 1;
const PERSISTENT: u8 = 2;

/// A message to publish.
pub(super) struct Encoded<'a> {
    pub(super) routing_key: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) payload: Cow<'a, [u8]>,
}

/// Encodes an event. What cannot be encoded can never be sent.
pub(super) fn encode<'a>(config: &TargetConfig, out: &'a OutEvent) -> Result<Encoded<'a>, SendError> {
    let event = &out.event;
    let routing_key = short("routing key", config.routing_key.of(out)?)?;
    // Returned messages are recognised by this property, so it has to be there.
    let properties = BasicProperties::default()
        .with_delivery_mode(if config.persistent { PERSISTENT } else { TRANSIENT })
        .with_message_id(short("id", &event.id)?);
    let properties = match ShortString::try_new(event.ty.as_str()) {
        Ok(ty) => properties.with_type(ty),
        Err(_) => properties,
    };
    let properties = match event.time_ms.and_then(|ms| u64::try_from(ms).ok()) {
        // Whole seconds (AMQP 0-9-1, "Timestamps").
        Some(ms) => properties.with_timestamp(ms / 1_000),
        None => properties,
    };
    let (properties, payload) = match config.mode {
        Mode::Binary => {
            let properties = match &event.datacontenttype {
                Some(media_type) => properties.with_content_type(short("datacontenttype", media_type)?),
                None => properties,
            };
            (
                properties.with_headers(headers(event)?),
                Cow::Borrowed(event.data.as_deref().unwrap_or_default()),
            )
        }
        Mode::Structured => {
            let mut document = Vec::with_capacity(event.data.as_ref().map_or(0, |data| data.len()) + 512);
            json::write_event(&mut document, event, Layout::AsIs);
            (properties.with_content_type(JSON_TYPE.into()), Cow::Owned(document))
        }
    };
    Ok(Encoded { routing_key, properties, payload })
}

fn headers(event: &CloudEvent) -> Result<FieldTable, SendError> {
    let mut headers = FieldTable::default();
    let mut too_long = None;
    attributes::for_each(event, |name, value| {
        let value = match value {
            Value::Integer(number) => AMQPValue::LongInt(number),
            Value::Boolean(flag) => AMQPValue::Boolean(flag),
            Value::Text(_) | Value::Time(_) => {
                AMQPValue::LongString(LongString::from(value.text().into_owned()))
            }
        };
        match short("attribute name", &format!("cloudEvents:{name}")) {
            Ok(name) => {
                headers.insert(name, value);
            }
            Err(error) => too_long = Some(error),
        }
    });
    too_long.map_or(Ok(headers), Err)
}

fn short(what: &str, text: &str) -> Result<ShortString, SendError> {
    let refused = |_| SendError::give_up(format!("{what} has {} bytes; AMQP 0-9-1 allows 255", text.len()));
    ShortString::try_new(text).map_err(refused)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use tidemill_rules::yaml::{Source, parse};

    use super::*;
    use crate::testing;

    fn target(text: &str) -> TargetConfig {
        let source = Source { name: "test.yaml".to_owned(), text: text.to_owned() };
        TargetConfig::check(&parse(Arc::new(source)).unwrap()).unwrap().0
    }

    fn event() -> OutEvent {
        OutEvent { event: testing::full_event(), slots: vec!["key.v1".to_owned()], order_key: 0 }
    }

    #[test]
    fn binary_puts_attributes_into_headers() {
        let (target, event) = (target("{ exchange: x, routing_key: \"{{ topic }}\" }"), event());
        let message = encode(&target, &event).unwrap();
        assert_eq!(message.routing_key.as_str(), "key.v1");
        assert_eq!(&*message.payload, b"{\"temp_c\": 121.5}");
        let properties = &message.properties;
        assert_eq!(properties.content_type().as_ref().map(ShortString::as_str), Some("application/json"));
        assert_eq!(properties.message_id().as_ref().map(ShortString::as_str), Some("id-1"));
        assert_eq!(properties.kind().as_ref().map(ShortString::as_str), Some("com.example.overheat"));
        assert_eq!((*properties.timestamp(), *properties.delivery_mode()), (Some(1_709_210_096), Some(2)));
        let headers: BTreeMap<_, _> = properties
            .headers()
            .as_ref()
            .unwrap()
            .inner()
            .iter()
            .map(|(name, value)| (name.as_str(), value))
            .collect();
        let text = |text: &str| AMQPValue::LongString(text.into());
        assert_eq!(headers.len(), 10);
        assert_eq!(headers["cloudEvents:specversion"], &text("1.0"));
        assert_eq!(headers["cloudEvents:source"], &text("/vehicles/v1"));
        assert_eq!(headers["cloudEvents:time"], &text("2024-02-29T12:34:56.789Z"));
        assert_eq!(headers["cloudEvents:hops"], &AMQPValue::LongInt(-3));
        assert_eq!(headers["cloudEvents:urgent"], &AMQPValue::Boolean(true));
    }

    #[test]
    fn structured_is_one_document() {
        let (target, event) = (target("{ exchange: x, mode: structured, persistent: false }"), event());
        let message = encode(&target, &event).unwrap();
        let media_type = message.properties.content_type();
        assert_eq!(media_type.as_ref().map(ShortString::as_str), Some("application/cloudevents+json"));
        assert_eq!(*message.properties.delivery_mode(), Some(1));
        let read: cloudevents::Event = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!(cloudevents::AttributesReader::id(&read), "id-1");
    }

    #[test]
    fn what_does_not_fit_is_given_up() {
        let target = target("{ exchange: x, routing_key: \"{{ topic }}\" }");
        let mut long = event();
        long.slots = vec!["k".repeat(256)];
        assert_eq!(encode(&target, &long).err().unwrap().follow, crate::Follow::GiveUp);
        let mut long = event();
        long.event.id = "i".repeat(256);
        assert_eq!(encode(&target, &long).err().unwrap().follow, crate::Follow::GiveUp);
    }
}
