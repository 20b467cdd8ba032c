//! `tidemill tail`: print the records of a running hub.

use std::time::Duration;

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
    /// Where to begin: earliest, latest, a time (2026-01-31T12:00:00Z), or an offset of the queue
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
    let mut lines = Lines::default();
    loop {
        let chunk = response.chunk().await.map_err(|error| {
            Failed::because(format!(
                "the hub went away: {error}; go on with --from and the last offset or time"
            ))
        })?;
        let Some(chunk) = chunk else { return Ok(()) };
        let text = lines.take(&chunk, args.json)?;
        print(&text)?;
    }
}

/// Cuts lines out of what arrives.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// What to print for the lines that are complete now.
    fn take(&mut self, chunk: &[u8], json: bool) -> Result<String, Failed> {
        self.partial.extend_from_slice(chunk);
        let Some(end) = self.partial.iter().rposition(|byte| *byte == b'\n') else {
            if self.partial.len() > LINE_BYTES_MAX {
                return Err(Failed::because(format!(
                    "the hub sent a line of more than {LINE_BYTES_MAX} bytes"
                )));
            }
            return Ok(String::new());
        };
        let rest = self.partial.split_off(end + 1);
        let complete = std::mem::replace(&mut self.partial, rest);
        let complete = String::from_utf8_lossy(&complete);
        if json {
            return Ok(complete.into_owned());
        }
        complete.lines().map(line).collect()
    }
}

/// One record for people: time, topic, payload.
fn line(json: &str) -> Result<String, Failed> {
    let record: Value = serde_json::from_str(json)
        .map_err(|error| Failed::because(format!("the hub sent a bad line: {error}")))?;
    let text = |key: &str| record.get(key).and_then(Value::as_str);
    if let (Some(error), None) = (text("error"), text("position")) {
        return Err(Failed::because(error));
    }
    let (time, position) = (text("time").unwrap_or("?"), text("position").unwrap_or("?"));
    let topic = shown(text("topic").unwrap_or("?"));
    let payload = match (text("payload"), text("payload_base64")) {
        (Some(payload), _) => shown(payload),
        (None, Some(coded)) => format!("base64:{coded}"),
        (None, None) => String::new(),
    };
    Ok(format!("{time} {position} {topic} {payload}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"position":"0-0000000004d2","time":"2026-01-31T12:00:00.000Z","topic":"a/b","payload":"{\"t\":1}"}"#;

    #[test]
    fn lines_are_put_together_from_chunks() {
        let mut lines = Lines::default();
        let bytes = format!("{RECORD}\n{RECORD}\n");
        let (front, back) = bytes.as_bytes().split_at(RECORD.len() + 20);
        let first = lines.take(front, false).unwrap();
        assert_eq!(first, "2026-01-31T12:00:00.000Z 0-0000000004d2 a/b {\"t\":1}\n");
        assert_eq!(lines.take(back, false).unwrap(), first);
        assert_eq!(lines.take(b"{", true).unwrap(), "");
    }

    #[test]
    fn payloads_that_are_no_text_are_marked() {
        let shown = line(r#"{"position":"p","time":"t","topic":"a","payload_base64":"/w=="}"#).unwrap();
        assert_eq!(shown, "t p a base64:/w==\n");
    }

    #[test]
    fn an_error_line_ends_the_command() {
        assert!(line(r#"{"error":"the store is closed","offset":1}"#).is_err());
    }
}
