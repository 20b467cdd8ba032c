//! `event` and `data`: a record to a CloudEvent.
//!
//! | attribute | without a word in the rule | in the rule |
//! |---|---|---|
//! | `id` | the log's UUID and the position | never: the same record always has the same |
//! | `type` | `io.tidemill.mqtt.publish` | `event.type` |
//! | `source` | `/tidemill` | `event.source`, a URI-reference; what a URI cannot have is percent-encoded in values |
//! | `subject` | the topic | `event.subject` |
//! | `time` | when the record was stored | `event.time`, RFC 3339 |
//! | `datacontenttype` | see below | `event.datacontenttype`, a media type |
//! | `dataschema` | none | `event.dataschema`, an absolute URI; encoded as `source` |
//! | extensions | none | `event.extensions`: text, 32-bit integers, booleans |
//!
//! A template of an extension always gives text; integers and booleans are constants.
//!
//! All texts are [templates](crate::template). What is constant is checked when the rule is loaded, the rest for
//! each record.
//!
//! Without `data` the event has the payload, untouched and shared; an empty payload is an event without data. Its
//! `datacontenttype` is the MQTT 5 content type if that is a media type, else `application/json` if the payload is
//! JSON, else `application/octet-stream`.
//!
//! With `data` the event has that value as JSON, and `application/json`: maps and lists of constants, templates (one
//! that is a single placeholder keeps the JSON type of its value) and JSONPath (RFC 9535): `{ jsonpath: "$.a[*].b" }`
//! is the value of the node if it finds one, and the list of their values if it finds several; with none it is an
//! error, or what `{ jsonpath: "$.x", default: 0 }` says. A `data` that is a single text is written as it is, without
//! quotes, when `event.datacontenttype` names something other than JSON.
//!
//! # Layout
//! - `event`    the attributes
//! - `data`     the data
//! - `jsonpath` `{ jsonpath: … }`

mod data;
mod event;
mod jsonpath;

use bytes::Bytes;

#[cfg(test)]
pub(crate) use event::EVENT_KEYS;

use crate::yaml::Node;
use crate::{CloudEvent, Context, Diagnostic, MapError, attributes};
use data::Data;
use event::Attributes;

/// The `type` of events whose rule gives none.
pub const TYPE: &str = "io.tidemill.mqtt.publish";
/// The `source` of events whose rule gives none.
pub const SOURCE: &str = "/tidemill";
/// The media type of JSON.
const JSON: &str = "application/json";
/// The media type of anything.
const BYTES: &str = "application/octet-stream";

/// How a rule maps records to events.
#[derive(Debug)]
pub(crate) struct Mapping {
    attributes: Attributes,
    data: Option<Data>,
}

impl Mapping {
    /// Parses `event` and `data` of a rule.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub(crate) fn parse(event: Option<&Node>, data: Option<&Node>) -> Result<Mapping, Vec<Diagnostic>> {
        let attributes = event.map_or_else(|| Ok(Attributes::default()), Attributes::parse);
        let data = data.map(Data::parse).transpose();
        match (attributes, data) {
            (Ok(attributes), Ok(data)) => {
                let as_text = attributes.is_not_json();
                Ok(Mapping { attributes, data: data.map(|data| data.with_text(as_text)) })
            }
            (Err(mut errors), Err(more)) => {
                errors.extend(more);
                Err(errors)
            }
            (Err(errors), _) | (_, Err(errors)) => Err(errors),
        }
    }

    pub(crate) fn event(&self, cx: &mut Context<'_>) -> Result<CloudEvent, MapError> {
        let message = cx.message();
        let data = match &self.data {
            None => message.payload.clone(),
            Some(data) => {
                let mut out = Vec::new();
                data.write(cx, &mut out).map_err(|error| error.in_field("data"))?;
                Bytes::from(out)
            }
        };
        let data = Some(data).filter(|data| !data.is_empty());
        let mut event = self.attributes.event(cx)?;
        if event.datacontenttype.is_none() && data.is_some() {
            let media_type = match (&self.data, message.content_type) {
                (Some(_), _) => JSON,
                (None, Some(given)) if attributes::check_media_type(given).is_ok() => given,
                (None, _) if cx.is_json() => JSON,
                (None, _) => BYTES,
            };
            event.datacontenttype = Some(media_type.to_owned());
        }
        event.data = data;
        Ok(event)
    }
}

#[cfg(test)]
mod tests;
