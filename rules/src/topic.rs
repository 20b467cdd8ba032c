//! MQTT topic filters (MQTT 5, section 4.7): what is one; levels of topics.

/// Bytes that a filter may have: the length of an MQTT string (section 1.5.4).
const FILTER_BYTES_MAX: usize = 65_535;
/// Levels that a filter may have. MQTT has no such limit; the matcher's tree does.
const LEVELS_MAX: usize = 256;

/// Why a text is no topic filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FilterError {
    #[error("a topic filter must not be empty")]
    Empty,
    #[error("the topic filter has {0} bytes; at most {FILTER_BYTES_MAX} are possible")]
    TooLong(usize),
    #[error("the topic filter has more than {LEVELS_MAX} levels")]
    TooDeep,
    #[error("a topic filter must not contain the character U+0000")]
    Nul,
    #[error("`#` must be the last level, and the whole of it")]
    Hash,
    #[error("`+` must be a whole level")]
    Plus,
    #[error("shared subscriptions (`$share/…`) are not for rules")]
    Shared,
}

impl FilterError {
    /// What to do about it.
    pub(crate) fn hint(self) -> Option<&'static str> {
        match self {
            FilterError::Hash => Some("as in `vehicles/#`"),
            FilterError::Plus => Some("as in `vehicles/+/telemetry`"),
            FilterError::Shared => {
                Some("write the filter alone: a rule reads each message once, however many hubs there are")
            }
            FilterError::Empty => Some("`#` matches every topic"),
            FilterError::TooLong(_) | FilterError::TooDeep | FilterError::Nul => None,
        }
    }
}

/// Checks a topic filter: [MQTT-4.7.0-1], [MQTT-4.7.1-1], [MQTT-4.7.1-2], [MQTT-4.7.3-1] to [MQTT-4.7.3-3].
pub(crate) fn check_filter(filter: &str) -> Result<(), FilterError> {
    if filter.is_empty() {
        return Err(FilterError::Empty);
    }
    if filter.len() > FILTER_BYTES_MAX {
        return Err(FilterError::TooLong(filter.len()));
    }
    if filter.contains('\0') {
        return Err(FilterError::Nul);
    }
    if filter == "$share" || filter.starts_with("$share/") {
        return Err(FilterError::Shared);
    }
    let mut levels = filter.split('/').enumerate().peekable();
    while let Some((at, level)) = levels.next() {
        if at >= LEVELS_MAX {
            return Err(FilterError::TooDeep);
        }
        if level.contains('#') && (level != "#" || levels.peek().is_some()) {
            return Err(FilterError::Hash);
        }
        if level.contains('+') && level != "+" {
            return Err(FilterError::Plus);
        }
    }
    Ok(())
}

/// One level of a topic, from 0, or from -1 at the end.
pub(crate) fn level(topic: &str, index: i32) -> Option<&str> {
    let at = usize::try_from(index.unsigned_abs()).ok()?;
    if index < 0 { topic.rsplit('/').nth(at - 1) } else { topic.split('/').nth(at) }
}

/// Whether a filter matches a topic, the plain way: what the matcher's tree is tested against.
#[cfg(test)]
pub(crate) fn filter_matches(filter: &str, topic: &str) -> bool {
    fn levels(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            (["#"], _) => true,
            ([], []) => true,
            (["+", filter @ ..], [_, topic @ ..]) => levels(filter, topic),
            ([name, filter @ ..], [level, topic @ ..]) => name == level && levels(filter, topic),
            _ => false,
        }
    }
    // [MQTT-4.7.2-1]
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let filter: Vec<&str> = filter.split('/').collect();
    let topic: Vec<&str> = topic.split('/').collect();
    levels(&filter, &topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_checked() {
        for good in ["#", "+", "a", "/", "a/", "/a", "a/+/b", "a/#", "+/+/#", "$SYS/#", "a b/ü", "$shared/x"]
        {
            assert_eq!(check_filter(good), Ok(()), "{good}");
        }
        for (bad, error) in [
            ("", FilterError::Empty),
            ("a\0b", FilterError::Nul),
            ("a/#/b", FilterError::Hash),
            ("a#", FilterError::Hash),
            ("##", FilterError::Hash),
            ("a+/b", FilterError::Plus),
            ("++", FilterError::Plus),
            ("$share/g/a", FilterError::Shared),
        ] {
            assert_eq!(check_filter(bad), Err(error), "{bad}");
        }
        assert_eq!(check_filter(&"a".repeat(65_536)), Err(FilterError::TooLong(65_536)));
        assert_eq!(check_filter(&"a/".repeat(256)), Err(FilterError::TooDeep));
    }

    #[test]
    fn levels_count_from_both_ends() {
        assert_eq!(level("a/b/c", 0), Some("a"));
        assert_eq!(level("a/b/c", -1), Some("c"));
        assert_eq!(level("a/b/c", -3), Some("a"));
        assert_eq!(level("/", 1), Some(""));
        for missing in [3, -4, i32::MAX, i32::MIN] {
            assert_eq!(level("a/b/c", missing), None);
        }
    }

    #[test]
    fn matching_by_the_specification() {
        for (filter, topic) in [
            ("sport/tennis/player1/#", "sport/tennis/player1"),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon"),
            ("sport/+", "sport/"),
            ("+/+", "/finance"),
            ("/+", "/finance"),
            ("$SYS/#", "$SYS/monitor"),
            ("#", "a/b"),
        ] {
            assert!(filter_matches(filter, topic), "{filter} {topic}");
        }
        for (filter, topic) in [
            ("sport/+", "sport"),
            ("+", "/finance"),
            ("#", "$SYS/x"),
            ("+/monitor", "$SYS/monitor"),
            ("a", "a/b"),
        ] {
            assert!(!filter_matches(filter, topic), "{filter} {topic}");
        }
    }
}
