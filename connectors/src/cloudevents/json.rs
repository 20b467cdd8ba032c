//! The JSON event format (CloudEvents JSON Event Format 1.0.2).
//!
//! Data of a JSON media type is put in as it is when its bytes are JSON: it is scanned once, never built into a tree
//! and never printed again. Text becomes a JSON string, everything else `data_base64` (section 3.1).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;
use tidemill_rules::CloudEvent;

use super::attributes::{self, Value};
use super::time;

/// How [`write_event`] lays out the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// JSON data keeps its whitespace.
    AsIs,
    /// No line breaks: the event fits one line of a file.
    OneLine,
}

/// Appends one event.
pub(crate) fn write_event(out: &mut Vec<u8>, event: &CloudEvent, layout: Layout) {
    let mut separator = b'{';
    attributes::for_each(event, |name, value| {
        out.push(separator);
        separator = b',';
        write_string(out, name);
        out.push(b':');
        match value {
            Value::Text(text) => write_string(out, text),
            Value::Integer(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Value::Boolean(flag) => out.extend_from_slice(if flag { b"true" } else { b"false" }),
            Value::Time(ms) => write_string(out, &time::rfc3339(ms).unwrap_or_default()),
        }
    });
    let form = event.data.as_ref().map(|data| (Form::of(event.datacontenttype.as_deref(), data), data));
    let media_type = match (&event.datacontenttype, &form) {
        (Some(media_type), _) => Some(media_type.as_str()),
        // An event in this format without a media type is read as JSON; bytes that are none must not claim it.
        (None, Some((Form::Bytes, _))) => Some("application/octet-stream"),
        (None, _) => None,
    };
    if let Some(media_type) = media_type {
        out.extend_from_slice(b",\"datacontenttype\":");
        write_string(out, media_type);
    }
    match form {
        Some((Form::Json(json), _)) => {
            out.extend_from_slice(b",\"data\":");
            write_json(out, json, layout);
        }
        Some((Form::Text(text), _)) => {
            out.extend_from_slice(b",\"data\":");
            write_string(out, text);
        }
        Some((Form::Bytes, data)) => {
            out.extend_from_slice(b",\"data_base64\":\"");
            out.extend_from_slice(STANDARD.encode(data).as_bytes());
            out.push(b'"');
        }
        None => {}
    }
    out.push(b'}');
}

/// Appends a batch of events (section 4, "JSON Batch Format").
pub(crate) fn write_batch<'a>(out: &mut Vec<u8>, events: impl Iterator<Item = &'a CloudEvent>) {
    let mut separator = b'[';
    for event in events {
        out.push(separator);
        separator = b',';
        write_event(out, event, Layout::AsIs);
    }
    if separator == b'[' {
        out.push(b'[');
    }
    out.push(b']');
}

/// How the data of an event stands in the document.
enum Form<'a> {
    Json(&'a str),
    Text(&'a str),
    Bytes,
}

impl<'a> Form<'a> {
    fn of(media_type: Option<&str>, data: &'a [u8]) -> Self {
        // Without a media type a reader takes the data for JSON (section 3.1), so JSON is what it should be.
        let media_type = media_type.unwrap_or("application/json");
        if is_json(media_type) {
            // `RawValue` checks that the bytes are one JSON value within serde_json's depth; it builds nothing.
            return serde_json::from_slice::<&RawValue>(data)
                .map_or(Self::Bytes, |raw| Self::Json(raw.get()));
        }
        match std::str::from_utf8(data) {
            Ok(text) if is_text(media_type) => Self::Text(text),
            _ => Self::Bytes,
        }
    }
}

/// Whether a media type is JSON: `*/json` or `*/*+json`, in any case and with any parameters.
pub(crate) fn is_json(media_type: &str) -> bool {
    let subtype = essence(media_type).split_once('/').map_or("", |(_, subtype)| subtype);
    ends_with(subtype, "+json") || subtype.eq_ignore_ascii_case("json")
}

/// Whether a media type is text in UTF-8, so that a JSON string holds it without loss.
fn is_text(media_type: &str) -> bool {
    let essence = essence(media_type);
    let text = essence.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("text/"))
        || essence.eq_ignore_ascii_case("application/xml")
        || ends_with(essence, "+xml");
    text && media_type.split(';').skip(1).all(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = value.trim().trim_matches('"');
        !name.trim().eq_ignore_ascii_case("charset")
            || value.eq_ignore_ascii_case("utf-8")
            || value.eq_ignore_ascii_case("us-ascii")
    })
}

/// The media type without its parameters.
fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or(media_type).trim()
}

fn ends_with(text: &str, end: &str) -> bool {
    text.len()
        .checked_sub(end.len())
        .and_then(|at| text.get(at..))
        .is_some_and(|tail| tail.eq_ignore_ascii_case(end))
}

fn write_json(out: &mut Vec<u8>, json: &str, layout: Layout) {
    let start = out.len();
    out.extend_from_slice(json.as_bytes());
    if layout == Layout::OneLine {
        // JSON strings hold no raw line breaks, so each one here is white space between tokens.
        for byte in out.iter_mut().skip(start).filter(|byte| matches!(byte, b'\n' | b'\r')) {
            *byte = b' ';
        }
    }
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    // Writing a string into a vector of bytes cannot fail; were it to, the empty string keeps the document whole.
    let start = out.len();
    if serde_json::to_writer(&mut *out, text).is_err() {
        out.truncate(start);
        out.extend_from_slice(b"\"\"");
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
