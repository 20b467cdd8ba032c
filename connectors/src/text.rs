//! Text of other systems, made fit for a message.

use std::error::Error;

/// Most bytes of foreign text that go into a message.
pub(crate) const SHOWN_BYTES_MAX: usize = 200;

/// `text` on one line without control characters, cut to [`SHOWN_BYTES_MAX`].
pub(crate) fn shown(text: &str) -> String {
    let mut out = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        for c in word.chars() {
            if out.len() + c.len_utf8() > SHOWN_BYTES_MAX {
                out.push('…');
                return out;
            }
            out.push(c);
        }
    }
    out
}

/// An error and what caused it, on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut out = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Many errors already print their cause.
        if !out.contains(&text) {
            out.push_str(": ");
            out.push_str(&text);
        }
        cause = error.source();
    }
    shown(&out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_becomes_one_short_line() {
        assert_eq!(shown(" <b>\r\nno\tway\u{7}</b> "), "<b> no way </b>");
        let long = shown(&"é".repeat(500));
        assert!(long.len() <= SHOWN_BYTES_MAX + '…'.len_utf8() && long.ends_with('…'));
    }
}
