//! All rules compiled into one matcher, whose cost depends on the event and not on the number of rules.
//!
//! Every conjunction (alternative of a rule's `where`) is filed under one *key* only: the one of its conditions, or
//! of its rule's topic filters, that the fewest others share. A message looks up the keys its topic and its fields
//! give, and only conjunctions found there are evaluated. So ten thousand rules that tell vehicles apart by name cost
//! one hash lookup, whichever other conditions they have in common.
//!
//! The payload is read once, as a stream, and only if a rule found so far or a rule of the topic's filters looks into
//! it; only leaves at paths that some rule asks for are kept. Everything a message needs lives in buffers that the
//! thread keeps, so that matching allocates nothing once they have grown.
//!
//! # Layout
//! - `filters`   topic filters as a tree
//! - `paths`     the paths that conditions name, as a tree
//! - `compile`   rules to a [`Matcher`]: the choice of keys
//! - `index`     keys of one field to conjunctions
//! - `intervals` numeric ranges around a number
//! - `leaves`    what was kept of a message: leaves, and the objects they are in
//! - `envelope`  everything but the payload to leaves
//! - `payload`   the payload to leaves
//! - `scope`     one conjunction on the leaves

mod compile;
mod envelope;
mod filters;
mod index;
mod intervals;
mod leaves;
mod paths;
mod payload;
mod scope;

use std::cell::RefCell;

pub(crate) use compile::compile;
use envelope::Envelope;
use filters::{FilterTree, Frontier};
use index::FieldIndex;
use leaves::Leaves;
use paths::Paths;
use scope::Scope;

use crate::{Matched, Message};

/// Conditions that all rules together may have.
pub(crate) const CONDITIONS_MAX: usize = 4_000_000;

/// All rules, compiled.
#[derive(Debug, Default)]
pub(crate) struct Matcher {
    filters: FilterTree,
    /// By filter.
    filed: Vec<Filed>,
    paths: Paths,
    envelope: Envelope,
    /// By field of [`Paths`].
    fields: Vec<FieldIndex>,
    conjunctions: Vec<Compiled>,
    rules: usize,
}

/// What is filed under one filter.
#[derive(Debug, Default)]
struct Filed {
    /// Conjunctions that have no better key.
    conjunctions: Vec<u32>,
    /// Whether a rule of this filter has a conjunction filed under a field of the payload.
    data: bool,
}

/// One conjunction.
#[derive(Debug)]
struct Compiled {
    rule: u32,
    filters: Box<[u32]>,
    /// Conditions on everything but the payload.
    envelope: Scope,
    /// Conditions on the payload.
    data: Option<Scope>,
}

/// Buffers of one thread. A stamp says which message an entry was made for, so that none has to be cleared.
#[derive(Default)]
struct Scratch {
    stamp: u64,
    filter_stamps: Vec<u64>,
    conjunction_stamps: Vec<u64>,
    rule_stamps: Vec<u64>,
    frontier: Frontier,
    filters_hit: Vec<u32>,
    candidates: Vec<u32>,
    pending: Vec<u32>,
    envelope: Leaves,
    data: Leaves,
    folded: String,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Matcher {
    /// Replaces `out` with the indices of the rules that match, ascending.
    pub(crate) fn matches(&self, message: &Message<'_>, out: &mut Vec<usize>) -> Matched {
        out.clear();
        let mut scratch = SCRATCH.take();
        let matched = scratch.run(self, message, out);
        scratch.data.shrink();
        SCRATCH.replace(scratch);
        out.sort_unstable();
        matched
    }
}

impl Scratch {
    fn run(&mut self, matcher: &Matcher, message: &Message<'_>, out: &mut Vec<usize>) -> Matched {
        self.begin(matcher);
        matcher.filters.walk(message.topic, &mut self.frontier, &mut self.filters_hit);
        if self.filters_hit.is_empty() {
            return Matched::default();
        }
        let data_filed = self.take_filters(matcher);
        matcher.envelope.extract(&matcher.paths, message, &mut self.envelope);
        look_up(matcher, &self.envelope, "", &mut self.folded, &mut self.candidates);
        while let Some(candidate) = self.candidates.pop() {
            if let Some(conjunction) = self.admit(matcher, candidate) {
                match &conjunction.data {
                    None => self.hit(conjunction, out),
                    Some(_) => self.pending.push(candidate),
                }
            }
        }
        let stamps = &self.rule_stamps;
        let stamp = self.stamp;
        self.pending.retain(|at| {
            matcher.conjunctions.get(*at as usize).is_some_and(|c| !stamped(stamps, c.rule, stamp))
        });
        if !data_filed && self.pending.is_empty() {
            return Matched::default();
        }

        let Some(text) = payload::extract(&matcher.paths, message.payload, &mut self.data) else {
            return Matched { not_json: true };
        };
        if data_filed {
            look_up(matcher, &self.data, text, &mut self.folded, &mut self.candidates);
            while let Some(candidate) = self.candidates.pop() {
                if self.admit(matcher, candidate).is_some() {
                    self.pending.push(candidate);
                }
            }
        }
        while let Some(candidate) = self.pending.pop() {
            let Some(conjunction) = matcher.conjunctions.get(candidate as usize) else { continue };
            if stamped(&self.rule_stamps, conjunction.rule, self.stamp) {
                continue;
            }
            if conjunction.data.as_ref().is_none_or(|scope| scope.holds(&self.data, text)) {
                self.hit(conjunction, out);
            }
        }
        Matched::default()
    }

    fn begin(&mut self, matcher: &Matcher) {
        self.stamp += 1;
        grow(&mut self.filter_stamps, matcher.filed.len());
        grow(&mut self.conjunction_stamps, matcher.conjunctions.len());
        grow(&mut self.rule_stamps, matcher.rules);
        self.filters_hit.clear();
        self.candidates.clear();
        self.pending.clear();
    }

    /// Stamps the filters that were hit and takes what is filed under them. Whether something of theirs is filed
    /// under the payload.
    fn take_filters(&mut self, matcher: &Matcher) -> bool {
        let mut data_filed = false;
        for filter in &self.filters_hit {
            let at = *filter as usize;
            if let (Some(filed), Some(stamp)) = (matcher.filed.get(at), self.filter_stamps.get_mut(at)) {
                *stamp = self.stamp;
                data_filed |= filed.data;
                self.candidates.extend_from_slice(&filed.conjunctions);
            }
        }
        data_filed
    }

    /// A candidate that was not looked at yet, that could still tell something new, and that topic and envelope allow.
    fn admit<'m>(&mut self, matcher: &'m Matcher, candidate: u32) -> Option<&'m Compiled> {
        let stamp = self.conjunction_stamps.get_mut(candidate as usize)?;
        if std::mem::replace(stamp, self.stamp) == self.stamp {
            return None;
        }
        let conjunction = matcher.conjunctions.get(candidate as usize)?;
        let new = !stamped(&self.rule_stamps, conjunction.rule, self.stamp);
        let topic =
            conjunction.filters.iter().any(|filter| stamped(&self.filter_stamps, *filter, self.stamp));
        (new && topic && conjunction.envelope.holds(&self.envelope, "")).then_some(conjunction)
    }

    fn hit(&mut self, conjunction: &Compiled, out: &mut Vec<usize>) {
        if let Some(stamp) = self.rule_stamps.get_mut(conjunction.rule as usize)
            && std::mem::replace(stamp, self.stamp) != self.stamp
        {
            out.push(conjunction.rule as usize);
        }
    }
}

/// Collects what is filed under the leaves.
fn look_up(
    matcher: &Matcher,
    leaves: &Leaves,
    payload: &str,
    folded: &mut String,
    candidates: &mut Vec<u32>,
) {
    for leaf in leaves.all() {
        if let Some(field) = matcher.paths.field(leaf.path).and_then(|field| matcher.fields.get(field)) {
            field.look_up(leaves.scalar(leaf, payload), folded, candidates);
        }
    }
}

fn stamped(stamps: &[u64], at: u32, stamp: u64) -> bool {
    stamps.get(at as usize) == Some(&stamp)
}

fn grow(stamps: &mut Vec<u64>, len: usize) {
    if stamps.len() < len {
        stamps.resize(len, 0);
    }
}

#[cfg(test)]
mod tests;
