//! `/api/v1/records`: records of the store as JSON lines, up to now or as they come.
//!
//! `filter=FILTER` reads what was published to matching topics, `queue=NAME` the queue of that name (`rule/overheat`).
//! `from=latest` (the default) begins with the next message, `earliest` with the oldest the queue has, a time
//! (RFC 3339) with the first message stored at or after it, a number with the entry of that offset. `limit=N` ends
//! after N records, `wait=10s` stays for more once everything was sent; without `wait` the answer ends there.
//!
//! **What history there is.** The store indexes a topic filter from the moment somebody needs it: a subscription, a
//! rule, or a request of this kind. There is no scan of the whole log. So for anything but `latest`, the records come
//! from the oldest queue whose filter covers the one asked for; if there is none, the request is refused and says so.
//!
//! # Layout
//! - `params`: what is asked
//! - `filter`: topic filters: what one matches, what one covers
//! - `source`: the queue to read
//! - `stream`: the lines
//! - `view`: a record as JSON

mod filter;
mod params;
mod source;
mod stream;
mod view;

pub(super) use filter::matches;
pub(super) use stream::stream;
pub(super) use view::{RecordView, rfc3339};
