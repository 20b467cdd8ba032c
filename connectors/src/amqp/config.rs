//! What an AMQP connection and an AMQP target may say.

use std::path::PathBuf;
use std::time::Duration;

use lapin::tcp::OwnedTLSConfig;
use lapin::types::ShortString;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tidemill_rules::units;
use tidemill_rules::yaml::Node;
use tidemill_rules::{Diagnostic, Template};

use crate::cloudevents::Mode;
use crate::secret::Secret;
use crate::slots::{Field, Slots};
use crate::text::shown;

/// Largest frame. lapin keeps a buffer of 32 frames in each direction, so this makes 2 MiB for each connection
/// (with RabbitMQ's 128 KiB it would be 8 MiB); larger messages go out in several frames.
const FRAME_BYTES_MAX: u32 = 32 * 1024;
/// Channels of a connection: one for each target, and one for a probe.
const CHANNELS_MAX: u16 = 1_024;

/// A connection as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    url: Option<Secret>,
    host: Option<String>,
    port: Option<u16>,
    vhost: Option<String>,
    user: Option<Secret>,
    password: Option<Secret>,
    tls: Option<bool>,
    ca: Option<PathBuf>,
    #[serde(default = "heartbeat_default", deserialize_with = "units::duration")]
    heartbeat: Duration,
    #[serde(default = "timeout_default", deserialize_with = "units::duration")]
    timeout: Duration,
}

fn heartbeat_default() -> Duration {
    Duration::from_secs(10)
}

fn timeout_default() -> Duration {
    Duration::from_secs(10)
}

/// A connection that was found good.
#[derive(Debug)]
pub(super) struct ConnectionConfig {
    /// Its name.
    pub(super) name: String,
    /// Where it goes, without user and password.
    pub(super) shown: String,
    /// How long connecting, and confirms of one batch, may take without progress.
    pub(super) timeout: Duration,
    heartbeat_s: u16,
    ca: Option<PathBuf>,
    address: Address,
}

#[derive(Debug)]
enum Address {
    Url(Secret),
    Parts {
        host: String,
        port: u16,
        vhost: String,
        tls: bool,
        user: Option<Secret>,
        password: Option<Secret>,
    },
}

impl ConnectionConfig {
    /// Checks the body of a connection.
    pub(super) fn check(name: &str, body: &Node) -> Result<Self, Vec<Diagnostic>> {
        let written: Written = body.decode()?;
        let at = |key: &str| body.get(key).unwrap_or(body);
        let mut problems = Vec::new();
        let heartbeat_s = u16::try_from(written.heartbeat.as_secs()).ok().filter(|s| (1..=600).contains(s));
        if heartbeat_s.is_none() {
            problems.push(at("heartbeat").diagnostic("`heartbeat` must lie between `1s` and `10m`"));
        }
        if written.timeout < Duration::from_secs(1) {
            problems.push(at("timeout").diagnostic("`timeout` must be at least `1s`"));
        }
        let parts = [
            ("host", written.host.is_some()),
            ("port", written.port.is_some()),
            ("vhost", written.vhost.is_some()),
            ("user", written.user.is_some()),
            ("password", written.password.is_some()),
            ("tls", written.tls.is_some()),
        ];
        let address = match (written.url, written.host) {
            (Some(url), _) => {
                for (key, _) in parts.iter().filter(|(_, given)| *given) {
                    problems.push(
                        at(key).diagnostic(format!("`{key}` is part of the `url`; give one or the other")),
                    );
                }
                Address::Url(url)
            }
            (None, Some(host)) => {
                let tls = written.tls.unwrap_or(written.ca.is_some());
                Address::Parts {
                    host,
                    port: written.port.unwrap_or(if tls { 5671 } else { 5672 }),
                    vhost: written.vhost.unwrap_or_else(|| "/".to_owned()),
                    tls,
                    user: written.user,
                    password: written.password,
                }
            }
            (None, None) => {
                let hint = "url: \"amqp://localhost:5672/%2f\"";
                problems.push(body.diagnostic("`url` or `host` is missing").with_hint(hint));
                return Err(problems);
            }
        };
        let shown = match address.uri(Secrets::StandIn) {
            Ok(uri) => show(&uri),
            Err(why) => {
                problems.push(at("url").diagnostic(why).with_hint("amqp://HOST:PORT/VHOST, or amqps://…"));
                String::new()
            }
        };
        let (Some(heartbeat_s), true) = (heartbeat_s, problems.is_empty()) else { return Err(problems) };
        let ca = written.ca;
        Ok(Self { name: name.to_owned(), shown, timeout: written.timeout, heartbeat_s, ca, address })
    }

    /// The address with its secrets looked up.
    pub(super) fn uri(&self) -> Result<AMQPUri, String> {
        let mut uri = self.address.uri(Secrets::Revealed)?;
        uri.query.heartbeat = Some(self.heartbeat_s);
        uri.query.frame_max = Some(FRAME_BYTES_MAX);
        uri.query.channel_max = Some(CHANNELS_MAX);
        Ok(uri)
    }

    /// Certificates to trust instead of the system's.
    pub(super) fn tls(&self) -> Result<OwnedTLSConfig, String> {
        let Some(path) = &self.ca else { return Ok(OwnedTLSConfig::default()) };
        let chain = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(OwnedTLSConfig { identity: None, cert_chain: Some(chain) })
    }
}

/// Whether secrets are looked up, or something stands in for them while a form is checked.
#[derive(Clone, Copy)]
enum Secrets {
    StandIn,
    Revealed,
}

impl Secrets {
    fn in_url(self, url: &Secret) -> Result<String, String> {
        let encoded = |value: &str| utf8_percent_encode(value, NON_ALPHANUMERIC).to_string();
        match self {
            Self::StandIn => Ok(url.with_stand_in("x")),
            Self::Revealed => url.reveal_with(encoded).map_err(|error| error.to_string()),
        }
    }

    fn plain(self, secret: Option<&Secret>) -> Result<String, String> {
        match (self, secret) {
            (_, None) => Ok("guest".to_owned()),
            (Self::StandIn, Some(secret)) => Ok(secret.with_stand_in("x")),
            (Self::Revealed, Some(secret)) => secret.reveal().map_err(|error| error.to_string()),
        }
    }
}

impl Address {
    fn uri(&self, secrets: Secrets) -> Result<AMQPUri, String> {
        match self {
            Self::Url(url) => {
                // The parser's errors quote the URL, which may hold a password.
                let parsed = secrets.in_url(url)?.parse();
                let mut uri: AMQPUri = parsed.map_err(|_| "this is no AMQP URL".to_owned())?;
                if uri.authority.host.is_empty() {
                    return Err("the URL names no host".to_owned());
                }
                uri.query = AMQPQueryString::default();
                Ok(uri)
            }
            Self::Parts { host, port, vhost, tls, user, password } => {
                let (username, password) = (secrets.plain(user.as_ref())?, secrets.plain(password.as_ref())?);
                let userinfo = AMQPUserInfo { username, password };
                let scheme = if *tls { AMQPScheme::AMQPS } else { AMQPScheme::AMQP };
                let authority = AMQPAuthority { userinfo, host: host.clone(), port: *port };
                Ok(AMQPUri { scheme, authority, vhost: vhost.clone(), query: AMQPQueryString::default() })
            }
        }
    }
}

/// An address for people: without user and password.
fn show(uri: &AMQPUri) -> String {
    shown(&format!(
        "{}://{}:{}/{}",
        uri.scheme,
        uri.authority.host,
        uri.authority.port,
        uri.vhost.trim_start_matches('/')
    ))
}

/// A target that was found good.
#[derive(Debug)]
pub(super) struct TargetConfig {
    /// Exchange; empty for the default exchange, whose routing keys are names of queues.
    pub(super) exchange: ShortString,
    /// Routing key.
    pub(super) routing_key: Field,
    /// Routing key as it is written, for people.
    routing_key_shown: String,
    /// Binary or structured.
    pub(super) mode: Mode,
    /// Whether an event that reaches no queue is a failure.
    pub(super) mandatory: bool,
    /// Whether messages survive a restart of the broker.
    pub(super) persistent: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTarget {
    exchange: String,
    #[serde(default)]
    routing_key: String,
    #[serde(default)]
    mode: Mode,
    #[serde(default = "yes")]
    mandatory: bool,
    #[serde(default = "yes")]
    persistent: bool,
}

fn yes() -> bool {
    true
}

impl TargetConfig {
    /// Checks the body of a target.
    pub(super) fn check(body: &Node) -> Result<(Self, Vec<Template>), Vec<Diagnostic>> {
        let written: WrittenTarget = body.decode()?;
        let at = |key: &str| body.get(key).unwrap_or(body);
        let mut problems = Vec::new();
        let exchange = ShortString::try_new(written.exchange.clone()).map_err(|_| {
            problems.push(at("exchange").diagnostic("`exchange` has more than 255 bytes"));
        });
        let mut slots = Slots::default();
        let routing_key =
            slots.field(at("routing_key"), &written.routing_key).map_err(|found| problems.push(found));
        if let Ok(Field::Constant(key)) = &routing_key {
            if key.len() > 255 {
                problems.push(at("routing_key").diagnostic("`routing_key` has more than 255 bytes"));
            } else if key.is_empty() && written.exchange.is_empty() {
                let message = "the default exchange needs a `routing_key`: the name of a queue";
                problems.push(body.diagnostic(message));
            }
        }
        let (Ok(exchange), Ok(routing_key), true) = (exchange, routing_key, problems.is_empty()) else {
            return Err(problems);
        };
        let config = Self {
            exchange,
            routing_key,
            routing_key_shown: written.routing_key,
            mode: written.mode,
            mandatory: written.mandatory,
            persistent: written.persistent,
        };
        Ok((config, slots.into_templates()))
    }

    /// For people: exchange and routing key.
    pub(super) fn shown(&self) -> String {
        match (self.exchange.as_str(), self.routing_key_shown.as_str()) {
            ("", key) => format!("queue `{key}`"),
            (exchange, "") => format!("exchange `{exchange}`"),
            (exchange, key) => format!("exchange `{exchange}` key `{key}`"),
        }
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
    fn an_address_as_url_or_in_parts() {
        let config = ConnectionConfig::check("c", &node("url: \"amqp://me:p%40ss@mq:5673/prod\"")).unwrap();
        assert_eq!(config.shown, "amqp://mq:5673/prod");
        let uri = config.uri().unwrap();
        assert_eq!((uri.authority.userinfo.password.as_str(), uri.vhost.as_str()), ("p@ss", "prod"));
        assert_eq!((uri.query.heartbeat, uri.query.frame_max), (Some(10), Some(FRAME_BYTES_MAX)));
        let config =
            ConnectionConfig::check("c", &node("{ host: mq, tls: true, user: me, password: \"a/b\" }"))
                .unwrap();
        assert_eq!(config.shown, "amqps://mq:5671/");
        assert_eq!(config.uri().unwrap().authority.userinfo.password, "a/b");
    }

    #[test]
    fn secrets_are_shown_nowhere() {
        let config = ConnectionConfig::check("c", &node("url: \"amqp://me:hunter2@mq/%2f\"")).unwrap();
        assert!(!format!("{config:?} {}", config.shown).contains("hunter2"));
        let problems = ConnectionConfig::check("c", &node("url: \"amqp:hunter2\"")).unwrap_err();
        assert!(!problems.iter().any(|problem| problem.message.contains("hunter2")), "{problems:?}");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, expected) in [
            ("{}", "`url` or `host` is missing"),
            ("{ url: \"amqp://mq\", port: 1 }", "`port` is part of the `url`"),
            ("{ url: \"http://mq\" }", "no AMQP URL"),
            ("{ host: mq, heartbeat: 0s }", "`heartbeat` must"),
        ] {
            let problems = ConnectionConfig::check("c", &node(text)).unwrap_err();
            assert!(problems[0].message.contains(expected), "{text}: {problems:?}");
        }
        let problems = TargetConfig::check(&node("{ exchange: \"\" }")).unwrap_err();
        assert!(problems[0].message.contains("default exchange"));
    }
}
