//! `tidemill tail`: print the records of a running hub.
//!
//! It ends well when `--limit` or `--wait` ends it. If the hub ends it, or is gone, the last line names the position to
//! go on from, so that a script or a person misses nothing.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tidemill_rules::units;

use super::api::{Address, shown};
use super::{Failed, print};

/// Longest line taken from the hub, in bytes.
const LINE_BYTES_MAX: usize = 512 << 20;

/// Print the records of a running hub
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// MQTT topic filter: vehicles/+/telemetry
    #[arg(value_name = "FILTER", required_unless_present = "queue")]
    filter: Option<String>,
    /// Read the queue of this name instead: rule/overheat
    #[arg(long, value_name = "NAME", conflicts_with = "filter")]
    queue: Option<String>,
    /// Where to begin: earliest, latest, a time (2026-01-31T12:00:00Z), or the position of a record
    /// (0-0000000004d2, or as a number its offset in the log: 1234)
    #[arg(long, value_name = "WHERE", default_value = "latest")]
    from: String,
    /// End after so many records
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// End when nothing came for so long; without it, go on until interrupted
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration)]
    wait: Option<Duration>,
    /// Print records as JSON, with everything that is known of them
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hub: Address,
}

pub(super) async fn run(args: Args) -> Result<(), Failed> {
    let wait = args.wait.map_or_else(|| "365d".to_owned(), |wait| format!("{}ms", wait.as_millis()));
    let mut query = vec![("from", args.from.clone()), ("wait", wait)];
    query.extend(args.filter.clone().map(|filter| ("filter", filter)));
    query.extend(args.queue.clone().map(|queue| ("queue", queue)));
    query.extend(args.limit.map(|limit| ("limit", limit.to_string())));
    let mut response = args.hub.get("/api/v1/records", &query).await?;
    let begins = response.headers().get("tidemill-next").and_then(|value| value.to_str().ok());
    // `latest` is another place the next time.
    let next = if args.from == "latest" { begins.unwrap_or("latest") } else { &args.from };
    let mut lines = Lines::new(args.json, next);
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                let taken = lines.take(&chunk);
                print(&std::mem::take(&mut lines.out))?;
                taken?;
            }
            Ok(None) if args.wait.is_some() || args.limit.is_some_and(|limit| lines.printed >= limit) => {
                return Ok(());
            }
            Ok(None) => return Err(lines.broken_off("the hub has ended the stream")),
            Err(_) => return Err(lines.broken_off("the connection to the hub is broken")),
        }
    }
}

/// Cuts lines out of what arrives.
struct Lines {
    json: bool,
    partial: Vec<u8>,
    /// What is to be printed.
    out: String,
    /// Records printed.
    printed: u64,
    /// Where to go on from after them.
    next: String,
}

/// What a line says beside the record.
#[derive(Deserialize)]
struct Mark {
    position: Option<String>,
    next: Option<String>,
    error: Option<String>,
}

impl Lines {
    fn new(json: bool, next: &str) -> Self {
        Lines { json, partial: Vec::new(), out: String::new(), printed: 0, next: next.to_owned() }
    }

    /// Adds to `out` the lines that are complete now. Fails when one says that the hub ends the stream.
    fn take(&mut self, chunk: &[u8]) -> Result<(), Failed> {
        self.partial.extend_from_slice(chunk);
        let Some(end) = self.partial.iter().rposition(|byte| *byte == b'\n') else {
            if self.partial.len() > LINE_BYTES_MAX {
                return Err(Failed::because(format!(
                    "the hub sent a line of more than {LINE_BYTES_MAX} bytes"
                )));
            }
            return Ok(());
        };
        let rest = self.partial.split_off(end + 1);
        let complete = std::mem::replace(&mut self.partial, rest);
        for json in String::from_utf8_lossy(&complete).lines() {
            let mark: Mark = parsed(json)?;
            if let (Some(error), None) = (&mark.error, &mark.position) {
                self.next = mark.next.unwrap_or_else(|| std::mem::take(&mut self.next));
                return Err(self.broken_off(&format!("the hub has ended the stream: {error}")));
            }
            if self.json {
                self.out.push_str(json);
                self.out.push('\n');
            } else {
                self.out.push_str(&line(&parsed(json)?));
            }
            self.printed += 1;
            self.next = mark.next.unwrap_or_else(|| std::mem::take(&mut self.next));
        }
        Ok(())
    }

    fn broken_off(&self, what: &str) -> Failed {
        Failed::because(format!("{what}; go on with --from {}", self.next))
    }
}

fn parsed<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, Failed> {
    serde_json::from_str(json).map_err(|error| Failed::because(format!("the hub sent a bad line: {error}")))
}

/// One record for people: time, position, topic, payload.
fn line(record: &Value) -> String {
    let text = |key: &str| record.get(key).and_then(Value::as_str);
    let (time, position) = (text("time").unwrap_or("?"), text("position").unwrap_or("?"));
    let topic = shown(text("topic").unwrap_or("?"));
    let payload = match (text("payload"), text("payload_base64")) {
        (Some(payload), _) => shown(payload),
        (None, Some(coded)) => format!("base64:{coded}"),
        (None, None) => String::new(),
    };
    format!("{time} {position} {topic} {payload}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"position":"0-0000000004d2","next":"0-0000000004ff","time":"2026-01-31T12:00:00.000Z","topic":"a/b","payload":"{\"t\":1}"}"#;

    fn said(failed: Failed) -> String {
        failed.0.unwrap_or_default()
    }

    #[test]
    fn lines_are_put_together_from_chunks() {
        let mut lines = Lines::new(false, "latest");
        let bytes = format!("{RECORD}\n{RECORD}\n");
        let (front, back) = bytes.as_bytes().split_at(RECORD.len() + 20);
        lines.take(front).unwrap();
        let first = "2026-01-31T12:00:00.000Z 0-0000000004d2 a/b {\"t\":1}\n";
        assert_eq!((lines.out.as_str(), lines.printed), (first, 1));
        lines.take(back).unwrap();
        assert_eq!((lines.out, lines.printed), (first.repeat(2), 2));
        let mut lines = Lines::new(true, "latest");
        lines.take(b"{").unwrap();
        assert_eq!(lines.out, "");
        lines.take(format!("{}\n", &RECORD[1..]).as_bytes()).unwrap();
        assert_eq!(lines.out, format!("{RECORD}\n"));
    }

    #[test]
    fn payloads_that_are_no_text_are_marked() {
        let record =
            serde_json::json!({ "position": "p", "time": "t", "topic": "a", "payload_base64": "/w==" });
        assert_eq!(line(&record), "t p a base64:/w==\n");
    }

    #[test]
    fn a_stream_that_breaks_off_says_where_to_go_on() {
        for json in [false, true] {
            let mut lines = Lines::new(json, "0-0000000000a6");
            assert_eq!(said(lines.broken_off("gone")), "gone; go on with --from 0-0000000000a6");
            lines.take(format!("{RECORD}\n{}", &RECORD[..9]).as_bytes()).unwrap();
            assert_eq!(said(lines.broken_off("gone")), "gone; go on with --from 0-0000000004ff");
            let mut lines = Lines::new(json, "earliest");
            let last = r#"{"error":"the hub is stopping","next":"0-000000000fff"}"#;
            let failed = lines.take(format!("{RECORD}\n{last}\n").as_bytes()).unwrap_err();
            let wanted =
                "the hub has ended the stream: the hub is stopping; go on with --from 0-000000000fff";
            assert_eq!(said(failed), wanted);
            assert_eq!(lines.out.lines().count(), 1, "the record before it is printed");
        }
    }

    #[test]
    fn a_record_that_cannot_be_shown_in_full_ends_nothing() {
        let mut lines = Lines::new(false, "earliest");
        lines.take(b"{\"position\":\"p\",\"next\":\"q\",\"error\":\"odd properties\"}\n").unwrap();
        assert_eq!((lines.printed, lines.next.as_str()), (1, "q"));
    }
}
