//! The table of limits in `docs/configuration.md` names every limit that is counted, at its default, and every one has a
//! test here that reaches it, sees its counter and knows its reason code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::hub;

/// The limit of connections of one listener, as it is counted and as the table calls it.
const OF_LISTENERS: (&str, &str) = ("listeners.limits.connections_max", "connections_max` of a listener");

/// The tests that reach a limit: the file in this folder, and the function.
const TESTS: &[(&str, &[(&str, &str)])] = &[
    ("connections_max", &[("connections", "one_connection_too_many_is_told_so")]),
    ("listeners.limits.connections_max", &[("connections", "a_listener_has_limits_of_its_own")]),
    ("connection_rate", &[("connections", "connections_that_come_too_fast_are_told_so")]),
    (
        "connect_timeout",
        &[
            ("connect", "who_does_not_come_to_the_end_of_its_connect_is_closed"),
            ("logins", "a_login_waits_no_longer_than_connect_timeout"),
            ("logins", "a_proof_that_does_not_come_to_its_end_counts_as_well"),
        ],
    ),
    ("keep_alive_max", &[("connect", "a_longer_keep_alive_is_replaced_and_holds")]),
    ("packet_bytes_max", &[("packets", "what_is_too_large_is_refused_with_its_reason")]),
    ("payload_bytes_max", &[("packets", "what_is_too_large_is_refused_with_its_reason")]),
    ("topic_levels_max", &[("packets", "what_is_too_large_is_refused_with_its_reason")]),
    ("topic_bytes_max", &[("packets", "what_is_too_large_is_refused_with_its_reason")]),
    ("subscriptions_per_session_max", &[("packets", "what_is_too_large_is_refused_with_its_reason")]),
    ("sessions_max", &[("connections", "sessions_that_outlive_their_connection_are_counted")]),
    ("session_expiry_max", &[("connect", "a_longer_life_of_a_session_is_cut_short")]),
    ("receive_maximum", &[("packets", "what_is_too_large_is_refused_with_its_reason")]),
    ("inflight_max", &[("packets", "a_client_that_does_not_acknowledge_gets_no_more_than_the_window")]),
    (
        "out_buffer_bytes_max",
        &[("packets", "what_waits_for_a_socket_is_bounded_and_the_rest_waits_in_the_log")],
    ),
    ("topic_alias_max", &[("packets", "an_alias_over_the_highest_one_closes")]),
    ("client_messages_per_s", &[("rates", "a_client_is_slowed_down_to_its_messages_in_a_second")]),
    ("client_bytes_per_s", &[("rates", "a_client_is_slowed_down_to_its_bytes_in_a_second")]),
    ("listener_messages_per_s", &[("rates", "clients_of_a_listener_share_its_rate")]),
    ("listener_bytes_per_s", &[("rates", "clients_of_a_listener_share_its_bytes")]),
    ("lag_messages_max", &[("lag", "a_slow_subscriber_is_disconnected_and_loses_nothing")]),
    ("lag_time_max", &[("lag", "a_slow_subscriber_is_disconnected_and_loses_nothing")]),
];

/// What a row of the table says of one limit.
struct Row {
    default: String,
    /// The column of reason codes in 5.0.
    reason: String,
}

/// The keys of all limits, below `mqtt`.
pub(super) fn keys() -> impl Iterator<Item = String> {
    table().into_keys()
}

/// The rows of the table, by the key under which reaching the limit is counted.
fn table() -> BTreeMap<String, Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let page = fs::read_to_string(path).expect("the page");
    let section = page.split("\n## Limits of MQTT\n").nth(1).expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let lines = section.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let mut rows = BTreeMap::new();
    for line in lines.take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [keys, defaults, _, reason, _] = cells[..] else { panic!("not five columns: {line}") };
        let keys: Vec<String> = match keys.contains(OF_LISTENERS.1) {
            true => vec![OF_LISTENERS.0.to_owned()],
            false => keys.split('`').skip(1).step_by(2).map(str::to_owned).collect(),
        };
        // One for each, or one for all.
        let defaults = defaults.split(", ").cycle();
        for (key, default) in keys.into_iter().zip(defaults) {
            let row = Row { default: default.to_owned(), reason: reason.to_owned() };
            assert!(rows.insert(key.clone(), row).is_none(), "{key} has two rows");
        }
    }
    rows
}

/// A default as `/metrics` shows it: `1152KiB` in bytes, `10s` in seconds, `none` as 0.
fn number(default: &str) -> f64 {
    let digits = default.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor = match &default[digits.len()..] {
        "none" => return 0.0,
        "" | "s" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        unit => panic!("the unit `{unit}`"),
    };
    f64::from(factor * digits.parse::<i32>().expect("a number"))
}

/// The text of a test of this folder.
fn test(file: &str, function: &str) -> String {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/system/limits").join(file).with_extension("rs");
    let source = fs::read_to_string(path).expect("a source file");
    let head = format!("\nasync fn {function}() {{");
    let (before, after) = source.split_once(&head).unwrap_or_else(|| panic!("{file} has no test {function}"));
    assert!(before.lines().next_back().is_some_and(|line| line.starts_with("#[tokio::test")), "{function}");
    after.split("\n}\n").next().unwrap_or_default().to_lowercase()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_limit_has_a_row_and_a_test() {
    let hub = hub("sys_interval: 0s").await;
    let metrics = hub.metrics().await;
    let counted = metrics.by_label("tidemill_mqtt_limit_reached_total", "limit");
    let counted: BTreeSet<&str> = counted.keys().filter_map(|key| key.strip_prefix("mqtt.")).collect();
    let table = table();
    assert_eq!(
        table.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        counted,
        "rows, and what is counted"
    );
    assert_eq!(
        TESTS.iter().map(|(key, _)| *key).collect::<BTreeSet<_>>(),
        counted,
        "tests, and what is counted"
    );
    for (key, tests) in TESTS {
        let Row { default, reason } = &table[*key];
        if *key != OF_LISTENERS.0 {
            let shown = metrics.sum("tidemill_limit", &[("name", &format!("mqtt.{key}"))]);
            assert_eq!(shown, Some(number(default)), "the default of {key}");
        }
        let tests: String = tests.iter().map(|(file, function)| test(file, function)).collect();
        let sees = tests.contains("reached(") || tests.contains("limit_reached_total");
        assert!(sees && tests.contains(key), "{key}: its test does not look at its counter");
        for code in reason.split("0x").skip(1) {
            let code = u8::from_str_radix(&code[..2], 16).expect("a reason code");
            let known = tests.contains(&format!("0x{code:02x}")) || tests.contains(&format!("{code}"));
            assert!(known, "{key}: no test of it knows the reason 0x{code:02x}");
        }
    }
}
