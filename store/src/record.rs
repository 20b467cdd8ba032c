//! Records as callers give and get them.

use bytes::Bytes;
use bytestring::ByteString;

use crate::Position;

/// What a record does to the retained message of its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Retain {
    /// Nothing: an ordinary message.
    #[default]
    No,
    /// This record becomes the topic's retained message.
    Set,
    /// The topic has no retained message any more.
    Clear,
}

/// A message to be appended to the log.
#[derive(Clone, Debug)]
pub struct NewRecord {
    /// The topic it was published to; decides which queues it enters.
    pub topic: ByteString,
    /// What the caller wants back beside the payload; opaque to the store.
    pub properties: Bytes,
    /// The payload; written to the log and nowhere else.
    pub payload: Bytes,
    /// A byte of the caller's own, opaque to the store.
    pub attributes: u8,
    /// What the record does to the retained message of its topic.
    pub retain: Retain,
}

/// A stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it stands in the log.
    pub position: Position,
    /// Counts the records of the whole log, over all shards, in the order in which the queues got them.
    pub sequence: u64,
    /// When the log took the message, in milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// The topic it was published to.
    pub topic: ByteString,
    /// See [`NewRecord::properties`].
    pub properties: Bytes,
    /// The payload.
    pub payload: Bytes,
    /// See [`NewRecord::attributes`].
    pub attributes: u8,
    /// See [`NewRecord::retain`].
    pub retain: Retain,
    /// A retained message that was written again, later than it was published: it is in no queue.
    pub kept: bool,
    /// Bytes the record takes in the log, its header included.
    pub size: u32,
}

impl Record {
    /// The pointer that an index entry holds for this record.
    #[must_use]
    pub fn pointer(&self) -> Pointer {
        Pointer { position: self.position, size: self.size }
    }
}

/// What an index entry holds: where a record is and how many bytes to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pointer {
    /// Where the record stands.
    pub position: Position,
    /// Bytes it takes in the log.
    pub size: u32,
}
