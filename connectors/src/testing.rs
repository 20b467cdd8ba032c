//! Events for unit tests.

use bytes::Bytes;
use tidemill_rules::{AttributeValue, CloudEvent};

use crate::OutEvent;

/// An event with nothing optional.
pub(crate) fn event(id: &str, order_key: u64) -> OutEvent {
    let event = CloudEvent {
        id: id.to_owned(),
        source: "/test".to_owned(),
        ty: "test".to_owned(),
        subject: None,
        time_ms: None,
        datacontenttype: None,
        dataschema: None,
        extensions: Vec::new(),
        data: None,
    };
    OutEvent { event, slots: Vec::new(), order_key }
}

/// An event with everything.
pub(crate) fn full_event() -> CloudEvent {
    CloudEvent {
        id: "id-1".to_owned(),
        source: "/vehicles/v1".to_owned(),
        ty: "com.example.overheat".to_owned(),
        subject: Some("v1".to_owned()),
        time_ms: Some(1_709_210_096_789),
        datacontenttype: Some("application/json".to_owned()),
        dataschema: Some("https://example.com/schema".to_owned()),
        extensions: vec![
            ("partitionkey".to_owned(), AttributeValue::String("v1".to_owned())),
            ("hops".to_owned(), AttributeValue::Integer(-3)),
            ("urgent".to_owned(), AttributeValue::Boolean(true)),
        ],
        data: Some(Bytes::from_static(b"{\"temp_c\": 121.5}")),
    }
}
