//! What follows from an answer.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use jiff::fmt::rfc2822;

use super::config::Mode;
use crate::text::shown;
use crate::{Follow, SendError};

/// Longest wait that an answer may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// What follows from an answer that is not 2xx. See the table in `SPECIFICATION.md`.
pub(super) fn follow(status: StatusCode, mode: Mode, address_varies: bool) -> Follow {
    match status.as_u16() {
        408 | 409 | 421 | 423 | 425 | 429 | 500..=599 => Follow::Retry,
        // Credentials: the same for all events.
        401 | 403 | 407 => Follow::Stop,
        // Nothing there, or nothing that takes this method. With one address for all events that is a matter for a
        // person; an address made from the event is the event's.
        404 | 405 | 410 if !address_varies => Follow::Stop,
        // The format of the document is the target's, the media type in binary mode the event's.
        415 if mode != Mode::Binary => Follow::Stop,
        400..=499 => Follow::GiveUp,
        // 1xx and 3xx: redirects are not followed.
        _ => Follow::Stop,
    }
}

/// The error for an answer that is not 2xx.
pub(super) fn error(
    place: &str,
    status: StatusCode,
    follow: Follow,
    headers: &HeaderMap,
    body: &str,
) -> SendError {
    let mut message = format!("{place}: {status}");
    if status.is_redirection() {
        let location =
            headers.get(header::LOCATION).and_then(|value| value.to_str().ok()).unwrap_or("nowhere");
        // The query may hold what is nobody's business.
        let location = location.split(['?', '#']).next().unwrap_or_default();
        message.push_str(&format!(" to {}; redirects are not followed, set `url`", shown(location)));
    }
    let body = shown(body);
    if !body.is_empty() {
        message.push_str(&format!(": {body}"));
    }
    match follow {
        Follow::Retry => SendError::retry(message).after(retry_after(headers, Timestamp::now())),
        Follow::GiveUp => SendError::give_up(message),
        Follow::Stop => SendError::stop(message),
    }
}

/// `Retry-After` as seconds or as a date (RFC 9110, section 10.2.3), at most an hour.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
            Duration::from_secs(u64::try_from(until.as_second().checked_sub(now.as_second())?).unwrap_or(0))
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follows(status: u16) -> Follow {
        follow(StatusCode::from_u16(status).unwrap(), Mode::Binary, false)
    }

    #[test]
    fn what_follows_from_an_answer() {
        for status in [408, 409, 425, 429, 500, 502, 503, 504, 599] {
            assert_eq!(follows(status), Follow::Retry, "{status}");
        }
        for status in [301, 302, 307, 401, 403, 404, 405, 407, 410] {
            assert_eq!(follows(status), Follow::Stop, "{status}");
        }
        for status in [400, 402, 406, 411, 413, 414, 415, 422, 431, 451, 499] {
            assert_eq!(follows(status), Follow::GiveUp, "{status}");
        }
        assert_eq!(follow(StatusCode::NOT_FOUND, Mode::Binary, true), Follow::GiveUp);
        assert_eq!(follow(StatusCode::UNSUPPORTED_MEDIA_TYPE, Mode::Structured, false), Follow::Stop);
    }

    #[test]
    fn retry_after_as_seconds_or_date() {
        let now: Timestamp = "2015-10-21T07:28:00Z".parse().unwrap();
        let wait = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers, now).map(|wait| wait.as_secs())
        };
        assert_eq!(wait("7"), Some(7));
        assert_eq!(wait("Wed, 21 Oct 2015 07:28:30 GMT"), Some(30));
        assert_eq!(wait("Wed, 21 Oct 2015 07:27:30 GMT"), Some(0));
        assert_eq!(wait("99999999"), Some(3_600));
        assert_eq!(wait("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn a_redirect_says_where_to_without_its_query() {
        let mut headers = HeaderMap::new();
        headers.insert(header::LOCATION, "https://y/b?token=hunter2".parse().unwrap());
        let error = error("here", StatusCode::FOUND, Follow::Stop, &headers, "<h1>moved</h1>\n");
        assert_eq!(
            error.message,
            "here: 302 Found to https://y/b; redirects are not followed, set `url`: <h1>moved</h1>"
        );
    }
}
