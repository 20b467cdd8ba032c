//! The payload to leaves: one pass over its JSON, in which everything that no condition names is skipped.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::leaves::{Leaves, Value};
use super::paths::{Paths, ROOT};
use crate::json::Checked;
use crate::pattern::Num;

/// Replaces `leaves` with those of a payload, and gives the text they refer to. `None` if it is no JSON
/// (RFC 8259), or nested deeper than 127 levels.
pub(super) fn extract<'p>(paths: &Paths, payload: &'p [u8], leaves: &mut Leaves) -> Option<&'p str> {
    leaves.clear();
    let text = std::str::from_utf8(payload).ok()?;
    let path = paths.child(ROOT, "data")?;
    let mut json = serde_json::Deserializer::from_str(text);
    Walk { paths, leaves, text, path }.deserialize(&mut json).ok()?;
    json.end().ok()?;
    leaves.finish();
    Some(text)
}

/// The value at a path.
struct Walk<'w, 'p> {
    paths: &'w Paths,
    leaves: &'w mut Leaves,
    text: &'p str,
    path: u32,
}

impl Walk<'_, '_> {
    fn leaf(self, value: Value) {
        if self.paths.field(self.path).is_some() {
            self.leaves.push(self.path, value);
        }
    }
}

impl<'p> DeserializeSeed<'p> for Walk<'_, 'p> {
    type Value = ();

    fn deserialize<D: Deserializer<'p>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'p> Visitor<'p> for Walk<'_, 'p> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.leaf(Value::Null);
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.leaf(Value::Bool(value));
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.leaf(Value::Number(Num::from(value)));
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.leaf(Value::Number(Num::from(value)));
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.leaf(Value::Number(Num::from(value)));
        Ok(())
    }

    /// Text without escapes stays where it is in the payload.
    fn visit_borrowed_str<E: Error>(self, value: &'p str) -> Result<(), E> {
        let start = (value.as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize);
        match (u32::try_from(start), u32::try_from(start.wrapping_add(value.len()))) {
            (Ok(start), Ok(end)) => self.leaf(Value::Payload { start, end }),
            _ => return self.visit_str(value),
        }
        Ok(())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        if self.paths.field(self.path).is_some() {
            self.leaves.push_text(self.path, value);
        }
        Ok(())
    }

    /// Lists leave no trace: their elements are values of the same path.
    fn visit_seq<A: SeqAccess<'p>>(self, mut items: A) -> Result<(), A::Error> {
        let Walk { paths, leaves, text, path } = self;
        while items.next_element_seed(Walk { paths, leaves: &mut *leaves, text, path })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'p>>(self, mut entries: A) -> Result<(), A::Error> {
        let Walk { paths, leaves, text, path } = self;
        if !paths.has_children(path) {
            while entries.next_entry::<Checked, Checked>()?.is_some() {}
            return Ok(());
        }
        let open = leaves.open(path);
        while let Some(child) = entries.next_key_seed(Key { paths, parent: path })? {
            match child {
                Some(path) => {
                    let start = leaves.before_value();
                    entries.next_value_seed(Walk { paths, leaves: &mut *leaves, text, path })?;
                    leaves.after_value(open, path, start);
                }
                None => {
                    entries.next_value::<Checked>()?;
                }
            }
        }
        leaves.close(open);
        Ok(())
    }
}

/// A key to the path below it, if any condition names it.
struct Key<'w> {
    paths: &'w Paths,
    parent: u32,
}

impl<'p> DeserializeSeed<'p> for Key<'_> {
    type Value = Option<u32>;

    fn deserialize<D: Deserializer<'p>>(self, deserializer: D) -> Result<Option<u32>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Option<u32>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Option<u32>, E> {
        Ok(self.paths.child(self.parent, name))
    }
}
