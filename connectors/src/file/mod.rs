//! A file of JSON lines: each line a CloudEvent in the JSON event format.
//!
//! # Layout
//! - `config` what a connection and a target may say
//! - `encode` a batch as lines
//! - `writer` the open file: append, flush, torn lines, rotation
//! - `send`   a batch, off the async threads
//! - `probe`  whether the file can be written

mod config;
mod encode;
mod probe;
mod send;
mod writer;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tidemill_rules::yaml::Node;
use tidemill_rules::{Diagnostic, Template};

use self::config::{ConnectionConfig, TargetConfig};
use self::writer::Writer;
use crate::{BatchMax, Connection, Connector, OutEvent, SendError, Sink, Target};

/// Most events of a batch: one flush serves them all.
const BATCH_EVENTS_MAX: usize = 4_096;
/// Most bytes of data of a batch; its lines are built in memory before they are written.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The kind `file`.
pub(crate) struct File;

impl Connector for File {
    fn kind(&self) -> &'static str {
        "file"
    }

    fn connection(&self, name: &str, body: &Node) -> Result<Arc<dyn Connection>, Vec<Diagnostic>> {
        let config = Arc::new(ConnectionConfig::check(name, body)?);
        let writer = Arc::new(Mutex::new(Writer::new(Arc::clone(&config))));
        Ok(Arc::new(FileConnection { config, writer }))
    }
}

/// One writer for each connection: its targets append one after the other.
type SharedWriter = Arc<Mutex<Writer>>;

struct FileConnection {
    config: Arc<ConnectionConfig>,
    writer: SharedWriter,
}

impl Connection for FileConnection {
    fn target(&self, body: &Node) -> Result<Arc<dyn Target>, Vec<Diagnostic>> {
        let config = TargetConfig::check(body)?;
        let (connection, writer) = (Arc::clone(&self.config), Arc::clone(&self.writer));
        Ok(Arc::new(FileTarget { connection, config, writer }))
    }
}

struct FileTarget {
    connection: Arc<ConnectionConfig>,
    config: TargetConfig,
    writer: SharedWriter,
}

impl Target for FileTarget {
    fn describe(&self) -> String {
        format!("file {}", self.connection.path.display())
    }

    fn templates(&self) -> &[Template] {
        &[]
    }

    fn batch_max(&self) -> BatchMax {
        BatchMax { events: BATCH_EVENTS_MAX, bytes: BATCH_BYTES_MAX }
    }

    fn open(&self) -> Result<Box<dyn Sink>, SendError> {
        let (connection, writer) = (Arc::clone(&self.connection), Arc::clone(&self.writer));
        Ok(Box::new(FileSink { connection, config: self.config, writer }))
    }
}

struct FileSink {
    connection: Arc<ConnectionConfig>,
    config: TargetConfig,
    writer: SharedWriter,
}

#[async_trait]
impl Sink for FileSink {
    async fn send(&mut self, batch: &[OutEvent]) -> Vec<Result<(), SendError>> {
        send::send(&self.writer, &self.connection, self.config, batch).await
    }

    async fn probe(&mut self) -> Result<(), SendError> {
        probe::probe(&self.writer, &self.connection).await
    }
}
