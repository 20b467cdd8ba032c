//! Fields of a target that may differ from event to event.

use tidemill_rules::yaml::Node;
use tidemill_rules::{Diagnostic, Template};

use crate::{OutEvent, SendError};

/// A field: the same for all events, or filled by the hub for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// The same for all events.
    Constant(String),
    /// Where its value lies in [`OutEvent::slots`].
    Slot(usize),
}

impl Field {
    /// Its value for one event.
    pub(crate) fn of<'a>(&'a self, event: &'a OutEvent) -> Result<&'a str, SendError> {
        match self {
            Self::Constant(text) => Ok(text),
            Self::Slot(at) => event
                .slots
                .get(*at)
                .map(String::as_str)
                .ok_or_else(|| SendError::stop(format!("template {at} was not filled"))),
        }
    }

    /// Its value, if it is the same for all events.
    pub(crate) fn constant(&self) -> Option<&str> {
        match self {
            Self::Constant(text) => Some(text),
            Self::Slot(_) => None,
        }
    }

    /// Whether it differs from event to event.
    pub(crate) fn varies(&self) -> bool {
        matches!(self, Self::Slot(_))
    }
}

/// Collects the templates of a target's fields.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    templates: Vec<Template>,
}

impl Slots {
    /// Makes a field of the text of `at`.
    pub(crate) fn field(&mut self, at: &Node, text: &str) -> Result<Field, Diagnostic> {
        self.field_within(at, 0, text)
    }

    /// Makes a field of `text`, which starts at byte `start` of the text of `at`.
    pub(crate) fn field_within(&mut self, at: &Node, start: usize, text: &str) -> Result<Field, Diagnostic> {
        let template = Template::parse(text).map_err(|error| {
            let from = start + error.offset;
            at.diagnostic_within(from..from + error.length, error.message).with_hint_if(error.hint)
        })?;
        if let Some(text) = template.as_constant() {
            return Ok(Field::Constant(text.to_owned()));
        }
        self.templates.push(template);
        Ok(Field::Slot(self.templates.len() - 1))
    }

    /// The templates, in the order of the slots.
    pub(crate) fn into_templates(self) -> Vec<Template> {
        self.templates
    }
}
