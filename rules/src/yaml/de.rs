//! [`Node::decode`]: serde over a tree. Each error takes the place of the innermost node it arose in.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};

use super::node::{Data, Node};
use crate::Diagnostic;
use crate::diagnostic::did_you_mean;

impl Node {
    /// Decodes it with serde. Unknown keys (`#[serde(deny_unknown_fields)]`) and unknown variants come with a hint.
    ///
    /// # Errors
    /// What serde found first, at the place of the exact node.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Vec<Diagnostic>> {
        T::deserialize(NodeDeserializer(self)).map_err(|error| vec![error.at(self).into_diagnostic(self)])
    }
}

/// An error of serde and the node it arose in.
#[derive(Debug)]
struct DecodeError {
    message: String,
    hint: Option<String>,
    place: Option<Node>,
}

impl DecodeError {
    /// The first node it passes on its way up is the innermost.
    fn at(mut self, node: &Node) -> DecodeError {
        self.place.get_or_insert_with(|| node.clone());
        self
    }

    fn into_diagnostic(self, root: &Node) -> Diagnostic {
        self.place.as_ref().unwrap_or(root).diagnostic(self.message).with_hint_if(self.hint)
    }

    fn plain(message: impl Into<String>) -> DecodeError {
        DecodeError { message: message.into(), hint: None, place: None }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DecodeError {}

impl de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> DecodeError {
        DecodeError::plain(message.to_string())
    }

    fn invalid_type(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> DecodeError {
        let found = match unexpected {
            de::Unexpected::Unit | de::Unexpected::Option => "nothing".to_owned(),
            de::Unexpected::Map => "a map".to_owned(),
            de::Unexpected::Seq => "a list".to_owned(),
            de::Unexpected::Str(_) => "text".to_owned(),
            other => number(other),
        };
        let expected = in_plain_words(expected);
        let scalar = matches!(
            unexpected,
            de::Unexpected::Bool(_)
                | de::Unexpected::Unsigned(_)
                | de::Unexpected::Signed(_)
                | de::Unexpected::Float(_)
        );
        let hint = (scalar && expected == "text").then(|| "put it in quotes".to_owned());
        DecodeError { hint, ..DecodeError::plain(format!("expected {expected}, found {found}")) }
    }

    fn invalid_value(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> DecodeError {
        DecodeError::plain(format!("expected {}, found {}", in_plain_words(expected), number(unexpected)))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> DecodeError {
        let hint = did_you_mean(field, expected.iter().copied());
        DecodeError { hint, ..DecodeError::plain(format!("unknown key `{field}`")) }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> DecodeError {
        let hint = did_you_mean(variant, expected.iter().copied());
        DecodeError { hint, ..DecodeError::plain(format!("unknown value `{variant}`")) }
    }

    fn missing_field(field: &'static str) -> DecodeError {
        DecodeError::plain(format!("the key `{field}` is missing"))
    }
}

fn number(value: de::Unexpected<'_>) -> String {
    match value {
        de::Unexpected::Bool(value) => format!("`{value}`"),
        de::Unexpected::Unsigned(value) => format!("`{value}`"),
        de::Unexpected::Signed(value) => format!("`{value}`"),
        de::Unexpected::Float(value) => format!("`{value}`"),
        other => other.to_string(),
    }
}

/// Names of Rust's and serde's in those of a file.
fn in_plain_words(expected: &dyn de::Expected) -> String {
    let expected = expected.to_string();
    let range = |min: i64, max: u64| format!("a whole number from {min} to {max}");
    match expected.as_str() {
        "a string" => "text".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a boolean" => "`true` or `false`".to_owned(),
        "u8" => range(0, u8::MAX.into()),
        "u16" => range(0, u16::MAX.into()),
        "u32" => range(0, u32::MAX.into()),
        "u64" | "usize" => range(0, u64::MAX),
        "i8" => range(i8::MIN.into(), i8::MAX as u64),
        "i16" => range(i16::MIN.into(), i16::MAX as u64),
        "i32" => range(i32::MIN.into(), i32::MAX as u64),
        "i64" | "isize" => range(i64::MIN, i64::MAX as u64),
        "f32" | "f64" => "a number".to_owned(),
        _ => expected,
    }
}

#[derive(Clone, Copy)]
struct NodeDeserializer<'a>(&'a Node);

impl<'de> de::Deserializer<'de> for NodeDeserializer<'_> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.0.data() {
            Data::Null => visitor.visit_unit(),
            Data::Bool(value) => visitor.visit_bool(*value),
            Data::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(value), _, _) => visitor.visit_u64(value),
                (_, Some(value), _) => visitor.visit_i64(value),
                (_, _, Some(value)) => visitor.visit_f64(value),
                (None, None, None) => Err(DecodeError::plain("this number cannot be used")),
            },
            Data::Text(text) => visitor.visit_str(text),
            Data::Seq(items) => visitor.visit_seq(SeqAccess(items.iter())),
            Data::Map(entries) => visitor.visit_map(MapAccess { entries: entries.iter(), value: None }),
        }
        .map_err(|error: DecodeError| error.at(self.0))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    /// A unit variant is its name; any other a map of one key, the name.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let (name, value) = match self.0.data() {
            Data::Text(_) => (self.0, None),
            Data::Map(entries) => match entries.as_slice() {
                [(name, value)] => (name, Some(value)),
                _ => return Err(DecodeError::plain("expected a map of exactly one key").at(self.0)),
            },
            _ => {
                let message = format!("expected a word or a map of one key, found {}", self.0.kind());
                return Err(DecodeError::plain(message).at(self.0));
            }
        };
        visitor.visit_enum(EnumAccess { name, value }).map_err(|error| error.at(self.0))
    }

    /// Never from a list of its fields in order.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        if self.0.as_map().is_none() {
            return Err(DecodeError::plain(format!("expected a map, found {}", self.0.kind())).at(self.0));
        }
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

struct SeqAccess<'a>(std::slice::Iter<'a, Node>);

impl<'de> de::SeqAccess<'de> for SeqAccess<'_> {
    type Error = DecodeError;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, DecodeError> {
        let Some(node) = self.0.next() else { return Ok(None) };
        seed.deserialize(NodeDeserializer(node)).map(Some).map_err(|error| error.at(node))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

struct MapAccess<'a> {
    entries: std::slice::Iter<'a, (Node, Node)>,
    value: Option<&'a Node>,
}

impl<'de> de::MapAccess<'de> for MapAccess<'_> {
    type Error = DecodeError;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, DecodeError> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        self.value = Some(value);
        seed.deserialize(NodeDeserializer(key)).map(Some).map_err(|error| error.at(key))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, DecodeError> {
        let node =
            self.value.take().ok_or_else(|| DecodeError::plain("a value was asked for before its key"))?;
        seed.deserialize(NodeDeserializer(node)).map_err(|error| error.at(node))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.entries.len())
    }
}

struct EnumAccess<'a> {
    name: &'a Node,
    value: Option<&'a Node>,
}

impl<'de, 'a> de::EnumAccess<'de> for EnumAccess<'a> {
    type Error = DecodeError;
    type Variant = VariantAccess<'a>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, VariantAccess<'a>), DecodeError> {
        let text: StrDeserializer<'_, DecodeError> =
            self.name.as_str().unwrap_or_default().into_deserializer();
        let variant = seed.deserialize(text).map_err(|error| error.at(self.name))?;
        Ok((variant, VariantAccess { name: self.name, value: self.value }))
    }
}

struct VariantAccess<'a> {
    name: &'a Node,
    value: Option<&'a Node>,
}

impl<'a> VariantAccess<'a> {
    fn value(&self) -> Result<&'a Node, DecodeError> {
        self.value.ok_or_else(|| {
            let name = self.name.as_str().unwrap_or_default();
            DecodeError::plain(format!("`{name}` needs a value: `{name}: …`")).at(self.name)
        })
    }
}

impl<'de> de::VariantAccess<'de> for VariantAccess<'_> {
    type Error = DecodeError;

    fn unit_variant(self) -> Result<(), DecodeError> {
        match self.value {
            Some(value) if !value.is_null() => {
                let name = self.name.as_str().unwrap_or_default();
                Err(DecodeError::plain(format!("`{name}` takes no value")).at(value))
            }
            _ => Ok(()),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, DecodeError> {
        let node = self.value()?;
        seed.deserialize(NodeDeserializer(node)).map_err(|error| error.at(node))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, DecodeError> {
        de::Deserializer::deserialize_any(NodeDeserializer(self.value()?), visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        de::Deserializer::deserialize_any(NodeDeserializer(self.value()?), visitor)
    }
}
