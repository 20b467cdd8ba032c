//! Topic filters (MQTT 5.0 section 4.7): what one matches, and what one covers.

/// Whether `filter` matches `topic`.
pub(in crate::api) fn matches(filter: &str, topic: &str) -> bool {
    if hidden(filter, topic) {
        return false;
    }
    let mut topic = topic.split('/');
    for level in filter.split('/') {
        match (level, topic.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (wanted, Some(found)) if wanted == found => {}
            _ => return false,
        }
    }
    topic.next().is_none()
}

/// Whether every topic that `narrow` matches is matched by `wide`.
pub(super) fn covers(wide: &str, narrow: &str) -> bool {
    if hidden(wide, narrow) {
        return false;
    }
    let mut narrow = narrow.split('/');
    for level in wide.split('/') {
        match (level, narrow.next()) {
            ("#", _) => return true,
            (_, Some("#")) => return false,
            ("+", Some(_)) => {}
            (wanted, Some(found)) if wanted == found => {}
            _ => return false,
        }
    }
    narrow.next().is_none()
}

/// A wildcard in the first level does not match topics that begin with `$` (section 4.7.2).
fn hidden(filter: &str, topic: &str) -> bool {
    topic.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn matches_as_the_specification_says() {
        for (filter, topic) in [
            ("a/#", "a"),
            ("a/#", "a/b/c"),
            ("+/+", "/finance"),
            ("/+", "/finance"),
            ("#", "a"),
            ("$SYS/#", "$SYS/x"),
        ] {
            assert!(matches(filter, topic), "{filter} {topic}");
        }
        for (filter, topic) in
            [("+", "/finance"), ("a/+", "a"), ("#", "$SYS/x"), ("+/x", "$SYS/x"), ("a", "a/b")]
        {
            assert!(!matches(filter, topic), "{filter} {topic}");
        }
    }

    #[test]
    fn covers_what_is_narrower() {
        for (wide, narrow) in [("#", "a/#"), ("a/+", "a/b"), ("a/#", "a"), ("+/b", "+/b"), ("a/#", "a/+/#")] {
            assert!(covers(wide, narrow), "{wide} {narrow}");
        }
        for (wide, narrow) in [("a/b", "a/+"), ("+", "#"), ("+/+", "a/#"), ("#", "$SYS/x"), ("a/+", "a")] {
            assert!(!covers(wide, narrow), "{wide} {narrow}");
        }
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop_oneof!["[ab]", Just("+".to_owned())];
        (prop::collection::vec(level, 1..4), any::<bool>()).prop_map(|(mut levels, open)| {
            if open {
                levels.push("#".to_owned());
            }
            levels.join("/")
        })
    }

    proptest! {
        #[test]
        fn what_is_covered_is_matched(wide in filter(), narrow in filter(), topic in "[ab](/[ab]){0,4}") {
            if covers(&wide, &narrow) && matches(&narrow, &topic) {
                prop_assert!(matches(&wide, &topic));
            }
        }
    }
}
