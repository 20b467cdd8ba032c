//! [`Node`]: one value of a YAML file with its place.

use std::fmt;
use std::sync::Arc;

use serde_json::{Number, Value};

use super::Source;
use crate::Diagnostic;

/// One value of a YAML file with its place. Cheap to clone.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

struct Inner {
    place: Place,
    data: Data,
    /// This node and all nodes below it, counting what aliases stand for.
    size: usize,
}

/// Where a node stands. Lines and columns (in characters) count from 1.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) source: Arc<Source>,
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) length: usize,
    /// The text of a scalar stands on this line as it is, this many characters after `column`.
    pub(super) verbatim: Option<usize>,
}

pub(super) enum Data {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    Seq(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// An integer or a decimal number.
    Number,
    /// Text.
    Text,
    /// A list.
    Seq,
    /// A map.
    Map,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Null => "nothing",
            Kind::Bool => "a boolean",
            Kind::Number => "a number",
            Kind::Text => "text",
            Kind::Seq => "a list",
            Kind::Map => "a map",
        })
    }
}

impl Node {
    pub(super) fn new(place: Place, data: Data) -> Node {
        let below = match &data {
            Data::Seq(items) => items.iter().fold(0_usize, |sum, item| sum.saturating_add(item.size())),
            Data::Map(entries) => entries.iter().fold(0_usize, |sum, (key, value)| {
                sum.saturating_add(key.size()).saturating_add(value.size())
            }),
            _ => 0,
        };
        Node(Arc::new(Inner { place, data, size: below.saturating_add(1) }))
    }

    pub(super) fn size(&self) -> usize {
        self.0.size
    }

    pub(super) fn data(&self) -> &Data {
        &self.0.data
    }

    /// The file it is in.
    #[must_use]
    pub fn source(&self) -> &Arc<Source> {
        &self.0.place.source
    }

    /// Line, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.0.place.line
    }

    /// Column in characters, from 1.
    #[must_use]
    pub fn column(&self) -> usize {
        self.0.place.column
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.data() {
            Data::Null => Kind::Null,
            Data::Bool(_) => Kind::Bool,
            Data::Number(_) => Kind::Number,
            Data::Text(_) => Kind::Text,
            Data::Seq(_) => Kind::Seq,
            Data::Map(_) => Kind::Map,
        }
    }

    /// Whether it is null (also: nothing written).
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self.data(), Data::Null)
    }

    /// The entries of a map in the order they are written: keys (always with [`Node::as_str`]) and values.
    #[must_use]
    pub fn as_map(&self) -> Option<&[(Node, Node)]> {
        match self.data() {
            Data::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The items of a list.
    #[must_use]
    pub fn as_seq(&self) -> Option<&[Node]> {
        match self.data() {
            Data::Seq(items) => Some(items),
            _ => None,
        }
    }

    /// Text. Of a key: its text, whatever kind of scalar it is written as.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self.data() {
            Data::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A boolean.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self.data() {
            Data::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// A number.
    #[must_use]
    pub fn as_number(&self) -> Option<&Number> {
        match self.data() {
            Data::Number(value) => Some(value),
            _ => None,
        }
    }

    /// The value of a key, if this is a map that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, value)| value)
    }

    /// The key and the value of an entry, if this is a map that has it.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<&(Node, Node)> {
        self.as_map()?.iter().find(|(name, _)| name.as_str() == Some(key))
    }

    /// The same map, at the same place, minus some keys. Anything else as it is.
    #[must_use]
    pub fn without(&self, keys: &[&str]) -> Node {
        let Some(entries) = self.as_map() else { return self.clone() };
        let keep = |key: &Node| key.as_str().is_none_or(|key| !keys.contains(&key));
        let kept = entries.iter().filter(|(key, _)| keep(key)).cloned().collect();
        Node::new(self.0.place.clone(), Data::Map(kept))
    }

    /// An empty map in the place of a null; anything else as it is. For maps of which nothing has to be written.
    #[must_use]
    pub fn or_empty_map(&self) -> Node {
        if self.is_null() { Node::new(self.0.place.clone(), Data::Map(Vec::new())) } else { self.clone() }
    }

    /// The value as JSON, without places.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self.data() {
            Data::Null => Value::Null,
            Data::Bool(value) => Value::Bool(*value),
            Data::Number(value) => Value::Number(value.clone()),
            Data::Text(text) => Value::String(text.clone()),
            Data::Seq(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            Data::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|(key, value)| (key.as_str().unwrap_or_default().to_owned(), value.to_json()))
                    .collect(),
            ),
        }
    }

    /// A diagnostic at this node's place.
    #[must_use]
    pub fn diagnostic(&self, message: impl Into<String>) -> Diagnostic {
        let place = &self.0.place;
        Diagnostic {
            source: Arc::clone(&place.source),
            line: place.line,
            column: place.column,
            length: place.length,
            message: message.into(),
            hint: None,
        }
    }

    /// A diagnostic at some bytes of this node's text, as near as the way it is written allows: text that
    /// is escaped or folded over lines is underlined whole.
    #[must_use]
    pub fn diagnostic_within(&self, bytes: std::ops::Range<usize>, message: impl Into<String>) -> Diagnostic {
        let mut diagnostic = self.diagnostic(message);
        let text = self.as_str().unwrap_or_default();
        let before = text.get(..bytes.start);
        let covered = text.get(bytes);
        if let (Some(shift), Some(before), Some(covered)) = (self.0.place.verbatim, before, covered) {
            diagnostic.column += shift + before.chars().count();
            diagnostic.length = covered.chars().count().max(1);
        }
        diagnostic
    }

    /// A diagnostic that says what was expected here and what there is.
    #[must_use]
    pub fn expected(&self, expected: &str) -> Diagnostic {
        self.diagnostic(format!("expected {expected}, found {}", self.kind()))
    }
}

impl fmt::Debug for Node {
    /// The place only: values may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { source, line, column, .. } = &self.0.place;
        write!(f, "Node({} at {}:{line}:{column})", self.kind(), source.name)
    }
}
