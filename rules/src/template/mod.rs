//! Templates: text with places to fill from a message, as in `/vehicles/{{ topic[1] }}`.
//!
//! | placeholder | stands for |
//! |---|---|
//! | `topic` | the whole topic |
//! | `topic[1]`, `topic[-1]` | one level of it, from 0, or from the end |
//! | `data`, `data.engine.temp_c`, `data["odd key"]`, `data.list[0]` | the payload as JSON, or a part of it |
//! | `payload` | the whole payload as text |
//! | `client`, `user`, `qos`, `retain`, `content_type` | of the publish |
//! | `property.NAME`, `property["odd name"]` | an MQTT 5 user property, the first of that name |
//! | `id`, `time` | the record's identity, and when it was stored (RFC 3339) |
//! | `"text"` | itself; `{{ "{{" }}` writes two braces |
//!
//! `{{ data.x | default: "none" }}` stands for a JSON literal where the value is missing or null. Without a default
//! that is a [`MapError`]. In text, maps and lists are written as compact JSON.
//!
//! # Layout
//! - `parse`  text to [`Template`]; [`TemplateError`]
//! - `lookup` placeholders to values of a message

mod lookup;
mod parse;

use std::fmt;

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

pub use parse::TemplateError;

use crate::error::Problem;
use crate::yaml::{Kind, Node};
use crate::{Context, Diagnostic, MapError, attributes};
use lookup::Found;

/// Bytes that the text of a template may have.
pub const TEMPLATE_BYTES_MAX: usize = 16 * 1024;
/// Placeholders that one template may have.
pub const PLACEHOLDERS_MAX: usize = 256;
/// Bytes that a filled template may have.
pub const RESULT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Text with places to fill from a message. See [the module](self) for the language.
#[derive(Clone, PartialEq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Placeholder(Placeholder),
}

/// `{{ path | default: literal }}`
#[derive(Clone, Debug, PartialEq)]
struct Placeholder {
    /// The path as it is written, for errors.
    written: String,
    path: Path,
    default: Option<Value>,
}

#[derive(Clone, Debug, PartialEq)]
enum Path {
    Topic,
    Level(i32),
    Data(Vec<Step>),
    Payload,
    Client,
    User,
    Qos,
    Retain,
    ContentType,
    Property(String),
    Id,
    Time,
}

/// One step into JSON.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Key(String),
    Index(i32),
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// The place within `text`, what is wrong there, and what there is instead.
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        parse::parse(text)
    }

    /// Parses the template that a node holds.
    ///
    /// # Errors
    /// As [`Template::parse`], at the place in the file; or the node is no text.
    pub fn from_node(node: &Node) -> Result<Template, Diagnostic> {
        let text = node.as_str().ok_or_else(|| {
            let scalar = matches!(node.kind(), Kind::Bool | Kind::Number);
            node.expected("text").with_hint_if(scalar.then_some("put it in quotes"))
        })?;
        Template::parse(text).map_err(|error| {
            let place = error.offset..error.offset.saturating_add(error.length);
            node.diagnostic_within(place, error.message).with_hint_if(error.hint)
        })
    }

    /// A template that is just this text, braces and all.
    #[must_use]
    pub fn constant(text: impl Into<String>) -> Template {
        Template { parts: vec![Part::Text(text.into())] }
    }

    /// Whether it has no placeholders, so that it is the same for every message.
    #[must_use]
    pub fn is_constant(&self) -> bool {
        self.as_constant().is_some()
    }

    /// The text of a template without placeholders.
    #[must_use]
    pub fn as_constant(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Appends the template, filled from a message. After an error `out` holds a part of it.
    ///
    /// # Errors
    /// A value is missing or null and has no default; the payload is no JSON; the result is too long.
    pub fn render(&self, cx: &mut Context<'_>, out: &mut String) -> Result<(), MapError> {
        self.render_by(cx, out, |text, out| out.push_str(text))
    }

    /// As [`Template::render`], with the values (not the text around them) made fit for a URI.
    pub(crate) fn render_uri(&self, cx: &mut Context<'_>, out: &mut String) -> Result<(), MapError> {
        self.render_by(cx, out, attributes::push_uri_encoded)
    }

    fn render_by(
        &self,
        cx: &mut Context<'_>,
        out: &mut String,
        push: impl Fn(&str, &mut String),
    ) -> Result<(), MapError> {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Placeholder(placeholder) => match placeholder.find(cx)? {
                    Found::Text(text) => push(&text, out),
                    Found::Json(Value::String(text)) => push(text, out),
                    Found::Json(Value::Null) => return Err(Problem::Null(placeholder.written.clone()).into()),
                    Found::Json(value) => push(&value.to_string(), out),
                    Found::Bool(value) => push(if value { "true" } else { "false" }, out),
                    Found::Small(value) => push(value.to_string().as_str(), out),
                },
            }
            if out.len() > RESULT_BYTES_MAX {
                return Err(Problem::TooLong(RESULT_BYTES_MAX).into());
            }
        }
        Ok(())
    }

    /// Appends the result as JSON. A template that is one placeholder keeps the type of its value; any other gives
    /// a string.
    pub(crate) fn write_json(&self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Result<(), MapError> {
        if let [Part::Placeholder(placeholder)] = self.parts.as_slice() {
            match placeholder.find(cx)? {
                Found::Text(text) => write_json_value(&*text, out),
                Found::Json(value) => write_json_value(value, out),
                Found::Bool(value) => write_json_value(&value, out),
                Found::Small(value) => write_json_value(&value, out),
            }
        } else {
            let mut text = String::new();
            self.render(cx, &mut text)?;
            write_json_value(&text, out);
        }
        if out.len() > RESULT_BYTES_MAX {
            return Err(Problem::TooLong(RESULT_BYTES_MAX).into());
        }
        Ok(())
    }
}

/// Appends a value as JSON.
pub(crate) fn write_json_value<T: serde::Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    // Text, numbers and JSON values always serialize, and a Vec takes everything that is written to it.
    let written = serde_json::to_writer(out, value);
    debug_assert!(written.is_ok(), "{written:?}");
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Template(")?;
        for part in &self.parts {
            match part {
                Part::Text(text) => write!(f, "{text:?}")?,
                Part::Placeholder(placeholder) => write!(f, "{{{{ {} }}}}", placeholder.written)?,
            }
        }
        f.write_str(")")
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Template, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Template;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text that may have `{{ … }}` in it")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Template, E> {
                Template::parse(text).map_err(de::Error::custom)
            }
            // A key or topic that happens to look like a number or boolean is still that text.
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Template, E> {
                Ok(Template::constant(number.to_string()))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Template, E> {
                Ok(Template::constant(number.to_string()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests;
