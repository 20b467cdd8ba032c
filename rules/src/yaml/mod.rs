//! YAML with places: a file becomes a tree of [`Node`]s that know where they stand.
//!
//! YAML 1.2 core schema; one document; map keys are scalars and unique. Text is parsed by `granit-parser`.
//!
//! # Layout
//! - `parse`  events of the parser to a tree; the limits on depth, size and aliases
//! - `node`   [`Node`]: walking the tree, diagnostics at a node
//! - `scalar` plain scalars to null, booleans, numbers and text
//! - `de`     [`Node::decode`]: serde over a tree, errors with the place of the exact node

mod de;
mod node;
mod parse;
mod scalar;

use std::fmt;

pub use node::{Kind, Node};
pub use parse::parse;

/// Bytes that one file may have.
pub const SOURCE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Levels that maps and lists may be nested.
pub const DEPTH_MAX: usize = 64;
/// Nodes that one file may have, counting what aliases stand for.
pub const NODES_MAX: usize = 2_000_000;

/// A file that was read: its name as the user knows it, and its text.
#[derive(Clone, PartialEq, Eq)]
pub struct Source {
    /// Name, for diagnostics.
    pub name: String,
    /// The whole text.
    pub text: String,
}

impl fmt::Debug for Source {
    /// Never the text: it may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
