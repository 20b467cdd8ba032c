//! Requests by the CloudEvents HTTP protocol binding 1.0.2, and the path they go to.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;
use tidemill_rules::yaml::Node;
use tidemill_rules::{CloudEvent, Diagnostic};

use crate::cloudevents::json::{self, Layout};
use crate::cloudevents::{JSON_BATCH_TYPE, JSON_TYPE, attributes, percent};
use crate::slots::{Field, Slots};
use crate::{OutEvent, SendError};

/// What of a segment's value is encoded: everything but RFC 3986's unreserved characters.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A segment of a path. Values are encoded segment by segment, so that a device cannot reach another path with a
/// slash, two dots or a question mark in its data.
#[derive(Debug)]
pub(super) struct PathPart(pub(super) Field);

/// Cuts a path at its slashes, outside of `{{ }}`, into segments that are templates.
pub(super) fn split_path(slots: &mut Slots, at: &Node, path: &str) -> Result<Vec<PathPart>, Diagnostic> {
    let mut parts = Vec::new();
    for (start, text) in segments(path) {
        let field = slots.field_within(at, start, text)?;
        if let Some(problem) = field.constant().and_then(segment_problem) {
            return Err(at.diagnostic_within(start..start + text.len(), problem));
        }
        parts.push(PathPart(field));
    }
    Ok(parts)
}

/// A path for people, as it will be added to a URL.
pub(super) fn shown_path(path: &str) -> String {
    segments(path).into_iter().flat_map(|(_, text)| ["/", text]).collect()
}

/// The segments of a path that are not empty, and where they start. They end at each slash outside of a placeholder,
/// and at the end.
fn segments(path: &str) -> Vec<(usize, &str)> {
    let mut ends = Vec::new();
    let (mut inside, mut quoted, mut before) = (false, false, '\0');
    for (at, c) in path.char_indices() {
        match c {
            '{' if before == '{' && !inside => inside = true,
            '"' if inside && before != '\\' => quoted = !quoted,
            '}' if inside && !quoted && before == '}' => inside = false,
            '/' if !inside => ends.push(at),
            _ => {}
        }
        before = c;
    }
    ends.push(path.len());
    let starts = std::iter::once(0).chain(ends.iter().map(|end| end + 1));
    let segments = starts.zip(&ends).map(|(start, end)| (start, path.get(start..*end).unwrap_or_default()));
    segments.filter(|(_, text)| !text.is_empty()).collect()
}

/// What is wrong with a segment that is the same for all events.
fn segment_problem(text: &str) -> Option<String> {
    let bad = text.chars().find(|c| matches!(c, '?' | '#' | '\\') || c.is_control())?;
    Some(format!("a path cannot hold `{}`; a query belongs to the connection's `url`", bad.escape_debug()))
}

/// The URL of an event: the connection's, with the target's path added.
pub(super) fn url(base: &Url, path: &[PathPart], event: &OutEvent) -> Result<Url, SendError> {
    if path.is_empty() {
        return Ok(base.clone());
    }
    let mut full = base.path().trim_end_matches('/').to_owned();
    for PathPart(field) in path {
        let value = field.of(event)?;
        if matches!(value, "" | "." | "..") {
            return Err(SendError::give_up(format!("path segment `{value}`: it would lead to another path")));
        }
        full.push('/');
        full.extend(utf8_percent_encode(value, SEGMENT));
    }
    let mut url = base.clone();
    url.set_path(&full);
    Ok(url)
}

/// A request's headers and body.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Section 3.1: the data is the body, attributes are `ce-` headers.
pub(super) fn binary(event: &CloudEvent) -> Result<Encoded, SendError> {
    let mut headers = HeaderMap::with_capacity(10 + event.extensions.len());
    if let Some(media_type) = &event.datacontenttype {
        headers.insert(header::CONTENT_TYPE, value("datacontenttype", media_type)?);
    }
    let mut failure = None;
    attributes::for_each(event, |attribute, text| {
        let text = text.text();
        match (name(attribute), value(attribute, &percent::encode(&text))) {
            (Ok(name), Ok(value)) => {
                headers.insert(name, value);
            }
            (Err(error), _) | (_, Err(error)) => failure = Some(error),
        }
    });
    match failure {
        None => Ok(Encoded { headers, body: event.data.clone().unwrap_or_default() }),
        Some(error) => Err(error),
    }
}

/// Section 3.2: one event as a JSON document.
pub(super) fn structured(event: &CloudEvent) -> Encoded {
    let mut body = Vec::with_capacity(event.data.as_ref().map_or(0, Bytes::len) + 512);
    json::write_event(&mut body, event, Layout::AsIs);
    document(JSON_TYPE, body)
}

/// Section 3.3: many events as one JSON document.
pub(super) fn batched<'a>(events: impl Iterator<Item = &'a CloudEvent>) -> Encoded {
    let mut body = Vec::new();
    json::write_batch(&mut body, events);
    document(JSON_BATCH_TYPE, body)
}

fn document(media_type: &'static str, body: Vec<u8>) -> Encoded {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    Encoded { headers, body: body.into() }
}

fn name(attribute: &str) -> Result<HeaderName, SendError> {
    Ok(match attribute {
        "specversion" => HeaderName::from_static("ce-specversion"),
        "id" => HeaderName::from_static("ce-id"),
        "source" => HeaderName::from_static("ce-source"),
        "type" => HeaderName::from_static("ce-type"),
        "subject" => HeaderName::from_static("ce-subject"),
        "time" => HeaderName::from_static("ce-time"),
        "dataschema" => HeaderName::from_static("ce-dataschema"),
        other => format!("ce-{other}")
            .parse()
            .map_err(|_| SendError::give_up(format!("attribute `{other}` makes no name of a header")))?,
    })
}

fn value(attribute: &str, text: &str) -> Result<HeaderValue, SendError> {
    HeaderValue::from_str(text)
        .map_err(|_| SendError::give_up(format!("attribute `{attribute}` fits no header")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidemill_rules::yaml::{Source, parse};

    use super::*;
    use crate::testing;

    fn parts(path: &str) -> (Vec<PathPart>, usize) {
        let source = Source { name: "test.yaml".to_owned(), text: format!("{path:?}") };
        let node = parse(Arc::new(source)).unwrap();
        let mut slots = Slots::default();
        let parts = split_path(&mut slots, &node, path).unwrap();
        (parts, slots.into_templates().len())
    }

    fn to(base: &str, path: &str, slots: &[&str]) -> Result<String, SendError> {
        let mut event = testing::event("x", 0);
        event.slots = slots.iter().map(|slot| (*slot).to_owned()).collect();
        url(&Url::parse(base).unwrap(), &parts(path).0, &event).map(String::from)
    }

    #[test]
    fn paths_are_added_segment_by_segment() {
        assert_eq!(to("http://x/a/?k=1", "/v/{{ topic[1] }}/up", &["c1"]).unwrap(), "http://x/a/v/c1/up?k=1");
        assert_eq!(to("http://x", "", &[]).unwrap(), "http://x/");
        assert_eq!(to("http://x", "b", &[]).unwrap(), "http://x/b");
        assert_eq!(parts("/a/{{ data[\"x/y\"] }}/{{ topic }}-{{ client }}").1, 2);
    }

    #[test]
    fn a_device_cannot_leave_the_path() {
        assert_eq!(
            to("http://x/v", "{{ topic }}", &["a/../b?c#d\\%2e"]).unwrap(),
            "http://x/v/a%2F..%2Fb%3Fc%23d%5C%252e"
        );
        for bad in ["", ".", ".."] {
            assert_eq!(to("http://x/v", "{{ topic }}", &[bad]).unwrap_err().follow, crate::Follow::GiveUp);
        }
    }

    #[test]
    fn binary_puts_attributes_into_headers() {
        let mut event = testing::full_event();
        event.subject = Some("Euro € \"%".to_owned());
        let request = binary(&event).unwrap();
        assert_eq!(request.body, event.data.unwrap());
        let header = |name: &str| request.headers.get(name).unwrap().to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "application/json");
        assert_eq!(header("ce-specversion"), "1.0");
        assert_eq!(header("ce-subject"), "Euro%20%E2%82%AC%20%22%25");
        assert_eq!(header("ce-time"), "2024-02-29T12:34:56.789Z");
        assert_eq!(header("ce-partitionkey"), "v1");
        assert_eq!(header("ce-urgent"), "true");
        assert_eq!(request.headers.len(), 11);
    }

    #[test]
    fn documents_name_their_format() {
        let event = testing::full_event();
        assert_eq!(structured(&event).headers["content-type"], "application/cloudevents+json");
        let batch = batched([&event, &event].into_iter());
        assert_eq!(batch.headers["content-type"], "application/cloudevents-batch+json");
        let read: Vec<cloudevents::Event> = serde_json::from_slice(&batch.body).unwrap();
        assert_eq!(read.len(), 2);
    }
}
