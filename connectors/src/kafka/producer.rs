//! One producer for each connection, and when it is replaced.
//!
//! Within one producer librdkafka keeps the order of each partition (idempotence) and gives up on nothing by itself.
//! When something does not get through, the producer is retired: everything it still holds fails at once and is never
//! sent, so that a retry on the next producer cannot be overtaken. A producer and its buffer are a *generation*; there
//! is one at a time, and the old one is gone before the next starts.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer, PurgeConfig};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use super::config::{ConnectionConfig, TargetConfig};
use crate::SendError;
use crate::text::shown;

/// How long all brokers may be away before events are handed back. Shorter than the timeout of a batch: nobody is
/// there who could still confirm. Long enough for a lone broker's connection to be opened again.
const DOWN_GRACE: Duration = Duration::from_secs(2);

/// The producer of a connection, made when it is first needed.
pub(super) struct Producers {
    config: Arc<ConnectionConfig>,
    current: Mutex<Option<Arc<Generation>>>,
}

impl Producers {
    pub(super) fn new(config: Arc<ConnectionConfig>) -> Self {
        Self { config, current: Mutex::new(None) }
    }

    pub(super) fn config(&self) -> &ConnectionConfig {
        &self.config
    }

    /// Where a target's events go, for messages.
    pub(super) fn place(&self, target: &TargetConfig) -> String {
        format!("connection `{}`: kafka topic `{}`", self.config.name, target.topic_shown)
    }

    /// The producer in use; a new one if there is none or it can send no more.
    pub(super) async fn current(&self) -> Result<Arc<Generation>, SendError> {
        let mut current = self.current.lock().await;
        if let Some(generation) = current.take_if(|generation| generation.is_broken()) {
            end(generation).await;
        }
        if let Some(generation) = current.as_ref() {
            return Ok(Arc::clone(generation));
        }
        let generation = Arc::new(self.create()?);
        *current = Some(Arc::clone(&generation));
        Ok(generation)
    }

    /// Ends `generation`: what it still holds fails and will not be sent.
    pub(super) async fn retire(&self, generation: &Arc<Generation>) {
        let mut current = self.current.lock().await;
        // Another target may have been faster; then it is ending, or has ended, already.
        if let Some(old) = current.take_if(|current| Arc::ptr_eq(current, generation)) {
            // The lock is held until nothing of the old producer can be sent any more.
            end(old).await;
        }
    }

    fn create(&self) -> Result<Generation, SendError> {
        let name = &self.config.name;
        let stop = |why: String| SendError::stop(format!("connection `{name}`: {why}"));
        let client = self.config.client().map_err(|error| stop(error.to_string()))?;
        let trouble = Arc::new(watch::Sender::new(Trouble::default()));
        let context = Context { connection: name.clone(), trouble: Arc::clone(&trouble) };
        let producer: FutureProducer<Context> =
            client.create_with_context(context).map_err(|error| stop(shown(&error.to_string())))?;
        Ok(Generation { producer: Some(producer), retired: RwLock::new(false), trouble })
    }
}

/// Closes and purges a producer off the async threads: librdkafka waits for its own threads here.
async fn end(generation: Arc<Generation>) {
    let purge = move || {
        // First nothing more may come in: a message that came after the purge would leave its elders behind.
        *generation.retired.write().unwrap_or_else(PoisonError::into_inner) = true;
        generation.producer().purge(PurgeConfig::default().queue().inflight());
    };
    // A panic in there is reported by the runtime; the generation is out of use in any case.
    let _ = tokio::task::spawn_blocking(purge).await;
}

/// One producer with what is known of its troubles.
pub(super) struct Generation {
    /// Present until the drop, which takes it to a thread that may block.
    producer: Option<FutureProducer<Context>>,
    /// Set before the purge. Held for reading while a message is handed over, which never blocks.
    retired: RwLock<bool>,
    trouble: Arc<watch::Sender<Trouble>>,
}

/// What became of a message that was to be handed over.
pub(super) enum Handed<'a> {
    /// The producer has it; the future is its delivery report.
    Over(DeliveryFuture),
    /// The buffer is full.
    Full(Record<'a>),
    /// The producer refuses this message.
    Refused(KafkaError),
    /// The producer has been retired.
    Retired,
}

/// A message for the producer.
pub(super) type Record<'a> = FutureRecord<'a, [u8], [u8]>;

impl Generation {
    /// Hands a message over to librdkafka, which copies it.
    pub(super) fn hand_over<'a>(&self, record: Record<'a>) -> Handed<'a> {
        let retired = self.retired.read().unwrap_or_else(PoisonError::into_inner);
        if *retired {
            return Handed::Retired;
        }
        match self.producer().send_result(record) {
            Ok(report) => Handed::Over(report),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), record)) => Handed::Full(record),
            Err((error, _)) => Handed::Refused(error),
        }
    }

    /// Notes that something was delivered: whatever was the matter is over.
    pub(super) fn delivered(&self) {
        // Nobody waits for things to get better, so nobody is woken.
        self.trouble.send_if_modified(|trouble| {
            trouble.down = None;
            trouble.reason = None;
            false
        });
    }

    pub(super) fn producer(&self) -> &FutureProducer<Context> {
        match &self.producer {
            Some(producer) => producer,
            None => unreachable!("only `drop` takes the producer"),
        }
    }

    /// What it reported last.
    pub(super) fn trouble(&self) -> Trouble {
        self.trouble.borrow().clone()
    }

    fn is_broken(&self) -> bool {
        let trouble = self.trouble.borrow();
        trouble.fatal || trouble.refused.is_some()
    }

    /// How long to wait for delivery reports of one batch.
    pub(super) fn patience(&self, config: &ConnectionConfig) -> Patience {
        Patience { progress: Instant::now(), timeout: config.timeout, trouble: self.trouble.subscribe() }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        // The last holder may be an async task, but ending a producer joins its threads.
        if let (Some(producer), Ok(runtime)) = (self.producer.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn_blocking(move || drop(producer));
        }
    }
}

/// What a producer reported about its connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Trouble {
    /// The last reason given, for messages.
    reason: Option<String>,
    /// Since when no broker could be reached.
    down: Option<Instant>,
    /// Refused for something that a person has to change.
    refused: Option<SendError>,
    /// The producer can send no more.
    fatal: bool,
}

impl Trouble {
    /// What is the matter, with the last reason given: that no broker can be reached, or else what the caller knows.
    pub(super) fn what(&self, otherwise: impl FnOnce() -> String) -> String {
        let what = if self.down.is_some() { "no broker can be reached".to_owned() } else { otherwise() };
        match &self.reason {
            Some(reason) => format!("{what} ({reason})"),
            None => what,
        }
    }

    /// The last reason given.
    pub(super) fn reason(&self) -> Option<String> {
        self.reason.clone()
    }

    /// Refused for something that a person has to change.
    pub(super) fn refused(&self) -> Option<SendError> {
        self.refused.clone()
    }
}

/// Waits for delivery reports as long as there is hope.
pub(super) struct Patience {
    progress: Instant,
    timeout: Duration,
    trouble: watch::Receiver<Trouble>,
}

impl Patience {
    /// Notes that something was delivered.
    pub(super) fn progressed(&mut self) {
        self.progress = Instant::now();
    }

    /// Waits for `future`. `Err` says why to wait no longer; the future is then as it was.
    pub(super) async fn wait<F: Future + Unpin>(
        &mut self,
        place: &str,
        future: &mut F,
    ) -> Result<F::Output, SendError> {
        let mut silent = false;
        loop {
            let trouble = self.trouble.borrow_and_update().clone();
            if let Some(refused) = trouble.refused {
                return Err(refused);
            }
            if trouble.fatal {
                let what = trouble.what(|| "the producer can send no more".to_owned());
                return Err(SendError::retry(format!("{place}: {what}")));
            }
            let last = self.progress + self.timeout;
            let until = trouble.down.map_or(last, |since| last.min(since.max(self.progress) + DOWN_GRACE));
            tokio::select! {
                biased;
                output = &mut *future => return Ok(output),
                () = tokio::time::sleep_until(until) => {
                    let what = trouble.what(|| format!("nothing was confirmed for {:?}", self.timeout));
                    return Err(SendError::retry(format!("{place}: {what}")));
                }
                changed = self.trouble.changed(), if !silent => silent = changed.is_err(),
            }
        }
    }
}

/// What librdkafka calls back.
pub(super) struct Context {
    connection: String,
    trouble: Arc<watch::Sender<Trouble>>,
}

impl ClientContext for Context {
    /// For those who look closely: librdkafka repeats itself at each attempt to connect, and what it calls an error it
    /// also recovers from. What stands in the way of events is in the outcomes of `send`, which the hub logs once.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(connection = self.connection, ?level, facility, "librdkafka: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        let reason = shown(reason);
        let refused = format!("connection `{}`: the brokers refuse this client: {reason}", self.connection);
        self.trouble.send_modify(|trouble| {
            match code {
                Some(RDKafkaErrorCode::AllBrokersDown) => {
                    trouble.down.get_or_insert_with(Instant::now);
                    // "1/1 brokers are down" says less than the reason that came before it.
                    if trouble.reason.is_some() {
                        return;
                    }
                }
                Some(
                    RDKafkaErrorCode::Authentication
                    | RDKafkaErrorCode::SaslAuthenticationFailed
                    | RDKafkaErrorCode::UnsupportedSASLMechanism
                    | RDKafkaErrorCode::SSL,
                ) => trouble.refused = Some(SendError::stop(refused)),
                Some(RDKafkaErrorCode::Fatal) => trouble.fatal = true,
                _ => {}
            }
            trouble.reason = Some(reason);
        });
    }
}
