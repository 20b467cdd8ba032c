//! [`State`]: what the handlers share.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tidemill_store::Store;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, HttpSettings};
use crate::flow::View;
use crate::mqtt::Broker;

/// What bounds the hub's memory, for `/metrics`.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of records that may wait for the log writer.
    pub append_queue_bytes: usize,
    /// Bytes of index entries that may wait for RocksDB.
    pub index_buffer_bytes: usize,
    /// Bytes of the newest records kept in memory.
    pub tail_cache_bytes: usize,
    /// MQTT connections at once.
    pub mqtt_connections: usize,
    /// Bytes that may wait for the socket of one MQTT client.
    pub mqtt_out_buffer_bytes: u64,
    /// HTTP connections at once.
    pub http_connections: usize,
}

impl Bounds {
    /// The bounds of a configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Bounds {
            append_queue_bytes: config.store.append_queue_bytes,
            index_buffer_bytes: config.store.index_buffer_bytes,
            tail_cache_bytes: config.store.tail_cache_bytes,
            mqtt_connections: config.mqtt.connections_max,
            mqtt_out_buffer_bytes: config.mqtt.out_buffer_bytes_max,
            http_connections: config.http.connections_max,
        }
    }
}

/// Everything a handler may look at. Cheap to clone.
#[derive(Clone)]
pub struct State {
    pub(super) store: Store,
    view: Arc<ArcSwap<View>>,
    pub(super) broker: Arc<Broker>,
    /// One permit for each stream of records that may run at once.
    pub(super) tails: Arc<Semaphore>,
    pub(super) tails_max: usize,
    /// Ends streams when the hub stops.
    pub(super) stop: CancellationToken,
    /// Why the hub is not ready, if it was told so.
    pub(super) unready: Arc<Mutex<Option<&'static str>>>,
    pub(super) started: Instant,
    pub(super) bounds: Bounds,
}

impl State {
    /// The state of an API over these parts.
    #[must_use]
    pub fn new(
        store: Store,
        view: Arc<ArcSwap<View>>,
        broker: Arc<Broker>,
        settings: &HttpSettings,
        bounds: Bounds,
    ) -> Self {
        State {
            store,
            view,
            broker,
            tails: Arc::new(Semaphore::new(settings.tails_max.min(Semaphore::MAX_PERMITS))),
            tails_max: settings.tails_max,
            stop: CancellationToken::new(),
            unready: Arc::default(),
            started: Instant::now(),
            bounds,
        }
    }

    /// The rules at work at this moment.
    pub(super) fn view(&self) -> Arc<View> {
        self.view.load_full()
    }
}
