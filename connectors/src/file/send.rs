//! A batch, off the async threads.

use std::io::ErrorKind;
use std::sync::{Arc, PoisonError};

use super::SharedWriter;
use super::config::{ConnectionConfig, TargetConfig};
use super::encode::encode;
use super::writer::WriteError;
use crate::outcome::Outcome;
use crate::{Fault, OutEvent, SendError, outcome};

/// Appends a batch and, with `fsync`, waits until it is on the disk.
pub(super) async fn send(
    writer: &SharedWriter,
    connection: &ConnectionConfig,
    config: TargetConfig,
    batch: &[OutEvent],
) -> Vec<Outcome> {
    let (lines, outcomes) = encode(config, batch);
    if lines.is_empty() {
        return outcomes;
    }
    let writer = Arc::clone(writer);
    // One blocking call at a time for each target: `send` is awaited before the next.
    let appended = tokio::task::spawn_blocking(move || {
        writer.lock().unwrap_or_else(PoisonError::into_inner).append(&lines, config.fsync)
    });
    let failed = match appended.await {
        Ok(Ok(())) => return outcomes,
        Ok(Err(error)) => classify(connection, &error),
        Err(_) => SendError::retry(format!("connection `{}`: writing did not end", connection.name)),
    };
    let mut outcomes: Vec<Outcome> =
        outcomes.into_iter().map(|outcome| outcome.and_then(|()| Err(failed.clone()))).collect();
    outcome::hold_back(batch, &mut outcomes);
    outcomes
}

/// What follows from a failure.
pub(super) fn classify(connection: &ConnectionConfig, error: &WriteError) -> SendError {
    let message = format!("connection `{}`: file {}: {error}", connection.name, connection.path.display());
    match error {
        WriteError::Locked | WriteError::NoFile => SendError::stop(message),
        WriteError::Io { error, .. } => match error.kind() {
            // A path that is not there, or a right that is missing: somebody has to help.
            ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::NotADirectory
            | ErrorKind::IsADirectory
            | ErrorKind::ReadOnlyFilesystem => SendError::stop(message),
            // A full disk, or one that fails, may be well again by the next attempt.
            _ => SendError { fault: Fault::Ours, ..SendError::retry(message) },
        },
    }
}
