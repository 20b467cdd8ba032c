//! Text to a [`Template`].

use std::fmt;

use serde_json::Value;

use super::{PLACEHOLDERS_MAX, Part, Path, Placeholder, Step, TEMPLATE_BYTES_MAX, Template};
use crate::diagnostic::closest;

/// Steps that one path may have.
const STEPS_MAX: usize = 64;

/// The first words of all paths.
const WORDS: [&str; 11] =
    ["topic", "data", "payload", "client", "user", "qos", "retain", "content_type", "property", "id", "time"];

/// What all paths look like.
const PATHS: &str = "`topic`, `topic[1]`, `data`, `data.a.b[0]`, `payload`, `client`, `user`, `qos`, `retain`, \
                     `content_type`, `property.NAME`, `id`, `time`";

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// Byte within the template where it goes wrong.
    pub offset: usize,
    /// Bytes it covers.
    pub length: usize,
    /// The same place as a character, from 1, for people.
    pub character: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in the template at character {}: {}", self.character, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for TemplateError {}

pub(super) fn parse(text: &str) -> Result<Template, TemplateError> {
    let mut cursor = Cursor { text, at: 0 };
    if text.len() > TEMPLATE_BYTES_MAX {
        let message =
            format!("the template has {} bytes; at most {TEMPLATE_BYTES_MAX} are possible", text.len());
        return Err(cursor.error(0, 0, message));
    }
    let mut parts: Vec<Part> = Vec::new();
    let mut placeholders = 0;
    while let Some(open) = cursor.rest().find("{{") {
        push_text(&mut parts, cursor.rest().get(..open).unwrap_or_default());
        cursor.at += open;
        placeholders += 1;
        if placeholders > PLACEHOLDERS_MAX {
            let message = format!("more than {PLACEHOLDERS_MAX} placeholders");
            return Err(cursor.error(cursor.at, 2, message));
        }
        match cursor.placeholder()? {
            Part::Text(text) => push_text(&mut parts, &text),
            part => parts.push(part),
        }
    }
    push_text(&mut parts, cursor.rest());
    Ok(Template { parts })
}

fn push_text(parts: &mut Vec<Part>, more: &str) {
    match parts.last_mut() {
        _ if more.is_empty() => {}
        Some(Part::Text(text)) => text.push_str(more),
        _ => parts.push(Part::Text(more.to_owned())),
    }
}

struct Cursor<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Cursor<'t> {
    /// From `{{` to after `}}`.
    fn placeholder(&mut self) -> Result<Part, TemplateError> {
        let open = self.at;
        self.at += 2;
        self.skip_space();
        if !self.rest().contains("}}") {
            let error = self.error(open, 2, "this `{{` is never closed");
            return Err(error.with_hint("add `}}`; to write two braces as they are: `{{ \"{{\" }}`"));
        }
        if self.rest().starts_with('"') {
            let Value::String(text) = self.literal()? else {
                return Err(self.error(open, 2, "expected text in quotes"));
            };
            self.close()?;
            return Ok(Part::Text(text));
        }
        let start = self.at;
        let path = self.path()?;
        let written = self.text.get(start..self.at).unwrap_or_default().to_owned();
        self.skip_space();
        let default = if self.eat("|") { Some(self.default()?) } else { None };
        self.close()?;
        Ok(Part::Placeholder(Placeholder { written, path, default }))
    }

    fn close(&mut self) -> Result<(), TemplateError> {
        self.skip_space();
        if self.eat("}}") {
            return Ok(());
        }
        let length = self.rest().chars().next().map_or(0, char::len_utf8);
        Err(self
            .error(self.at, length, "expected `}}`")
            .with_hint("after a path there may be `| default: \"text\"`"))
    }

    fn default(&mut self) -> Result<Value, TemplateError> {
        self.skip_space();
        let start = self.at;
        let word = self.word();
        if word != "default" {
            let message = if word.is_empty() {
                "expected `default`".into()
            } else {
                format!("unknown filter `{word}`")
            };
            return Err(self
                .error(start, word.len(), message)
                .with_hint("the only filter is `default: \"text\"`"));
        }
        self.skip_space();
        if !self.eat(":") {
            return Err(self.error(self.at, 1, "expected `:` after `default`"));
        }
        self.skip_space();
        self.literal()
    }

    /// A JSON string, number, boolean or null.
    fn literal(&mut self) -> Result<Value, TemplateError> {
        let start = self.at;
        let mut values = serde_json::Deserializer::from_str(self.rest()).into_iter::<Value>();
        let read = values.next();
        let end = values.byte_offset();
        match read {
            Some(Ok(value)) if !value.is_array() && !value.is_object() => {
                self.at += end;
                Ok(value)
            }
            _ => {
                let error = self.error(start, 1, "expected a literal");
                Err(error.with_hint("text in double quotes, a number, `true`, `false` or `null`"))
            }
        }
    }

    fn path(&mut self) -> Result<Path, TemplateError> {
        let start = self.at;
        let word = self.word();
        let path = match word {
            "topic" => match self.step()? {
                None => Path::Topic,
                Some((_, Step::Index(index))) => Path::Level(index),
                Some((at, Step::Key(_))) => {
                    return Err(self
                        .error(at, 1, "a topic has levels by number")
                        .with_hint("as in `topic[1]`, from 0"));
                }
            },
            "data" => {
                let mut steps = Vec::new();
                while let Some((at, step)) = self.step()? {
                    if steps.len() == STEPS_MAX {
                        return Err(self.error(at, 1, format!("more than {STEPS_MAX} steps in one path")));
                    }
                    steps.push(step);
                }
                Path::Data(steps)
            }
            "property" => match self.step()? {
                Some((_, Step::Key(name))) => Path::Property(name),
                _ => {
                    let error =
                        self.error(start, self.at - start, "`property` needs the name of a user property");
                    return Err(error.with_hint("as in `property.region` or `property[\"odd name\"]`"));
                }
            },
            "payload" => Path::Payload,
            "client" => Path::Client,
            "user" => Path::User,
            "qos" => Path::Qos,
            "retain" => Path::Retain,
            "content_type" => Path::ContentType,
            "id" => Path::Id,
            "time" => Path::Time,
            "" => {
                let length = self.rest().chars().next().map_or(0, char::len_utf8);
                return Err(self
                    .error(start, length, "expected a path")
                    .with_hint(format!("there is {PATHS}")));
            }
            unknown => {
                let error = self.error(start, unknown.len(), format!("unknown `{unknown}`"));
                return Err(match closest(unknown, WORDS) {
                    Some(meant) => error.with_hint(format!("did you mean `{meant}`? there is {PATHS}")),
                    None => {
                        error.with_hint(format!("there is {PATHS}; fields of the payload begin with `data.`"))
                    }
                });
            }
        };
        if let Some((at, _)) = self.step()? {
            let message = format!("`{word}` has no parts that could be named here");
            return Err(self.error(at, self.at - at, message).with_hint(format!("there is {PATHS}")));
        }
        Ok(path)
    }

    /// `.name`, `[3]` or `["odd name"]`, and where it begins.
    fn step(&mut self) -> Result<Option<(usize, Step)>, TemplateError> {
        let start = self.at;
        if self.eat(".") {
            let word = self.word();
            if word.is_empty() {
                let error = self.error(start, 1, "expected a name after `.`");
                return Err(error.with_hint(
                    "names with other characters than letters, digits, `_` and `-`: `[\"odd name\"]`",
                ));
            }
            return Ok(Some((start, Step::Key(word.to_owned()))));
        }
        if !self.eat("[") {
            return Ok(None);
        }
        self.skip_space();
        let step = match self.literal() {
            Ok(Value::String(name)) => Some(Step::Key(name)),
            Ok(Value::Number(number)) => number.as_i64().and_then(|n| i32::try_from(n).ok()).map(Step::Index),
            _ => None,
        };
        self.skip_space();
        match step {
            Some(step) if self.eat("]") => Ok(Some((start, step))),
            _ => {
                let error = self.error(start, 1, "expected a number or text in double quotes, and `]`");
                Err(error.with_hint("as in `[0]`, `[-1]` or `[\"odd name\"]`"))
            }
        }
    }

    /// Letters, digits, `_` and `-`; possibly empty.
    fn word(&mut self) -> &'t str {
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn error(&self, offset: usize, length: usize, message: impl Into<String>) -> TemplateError {
        let character = self.text.get(..offset).unwrap_or_default().chars().count() + 1;
        TemplateError { offset, length, character, message: message.into(), hint: None }
    }
}

impl TemplateError {
    fn with_hint(mut self, hint: impl Into<String>) -> TemplateError {
        self.hint = Some(hint.into());
        self
    }
}
