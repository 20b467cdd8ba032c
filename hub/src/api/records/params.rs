//! What may be asked of `/api/v1/records`.

use std::time::Duration;

use serde::Deserialize;
use tidemill_rules::units;
use tidemill_store::Position;

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// With the oldest there is.
    Earliest,
    /// With the next message.
    Latest,
    /// With the first one stored at or after this, in milliseconds since the Unix epoch.
    Time(i64),
    /// With the record there; with several, one for each shard of the log.
    Positions(Vec<Position>),
}

impl Params {
    pub(super) fn from(&self) -> Result<From, Problem> {
        let Some(text) = &self.from else { return Ok(From::Latest) };
        match text.as_str() {
            "latest" => return Ok(From::Latest),
            "earliest" => return Ok(From::Earliest),
            _ => {}
        }
        if let Some(positions) = text.split(',').map(position).collect() {
            return Ok(From::Positions(positions));
        }
        let time: Result<jiff::Timestamp, _> = text.parse();
        time.map(|time| From::Time(time.as_millisecond())).map_err(|_| {
            Problem::bad_request(format!("from: `{text}` is not a place to begin at")).hint(
                "write earliest, latest, a time such as 2026-01-31T12:00:00Z, or a position such as 0-0000000004d2",
            )
        })
    }

    /// How long to stay once everything was sent.
    pub(super) fn wait(&self) -> Result<Duration, Problem> {
        let wait = self.wait.as_deref().map(units::parse_duration).transpose();
        wait.map(Option::unwrap_or_default).map_err(|error| Problem::bad_request(format!("wait: {error}")))
    }
}

/// A position as it is printed, or its byte offset in the log's first shard as a number.
fn position(text: &str) -> Option<Position> {
    if let Ok(position) = text.parse() {
        return Some(position);
    }
    let offset: u64 = text.parse().ok()?;
    // Larger numbers are no offsets, and the position's own text knows how large one may be.
    format!("0-{offset:012x}").parse().ok()
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
        let position = From::Positions(vec![Position::new(0, 166)]);
        assert_eq!(from("0-0000000000a6"), Some(position.clone()));
        assert_eq!(from("166"), Some(position));
        let both = From::Positions(vec![Position::new(0, 166), Position::new(1, 1)]);
        assert_eq!(from("0-0000000000a6,1-000000000001"), Some(both));
        assert_eq!(from("0-0000000000a6,"), None);
        assert_eq!(from("1970-01-01T00:00:01Z"), Some(From::Time(1000)));
        assert_eq!(from("yesterday"), None);
        assert_eq!(from("2026-01-31"), None);
        assert_eq!(from("-1"), None);
        assert_eq!(from("281474976710655"), Some(From::Positions(vec![Position::new(0, (1 << 48) - 1)])));
        assert_eq!(from("281474976710656"), None, "an offset has 48 bits");
    }
}
