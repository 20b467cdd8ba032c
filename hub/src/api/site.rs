//! Which requests are answered: none that a web page of another site can have caused.
//!
//! A browser sends what a page asks for to any address, loopback of its own machine included. If the page's name is made to
//! stand for that address (DNS rebinding), the page may even read the answers. Both can be seen by what every browser says:
//! the name asked for in `Host`, and the page's own in `Origin`. Programs say no origin, and are not concerned.

use axum::extract::{self, Request};
use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;

/// What to do about a name that is not this machine's.
const HOST_HINT: &str = "ask for 127.0.0.1 or localhost, as a reverse proxy in front has to as well; with `http: { \
                         allow_anonymous: true }` every name is answered";
/// What to do about a page of somewhere else.
const ORIGIN_HINT: &str = "pages get answers only from where they come from themselves; a reverse proxy in front has to pass on \
                           their `Host`";

/// Whose names are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// This machine's, as it calls itself: what listens on loopback is for this machine.
    Local,
    /// Any: whoever reaches the address may ask, whatever it is called there.
    Any,
}

/// Refuses what is not to be answered.
pub(super) async fn guard(
    extract::State(names): extract::State<Names>,
    request: Request,
    next: Next,
) -> Response {
    match check(request.uri(), request.headers(), names) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn check(uri: &Uri, headers: &HeaderMap, names: Names) -> Result<(), Problem> {
    let refuse = |what: String, hint| Err(Problem::new(StatusCode::FORBIDDEN, what).hint(hint));
    // In HTTP/2, and in what is sent to a proxy, the URI has it.
    let mut hosts: Vec<&[u8]> = headers.get_all(HOST).iter().map(HeaderValue::as_bytes).collect();
    hosts.extend(uri.authority().map(|authority| authority.as_str().as_bytes()));
    if names == Names::Local
        && let Some(other) = hosts.iter().find(|host| !is_local(host))
    {
        let host = String::from_utf8_lossy(other);
        return refuse(format!("`Host: {host}` is not what this machine calls itself"), HOST_HINT);
    }
    for origin in headers.get_all(ORIGIN) {
        let origin = String::from_utf8_lossy(origin.as_bytes());
        let site = origin.split_once("://").map(|(_, site)| site.as_bytes());
        if !site.is_some_and(|site| hosts.iter().any(|host| host.eq_ignore_ascii_case(site))) {
            return refuse(format!("`Origin: {origin}` is another site"), ORIGIN_HINT);
        }
    }
    Ok(())
}

/// Whether `host`, with or without a port, is a name that only this machine can have.
fn is_local(host: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(host) else { return false };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a request to `uri` with these headers is answered.
    fn answered(uri: &'static str, headers: &[(&'static str, &'static str)], names: Names) -> bool {
        let mut map = HeaderMap::new();
        for &(name, value) in headers {
            map.append(name, HeaderValue::from_static(value));
        }
        check(&Uri::from_static(uri), &map, names).is_ok()
    }

    #[test]
    fn on_loopback_only_this_machine_is_asked_for() {
        let host = |host| answered("/", &[("host", host)], Names::Local);
        for own in ["localhost", "LocalHost:8080", "127.0.0.1:8080", "127.8.0.1", "[::1]:80", "[::1]"] {
            assert!(host(own), "{own}");
        }
        for other in
            ["evil.example", "127.0.0.1.evil.example:8080", "localhost.evil.example", "10.0.0.1", "", "[::2]"]
        {
            assert!(!host(other), "{other}");
            assert!(answered("/", &[("host", other)], Names::Any), "{other}");
        }
        // HTTP/1.0, which no browser speaks, has none.
        assert!(answered("/", &[], Names::Local));
        assert!(!answered("http://evil.example/", &[], Names::Local));
        assert!(!answered("http://evil.example/", &[("host", "localhost")], Names::Local));
        assert!(!answered("/", &[("host", "localhost"), ("host", "evil.example")], Names::Local));
    }

    #[test]
    fn a_page_gets_answers_from_its_own_site_only() {
        let from = |origin, names| answered("/", &[("host", "localhost:80"), ("origin", origin)], names);
        for names in [Names::Local, Names::Any] {
            assert!(from("http://localhost:80", names));
            assert!(from("https://LOCALHOST:80", names));
            for other in ["http://localhost:81", "https://evil.example", "null", "localhost:80", ""] {
                assert!(!from(other, names), "{other}");
            }
            assert!(!answered("/", &[("origin", "http://localhost")], names));
        }
    }
}
