//! [`Wildcard`]: text with `*` for any text.

/// `a*b*c`: what text begins with, what it has in between in this order, what it ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wildcard {
    head: String,
    middles: Vec<String>,
    /// `None` when there is no `*`: then the head is all.
    tail: Option<String>,
}

/// Why a text is no wildcard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WildcardError {
    #[error("two `*` in a row")]
    DoubleStar,
    #[error("a `\\` must be followed by `*` or `\\`")]
    Escape,
}

impl Wildcard {
    pub(crate) fn parse(text: &str) -> Result<Wildcard, WildcardError> {
        let mut pieces = vec![String::new()];
        let mut after_star = false;
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            let literal = match c {
                '*' if after_star => return Err(WildcardError::DoubleStar),
                '*' => {
                    pieces.push(String::new());
                    after_star = true;
                    continue;
                }
                '\\' => chars.next().filter(|c| matches!(c, '*' | '\\')).ok_or(WildcardError::Escape)?,
                c => c,
            };
            after_star = false;
            if let Some(piece) = pieces.last_mut() {
                piece.push(literal);
            }
        }
        let tail = if pieces.len() > 1 { pieces.pop() } else { None };
        let head = pieces.remove(0);
        Ok(Wildcard { head, middles: pieces, tail })
    }

    /// What matching text begins with.
    pub(crate) fn head(&self) -> &str {
        &self.head
    }

    /// What matching text ends with.
    pub(crate) fn tail(&self) -> &str {
        self.tail.as_deref().unwrap_or(&self.head)
    }

    /// Linear in the length of `text`: the leftmost place is always good enough for a piece in the middle.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let Some(tail) = &self.tail else { return text == self.head };
        let Some(rest) = text.strip_prefix(self.head.as_str()) else { return false };
        let Some(mut rest) = rest.strip_suffix(tail.as_str()) else { return false };
        for middle in &self.middles {
            match rest.split_once(middle.as_str()) {
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn matches() {
        for (pattern, yes, no) in [
            ("a*z", &["az", "abcz", "azz"][..], &["a", "z", "azx", "xaz", ""][..]),
            ("*", &["", "x"], &[]),
            ("a", &["a"], &["", "ab"]),
            ("*b*", &["b", "abc"], &["", "ac"]),
            ("ab*ba", &["abba", "abxba"], &["aba"]),
            ("*.txt", &[".txt", "a.txt"], &["a.txt2"]),
            (r"\*\\*", &[r"*\", r"*\x"], &[r"x\"]),
            ("ü*ß", &["üß", "ü-ß"], &["ü"]),
        ] {
            let wildcard = Wildcard::parse(pattern).expect("a good pattern");
            for text in yes {
                assert!(wildcard.matches(text), "{pattern} {text}");
            }
            for text in no {
                assert!(!wildcard.matches(text), "{pattern} {text}");
            }
        }
        assert_eq!(Wildcard::parse("a**b"), Err(WildcardError::DoubleStar));
        assert_eq!(Wildcard::parse(r"a\b"), Err(WildcardError::Escape));
        assert_eq!(Wildcard::parse(r"a\"), Err(WildcardError::Escape));
    }

    /// The definition, tried out with every possibility.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', pattern @ ..], _) => (0..=text.len()).any(|n| naive(pattern, &text[n..])),
            ([p, pattern @ ..], [t, text @ ..]) => p == t && naive(pattern, text),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*]{0,7}", text in "[ab]{0,9}") {
            if let Ok(wildcard) = Wildcard::parse(&pattern) {
                prop_assert_eq!(wildcard.matches(&text), naive(pattern.as_bytes(), text.as_bytes()));
            }
        }
    }
}
