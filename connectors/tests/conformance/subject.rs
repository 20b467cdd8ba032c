//! What a destination under test has to offer.

use std::collections::BTreeMap;

use async_trait::async_trait;
use cloudevents::{AttributesReader, Data, Event};

/// An event as it was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    /// Attributes by their names, `datacontenttype` too, as text.
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) data: Vec<u8>,
}

impl Received {
    pub(crate) fn id(&self) -> &str {
        self.attributes.get("id").map_or("", String::as_str)
    }

    /// Its order key: the subject, as the rule of the bench has it.
    pub(crate) fn key(&self) -> &str {
        self.attributes.get("subject").map_or("", String::as_str)
    }

    /// An event in the JSON event format, as cloudevents-sdk reads it.
    pub(crate) fn structured(document: &[u8]) -> Self {
        let event: Event = serde_json::from_slice(document).unwrap();
        Self::of(&event)
    }

    pub(crate) fn of(event: &Event) -> Self {
        let mut attributes = BTreeMap::from([
            ("specversion".to_owned(), event.specversion().to_string()),
            ("id".to_owned(), event.id().to_owned()),
            ("source".to_owned(), event.source().to_string()),
            ("type".to_owned(), event.ty().to_owned()),
        ]);
        attributes.extend(event.subject().map(|text| ("subject".to_owned(), text.to_owned())));
        let time = event
            .time()
            .map(|time| jiff::Timestamp::from_millisecond(time.timestamp_millis()).unwrap().to_string());
        attributes.extend(time.map(|text| ("time".to_owned(), text)));
        attributes
            .extend(event.datacontenttype().map(|text| ("datacontenttype".to_owned(), text.to_owned())));
        attributes.extend(event.iter_extensions().map(|(name, value)| (name.to_owned(), value.to_string())));
        let data = match event.data() {
            None => Vec::new(),
            Some(Data::Binary(bytes)) => bytes.clone(),
            Some(Data::String(text)) => text.clone().into_bytes(),
            Some(Data::Json(json)) => serde_json::to_vec(json).unwrap(),
        };
        Self { attributes, data }
    }
}

/// A destination: a fresh place in a server that only one check writes to.
#[async_trait(?Send)]
pub(crate) trait Subject {
    /// The kind of connector.
    fn kind(&self) -> &'static str;
    /// The connection, in YAML's flow style.
    fn connection(&self) -> String;
    /// A connection of this kind to where nobody listens, with `hunter2` wherever a secret can stand.
    fn nowhere(&self) -> String;
    /// Targets in the modes the kind has, in YAML's flow style.
    fn targets(&self) -> Vec<String>;
    /// A connection and a target that the server does not have: no such exchange, topic, path. `None` where the
    /// server makes whatever it is asked for.
    fn missing(&self) -> Option<(String, String)>;
    /// A target that refuses an event of more than [`LARGE`] bytes.
    fn narrow(&self) -> Option<String>;
    /// Everything that arrived since the last call, `expected` events if they come in time; in order for each key.
    async fn received(&mut self, expected: usize) -> Vec<Received>;
    /// Takes the server away; `false` if that cannot be done here.
    async fn take_away(&mut self) -> bool {
        false
    }
    /// Brings it back.
    async fn bring_back(&mut self) {}
}

/// More bytes than a narrow target takes.
pub(crate) const LARGE: usize = 1_500_000;
