//! Whether the file can be written.

use std::sync::{Arc, PoisonError};

use super::SharedWriter;
use super::config::ConnectionConfig;
use super::send::classify;
use crate::SendError;

/// Opens the file, as the next batch would. Nothing is written.
pub(super) async fn probe(writer: &SharedWriter, connection: &ConnectionConfig) -> Result<(), SendError> {
    let writer = Arc::clone(writer);
    let opened = tokio::task::spawn_blocking(move || {
        writer.lock().unwrap_or_else(PoisonError::into_inner).ensure_open()
    });
    match opened.await {
        Ok(opened) => opened.map_err(|error| classify(connection, &error)),
        Err(_) => Err(SendError::retry(format!("connection `{}`: the probe did not end", connection.name))),
    }
}
