//! Plain scalars by the YAML 1.2 core schema (section 10.3.2): `yes`, `on` and `1_000` are text.

use serde_json::Number;

/// What a plain scalar stands for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Plain {
    Null,
    Bool(bool),
    Number(Number),
    Text,
}

/// A plain scalar that looks like a number but is none that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScalarError {
    #[error("infinite numbers and not-a-number are not supported")]
    NotFinite,
    #[error("the number does not fit into 64 bits")]
    TooLarge,
}

/// Resolves a plain (unquoted) scalar.
pub(super) fn resolve(text: &str) -> Result<Plain, ScalarError> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Plain::Null),
        "true" | "True" | "TRUE" => return Ok(Plain::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Plain::Bool(false)),
        _ => {}
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Err(ScalarError::NotFinite);
    }
    if let Some(digits) = text.strip_prefix("0x").filter(|d| all(d, |b| b.is_ascii_hexdigit())) {
        return u64::from_str_radix(digits, 16).map(number).map_err(|_| ScalarError::TooLarge);
    }
    if let Some(digits) = text.strip_prefix("0o").filter(|d| all(d, |b| (b'0'..=b'7').contains(&b))) {
        return u64::from_str_radix(digits, 8).map(number).map_err(|_| ScalarError::TooLarge);
    }
    if all(unsigned, |b| b.is_ascii_digit()) {
        let text = text.strip_prefix('+').unwrap_or(text);
        return match (text.parse::<u64>(), text.parse::<i64>()) {
            (Ok(value), _) => Ok(number(value)),
            (_, Ok(value)) => Ok(number(value)),
            _ => Err(ScalarError::TooLarge),
        };
    }
    if is_float(unsigned) {
        let value: f64 = text.parse().map_err(|_| ScalarError::TooLarge)?;
        return Number::from_f64(value).map(Plain::Number).ok_or(ScalarError::TooLarge);
    }
    Ok(Plain::Text)
}

fn number(value: impl Into<Number>) -> Plain {
    Plain::Number(value.into())
}

fn all(text: &str, test: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(test)
}

/// `( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn is_float(unsigned: &str) -> bool {
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let digits = |text: &str| all(text, |b| b.is_ascii_digit());
    let mantissa_good = match mantissa.split_once('.') {
        Some(("", fraction)) => digits(fraction),
        Some((whole, fraction)) => digits(whole) && (fraction.is_empty() || digits(fraction)),
        None => digits(mantissa),
    };
    mantissa_good && exponent.is_none_or(|e| digits(e.strip_prefix(['+', '-']).unwrap_or(e)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_schema() {
        let float = |value: f64| Ok(Plain::Number(Number::from_f64(value).expect("finite")));
        for text in ["", "~", "null", "NULL"] {
            assert_eq!(resolve(text), Ok(Plain::Null), "{text}");
        }
        assert_eq!(resolve("True"), Ok(Plain::Bool(true)));
        assert_eq!(resolve("0"), Ok(number(0_u64)));
        assert_eq!(resolve("-12"), Ok(number(-12_i64)));
        assert_eq!(resolve("+12"), Ok(number(12_u64)));
        assert_eq!(resolve("007"), Ok(number(7_u64)));
        assert_eq!(resolve("0x1F"), Ok(number(31_u64)));
        assert_eq!(resolve("0o17"), Ok(number(15_u64)));
        assert_eq!(resolve("18446744073709551615"), Ok(number(u64::MAX)));
        assert_eq!(resolve("1.5e3"), float(1500.0));
        assert_eq!(resolve(".5"), float(0.5));
        assert_eq!(resolve("1."), float(1.0));
        for text in [
            "yes", "on", "1_000", "0x", "1e", "e5", ".", "-", "+", "1.2.3", "0xg", "12:30", "5s", "--1",
            "+-1",
        ] {
            assert_eq!(resolve(text), Ok(Plain::Text), "{text}");
        }
    }

    #[test]
    fn numbers_that_cannot_be_used() {
        assert_eq!(resolve("-.inf"), Err(ScalarError::NotFinite));
        assert_eq!(resolve(".NaN"), Err(ScalarError::NotFinite));
        assert_eq!(resolve("18446744073709551616"), Err(ScalarError::TooLarge));
        assert_eq!(resolve("1e999"), Err(ScalarError::TooLarge));
        assert_eq!(resolve("0x1ffffffffffffffff"), Err(ScalarError::TooLarge));
    }
}
