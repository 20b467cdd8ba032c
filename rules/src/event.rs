//! [`CloudEvent`]: a record seen as a CloudEvent 1.0.

use bytes::Bytes;

/// Value of an extension attribute (CloudEvents 1.0.2, "Type System"; the types that arise here).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttributeValue {
    /// A string.
    String(String),
    /// A signed 32-bit integer.
    Integer(i32),
    /// A boolean.
    Boolean(bool),
}

/// A CloudEvent 1.0, mapped by one rule from one record. Attribute values were checked against the
/// specification when the rule was loaded or the event was mapped; connectors write them as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudEvent {
    /// `id`: unique with `source`; the same for every retry and replay of a record.
    pub id: String,
    /// `source`: a URI-reference, never empty.
    pub source: String,
    /// `type`: never empty.
    pub ty: String,
    /// `subject`.
    pub subject: Option<String>,
    /// `time` in milliseconds since the Unix epoch, written as RFC 3339 in UTC.
    pub time_ms: Option<i64>,
    /// `datacontenttype`: a media type.
    pub datacontenttype: Option<String>,
    /// `dataschema`: a URI.
    pub dataschema: Option<String>,
    /// Extension attributes: names of lower-case letters and digits.
    pub extensions: Vec<(String, AttributeValue)>,
    /// The data. Of the media type `datacontenttype`; absent when the payload is empty.
    pub data: Option<Bytes>,
}
