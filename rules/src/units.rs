//! Durations and sizes as they are written in YAML: `5s`, `100ms`, `64KB`, `1MiB`.
//!
//! With serde: `#[serde(deserialize_with = "tidemill_rules::units::duration")]`, and so on.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

/// Text that is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a duration; write a number with ms, s, m, h or d, as in `100ms`, `5s`, `1h`")]
pub struct DurationError(String);

/// Text that is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a size; write a number with B, KB, MB, GB, TB, KiB, MiB, GiB or TiB, as in `10B` or `64KiB`"
)]
pub struct SizeError(String);

/// Units of time in milliseconds.
const TIMES: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Units of size in bytes.
const SIZES: [(&str, u64); 9] = [
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Parses `100ms`, `5s`, `90m`, `1h`, `7d`.
///
/// # Errors
/// Anything that is not a whole number and one of these units, or does not fit into 64 bits of milliseconds.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    scaled(text, &TIMES).map(Duration::from_millis).ok_or_else(|| DurationError(text.to_owned()))
}

/// Parses `64KB` (64,000 bytes), `1MiB` (1,048,576 bytes), `512B`.
///
/// # Errors
/// Anything that is not a whole number and one of these units, or does not fit into 64 bits of bytes.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    scaled(text, &SIZES).ok_or_else(|| SizeError(text.to_owned()))
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at(digits_end);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    digits.parse::<u64>().ok()?.checked_mul(*factor)
}

/// Deserializes a duration.
///
/// # Errors
/// As [`parse_duration`].
pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse_duration(&Written::deserialize(deserializer)?.0).map_err(de::Error::custom)
}

/// Deserializes a duration that may be left out (together with `#[serde(default)]`).
///
/// # Errors
/// As [`parse_duration`].
pub fn duration_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let written = Option::<Written>::deserialize(deserializer)?;
    written.map(|written| parse_duration(&written.0)).transpose().map_err(de::Error::custom)
}

/// Deserializes a size in bytes.
///
/// # Errors
/// As [`parse_size`].
pub fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    parse_size(&Written::deserialize(deserializer)?.0).map_err(de::Error::custom)
}

/// Deserializes a size in bytes that may be left out (together with `#[serde(default)]`).
///
/// # Errors
/// As [`parse_size`].
pub fn size_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let written = Option::<Written>::deserialize(deserializer)?;
    written.map(|written| parse_size(&written.0)).transpose().map_err(de::Error::custom)
}

/// Text, or a bare number: kept as text so that the error says which unit is missing.
struct Written(String);

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Written, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Written;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number with a unit, as in `5s` or `64KB`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Written, E> {
                Ok(Written(text.to_owned()))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Written, E> {
                Ok(Written(number.to_string()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(parse_duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_duration("90m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(parse_duration("1h"), Ok(Duration::from_secs(3_600)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(604_800)));
        for bad in [
            "",
            "5",
            "s",
            "5 s",
            "-5s",
            "1.5s",
            "5S",
            "5sec",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert_eq!(parse_duration(bad), Err(DurationError(bad.to_owned())), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("64KB"), Ok(64_000));
        assert_eq!(parse_size("1MiB"), Ok(1_048_576));
        assert_eq!(parse_size("0B"), Ok(0));
        for bad in ["", "5", "KB", "5kb", "99999999999TiB"] {
            assert_eq!(parse_size(bad), Err(SizeError(bad.to_owned())), "{bad}");
        }
        let told = parse_size("10").unwrap_err().to_string();
        assert!(told.ends_with("as in `10B` or `64KiB`"), "{told}");
    }
}
