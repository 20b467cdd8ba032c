//! Rules and messages to events, as the hub does it.

use std::sync::Arc;

use bytes::Bytes;
use tidemill_connectors::{Connections, OutEvent, Sink, Target};
use tidemill_rules::yaml::{self, Source};
use tidemill_rules::{Context, Diagnostic, Message, RuleSet};

/// A rule with one target, checked.
pub(crate) struct Bench {
    rules: RuleSet,
    pub(crate) target: Arc<dyn Target>,
}

/// A message as a device might publish it.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) id: String,
    /// Last level of its topic; messages of one key have one order key.
    pub(crate) key: String,
    pub(crate) media_type: Option<String>,
    pub(crate) payload: Bytes,
}

impl Published {
    pub(crate) fn json(id: impl Into<String>, key: impl Into<String>) -> Self {
        let (id, key) = (id.into(), key.into());
        let payload = format!("{{ \"id\": \"{id}\" }}").into();
        Self { id, key, media_type: Some("application/json".to_owned()), payload }
    }
}

/// Loads a rule whose connection is `{ KIND: CONNECTION }` and whose target is `TARGET`, both in YAML's flow style.
pub(crate) fn load(
    kind: &str,
    connection: &str,
    target: &str,
) -> Result<(RuleSet, Connections), Vec<Diagnostic>> {
    let text = format!(
        "connections:\n  subject: {{ {kind}: {connection} }}\n\
         rules:\n  - name: conformance\n    from: {{ mqtt: [\"test/+\"] }}\n    \
         event: {{ type: com.example.test, source: \"/test/{{{{ topic[1] }}}}\", subject: \"{{{{ topic[1] }}}}\" }}\n    \
         to:\n      - subject: {target}\n"
    );
    let source = Source { name: "conformance.yaml".to_owned(), text };
    let rules = tidemill_rules::load(&[yaml::parse(Arc::new(source))?])?;
    let connections = Connections::check(&rules)?;
    Ok((rules, connections))
}

impl Bench {
    pub(crate) fn new(kind: &str, connection: &str, target: &str) -> Self {
        let (rules, connections) = load(kind, connection, target).unwrap_or_else(|problems| {
            let problems: Vec<_> = problems.iter().map(Diagnostic::render).collect();
            panic!("{}", problems.join("\n"))
        });
        Self { rules, target: connections.target(0, 0) }
    }

    pub(crate) fn sink(&self) -> Box<dyn Sink> {
        self.target.open().unwrap()
    }

    /// What the hub would hand to the sink.
    pub(crate) fn events(&self, published: &[Published]) -> Vec<OutEvent> {
        published.iter().map(|published| self.event(published)).collect()
    }

    fn event(&self, published: &Published) -> OutEvent {
        let topic = format!("test/{}", published.key);
        let message = Message {
            id: &published.id,
            topic: &topic,
            payload: &published.payload,
            time_ms: 1_709_210_096_789,
            client: "device",
            user: None,
            qos: 1,
            retain: false,
            content_type: published.media_type.as_deref(),
            user_properties: &[],
        };
        let mut context = Context::new(&message);
        let event = self.rules.rules[0].event(&mut context).unwrap();
        let slots = self.target.templates().iter().map(|template| {
            let mut slot = String::new();
            template.render(&mut context, &mut slot).unwrap();
            slot
        });
        let slots = slots.collect();
        // Any function will do that gives equal keys equal numbers.
        let order_key =
            published.key.bytes().fold(17, |hash: u64, byte| hash.wrapping_mul(31) + u64::from(byte));
        OutEvent { event, slots, order_key }
    }
}
