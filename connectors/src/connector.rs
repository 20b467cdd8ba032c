//! What every kind of connector is made of. `SPECIFICATION.md` beside this crate's manifest says what each MUST do.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidemill_rules::yaml::Node;
use tidemill_rules::{CloudEvent, Diagnostic, Template};

/// One kind of system: checks configuration, without I/O.
pub trait Connector: Send + Sync {
    /// The key under which connections of this kind are written: `kafka`, `http`, …
    fn kind(&self) -> &'static str;
    /// Checks the body of a connection. Nothing is opened.
    fn connection(&self, name: &str, body: &Node) -> Result<Arc<dyn Connection>, Vec<Diagnostic>>;
}

/// A named connection whose configuration was found good.
pub trait Connection: Send + Sync {
    /// Checks the body of a target of this connection (without the keys that all targets share). Nothing is opened.
    fn target(&self, body: &Node) -> Result<Arc<dyn Target>, Vec<Diagnostic>>;
}

/// A destination whose configuration was found good.
pub trait Target: Send + Sync {
    /// Where it goes, for people: `kafka topic overheat at localhost:9092`. Never a secret.
    fn describe(&self) -> String;
    /// Templates to fill for each event; their results arrive in [`OutEvent::slots`], in this order.
    fn templates(&self) -> &[Template];
    /// Most events, and most bytes of data, that one [`Sink::send`] should be given.
    fn batch_max(&self) -> BatchMax;
    /// Opens the sink. It connects when it is first used, so a target that is down is an error of `send`, not of `open`.
    fn open(&self) -> Result<Box<dyn Sink>, SendError>;
}

/// How much one batch should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchMax {
    /// Events.
    pub events: usize,
    /// Bytes of data.
    pub bytes: usize,
}

/// An event with what its target's templates gave.
#[derive(Clone, Debug)]
pub struct OutEvent {
    /// The event.
    pub event: CloudEvent,
    /// Results of [`Target::templates`], in order.
    pub slots: Vec<String>,
    /// Events of equal order key leave in the order they were given.
    pub order_key: u64,
}

/// An open destination. Owned by one task.
#[async_trait]
pub trait Sink: Send {
    /// Sends a batch and waits for what the destination confirms: one outcome for each event, in order.
    ///
    /// `Ok` means confirmed. Events of one order key are sent in order: after one of them failed with
    /// [`Follow::Retry`] or [`Follow::Stop`], the later ones of that key are not sent and get the same outcome.
    async fn send(&mut self, batch: &[OutEvent]) -> Vec<Result<(), SendError>>;
    /// Asks whether the destination can be reached and used.
    async fn probe(&mut self) -> Result<(), SendError>;
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This hub's: its configuration or its own limits.
    Ours,
    /// The destination's, or the way to it.
    Theirs,
    /// The event's: no other attempt can succeed.
    Event,
}

/// What follows from a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// Try again later, under the target's retry policy.
    Retry,
    /// Do not try this event again: dead letter.
    GiveUp,
    /// Nothing can be sent until a person changes something (credentials, a missing exchange): keep trying
    /// slowly and say so; nothing is given up.
    Stop,
}

/// Why an event was not confirmed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SendError {
    /// Whose fault.
    pub fault: Fault,
    /// What follows.
    pub follow: Follow,
    /// The thing, the value and the place; never a secret or a payload.
    pub message: String,
    /// When the destination said how long to wait.
    pub retry_after: Option<Duration>,
}

impl SendError {
    /// A failure of the destination or of the way to it, worth another attempt.
    pub fn retry(message: impl Into<String>) -> Self {
        Self { fault: Fault::Theirs, follow: Follow::Retry, message: message.into(), retry_after: None }
    }

    /// An event that no other attempt can deliver.
    pub fn give_up(message: impl Into<String>) -> Self {
        Self { fault: Fault::Event, follow: Follow::GiveUp, message: message.into(), retry_after: None }
    }

    /// Something that a person has to change on this side or agree with the other.
    pub fn stop(message: impl Into<String>) -> Self {
        Self { fault: Fault::Ours, follow: Follow::Stop, message: message.into(), retry_after: None }
    }

    /// The same failure with how long the destination asked to wait.
    #[must_use]
    pub fn after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait;
        self
    }

    /// Whether the event will be tried again, so that later events of its order key have to wait for it.
    pub fn holds_back(&self) -> bool {
        self.follow != Follow::GiveUp
    }
}
