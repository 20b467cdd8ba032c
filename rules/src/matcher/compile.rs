//! Rules to a [`Matcher`]: the choice of what each conjunction is filed under.

use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _};

use super::envelope::Envelope;
use super::filters::FilterTree;
use super::index::{FieldIndex, Key};
use super::paths::{Paths, ROOT};
use super::scope::Scope;
use super::{Compiled, Filed, Matcher};
use crate::pattern::{Condition, Conjunction, Test, Wanted};

/// What a conjunction can be filed under.
#[derive(PartialEq, Eq, Hash)]
enum Shared<'r> {
    Filter(u32),
    Field(u32, Key<'r>),
}

/// A conjunction with its names resolved.
struct Draft<'r> {
    rule: u32,
    filters: Arc<[u32]>,
    /// The path of each condition, node by node.
    conditions: Vec<(Vec<u32>, &'r Condition)>,
}

/// Compiles the filters and patterns of all rules, in order.
pub(crate) fn compile<'r>(
    rules: impl ExactSizeIterator<Item = (&'r [String], &'r [Conjunction])>,
) -> Matcher {
    let mut matcher = Matcher { rules: rules.len(), ..Matcher::default() };
    let drafts = resolve(rules, &mut matcher.filters, &mut matcher.paths);
    matcher.filed.resize_with(matcher.filters.len(), Filed::default);
    let mut sharers: HashMap<Shared<'_>, u32> = HashMap::new();
    for draft in &drafts {
        for filter in &*draft.filters {
            *sharers.entry(Shared::Filter(*filter)).or_default() += 1;
        }
        for (path, tests) in draft.present() {
            for test in tests {
                *sharers.entry(Shared::Field(path, Key::of(test))).or_default() += 1;
            }
        }
    }
    for draft in &drafts {
        let number = matcher.conjunctions.len() as u32;
        matcher.file(draft, number, &sharers);
        matcher.conjunctions.push(draft.compiled());
    }
    matcher.fields.iter_mut().for_each(FieldIndex::finish);
    matcher.envelope = Envelope::new(&matcher.paths);
    matcher
}

fn resolve<'r>(
    rules: impl Iterator<Item = (&'r [String], &'r [Conjunction])>,
    filters: &mut FilterTree,
    paths: &mut Paths,
) -> Vec<Draft<'r>> {
    let mut drafts = Vec::new();
    for (rule, (from, pattern)) in rules.enumerate() {
        let from: Arc<[u32]> = from.iter().map(|filter| filters.insert(filter)).collect();
        for conjunction in pattern {
            let mut conditions = Vec::with_capacity(conjunction.conditions.len());
            for condition in &conjunction.conditions {
                let mut nodes = Vec::with_capacity(condition.path.len());
                let mut at = ROOT;
                for name in condition.path.iter() {
                    at = paths.insert(at, name);
                    nodes.push(at);
                }
                paths.make_field(at);
                conditions.push((nodes, condition));
            }
            drafts.push(Draft { rule: rule as u32, filters: Arc::clone(&from), conditions });
        }
    }
    drafts
}

impl<'r> Draft<'r> {
    /// Conditions that have to be met by a leaf: its path and its tests.
    fn present(&self) -> impl Iterator<Item = (u32, &'r [Test])> {
        self.conditions.iter().filter_map(|(nodes, condition)| match &condition.wanted {
            Wanted::AnyOf(tests) => Some((*nodes.last()?, &**tests)),
            Wanted::Absent => None,
        })
    }

    fn compiled(&self) -> Compiled {
        let mut envelope = Scope::default();
        let mut data = None;
        for (nodes, condition) in &self.conditions {
            let Some((leaf, outer)) = nodes.split_last() else { continue };
            let chooses = matches!(condition.wanted, Wanted::AnyOf(_));
            let root =
                if condition.is_data() { data.get_or_insert_with(Scope::default) } else { &mut envelope };
            let scope = outer.iter().fold(root, |scope, node| scope.within(*node, chooses));
            match &condition.wanted {
                Wanted::AnyOf(tests) => scope.any_of(*leaf, Arc::clone(tests)),
                Wanted::Absent => scope.absent(*leaf),
            }
        }
        Compiled { rule: self.rule, filters: self.filters.iter().copied().collect(), envelope, data }
    }
}

impl Matcher {
    /// Files a conjunction under the condition that the fewest others share, or under its filters.
    fn file(&mut self, draft: &Draft<'_>, number: u32, sharers: &HashMap<Shared<'_>, u32>) {
        let count = |shared| sharers.get(&shared).copied().unwrap_or(0);
        let cost = |path: u32, test| match Key::of(test) {
            // Of many ranges a number is in about half.
            key @ Key::Range => count(Shared::Field(path, key)).div_ceil(2),
            key => count(Shared::Field(path, key)),
        };
        let filters = draft.filters.iter().map(|filter| count(Shared::Filter(*filter))).max().unwrap_or(0);
        let best = draft
            .present()
            .map(|(path, tests)| (tests.iter().map(|test| cost(path, test)).max().unwrap_or(0), path, tests))
            .min_by_key(|(cost, ..)| *cost)
            .filter(|(cost, ..)| *cost < filters);
        let Some((_, path, tests)) = best else {
            for filter in &*draft.filters {
                if let Some(filed) = self.filed.get_mut(*filter as usize) {
                    filed.conjunctions.push(number);
                }
            }
            return;
        };
        let field = self.paths.make_field(path);
        if self.fields.len() <= field {
            self.fields.resize_with(field + 1, FieldIndex::default);
        }
        if let Some(index) = self.fields.get_mut(field) {
            for test in tests {
                index.insert(test, number);
            }
        }
        let on_data = draft
            .conditions
            .iter()
            .any(|(nodes, condition)| nodes.last() == Some(&path) && condition.is_data());
        if on_data {
            for filter in &*draft.filters {
                if let Some(filed) = self.filed.get_mut(*filter as usize) {
                    filed.data = true;
                }
            }
        }
    }
}
