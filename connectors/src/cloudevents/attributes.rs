//! Context attributes in one order, with the canonical text of their type (CloudEvents 1.0.2, "Type System").

use std::borrow::Cow;

use tidemill_rules::{AttributeValue, CloudEvent};

use super::time;

/// The version of the specification that all events are written by.
pub(crate) const SPECVERSION: &str = "1.0";

/// Value of a context attribute, borrowed from its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// A string, URI or URI-reference.
    Text(&'a str),
    /// An integer.
    Integer(i32),
    /// A boolean.
    Boolean(bool),
    /// A timestamp in milliseconds since the Unix epoch that RFC 3339 can write.
    Time(i64),
}

impl<'a> Value<'a> {
    /// The canonical string of the value.
    pub(crate) fn text(self) -> Cow<'a, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Integer(number) => Cow::Owned(number.to_string()),
            Self::Boolean(true) => Cow::Borrowed("true"),
            Self::Boolean(false) => Cow::Borrowed("false"),
            // `for_each` passes only times that can be written.
            Self::Time(ms) => Cow::Owned(time::rfc3339(ms).unwrap_or_default()),
        }
    }
}

/// Calls `f` with each attribute that is there, but for `datacontenttype`, which most bindings write elsewhere.
///
/// A `time` outside the years 0 to 9999 cannot be written in RFC 3339 and is left out: the attribute is optional.
pub(crate) fn for_each<'a>(event: &'a CloudEvent, mut f: impl FnMut(&'a str, Value<'a>)) {
    f("specversion", Value::Text(SPECVERSION));
    f("id", Value::Text(&event.id));
    f("source", Value::Text(&event.source));
    f("type", Value::Text(&event.ty));
    if let Some(subject) = &event.subject {
        f("subject", Value::Text(subject));
    }
    if let Some(ms) = event.time_ms.filter(|ms| time::rfc3339(*ms).is_some()) {
        f("time", Value::Time(ms));
    }
    if let Some(dataschema) = &event.dataschema {
        f("dataschema", Value::Text(dataschema));
    }
    for (name, value) in &event.extensions {
        f(name, value_of(value));
    }
}

/// The value of an extension attribute.
pub(crate) fn value_of(value: &AttributeValue) -> Value<'_> {
    match value {
        AttributeValue::String(text) => Value::Text(text),
        AttributeValue::Integer(number) => Value::Integer(*number),
        AttributeValue::Boolean(flag) => Value::Boolean(*flag),
    }
}

/// The text of an extension attribute, if the event has it.
pub(crate) fn extension<'a>(event: &'a CloudEvent, name: &str) -> Option<Cow<'a, str>> {
    event.extensions.iter().find(|(own, _)| own == name).map(|(_, value)| value_of(value).text())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn attributes_come_in_order_with_canonical_text() {
        let event = testing::full_event();
        let mut seen = Vec::new();
        for_each(&event, |name, value| seen.push((name.to_owned(), value.text().into_owned())));
        let seen: Vec<_> = seen.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(
            seen,
            [
                ("specversion", "1.0"),
                ("id", "id-1"),
                ("source", "/vehicles/v1"),
                ("type", "com.example.overheat"),
                ("subject", "v1"),
                ("time", "2024-02-29T12:34:56.789Z"),
                ("dataschema", "https://example.com/schema"),
                ("partitionkey", "v1"),
                ("hops", "-3"),
                ("urgent", "true"),
            ]
        );
    }

    #[test]
    fn a_time_that_cannot_be_written_is_left_out() {
        let mut event = testing::full_event();
        event.time_ms = Some(i64::MAX);
        for_each(&event, |name, _| assert_ne!(name, "time"));
    }
}
