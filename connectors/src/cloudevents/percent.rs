//! Attribute values in HTTP headers (CloudEvents HTTP Protocol Binding 1.0.2, section 3.1.3.2).

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// What must be encoded: everything outside U+0021 to U+007E, the double quote and the percent sign.
/// Characters beyond ASCII are always encoded, byte by byte of their UTF-8.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// `value` as it stands in a header; borrowed when nothing needs encoding.
pub(crate) fn encode(value: &str) -> Cow<'_, str> {
    utf8_percent_encode(value, ENCODED).into()
}

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_the_specification() {
        assert_eq!(encode("Euro € 😀"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
        assert!(matches!(encode("/vehicles/v1?x=1&y=a'b"), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn encoding_is_printable_and_reversible(value in any::<String>()) {
            let encoded = encode(&value);
            prop_assert!(encoded.bytes().all(|b| (0x21..=0x7e).contains(&b) && b != b'"'));
            prop_assert!(http::HeaderValue::from_str(&encoded).is_ok());
            prop_assert_eq!(percent_decode_str(&encoded).decode_utf8().unwrap(), value.as_str());
        }

        #[test]
        fn what_needs_no_encoding_is_left_alone(value in "[!#$&-~]*") {
            prop_assert_eq!(encode(&value), value.as_str());
        }
    }
}
