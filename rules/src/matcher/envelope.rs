//! Everything but the payload to leaves: the publish, and the attributes an event has by default.

use super::leaves::{Leaves, Value};
use super::paths::{Paths, ROOT};
use crate::pattern::Num;
use crate::{Message, attributes, mapping, topic};

/// The paths that conditions name outside the payload, resolved once.
#[derive(Debug, Default)]
pub(super) struct Envelope {
    id: Option<u32>,
    source: Option<u32>,
    ty: Option<u32>,
    subject: Option<u32>,
    time: Option<u32>,
    topic: Option<u32>,
    levels: Option<u32>,
    level_at: Vec<(i32, u32)>,
    client: Option<u32>,
    user: Option<u32>,
    qos: Option<u32>,
    retain: Option<u32>,
    content_type: Option<u32>,
    properties: Option<u32>,
    /// Paths that are objects.
    objects: Vec<u32>,
}

impl Envelope {
    pub(super) fn new(paths: &Paths) -> Envelope {
        let attribute = |name| paths.child(ROOT, name);
        let mqtt = attribute("mqtt");
        let of_mqtt = |name| mqtt.and_then(|mqtt| paths.child(mqtt, name));
        let levels = of_mqtt("levels");
        let by_number = levels.into_iter().flat_map(|levels| paths.children(levels));
        let properties = of_mqtt("properties");
        Envelope {
            id: attribute("id"),
            source: attribute("source"),
            ty: attribute("type"),
            subject: attribute("subject"),
            time: attribute("time"),
            topic: of_mqtt("topic"),
            levels,
            level_at: by_number.filter_map(|(name, path)| Some((name.parse().ok()?, path))).collect(),
            client: of_mqtt("client"),
            user: of_mqtt("user"),
            qos: of_mqtt("qos"),
            retain: of_mqtt("retain"),
            content_type: of_mqtt("content_type"),
            properties,
            objects: [mqtt, levels, properties].into_iter().flatten().collect(),
        }
    }

    /// Replaces `leaves` with those of a message.
    pub(super) fn extract(&self, paths: &Paths, message: &Message<'_>, leaves: &mut Leaves) {
        leaves.clear();
        for object in &self.objects {
            leaves.push_whole(*object);
        }
        let texts = [
            (self.id, Some(message.id)),
            (self.source, Some(mapping::SOURCE)),
            (self.ty, Some(mapping::TYPE)),
            (self.subject, Some(message.topic)),
            (self.topic, Some(message.topic)),
            (self.client, Some(message.client)),
            (self.user, message.user),
            (self.content_type, message.content_type),
        ];
        for (path, text) in texts {
            if let (Some(path), Some(text)) = (path, text) {
                leaves.push_text(path, text);
            }
        }
        if let Some(path) = self.time {
            leaves.push_written(path, |out| attributes::write_time(message.time_ms, out));
        }
        if let Some(path) = self.qos {
            leaves.push(path, Value::Number(Num::from(u64::from(message.qos))));
        }
        if let Some(path) = self.retain {
            leaves.push(path, Value::Bool(message.retain));
        }
        if let Some(path) = self.levels.filter(|path| paths.field(*path).is_some()) {
            for level in message.topic.split('/') {
                leaves.push_text(path, level);
            }
        }
        for (number, path) in &self.level_at {
            if let Some(level) = topic::level(message.topic, *number) {
                leaves.push_text(*path, level);
            }
        }
        if let Some(properties) = self.properties {
            for (name, value) in message.user_properties {
                if let Some(path) = paths.child(properties, name) {
                    leaves.push_text(path, value);
                }
            }
        }
        leaves.finish();
    }
}
