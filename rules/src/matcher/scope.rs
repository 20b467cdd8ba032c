//! [`Scope`]: one conjunction on the leaves of a message.

use std::sync::Arc;

use super::leaves::{Leaves, Span, WHOLE};
use crate::pattern::Test;

/// The conditions of a conjunction on one object and, in `inner`, on the objects in it.
///
/// Conditions on the fields of objects in a list hold when one element meets all of them. Since lists leave no trace
/// in a path, the elements are simply the several objects at one path within the outer object. `absent` is about the
/// element that the other conditions are met by; where there are none, it is about all of them.
#[derive(Debug, Default)]
pub(super) struct Scope {
    any_of: Vec<(u32, Arc<[Test]>)>,
    absent: Vec<u32>,
    inner: Vec<(u32, Scope)>,
    /// Whether here or further in something has to be there.
    chooses: bool,
}

impl Scope {
    /// The scope of a path within this one; it is added if need be. `chooses`: for a condition that has to be met by
    /// a leaf.
    pub(super) fn within(&mut self, path: u32, chooses: bool) -> &mut Scope {
        let at = match self.inner.iter().position(|(inner, _)| *inner == path) {
            Some(at) => at,
            None => {
                self.inner.push((path, Scope::default()));
                self.inner.len() - 1
            }
        };
        let scope = &mut self.inner[at].1;
        scope.chooses |= chooses;
        scope
    }

    pub(super) fn any_of(&mut self, path: u32, tests: Arc<[Test]>) {
        self.any_of.push((path, tests));
    }

    pub(super) fn absent(&mut self, path: u32) {
        self.absent.push(path);
    }

    /// Whether the message meets all conditions.
    pub(super) fn holds(&self, leaves: &Leaves, payload: &str) -> bool {
        self.holds_in(leaves, payload, WHOLE)
    }

    fn holds_in(&self, leaves: &Leaves, payload: &str, span: Span) -> bool {
        self.any_of.iter().all(|(path, tests)| {
            leaves.at(*path, span).iter().any(|leaf| {
                let value = leaves.scalar(leaf, payload);
                tests.iter().any(|test| test.passes(value))
            })
        }) && self.nothing_at(leaves, span)
            && self.inner.iter().all(|(path, inner)| {
                if inner.chooses {
                    leaves
                        .objects_at(*path, span)
                        .iter()
                        .any(|object| inner.holds_in(leaves, payload, object.span))
                } else {
                    inner.nothing_in(leaves, span)
                }
            })
    }

    fn nothing_at(&self, leaves: &Leaves, span: Span) -> bool {
        self.absent.iter().all(|path| leaves.at(*path, span).is_empty())
    }

    /// Of a scope that chooses nothing: all that must be absent is.
    fn nothing_in(&self, leaves: &Leaves, span: Span) -> bool {
        self.nothing_at(leaves, span) && self.inner.iter().all(|(_, inner)| inner.nothing_in(leaves, span))
    }
}
