//! [`FieldIndex`]: the keys of one field, and the conjunctions filed under them.

use std::net::IpAddr;

use foldhash::HashMap;

use super::intervals::Intervals;
use crate::pattern::{Cidr, Num, Range, Scalar, Test, fold_into};

/// What a conjunction can be filed under at one field. A key is hit by at least the values that pass its test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key<'t> {
    Null,
    Bool(bool),
    Number(Num),
    Text(&'t str),
    Folded(&'t str),
    Prefix(&'t str),
    Suffix(&'t str),
    Cidr(Cidr),
    /// Any range; each stands for itself, but a number hits many.
    Range,
    /// Any value.
    Present,
}

impl<'t> Key<'t> {
    pub(super) fn of(test: &'t Test) -> Key<'t> {
        match test {
            Test::Null => Key::Null,
            Test::Bool(value) => Key::Bool(*value),
            Test::Number(value) => Key::Number(*value),
            Test::Text(text) => Key::Text(text),
            Test::Folded(text) => Key::Folded(text),
            Test::Prefix(text) => Key::Prefix(text),
            Test::Suffix(text) => Key::Suffix(text),
            Test::Cidr(cidr) => Key::Cidr(*cidr),
            Test::Range(_) => Key::Range,
            Test::Wildcard(wildcard) if !wildcard.head().is_empty() => Key::Prefix(wildcard.head()),
            Test::Wildcard(wildcard) if !wildcard.tail().is_empty() => Key::Suffix(wildcard.tail()),
            Test::Wildcard(_)
            | Test::PrefixFolded(_)
            | Test::SuffixFolded(_)
            | Test::Exists
            | Test::AnythingBut(_) => Key::Present,
        }
    }
}

/// The keys of one field, and the conjunctions filed under them.
#[derive(Debug, Default)]
pub(super) struct FieldIndex {
    null: Vec<u32>,
    bools: [Vec<u32>; 2],
    numbers: HashMap<Num, Vec<u32>>,
    texts: HashMap<Box<str>, Vec<u32>>,
    folded: HashMap<Box<str>, Vec<u32>>,
    prefixes: Affixes,
    suffixes: Affixes,
    cidrs: HashMap<Cidr, Vec<u32>>,
    /// The prefix lengths among `cidrs`.
    cidr_bits: Vec<u8>,
    ranges: Intervals,
    present: Vec<u32>,
}

/// Prefixes or suffixes: one hash look-up for each length that occurs.
#[derive(Debug, Default)]
struct Affixes {
    texts: HashMap<Box<[u8]>, Vec<u32>>,
    lengths: Vec<usize>,
}

impl Affixes {
    fn insert(&mut self, text: &str, conjunction: u32) {
        self.texts.entry(text.as_bytes().into()).or_default().push(conjunction);
        if let Err(at) = self.lengths.binary_search(&text.len()) {
            self.lengths.insert(at, text.len());
        }
    }

    fn look_up<'v>(&self, len: usize, cut: impl Fn(usize) -> Option<&'v [u8]>, out: &mut Vec<u32>) {
        for length in self.lengths.iter().take_while(|length| **length <= len) {
            if let Some(filed) = cut(*length).and_then(|text| self.texts.get(text)) {
                out.extend_from_slice(filed);
            }
        }
    }
}

impl FieldIndex {
    /// Files a conjunction under the key of a test.
    pub(super) fn insert(&mut self, test: &Test, conjunction: u32) {
        let filed = match Key::of(test) {
            Key::Null => &mut self.null,
            Key::Bool(value) => &mut self.bools[usize::from(value)],
            Key::Number(value) => self.numbers.entry(value).or_default(),
            Key::Text(text) => self.texts.entry(text.into()).or_default(),
            Key::Folded(text) => self.folded.entry(text.into()).or_default(),
            Key::Prefix(text) => return self.prefixes.insert(text, conjunction),
            Key::Suffix(text) => return self.suffixes.insert(text, conjunction),
            Key::Cidr(cidr) => {
                if !self.cidr_bits.contains(&cidr.bits()) {
                    self.cidr_bits.push(cidr.bits());
                }
                self.cidrs.entry(cidr).or_default()
            }
            Key::Range => {
                if let Test::Range(range) = test {
                    self.insert_range(range, conjunction);
                }
                return;
            }
            Key::Present => &mut self.present,
        };
        filed.push(conjunction);
    }

    fn insert_range(&mut self, range: &Range, conjunction: u32) {
        self.ranges.insert(range, conjunction);
    }

    /// To be called after the last [`FieldIndex::insert`].
    pub(super) fn finish(&mut self) {
        self.ranges.finish();
    }

    /// Appends what is filed under the keys that a value hits.
    pub(super) fn look_up(&self, value: Scalar<'_>, folded: &mut String, out: &mut Vec<u32>) {
        out.extend_from_slice(&self.present);
        match value {
            Scalar::Null => out.extend_from_slice(&self.null),
            Scalar::Bool(value) => out.extend_from_slice(&self.bools[usize::from(value)]),
            Scalar::Number(value) => {
                out.extend(self.numbers.get(&value).into_iter().flatten());
                self.ranges.look_up(value, out);
            }
            Scalar::Text(text) => self.look_up_text(text, folded, out),
        }
    }

    fn look_up_text(&self, text: &str, folded: &mut String, out: &mut Vec<u32>) {
        if !self.texts.is_empty() {
            out.extend(self.texts.get(text).into_iter().flatten());
        }
        if !self.folded.is_empty() {
            fold_into(text, folded);
            out.extend(self.folded.get(folded.as_str()).into_iter().flatten());
        }
        let bytes = text.as_bytes();
        self.prefixes.look_up(bytes.len(), |length| bytes.get(..length), out);
        self.suffixes.look_up(bytes.len(), |length| bytes.get(bytes.len() - length..), out);
        if !self.cidrs.is_empty()
            && let Ok(address) = text.parse::<IpAddr>()
        {
            for bits in &self.cidr_bits {
                let cidr = Cidr::around(address, *bits);
                out.extend(cidr.and_then(|cidr| self.cidrs.get(&cidr)).into_iter().flatten());
            }
        }
    }
}
