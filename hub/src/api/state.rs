//! [`State`]: what the handlers share.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tidemill_store::Store;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::limits::Limits;
use crate::config::HttpSettings;
use crate::flow::View;
use crate::mqtt::Broker;

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
    pub(super) unready: Arc<Mutex<Option<String>>>,
    pub(super) started: Instant,
    pub(super) limits: Limits,
}

impl State {
    /// The state of an API over these parts.
    #[must_use]
    pub fn new(
        store: Store,
        view: Arc<ArcSwap<View>>,
        broker: Arc<Broker>,
        settings: &HttpSettings,
        limits: Limits,
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
            limits,
        }
    }

    /// The rules at work at this moment.
    pub(super) fn view(&self) -> Arc<View> {
        self.view.load_full()
    }
}
