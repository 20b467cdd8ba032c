//! Values that can be read, and are of no use by themselves or do not go together.

use std::path::Path;

use tidemill_rules::Diagnostic;
use tidemill_rules::yaml::Node;

use super::flags::{Flags, flag_diagnostic};
use super::settings::{HttpSettings, LogSettings, Telemetry};
use crate::{mqtt, telemetry};

/// Bytes that a record may have beside what came in its packet: its header, client identifier and user name.
const RECORD_EXTRA_BYTES: u64 = 256 << 10;

/// The value of a section's key, if it is written.
fn written<'a>(main: &'a Node, section: &str, key: &str) -> Option<&'a Node> {
    main.get(section)?.get(key)
}

/// The value of a section's key, or what comes nearest to it.
pub(super) fn at<'a>(main: &'a Node, section: &str, key: &str) -> &'a Node {
    let section = main.get(section);
    section.and_then(|section| section.get(key)).or(section).unwrap_or(main)
}

/// A data directory without a name.
pub(super) fn no_dir(flags: &Flags, main: Option<&Node>, setting: Option<&Path>) -> Option<Diagnostic> {
    let empty = |path: &Path| path.as_os_str().is_empty();
    let (message, hint) = ("the data directory has no name", "as in `./tidemill-data`");
    match (&flags.data_dir, setting, main) {
        (Some(path), ..) if empty(path) => {
            Some(flag_diagnostic("--data-dir", "", message.to_owned(), Some(hint)))
        }
        (None, Some(path), Some(main)) if empty(path) => {
            Some(main.get("data_dir").unwrap_or(main).diagnostic(message).with_hint(hint))
        }
        _ => None,
    }
}

/// Values that are of no use by themselves. Without a file they are the defaults, which are.
pub(super) fn useless(
    main: &Node,
    log: &LogSettings,
    http: &HttpSettings,
    logs: &Telemetry,
) -> Vec<Diagnostic> {
    let sections = [("log", log.useless()), ("http", http.useless())];
    let zeros = sections.into_iter().flat_map(|(section, keys)| {
        keys.into_iter().map(move |key| {
            let message = format!("`{section}.{key}` is 0, with which nothing works");
            at(main, section, key).diagnostic(message).with_hint("leave it out for the default")
        })
    });
    let level = telemetry::filter(&logs.level).err();
    let level = level.map(|error| {
        at(main, "telemetry", "level").diagnostic(error.to_string()).with_hint(telemetry::LEVEL_HINT)
    });
    zeros.chain(level).collect()
}

/// Values that do not go together. Without a file they are the defaults, which do.
pub(super) fn mismatch(
    main: &Node,
    mqtt: &mqtt::Options,
    store: &tidemill_store::Options,
) -> Vec<Diagnostic> {
    // Listeners have been looked at one by one.
    let wrong = mqtt.wrong().into_iter().filter(|error| error.key != "listeners");
    let place = |error: &mqtt::OptionError| {
        let other = error.above.and_then(|other| written(main, "mqtt", other));
        let other = other.filter(|_| written(main, "mqtt", error.key).is_none());
        other.unwrap_or_else(|| at(main, "mqtt", error.key))
    };
    let mut problems: Vec<Diagnostic> = wrong
        .map(|error| {
            let hint = error.above.map(|other| format!("raise `{}` or lower `{other}`", error.key));
            place(&error).diagnostic(error.to_string()).with_hint_if(hint)
        })
        .collect();
    if !problems.is_empty() {
        return problems;
    }
    let (packet, record) = (mqtt.packet_bytes_max, u64::from(store.record_bytes_max));
    let fits = packet.saturating_add(RECORD_EXTRA_BYTES) <= record;
    if fits {
        return problems;
    }
    let message = format!(
        "`mqtt.packet_bytes_max` ({packet}) does not fit into `log.record_bytes_max` ({record}) with the \
         {RECORD_EXTRA_BYTES} bytes that a record has beside the packet"
    );
    // One of them is written: the defaults go together.
    let packet_node = written(main, "mqtt", "packet_bytes_max");
    let node = packet_node.unwrap_or_else(|| at(main, "log", "record_bytes_max"));
    problems.push(node.diagnostic(message).with_hint("lower the one or raise the other"));
    problems
}

#[cfg(test)]
mod tests {
    use crate::config::inline::problems;

    #[test]
    fn a_level_is_one_or_is_refused_with_its_place() {
        for good in ["warn", "off", "info,tidemill_hub::router=debug", "error,[connection]=trace"] {
            assert_eq!(problems(&format!("telemetry: {{ level: \"{good}\" }}\n")), "");
        }
        for bad in ["loud", "", "foo=bar=baz", "info,tidemill_hub", "tidemill_hub=loud"] {
            let told = problems(&format!("telemetry: {{ level: \"{bad}\" }}\n"));
            assert!(told.contains("tidemill.yaml:1:21") && told.contains("help: write "), "{bad}: {told}");
        }
    }

    #[test]
    fn sizes_that_do_not_go_together_are_told_where_one_is_written() {
        for (text, place, words) in [
            (
                "mqtt:\n  threads: 2\n  payload_bytes_max: 2MiB\n",
                "tidemill.yaml:3:22",
                "raise `packet_bytes_max`",
            ),
            (
                "mqtt:\n  threads: 2\n  packet_bytes_max: 1MiB\n",
                "tidemill.yaml:3:21",
                "raise `packet_bytes_max`",
            ),
            ("log:\n  shards: 2\n  record_bytes_max: 1MiB\n", "tidemill.yaml:3:21", "lower the one"),
            (
                "mqtt:\n  threads: 2\n  packet_bytes_max: 300MiB\nlog: { record_bytes_max: 1MiB }\n",
                "tidemill.yaml:3:21",
                "lower the one",
            ),
            ("mqtt:\n  threads: 2\n  topic_bytes_max: 65536\n", "tidemill.yaml:3:20", "MQTT allows 65535"),
        ] {
            let told = problems(text);
            assert!(told.contains(place) && told.contains(words), "{text}{told}");
            assert_eq!(told.matches('×').count(), 1, "{told}");
        }
    }
}
