//! Topic names, topic filters and shared subscriptions (4.7, 4.8).

use super::{DecodeError, ReasonCode};

/// Refuses what cannot be a topic name: empty, or with a wildcard in it (MQTT-3.3.2-2, MQTT-4.7.3-1).
/// That it is UTF-8 without U+0000 was checked when it was read.
pub fn check_name(name: &str) -> Result<(), DecodeError> {
    let refuse = |what, section| Err(DecodeError { reason: ReasonCode::TOPIC_NAME_INVALID, what, section });
    if name.is_empty() {
        return refuse("a topic name is empty", "MQTT-4.7.3-1");
    }
    if name.bytes().any(|byte| byte == b'+' || byte == b'#') {
        return refuse("a topic name has a wildcard in it", "MQTT-3.3.2-2");
    }
    Ok(())
}

/// How many levels a topic name or filter has.
#[must_use]
pub fn levels(topic: &str) -> usize {
    1 + topic.bytes().filter(|byte| *byte == b'/').count()
}

/// Whether this is a topic filter: `#` alone in the last level, `+` alone in its level (MQTT-4.7.1-1, -2).
#[must_use]
pub fn is_filter(filter: &str) -> bool {
    // The store's own word: what is granted here is what it makes a queue of.
    tidemill_store::filter::check(filter).is_ok()
}

/// A filter as a client wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requested<'a> {
    /// The group of `$share/group/filter`.
    pub group: Option<&'a str>,
    /// The topic filter itself.
    pub filter: &'a str,
}

impl<'a> Requested<'a> {
    /// Takes `$share/group/filter` apart; `None` if it or the filter cannot be (4.8.2).
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Requested<'a>> {
        let requested = match text.strip_prefix("$share/") {
            None if text == "$share" => return None,
            None => Requested { group: None, filter: text },
            Some(rest) => {
                let (group, filter) = rest.split_once('/')?;
                if group.is_empty() || group.bytes().any(|byte| byte == b'+' || byte == b'#') {
                    return None;
                }
                Requested { group: Some(group), filter }
            }
        };
        is_filter(requested.filter).then_some(requested)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        for good in ["a", "/", "a/b", "+", "#", "a/+/b", "a/#", "+/+", "/+", "$SYS/#", "a//b"] {
            assert!(is_filter(good), "{good}");
        }
        for bad in ["", "a#", "a/b#", "#/a", "a+/b", "a/+b", "a/##", "++"] {
            assert!(!is_filter(bad), "{bad}");
        }
    }

    #[test]
    fn shares() {
        let share = |text| Requested::parse(text).map(|r| (r.group, r.filter));
        assert_eq!(share("a/b"), Some((None, "a/b")));
        assert_eq!(share("$share/g/a/+"), Some((Some("g"), "a/+")));
        assert_eq!(share("$share/g//a"), Some((Some("g"), "/a")));
        for bad in ["$share", "$share/", "$share/g", "$share/g/", "$share//a", "$share/+/a", "$share/g#/a"] {
            assert_eq!(share(bad), None, "{bad}");
        }
    }

    #[test]
    fn names() {
        assert!(check_name("a/b").is_ok());
        assert_eq!(check_name("a/+").unwrap_err().reason, ReasonCode::TOPIC_NAME_INVALID);
        assert!(check_name("a#").is_err() && check_name("").is_err());
        assert_eq!((levels("a"), levels("a/b"), levels("/")), (1, 2, 2));
    }
}
