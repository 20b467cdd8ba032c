//! Logs: structured, to standard error, so that standard output stays for what was asked. And the recorder of what
//! is counted while it happens.

use std::io;
use std::sync::{Mutex, OnceLock};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Telemetry};

/// Where log lines go.
pub enum LogSink {
    /// Standard error.
    Stderr,
    /// A file, when standard error is a terminal that shows something else.
    File(std::fs::File),
}

/// A `telemetry.level` that is not one.
#[derive(Debug, thiserror::Error)]
#[error("telemetry.level `{level}`: {reason}; write error, warn, info, debug or trace")]
pub struct LevelError {
    level: String,
    reason: String,
}

/// Starts logging for the whole process. A second call changes nothing, so that a test may start many hubs.
pub fn start(telemetry: &Telemetry, sink: LogSink) -> Result<(), LevelError> {
    // What connectors must keep out of logs (payloads, above all) stays out whatever the level is.
    let directives: Vec<&str> = [telemetry.level.as_str()]
        .into_iter()
        .chain(tidemill_connectors::LOG_DIRECTIVES.iter().copied())
        .collect();
    let filter = EnvFilter::try_new(directives.join(","))
        .map_err(|error| LevelError { level: telemetry.level.clone(), reason: error.to_string() })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    let installed = match (telemetry.log, sink) {
        (LogFormat::Text, LogSink::Stderr) => builder.with_writer(io::stderr).try_init(),
        (LogFormat::Json, LogSink::Stderr) => {
            builder.json().flatten_event(true).with_writer(io::stderr).try_init()
        }
        (LogFormat::Text, LogSink::File(file)) => builder.with_writer(Mutex::new(file)).try_init(),
        (LogFormat::Json, LogSink::File(file)) => {
            builder.json().flatten_event(true).with_writer(Mutex::new(file)).try_init()
        }
    };
    // The only error is that a logger is there already.
    drop(installed);
    Ok(())
}

/// The process's recorder of metrics, installed when it is first asked for. `None` if another program that this
/// library is part of has installed its own.
pub fn recorder() -> Option<&'static PrometheusHandle> {
    static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    RECORDER.get_or_init(|| PrometheusBuilder::new().install_recorder().ok()).as_ref()
}
