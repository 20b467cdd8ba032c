//! `tidemill store dump`: the record at a position, with everything that is stored of it.

use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::json;
use tidemill_store::tools::{self, Dump, Dumped, InQueue};
use tidemill_store::{Position, Record, Retain};

use super::Directory;
use crate::cli::api::shown;
use crate::cli::text::time;
use crate::cli::{Failed, print};
use crate::message::{self, Head};

/// Bytes in a line of a hex dump.
const LINE_BYTES: usize = 16;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The record's position, as `tidemill tail` prints it: 0-0000000004d2
    #[arg(value_name = "POSITION")]
    position: Position,
    #[command(flatten)]
    directory: Directory,
    /// Write the payload and nothing else
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    /// How many bytes of the payload to show
    #[arg(long, value_name = "N", default_value_t = 4096)]
    bytes: usize,
    /// Print JSON, with the payload in base64
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failed> {
    let dumped = match tools::dump(&args.directory.find()?, args.position).map_err(Failed::because)? {
        Dump::Record(dumped) => dumped,
        Dump::Nothing { before, after } => {
            return Err(Failed::because(nothing(args.position, before, after)));
        }
    };
    if args.raw {
        let mut out = std::io::stdout().lock();
        let done = out.write_all(&dumped.record.payload).and_then(|()| out.flush());
        return done.map_err(|error| Failed::because(format!("standard output: {error}")));
    }
    print(&if args.json { format!("{:#}\n", in_json(&dumped)) } else { told(&dumped, args.bytes) })
}

fn nothing(position: Position, before: Option<Position>, after: Option<Position>) -> String {
    let name = |what: &str, at: Option<Position>| match at {
        Some(at) => format!("the record {what} is at {at}"),
        None => format!("there is none {what}"),
    };
    format!("no record begins at {position}; {}, {}", name("before", before), name("after", after))
}

fn retain(record: &Record) -> &'static str {
    match record.retain {
        Retain::No => "no",
        Retain::Set => "set: becomes the topic's retained message",
        Retain::Clear => "clear: the topic has no retained message any more",
    }
}

fn told(dumped: &Dumped, bytes_max: usize) -> String {
    let Dumped { record, written_ms, durable_before, format, segment, segment_offset, queues } = dumped;
    let mut out = String::new();
    // Writing to a string does not fail.
    let mut row = |name: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(out, "{name:<15} {value}");
    };
    row("position", &record.position);
    row("sequence", &record.sequence);
    row("stored", &time(Some(record.time_ms)));
    if record.kept {
        row("written again", &time(Some(*written_ms)));
    }
    row("topic", &shown(&record.topic));
    row("size", &format!("{} bytes", record.size));
    row("retain", &retain(record));
    row("attributes", &format!("{:#04x} (QoS {})", record.attributes, message::qos(record).bits()));
    row("durable before", durable_before);
    row("segment", &format!("{} (format {format}), offset {segment_offset}", segment.display()));
    match Head::decode(&record.properties) {
        Ok(head) => {
            row("client", &shown(head.client));
            if let Some(user) = head.user {
                row("user", &shown(user));
            }
            if let Some(seconds) = head.message_expiry_s {
                row("expires after", &format!("{seconds} s"));
            }
            match message::view(record) {
                Ok(view) => {
                    let message = view.message("");
                    if let Some(content_type) = message.content_type {
                        row("content type", &shown(content_type));
                    }
                    for (name, value) in message.user_properties {
                        row("user property", &format!("{}={}", shown(name), shown(value)));
                    }
                }
                Err(_) => row("forwarded", &head.forwarded.escape_ascii()),
            }
        }
        Err(error) => {
            row("properties", &format!("{} ({error})", record.properties.escape_ascii()));
        }
    }
    for InQueue { id, name, offset } in queues {
        let offset = offset.map_or("not in the index yet".to_owned(), |offset| format!("offset {offset}"));
        row("queue", &format!("{} `{}`, {offset}", id.0, shown(name)));
    }
    row("payload", &format!("{} bytes", record.payload.len()));
    out + &payload(&record.payload, bytes_max)
}

/// As text if it is, else in hexadecimal.
fn payload(bytes: &[u8], bytes_max: usize) -> String {
    let text = std::str::from_utf8(bytes)
        .ok()
        .filter(|text| !text.chars().any(|c| c.is_control() && !c.is_whitespace()));
    let cut = bytes.get(..bytes_max).unwrap_or(bytes);
    let mut out = String::new();
    match text {
        Some(text) => {
            let end = (0..=cut.len()).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            out += text.get(..end).unwrap_or_default();
            if !out.is_empty() {
                out.push('\n');
            }
        }
        None => {
            for (line, bytes) in cut.chunks(LINE_BYTES).enumerate() {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x} ")).collect();
                let seen = bytes.iter().map(|byte| {
                    if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' }
                });
                let _ = writeln!(out, "{:08x}  {hex:<48} {}", line * LINE_BYTES, seen.collect::<String>());
            }
        }
    }
    if cut.len() < bytes.len() {
        let _ = writeln!(out, "({} more bytes; see --bytes and --raw)", bytes.len() - cut.len());
    }
    out
}

fn in_json(dumped: &Dumped) -> serde_json::Value {
    use base64::Engine as _;
    let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let record = &dumped.record;
    let queues = dumped
        .queues
        .iter()
        .map(|queue| json!({ "id": queue.id.0, "name": queue.name, "offset": queue.offset }));
    let head = Head::decode(&record.properties).ok();
    json!({
        "position": record.position.to_string(), "sequence": record.sequence, "time_ms": record.time_ms,
        "written_ms": dumped.written_ms, "kept": record.kept, "topic": &*record.topic, "size": record.size,
        "retain": match record.retain { Retain::No => "no", Retain::Set => "set", Retain::Clear => "clear" },
        "attributes": record.attributes, "durable_before": dumped.durable_before.to_string(),
        "format": dumped.format, "segment": dumped.segment.display().to_string(), "segment_offset": dumped.segment_offset,
        "client": head.map(|head| head.client), "user": head.and_then(|head| head.user),
        "message_expiry_s": head.and_then(|head| head.message_expiry_s),
        "properties_base64": encode(&record.properties), "payload_base64": encode(&record.payload),
        "queues": queues.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use tidemill_store::QueueId;

    use super::*;
    use crate::message::Properties;

    fn dumped(payload: &[u8], properties: bytes::Bytes) -> Dumped {
        Dumped {
            record: Record {
                position: Position::new(0, 1234),
                sequence: 42,
                time_ms: 1_700_000_000_123,
                topic: "vehicles/v1/telemetry".into(),
                properties,
                payload: payload.to_vec().into(),
                attributes: 1,
                retain: Retain::Set,
                kept: false,
                size: 120,
            },
            written_ms: 1_700_000_000_123,
            durable_before: Position::new(0, 1000),
            format: 2,
            segment: "data/log/0-000000000000.seg".into(),
            segment_offset: 1234,
            queues: vec![
                InQueue { id: QueueId(1), name: "vehicles/#".to_owned(), offset: Some(41) },
                InQueue { id: QueueId(2), name: "overheat".to_owned(), offset: None },
            ],
        }
    }

    #[test]
    fn shows_everything() {
        let properties = Properties {
            client: "v1".into(),
            user: Some("fleet".into()),
            message_expiry_s: Some(60),
            packet_id: None,
            // Content type, and one user property.
            forwarded: b"\x03\x00\x04text\x26\x00\x01k\x00\x01v"[..].into(),
        };
        insta::assert_snapshot!(told(&dumped(b"{\"temp\":11}", properties.encode().unwrap()), 4096));
        insta::assert_snapshot!(told(&dumped(b"\x00\x01binary and more of it\xff", b"\x09?"[..].into()), 20));
        insta::assert_snapshot!(format!("{:#}", in_json(&dumped(b"x", b"\x09?"[..].into()))));
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(payload("aé".as_bytes(), 2), "a\n(1 more bytes; see --bytes and --raw)\n");
        assert_eq!(payload(b"", 10), "");
    }

    #[test]
    fn names_what_is_near() {
        let at = |offset| Some(Position::new(0, offset));
        insta::assert_snapshot!(nothing(Position::new(0, 50), at(48), None));
    }
}
