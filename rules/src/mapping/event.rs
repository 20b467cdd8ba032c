//! `event`: the attributes.

use crate::attributes::{self, AttributeError, EXTENSIONS_MAX};
use crate::diagnostic::did_you_mean;
use crate::error::Problem;
use crate::yaml::{Kind, Node};
use crate::{AttributeValue, CloudEvent, Context, Diagnostic, MapError, Template};

/// Keys of `event`.
pub(crate) const EVENT_KEYS: [&str; 7] =
    ["type", "source", "subject", "time", "datacontenttype", "dataschema", "extensions"];

/// The attributes that a rule gives; the others have their defaults.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    ty: Option<Attribute>,
    source: Option<Attribute>,
    subject: Option<Attribute>,
    time: Option<Attribute>,
    datacontenttype: Option<Attribute>,
    dataschema: Option<Attribute>,
    extensions: Vec<(String, Extension)>,
}

/// One attribute: text and what it has to be.
#[derive(Debug)]
struct Attribute {
    field: &'static str,
    template: Template,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    String,
    UriReference,
    Uri,
    MediaType,
    Time,
}

#[derive(Debug)]
enum Extension {
    Constant(AttributeValue),
    Template(Template),
}

impl Form {
    fn check(self, text: &str) -> Result<(), AttributeError> {
        match self {
            Form::String => attributes::check_string(text),
            Form::UriReference => attributes::check_uri_reference(text),
            Form::Uri => attributes::check_uri(text),
            Form::MediaType => attributes::check_media_type(text),
            Form::Time => attributes::parse_time(text).map(drop),
        }
    }
}

impl Attribute {
    fn parse(field: &'static str, form: Form, node: &Node) -> Result<Attribute, Diagnostic> {
        let template = Template::from_node(node)?;
        if let Some(text) = template.as_constant() {
            form.check(text).map_err(|error| node.diagnostic(format!("`event.{field}` {error}")))?;
        }
        Ok(Attribute { field, template, form })
    }

    fn render(&self, cx: &mut Context<'_>) -> Result<String, MapError> {
        if let Some(text) = self.template.as_constant() {
            return Ok(text.to_owned());
        }
        let mut out = String::new();
        let rendered = match self.form {
            Form::UriReference | Form::Uri => self.template.render_uri(cx, &mut out),
            Form::String | Form::MediaType | Form::Time => self.template.render(cx, &mut out),
        };
        rendered
            .and_then(|()| self.form.check(&out).map_err(|error| Problem::from(error).into()))
            .map_err(|error: MapError| error.in_field(self.field).in_field("event"))?;
        Ok(out)
    }
}

impl Attributes {
    pub(super) fn parse(node: &Node) -> Result<Attributes, Vec<Diagnostic>> {
        let entries = node.as_map().ok_or_else(|| vec![node.expected("a map")])?;
        let mut attributes = Attributes::default();
        let mut errors = Vec::new();
        for (key, value) in entries {
            let (slot, field, form) = match key.as_str().unwrap_or_default() {
                "type" => (&mut attributes.ty, "type", Form::String),
                "source" => (&mut attributes.source, "source", Form::UriReference),
                "subject" => (&mut attributes.subject, "subject", Form::String),
                "time" => (&mut attributes.time, "time", Form::Time),
                "datacontenttype" => (&mut attributes.datacontenttype, "datacontenttype", Form::MediaType),
                "dataschema" => (&mut attributes.dataschema, "dataschema", Form::Uri),
                "extensions" => {
                    match extensions(value) {
                        Ok(extensions) => attributes.extensions = extensions,
                        Err(more) => errors.extend(more),
                    }
                    continue;
                }
                name => {
                    errors.push(unknown(key, name));
                    continue;
                }
            };
            match Attribute::parse(field, form, value) {
                Ok(attribute) => *slot = Some(attribute),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(attributes) } else { Err(errors) }
    }

    /// Whether the rule says that the data is something other than JSON.
    pub(super) fn is_not_json(&self) -> bool {
        let given = self.datacontenttype.as_ref().and_then(|attribute| attribute.template.as_constant());
        given.is_some_and(|given| !attributes::is_json_media_type(given))
    }

    /// The event without its data, and without `datacontenttype` unless the rule gives it.
    pub(super) fn event(&self, cx: &mut Context<'_>) -> Result<CloudEvent, MapError> {
        let message = cx.message();
        let optional = |attribute: &Option<Attribute>, cx: &mut Context<'_>| {
            attribute.as_ref().map(|attribute| attribute.render(cx)).transpose()
        };
        let subject = match optional(&self.subject, cx)? {
            Some(subject) => subject,
            None => {
                let bad = |error| MapError::from(Problem::from(error)).in_field("subject").in_field("event");
                attributes::check_string(message.topic).map_err(bad)?;
                message.topic.to_owned()
            }
        };
        let time_ms = match optional(&self.time, cx)? {
            Some(time) => attributes::parse_time(&time)
                .map_err(|error| MapError::from(Problem::from(error)).in_field("time").in_field("event"))?,
            None => message.time_ms,
        };
        let mut extensions = Vec::with_capacity(self.extensions.len());
        for (name, extension) in &self.extensions {
            let inside = |error: MapError| error.in_field(name).in_field("extensions").in_field("event");
            extensions.push((name.clone(), extension.value(cx).map_err(inside)?));
        }
        Ok(CloudEvent {
            id: message.id.to_owned(),
            source: optional(&self.source, cx)?.unwrap_or_else(|| super::SOURCE.to_owned()),
            ty: optional(&self.ty, cx)?.unwrap_or_else(|| super::TYPE.to_owned()),
            subject: Some(subject),
            time_ms: Some(time_ms),
            datacontenttype: optional(&self.datacontenttype, cx)?,
            dataschema: optional(&self.dataschema, cx)?,
            extensions,
            data: None,
        })
    }
}

impl Extension {
    fn value(&self, cx: &mut Context<'_>) -> Result<AttributeValue, MapError> {
        match self {
            Extension::Constant(value) => Ok(value.clone()),
            Extension::Template(template) => {
                let mut text = String::new();
                template.render(cx, &mut text)?;
                attributes::check_string(&text).map_err(Problem::from)?;
                Ok(AttributeValue::String(text))
            }
        }
    }
}

fn unknown(key: &Node, name: &str) -> Diagnostic {
    let diagnostic = key.diagnostic(format!("unknown key `{name}` under `event`"));
    match name {
        "id" => {
            diagnostic.with_hint("the `id` is the record's own, so that consumers can drop duplicates by it")
        }
        "data" => diagnostic.with_hint("`data` stands beside `event`, not in it"),
        name => {
            let hint = did_you_mean(name, EVENT_KEYS).unwrap_or_default();
            let joint = if hint.ends_with('?') { "" } else { ";" };
            diagnostic.with_hint(format!("{hint}{joint} other attributes stand under `extensions`"))
        }
    }
}

fn extensions(node: &Node) -> Result<Vec<(String, Extension)>, Vec<Diagnostic>> {
    let entries = node.as_map().ok_or_else(|| vec![node.expected("a map")])?;
    if entries.len() > EXTENSIONS_MAX {
        return Err(vec![node.diagnostic(format!("more than {EXTENSIONS_MAX} extensions"))]);
    }
    let mut extensions = Vec::with_capacity(entries.len());
    let mut errors = Vec::new();
    for (key, value) in entries {
        let name = key.as_str().unwrap_or_default();
        if let Err(error) = attributes::check_extension_name(name) {
            errors.push(key.diagnostic(error.to_string()));
        }
        match extension(name, value) {
            Ok(extension) => extensions.push((name.to_owned(), extension)),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(extensions) } else { Err(errors) }
}

fn extension(name: &str, node: &Node) -> Result<Extension, Diagnostic> {
    let wrong = |error: AttributeError| node.diagnostic(format!("`event.extensions.{name}` {error}"));
    match node.kind() {
        Kind::Bool => Ok(Extension::Constant(AttributeValue::Boolean(node.as_bool() == Some(true)))),
        Kind::Number => {
            let number = node.as_number().and_then(serde_json::Number::as_i64);
            let number = number.ok_or_else(|| {
                node.diagnostic("an extension's number must be an integer")
                    .with_hint("put it in quotes to send it as text")
            })?;
            let value = i32::try_from(number).map_err(|_| wrong(AttributeError::Integer(number)))?;
            Ok(Extension::Constant(AttributeValue::Integer(value)))
        }
        _ => {
            let template = Template::from_node(node)?;
            match template.as_constant() {
                Some(text) => {
                    attributes::check_string(text).map_err(wrong)?;
                    Ok(Extension::Constant(AttributeValue::String(text.to_owned())))
                }
                None => Ok(Extension::Template(template)),
            }
        }
    }
}
