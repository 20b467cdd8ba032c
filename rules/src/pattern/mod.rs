//! `where`: event patterns in the language of Amazon EventBridge.
//!
//! A pattern is a map. A list at its leaf holds alternatives, of which one must be met; all keys of a map must be
//! met, in no order; under `$or` stands a list of maps of which one must be met.
//!
//! | alternative | is met by |
//! |---|---|
//! | `"text"`, `5`, `true`, `null` | that value; numbers compare by value, so `1` is `1.0` |
//! | `{ prefix: "a" }`, `{ suffix: "z" }` | text that begins or ends so; either takes `{ equals-ignore-case: "a" }` too |
//! | `{ equals-ignore-case: "a" }` | that text in any case |
//! | `{ wildcard: "a*z" }` | text of that form; `*` is any text, `\*` an asterisk, `\\` a backslash |
//! | `{ numeric: [">", 0, "<=", 5] }` | a number in that range; also `["=", 5]` |
//! | `{ cidr: "10.0.0.0/8" }` | the text of an IP address in that network, of the same family |
//! | `{ exists: true }`, `{ exists: false }` | there is, or is not, a leaf here |
//! | `{ anything-but: … }` | a leaf that is none of: a value, a list of values, or one of `prefix`, `suffix`, `wildcard`, `equals-ignore-case` with a text or a list of them |
//!
//! What is matched: `data` (the payload as JSON), `mqtt` (`topic`, `levels`, `client`, `user`, `qos`, `retain`,
//! `content_type`, `properties`) and the event's attributes `id`, `source`, `type`, `subject` and `time`. Attributes
//! are those an event has *by default* (see [`crate::mapping`]), whatever the rule's own `event` makes of them: what
//! matches must not depend on what is done with it. `mqtt.levels` is the list of the topic's levels; with a map under
//! it, `levels: { "1": ["v7"], "-1": ["status"] }`, it is single ones, from 0 or from -1 at the end.
//!
//! Where an event has a list, one of its elements has to meet the condition. Conditions on several fields of objects
//! in a list have to be met by the same element. A leaf is a value that is no map and no list, null included; so
//! `exists: true` is not met by a map, nor by an empty list. `exists: false` is met where no leaf is left in the
//! elements that the other conditions have chosen. A payload that is no JSON meets no condition on `data` at all.
//!
//! # Layout
//! - `parse`    YAML to alternatives of conditions
//! - `test`     one alternative at a leaf
//! - `wildcard` `a*z`
//! - `number`   numbers that compare by value

mod number;
mod parse;
mod test;
mod wildcard;

use std::sync::Arc;

pub(crate) use number::Num;
pub(crate) use parse::parse;
#[cfg(test)]
pub(crate) use parse::{ANYTHING_BUT_OPERATORS, MQTT_KEYS, OPERATORS, ROOT_KEYS};
#[cfg(test)]
pub(crate) use test::Bound;
pub(crate) use test::{Cidr, Range, Scalar, Test, fold_into};

/// Levels of maps that a pattern may have.
pub const DEPTH_MAX: usize = 32;
/// Alternatives that one list may have.
pub const ALTERNATIVES_MAX: usize = 10_000;
/// Combinations that `$or` and `exists: false` may give in one rule.
pub const CONJUNCTIONS_MAX: usize = 1_000;
/// Conditions that one rule may have, over all its combinations.
pub const CONDITIONS_MAX: usize = 20_000;
/// Bytes that a text in a pattern may have.
pub const TEXT_BYTES_MAX: usize = 4_096;

/// Conditions that all have to be met. A pattern is a list of these, of which one has to be met.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conjunction {
    pub(crate) conditions: Vec<Condition>,
}

/// One condition on the leaves at a path.
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    /// From the root: `data`, `engine`, `temp_c`.
    pub(crate) path: Arc<[String]>,
    pub(crate) wanted: Wanted,
}

#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    /// A leaf that passes one of these.
    AnyOf(Arc<[Test]>),
    /// No leaf.
    Absent,
}

impl Condition {
    /// Whether it is about the payload.
    pub(crate) fn is_data(&self) -> bool {
        self.path.first().is_some_and(|first| first == "data")
    }
}
