//! [`Pattern`]: a topic filter in which a client's names may stand: `devices/{client}/#`.

/// A filter that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is no topic filter.
    #[error("{0}")]
    Filter(&'static str),
    /// A name that is not known.
    #[error("`{{{0}}}` is no name; there are `{{client}}`, `{{user}}` and `{{cert.cn}}`")]
    Name(String),
    /// `{` without `}`.
    #[error("`{{` without its `}}`")]
    Open,
}

/// What may stand in the place of a name.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// `{client}`.
    pub client: &'a str,
    /// `{user}`.
    pub user: Option<&'a str>,
    /// `{cert.cn}`.
    pub common_name: Option<&'a str>,
}

impl<'a> Names<'a> {
    /// The value of a name. One that would be more than a part of one level is as if it were not there.
    fn value(&self, name: &str) -> Option<&'a str> {
        let value = match name {
            "client" => Some(self.client),
            "user" => self.user,
            _ => self.common_name,
        };
        value.filter(|value| !value.is_empty() && !value.contains(['/', '+', '#', '\0']))
    }

    /// A pattern, or a level of one, with the names in it; `None` if one has no value.
    fn put_into(&self, pattern: &str) -> Option<String> {
        let mut filled = String::with_capacity(pattern.len());
        let mut rest = pattern;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}')?;
            filled.push_str(before);
            filled.push_str(self.value(name)?);
            rest = after;
        }
        Some(filled + rest)
    }
}

/// See the module's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Reads a filter.
    ///
    /// # Errors
    /// It is none, or has names that there are not.
    pub fn parse(text: &str) -> Result<Pattern, PatternError> {
        let mut plain = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or(PatternError::Open)?;
            if !["client", "user", "cert.cn"].contains(&name) {
                return Err(PatternError::Name(name.to_owned()));
            }
            plain.push_str(before);
            plain.push('n');
            rest = after;
        }
        plain.push_str(rest);
        tidemill_store::filter::check(&plain).map_err(PatternError::Filter)?;
        Ok(Pattern(text.to_owned()))
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Whether names are to be put in.
    #[must_use]
    pub fn has_names(&self) -> bool {
        self.0.contains('{')
    }

    /// The filter with the names in it; `None` if one is missing, or is more than a part of a level. A topic of the
    /// server's own (`$SYS`) is never reached by a name.
    #[must_use]
    pub fn resolve(&self, names: &Names<'_>) -> Option<String> {
        let filter = names.put_into(&self.0)?;
        (self.0.starts_with('$') || !filter.starts_with('$')).then_some(filter)
    }

    /// A filter that has at least what [`Pattern::resolve`] would have, for what is to be kept from a client: a level with
    /// a name that cannot be put in is `+`.
    #[must_use]
    pub fn resolve_widely(&self, names: &Names<'_>) -> String {
        let level = |level| names.put_into(level).unwrap_or_else(|| "+".to_owned());
        self.0.split('/').map(level).collect::<Vec<_>>().join("/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_with_names_are_checked() {
        for good in ["a/{client}/#", "{user}", "x-{user}-{client}/+", "{cert.cn}/a", "#", "a}"] {
            assert!(Pattern::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a#", "{client}#", "+{user}", "{nobody}", "{client", "{}"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
        let names = Names { client: "c", user: Some("u"), common_name: None };
        let resolve = |text: &str| Pattern::parse(text).unwrap().resolve(&names);
        assert_eq!(resolve("x-{user}-{client}/+").as_deref(), Some("x-u-c/+"));
        assert_eq!(resolve("{cert.cn}/a"), None);
        assert_eq!(resolve("$SYS/{client}").as_deref(), Some("$SYS/c"));
        let widely = |text: &str| Pattern::parse(text).unwrap().resolve_widely(&names);
        assert_eq!(widely("x-{user}-{client}/+"), "x-u-c/+");
        assert_eq!(widely("a/x-{cert.cn}-{user}/{client}/#"), "a/+/c/#");
    }
}
