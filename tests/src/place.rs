//! Texts with a marked place: `«` stands right before the character that a diagnostic should point at.

/// A text without its mark, and where the mark stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    /// The text without the mark.
    pub text: String,
    /// Line of the mark, from 1.
    pub line: usize,
    /// Column of the mark in characters, from 1.
    pub column: usize,
}

/// Takes the mark out of a text.
///
/// # Panics
/// When the text has no mark, or two.
#[must_use]
pub fn marked(text: &str) -> Marked {
    let (before, after) = text.split_once('«').expect("a mark");
    assert!(!after.contains('«'), "two marks");
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    Marked { text: format!("{before}{after}"), line, column }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_lines_and_columns_from_one() {
        assert_eq!(marked("«a"), Marked { text: "a".into(), line: 1, column: 1 });
        assert_eq!(marked("a\nbé«c\nd"), Marked { text: "a\nbéc\nd".into(), line: 2, column: 3 });
    }
}
