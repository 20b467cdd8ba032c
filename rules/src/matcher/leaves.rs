//! [`Leaves`]: what was kept of a message for conditions to look at.

use crate::pattern::{Num, Scalar};

/// Leaves, texts and objects that a thread keeps room for between messages.
const KEPT_MAX: usize = 16 * 1024;
/// Bytes of text that a thread keeps room for between messages.
const KEPT_BYTES_MAX: usize = 256 * 1024;

/// The whole of a message.
pub(super) const WHOLE: Span = Span { start: 0, end: u32::MAX };

/// Leaves at the paths that conditions name, and the objects they are in. Both are numbered in one sequence in the
/// order of the message, so that an object is the leaves and objects of a span of numbers. That is all it takes to see
/// that two leaves are in the same element of a list.
#[derive(Debug, Default)]
pub(super) struct Leaves {
    leaves: Vec<Leaf>,
    objects: Vec<Object>,
    /// Text that is not in the payload as it is.
    text: String,
    sequence: u32,
    /// What a later key of the same name has replaced.
    replaced: Vec<Span>,
    /// By path: where it last occurred as a key.
    seen: Vec<Seen>,
    objects_ever: u64,
}

/// Numbers of a message's sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Leaf {
    pub(super) path: u32,
    number: u32,
    value: Value,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(Num),
    /// Bytes of the payload.
    Payload {
        start: u32,
        end: u32,
    },
    /// Bytes of [`Leaves::text`].
    Kept {
        start: u32,
        end: u32,
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Object {
    path: u32,
    pub(super) span: Span,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    object: u64,
    span: Span,
}

/// An object whose end has not come yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    at: usize,
    id: u64,
}

impl Leaves {
    pub(super) fn clear(&mut self) {
        self.leaves.clear();
        self.objects.clear();
        self.text.clear();
        self.replaced.clear();
        self.sequence = 0;
    }

    /// Gives back what an unusually large message took.
    pub(super) fn shrink(&mut self) {
        if self.leaves.capacity() > KEPT_MAX
            || self.objects.capacity() > KEPT_MAX
            || self.text.capacity() > KEPT_BYTES_MAX
        {
            self.clear();
            self.leaves.shrink_to(KEPT_MAX);
            self.objects.shrink_to(KEPT_MAX);
            self.replaced.shrink_to(KEPT_MAX);
            self.text.shrink_to(KEPT_BYTES_MAX);
        }
    }

    fn number(&mut self) -> u32 {
        let number = self.sequence;
        self.sequence += 1;
        number
    }

    pub(super) fn push(&mut self, path: u32, value: Value) {
        let number = self.number();
        self.leaves.push(Leaf { path, number, value });
    }

    /// Adds a leaf with text of its own.
    pub(super) fn push_text(&mut self, path: u32, text: &str) {
        self.push_written(path, |out| out.push_str(text));
    }

    /// Adds a leaf with text that `write` appends.
    pub(super) fn push_written(&mut self, path: u32, write: impl FnOnce(&mut String)) {
        let start = self.text.len() as u32;
        write(&mut self.text);
        let end = self.text.len() as u32;
        self.push(path, Value::Kept { start, end });
    }

    /// Adds an object that everything is in: one that is not in a list.
    pub(super) fn push_whole(&mut self, path: u32) {
        self.objects.push(Object { path, span: WHOLE });
    }

    pub(super) fn open(&mut self, path: u32) -> Open {
        let start = self.number();
        self.objects.push(Object { path, span: Span { start, end: start } });
        self.objects_ever += 1;
        Open { at: self.objects.len() - 1, id: self.objects_ever }
    }

    pub(super) fn close(&mut self, open: Open) {
        let end = self.sequence;
        if let Some(object) = self.objects.get_mut(open.at) {
            object.span.end = end;
        }
    }

    /// Where the value of a key begins.
    pub(super) fn before_value(&self) -> u32 {
        self.sequence
    }

    /// Notes the value of a key, and drops that of an earlier key of the same name: the last one counts, as in a tree.
    pub(super) fn after_value(&mut self, open: Open, path: u32, start: u32) {
        let at = path as usize;
        if self.seen.len() <= at {
            self.seen.resize(at + 1, Seen { object: 0, span: Span { start: 0, end: 0 } });
        }
        let span = Span { start, end: self.sequence };
        if let Some(seen) = self.seen.get_mut(at) {
            let earlier = std::mem::replace(seen, Seen { object: open.id, span });
            if earlier.object == open.id {
                self.replaced.push(earlier.span);
            }
        }
    }

    /// Puts everything in the order that the look-ups need.
    pub(super) fn finish(&mut self) {
        if !self.replaced.is_empty() {
            // Outer spans first; inner ones are then covered.
            self.replaced.sort_unstable_by_key(|span| (span.start, u32::MAX - span.end));
            let mut covered = 0;
            self.replaced.retain(|span| {
                let adds = span.end > covered;
                covered = covered.max(span.end);
                adds
            });
            let replaced = &self.replaced;
            let gone = |number: u32| {
                let at = replaced.partition_point(|span| span.end <= number);
                replaced.get(at).is_some_and(|span| span.start <= number)
            };
            self.leaves.retain(|leaf| !gone(leaf.number));
            self.objects.retain(|object| !gone(object.span.start));
        }
        self.leaves.sort_unstable_by_key(|leaf| (leaf.path, leaf.number));
        self.objects.sort_unstable_by_key(|object| (object.path, object.span.start));
    }

    pub(super) fn all(&self) -> &[Leaf] {
        &self.leaves
    }

    /// The leaves at a path within a span.
    pub(super) fn at(&self, path: u32, within: Span) -> &[Leaf] {
        let start = self.leaves.partition_point(|leaf| (leaf.path, leaf.number) < (path, within.start));
        let rest = self.leaves.get(start..).unwrap_or_default();
        let count = rest.partition_point(|leaf| (leaf.path, leaf.number) < (path, within.end));
        rest.get(..count).unwrap_or_default()
    }

    /// The objects at a path within a span.
    pub(super) fn objects_at(&self, path: u32, within: Span) -> &[Object] {
        let start =
            self.objects.partition_point(|object| (object.path, object.span.start) < (path, within.start));
        let rest = self.objects.get(start..).unwrap_or_default();
        let count = rest.partition_point(|object| (object.path, object.span.start) < (path, within.end));
        rest.get(..count).unwrap_or_default()
    }

    /// The value of a leaf; `payload` is the text the leaves were extracted from.
    pub(super) fn scalar<'v>(&'v self, leaf: &Leaf, payload: &'v str) -> Scalar<'v> {
        let slice = |text: &'v str, start: u32, end: u32| {
            Scalar::Text(text.get(start as usize..end as usize).unwrap_or_default())
        };
        match leaf.value {
            Value::Null => Scalar::Null,
            Value::Bool(value) => Scalar::Bool(value),
            Value::Number(value) => Scalar::Number(value),
            Value::Payload { start, end } => slice(payload, start, end),
            Value::Kept { start, end } => slice(&self.text, start, end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_key_replaces_an_earlier_one() {
        let mut leaves = Leaves::default();
        let outer = leaves.open(1);
        for text in ["first", "second"] {
            let start = leaves.before_value();
            let inner = leaves.open(2);
            let within = leaves.before_value();
            leaves.push_text(3, text);
            leaves.after_value(inner, 3, within);
            leaves.close(inner);
            leaves.after_value(outer, 2, start);
        }
        leaves.close(outer);
        leaves.finish();
        let texts: Vec<Scalar<'_>> = leaves.at(3, WHOLE).iter().map(|leaf| leaves.scalar(leaf, "")).collect();
        assert_eq!(texts, [Scalar::Text("second")]);
        assert_eq!(leaves.objects_at(2, WHOLE).len(), 1);
        assert_eq!(leaves.objects_at(1, WHOLE).len(), 1);
    }

    #[test]
    fn room_for_a_large_message_is_given_back() {
        let mut leaves = Leaves::default();
        for _ in 0..100_000 {
            leaves.push_text(1, "0123456789");
        }
        leaves.shrink();
        assert!(leaves.leaves.capacity() <= KEPT_MAX);
        assert!(leaves.text.capacity() <= KEPT_BYTES_MAX);
    }
}
