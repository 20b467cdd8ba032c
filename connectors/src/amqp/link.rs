//! One AMQP connection for each connection, opened when needed and replaced when lost.
//!
//! lapin's own recovery is off: it would publish again what was in flight without `send` knowing.

use std::sync::Arc;

use lapin::options::ConfirmSelectOptions;
use lapin::uri::AMQPUri;
use lapin::{Channel, Connect, Connection, ConnectionProperties};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::config::{ConnectionConfig, TargetConfig};
use super::errors::classify;
use crate::SendError;

/// The AMQP connection of a connection, shared by its targets, each on its own channel.
pub(super) struct Links {
    config: ConnectionConfig,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    current: Option<Arc<Connection>>,
    /// When the last attempt to connect failed, and why.
    failed: Option<(Instant, SendError)>,
}

/// A channel with publisher confirms, and the connection it belongs to.
pub(super) struct OpenChannel {
    pub(super) channel: Channel,
    pub(super) connection: Arc<Connection>,
}

impl OpenChannel {
    /// Whether messages can still be published on it.
    pub(super) fn is_usable(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }
}

impl Links {
    pub(super) fn new(config: ConnectionConfig) -> Self {
        Self { config, state: Mutex::default() }
    }

    pub(super) fn config(&self) -> &ConnectionConfig {
        &self.config
    }

    /// Where a target's events go, for messages.
    pub(super) fn place(&self, target: &TargetConfig) -> String {
        format!("connection `{}`: amqp {} at {}", self.config.name, target.shown(), self.config.shown)
    }

    /// Opens a channel with publisher confirms, over a new connection if there is none that works.
    pub(super) async fn open(&self) -> Result<OpenChannel, SendError> {
        let connection = self.connection().await?;
        if connection.status().blocked() {
            return Err(self.blocked());
        }
        let opened = async {
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok(channel)
        };
        match timeout(self.config.timeout, opened).await {
            Ok(Ok(channel)) => Ok(OpenChannel { channel, connection }),
            Ok(Err(error)) => Err(classify(&self.at(), &error)),
            Err(_) => {
                self.lost(&connection).await;
                Err(self.silent("no channel was opened"))
            }
        }
    }

    /// Nothing has come over `connection` for too long: lets go of it, so that the next to need one opens another.
    ///
    /// One that is blocked is alive. It is kept: a new one would be blocked as well, and the old one could not even be
    /// closed before the broker reads again.
    pub(super) async fn lost(&self, connection: &Arc<Connection>) {
        if !connection.status().blocked() {
            // Dropping the last handle closes it.
            self.state.lock().await.current.take_if(|current| Arc::ptr_eq(current, connection));
        }
    }

    /// The failure while the broker takes nothing (its memory or disk alarm, "connection.blocked").
    pub(super) fn blocked(&self) -> SendError {
        SendError::retry(format!("{}: the broker is short of memory or disk and takes nothing", self.at()))
    }

    async fn connection(&self) -> Result<Arc<Connection>, SendError> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        if let Some(connection) = state.current.as_ref().filter(|connection| connection.status().connected())
        {
            return Ok(Arc::clone(connection));
        }
        state.current = None;
        // An attempt that failed while this target waited for it counts for this target too: otherwise the targets
        // of a connection would wait for each other's timeouts.
        if let Some((_, error)) = state.failed.as_ref().filter(|(when, _)| *when >= asked) {
            return Err(error.clone());
        }
        match self.connect().await {
            Ok(connection) => {
                let connection = Arc::new(connection);
                *state = State { current: Some(Arc::clone(&connection)), failed: None };
                Ok(connection)
            }
            Err(error) => {
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn connect(&self) -> Result<Connection, SendError> {
        let stop = |why: String| SendError::stop(format!("{}: {why}", self.at()));
        let uri: AMQPUri = self.config.uri().map_err(stop)?;
        let tls = self.config.tls().map_err(stop)?;
        // No retries: the next attempt is for the delivery to decide.
        let name = format!("tidemill {}", self.config.name);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let runtime = lapin::runtime::default_runtime().map_err(|error| stop(error.to_string()))?;
        match timeout(self.config.timeout, uri.connect_with_config(properties, tls, runtime)).await {
            Ok(connected) => connected.map_err(|error| classify(&self.at(), &error)),
            Err(_) => Err(self.silent("no connection came about")),
        }
    }

    fn at(&self) -> String {
        format!("connection `{}`: amqp at {}", self.config.name, self.config.shown)
    }

    fn silent(&self, what: &str) -> SendError {
        SendError::retry(format!("{}: {what} within {:?}", self.at(), self.config.timeout))
    }
}
