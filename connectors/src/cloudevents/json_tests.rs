//! The JSON event format, judged by cloudevents-sdk.

use bytes::Bytes;
use cloudevents::{AttributesReader, Data, Event};
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use tidemill_rules::CloudEvent;

use super::*;
use crate::testing;

fn written(event: &CloudEvent, layout: Layout) -> Vec<u8> {
    let mut out = Vec::new();
    write_event(&mut out, event, layout);
    out
}

fn with_data(media_type: Option<&str>, data: &[u8]) -> CloudEvent {
    let mut event = testing::full_event();
    event.datacontenttype = media_type.map(str::to_owned);
    event.data = Some(Bytes::copy_from_slice(data));
    event
}

fn judged(event: &CloudEvent) -> Event {
    let out = written(event, Layout::AsIs);
    serde_json::from_slice(&out).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&out)))
}

#[test]
fn the_sdk_reads_every_attribute() {
    let event = judged(&testing::full_event());
    assert_eq!(event.id(), "id-1");
    assert_eq!(event.source(), "/vehicles/v1");
    assert_eq!(event.ty(), "com.example.overheat");
    assert_eq!(event.subject(), Some("v1"));
    assert_eq!(event.time().map(|time| time.timestamp_millis()), Some(1_709_210_096_789));
    assert_eq!(event.datacontenttype(), Some("application/json"));
    assert_eq!(event.dataschema().map(ToString::to_string).as_deref(), Some("https://example.com/schema"));
    assert_eq!(event.extension("hops"), Some(&cloudevents::event::ExtensionValue::Integer(-3)));
    assert_eq!(event.extension("urgent"), Some(&cloudevents::event::ExtensionValue::Boolean(true)));
    assert_eq!(event.data(), Some(&Data::Json(json!({"temp_c": 121.5}))));
}

#[test]
fn an_event_with_nothing_optional_is_whole() {
    let event = judged(&testing::event("bare", 0).event);
    assert_eq!(event.id(), "bare");
    assert_eq!((event.data(), event.time(), event.datacontenttype()), (None, None, None));
}

#[test]
fn json_goes_in_untouched() {
    let data = b" {\"n\": 1.50, \"big\": 123456789012345678901234567890 }\n";
    let out = written(&with_data(Some("application/vnd.x+JSON; v=1"), data), Layout::AsIs);
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("\"data\":{\"n\": 1.50, \"big\": 123456789012345678901234567890 }}"), "{text}");
}

#[test]
fn what_claims_to_be_json_and_is_not_travels_as_bytes() {
    for data in [&b"{\"a\":"[..], b"{} {}", b"\xff", b"", "[".repeat(5000).as_bytes()] {
        let out: Json =
            serde_json::from_slice(&written(&with_data(Some("application/json"), data), Layout::AsIs))
                .unwrap();
        assert_eq!(out.get("data"), None);
        assert_eq!(out["data_base64"], STANDARD.encode(data));
    }
}

#[test]
fn bytes_without_a_media_type_do_not_pass_for_json() {
    let event = judged(&with_data(None, b"\x00\x01"));
    assert_eq!(event.datacontenttype(), Some("application/octet-stream"));
    assert_eq!(event.data(), Some(&Data::Binary(vec![0, 1])));
    let event = judged(&with_data(None, b"[1]"));
    assert_eq!((event.datacontenttype(), event.data()), (None, Some(&Data::Json(json!([1])))));
}

#[test]
fn text_is_a_string_unless_its_charset_is_foreign() {
    assert_eq!(
        judged(&with_data(Some("text/plain"), "gr\u{fc}n\"\n".as_bytes())).data(),
        Some(&Data::String("grün\"\n".into()))
    );
    assert_eq!(
        judged(&with_data(Some("application/soap+xml"), b"<a/>")).data(),
        Some(&Data::String("<a/>".into()))
    );
    assert_eq!(
        judged(&with_data(Some("text/plain; charset=latin1"), b"abc")).data(),
        Some(&Data::Binary(b"abc".to_vec()))
    );
    assert_eq!(judged(&with_data(Some("text/plain"), b"\xfc")).data(), Some(&Data::Binary(b"\xfc".to_vec())));
}

#[test]
fn one_line_holds_any_json() {
    let data = b"{\r\n  \"text\": \"a\\nb\"\n}";
    let out = written(&with_data(Some("application/json"), data), Layout::OneLine);
    assert!(!out.contains(&b'\n') && !out.contains(&b'\r'));
    let out: Json = serde_json::from_slice(&out).unwrap();
    assert_eq!(out["data"], json!({"text": "a\nb"}));
}

#[test]
fn a_batch_is_an_array() {
    let events = [testing::full_event(), testing::event("two", 0).event];
    let mut out = Vec::new();
    write_batch(&mut out, events.iter());
    let read: Vec<Event> = serde_json::from_slice(&out).unwrap();
    assert_eq!(read.iter().map(AttributesReader::id).collect::<Vec<_>>(), ["id-1", "two"]);
    out.clear();
    write_batch(&mut out, std::iter::empty());
    assert_eq!(out, b"[]");
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<String>().prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
            prop::collection::hash_map(any::<String>(), inner, 0..6)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_text_and_json_arrives(id in ".+", subject in any::<String>(), data in any_json(), pretty in any::<bool>()) {
        let bytes = if pretty { serde_json::to_vec_pretty(&data) } else { serde_json::to_vec(&data) }.unwrap();
        let mut event = with_data(Some("application/json"), &bytes);
        event.id = id.clone();
        event.subject = Some(subject.clone());
        for layout in [Layout::AsIs, Layout::OneLine] {
            let read: Event = serde_json::from_slice(&written(&event, layout)).unwrap();
            prop_assert_eq!(read.id(), id.as_str());
            prop_assert_eq!(read.subject(), Some(subject.as_str()));
            // The sdk takes a `null` for no data at all.
            let expected = if data.is_null() { None } else { Some(Data::Json(data.clone())) };
            prop_assert_eq!(read.data().cloned().filter(|data| *data != Data::Json(Json::Null)), expected);
        }
    }

    #[test]
    fn any_bytes_arrive(data in prop::collection::vec(any::<u8>(), 1..200)) {
        let event = judged(&with_data(Some("application/octet-stream"), &data));
        prop_assert_eq!(event.data(), Some(&Data::Binary(data)));
    }
}
