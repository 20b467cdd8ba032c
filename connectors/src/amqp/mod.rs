//! AMQP 0-9-1 (RabbitMQ), over lapin.
//!
//! # Layout
//! - `config` what a connection and a target may say
//! - `encode` CloudEvents as AMQP 0-9-1 messages
//! - `link`   one AMQP connection for each connection, opened when needed and replaced when lost
//! - `send`   a batch, its confirms and returns
//! - `errors` what follows from an AMQP error
//! - `probe`  whether the exchange is there

mod config;
mod encode;
mod errors;
mod link;
mod probe;
mod send;

use std::sync::Arc;

use async_trait::async_trait;
use tidemill_rules::yaml::Node;
use tidemill_rules::{Diagnostic, Template};

use self::config::{ConnectionConfig, TargetConfig};
use self::link::{Links, OpenChannel};
use crate::{BatchMax, Connection, Connector, OutEvent, SendError, Sink, Target};

/// Most events of a batch: all are published before the first confirm is awaited.
const BATCH_EVENTS_MAX: usize = 1_000;
/// Most bytes of data of a batch; lapin holds a copy until it is written to the socket.
const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The kind `amqp`.
pub(crate) struct Amqp;

impl Connector for Amqp {
    fn kind(&self) -> &'static str {
        "amqp"
    }

    fn connection(&self, name: &str, body: &Node) -> Result<Arc<dyn Connection>, Vec<Diagnostic>> {
        let config = ConnectionConfig::check(name, body)?;
        Ok(Arc::new(AmqpConnection { links: Arc::new(Links::new(config)) }))
    }
}

struct AmqpConnection {
    links: Arc<Links>,
}

impl Connection for AmqpConnection {
    fn target(&self, body: &Node) -> Result<Arc<dyn Target>, Vec<Diagnostic>> {
        let (config, templates) = TargetConfig::check(body)?;
        Ok(Arc::new(AmqpTarget { config: Arc::new(config), templates, links: Arc::clone(&self.links) }))
    }
}

struct AmqpTarget {
    config: Arc<TargetConfig>,
    templates: Vec<Template>,
    links: Arc<Links>,
}

impl Target for AmqpTarget {
    fn describe(&self) -> String {
        format!("amqp {} at {}", self.config.shown(), self.links.config().shown)
    }

    fn templates(&self) -> &[Template] {
        &self.templates
    }

    fn batch_max(&self) -> BatchMax {
        BatchMax { events: BATCH_EVENTS_MAX, bytes: BATCH_BYTES_MAX }
    }

    fn open(&self) -> Result<Box<dyn Sink>, SendError> {
        let (config, links) = (Arc::clone(&self.config), Arc::clone(&self.links));
        Ok(Box::new(AmqpSink { config, links, channel: None }))
    }
}

struct AmqpSink {
    config: Arc<TargetConfig>,
    links: Arc<Links>,
    /// The channel of this sink, once it was needed.
    channel: Option<OpenChannel>,
}

#[async_trait]
impl Sink for AmqpSink {
    async fn send(&mut self, batch: &[OutEvent]) -> Vec<Result<(), SendError>> {
        send::send(&self.links, &self.config, &mut self.channel, batch).await
    }

    async fn probe(&mut self) -> Result<(), SendError> {
        probe::probe(&self.links, &self.config).await
    }
}
