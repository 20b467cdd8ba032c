//! [`Diagnostic`]: what is wrong in a file, where, and what to do about it.

use std::fmt;
use std::sync::Arc;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};

use crate::yaml::Source;

/// Columns that [`Diagnostic::render`] wraps at.
const RENDER_WIDTH: usize = 110;

/// One problem in a file. Its `Display` is the single line `FILE:LINE:COLUMN: message`.
#[derive(Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file.
    pub source: Arc<Source>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Characters the problem covers on that line; 0 where there is nothing to underline.
    pub length: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// The same with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Diagnostic {
        self.hint = Some(hint.into());
        self
    }

    /// The same with a hint if there is one.
    #[must_use]
    pub fn with_hint_if(mut self, hint: Option<impl Into<String>>) -> Diagnostic {
        if let Some(hint) = hint {
            self.hint = Some(hint.into());
        }
        self
    }

    /// The place, the message, the source lines around it with the place underlined, and the hint. Without colour.
    #[must_use]
    pub fn render(&self) -> String {
        self.render_themed(GraphicalTheme::unicode_nocolor())
    }

    /// As [`Diagnostic::render`], with ANSI colours.
    #[must_use]
    pub fn render_colour(&self) -> String {
        self.render_themed(GraphicalTheme::unicode())
    }

    fn render_themed(&self, theme: GraphicalTheme) -> String {
        let report = Report {
            diagnostic: self,
            source: NamedSource::new(&self.source.name, self.source.text.clone()),
            offset: byte_offset(&self.source.text, self.line, self.column),
            length: self.byte_length(),
        };
        let mut out = String::new();
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_width(RENDER_WIDTH)
            .with_context_lines(1)
            .without_cause_chain();
        match handler.render_report(&mut out, &report) {
            Ok(()) => out,
            // Only a span outside the text gets here: the plain form says the same without the snippet.
            Err(fmt::Error) => format!("{self}\n"),
        }
    }

    fn byte_length(&self) -> usize {
        let start = byte_offset(&self.source.text, self.line, self.column);
        let rest = self.source.text.get(start..).unwrap_or_default();
        rest.chars().take(self.length).take_while(|c| *c != '\n').map(char::len_utf8).sum()
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.source.name, self.line, self.column, self.message)
    }
}

impl fmt::Debug for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Diagnostic {}

/// Byte offset of a line and column; the end of the text if it is shorter.
fn byte_offset(text: &str, line: usize, column: usize) -> usize {
    let mut start = 0;
    for _ in 1..line {
        match text.get(start..).and_then(|rest| rest.find('\n')) {
            Some(at) => start += at + 1,
            None => return text.len(),
        }
    }
    let rest = text.get(start..).unwrap_or_default();
    let within = rest.chars().take(column.saturating_sub(1)).take_while(|c| *c != '\n');
    start + within.map(char::len_utf8).sum::<usize>()
}

/// A diagnostic in the form that miette renders.
struct Report<'a> {
    diagnostic: &'a Diagnostic,
    source: NamedSource<String>,
    offset: usize,
    length: usize,
}

impl fmt::Debug for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.diagnostic, f)
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.diagnostic.message)
    }
}

impl std::error::Error for Report<'_> {}

impl miette::Diagnostic for Report<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.diagnostic.hint.as_ref().map(|hint| Box::new(hint) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = LabeledSpan::new_with_span(None, (self.offset, self.length));
        Some(Box::new(std::iter::once(span)))
    }
}

/// The candidate that was probably meant by `word`.
pub(crate) fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace(['-', '_'], "");
    let wanted = plain(word);
    let allowed = (wanted.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&wanted, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= allowed && *distance < candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// "did you mean `x`?", or else the list of what there is.
pub(crate) fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let candidates: Vec<&str> = candidates.into_iter().collect();
    if let Some(meant) = closest(word, candidates.iter().copied()) {
        return Some(format!("did you mean `{meant}`?"));
    }
    (!candidates.is_empty()).then(|| format!("known here: {}", quoted_list(candidates)))
}

/// `` `a`, `b`, `c` ``, shortened when there are very many.
pub(crate) fn quoted_list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN_MAX: usize = 20;
    let mut out = String::new();
    for (at, word) in words.into_iter().enumerate() {
        if at == SHOWN_MAX {
            out.push_str(", …");
            break;
        }
        if at > 0 {
            out.push_str(", ");
        }
        out.push('`');
        out.push_str(word);
        out.push('`');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, line: usize, column: usize, length: usize) -> Diagnostic {
        let source = Arc::new(Source { name: "rules.yaml".into(), text: text.into() });
        Diagnostic { source, line, column, length, message: "unknown key `frm`".into(), hint: None }
    }

    #[test]
    fn display_is_one_line() {
        assert_eq!(at("a: 1\n", 1, 1, 1).to_string(), "rules.yaml:1:1: unknown key `frm`");
    }

    #[test]
    fn renders_the_snippet_with_its_hint() {
        let text = "rules:\n  - name: überhitzt\n    frm: x\n";
        insta::assert_snapshot!(at(text, 3, 5, 3).with_hint("did you mean `from`?").render(), @r"
         × unknown key `frm`
          ╭─[rules.yaml:3:5]
        2 │   - name: überhitzt
        3 │     frm: x
          ·     ───
          ╰────
         help: did you mean `from`?
        ");
    }

    #[test]
    fn a_place_outside_the_text_still_renders() {
        assert!(at("a: 1", 99, 99, 5).render().contains("unknown key"));
        assert!(at("", 1, 1, 0).render().contains("unknown key"));
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(byte_offset("ä: ü", 1, 4), "ä: ".len());
        assert_eq!(byte_offset("a\nb", 2, 1), 2);
        assert_eq!(byte_offset("a\nb", 1, 9), 1);
    }

    #[test]
    fn the_closest_word_is_close() {
        let words = ["name", "from", "where", "equals-ignore-case"];
        assert_eq!(closest("frm", words), Some("from"));
        assert_eq!(closest("Where", words), Some("where"));
        assert_eq!(closest("equals_ignore_case", words), Some("equals-ignore-case"));
        assert_eq!(closest("colour", words), None);
        assert_eq!(closest("x", ["y"]), None);
    }
}
