//! [`Hub`]: the whole, in the order in which it starts and stops.
//!
//! Start: store (repairs, re-dispatches), rule queues and cursors, deliveries and router, MQTT (sessions first, then
//! its listeners), HTTP last. A message can only arrive when everything that must see it is there.
//! Stop: MQTT (no new packets, receipts drained), deliveries and router, HTTP, then the store writes out and closes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tidemill_store::{Store, StoreError};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{error, info};

use crate::api;
use crate::config::{Config, Rules};
use crate::flow::{Flow, View};
use crate::mqtt::Broker;
use crate::telemetry;

/// A running hub.
pub struct Hub {
    store: Store,
    broker: Arc<Broker>,
    flow: Mutex<Option<Flow>>,
    view: Arc<ArcSwap<View>>,
    api: api::Server,
}

/// Why a hub did not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory, or what is in it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The broker: its sessions or its listeners.
    #[error("MQTT: {0}")]
    Mqtt(String),
    /// The HTTP API's listener.
    #[error("HTTP: cannot listen on {address}: {error}; choose another address with --http or `http.listen`")]
    Http {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
}

impl Hub {
    /// Starts everything; when it returns, every listener is open.
    pub async fn start(config: Config) -> Result<Hub, StartError> {
        // Before anything counts.
        telemetry::recorder();
        let store = open_store(config.store.clone()).await?;
        match Hub::start_on(store.clone(), config).await {
            Ok(hub) => Ok(hub),
            Err(error) => {
                // The directory is free for the next attempt.
                if let Err(error) = store.close().await {
                    error!(%error, "closing the store after a failed start");
                }
                Err(error)
            }
        }
    }

    async fn start_on(store: Store, config: Config) -> Result<Hub, StartError> {
        let bounds = api::Bounds::of(&config);
        let Config { mqtt, http, rules, .. } = config;
        let flow = Flow::start(&store, rules).await?;
        let view = Arc::new(ArcSwap::new(flow.view()));
        let broker = match Broker::start(mqtt, store.clone()).await {
            Ok(broker) => Arc::new(broker),
            Err(error) => {
                flow.stop(Instant::now()).await;
                return Err(StartError::Mqtt(error.to_string()));
            }
        };
        let state = api::State::new(store.clone(), Arc::clone(&view), Arc::clone(&broker), &http, bounds);
        match api::Server::start(&http, state).await {
            Ok(api) => Ok(Hub { store, broker, flow: Mutex::new(Some(flow)), view, api }),
            Err(error) => {
                broker.stop(Duration::ZERO).await;
                flow.stop(Instant::now()).await;
                Err(StartError::Http { address: http.listen, error })
            }
        }
    }

    /// Where MQTT listens.
    #[must_use]
    pub fn mqtt_addresses(&self) -> Vec<SocketAddr> {
        self.broker.addresses().to_vec()
    }

    /// Where the HTTP API listens.
    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        self.api.address()
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The rules at work, and what they count.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Puts other rules to work. Devices notice nothing; what was in flight to a target is finished, or sent again.
    pub async fn reload(&self, rules: Rules, patience: Duration) -> Result<(), StoreError> {
        let mut flow = self.flow.lock().await;
        if let Some(old) = flow.take() {
            old.stop(Instant::now() + patience).await;
        }
        let started = Flow::start(&self.store, rules).await?;
        self.view.store(started.view());
        *flow = Some(started);
        Ok(())
    }

    /// Stops everything in order, within about `patience`, and closes the store.
    pub async fn stop(self, patience: Duration) -> Result<(), StoreError> {
        let deadline = Instant::now() + patience;
        self.api.unready("the hub is stopping");
        self.broker.stop(patience).await;
        if let Some(flow) = self.flow.into_inner() {
            flow.stop(deadline).await;
        }
        self.api.stop(deadline).await;
        let closed = self.store.close().await;
        info!("stopped");
        closed
    }
}

/// Opens the store off the async threads: it may read much before it is ready.
async fn open_store(options: tidemill_store::Options) -> Result<Store, StoreError> {
    let opened = tokio::task::spawn_blocking(move || Store::open(options)).await;
    opened.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
}

#[cfg(test)]
mod tests;
