//! What may be asked of `/api/v1/records`.

use std::time::Duration;

use serde::Deserialize;
use tidemill_rules::units;

use crate::api::problem::Problem;

/// The query, as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct Params {
    pub(super) filter: Option<String>,
    pub(super) queue: Option<String>,
    from: Option<String>,
    pub(super) limit: Option<u64>,
    wait: Option<String>,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// With the oldest there is.
    Earliest,
    /// With the next message.
    Latest,
    /// With the first one stored at or after this, in milliseconds since the Unix epoch.
    Time(i64),
    /// With the entry of this offset.
    Offset(u64),
}

impl Params {
    pub(super) fn from(&self) -> Result<From, Problem> {
        let Some(text) = &self.from else { return Ok(From::Latest) };
        match text.as_str() {
            "latest" => return Ok(From::Latest),
            "earliest" => return Ok(From::Earliest),
            _ => {}
        }
        if let Ok(offset) = text.parse() {
            return Ok(From::Offset(offset));
        }
        let time: Result<jiff::Timestamp, _> = text.parse();
        time.map(|time| From::Time(time.as_millisecond())).map_err(|_| {
            Problem::bad_request(format!("from: `{text}` is not a place to begin at")).hint(
                "write earliest, latest, a time such as 2026-01-31T12:00:00Z, or the number of an offset",
            )
        })
    }

    /// How long to stay once everything was sent.
    pub(super) fn wait(&self) -> Result<Duration, Problem> {
        let wait = self.wait.as_deref().map(units::parse_duration).transpose();
        wait.map(Option::unwrap_or_default).map_err(|error| Problem::bad_request(format!("wait: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str) -> Option<From> {
        let params =
            Params { filter: None, queue: None, from: Some(text.to_owned()), limit: None, wait: None };
        params.from().ok()
    }

    #[test]
    fn places_to_begin() {
        assert_eq!(from("earliest"), Some(From::Earliest));
        assert_eq!(from("latest"), Some(From::Latest));
        assert_eq!(from("42"), Some(From::Offset(42)));
        assert_eq!(from("1970-01-01T00:00:01Z"), Some(From::Time(1000)));
        assert_eq!(from("yesterday"), None);
        assert_eq!(from("-1"), None);
    }
}
