//! [`Connections`]: the connections and targets of a rule set, checked.

use std::collections::HashMap;
use std::sync::Arc;

use tidemill_rules::{ConnectionDef, Diagnostic, RuleSet};

use crate::{Connection, Connector, Target};

/// The targets of every rule, each over its connection. Nothing is open yet.
pub struct Connections {
    /// By rule, then by target, in the order of the rule set.
    targets: Vec<Vec<Arc<dyn Target>>>,
}

impl Connections {
    /// Checks every connection and every target of `rules`, without I/O.
    ///
    /// # Errors
    /// All problems found, each with its place.
    pub fn check(rules: &RuleSet) -> Result<Self, Vec<Diagnostic>> {
        let kinds = crate::all();
        let mut problems = Vec::new();
        let mut connections = HashMap::new();
        for def in &rules.connections {
            // A connection with a problem stays in the map, so that its targets are not reported as well.
            let connection = connection(&kinds, def).map_err(|found| problems.extend(found)).ok();
            connections.insert(def.name.as_str(), connection);
        }
        let mut targets = Vec::with_capacity(rules.rules.len());
        for rule in &rules.rules {
            let mut of_rule = Vec::with_capacity(rule.targets.len());
            for def in &rule.targets {
                match connections.get(def.connection.as_str()) {
                    Some(Some(connection)) => match connection.target(&def.body) {
                        Ok(target) => of_rule.push(target),
                        Err(found) => problems.extend(found),
                    },
                    Some(None) => {}
                    None => {
                        let names: Vec<_> = rules.connections.iter().map(|def| def.name.as_str()).collect();
                        let message =
                            format!("rule `{}`: there is no connection `{}`", rule.name, def.connection);
                        problems.push(
                            def.at
                                .diagnostic(message)
                                .with_hint(format!("connections: {}", names.join(", "))),
                        );
                    }
                }
            }
            targets.push(of_rule);
        }
        if problems.is_empty() { Ok(Self { targets }) } else { Err(problems) }
    }

    /// The target at position `target` of the rule at position `rule` of the checked rule set.
    ///
    /// # Panics
    /// If the rule set has no such rule or target.
    #[must_use]
    pub fn target(&self, rule: usize, target: usize) -> Arc<dyn Target> {
        Arc::clone(&self.targets[rule][target])
    }
}

fn connection(
    kinds: &[Box<dyn Connector>],
    def: &ConnectionDef,
) -> Result<Arc<dyn Connection>, Vec<Diagnostic>> {
    if let Some(kind) = kinds.iter().find(|kind| kind.kind() == def.kind) {
        return kind.connection(&def.name, &def.body);
    }
    let names: Vec<_> = kinds.iter().map(|kind| kind.kind()).collect();
    let message = format!("connection `{}`: unknown kind `{}`", def.name, def.kind);
    Err(vec![def.at.diagnostic(message).with_hint(format!("kinds: {}", names.join(", ")))])
}

#[cfg(test)]
mod tests {
    use tidemill_rules::yaml::{self, Source};

    use super::*;

    fn checked(text: &str) -> Result<Connections, Vec<Diagnostic>> {
        let source = Source { name: "tidemill.yaml".to_owned(), text: text.to_owned() };
        let rules = tidemill_rules::load(&[yaml::parse(Arc::new(source)).unwrap()]).unwrap();
        Connections::check(&rules)
    }

    #[test]
    fn targets_lie_where_the_rule_set_has_them() {
        let text = r#"
connections:
  archive: { file: { path: events.jsonl } }
  alerts: { http: { url: "http://localhost:1/f" } }
rules:
  - { name: one, from: { mqtt: ["a/#"] }, to: [ { archive: {} }, { alerts: { path: x } } ] }
  - { name: two, from: { mqtt: ["b/#"] }, to: [ { alerts: {} } ] }
"#;
        let connections = checked(text).unwrap_or_else(|problems| panic!("{problems:?}"));
        assert_eq!(connections.target(0, 0).describe(), "file events.jsonl");
        assert_eq!(connections.target(0, 1).describe(), "http POST http://localhost:1/f/x");
        assert_eq!(connections.target(1, 0).describe(), "http POST http://localhost:1/f");
    }

    #[test]
    fn all_problems_are_reported_with_their_places() {
        let text = r#"
connections:
  lake: { kafak: { brokers: "localhost:9092" } }
  alerts: { http: { url: "ftp://localhost" } }
  archive: { file: { path: events.jsonl } }
rules:
  - { name: one, from: { mqtt: ["a/#"] }, to: [ { lake: { anything: 1 } }, { archive: { fsnyc: true } } ] }
"#;
        let problems = checked(text).err().unwrap();
        let shown: Vec<_> = problems.iter().map(|problem| (problem.line, problem.message.as_str())).collect();
        assert_eq!(
            shown,
            [
                (3, "connection `lake`: unknown kind `kafak`"),
                (4, "the URL must begin with http:// or https://"),
                (7, "unknown key `fsnyc`"),
            ]
        );
        assert_eq!(problems[0].hint.as_deref(), Some("kinds: amqp, file, http, kafka"));
    }
}
