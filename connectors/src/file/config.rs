//! What a file connection and a file target may say.

use std::path::PathBuf;

use serde::Deserialize;
use tidemill_rules::yaml::Node;
use tidemill_rules::{Diagnostic, units};

/// Longest line, unless the target says otherwise.
const LINE_BYTES_DEFAULT: u64 = 16 * 1024 * 1024;
/// Longest line that can be allowed.
const LINE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// A connection that was found good.
#[derive(Debug)]
pub(super) struct ConnectionConfig {
    /// Its name.
    pub(super) name: String,
    /// The file.
    pub(super) path: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    path: PathBuf,
}

impl ConnectionConfig {
    /// Checks the body of a connection.
    pub(super) fn check(name: &str, body: &Node) -> Result<Self, Vec<Diagnostic>> {
        let written: Written = body.decode()?;
        let text = written.path.to_string_lossy();
        if text.is_empty() || text.ends_with('/') {
            let problem = body.get("path").unwrap_or(body).diagnostic("`path` must name a file");
            return Err(vec![problem.with_hint("path: events.jsonl")]);
        }
        Ok(Self { name: name.to_owned(), path: written.path })
    }
}

/// A target that was found good.
#[derive(Clone, Copy, Debug)]
pub(super) struct TargetConfig {
    /// Whether an event counts as delivered only when it survives the power.
    pub(super) fsync: bool,
    /// Longest line, in bytes.
    pub(super) line_bytes_max: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTarget {
    #[serde(default = "yes")]
    fsync: bool,
    #[serde(default, deserialize_with = "units::size_option")]
    line_max: Option<u64>,
}

fn yes() -> bool {
    true
}

impl TargetConfig {
    /// Checks the body of a target.
    pub(super) fn check(body: &Node) -> Result<Self, Vec<Diagnostic>> {
        let written: WrittenTarget = body.decode()?;
        let line_max = written.line_max.unwrap_or(LINE_BYTES_DEFAULT);
        match usize::try_from(line_max) {
            Ok(line_bytes_max) if (1_024..=LINE_BYTES_MAX).contains(&line_max) => {
                Ok(Self { fsync: written.fsync, line_bytes_max })
            }
            _ => {
                let place = body.get("line_max").unwrap_or(body);
                Err(vec![place.diagnostic("`line_max` must lie between `1KiB` and `1GiB`")])
            }
        }
    }
}
