//! Timestamps by RFC 3339, in UTC.

use jiff::Timestamp;

/// `ms` since the Unix epoch as RFC 3339, with as many decimals as it needs; `None` outside the years 0 to 9999.
pub(crate) fn rfc3339(ms: i64) -> Option<String> {
    let text = Timestamp::from_millisecond(ms).ok()?.to_string();
    // A year before 0 is written with a sign, which RFC 3339 does not know.
    (!text.starts_with('-')).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(rfc3339(0).as_deref(), Some("1970-01-01T00:00:00Z"));
        assert_eq!(rfc3339(1_709_210_096_789).as_deref(), Some("2024-02-29T12:34:56.789Z"));
        assert_eq!(rfc3339(-1).as_deref(), Some("1969-12-31T23:59:59.999Z"));
    }

    #[test]
    fn years_beyond_rfc_3339_are_refused() {
        assert_eq!(rfc3339(i64::MIN), None);
        assert_eq!(rfc3339(i64::MAX), None);
        assert_eq!(rfc3339(-70_000_000_000_000), None);
    }
}
