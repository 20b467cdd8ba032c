//! CloudEvents 1.0.2 encodings that several kinds share.
//!
//! # Layout
//! - [`attributes`]: context attributes in one order, with their canonical text
//! - [`json`]: the JSON event format, one event or a batch
//! - [`percent`]: attribute values in HTTP headers
//! - [`time`]: timestamps by RFC 3339

pub(crate) mod attributes;
pub(crate) mod json;
pub(crate) mod percent;
pub(crate) mod time;

use serde::Deserialize;

/// Media type of one event in the JSON event format.
pub(crate) const JSON_TYPE: &str = "application/cloudevents+json";
/// Media type of a batch of events in the JSON event format.
pub(crate) const JSON_BATCH_TYPE: &str = "application/cloudevents-batch+json";

/// How an event lies in a message: attributes beside the data, or all of it in one document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// The data is the message; attributes are headers.
    #[default]
    Binary,
    /// The message is the event in the JSON event format.
    Structured,
}
