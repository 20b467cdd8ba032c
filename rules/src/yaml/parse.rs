//! Events of the parser to a tree of nodes, with limits.

use std::collections::HashMap;
use std::sync::Arc;

use granit_parser::{ErrorKind, Event, Marker, Options, Parser, ScalarStyle, Span, StructureStyle, Tag};

use super::node::{Data, Node, Place};
use super::scalar::{self, Plain};
use super::{DEPTH_MAX, NODES_MAX, SOURCE_BYTES_MAX, Source};
use crate::Diagnostic;

/// Diagnostics collected from one file before the rest is not worth reading.
const DIAGNOSTICS_MAX: usize = 100;

/// Parses one YAML document. An empty file is a null node.
///
/// # Errors
/// All duplicate keys and unusable scalars of the file, or the first error of syntax, with their places.
pub fn parse(source: Arc<Source>) -> Result<Node, Vec<Diagnostic>> {
    let mut builder = Builder {
        source: Arc::clone(&source),
        stack: Vec::new(),
        anchors: HashMap::new(),
        nodes: 0,
        root: None,
        diagnostics: Vec::new(),
    };
    if source.text.len() > SOURCE_BYTES_MAX {
        let message =
            format!("the file has {} bytes; at most {SOURCE_BYTES_MAX} are read", source.text.len());
        return Err(vec![builder.at(1, 1, 0, message)]);
    }
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.strict_indentation = false;
    options.block_nesting_limit = DEPTH_MAX;
    options.flow_nesting_limit = DEPTH_MAX;
    for next in Parser::new_from_str_with_options(&source.text, options) {
        let result = match next {
            Ok((event, span)) => builder.event(event, span),
            Err(error) => Err(builder.scan_error(&error)),
        };
        if let Err(diagnostic) = result {
            builder.diagnostics.push(diagnostic);
            break;
        }
        if builder.diagnostics.len() >= DIAGNOSTICS_MAX {
            break;
        }
    }
    if !builder.diagnostics.is_empty() {
        return Err(builder.diagnostics);
    }
    let place = Place { source, line: 1, column: 1, length: 0, verbatim: None };
    Ok(builder.root.unwrap_or_else(|| Node::new(place, Data::Null)))
}

struct Builder {
    source: Arc<Source>,
    stack: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    root: Option<Node>,
    diagnostics: Vec<Diagnostic>,
}

/// A map or list whose end has not come yet.
struct Open {
    place: Place,
    flow: bool,
    anchor: usize,
    items: Items,
}

enum Items {
    Seq(Vec<Node>),
    Map { entries: Vec<(Node, Node)>, seen: HashMap<String, usize>, key: Option<Node> },
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Diagnostic> {
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                let message = "a second document starts here; a file holds one";
                return Err(self.at_span(&span, message).with_hint("remove the `---`, or use two files"));
            }
            Event::Scalar(text, style, anchor, tag) => {
                let node = self.scalar(&text, style, tag.as_deref(), &span)?;
                self.finish(node, anchor)?;
            }
            Event::SequenceStart(style, anchor, tag) => {
                self.open(style, anchor, tag.as_deref(), &span, Items::Seq(Vec::new()))?;
            }
            Event::MappingStart(style, anchor, tag) => {
                let items = Items::Map { entries: Vec::new(), seen: HashMap::new(), key: None };
                self.open(style, anchor, tag.as_deref(), &span, items)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(&span)?,
            Event::Alias(id) => {
                let Some(node) = self.anchors.get(&id).cloned() else {
                    return Err(self.at_span(&span, "this alias stands inside the value it refers to"));
                };
                // What an alias stands for costs no memory, but everyone who walks the tree visits it again.
                self.nodes = self.nodes.saturating_add(node.size() - 1);
                self.finish(node, 0)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn open(
        &mut self,
        style: StructureStyle,
        anchor: usize,
        tag: Option<&Tag>,
        span: &Span,
        items: Items,
    ) -> Result<(), Diagnostic> {
        if let Some(tag) = tag {
            return Err(self.tag_error(tag, span));
        }
        if self.stack.len() >= DEPTH_MAX {
            return Err(self.at_span(span, format!("nested deeper than {DEPTH_MAX} levels")));
        }
        let place = self.place(span, 1);
        self.stack.push(Open { place, flow: style == StructureStyle::Flow, anchor, items });
        Ok(())
    }

    fn close(&mut self, span: &Span) -> Result<(), Diagnostic> {
        let Some(Open { mut place, flow, anchor, items }) = self.stack.pop() else { return Ok(()) };
        let first = match &items {
            Items::Seq(items) => items.first(),
            Items::Map { entries, .. } => entries.first().map(|(key, _)| key),
        };
        // A block has no brackets to underline: its first line stands for it.
        if flow && span.end.line() == place.line {
            place.length = (span.end.col() + 1).saturating_sub(place.column).max(1);
        } else if let Some(first) = first.filter(|first| !flow && first.line() == place.line) {
            place.length = first.column().saturating_sub(place.column) + first.diagnostic("").length;
        }
        let data = match items {
            Items::Seq(items) => Data::Seq(items),
            Items::Map { entries, .. } => Data::Map(entries),
        };
        self.finish(Node::new(place, data), anchor)
    }

    /// Puts a finished node into the map or list that is open.
    fn finish(&mut self, node: Node, anchor: usize) -> Result<(), Diagnostic> {
        self.nodes = self.nodes.saturating_add(1);
        if self.nodes > NODES_MAX {
            let message = format!("more than {NODES_MAX} values, counting what aliases stand for");
            return Err(node.diagnostic(message));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.stack.last_mut().map(|open| &mut open.items) {
            None => self.root = Some(node),
            Some(Items::Seq(items)) => items.push(node),
            Some(Items::Map { entries, seen, key }) => match key.take() {
                None => *key = Some(key_node(node)?),
                Some(name) => {
                    let text = name.as_str().unwrap_or_default().to_owned();
                    match seen.get(&text) {
                        Some(line) => self.diagnostics.push(
                            name.diagnostic(format!("key `{text}` is written twice in this map"))
                                .with_hint(format!("the first one is on line {line}")),
                        ),
                        None => {
                            seen.insert(text, name.line());
                            entries.push((name, node));
                        }
                    }
                }
            },
        }
        Ok(())
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        span: &Span,
    ) -> Result<Node, Diagnostic> {
        let mut place = self.place(span, 0);
        let raw = span.slice(&self.source.text).unwrap_or_default();
        place.verbatim = match style {
            ScalarStyle::Plain if raw == text => Some(0),
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted
                if raw.get(1..raw.len().max(2) - 1) == Some(text) =>
            {
                Some(1)
            }
            _ => None,
        };
        let as_text = match tag {
            Some(tag) if tag.is_yaml_core_schema_tag("str") => true,
            Some(tag) => return Err(self.tag_error(tag, span)),
            None => style != ScalarStyle::Plain,
        };
        if as_text {
            return Ok(Node::new(place, Data::Text(text.to_owned())));
        }
        let data = match scalar::resolve(text) {
            Ok(Plain::Null) => Data::Null,
            Ok(Plain::Bool(value)) => Data::Bool(value),
            Ok(Plain::Number(value)) => Data::Number(value),
            Ok(Plain::Text) => Data::Text(text.to_owned()),
            Err(error) => {
                let hint = "put it in quotes if it is meant as text";
                self.diagnostics.push(self.at_span(span, format!("`{text}`: {error}")).with_hint(hint));
                Data::Null
            }
        };
        // A key is what is written, whatever it would mean as a value.
        let is_key = matches!(self.stack.last().map(|open| &open.items), Some(Items::Map { key: None, .. }));
        if is_key && !matches!(data, Data::Null) {
            if text == "<<" {
                let message = "merge keys (`<<`) are not part of YAML 1.2 and are not supported";
                return Err(self.at_span(span, message));
            }
            return Ok(Node::new(place, Data::Text(text.to_owned())));
        }
        Ok(Node::new(place, data))
    }

    fn place(&self, span: &Span, length_min: usize) -> Place {
        let start = &span.start;
        let length = match span.end.line() == start.line() {
            true => span.end.col().saturating_sub(start.col()),
            false => self.rest_of_line(start),
        };
        Place {
            source: Arc::clone(&self.source),
            line: start.line(),
            column: start.col() + 1,
            length: length.max(length_min),
            verbatim: None,
        }
    }

    fn rest_of_line(&self, start: &Marker) -> usize {
        let rest = start.byte_offset().and_then(|at| self.source.text.get(at..)).unwrap_or_default();
        rest.lines().next().unwrap_or_default().chars().count()
    }

    fn tag_error(&self, tag: &Tag, span: &Span) -> Diagnostic {
        let span = span.tag_span().unwrap_or(*span);
        self.at_span(&span, format!("the tag `{}` is not supported", tag.original()))
            .with_hint("values have the type they are written as; put text in quotes")
    }

    fn at_span(&self, span: &Span, message: impl Into<String>) -> Diagnostic {
        let place = self.place(span, 1);
        self.at(place.line, place.column, place.length, message)
    }

    fn at(&self, line: usize, column: usize, length: usize, message: impl Into<String>) -> Diagnostic {
        let source = Arc::clone(&self.source);
        Diagnostic { source, line, column, length, message: message.into(), hint: None }
    }

    fn scan_error(&self, error: &granit_parser::ScanError) -> Diagnostic {
        let mark = error.marker();
        let (message, hint) = explain(error.kind());
        self.at(mark.line().max(1), mark.col() + 1, 1, message).with_hint_if(hint)
    }
}

/// Keys are scalars with a value.
fn key_node(node: Node) -> Result<Node, Diagnostic> {
    match node.data() {
        Data::Text(_) => Ok(node),
        Data::Null => Err(node.diagnostic("a map key is missing before the `:`")),
        _ => Err(node.diagnostic(format!("a map key must be a word or text, not {}", node.kind()))),
    }
}

/// The usual errors of syntax in plain words, with what to do.
fn explain(kind: &ErrorKind) -> (String, Option<&'static str>) {
    let (message, hint) = match kind {
        ErrorKind::TabNotAllowed | ErrorKind::TabInBlockIndentation | ErrorKind::TabInIndentation => {
            ("a tab is used for indentation", "YAML is indented with spaces")
        }
        ErrorKind::InvalidQuotedScalarIndent => (
            "text in quotes goes on here, in a line that is not indented",
            "add the closing quote, or indent the line",
        ),
        ErrorKind::UnclosedQuotedScalar => ("this text's quote is never closed", "add the closing quote"),
        ErrorKind::UnclosedFlowCollection { open: '[' } => {
            ("this list's `[` is never closed", "add the closing `]`")
        }
        ErrorKind::UnclosedFlowCollection { .. } => ("this map's `{` is never closed", "add the closing `}`"),
        ErrorKind::UnknownAnchor => {
            ("this alias refers to no anchor", "write `&name` at the value it should stand for")
        }
        ErrorKind::RecursionLimitExceeded => return (format!("nested deeper than {DEPTH_MAX} levels"), None),
        ErrorKind::MappingValueNotAllowed => (
            "a `key: value` pair cannot stand here",
            "text that has `: ` in it needs quotes; or the indentation is wrong",
        ),
        ErrorKind::SimpleKeyExpected | ErrorKind::ExpectedBlockMappingKey => {
            ("expected `key: value`", "check the indentation, and the `:` with a space after it")
        }
        ErrorKind::ExpectedFlowMappingSeparator => {
            ("expected `,` or `}`", "text that begins with `{` needs quotes")
        }
        ErrorKind::ExpectedFlowSequenceSeparator => {
            ("expected `,` or `]`", "text that begins with `[` needs quotes")
        }
        ErrorKind::UnexpectedCharacter { character } => {
            let message = format!("text without quotes cannot begin with `{}`", character.escape_default());
            return (message, Some("put it in quotes"));
        }
        ErrorKind::ExpectedBlockSequenceEntry => {
            ("expected `- ` for the next item of the list", "check the indentation")
        }
        other => return (other.to_string(), None),
    };
    (message.to_owned(), Some(hint))
}
