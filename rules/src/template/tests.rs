use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::Message;

fn with_message<R>(payload: &str, run: impl FnOnce(&mut Context<'_>) -> R) -> R {
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    let message = Message {
        id: "log/7",
        topic: "vehicles/v 7/telemetry",
        payload: &payload,
        time_ms: 1_714_564_800_250,
        client: "c1",
        user: None,
        qos: 1,
        retain: true,
        content_type: Some("application/json"),
        user_properties: &[("region", "eu"), ("region", "us"), ("odd name", "x")],
    };
    run(&mut Context::new(&message))
}

const PAYLOAD: &str =
    r#"{"engine":{"temp_c":111.5,"on":true},"odd key":"o","list":[1,"two",null],"n":null,"s":"ü"}"#;

fn render(template: &str) -> Result<String, String> {
    let template = Template::parse(template).map_err(|error| error.to_string())?;
    with_message(PAYLOAD, |cx| {
        let mut out = String::new();
        template.render(cx, &mut out).map_err(|error| error.to_string())?;
        Ok(out)
    })
}

fn json(template: &str) -> Result<String, String> {
    let template = Template::parse(template).map_err(|error| error.to_string())?;
    with_message(PAYLOAD, |cx| {
        let mut out = Vec::new();
        template.write_json(cx, &mut out).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(out).expect("JSON is UTF-8"))
    })
}

#[test]
fn fills_every_kind_of_placeholder() {
    for (template, expected) in [
        ("", ""),
        ("plain { } text }}", "plain { } text }}"),
        ("{{ topic }}", "vehicles/v 7/telemetry"),
        ("{{topic[1]}}", "v 7"),
        ("{{ topic[-1] }}/{{ topic[0] }}", "telemetry/vehicles"),
        ("{{ data.engine.temp_c }}", "111.5"),
        ("{{ data[\"odd key\"] }}{{ data.list[0] }}{{ data.list[-2] }}", "o1two"),
        ("{{ data.engine }}", r#"{"on":true,"temp_c":111.5}"#),
        ("{{ data.s }}", "ü"),
        ("{{ payload }}", PAYLOAD),
        ("{{ client }} {{ qos }} {{ retain }} {{ content_type }}", "c1 1 true application/json"),
        ("{{ property.region }}{{ property[\"odd name\"] }}", "eux"),
        ("{{ id }} at {{ time }}", "log/7 at 2024-05-01T12:00:00.250Z"),
        ("{{ \"{{\" }} topic }}", "{{ topic }}"),
        ("{{ data.x | default: \"none\" }}{{ data.n | default: 5 }}{{ user | default: \"}}\" }}", "none5}}"),
    ] {
        assert_eq!(render(template).as_deref(), Ok(expected), "{template}");
    }
}

#[test]
fn what_is_missing_is_named() {
    for (template, expected) in [
        ("{{ data.engine.rpm }}", "`data.engine.rpm` is missing in this message"),
        ("{{ data.list[9] }}", "`data.list[9]` is missing in this message"),
        ("{{ data.list.x }}", "`data.list.x` is missing in this message"),
        ("{{ topic[3] }}", "`topic[3]` is missing in this message"),
        ("{{ topic[-4] }}", "`topic[-4]` is missing in this message"),
        ("{{ user }}", "`user` is missing in this message"),
        ("{{ property.x }}", "`property.x` is missing in this message"),
        ("{{ data.n }}", "`data.n` is null in this message"),
    ] {
        assert_eq!(render(template), Err(expected.to_owned()), "{template}");
    }
    let template = Template::parse("{{ data.x }}").expect("parses");
    let error = with_message("not json", |cx| template.render(cx, &mut String::new())).expect_err("no JSON");
    insta::assert_snapshot!(error, @r"`data.x` needs a JSON payload, and this one is not: expected ident at line 1 column 2");
    let template = Template::parse("{{ data.x | default: \"d\" }}").expect("parses");
    let mut out = String::new();
    with_message("not json", |cx| template.render(cx, &mut out)).expect("has a default");
    assert_eq!(out, "d");
}

#[test]
fn one_placeholder_keeps_its_json_type() {
    for (template, expected) in [
        ("{{ data.engine.temp_c }}", "111.5"),
        ("{{ data.engine.on }}", "true"),
        ("{{ data.list }}", r#"[1,"two",null]"#),
        ("{{ data.n }}", "null"),
        ("{{ qos }}", "1"),
        ("{{ retain }}", "true"),
        ("{{ topic[1] }}", r#""v 7""#),
        ("{{ data.x | default: 0 }}", "0"),
        ("{{ data.x | default: null }}", "null"),
        ("{{ data.engine.temp_c }} C", r#""111.5 C""#),
        ("constant", r#""constant""#),
    ] {
        assert_eq!(json(template).as_deref(), Ok(expected), "{template}");
    }
}

#[test]
fn errors_name_the_place_and_what_there_is() {
    let errors: Vec<String> = [
        "ü {{ topik }}",
        "{{ temp }}",
        "{{ }}",
        "{{ topic",
        "{{ topic.x }}",
        "{{ topic[x] }}",
        "{{ client.x }}",
        "{{ property }}",
        "{{ data.. }}",
        "{{ data.x | upper }}",
        "{{ data.x | default }}",
        "{{ data.x | default: none }}",
        "{{ data.x default }}",
        "{{ topic[99999999999] }}",
    ]
    .iter()
    .map(|text| match Template::parse(text) {
        Ok(template) => format!("{text} => {template:?}"),
        Err(error) => format!("{text} => {error}"),
    })
    .collect();
    insta::assert_snapshot!(errors.join("\n"), @r#"
    ü {{ topik }} => in the template at character 6: unknown `topik`; did you mean `topic`? there is `topic`, `topic[1]`, `data`, `data.a.b[0]`, `payload`, `client`, `user`, `qos`, `retain`, `content_type`, `property.NAME`, `id`, `time`
    {{ temp }} => in the template at character 4: unknown `temp`; there is `topic`, `topic[1]`, `data`, `data.a.b[0]`, `payload`, `client`, `user`, `qos`, `retain`, `content_type`, `property.NAME`, `id`, `time`; fields of the payload begin with `data.`
    {{ }} => in the template at character 4: expected a path; there is `topic`, `topic[1]`, `data`, `data.a.b[0]`, `payload`, `client`, `user`, `qos`, `retain`, `content_type`, `property.NAME`, `id`, `time`
    {{ topic => in the template at character 1: this `{{` is never closed; add `}}`; to write two braces as they are: `{{ "{{" }}`
    {{ topic.x }} => in the template at character 9: a topic has levels by number; as in `topic[1]`, from 0
    {{ topic[x] }} => in the template at character 9: expected a number or text in double quotes, and `]`; as in `[0]`, `[-1]` or `["odd name"]`
    {{ client.x }} => in the template at character 10: `client` has no parts that could be named here; there is `topic`, `topic[1]`, `data`, `data.a.b[0]`, `payload`, `client`, `user`, `qos`, `retain`, `content_type`, `property.NAME`, `id`, `time`
    {{ property }} => in the template at character 4: `property` needs the name of a user property; as in `property.region` or `property["odd name"]`
    {{ data.. }} => in the template at character 8: expected a name after `.`; names with other characters than letters, digits, `_` and `-`: `["odd name"]`
    {{ data.x | upper }} => in the template at character 13: unknown filter `upper`; the only filter is `default: "text"`
    {{ data.x | default }} => in the template at character 21: expected `:` after `default`
    {{ data.x | default: none }} => in the template at character 22: expected a literal; text in double quotes, a number, `true`, `false` or `null`
    {{ data.x default }} => in the template at character 11: expected `}}`; after a path there may be `| default: "text"`
    {{ topic[99999999999] }} => in the template at character 9: expected a number or text in double quotes, and `]`; as in `[0]`, `[-1]` or `["odd name"]`
    "#);
}

#[test]
fn everything_has_a_bound() {
    assert!(Template::parse(&"x".repeat(TEMPLATE_BYTES_MAX)).is_ok());
    assert!(Template::parse(&"x".repeat(TEMPLATE_BYTES_MAX + 1)).is_err());
    assert!(Template::parse(&"{{ id }}".repeat(PLACEHOLDERS_MAX)).is_ok());
    assert!(Template::parse(&"{{ id }}".repeat(PLACEHOLDERS_MAX + 1)).is_err());
    assert!(Template::parse(&format!("{{{{ data{} }}}}", ".a".repeat(65))).is_err());
}

#[test]
fn constants() {
    assert_eq!(Template::parse("a{{ \"b\" }}c").expect("parses").as_constant(), Some("abc"));
    assert_eq!(Template::constant("{{ topic }}").as_constant(), Some("{{ topic }}"));
    assert!(Template::parse("").expect("parses").is_constant());
    assert!(!Template::parse("{{ id }}").expect("parses").is_constant());
}

proptest! {
    #[test]
    fn parsing_never_panics(text in "\\PC*") {
        let _ = Template::parse(&text);
    }

    #[test]
    fn nor_on_what_is_nearly_a_template(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "{{", "}}", " ", "topic", "data", "property", ".", "[", "]", "\"", "1", "-1", "|", "default", ":", "ü", "\\",
            ]),
            0..24,
        ),
    ) {
        if let Ok(template) = Template::parse(&parts.concat()) {
            let _ = with_message(PAYLOAD, |cx| template.render(cx, &mut String::new()));
            let _ = with_message("[", |cx| template.write_json(cx, &mut Vec::new()));
        }
    }
}
