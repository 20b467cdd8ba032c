//! `data`: the data of the event, written as JSON.

use super::jsonpath::JsonPath;
use crate::template::{RESULT_BYTES_MAX, write_json_value};
use crate::yaml::{Kind, Node};
use crate::{Context, Diagnostic, MapError, Problem, Template};

/// How the data is made.
#[derive(Debug)]
pub(super) struct Data {
    part: Part,
    /// Text without quotes.
    as_text: bool,
}

#[derive(Debug)]
enum Part {
    /// Written as it is.
    Json(Vec<u8>),
    Template(Template),
    JsonPath(JsonPath),
    List(Vec<Part>),
    Map(Vec<Entry>),
}

#[derive(Debug)]
struct Entry {
    name: String,
    /// The name in quotes, and a colon.
    written: Vec<u8>,
    part: Part,
}

impl Data {
    pub(super) fn parse(node: &Node) -> Result<Data, Vec<Diagnostic>> {
        if node.is_null() {
            let diagnostic = node.diagnostic("`data` is empty");
            return Err(vec![diagnostic.with_hint("leave it out to send the payload as it is")]);
        }
        let mut errors = Vec::new();
        let part = Part::parse(node, &mut errors);
        if errors.is_empty() { Ok(Data { part, as_text: false }) } else { Err(errors) }
    }

    /// Whether a single text is written without quotes.
    pub(super) fn with_text(self, as_text: bool) -> Data {
        Data { as_text, ..self }
    }

    pub(super) fn write(&self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Result<(), MapError> {
        match &self.part {
            Part::Template(template) if self.as_text => {
                let mut text = String::new();
                template.render(cx, &mut text)?;
                *out = text.into_bytes();
                Ok(())
            }
            part => part.write(cx, out),
        }
    }
}

impl Part {
    /// After an error something harmless, to go on and find the next one.
    fn parse(node: &Node, errors: &mut Vec<Diagnostic>) -> Part {
        let attempt = match node.kind() {
            Kind::Null | Kind::Bool | Kind::Number => Ok(Part::constant(node)),
            Kind::Text => Template::from_node(node).map(Part::Template),
            Kind::Seq => {
                let items = node.as_seq().unwrap_or_default();
                Ok(Part::List(items.iter().map(|item| Part::parse(item, errors)).collect()))
            }
            Kind::Map if node.get("jsonpath").is_some() => JsonPath::parse(node).map(Part::JsonPath),
            Kind::Map => {
                let entry = |(key, value): &(Node, Node)| {
                    let name = key.as_str().unwrap_or_default().to_owned();
                    let mut written = Vec::new();
                    write_json_value(&name, &mut written);
                    written.push(b':');
                    Entry { name, written, part: Part::parse(value, errors) }
                };
                Ok(Part::Map(node.as_map().unwrap_or_default().iter().map(entry).collect()))
            }
        };
        attempt.unwrap_or_else(|error| {
            errors.push(error);
            Part::Json(Vec::new())
        })
    }

    fn constant(node: &Node) -> Part {
        let mut json = Vec::new();
        write_json_value(&node.to_json(), &mut json);
        Part::Json(json)
    }

    fn write(&self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Result<(), MapError> {
        match self {
            Part::Json(json) => out.extend_from_slice(json),
            Part::Template(template) => template.write_json(cx, out)?,
            Part::JsonPath(path) => path.write(cx, out)?,
            Part::List(items) => {
                out.push(b'[');
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    item.write(cx, out).map_err(|error| error.in_field(&format!("[{at}]")))?;
                }
                out.push(b']');
            }
            Part::Map(entries) => {
                out.push(b'{');
                for (at, entry) in entries.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(&entry.written);
                    entry.part.write(cx, out).map_err(|error| error.in_field(&entry.name))?;
                }
                out.push(b'}');
            }
        }
        if out.len() > RESULT_BYTES_MAX {
            return Err(Problem::TooLong(RESULT_BYTES_MAX).into());
        }
        Ok(())
    }
}
