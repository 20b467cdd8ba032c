//! What a Kafka connection and a Kafka target may say.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use serde::Deserialize;
use tidemill_rules::yaml::Node;
use tidemill_rules::{Diagnostic, Template};

use crate::cloudevents::Mode;
use crate::secret::{Secret, SecretError};
use crate::slots::{Field, Slots};

/// Bytes of messages that librdkafka may hold for one connection; a full buffer makes `send` wait.
pub(super) const BUFFER_BYTES: usize = 8 * 1024 * 1024;
/// librdkafka's default for `message.max.bytes`.
const MESSAGE_BYTES_DEFAULT: usize = 1_000_000;
/// How long a batch may stay without a delivery report, unless the connection says otherwise.
///
/// A broker that dies is noticed by its cluster after 9 s (`broker.session.timeout.ms`), then its partitions get new
/// leaders: waiting about that long lets most fail-overs pass without sending anything twice.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Properties of librdkafka that may be set. The rest is either decided here, because confirmed delivery in order
/// depends on it, or has no meaning for a producer.
const PROPERTIES: &[&str] = &[
    "batch.num.messages",
    "batch.size",
    "broker.address.family",
    "broker.address.ttl",
    "client.id",
    "client.rack",
    "compression.codec",
    "compression.level",
    "compression.type",
    "connections.max.idle.ms",
    "enable.metrics.push",
    "enable.ssl.certificate.verification",
    "linger.ms",
    "message.max.bytes",
    "metadata.max.age.ms",
    "partitioner",
    "queue.buffering.max.ms",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "request.timeout.ms",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "sasl.kerberos.service.name",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.nagle.disable",
    "socket.receive.buffer.bytes",
    "socket.send.buffer.bytes",
    "socket.timeout.ms",
    "ssl.cipher.suites",
    "ssl.crl.location",
    "ssl.curves.list",
    "ssl.endpoint.identification.algorithm",
    "ssl.sigalgs.list",
    "sticky.partitioning.linger.ms",
    "topic.metadata.propagation.max.ms",
    "topic.metadata.refresh.interval.ms",
    "topic.metadata.refresh.sparse",
];

/// Properties that have a key of their own.
const ELSEWHERE: &[(&str, &str)] = &[
    ("bootstrap.servers", "brokers"),
    ("metadata.broker.list", "brokers"),
    ("security.protocol", "security"),
    ("ssl.ca.location", "security.ca"),
    ("ssl.certificate.location", "security.certificate"),
    ("ssl.key.location", "security.key"),
    ("ssl.key.password", "security.key_password"),
    ("sasl.mechanism", "security.sasl.mechanism"),
    ("sasl.mechanisms", "security.sasl.mechanism"),
    ("sasl.username", "security.sasl.username"),
    ("sasl.password", "security.sasl.password"),
];

/// Prefixes of properties that confirmed, ordered and bounded delivery rests on.
const PROMISES: &[&str] = &[
    "acks",
    "request.required.acks",
    "enable.idempotence",
    "enable.gapless",
    "max.in.flight",
    "message.timeout",
    "delivery.timeout",
    "message.send.max.retries",
    "retries",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queuing.strategy",
    "transaction",
    "delivery.report",
];

/// A connection as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    brokers: Brokers,
    #[serde(default)]
    properties: BTreeMap<String, Scalar>,
    #[serde(default)]
    security: Security,
    #[serde(default = "timeout_default", deserialize_with = "tidemill_rules::units::duration")]
    timeout: Duration,
}

fn timeout_default() -> Duration {
    TIMEOUT_DEFAULT
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected `host:port, host:port` or a list of them")]
enum Brokers {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected text, a number or a boolean")]
enum Scalar {
    Flag(bool),
    Whole(i64),
    Decimal(f64),
    Text(String),
}

impl Scalar {
    fn text(&self) -> String {
        match self {
            Self::Flag(flag) => flag.to_string(),
            Self::Whole(number) => number.to_string(),
            Self::Decimal(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

/// TLS and SASL.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Security {
    /// Whether to use TLS. Certificates imply it.
    tls: Option<bool>,
    /// Certificates to trust instead of the system's (PEM).
    ca: Option<PathBuf>,
    /// Certificate of this client (PEM).
    certificate: Option<PathBuf>,
    /// Its key (PEM).
    key: Option<PathBuf>,
    /// What the key is encrypted with.
    key_password: Option<Secret>,
    /// User and password.
    sasl: Option<Sasl>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sasl {
    mechanism: Mechanism,
    username: Secret,
    password: Secret,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Mechanism {
    #[serde(rename = "PLAIN")]
    Plain,
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl Mechanism {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// A connection that was found good.
#[derive(Debug)]
pub(super) struct ConnectionConfig {
    /// Its name.
    pub(super) name: String,
    /// Where it goes: `host:port,host:port`.
    pub(super) brokers: String,
    /// How long a batch may stay without a delivery report.
    pub(super) timeout: Duration,
    properties: BTreeMap<String, String>,
    security: Security,
}

impl ConnectionConfig {
    /// Checks the body of a connection.
    pub(super) fn check(name: &str, body: &Node) -> Result<Self, Vec<Diagnostic>> {
        let written: Written = body.decode()?;
        let at = |key: &str| body.get(key).unwrap_or(body);
        let mut problems = Vec::new();
        let list = match &written.brokers {
            Brokers::One(text) => text.split(',').map(|broker| broker.trim().to_owned()).collect(),
            Brokers::Many(list) => list.clone(),
        };
        for broker in list.iter().filter(|broker| !is_address(broker)) {
            problems.push(at("brokers").diagnostic(format!("`{broker}` is not `host:port`")));
        }
        if list.is_empty() {
            problems.push(
                at("brokers").diagnostic("no broker is named").with_hint("brokers: \"localhost:9092\""),
            );
        }
        if written.timeout < Duration::from_secs(1) {
            problems.push(at("timeout").diagnostic("`timeout` must be at least `1s`"));
        }
        let properties = written.properties.iter().map(|(key, value)| (key.clone(), value.text())).collect();
        let config = Self {
            name: name.to_owned(),
            brokers: list.join(","),
            timeout: written.timeout,
            properties,
            security: written.security,
        };
        problems.extend(config.property_problems(at("properties")));
        problems.extend(config.security_problems(at("security")));
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    fn property_problems(&self, at: &Node) -> Vec<Diagnostic> {
        let mut problems = Vec::new();
        for (key, value) in &self.properties {
            let place = at.entry(key).map_or(at, |(key, _)| key);
            if let Some((_, own)) = ELSEWHERE.iter().find(|(property, _)| property == key) {
                problems.push(
                    place.diagnostic(format!("`{key}` has its own place")).with_hint(format!("set `{own}`")),
                );
            } else if PROMISES.iter().any(|prefix| key.starts_with(prefix)) {
                let message = format!("`{key}` cannot be set: confirmed delivery in order rests on it");
                problems.push(place.diagnostic(message));
            } else if !PROPERTIES.contains(&key.as_str()) {
                let hint = format!("properties that can be set: {}", PROPERTIES.join(", "));
                problems.push(place.diagnostic(format!("`{key}` cannot be set")).with_hint(hint));
            } else if let Err(KafkaError::ClientConfig(_, why, _, _)) =
                ClientConfig::new().set(key, value).create_native_config()
            {
                let place = at.get(key).unwrap_or(at);
                problems.push(place.diagnostic(format!("librdkafka refuses this value: {why}")));
            }
        }
        problems
    }

    fn security_problems(&self, at: &Node) -> Vec<Diagnostic> {
        let security = &self.security;
        let mut problems = Vec::new();
        if security.certificate.is_some() != security.key.is_some() {
            problems.push(at.diagnostic("`certificate` and `key` go together"));
        }
        if security.tls == Some(false) && (security.ca.is_some() || security.certificate.is_some()) {
            problems.push(at.diagnostic("certificates are given, but `tls` is off"));
        }
        problems
    }

    fn uses_tls(&self) -> bool {
        let security = &self.security;
        security.tls.unwrap_or(security.ca.is_some() || security.certificate.is_some())
    }

    /// The configuration of a producer. Secrets are looked up here.
    pub(super) fn client(&self) -> Result<ClientConfig, SecretError> {
        let message_bytes = self.properties.get("message.max.bytes").and_then(|value| value.parse().ok());
        let message_bytes: usize = message_bytes.unwrap_or(MESSAGE_BYTES_DEFAULT);
        let mut client = ClientConfig::new();
        client
            .set("client.id", "tidemill")
            // A whole batch is handed over at once, so there is little to wait for.
            .set("linger.ms", "1")
            // One request never holds more than a topic takes by default (1,048,588 bytes) unless one message
            // alone does, so that a refusal for size concerns that message only.
            .set("batch.size", "500000")
            .set("socket.keepalive.enable", "true")
            .set("socket.connection.setup.timeout.ms", "5000")
            .set("reconnect.backoff.max.ms", "1000")
            // A topic that does not exist is reported after this long; one just created is known by then.
            .set("topic.metadata.propagation.max.ms", "5000");
        for (key, value) in &self.properties {
            client.set(key, value);
        }
        client
            .set("bootstrap.servers", &self.brokers)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // librdkafka must never give up on a message by itself. Were message N to expire and N+1, a moment
            // younger, still to be sent, a consumer would see N+1 before N (librdkafka's own guarantee against
            // gaps does not cover expiry). `send` watches the clock instead, and when it loses patience the whole
            // producer goes with everything that it still holds: nothing is sent behind a gap.
            .set("message.timeout.ms", "0")
            // A message larger than the buffer would wait for ever; twice its size lets the next one in.
            .set("queue.buffering.max.kbytes", (BUFFER_BYTES.max(2 * message_bytes) / 1024).to_string())
            .set("queue.buffering.max.messages", "100000");
        self.secure(&mut client)?;
        Ok(client)
    }

    fn secure(&self, client: &mut ClientConfig) -> Result<(), SecretError> {
        let protocol = match (self.uses_tls(), &self.security.sasl) {
            (false, None) => "plaintext",
            (true, None) => "ssl",
            (false, Some(_)) => "sasl_plaintext",
            (true, Some(_)) => "sasl_ssl",
        };
        client.set("security.protocol", protocol);
        let files = [
            ("ssl.ca.location", &self.security.ca),
            ("ssl.certificate.location", &self.security.certificate),
            ("ssl.key.location", &self.security.key),
        ];
        for (key, path) in files {
            if let Some(path) = path {
                client.set(key, path.to_string_lossy());
            }
        }
        if let Some(password) = &self.security.key_password {
            client.set("ssl.key.password", password.reveal()?);
        }
        if let Some(sasl) = &self.security.sasl {
            client.set("sasl.mechanism", sasl.mechanism.name());
            client.set("sasl.username", sasl.username.reveal()?);
            client.set("sasl.password", sasl.password.reveal()?);
        }
        Ok(())
    }
}

/// Whether `text` is `host:port` (an IPv6 address in brackets).
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_good = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains([':', '/', ' ', ',']),
    };
    host_good && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// A target that was found good.
#[derive(Debug)]
pub(super) struct TargetConfig {
    /// Topic.
    pub(super) topic: Field,
    /// Topic as it is written, for people.
    pub(super) topic_shown: String,
    /// Key of the message.
    pub(super) key: Option<Field>,
    /// Binary or structured.
    pub(super) mode: Mode,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTarget {
    topic: String,
    key: Option<String>,
    #[serde(default)]
    mode: Mode,
}

impl TargetConfig {
    /// Checks the body of a target.
    pub(super) fn check(body: &Node) -> Result<(Self, Vec<Template>), Vec<Diagnostic>> {
        let written: WrittenTarget = body.decode()?;
        let at = |key: &str| body.get(key).unwrap_or(body);
        let mut slots = Slots::default();
        let topic = slots.field(at("topic"), &written.topic).map_err(|problem| vec![problem])?;
        if let Some(problem) = topic.constant().and_then(topic_problem) {
            return Err(vec![at("topic").diagnostic(problem)]);
        }
        let key = match &written.key {
            Some(text) => Some(slots.field(at("key"), text).map_err(|problem| vec![problem])?),
            None => None,
        };
        let config = Self { topic, topic_shown: written.topic, key, mode: written.mode };
        Ok((config, slots.into_templates()))
    }
}

/// What is wrong with a topic's name, if anything: letters, digits, `.`, `_` and `-`, at most 249 of them.
pub(super) fn topic_problem(topic: &str) -> Option<String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if topic.is_empty() {
        Some("a topic needs a name".to_owned())
    } else if topic.len() > 249 {
        Some(format!("topic: {} characters, 249 are allowed", topic.len()))
    } else if matches!(topic, "." | "..") {
        Some(format!("topic `{topic}`: Kafka refuses this name"))
    } else {
        let bad = topic.chars().find(|c| !good(*c))?;
        Some(format!(
            "topic `{}`: {bad:?} is not allowed; use letters, digits, `.`, `_`, `-`",
            crate::text::shown(topic)
        ))
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
