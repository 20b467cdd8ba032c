//! What a client may say: the topic and the payload of a PUBLISH, and of a will.

use super::super::codec::{ReasonCode, topic};
use super::super::limits::Limit;
use super::super::shared::Shared;
use super::super::sys;

/// Why a message is not taken.
pub(super) struct Refusal {
    /// The code for an answer that is about the message alone: a PUBACK, a PUBREC, a CONNACK for a will.
    pub(super) ack: ReasonCode,
    /// The code for a DISCONNECT, where there is no such answer.
    pub(super) close: ReasonCode,
    pub(super) what: &'static str,
}

impl Refusal {
    /// One with the same code in all answers.
    pub(super) fn of(reason: ReasonCode, what: &'static str) -> Self {
        Refusal { ack: reason, close: reason, what }
    }
}

/// Refuses topics and payloads that this server does not take; `is_text` says that the payload is said to be.
pub(super) fn check(shared: &Shared, topic: &str, payload: &[u8], is_text: bool) -> Result<(), Refusal> {
    let options = &shared.options;
    if payload.len() as u64 > options.payload_bytes_max {
        shared.counters.reached(Limit::PayloadBytes);
        return Err(Refusal {
            ack: ReasonCode::QUOTA_EXCEEDED,
            close: ReasonCode::PACKET_TOO_LARGE,
            what: "the payload is larger than payload_bytes_max",
        });
    }
    if options.payload_format_check && is_text && std::str::from_utf8(payload).is_err() {
        let what = "the payload is said to be text and is not UTF-8 (3.1.3.2.3, 3.3.2.3.2)";
        return Err(Refusal::of(ReasonCode::PAYLOAD_FORMAT_INVALID, what));
    }
    if sys::is_own(topic) {
        let what = "topics under $SYS/ are the server's own";
        return Err(Refusal::of(ReasonCode::NOT_AUTHORIZED, what));
    }
    if topic.len() > options.topic_bytes_max {
        shared.counters.reached(Limit::TopicBytes);
        let what = "the topic is longer than topic_bytes_max";
        return Err(Refusal::of(ReasonCode::TOPIC_NAME_INVALID, what));
    }
    if topic::levels(topic) > options.topic_levels_max {
        shared.counters.reached(Limit::TopicLevels);
        let what = "the topic has more levels than topic_levels_max";
        return Err(Refusal::of(ReasonCode::TOPIC_NAME_INVALID, what));
    }
    Ok(())
}
