//! Logs: structured, to standard error, so that standard output stays for what was asked. And the recorder of what
//! is counted while it happens.

use std::io;
use std::sync::{Mutex, OnceLock};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Telemetry};

/// Where log lines go.
pub enum LogSink {
    /// Standard error.
    Stderr,
    /// A file, when standard error is a terminal that shows something else.
    File(std::fs::File),
}

/// How a `telemetry.level` is written.
pub const LEVEL_HINT: &str =
    "write error, warn, info, debug, trace or off, or directives such as `info,tidemill_hub::router=debug`";

/// A `telemetry.level` that is not one.
#[derive(Debug, thiserror::Error)]
#[error("`telemetry.level`: {0}")]
pub struct LevelError(String);

/// Starts logging for the whole process. A second call changes nothing, so that a test may start many hubs.
pub fn start(telemetry: &Telemetry, sink: LogSink) -> Result<(), LevelError> {
    let filter = filter(&telemetry.level)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    let installed = match (telemetry.log, sink) {
        (LogFormat::Text, LogSink::Stderr) => builder.with_writer(io::stderr).try_init(),
        // Log lines of deliveries have a field `target`, which must not stand beside another key of that name.
        (LogFormat::Json, LogSink::Stderr) => {
            builder.json().flatten_event(true).with_target(false).with_writer(io::stderr).try_init()
        }
        (LogFormat::Text, LogSink::File(file)) => builder.with_writer(Mutex::new(file)).try_init(),
        (LogFormat::Json, LogSink::File(file)) => {
            builder.json().flatten_event(true).with_target(false).with_writer(Mutex::new(file)).try_init()
        }
    };
    // The only error is that a logger is there already.
    drop(installed);
    Ok(())
}

/// What is logged at a level.
///
/// # Errors
/// A word that is no level. `EnvFilter` would take it for the name of a module, and log nothing else.
pub fn filter(level: &str) -> Result<EnvFilter, LevelError> {
    let words = level.split(',').map(str::trim).filter(|directive| !directive.contains(['=', '[']));
    for word in words {
        // Nothing would be read as `error`.
        if word.is_empty() || word.parse::<LevelFilter>().is_err() {
            return Err(LevelError(format!("`{word}` is no level")));
        }
    }
    // What connectors must keep out of logs (payloads, above all) stays out whatever the level is.
    let directives = [&[level], tidemill_connectors::LOG_DIRECTIVES].concat();
    EnvFilter::try_new(directives.join(",")).map_err(|error| LevelError(format!("`{level}`: {error}")))
}

/// The process's recorder of metrics, installed when it is first asked for. `None` if another program that this
/// library is part of has installed its own.
pub fn recorder() -> Option<&'static PrometheusHandle> {
    static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    RECORDER.get_or_init(|| PrometheusBuilder::new().install_recorder().ok()).as_ref()
}
