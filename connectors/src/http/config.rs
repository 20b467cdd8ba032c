//! What an HTTP connection and an HTTP target may say.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Certificate, Client, Url, redirect};
use serde::Deserialize;
use tidemill_rules::units;
use tidemill_rules::yaml::Node;
use tidemill_rules::{Diagnostic, Template};

use super::encode::{PathPart, shown_path, split_path};
use crate::SendError;
use crate::secret::Secret;
use crate::slots::Slots;
use crate::text::chain;

/// Headers that belong to the protocol or to the event.
const RESERVED: &[&str] = &[
    "connection",
    "content-length",
    "content-type",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Requests under way at once for one target.
const CONCURRENCY_DEFAULT: usize = 16;
const CONCURRENCY_MAX: usize = 256;
/// Events of one document in batched mode.
const BATCH_DEFAULT: usize = 100;
const BATCH_MAX: usize = 1_000;
/// Idle sockets kept for each host.
const POOL_IDLE_MAX: usize = 64;

/// A connection as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    url: Secret,
    #[serde(default)]
    headers: BTreeMap<String, Secret>,
    #[serde(default = "timeout_default", deserialize_with = "units::duration")]
    timeout: Duration,
    ca: Option<PathBuf>,
}

/// The limit of EventBridge's API destinations, which functions are commonly written for.
fn timeout_default() -> Duration {
    Duration::from_secs(5)
}

/// A connection that was found good.
#[derive(Debug)]
pub(super) struct ConnectionConfig {
    /// Its name.
    pub(super) name: String,
    /// Where it goes, without user, password and query.
    pub(super) shown: String,
    timeout: Duration,
    url: Secret,
    headers: Vec<(HeaderName, Secret)>,
    ca: Option<PathBuf>,
}

impl ConnectionConfig {
    /// Checks the body of a connection.
    pub(super) fn check(name: &str, body: &Node) -> Result<Self, Vec<Diagnostic>> {
        let written: Written = body.decode()?;
        let at = |key: &str| body.get(key).unwrap_or(body);
        let mut problems = Vec::new();
        let shown = match parse_url(&written.url.with_stand_in("x")) {
            Ok(url) => show(&url),
            Err(why) => {
                problems.push(
                    at("url").diagnostic(why).with_hint("url: \"https://functions.example.com/overheat\""),
                );
                String::new()
            }
        };
        problems.extend(timeout_problem(written.timeout).map(|why| at("timeout").diagnostic(why)));
        let mut headers = Vec::new();
        for (key, value) in written.headers {
            let place = at("headers").entry(&key).map_or(body, |(key, _)| key);
            match header_name(&key) {
                Ok(header) => headers.push((header, value)),
                Err(why) => problems.push(place.diagnostic(why)),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let name = name.to_owned();
        Ok(Self { name, shown, timeout: written.timeout, url: written.url, headers, ca: written.ca })
    }

    /// The URL with its secrets looked up.
    pub(super) fn url(&self) -> Result<Url, SendError> {
        let encoded = |value: &str| utf8_percent_encode(value, NON_ALPHANUMERIC).to_string();
        let text = self.url.reveal_with(encoded).map_err(|error| self.stop(&error.to_string()))?;
        parse_url(&text).map_err(|why| self.stop(why))
    }

    /// The configured headers with their secrets looked up.
    pub(super) fn headers(&self) -> Result<HeaderMap, SendError> {
        let mut headers = HeaderMap::with_capacity(self.headers.len());
        for (name, secret) in &self.headers {
            let value = secret.reveal().map_err(|error| self.stop(&format!("header `{name}`: {error}")))?;
            let mut value = HeaderValue::from_str(&value).map_err(|_| {
                self.stop(&format!("header `{name}`: the value holds characters that no header may have"))
            })?;
            value.set_sensitive(true);
            headers.insert(name.clone(), value);
        }
        Ok(headers)
    }

    /// A client for this connection.
    pub(super) fn client(&self) -> Result<Client, SendError> {
        let mut builder = Client::builder()
            .user_agent(concat!("tidemill/", env!("CARGO_PKG_VERSION")))
            // A redirect of a POST is a configuration that should be corrected, and it would carry the headers,
            // secrets among them, to another place.
            .redirect(redirect::Policy::none())
            .referer(false)
            .connect_timeout(self.timeout)
            .pool_max_idle_per_host(POOL_IDLE_MAX)
            // Less than the usual keep-alive of servers and load balancers (60 s), so that few requests meet a
            // socket that is just being closed.
            .pool_idle_timeout(Duration::from_secs(30))
            .tcp_keepalive(Duration::from_secs(30));
        if let Some(path) = &self.ca {
            let pem =
                std::fs::read(path).map_err(|error| self.stop(&format!("{}: {error}", path.display())))?;
            let certificates =
                Certificate::from_pem_bundle(&pem).map_err(|error| self.stop(&chain(&error)))?;
            builder = builder.tls_certs_only(certificates);
        }
        builder.build().map_err(|error| self.stop(&chain(&error)))
    }

    fn stop(&self, why: &str) -> SendError {
        SendError::stop(format!("connection `{}`: {why}", self.name))
    }
}

fn parse_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "this is no URL")?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("the URL must begin with http:// or https://");
    }
    if url.fragment().is_some() {
        return Err("the URL has a fragment (`#`), which is never sent");
    }
    Ok(url)
}

/// A URL for people: queries and user names may be secrets.
fn show(url: &Url) -> String {
    let path = if url.path() == "/" { "" } else { url.path() };
    format!("{}{path}", url.origin().ascii_serialization())
}

fn timeout_problem(timeout: Duration) -> Option<&'static str> {
    let good = Duration::from_millis(100)..=Duration::from_secs(300);
    (!good.contains(&timeout)).then_some("`timeout` must lie between `100ms` and `5m`")
}

fn header_name(text: &str) -> Result<HeaderName, String> {
    let name: HeaderName =
        text.parse().map_err(|_| format!("`{}` is no name of a header", crate::text::shown(text)))?;
    if RESERVED.contains(&name.as_str()) {
        return Err(format!("header `{name}` cannot be set: the protocol decides it"));
    }
    if name.as_str().starts_with("ce-") {
        return Err(format!("header `{name}` belongs to the event: set the attribute in the rule's `event`"));
    }
    Ok(name)
}

/// How events lie in requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    /// One event for each request; attributes are headers.
    #[default]
    Binary,
    /// One event for each request, in the JSON event format.
    Structured,
    /// Many events in one document.
    Batched,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum WrittenMethod {
    #[default]
    Post,
    Put,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTarget {
    path: Option<String>,
    #[serde(default)]
    method: WrittenMethod,
    #[serde(default)]
    mode: Mode,
    #[serde(default, deserialize_with = "units::duration_option")]
    timeout: Option<Duration>,
    concurrency: Option<usize>,
    batch_max: Option<usize>,
}

/// A target that was found good.
#[derive(Debug)]
pub(super) struct TargetConfig {
    /// Method.
    pub(super) method: Method,
    /// Binary, structured or batched.
    pub(super) mode: Mode,
    /// How long one request may take, from connecting to the end of its answer.
    pub(super) timeout: Duration,
    /// Most requests under way at once.
    pub(super) concurrency: usize,
    /// Most events of one document in batched mode.
    pub(super) batch_max: usize,
    /// Segments of the path that is added to the connection's URL.
    pub(super) path: Vec<PathPart>,
    /// The path for people: its segments as they are written, each after a slash.
    pub(super) path_shown: String,
}

impl TargetConfig {
    /// Checks the body of a target.
    pub(super) fn check(
        connection: &ConnectionConfig,
        body: &Node,
    ) -> Result<(Self, Vec<Template>), Vec<Diagnostic>> {
        let written: WrittenTarget = body.decode()?;
        let at = |key: &str| body.get(key).unwrap_or(body);
        let mut problems = Vec::new();
        let timeout = written.timeout.unwrap_or(connection.timeout);
        problems.extend(timeout_problem(timeout).map(|why| at("timeout").diagnostic(why)));
        let concurrency = written.concurrency.unwrap_or(CONCURRENCY_DEFAULT);
        if !(1..=CONCURRENCY_MAX).contains(&concurrency) {
            let message = format!("`concurrency` must lie between 1 and {CONCURRENCY_MAX}");
            problems.push(at("concurrency").diagnostic(message));
        }
        if written.concurrency.is_some() && written.mode == Mode::Batched {
            let message = "`concurrency` has no meaning in mode `batched`: one document follows the other";
            problems.push(at("concurrency").diagnostic(message));
        }
        let batch_max = written.batch_max.unwrap_or(BATCH_DEFAULT);
        if !(1..=BATCH_MAX).contains(&batch_max) {
            problems
                .push(at("batch_max").diagnostic(format!("`batch_max` must lie between 1 and {BATCH_MAX}")));
        }
        if written.batch_max.is_some() && written.mode != Mode::Batched {
            problems.push(at("batch_max").diagnostic("`batch_max` is for mode `batched`"));
        }
        let mut slots = Slots::default();
        let path = split_path(&mut slots, at("path"), written.path.as_deref().unwrap_or_default());
        let path = path.unwrap_or_else(|found| {
            problems.push(found);
            Vec::new()
        });
        if !problems.is_empty() {
            return Err(problems);
        }
        let method = match written.method {
            WrittenMethod::Post => Method::POST,
            WrittenMethod::Put => Method::PUT,
        };
        let path_shown = shown_path(written.path.as_deref().unwrap_or_default());
        let config = Self { method, mode: written.mode, timeout, concurrency, batch_max, path, path_shown };
        Ok((config, slots.into_templates()))
    }

    /// Whether the address differs from event to event.
    pub(super) fn address_varies(&self) -> bool {
        self.path.iter().any(|part| part.0.varies())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidemill_rules::yaml::{Source, parse};

    use super::*;

    fn node(text: &str) -> Node {
        parse(Arc::new(Source { name: "test.yaml".to_owned(), text: text.to_owned() })).unwrap()
    }

    #[test]
    fn secrets_are_shown_nowhere() {
        let text =
            "{ url: \"https://me:hunter2@x.example/f?code=hunter2\", headers: { authorization: hunter2 } }";
        let config = ConnectionConfig::check("c", &node(text)).unwrap();
        assert_eq!(config.shown, "https://x.example/f");
        assert!(!format!("{config:?} {:?}", config.headers().unwrap()).contains("hunter2"));
        let problems = ConnectionConfig::check("c", &node("{ url: hunter2 }")).unwrap_err();
        assert!(!problems[0].message.contains("hunter2"));
    }

    #[test]
    fn what_is_shown_is_what_is_requested() {
        for (url, path, expected) in [
            ("http://x/mes", "rejects", "POST http://x/mes/rejects"),
            ("http://x/mes/", "/rejects/", "POST http://x/mes/rejects"),
            ("http://x", "v//{{ data[\"a/b\"] }}/up", "POST http://x/v/{{ data[\"a/b\"] }}/up"),
            ("http://x/mes/", "", "POST http://x/mes/"),
            ("http://x", "/", "POST http://x"),
        ] {
            let connection = ConnectionConfig::check("c", &node(&format!("{{ url: {url:?} }}"))).unwrap();
            let target = TargetConfig::check(&connection, &node(&format!("{{ path: {path:?} }}"))).unwrap().0;
            assert_eq!(super::super::place(&connection, &target), expected);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, expected) in [
            ("{ url: \"ftp://x\" }", "must begin with http"),
            ("{ url: \"http://x\", headers: { Host: y } }", "`host` cannot be set"),
            ("{ url: \"http://x\", headers: { ce-id: y } }", "belongs to the event"),
            ("{ url: \"http://x\", headers: { \"a b\": y } }", "no name of a header"),
            ("{ url: \"http://x\", timeout: 1ms }", "`timeout` must"),
            ("{ url: \"http://${X\" }", "without its"),
            ("{ urll: \"http://x\" }", "unknown key `urll`"),
        ] {
            let problems = ConnectionConfig::check("c", &node(text)).unwrap_err();
            assert!(problems[0].message.contains(expected), "{text}: {problems:?}");
        }
        let connection = ConnectionConfig::check("c", &node("{ url: \"http://x\" }")).unwrap();
        for (text, expected) in [
            ("{ concurrency: 0 }", "`concurrency` must"),
            ("{ mode: batched, concurrency: 2 }", "no meaning in mode `batched`"),
            ("{ batch_max: 2 }", "`batch_max` is for mode `batched`"),
            ("{ method: GET }", "unknown value `GET`"),
            ("{ path: \"/a/{{ topic[ }}\" }", "1:21: expected a number"),
            ("{ path: \"a?b=1\" }", "`?`"),
        ] {
            let problems = TargetConfig::check(&connection, &node(text)).unwrap_err();
            assert!(format!("{problems:?}").contains(expected), "{text}: {problems:?}");
        }
    }
}
