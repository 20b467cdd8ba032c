//! Topic filters: levels separated by `/`, `+` for one level, `#` for all that follow.
//!
//! The rules are those of MQTT 5.0 section 4.7; the store uses them as its own.

/// Longest topic or filter in bytes.
const LENGTH_MAX: usize = 65_535;

/// Checks a topic filter.
///
/// # Errors
/// What is wrong with it, as a clause.
pub fn check(filter: &str) -> Result<(), &'static str> {
    if filter.is_empty() {
        return Err("it is empty");
    }
    if filter.len() > LENGTH_MAX {
        return Err("it is longer than 65,535 bytes");
    }
    if filter.contains('\0') {
        return Err("it contains U+0000");
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        if level == "#" {
            if levels.peek().is_some() {
                return Err("`#` is only allowed as the last level");
            }
        } else if level.contains('#') {
            return Err("`#` must be a level of its own");
        } else if level.contains('+') && level != "+" {
            return Err("`+` must be a level of its own");
        }
    }
    Ok(())
}

/// Whether a topic matches a filter. A wildcard at the first level does not match a topic that begins with `$`.
#[must_use]
pub fn matches(filter: &str, topic: &str) -> bool {
    takes(filter, topic, |_| true)
}

/// Whether every topic that matches `narrow` matches `wide`.
#[must_use]
pub(crate) fn covers(wide: &str, narrow: &str) -> bool {
    takes(wide, narrow, |level| level != "#")
}

/// Whether a filter takes a topic, or a filter, whose levels `plus` says `+` may stand for.
fn takes(filter: &str, topic: &str, plus: impl Fn(&str) -> bool) -> bool {
    if topic.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#')) {
        return false;
    }
    let mut topic_levels = topic.split('/');
    for level in filter.split('/') {
        match (level, topic_levels.next()) {
            ("#", _) => return true,
            ("+", Some(of_topic)) if plus(of_topic) => {}
            (level, Some(of_topic)) if level == of_topic => {}
            _ => return false,
        }
    }
    topic_levels.next().is_none()
}

/// Whether some topic matches both of two filters.
#[must_use]
pub fn overlap(one: &str, other: &str) -> bool {
    // Wildcards at the first level match no topic that begins with `$` (MQTT-4.7.2-1).
    let wild = |filter: &str| filter.starts_with(['+', '#']);
    if wild(one) && other.starts_with('$') || wild(other) && one.starts_with('$') {
        return false;
    }
    let (mut ones, mut others) = (one.split('/'), other.split('/'));
    loop {
        match (ones.next(), others.next()) {
            // It matches its parent too: whatever the other one was so far.
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some(one), Some(other)) if one == other || one == "+" || other == "+" => {}
            _ => return false,
        }
    }
}

/// The part of a filter before its first wildcard: every matching topic begins with it, but for the separator before
/// a final `#`, which also matches its parent.
#[must_use]
pub(crate) fn literal_prefix(filter: &str) -> &str {
    let end = filter.find(['+', '#']).unwrap_or(filter.len());
    let prefix = filter.get(..end).unwrap_or_default();
    if filter.get(end..) == Some("#") { prefix.strip_suffix('/').unwrap_or(prefix) } else { prefix }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn matches_as_the_specification_says() {
        for (filter, topic, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
            ("sport/#", "sport", true),
            ("#", "a/b", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
            ("a/b/c", "a/b", false),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }

    proptest! {
        #[test]
        fn filters_overlap_where_a_topic_matches_both(
            one in "([$]?[ab+]/)?[ab+](/#)?|#",
            other in "([$]?[ab+]/)?[ab+](/[ab+])?|#|[$]?[ab]/#",
        ) {
            let mut topics: Vec<String> = vec!["a".into(), "b".into(), "$a".into(), "$b".into()];
            for _ in 0..3 {
                let longer = topics.iter().flat_map(|topic| [format!("{topic}/a"), format!("{topic}/b")]);
                topics.extend(longer.collect::<Vec<_>>());
            }
            prop_assume!(check(&one).is_ok() && check(&other).is_ok());
            let both = topics.iter().find(|topic| matches(&one, topic) && matches(&other, topic));
            prop_assert_eq!(overlap(&one, &other), both.is_some(), "{} {} {:?}", one, other, both);
            prop_assert_eq!(overlap(&one, &other), overlap(&other, &one));
        }
    }

    #[test]
    fn checks() {
        for good in ["#", "+", "a/+/b", "/", "a//b", "$share", "a/#"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["", "a#", "#/a", "a/+b", "a\0"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn covering() {
        for (wide, narrow, expected) in [
            ("#", "a/+/c", true),
            ("a/#", "a", true),
            ("a/#", "a/#", true),
            ("a/#", "a/+/#", true),
            ("a/+", "a/b", true),
            ("a/+", "a/+", true),
            ("a/+", "a/#", false),
            ("a/b", "a/+", false),
            ("a/+/#", "a/#", false),
            ("+/b", "a/b", true),
            ("#", "$SYS/x", false),
            ("a/b", "a/b/c", false),
            ("a/b/c", "a/b", false),
        ] {
            assert_eq!(covers(wide, narrow), expected, "{wide} {narrow}");
        }
    }

    #[test]
    fn prefixes() {
        assert_eq!(literal_prefix("a/b/+/c"), "a/b/");
        assert_eq!(literal_prefix("a/b/#"), "a/b");
        assert_eq!(literal_prefix("#"), "");
        assert_eq!(literal_prefix("a/b"), "a/b");
    }
}
