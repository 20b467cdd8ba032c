//! What a Kafka connection and a Kafka target may say.

use std::sync::Arc;

use tidemill_rules::yaml::{Source, parse};

use super::*;

fn node(text: &str) -> Node {
    parse(Arc::new(Source { name: "test.yaml".to_owned(), text: text.to_owned() })).unwrap()
}

fn connection(text: &str) -> Result<ConnectionConfig, Vec<Diagnostic>> {
    ConnectionConfig::check("lake", &node(text))
}

#[test]
fn properties_reach_librdkafka() {
    let text = "{ brokers: [\"a:1\", \"[::1]:2\"], properties: { linger.ms: 20, compression.type: zstd, message.max.bytes: 20000000 } }";
    let client = connection(text).unwrap().client().unwrap();
    assert_eq!(client.get("bootstrap.servers"), Some("a:1,[::1]:2"));
    assert_eq!((client.get("linger.ms"), client.get("compression.type")), (Some("20"), Some("zstd")));
    // The buffer holds two of the largest messages.
    assert_eq!(client.get("queue.buffering.max.kbytes"), Some("39062"));
    client.create_native_config().unwrap();
}

#[test]
fn promises_cannot_be_configured_away() {
    for key in [
        "acks",
        "enable.idempotence",
        "retries",
        "message.timeout.ms",
        "max.in.flight",
        "queue.buffering.max.kbytes",
    ] {
        let problems =
            connection(&format!("{{ brokers: \"a:1\", properties: {{ {key}: 1 }} }}")).unwrap_err();
        assert!(problems[0].message.contains("rests on it"), "{key}: {problems:?}");
        assert_eq!(problems[0].column, 33, "at the key");
    }
    let client = connection("{ brokers: \"a:1\" }").unwrap().client().unwrap();
    assert_eq!((client.get("acks"), client.get("enable.idempotence")), (Some("all"), Some("true")));
}

#[test]
fn what_may_be_set_is_accepted_by_librdkafka() {
    for key in PROPERTIES {
        // Some values are refused, an unknown name always is.
        if let Err(error) = ClientConfig::new().set(*key, "1").create_native_config() {
            assert!(!error.to_string().contains("No such configuration property"), "{key}: {error}");
        }
    }
}

#[test]
fn what_is_wrong_is_said() {
    for (text, expected) in [
        ("{ brokers: \"\" }", "is not `host:port`"),
        ("{ brokers: [] }", "no broker"),
        ("{ brokers: \"a:1,b\" }", "`b` is not `host:port`"),
        ("{ brokers: \"http://a:1\" }", "is not `host:port`"),
        ("{ brokers: \"a:1\", timeout: 10ms }", "at least `1s`"),
        ("{ brokers: \"a:1\", properties: { sasl.password: x } }", "has its own place"),
        ("{ brokers: \"a:1\", properties: { surely.unknown: x } }", "cannot be set"),
        ("{ brokers: \"a:1\", properties: { linger.ms: soon } }", "librdkafka refuses"),
        ("{ brokers: \"a:1\", security: { key: k.pem } }", "go together"),
        ("{ brokers: \"a:1\", security: { tls: false, ca: c.pem } }", "`tls` is off"),
        ("{ brokers: \"a:1\", security: { sasl: { mechanism: GSSAPI } } }", "unknown value `GSSAPI`"),
    ] {
        let problems = connection(text).unwrap_err();
        assert!(format!("{problems:?}").contains(expected), "{text}: {problems:?}");
    }
    for topic in ["\"\"", "a/b", "\"..\""] {
        assert!(TargetConfig::check(&node(&format!("{{ topic: {topic} }}"))).is_err(), "{topic}");
    }
}

#[test]
fn secrets_are_shown_nowhere() {
    let text = "{ brokers: \"a:1\", security: { tls: true, sasl: { mechanism: SCRAM-SHA-512, username: u, password: hunter2 } } }";
    let config = connection(text).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    let client = config.client().unwrap();
    assert_eq!(
        (client.get("security.protocol"), client.get("sasl.password")),
        (Some("sasl_ssl"), Some("hunter2"))
    );
}
