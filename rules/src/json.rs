//! [`Checked`]: a JSON value that is read and dropped.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A JSON value that is read and dropped. Unlike [`serde::de::IgnoredAny`] it accepts exactly what a tree of values
/// accepts (no lone surrogates, no numbers out of range, no more than 127 levels), so that all parts of a rule agree on
/// what is JSON; and skipping nested values allocates nothing.
pub(crate) struct Checked;

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Checked, D::Error> {
        deserializer.deserialize_any(Checked)
    }
}

impl<'de> Visitor<'de> for Checked {
    type Value = Checked;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Checked, A::Error> {
        while items.next_element::<Checked>()?.is_some() {}
        Ok(Checked)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Checked, A::Error> {
        while entries.next_entry::<Checked, Checked>()?.is_some() {}
        Ok(Checked)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn agrees(text: &str) -> bool {
        serde_json::from_str::<Checked>(text).is_ok() == serde_json::from_str::<Value>(text).is_ok()
    }

    #[test]
    fn accepts_what_a_tree_accepts() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        for text in [
            r#""\ud800""#,
            "1e999",
            "[1,{\"a\":[\"\\u00e4\"]}]",
            "",
            "nul",
            &nested(127),
            &nested(128),
            &nested(99_999),
        ] {
            assert!(agrees(text), "{text:.40}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_text(text in "[\\[\\]{}\",:0-9eE.u+a-f\\\\ -]{0,24}") {
            prop_assert!(agrees(&text));
        }
    }
}
