//! Values that no limit can have: `tidemill check` names the key, the value, the place, and says what to do.

use std::fs;
use std::path::Path;

use tidemill_tests::services::tidemill::tidemill;

use super::table;

/// What `tidemill check` says of a key of `mqtt`, and whether it is good.
async fn checked(dir: &Path, key: &str, value: &str) -> (bool, String) {
    fs::write(dir.join("t.yaml"), format!("mqtt:\n  {key}: {value}\n")).unwrap();
    let ended = tidemill(dir, &["check", "t.yaml"]).await;
    (ended.status.success(), ended.output())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_limit_refuses_what_is_no_value_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let keys: Vec<String> = table::keys().filter(|key| !key.contains('.')).collect();
    assert!(keys.len() > 20, "{keys:?}");
    for key in keys {
        for value in ["-1", "-1s", "5x", "99999999999999999999", "\"\"", "1.5"] {
            let (good, told) = checked(dir.path(), &key, value).await;
            let place = format!("t.yaml:2:{}", key.len() + 5);
            assert!(!good && told.contains(&place) && told.contains(&key), "{key}: {value}\n{told}");
            let help = ["write a number with", "expected a", "does not fit into 64 bits"];
            assert!(help.iter().any(|help| told.contains(help)), "{key}: {value}\n{told}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_let_nothing_through_or_everything_is_told() {
    let dir = tempfile::tempdir().unwrap();
    for (key, value, words) in [
        ("connections_max", "0", "is 0, which lets nothing through; leave it out for the default"),
        (
            "subscriptions_per_session_max",
            "0",
            "is 0, which lets nothing through; leave it out for the default",
        ),
        ("payload_bytes_max", "0B", "is 0, which lets nothing through; leave it out for the default"),
        (
            "keep_alive_max",
            "999ms",
            "is 999ms, and whole seconds count; write at least 1s, or 0s for no limit",
        ),
        (
            "session_expiry_max",
            "1ms",
            "is 1ms, and whole seconds count; write at least 1s, or 0s for no limit",
        ),
        ("packet_bytes_max", "5GiB", "is 5368709120, which is over 4 GiB"),
        ("threads", "5000", "is 5000; write at most 1024, or 0 for one for each core"),
        ("receive_maximum", "65536", "a whole number from 0 to 65535, found `65536`"),
        ("lag_policy", "skip", "has nothing to go by; set `lag_messages_max`, `lag_time_max` or both"),
    ] {
        let (good, told) = checked(dir.path(), key, value).await;
        // Lines are broken for people.
        let flat: Vec<&str> = told.split_whitespace().filter(|word| *word != "│").collect();
        assert!(!good && flat.join(" ").contains(words) && told.contains(key), "{key}: {value}\n{told}");
    }
    let (good, told) = checked(dir.path(), "lag_time_max", "5s").await;
    assert!(good && told.contains("does nothing with `lag_policy: wait`"), "{told}");
    // As large as can be said, they do no harm.
    for key in ["connections_max", "sessions_max", "client_messages_per_s", "lag_messages_max"] {
        assert!(checked(dir.path(), key, "18446744073709551615").await.0, "{key}");
    }
}
