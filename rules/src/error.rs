//! [`MapError`]: why a record could not be mapped to an event by a rule.

/// Why a record could not be mapped by a rule. Names the rule, the field of the mapping, and what is missing or wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", prefix(.rule.as_deref(), .field))]
pub struct MapError {
    /// The rule, once it is known ([`MapError::in_rule`]).
    pub rule: Option<String>,
    /// The field of the mapping, outermost first, as in `data.vehicle`; empty until it is known.
    pub field: String,
    /// What is missing or wrong.
    pub problem: Problem,
}

/// What is missing or wrong with a record for a mapping.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A template or path names something that this record does not have.
    #[error("`{0}` is missing in this message")]
    Missing(String),
    /// Text was wanted and the value is null.
    #[error("`{0}` is null in this message")]
    Null(String),
    /// A template or path looks into the payload, and the payload is no JSON.
    #[error("`{path}` needs a JSON payload, and this one is not: {reason}")]
    NotJson {
        /// The template or path.
        path: String,
        /// What the JSON parser says.
        reason: String,
    },
    /// The payload is wanted as text, and it is not UTF-8.
    #[error("`payload` is wanted as text, and this payload is not UTF-8")]
    NotText,
    /// The result is not what CloudEvents allows for the attribute.
    #[error("{0}")]
    Attribute(#[from] crate::attributes::AttributeError),
    /// The result is longer than anything this field could be used for.
    #[error("the result is longer than {0} bytes")]
    TooLong(usize),
}

impl MapError {
    /// An error that does not know yet where it arose.
    #[must_use]
    pub fn new(problem: Problem) -> MapError {
        MapError { rule: None, field: String::new(), problem }
    }

    /// The same, inside a field. Called from the inside out: `vehicle`, then `data`, gives `data.vehicle`.
    #[must_use]
    pub fn in_field(mut self, name: &str) -> MapError {
        self.field = match (self.field.is_empty(), self.field.starts_with('[')) {
            (true, _) => name.to_owned(),
            (false, true) => format!("{name}{}", self.field),
            (false, false) => format!("{name}.{}", self.field),
        };
        self
    }

    /// The same, in a rule.
    #[must_use]
    pub fn in_rule(mut self, name: &str) -> MapError {
        self.rule = Some(name.to_owned());
        self
    }
}

impl From<Problem> for MapError {
    fn from(problem: Problem) -> MapError {
        MapError::new(problem)
    }
}

fn prefix(rule: Option<&str>, field: &str) -> String {
    match (rule, field) {
        (Some(rule), "") => format!("rule `{rule}`: "),
        (Some(rule), field) => format!("rule `{rule}`: {field}: "),
        (None, "") => String::new(),
        (None, field) => format!("{field}: "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_rule_field_and_what_is_missing() {
        let error = MapError::new(Problem::Missing("data.engine.temp_c".into()));
        assert_eq!(error.to_string(), "`data.engine.temp_c` is missing in this message");
        let error = error.in_field("[1]").in_field("list").in_field("data").in_rule("overheat");
        assert_eq!(
            error.to_string(),
            "rule `overheat`: data.list[1]: `data.engine.temp_c` is missing in this message"
        );
    }
}
