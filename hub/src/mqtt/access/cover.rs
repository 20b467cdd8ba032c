//! Topic filters beside each other (4.7): does one match all that another matches, do they meet, and where?
//!
//! Filters are level by level independent, so that all answers are exact. `#` stands for its parent too: where there is none,
//! it is the same as `+/#`. A wildcard in the outermost level matches no topic that begins with `$` ([MQTT-4.7.2-1]).

/// Levels of a filter.
#[derive(Clone)]
struct Levels<'a>(Option<&'a str>);

impl<'a> Levels<'a> {
    /// Where the parent of `#` would be no topic, it is written as `+/#`.
    fn of(filter: &'a str) -> Self {
        Levels(Some(match filter {
            "#" => "+/#",
            "/#" => "/+/#",
            other => other,
        }))
    }

    /// Whether what is left is `#`, which matches everything from here on.
    fn is_rest(&self) -> bool {
        self.0 == Some("#")
    }
}

impl<'a> Iterator for Levels<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.0.take()?;
        match rest.split_once('/') {
            Some((level, after)) => {
                self.0 = Some(after);
                Some(level)
            }
            None => Some(rest),
        }
    }
}

/// Whether a wildcard of the one and a text of the other meet in the outermost level, where they must not.
fn is_hidden(filter: &str, other: &str) -> bool {
    filter.starts_with(['+', '#']) && other.starts_with('$')
}

/// Whether every topic that `inner` matches is matched by `outer`. A topic name is matched by what covers it.
#[must_use]
pub fn covers(outer: &str, inner: &str) -> bool {
    if is_hidden(outer, inner) {
        return false;
    }
    let (mut outer, mut inner) = (Levels::of(outer), Levels::of(inner));
    loop {
        if outer.is_rest() {
            return true;
        }
        if inner.is_rest() {
            return false;
        }
        match (outer.next(), inner.next()) {
            (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(own), Some(other)) if own == other => {}
            _ => return false,
        }
    }
}

/// The filter of the topics that both match; `None` if there are none.
#[must_use]
pub fn meet(one: &str, other: &str) -> Option<String> {
    if is_hidden(one, other) || is_hidden(other, one) {
        return None;
    }
    let (mut one, mut other) = (Levels::of(one), Levels::of(other));
    let mut levels: Vec<&str> = Vec::new();
    loop {
        if one.is_rest() {
            levels.extend(other);
            break;
        }
        if other.is_rest() {
            levels.extend(one);
            break;
        }
        match (one.next(), other.next()) {
            (None, None) => break,
            (Some("+"), Some(level)) | (Some(level), Some("+")) => levels.push(level),
            (Some(level), Some(same)) if level == same => levels.push(level),
            _ => return None,
        }
    }
    Some(levels.join("/"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wildcards_are_what_they_match() {
        for (outer, inner) in [
            ("#", "a/b"),
            ("#", "+"),
            ("#", "+/#"),
            ("+/#", "#"),
            ("a/#", "a"),
            ("a/#", "a/#"),
            ("a/#", "a/+/c"),
            ("a/+/#", "a/+/+"),
            ("+/b", "a/b"),
            ("$SYS/#", "$SYS/a/#"),
            ("/+", "/"),
            ("/+/#", "/#"),
        ] {
            assert!(covers(outer, inner), "{outer} covers {inner}");
        }
        for (outer, inner) in [
            ("a/b", "#"),
            ("a/b", "a/+"),
            ("+", "#"),
            ("a/+/#", "a/#"),
            ("#", "$SYS/a"),
            ("+/a", "$SYS/a"),
            ("a/b", "a/b/c"),
            ("a", "a/"),
            ("$SYS/#", "#"),
        ] {
            assert!(!covers(outer, inner), "{outer} does not cover {inner}");
        }
        assert_eq!(meet("a/+", "+/b").as_deref(), Some("a/b"));
        assert_eq!(meet("a/#", "+/b/#").as_deref(), Some("a/b/#"));
        assert_eq!(meet("a/#", "+").as_deref(), Some("a"));
        assert_eq!(meet("#", "#").as_deref(), Some("+/#"));
        assert_eq!((meet("a/b", "a"), meet("#", "$SYS/x"), meet("+", "/#")), (None, None, None));
    }

    /// Filters of few texts, so that they meet often.
    fn filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![Just("a"), Just("b"), Just(""), Just("+")];
        let first = prop_oneof![Just("a"), Just("b"), Just(""), Just("+"), Just("$s")];
        let text =
            (first, prop::collection::vec(level, 0..3), any::<bool>()).prop_map(|(first, rest, all)| {
                let mut levels = vec![first];
                levels.extend(rest);
                if all {
                    levels.push("#");
                }
                levels.join("/")
            });
        prop_oneof![9 => text, 1 => Just("#".to_owned())]
            .prop_filter("a filter has a character", |text| !text.is_empty())
    }

    /// All topics of up to five levels from texts that the filters have, and one that they have not.
    fn topics() -> Vec<String> {
        let mut all: Vec<String> = ["a", "b", "c", "", "$s"].map(str::to_owned).to_vec();
        let mut last = all.clone();
        for _ in 1..5 {
            last = last
                .iter()
                .flat_map(|topic| ["a", "b", "c", ""].map(|level| format!("{topic}/{level}")))
                .collect();
            all.extend(last.iter().cloned());
        }
        all.retain(|topic| !topic.is_empty());
        all
    }

    /// The specification's own words, by themselves.
    fn slow_match(filter: &str, topic: &str) -> bool {
        fn levels(filter: &[&str], topic: &[&str]) -> bool {
            match (filter, topic) {
                (["#"], _) | ([], []) => true,
                (["+", filter @ ..], [_, topic @ ..]) => levels(filter, topic),
                ([own, filter @ ..], [level, topic @ ..]) => own == level && levels(filter, topic),
                _ => false,
            }
        }
        let wild = filter.starts_with(['+', '#']) && topic.starts_with('$');
        let (filter, topic): (Vec<_>, Vec<_>) = (filter.split('/').collect(), topic.split('/').collect());
        !wild && levels(&filter, &topic)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn they_agree_with_the_topics_they_match(one in filter(), other in filter()) {
            let (mut covered, mut common) = (true, false);
            let both = meet(&one, &other);
            for topic in topics() {
                let (by_one, by_other) = (slow_match(&one, &topic), slow_match(&other, &topic));
                prop_assert_eq!(covers(&one, &topic), by_one, "{} and {}", one, topic);
                covered &= by_one || !by_other;
                common |= by_one && by_other;
                let met = both.as_deref().is_some_and(|both| slow_match(both, &topic));
                prop_assert_eq!(met, by_one && by_other, "{} of {} and {}", topic, one, other);
            }
            prop_assert_eq!(covers(&one, &other), covered, "{} covers {}", one, other);
            prop_assert_eq!(both.is_some(), common, "{} meets {}", one, other);
        }
    }
}
