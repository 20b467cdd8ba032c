//! Rule language, event patterns and mappings. Pure: no I/O, no async runtime.
//!
//! A file of `connections` and `rules` becomes a [`RuleSet`]: [`yaml::parse`], then [`load()`]. For a [`Message`] in a
//! [`Context`], [`RuleSet::matches`] says which rules it concerns and [`Rule::event`] maps it to a [`CloudEvent`].
//!
//! # Layout
//! - [`yaml`]       files to trees of nodes with places; serde over them
//! - `diagnostic`   [`Diagnostic`]: what is wrong in a file, where, and a hint
//! - [`units`]      `5s`, `64KB`
//! - `load`         trees to a [`RuleSet`]; everything that is checked when rules are loaded
//! - `rule`         [`RuleSet`], [`Rule`], [`TargetDef`], [`Retry`]
//! - `topic`        MQTT topic filters: what is one, what it matches
//! - [`pattern`]    `where`: event patterns as alternatives of conditions
//! - `matcher`      all patterns compiled into one
//! - [`mapping`]    `event` and `data`: a record to a CloudEvent
//! - [`template`]   `{{ … }}`
//! - `attributes`   what CloudEvents allows in attributes
//! - `message`, `context`, `event`, `error`  what goes in and what comes out
//! - `json`         a JSON value that is read and dropped
//! - `schema`       the JSON Schema of a file

mod attributes;
mod context;
mod diagnostic;
mod error;
mod event;
mod json;
mod load;
pub mod mapping;
mod matcher;
mod message;
pub mod pattern;
mod rule;
mod schema;
pub mod template;
mod topic;
pub mod units;
pub mod yaml;

pub use attributes::AttributeError;
pub use context::Context;
pub use diagnostic::Diagnostic;
pub use error::{MapError, Problem};
pub use event::{AttributeValue, CloudEvent};
pub use load::load;
pub use message::Message;
pub use rule::{ConnectionDef, Matched, Retry, Rule, RuleSet, TargetDef};
pub use schema::schema;
pub use template::{Template, TemplateError};
