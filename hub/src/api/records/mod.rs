//! `/api/v1/records`: records of the store as JSON lines, up to now or as they come.
//!
//! `filter=FILTER` reads what was published to matching topics, `queue=NAME` the queue of that name (`rule/overheat`).
//! `from=latest` (the default) begins with the next message, `earliest` with the oldest there is, a time (RFC 3339)
//! with the first message stored at or after it, a position (`0-0000000004d2`, or its byte offset in the log, `1234`)
//! with the record there. `limit=N` ends after N records, `wait=10s` stays for more once everything was sent, and ends
//! when nothing came for so long; without `wait` the answer ends there.
//!
//! **All of the past, without a queue.** A filter's records are read from the log itself, a bounded step at a time, so
//! nothing is missing because nobody had subscribed yet. That costs the reading of everything after `from`, whatever
//! the filter lets through: to look at a day of a large log, begin at a time.
//!
//! **Going on.** Each line has `next`, the position after its record, and the head of the answer has `tidemill-next`,
//! the position where it begins. A stream that the hub ends early has a last line with `error` and `next`. Whoever asks
//! again with `from=` that position misses nothing and gets nothing twice.
//!
//! # Layout
//! - `params`: what is asked
//! - `source`: where records are read: the log or a queue
//! - `stream`: the lines
//! - `view`: a record as JSON

mod params;
mod source;
mod stream;
mod view;

pub(super) use source::first_entry;
pub(super) use stream::stream;
pub(super) use view::{RecordView, rfc3339};
