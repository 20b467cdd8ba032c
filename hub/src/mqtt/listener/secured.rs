//! [`Secured`]: the certificates of a listener, which can be replaced while it listens.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use metrics::{counter, describe_counter, describe_gauge, gauge};
use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;
use tokio_rustls::rustls::ServerConfig;
use tracing::{error, info, warn};

use super::super::stamp::Stamp;
use super::Listener;
use super::tls::{Loaded, TlsError, TlsOptions};

/// How often files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// See the module's text.
pub(super) struct Secured {
    /// The listener's name.
    name: String,
    /// For new connections. Those there are keep theirs.
    current: ArcSwap<ServerConfig>,
    source: Mutex<Source>,
}

/// Where it comes from.
struct Source {
    options: TlsOptions,
    /// The files as they were when they were read last.
    stamps: Vec<Stamp>,
}

impl Secured {
    /// Reads the files.
    pub(super) fn load(name: &str, options: &TlsOptions) -> Result<Self, TlsError> {
        describe_counter!(
            "tidemill_mqtt_certificate_reloads_total",
            "Certificates of listeners read again, by listener and result (loaded, failed)"
        );
        describe_gauge!(
            "tidemill_mqtt_certificate_expiry_timestamp_seconds",
            "When the certificate of a listener ends"
        );
        // Looked at before they are read: what is written meanwhile is read again.
        let stamps = stamps(options);
        let loaded = options.load()?;
        tell(name, &loaded);
        let source = Mutex::new(Source { options: options.clone(), stamps });
        Ok(Secured { name: name.to_owned(), current: ArcSwap::new(loaded.config), source })
    }

    /// For a new connection.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Reads other files, or the same again. If they are bad, what there is stays.
    pub(super) fn reload(&self, options: TlsOptions) {
        let mut source = self.source.lock();
        source.options = options;
        self.read(&mut source);
    }

    /// Reads the files again if they are others.
    fn look(&self) {
        let mut source = self.source.lock();
        if stamps(&source.options) != source.stamps {
            self.read(&mut source);
        }
    }

    fn read(&self, source: &mut Source) {
        source.stamps = stamps(&source.options);
        let listener = &self.name;
        let result = match source.options.load() {
            Ok(loaded) => {
                info!(listener, "certificates are reloaded");
                tell(listener, &loaded);
                self.current.store(loaded.config);
                "loaded"
            }
            Err(TlsError { what, hint, .. }) => {
                error!(
                    listener,
                    problem = what,
                    hint,
                    "certificates are not reloaded: those from before stay"
                );
                "failed"
            }
        };
        counter!("tidemill_mqtt_certificate_reloads_total", "listener" => listener.clone(), "result" => result)
            .increment(1);
    }
}

/// Says when a certificate ends, and whether it counts.
fn tell(name: &str, loaded: &Loaded) {
    gauge!("tidemill_mqtt_certificate_expiry_timestamp_seconds", "listener" => name.to_owned())
        .set(loaded.expires_s as f64);
    if let Some(doubt) = &loaded.doubt {
        warn!(listener = name, problem = doubt.what, "clients will refuse a certificate");
    }
}

fn stamps(options: &TlsOptions) -> Vec<Stamp> {
    options.files().map(Stamp::of).collect()
}

/// Reads the certificates of listeners again whenever their files have changed, if any has some.
pub(in crate::mqtt) async fn watch(mut listeners: Vec<Arc<Listener>>) {
    listeners.retain(|listener| listener.secured.is_some());
    if listeners.is_empty() {
        return;
    }
    let mut interval = tokio::time::interval(LOOK_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let listeners = listeners.clone();
        let looked = tokio::task::spawn_blocking(move || {
            listeners.iter().filter_map(|listener| listener.secured.as_ref()).for_each(Secured::look);
        });
        if let Err(failed) = looked.await {
            warn!(%failed, "could not look at certificates");
        }
    }
}
