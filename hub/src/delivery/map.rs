//! Records of a rule's queue to the events that its target sends.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tidemill_connectors::{OutEvent, Target};
use tidemill_rules::{Context, Rule, RuleSet};
use tidemill_store::{ReadBatch, Record};

use super::batch::{Batch, Entry};
use crate::identity::EventIds;
use crate::message;

/// Maps the records of one rule for one of its targets.
pub(super) struct Mapper {
    /// The rules, and which of them it is.
    pub(super) set: Arc<RuleSet>,
    pub(super) rule: usize,
    /// The destination, for its templates.
    pub(super) target: Arc<dyn Target>,
    /// The events' ids.
    pub(super) ids: EventIds,
}

impl Mapper {
    /// The rule.
    pub(super) fn rule(&self) -> &Rule {
        &self.set.rules[self.rule]
    }

    /// Maps what was read, but for records up to `done`. What cannot be mapped can never be delivered: it is dead at
    /// once.
    pub(super) fn batch(&self, read: &ReadBatch, done: u64, now_ms: i64) -> Batch {
        let mut batch = Batch::new(read.next);
        for (offset, record) in &read.records {
            let (pointer, sequence) = (record.pointer(), record.sequence);
            let entry = Entry { offset: *offset, pointer, sequence, time_ms: record.time_ms };
            if sequence <= done {
                batch.push_done(entry);
                continue;
            }
            match self.event(record) {
                Ok(event) => batch.push(entry, event),
                Err(error) => batch.push_dead(entry, &error, now_ms),
            }
        }
        batch
    }

    fn event(&self, record: &Record) -> Result<OutEvent, String> {
        let view = message::view(record).map_err(|error| error.to_string())?;
        let id = self.ids.id(record.position);
        let message = view.message(&id);
        let mut cx = Context::new(&message);
        let event = self.rule().event(&mut cx).map_err(|error| error.to_string())?;
        let mut slots = Vec::with_capacity(self.target.templates().len());
        for template in self.target.templates() {
            let mut slot = String::new();
            template.render(&mut cx, &mut slot).map_err(|error| error.to_string())?;
            slots.push(slot);
        }
        Ok(OutEvent { event, slots, order_key: order_key(message.topic) })
    }
}

/// Events of one topic leave in the order they were published: that is the order MQTT promises
/// (5.0 section 4.6, "ordered topics"), and topics are what devices have of their own.
fn order_key(topic: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    topic.hash(&mut hasher);
    hasher.finish()
}
