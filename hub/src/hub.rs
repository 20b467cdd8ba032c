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
use crate::mqtt::access::settings::Settings;
use crate::mqtt::access::{Access, AccessError};
use crate::mqtt::{self, Broker};
use crate::telemetry;

/// A running hub.
pub struct Hub {
    store: Store,
    broker: Arc<Broker>,
    work: Mutex<Work>,
    view: Arc<ArcSwap<View>>,
    api: api::Server,
    limits: api::Limits,
}

/// What is at work.
struct Work {
    rules: Rules,
    /// `None` only when neither other rules nor these could be started again.
    flow: Option<Flow>,
}

/// Why other rules could not be put to work.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The rules from before are at work again.
    #[error("the new rules cannot be started: {0}")]
    Kept(StoreError),
    /// No rules are at work.
    #[error("the new rules cannot be started: {new}; nor can those from before: {old}")]
    Stalled {
        /// What the store said of the new ones.
        new: StoreError,
        /// What it said of the old ones.
        old: StoreError,
    },
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
    /// A file or a secret that says who may connect.
    #[error(transparent)]
    Access(#[from] AccessError),
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
        let limits = api::limits(&config);
        let Config { mqtt, access, http, rules, .. } = config;
        let access = open_access(access).await?;
        let flow = Flow::start(&store, &rules, None).await?;
        let view = Arc::new(ArcSwap::new(flow.view()));
        let broker = match Broker::start(mqtt, access, store.clone()).await {
            Ok(broker) => Arc::new(broker),
            Err(error) => {
                flow.stop(Instant::now()).await;
                return Err(StartError::Mqtt(error.to_string()));
            }
        };
        let state = api::State::new(
            store.clone(),
            Arc::clone(&view),
            Arc::clone(&broker),
            &http,
            Arc::clone(&limits),
        );
        match api::Server::start(&http, state).await {
            Ok(api) => {
                let work = Mutex::new(Work { rules, flow: Some(flow) });
                Ok(Hub { store, broker, work, view, api, limits })
            }
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

    /// Whether a reload can go on with the listeners that are open.
    ///
    /// # Errors
    /// A listener is another, is new, or is not there any more: that takes a restart.
    pub fn check_listeners(&self, mqtt: &mqtt::Options) -> Result<(), mqtt::ListenerError> {
        self.broker.check_listeners(mqtt)
    }

    /// Names of the limits that another configuration sets otherwise: they hold after a restart.
    #[must_use]
    pub fn limits_to_come(&self, config: &Config) -> Vec<String> {
        api::differing(&self.limits, &api::limits(config))
    }

    /// Reads the certificates of MQTT listeners again. Devices that are connected notice nothing.
    pub fn reload_certificates(&self, mqtt: &mqtt::Options) {
        self.broker.reload_certificates(mqtt);
    }

    /// Puts other rules to work. Devices notice nothing; what was in flight to a target is finished, or sent again.
    ///
    /// # Errors
    /// The store refuses them. The rules from before are then started again, and if they cannot be, the hub is not
    /// ready until a reload succeeds.
    pub async fn reload(&self, rules: Rules, patience: Duration) -> Result<(), ReloadError> {
        let mut work = self.work.lock().await;
        if let Some(old) = work.flow.take() {
            old.stop(Instant::now() + patience).await;
        }
        let new = match Flow::start(&self.store, &rules, Some(&work.rules.set)).await {
            Ok(flow) => {
                work.rules = rules;
                self.put_to_work(&mut work, flow);
                return Ok(());
            }
            Err(error) => error,
        };
        match Flow::start(&self.store, &work.rules, None).await {
            Ok(flow) => {
                self.put_to_work(&mut work, flow);
                Err(ReloadError::Kept(new))
            }
            Err(old) => {
                let error = ReloadError::Stalled { new, old };
                let reason = format!("no rules are at work: {error}");
                self.view().stalled(&reason);
                self.api.unready(reason);
                Err(error)
            }
        }
    }

    /// Puts other sources of authentication and other access rules to work. Connections that do what is not allowed any
    /// more are cut.
    pub fn replace_access(&self, access: Access) {
        self.broker.replace_access(access);
    }

    fn put_to_work(&self, work: &mut Work, flow: Flow) {
        self.view.store(flow.view());
        work.flow = Some(flow);
        self.api.ready();
    }

    /// Stops everything in order, within about `patience`, and closes the store.
    pub async fn stop(self, patience: Duration) -> Result<(), StoreError> {
        let deadline = Instant::now() + patience;
        self.api.unready("the hub is stopping");
        // Clients that do not go leave time for what was taken from them to be delivered.
        self.broker.stop(patience / 2).await;
        if let Some(flow) = self.work.into_inner().flow {
            flow.stop(deadline).await;
        }
        self.api.stop(deadline).await;
        let closed = self.store.close().await;
        info!("stopped");
        closed
    }
}

/// Reads what says who may connect, off the async threads.
///
/// # Errors
/// A file or a secret is not there, or is none.
pub async fn open_access(settings: Settings) -> Result<Access, AccessError> {
    let opened = tokio::task::spawn_blocking(move || Access::open(&settings)).await;
    opened.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
}

/// Opens the store off the async threads: it may read much before it is ready.
async fn open_store(options: tidemill_store::Options) -> Result<Store, StoreError> {
    let opened = tokio::task::spawn_blocking(move || Store::open(options)).await;
    opened.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
}

#[cfg(test)]
mod tests;
