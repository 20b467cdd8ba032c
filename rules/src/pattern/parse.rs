//! YAML to alternatives of conditions.

use std::sync::Arc;

use super::number::Num;
use super::test::{Bound, Cidr, Range, Test, fold};
use super::wildcard::Wildcard;
use super::{
    ALTERNATIVES_MAX, CONDITIONS_MAX, CONJUNCTIONS_MAX, Condition, Conjunction, DEPTH_MAX, TEXT_BYTES_MAX,
    Wanted,
};
use crate::Diagnostic;
use crate::diagnostic::did_you_mean;
use crate::yaml::{Kind, Node};

/// Keys of a pattern's outermost map.
pub(crate) const ROOT_KEYS: [&str; 8] = ["data", "mqtt", "id", "source", "type", "subject", "time", "$or"];
/// Keys under `mqtt`.
pub(crate) const MQTT_KEYS: [&str; 9] =
    ["topic", "levels", "client", "user", "qos", "retain", "content_type", "properties", "$or"];
pub(crate) const OPERATORS: [&str; 8] =
    ["prefix", "suffix", "equals-ignore-case", "wildcard", "anything-but", "numeric", "exists", "cidr"];
pub(crate) const ANYTHING_BUT_OPERATORS: [&str; 4] = ["prefix", "suffix", "equals-ignore-case", "wildcard"];

/// What may stand at a place of a pattern.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Mqtt,
    /// A list of levels, or single ones by number.
    Levels,
    LevelMap,
    /// User properties by name.
    Properties,
    /// A leaf, or a map with more below.
    Data,
    /// A leaf only.
    Leaf,
}

/// Parses `where`.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn parse(node: &Node) -> Result<Vec<Conjunction>, Vec<Diagnostic>> {
    let mut parser = Parser { path: Vec::new(), diagnostics: Vec::new() };
    let pattern = parser.map(node, Place::Root);
    if parser.diagnostics.is_empty() { Ok(pattern) } else { Err(parser.diagnostics) }
}

struct Parser {
    path: Vec<String>,
    diagnostics: Vec<Diagnostic>,
}

/// Alternatives; after an error something harmless, for the parse to go on and find the next one.
type Alternatives = Vec<Conjunction>;

impl Parser {
    fn wrong(&mut self, diagnostic: Diagnostic) -> Alternatives {
        self.diagnostics.push(diagnostic);
        vec![Conjunction::default()]
    }

    fn map(&mut self, node: &Node, place: Place) -> Alternatives {
        let Some(entries) = node.as_map() else {
            return self.wrong(node.expected("a map"));
        };
        if entries.is_empty() {
            let hint = "leave it out to match everything";
            return self.wrong(node.diagnostic("an empty pattern").with_hint(hint));
        }
        if self.path.len() >= DEPTH_MAX {
            return self
                .wrong(node.diagnostic(format!("the pattern is nested deeper than {DEPTH_MAX} levels")));
        }
        let mut all = vec![Conjunction::default()];
        for (key, value) in entries {
            let some = self.entry(key, value, place);
            all = self.both(all, &some, key);
        }
        all
    }

    fn entry(&mut self, key: &Node, value: &Node, place: Place) -> Alternatives {
        let name = key.as_str().unwrap_or_default();
        if name == "$or" {
            return self.or(value, place);
        }
        let below = match (place, name) {
            (Place::Root, "data") => Place::Data,
            (Place::Root, "mqtt") => Place::Mqtt,
            (Place::Root, name) if ROOT_KEYS.contains(&name) => Place::Leaf,
            (Place::Root, name) => {
                let hint = did_you_mean(name, ROOT_KEYS).unwrap_or_default();
                let hint = format!(
                    "{hint}{} fields of the payload stand under `data`",
                    if hint.ends_with('?') { "" } else { ";" }
                );
                return self
                    .wrong(key.diagnostic(format!("unknown key `{name}` in a pattern")).with_hint(hint));
            }
            (Place::Mqtt, "levels") => Place::Levels,
            (Place::Mqtt, "properties") => Place::Properties,
            (Place::Mqtt, name) if MQTT_KEYS.contains(&name) => Place::Leaf,
            (Place::Mqtt, name) => {
                let hint = did_you_mean(name, MQTT_KEYS);
                return self
                    .wrong(key.diagnostic(format!("unknown key `{name}` under `mqtt`")).with_hint_if(hint));
            }
            (Place::LevelMap, name) => match name.parse::<i16>() {
                Ok(level) => return self.below(level.to_string(), value, Place::Leaf),
                Err(_) => {
                    let diagnostic = key.diagnostic(format!("`{name}` is not the number of a topic level"));
                    return self.wrong(diagnostic.with_hint("levels count from 0, or from -1 at the end"));
                }
            },
            (Place::Properties, _) => Place::Leaf,
            (Place::Data | Place::Levels | Place::Leaf, _) => Place::Data,
        };
        self.below(name.to_owned(), value, below)
    }

    fn below(&mut self, name: String, value: &Node, place: Place) -> Alternatives {
        self.path.push(name);
        let some = match (place, value.kind()) {
            (Place::Mqtt | Place::Properties, _) => self.map(value, place),
            (Place::Data, Kind::Map) => self.map(value, place),
            (Place::Levels, Kind::Map) => self.map(value, Place::LevelMap),
            (_, Kind::Seq) => self.leaf(value),
            (place, kind) => {
                let expected = if place == Place::Leaf {
                    "a list of alternatives"
                } else {
                    "a list of alternatives or a map"
                };
                let diagnostic = value.expected(expected);
                if kind == Kind::Map || kind == Kind::Null {
                    self.wrong(diagnostic)
                } else {
                    self.wrong(diagnostic.with_hint(format!("put it in brackets: `[{}]`", value.to_json())))
                }
            }
        };
        self.path.pop();
        some
    }

    /// `$or`: a list of maps that stand in the place of the map it is in.
    fn or(&mut self, node: &Node, place: Place) -> Alternatives {
        let items = match node.as_seq() {
            Some([]) => return self.wrong(node.diagnostic("an empty `$or` is met by nothing")),
            Some(items) => items,
            None => {
                return self.wrong(node.expected("a list of maps, as in `$or: [{ a: [1] }, { b: [2] }]`"));
            }
        };
        let mut any: Alternatives = Vec::new();
        for item in items {
            any.extend(self.map(item, place));
            if any.len() > CONJUNCTIONS_MAX {
                return self.too_many(node);
            }
        }
        any
    }

    /// All of one with all of the other.
    fn both(&mut self, mut left: Alternatives, right: &[Conjunction], at: &Node) -> Alternatives {
        let count = left.len().saturating_mul(right.len());
        let size = |some: &[Conjunction]| some.iter().map(|c| c.conditions.len()).max().unwrap_or(0);
        if count > CONJUNCTIONS_MAX || count.saturating_mul(size(&left) + size(right)) > CONDITIONS_MAX {
            return self.too_many(at);
        }
        if let [only] = right {
            // By far the most frequent: no copies of what is there already.
            for conjunction in &mut left {
                conjunction.conditions.extend_from_slice(&only.conditions);
            }
            return left;
        }
        let mut all = Vec::with_capacity(count);
        for a in &left {
            for b in right {
                let conditions = a.conditions.iter().chain(&b.conditions).cloned().collect();
                all.push(Conjunction { conditions });
            }
        }
        all
    }

    fn too_many(&mut self, at: &Node) -> Alternatives {
        let message = "`$or` and `exists: false` give too many combinations here";
        self.wrong(at.diagnostic(message).with_hint(format!(
            "at most {CONJUNCTIONS_MAX} combinations and {CONDITIONS_MAX} conditions for one rule; split the rule"
        )))
    }

    fn leaf(&mut self, node: &Node) -> Alternatives {
        let items = node.as_seq().unwrap_or_default();
        if items.is_empty() {
            return self.wrong(node.diagnostic("an empty list of alternatives is met by nothing"));
        }
        if items.len() > ALTERNATIVES_MAX {
            return self
                .wrong(node.diagnostic(format!("more than {ALTERNATIVES_MAX} alternatives in one list")));
        }
        let mut tests = Vec::with_capacity(items.len());
        let mut absent = false;
        for item in items {
            match alternative(item) {
                Ok(Some(test)) => tests.push(test),
                Ok(None) => absent = true,
                Err(diagnostic) => self.diagnostics.push(diagnostic),
            }
        }
        let path: Arc<[String]> = self.path.clone().into();
        let one = |wanted| Conjunction { conditions: vec![Condition { path: Arc::clone(&path), wanted }] };
        let mut some = Vec::new();
        if !tests.is_empty() {
            some.push(one(Wanted::AnyOf(tests.into())));
        }
        if absent {
            some.push(one(Wanted::Absent));
        }
        some
    }
}

/// One alternative; `None` for `exists: false`.
fn alternative(node: &Node) -> Result<Option<Test>, Diagnostic> {
    if let Some(test) = literal(node)? {
        return Ok(Some(test));
    }
    let (key, value) = single_entry(node)?;
    match key.as_str().unwrap_or_default() {
        "exists" => match value.as_bool() {
            Some(true) => Ok(Some(Test::Exists)),
            Some(false) => Ok(None),
            None => Err(value.expected("`true` or `false`")),
        },
        "prefix" => affix(value, Test::Prefix, Test::PrefixFolded).map(Some),
        "suffix" => affix(value, Test::Suffix, Test::SuffixFolded).map(Some),
        "anything-but" => anything_but(value).map(Some),
        "numeric" => numeric(value).map(Some),
        "cidr" => match Cidr::parse(text(value)?) {
            Some(cidr) => Ok(Some(Test::Cidr(cidr))),
            None => Err(value
                .diagnostic(format!("`{}` is not a network", text(value)?))
                .with_hint("as in `10.0.0.0/8` or `2001:db8::/32`; for one address `10.0.0.1/32`")),
        },
        operator @ ("equals-ignore-case" | "wildcard") => text_test(operator, value).map(Some),
        unknown => {
            let hint = did_you_mean(unknown, OPERATORS);
            Err(key.diagnostic(format!("unknown operator `{unknown}`")).with_hint_if(hint))
        }
    }
}

/// A value that stands for itself.
fn literal(node: &Node) -> Result<Option<Test>, Diagnostic> {
    Ok(Some(match node.kind() {
        Kind::Null => Test::Null,
        Kind::Bool => Test::Bool(node.as_bool() == Some(true)),
        Kind::Number => match node.as_number() {
            Some(number) => Test::Number(Num::from(number)),
            None => return Ok(None),
        },
        Kind::Text => Test::Text(text(node)?.to_owned()),
        Kind::Seq => {
            return Err(node
                .diagnostic("a list cannot stand in a list of alternatives")
                .with_hint("remove the inner brackets"));
        }
        Kind::Map => return Ok(None),
    }))
}

fn single_entry(node: &Node) -> Result<(&Node, &Node), Diagnostic> {
    match node.as_map() {
        Some([(key, value)]) => Ok((key, value)),
        Some(_) => Err(node
            .diagnostic("an alternative has exactly one operator")
            .with_hint("alternatives are separate items of the list: `[{ prefix: a }, { suffix: b }]`")),
        None => Err(node.expected("a value or a map of one operator")),
    }
}

fn text(node: &Node) -> Result<&str, Diagnostic> {
    let text = node.as_str().ok_or_else(|| node.expected("text"))?;
    if text.len() > TEXT_BYTES_MAX {
        return Err(node.diagnostic(format!(
            "this text has {} bytes; at most {TEXT_BYTES_MAX} are possible",
            text.len()
        )));
    }
    Ok(text)
}

/// `prefix` or `suffix`: a text, or `{ equals-ignore-case: text }`.
fn affix(node: &Node, plain: fn(String) -> Test, folded: fn(String) -> Test) -> Result<Test, Diagnostic> {
    if node.kind() != Kind::Map {
        return Ok(plain(text(node)?.to_owned()));
    }
    match single_entry(node)? {
        (key, value) if key.as_str() == Some("equals-ignore-case") => Ok(folded(fold(text(value)?))),
        (key, _) => Err(key.diagnostic("only `equals-ignore-case` can stand here")),
    }
}

fn text_test(operator: &str, node: &Node) -> Result<Test, Diagnostic> {
    let text = text(node)?;
    match operator {
        "prefix" => Ok(Test::Prefix(text.to_owned())),
        "suffix" => Ok(Test::Suffix(text.to_owned())),
        "equals-ignore-case" => Ok(Test::Folded(fold(text))),
        _ => match Wildcard::parse(text) {
            Ok(wildcard) => Ok(Test::Wildcard(wildcard)),
            Err(error) => Err(node
                .diagnostic(format!("bad wildcard: {error}"))
                .with_hint("`*` is any text, `\\*` an asterisk, `\\\\` a backslash")),
        },
    }
}

fn anything_but(node: &Node) -> Result<Test, Diagnostic> {
    let tests = match node.kind() {
        Kind::Map => {
            let (key, value) = single_entry(node)?;
            let operator = key.as_str().unwrap_or_default();
            if !ANYTHING_BUT_OPERATORS.contains(&operator) {
                let hint = did_you_mean(operator, ANYTHING_BUT_OPERATORS);
                let message = format!("`{operator}` cannot stand under `anything-but`");
                return Err(key.diagnostic(message).with_hint_if(hint));
            }
            match value.as_seq() {
                Some(items) => {
                    items.iter().map(|item| text_test(operator, item)).collect::<Result<Vec<_>, _>>()?
                }
                None => vec![text_test(operator, value)?],
            }
        }
        Kind::Seq => {
            let items = node.as_seq().unwrap_or_default();
            let value = |item: &Node| literal(item)?.ok_or_else(|| item.expected("a value"));
            items.iter().map(value).collect::<Result<Vec<_>, _>>()?
        }
        _ => literal(node)?.into_iter().collect(),
    };
    match tests.len() {
        0 => Err(node
            .diagnostic("an empty list under `anything-but`")
            .with_hint("for any value: `{ exists: true }`")),
        1..=ALTERNATIVES_MAX => Ok(Test::AnythingBut(tests)),
        _ => Err(node.diagnostic(format!("more than {ALTERNATIVES_MAX} values in one list"))),
    }
}

/// `[">", 0, "<=", 5]`
fn numeric(node: &Node) -> Result<Test, Diagnostic> {
    const HINT: &str = "as in `[\">\", 0, \"<=\", 5]` or `[\"=\", 5]`";
    let items = node.as_seq().filter(|items| !items.is_empty() && items.len() % 2 == 0);
    let items = items.ok_or_else(|| {
        node.diagnostic("`numeric` takes pairs of a comparison and a number").with_hint(HINT)
    })?;
    let mut range = Range { lower: None, upper: None };
    for pair in items.chunks_exact(2) {
        let [operator, number] = pair else { continue };
        let value =
            number.as_number().map(Num::from).ok_or_else(|| number.expected("a number").with_hint(HINT))?;
        let twice = || operator.diagnostic("this bound is given twice").with_hint(HINT);
        let bound = |included| Some(Bound { value, included });
        let slot = match operator.as_str() {
            Some("=") => {
                if items.len() > 2 {
                    return Err(operator.diagnostic("`=` stands alone").with_hint(HINT));
                }
                return Ok(Test::Number(value));
            }
            Some(">" | ">=") => &mut range.lower,
            Some("<" | "<=") => &mut range.upper,
            Some("!=") => {
                let hint = format!("`{{ anything-but: {} }}`", number.to_json());
                return Err(operator.diagnostic("`!=` is not a comparison of `numeric`").with_hint(hint));
            }
            _ => {
                return Err(operator.diagnostic("expected one of `=`, `<`, `<=`, `>`, `>=`").with_hint(HINT));
            }
        };
        if slot.is_some() {
            return Err(twice());
        }
        *slot = bound(operator.as_str().is_some_and(|operator| operator.ends_with('=')));
    }
    if range.is_empty() {
        return Err(node.diagnostic("no number is in this range"));
    }
    Ok(Test::Range(range))
}
