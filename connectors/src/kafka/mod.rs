//! Apache Kafka, over librdkafka.
//!
//! # Layout
//! - `config`   what a connection and a target may say; librdkafka's properties, those that may be set
//! - `encode`   CloudEvents Kafka protocol binding 1.0.2
//! - `producer` one producer for each connection, and when it is replaced
//! - `send`     a batch, its delivery reports, classes of errors
//! - `probe`    metadata of the topic

mod config;
mod encode;
mod probe;
mod producer;
mod send;

use std::sync::Arc;

use async_trait::async_trait;
use tidemill_rules::yaml::Node;
use tidemill_rules::{Diagnostic, Template};

use self::config::{ConnectionConfig, TargetConfig};
use self::producer::Producers;
use crate::{BatchMax, Connection, Connector, OutEvent, SendError, Sink, Target};

/// Most events of a batch.
const BATCH_EVENTS_MAX: usize = 2_000;
/// Most bytes of data of a batch. Two batches fit the producer's own buffer.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

const _: () = assert!(2 * BATCH_BYTES_MAX <= config::BUFFER_BYTES);

/// The kind `kafka`.
pub(crate) struct Kafka;

impl Connector for Kafka {
    fn kind(&self) -> &'static str {
        "kafka"
    }

    fn connection(&self, name: &str, body: &Node) -> Result<Arc<dyn Connection>, Vec<Diagnostic>> {
        let config = Arc::new(ConnectionConfig::check(name, body)?);
        Ok(Arc::new(KafkaConnection { producers: Arc::new(Producers::new(config)) }))
    }
}

struct KafkaConnection {
    producers: Arc<Producers>,
}

impl Connection for KafkaConnection {
    fn target(&self, body: &Node) -> Result<Arc<dyn Target>, Vec<Diagnostic>> {
        let (config, templates) = TargetConfig::check(body)?;
        Ok(Arc::new(KafkaTarget {
            config: Arc::new(config),
            templates,
            producers: Arc::clone(&self.producers),
        }))
    }
}

struct KafkaTarget {
    config: Arc<TargetConfig>,
    templates: Vec<Template>,
    producers: Arc<Producers>,
}

impl Target for KafkaTarget {
    fn describe(&self) -> String {
        format!("kafka topic {} at {}", self.config.topic_shown, self.producers.config().brokers)
    }

    fn templates(&self) -> &[Template] {
        &self.templates
    }

    fn batch_max(&self) -> BatchMax {
        BatchMax { events: BATCH_EVENTS_MAX, bytes: BATCH_BYTES_MAX }
    }

    fn open(&self) -> Result<Box<dyn Sink>, SendError> {
        Ok(Box::new(KafkaSink { config: Arc::clone(&self.config), producers: Arc::clone(&self.producers) }))
    }
}

struct KafkaSink {
    config: Arc<TargetConfig>,
    producers: Arc<Producers>,
}

#[async_trait]
impl Sink for KafkaSink {
    async fn send(&mut self, batch: &[OutEvent]) -> Vec<Result<(), SendError>> {
        send::send(&self.producers, &self.config, batch).await
    }

    async fn probe(&mut self) -> Result<(), SendError> {
        probe::probe(&self.producers, &self.config).await
    }
}
