use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::yaml::{self, Source};
use crate::{AttributeValue, Message};

fn mapping(rule: &str) -> Result<Mapping, String> {
    let source = Arc::new(Source { name: "r.yaml".into(), text: rule.to_owned() });
    let node = yaml::parse(source).expect("parses").or_empty_map();
    Mapping::parse(node.get("event"), node.get("data"))
        .map_err(|errors| errors.iter().map(|error| format!("{error:?}")).collect::<Vec<_>>().join("\n"))
}

fn event_of(rule: &str, payload: &[u8], content_type: Option<&str>) -> Result<CloudEvent, String> {
    let payload = Bytes::copy_from_slice(payload);
    let message = Message {
        id: "log/7",
        topic: "vehicles/v 7/telemetry",
        payload: &payload,
        time_ms: 1_714_564_800_000,
        client: "c1",
        user: Some("u"),
        qos: 1,
        retain: false,
        content_type,
        user_properties: &[("region", "eu")],
    };
    mapping(rule)?.event(&mut Context::new(&message)).map_err(|error| error.to_string())
}

fn data_of(rule: &str, payload: &str) -> Result<String, String> {
    let event = event_of(rule, payload.as_bytes(), None)?;
    Ok(String::from_utf8(event.data.unwrap_or_default().to_vec()).expect("UTF-8"))
}

#[test]
fn defaults() {
    let event = event_of("", b"{\"a\":1}", None).expect("maps");
    assert_eq!(event.id, "log/7");
    assert_eq!(event.ty, "io.tidemill.mqtt.publish");
    assert_eq!(event.source, "/tidemill");
    assert_eq!(event.subject.as_deref(), Some("vehicles/v 7/telemetry"));
    assert_eq!(event.time_ms, Some(1_714_564_800_000));
    assert_eq!(event.datacontenttype.as_deref(), Some("application/json"));
    assert_eq!(event.dataschema, None);
    assert_eq!(event.extensions, []);
    assert_eq!(event.data.as_deref(), Some(&b"{\"a\":1}"[..]));
}

#[test]
fn the_media_type_of_a_payload() {
    let of = |payload: &[u8], given| event_of("", payload, given).expect("maps").datacontenttype;
    assert_eq!(of(b"{}", Some("text/plain")).as_deref(), Some("text/plain"));
    assert_eq!(of(b"{}", Some("temperature")).as_deref(), Some("application/json"));
    assert_eq!(of(b"21.5 C", None).as_deref(), Some("application/octet-stream"));
    assert_eq!(of(b"\xff", None).as_deref(), Some("application/octet-stream"));
    assert_eq!(of(b"", Some("text/plain")), None);
    assert_eq!(event_of("", b"", None).expect("maps").data, None);
}

#[test]
fn the_payload_is_shared() {
    let payload = Bytes::from_static(b"{}");
    let message = Message {
        id: "i",
        topic: "t",
        payload: &payload,
        time_ms: 0,
        client: "c",
        user: None,
        qos: 0,
        retain: false,
        content_type: None,
        user_properties: &[],
    };
    let event = mapping("").expect("parses").event(&mut Context::new(&message)).expect("maps");
    assert_eq!(event.data.map(|data| data.as_ptr()), Some(payload.as_ptr()));
}

#[test]
fn attributes() {
    let rule = "
event:
  type: com.example.{{ data.kind }}
  source: /vehicles/{{ topic[1] }}
  subject: '{{ property.region }}'
  time: '{{ data.at }}'
  datacontenttype: application/vnd.example+json
  dataschema: https://example.com/{{ data.kind }}
  extensions: { partitionkey: '{{ client }}', qos: 1, urgent: true, note: constant }
";
    let event = event_of(rule, br#"{"kind":"heat","at":"2024-05-01T14:00:00+02:00"}"#, None).expect("maps");
    assert_eq!(event.ty, "com.example.heat");
    assert_eq!(event.source, "/vehicles/v%207");
    assert_eq!(event.subject.as_deref(), Some("eu"));
    assert_eq!(event.time_ms, Some(1_714_564_800_000));
    assert_eq!(event.datacontenttype.as_deref(), Some("application/vnd.example+json"));
    assert_eq!(event.dataschema.as_deref(), Some("https://example.com/heat"));
    let text = |text: &str| AttributeValue::String(text.into());
    assert_eq!(
        event.extensions,
        [
            ("partitionkey".into(), text("c1")),
            ("qos".into(), AttributeValue::Integer(1)),
            ("urgent".into(), AttributeValue::Boolean(true)),
            ("note".into(), text("constant")),
        ]
    );
}

#[test]
fn data_is_built() {
    let payload = r#"{"engine":{"temp_c":111.5,"rpm":900},"wheels":[{"bar":2.1},{"bar":2.2}],"n":null}"#;
    for (rule, expected) in [
        (
            "data: { vehicle: '{{ topic[1] }}', temp_c: '{{ data.engine.temp_c }}' }",
            r#"{"vehicle":"v 7","temp_c":111.5}"#,
        ),
        ("data: { z: 1, a: [true, ~, 'x{{ qos }}', '{{ qos }}'] }", r#"{"z":1,"a":[true,null,"x1",1]}"#),
        ("data: '{{ data.engine }}'", r#"{"rpm":900,"temp_c":111.5}"#),
        ("data: 'hot: {{ data.engine.temp_c }}'", r#""hot: 111.5""#),
        ("data: { jsonpath: '$.engine.temp_c' }", "111.5"),
        ("data: { all: { jsonpath: '$.wheels[*].bar' } }", r#"{"all":[2.1,2.2]}"#),
        ("data: { one: { jsonpath: '$.wheels[?@.bar > 2.15].bar' } }", r#"{"one":2.2}"#),
        ("data: { x: { jsonpath: '$.none', default: [] } }", r#"{"x":[]}"#),
        ("data: { 'odd \" key': {} }", r#"{"odd \" key":{}}"#),
        ("data: 5", "5"),
        ("{ event: { datacontenttype: text/plain }, data: '{{ topic[1] }} is hot' }", "v 7 is hot"),
        ("{ event: { datacontenttype: text/plain }, data: { a: b } }", r#"{"a":"b"}"#),
    ] {
        assert_eq!(data_of(rule, payload).as_deref(), Ok(expected), "{rule}");
    }
    let event = event_of("data: { a: 1 }", b"", Some("text/plain")).expect("maps");
    assert_eq!(event.datacontenttype.as_deref(), Some("application/json"));
}

#[test]
fn errors_of_a_record_name_the_field() {
    let errors: Vec<String> = [
        ("data: { a: { b: ['x', '{{ data.none }}'] } }", "{}"),
        ("data: { a: { jsonpath: '$.none' } }", "{}"),
        ("data: { a: { jsonpath: '$.none' } }", "nothing"),
        ("event: { subject: '{{ data.s }}' }", r#"{"s":""}"#),
        ("event: { subject: '{{ data.s }}' }", r#"{"s":"a\nb"}"#),
        ("event: { time: '{{ data.t }}' }", r#"{"t":"noon"}"#),
        ("event: { extensions: { a: '{{ data.x }}' } }", "{}"),
        ("event: { dataschema: '{{ data.x }}' }", r#"{"x":"/relative"}"#),
        ("event: { source: '{{ data.x }}' }", r#"{"x":"a%zz"}"#),
    ]
    .iter()
    .map(|(rule, payload)| data_of(rule, payload).expect_err(rule))
    .collect();
    insta::assert_snapshot!(errors.join("\n"), @r"
    data.a.b[1]: `data.none` is missing in this message
    data.a: `$.none` is missing in this message
    data.a: `$.none` needs a JSON payload, and this one is not: expected ident at line 1 column 2
    event.subject: must not be empty
    event.subject: must not contain the character U+000A
    event.time: must be a time such as `2024-05-01T12:00:00Z`
    event.extensions.a: `data.x` is missing in this message
    event.dataschema: must be an absolute URI: one that begins with a scheme, as in `https:`
    event.source: must be a URI-reference: `%` must be followed by two hexadecimal digits
    ");
}

#[test]
fn errors_of_a_rule_name_the_place() {
    let errors: Vec<String> = [
        "event: { typ: x }",
        "event: { id: x }",
        "event: { type: '' }",
        "event: { source: 'a b' }",
        "event: { source: '1:2' }",
        "event: { dataschema: /relative }",
        "event: { datacontenttype: json }",
        "event: { time: noon }",
        "event: { type: 5 }",
        "event: { subject: \"a\\tb\" }",
        "event: { subject: 'vehicle {{ topik }}' }",
        "event: { extensions: { Bad-Name: x, source: y, n: 3000000000, f: 1.5, e: '' } }",
        "event: []",
        "data: ~",
        "data: { a: ['{{ data. }}', { jsonpath: 5 }] }",
        "data: { jsonpath: '$.a[' }",
        "data: { jsonpath: '$.a', fallback: 1 }",
    ]
    .iter()
    .map(|rule| mapping(rule).expect_err(rule))
    .collect();
    insta::assert_snapshot!(errors.join("\n"), @r#"
    r.yaml:1:10: unknown key `typ` under `event` (did you mean `type`? other attributes stand under `extensions`)
    r.yaml:1:10: unknown key `id` under `event` (the `id` is the record's own, so that consumers can drop duplicates by it)
    r.yaml:1:16: `event.type` must not be empty
    r.yaml:1:18: `event.source` must be a URI-reference: it has a character that must be percent-encoded
    r.yaml:1:18: `event.source` must be a URI-reference: the part before the first `:` is not a scheme; begin with `/` or `./`
    r.yaml:1:22: `event.dataschema` must be an absolute URI: one that begins with a scheme, as in `https:`
    r.yaml:1:27: `event.datacontenttype` must be a media type such as `application/json`
    r.yaml:1:16: `event.time` must be a time such as `2024-05-01T12:00:00Z`
    r.yaml:1:16: expected text, found a number (put it in quotes)
    r.yaml:1:19: `event.subject` must not contain the character U+0009
    r.yaml:1:31: unknown `topik` (did you mean `topic`? there is `topic`, `topic[1]`, `data`, `data.a.b[0]`, `payload`, `client`, `user`, `qos`, `retain`, `content_type`, `property.NAME`, `id`, `time`)
    r.yaml:1:24: `Bad-Name` cannot be an extension's name: lower-case letters a-z and digits, at most 20
    r.yaml:1:37: `source` is an attribute of CloudEvents itself and cannot be an extension
    r.yaml:1:51: `event.extensions.n` must fit into a signed 32-bit integer, and 3000000000 does not
    r.yaml:1:66: an extension's number must be an integer (put it in quotes to send it as text)
    r.yaml:1:74: `event.extensions.e` must not be empty
    r.yaml:1:8: expected a map, found a list
    r.yaml:1:7: `data` is empty (leave it out to send the payload as it is)
    r.yaml:1:21: expected a name after `.` (names with other characters than letters, digits, `_` and `-`: `["odd name"]`)
    r.yaml:1:40: expected text, found a number
    r.yaml:1:19: bad JSONPath: expected selector (as in `$.engine.temp_c` or `$.wheels[*].bar` (RFC 9535))
    r.yaml:1:26: unknown key `fallback` beside `jsonpath` (known here: `jsonpath`, `default`)
    "#);
}
