//! What CloudEvents 1.0.2 allows in attributes ("Type System", "Context Attributes").

/// Bytes that one attribute may have. The specification asks intermediaries to forward events of 64 KiB in all.
pub(crate) const ATTRIBUTE_BYTES_MAX: usize = 16 * 1024;
/// Extension attributes that one event may have.
pub(crate) const EXTENSIONS_MAX: usize = 64;
/// Characters of an extension's name: the specification's SHOULD, taken as a MUST.
pub(crate) const EXTENSION_NAME_CHARS_MAX: usize = 20;

/// Names that an extension must not take: the attributes of the specification itself, and `data`.
pub(crate) const RESERVED: [&str; 10] = [
    "id",
    "source",
    "specversion",
    "type",
    "datacontenttype",
    "dataschema",
    "subject",
    "time",
    "data",
    "data_base64",
];

/// Why a value cannot be a CloudEvents attribute. Values are not named: they may come from payloads, and errors go into
/// logs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    /// Attributes must not be empty.
    #[error("must not be empty")]
    Empty,
    /// A control character, a surrogate or a Unicode noncharacter.
    #[error("must not contain the character U+{0:04X}")]
    Character(u32),
    /// Too long to travel in a header.
    #[error("has {0} bytes; at most {ATTRIBUTE_BYTES_MAX} are possible")]
    TooLong(usize),
    /// Not a URI-reference (RFC 3986, section 4.1).
    #[error("must be a URI-reference: {0}")]
    UriReference(&'static str),
    /// Not an absolute URI (RFC 3986, section 4.3).
    #[error("must be an absolute URI: one that begins with a scheme, as in `https:`")]
    Uri,
    /// Not a media type (RFC 2046).
    #[error("must be a media type such as `application/json`")]
    MediaType,
    /// Not an RFC 3339 timestamp.
    #[error("must be a time such as `2024-05-01T12:00:00Z`")]
    Time,
    /// Not the name of an extension.
    #[error(
        "`{0}` cannot be an extension's name: lower-case letters a-z and digits, at most {EXTENSION_NAME_CHARS_MAX}"
    )]
    ExtensionName(String),
    /// A name that the specification has taken.
    #[error("`{0}` is an attribute of CloudEvents itself and cannot be an extension")]
    Reserved(String),
    /// An integer outside 32 bits.
    #[error("must fit into a signed 32-bit integer, and {0} does not")]
    Integer(i64),
}

/// A String: not empty, no control characters (U+0000-1F, U+007F-9F), no noncharacters.
pub(crate) fn check_string(text: &str) -> Result<(), AttributeError> {
    if text.is_empty() {
        return Err(AttributeError::Empty);
    }
    if text.len() > ATTRIBUTE_BYTES_MAX {
        return Err(AttributeError::TooLong(text.len()));
    }
    let refused = |c: char| {
        let code = u32::from(c);
        c.is_control() || (0xFDD0..=0xFDEF).contains(&code) || code & 0xFFFE == 0xFFFE
    };
    match text.chars().find(|c| refused(*c)) {
        Some(c) => Err(AttributeError::Character(u32::from(c))),
        None => Ok(()),
    }
}

/// A URI-reference (RFC 3986, section 4.1), not empty.
pub(crate) fn check_uri_reference(text: &str) -> Result<(), AttributeError> {
    check_string(text)?;
    let wrong = |why| Err(AttributeError::UriReference(why));
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            if !(rest.next().is_some_and(|b| b.is_ascii_hexdigit())
                && rest.next().is_some_and(|b| b.is_ascii_hexdigit()))
            {
                return wrong("`%` must be followed by two hexadecimal digits");
            }
        } else if !is_uri_byte(byte) {
            return wrong("it has a character that must be percent-encoded");
        }
    }
    let (before_fragment, fragment) = match text.split_once('#') {
        Some((before, fragment)) => (before, Some(fragment)),
        None => (text, None),
    };
    if fragment.is_some_and(|fragment| fragment.contains('#')) {
        return wrong("it has more than one `#`");
    }
    let path = before_fragment.split_once('?').map_or(before_fragment, |(path, _)| path);
    let after_scheme = match path.split_once(':') {
        Some((scheme, after)) if !scheme.contains('/') => {
            if !is_scheme(scheme) {
                return wrong("the part before the first `:` is not a scheme; begin with `/` or `./`");
            }
            after
        }
        _ => path,
    };
    // Square brackets belong to IP literals: only an authority has them.
    let authority_end = match after_scheme.strip_prefix("//") {
        Some(rest) => 2 + rest.find('/').unwrap_or(rest.len()),
        None => 0,
    };
    let beyond = after_scheme.get(authority_end..).unwrap_or_default();
    let query_and_fragment = text.get(path.len()..).unwrap_or_default();
    if beyond.contains(['[', ']']) || query_and_fragment.contains(['[', ']']) {
        return wrong("`[` and `]` must be percent-encoded");
    }
    Ok(())
}

/// An absolute URI: a URI-reference with a scheme.
pub(crate) fn check_uri(text: &str) -> Result<(), AttributeError> {
    check_uri_reference(text)?;
    match text.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) && !rest.is_empty() => Ok(()),
        _ => Err(AttributeError::Uri),
    }
}

/// A media type: `type/subtype`, with parameters behind a `;`.
pub(crate) fn check_media_type(text: &str) -> Result<(), AttributeError> {
    check_string(text)?;
    let token = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    let (essence, parameters) = match text.split_once(';') {
        Some((essence, parameters)) => (essence, Some(parameters)),
        None => (text, None),
    };
    let good = essence.trim_end().split_once('/').is_some_and(|(ty, subtype)| token(ty) && token(subtype))
        && parameters.is_none_or(|all| {
            all.is_ascii()
                && all.split_once('=').is_some_and(|(name, value)| token(name.trim()) && !value.is_empty())
        });
    if good { Ok(()) } else { Err(AttributeError::MediaType) }
}

/// Whether a media type says that the data is JSON: `application/json`, `text/json`, or any `+json`.
pub(crate) fn is_json_media_type(text: &str) -> bool {
    let essence = text.split(';').next().unwrap_or_default().trim();
    let subtype = essence.split_once('/').map_or("", |(_, subtype)| subtype);
    let tail = subtype.len().saturating_sub("+json".len());
    subtype.eq_ignore_ascii_case("json")
        || subtype.get(tail..).is_some_and(|end| end.eq_ignore_ascii_case("+json"))
}

/// The name of an extension attribute.
pub(crate) fn check_extension_name(name: &str) -> Result<(), AttributeError> {
    if RESERVED.contains(&name) {
        return Err(AttributeError::Reserved(name.to_owned()));
    }
    let good = (1..=EXTENSION_NAME_CHARS_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if good { Ok(()) } else { Err(AttributeError::ExtensionName(name.to_owned())) }
}

/// An RFC 3339 timestamp, as milliseconds since the Unix epoch.
pub(crate) fn parse_time(text: &str) -> Result<i64, AttributeError> {
    let time: jiff::Timestamp = text.parse().map_err(|_| AttributeError::Time)?;
    Ok(time.as_millisecond())
}

/// Milliseconds since the Unix epoch as RFC 3339 in UTC, with exactly three digits of milliseconds.
pub(crate) fn write_time(time_ms: i64, out: &mut String) {
    use std::fmt::Write as _;
    // Outside the years -9999 to 9999 there is no RFC 3339; the nearest time that can be written stands for it.
    let time = jiff::Timestamp::from_millisecond(time_ms).unwrap_or(if time_ms < 0 {
        jiff::Timestamp::MIN
    } else {
        jiff::Timestamp::MAX
    });
    // Writing to a String cannot fail.
    let _ = write!(out, "{time:.3}");
}

/// Appends `text` with what a URI cannot have percent-encoded. Reserved characters and `%` stay as they are, so
/// that whole URIs can be put in.
pub(crate) fn push_uri_encoded(text: &str, out: &mut String) {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    for c in text.chars() {
        if c == '%' || (c.is_ascii() && is_uri_byte(c as u8)) {
            out.push(c);
        } else {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                out.push('%');
                out.extend(
                    [HEX.get(usize::from(byte >> 4)), HEX.get(usize::from(byte & 15))].into_iter().flatten(),
                );
            }
        }
    }
}

fn is_uri_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=".contains(&byte)
}

fn is_scheme(text: &str) -> bool {
    text.as_bytes().first().is_some_and(u8::is_ascii_alphabetic)
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings() {
        assert_eq!(check_string("grüße \u{1F600}"), Ok(()));
        assert_eq!(check_string(""), Err(AttributeError::Empty));
        for code in [0x00, 0x1F, 0x7F, 0x85, 0x9F, 0xFDD0, 0xFFFE, 0x1FFFF] {
            let text = format!("a{}", char::from_u32(code).expect("a scalar value"));
            assert_eq!(check_string(&text), Err(AttributeError::Character(code)));
        }
        let long = "x".repeat(ATTRIBUTE_BYTES_MAX + 1);
        assert_eq!(check_string(&long), Err(AttributeError::TooLong(long.len())));
    }

    #[test]
    fn uri_references() {
        for good in [
            "/tidemill",
            "/vehicles/7",
            "a/b:c",
            "https://example.com/x?y=z#f",
            "urn:uuid:6e8bc430",
            "//[::1]:80/x",
            "mailto:a@b.c",
            "./1:2",
            "?q",
            "#f",
            "1-555-123-4567",
            "/a%20b",
        ] {
            assert_eq!(check_uri_reference(good), Ok(()), "{good}");
        }
        for bad in ["", "a b", "/a%2", "/a%zz", "x#y#z", "1:2", "/a[1]", "/ü", "/a\\b", "/x?[1]", "\u{0}"] {
            assert!(check_uri_reference(bad).is_err(), "{bad}");
        }
        assert_eq!(check_uri("https://example.com/schema"), Ok(()));
        assert!(check_uri("/relative").is_err());
        assert!(check_uri("a/b:c").is_err());
    }

    #[test]
    fn media_types() {
        for good in ["application/json", "text/plain; charset=utf-8", "application/vnd.x+json", "image/png"] {
            assert_eq!(check_media_type(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "json",
            "application/",
            "/json",
            "a b/c",
            "text/plain;",
            "text/plain; charset",
            "temperature",
        ] {
            assert!(check_media_type(bad).is_err(), "{bad}");
        }
        for json in ["application/json", "Application/JSON; charset=utf-8", "application/cloudevents+json"] {
            assert!(is_json_media_type(json), "{json}");
        }
        assert!(!is_json_media_type("application/jsonl"));
        assert!(!is_json_media_type("json"));
    }

    #[test]
    fn extension_names() {
        for good in ["a", "partitionkey", "0", "abcdefghij0123456789"] {
            assert_eq!(check_extension_name(good), Ok(()), "{good}");
        }
        for bad in ["", "Partition", "a-b", "a_b", "ü", "abcdefghij01234567890", "data", "id", "specversion"]
        {
            assert!(check_extension_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times() {
        let mut out = String::new();
        write_time(1_714_564_800_000, &mut out);
        assert_eq!(out, "2024-05-01T12:00:00.000Z");
        assert_eq!(parse_time(&out), Ok(1_714_564_800_000));
        assert_eq!(parse_time("2024-05-01T14:00:00.5+02:00"), Ok(1_714_564_800_500));
        assert!(parse_time("yesterday").is_err());
        for extreme in [i64::MIN, i64::MAX] {
            out.clear();
            write_time(extreme, &mut out);
            assert!(parse_time(&out).is_ok(), "{out}");
        }
    }

    #[test]
    fn what_a_uri_cannot_have_is_encoded() {
        let mut out = String::from("/vehicles/");
        push_uri_encoded("ä b%20/\"", &mut out);
        assert_eq!(out, "/vehicles/%C3%A4%20b%20/%22");
        assert_eq!(check_uri_reference(&out), Ok(()));
    }
}
