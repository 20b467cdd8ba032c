//! What a file of rules holds once it is loaded.

use std::time::Duration;

use crate::mapping::Mapping;
use crate::matcher::Matcher;
use crate::yaml::Node;
use crate::{CloudEvent, Context, MapError};

/// The connections and rules of all files, checked, and their compiled matcher.
#[derive(Debug)]
pub struct RuleSet {
    /// In the order of the files.
    pub connections: Vec<ConnectionDef>,
    /// In the order of the files.
    pub rules: Vec<Rule>,
    pub(crate) matcher: Matcher,
}

/// A named connection.
#[derive(Clone, Debug)]
pub struct ConnectionDef {
    /// Its name; unique.
    pub name: String,
    /// The kind of connector: `kafka`, `http`, …
    pub kind: String,
    /// What the connector reads.
    pub body: Node,
    /// The key that names the kind, for diagnostics.
    pub at: Node,
}

/// One rule.
#[derive(Debug)]
pub struct Rule {
    /// Its name; unique.
    pub name: String,
    /// MQTT topic filters; at least one.
    pub filters: Vec<String>,
    /// What it is for, for people.
    pub description: Option<String>,
    /// Where its events go; at least one.
    pub targets: Vec<TargetDef>,
    pub(crate) mapping: Mapping,
}

/// One destination of a rule.
#[derive(Clone, Debug)]
pub struct TargetDef {
    /// Its name, unique in the rule: that of the connection, `connection-2` and so on where it repeats, or `name:`.
    pub name: String,
    /// The connection.
    pub connection: String,
    /// What the connector reads, without the keys that all targets share.
    pub body: Node,
    /// When a failed event is tried again.
    pub retry: Retry,
    /// The key that names the connection, for diagnostics.
    pub at: Node,
}

/// When a failed event is tried again: waits grow from `first` to `max`, until `attempts` or `for_` is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in all; `None` = for ever.
    pub attempts: Option<u32>,
    /// Time since the first attempt; `None` = for ever.
    pub for_: Option<Duration>,
    /// The first wait.
    pub first: Duration,
    /// The longest wait.
    pub max: Duration,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry { attempts: None, for_: None, first: Duration::from_millis(100), max: Duration::from_secs(30) }
    }
}

/// What [`RuleSet::matches`] found besides the rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Matched {
    /// The payload had to be read as JSON for a rule of this topic, and is none.
    pub not_json: bool,
}

impl RuleSet {
    /// Replaces `out` with the indices of the rules that match, in ascending order.
    ///
    /// The cost depends on the topic and on the fields that rules ask for, not on the number of rules.
    pub fn matches(&self, cx: &mut Context<'_>, out: &mut Vec<usize>) -> Matched {
        self.matcher.matches(cx.message(), out)
    }
}

impl Rule {
    /// Maps a record to an event. See [`crate::mapping`] for the defaults.
    ///
    /// # Errors
    /// Something the mapping names is missing in the record, or gives no valid CloudEvents attribute.
    pub fn event(&self, cx: &mut Context<'_>) -> Result<CloudEvent, MapError> {
        self.mapping.event(cx).map_err(|error| error.in_rule(&self.name))
    }
}
