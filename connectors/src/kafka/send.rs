//! A batch, its delivery reports, and what follows from a failure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::future_producer::{DeliveryFuture, OwnedDeliveryResult};

use super::config::TargetConfig;
use super::encode::encode;
use super::producer::{Generation, Handed, Patience, Producers, Record};
use crate::outcome::{self, Held, Outcome};
use crate::text::shown;
use crate::{Fault, Follow, OutEvent, SendError};

/// How often to look for room when the buffer is full of other targets' messages.
const FULL_PAUSE: Duration = Duration::from_millis(10);
/// How long the reports of a purged producer may take: they are local.
const PURGED_REPORTS: Duration = Duration::from_secs(1);

/// Sends a batch and waits for the delivery report of each event.
pub(super) async fn send(producers: &Producers, config: &TargetConfig, batch: &[OutEvent]) -> Vec<Outcome> {
    let generation = match producers.current().await {
        Ok(generation) => generation,
        Err(error) => return outcome::all(batch, &error),
    };
    let mut wave = Wave::new(producers, &generation, config, batch);
    let through = async {
        wave.hand_over_all().await?;
        wave.settle_all().await?;
        wave.settle_suspects().await
    };
    let ended = through.await;
    if let Err(error) = ended {
        wave.abandon(error).await;
    }
    let mut outcomes = wave.into_outcomes();
    outcome::hold_back(batch, &mut outcomes);
    outcomes
}

/// One batch on its way through one producer.
struct Wave<'a> {
    producers: &'a Producers,
    generation: &'a Arc<Generation>,
    config: &'a TargetConfig,
    batch: &'a [OutEvent],
    place: String,
    patience: Patience,
    /// Events handed over and not reported yet, oldest first.
    pending: VecDeque<(usize, DeliveryFuture)>,
    outcomes: Vec<Option<Outcome>>,
    held: Held,
    /// Events refused together with others: which of them is at fault shows only when they are sent alone.
    suspects: Vec<usize>,
}

impl<'a> Wave<'a> {
    fn new(
        producers: &'a Producers,
        generation: &'a Arc<Generation>,
        config: &'a TargetConfig,
        batch: &'a [OutEvent],
    ) -> Self {
        Self {
            producers,
            generation,
            config,
            batch,
            place: producers.place(config),
            patience: generation.patience(producers.config()),
            pending: VecDeque::with_capacity(batch.len()),
            outcomes: batch.iter().map(|_| None).collect(),
            held: Held::default(),
            suspects: Vec::new(),
        }
    }

    /// Hands every event over in order. `Err`: the producer is no good any more.
    async fn hand_over_all(&mut self) -> Result<(), SendError> {
        for at in 0..self.batch.len() {
            self.hand_over(at).await?;
        }
        Ok(())
    }

    async fn hand_over(&mut self, at: usize) -> Result<(), SendError> {
        let Some(event) = self.batch.get(at) else { return Ok(()) };
        if let Some(error) = self.held.get(event.order_key) {
            let error = error.clone();
            self.conclude(at, Err(error));
            return Ok(());
        }
        let message = match encode(self.config, event) {
            Ok(message) => message,
            Err(error) => {
                self.conclude(at, Err(error));
                return Ok(());
            }
        };
        let mut record = Record::to(message.topic).headers(message.headers);
        record.key = message.key.as_deref().map(str::as_bytes);
        record.payload = message.payload.as_deref();
        loop {
            match self.generation.hand_over(record) {
                Handed::Over(report) => {
                    self.pending.push_back((at, report));
                    return Ok(());
                }
                Handed::Full(back) => {
                    record = back;
                    self.wait_for_room().await?;
                }
                Handed::Refused(error) => {
                    let error = classify(&self.place, self.config, &error, None);
                    self.conclude(at, Err(error));
                    return Ok(());
                }
                Handed::Retired => return Err(self.replaced()),
            }
        }
    }

    async fn wait_for_room(&mut self) -> Result<(), SendError> {
        if self.pending.is_empty() {
            // Other targets of the connection fill the buffer.
            let mut pause = Box::pin(tokio::time::sleep(FULL_PAUSE));
            return self.patience.wait(&self.place, &mut pause).await;
        }
        self.settle_oldest().await
    }

    async fn settle_all(&mut self) -> Result<(), SendError> {
        while !self.pending.is_empty() {
            self.settle_oldest().await?;
        }
        Ok(())
    }

    async fn settle_oldest(&mut self) -> Result<(), SendError> {
        let Some((at, report)) = self.pending.front_mut() else { return Ok(()) };
        let at = *at;
        let report = self.patience.wait(&self.place, report).await?;
        self.pending.pop_front();
        match report {
            Ok(Ok(_)) => {
                self.generation.delivered();
                self.patience.progressed();
                self.conclude(at, Ok(()));
                Ok(())
            }
            Ok(Err((error, _))) => self.refused(at, &error),
            Err(_) => Err(self.replaced()),
        }
    }

    fn refused(&mut self, at: usize, error: &KafkaError) -> Result<(), SendError> {
        if blames_a_message(error) {
            self.suspects.push(at);
            return Ok(());
        }
        if was_purged(error) {
            return Err(self.replaced());
        }
        let error = classify(&self.place, self.config, error, None);
        self.conclude(at, Err(error.clone()));
        // Behind a message that will be tried again nothing may be sent by this producer.
        if error.follow == Follow::Retry { Err(error) } else { Ok(()) }
    }

    /// The broker refuses a whole request for one bad message in it. Sends those messages again, each alone.
    async fn settle_suspects(&mut self) -> Result<(), SendError> {
        for at in std::mem::take(&mut self.suspects) {
            self.hand_over(at).await?;
            self.settle_all().await?;
            if self.suspects.pop().is_some() {
                let why = "the broker refuses this event: it is too large for the topic, or no valid record";
                self.conclude(at, Err(SendError::give_up(format!("{}: {why}", self.place))));
            }
        }
        Ok(())
    }

    /// Retires the producer. What it confirmed in time stays confirmed, everything else failed with `error`.
    async fn abandon(&mut self, error: SendError) {
        self.producers.retire(self.generation).await;
        let deadline = tokio::time::Instant::now() + PURGED_REPORTS;
        for (at, report) in std::mem::take(&mut self.pending) {
            let report: Option<OwnedDeliveryResult> =
                tokio::time::timeout_at(deadline, report).map(|report| report.ok()?.ok()).await;
            match report {
                Some(Ok(_)) => self.conclude(at, Ok(())),
                _ => self.conclude(at, Err(error.clone())),
            }
        }
        for outcome in self.outcomes.iter_mut().filter(|outcome| outcome.is_none()) {
            *outcome = Some(Err(error.clone()));
        }
    }

    fn conclude(&mut self, at: usize, outcome: Outcome) {
        if let (Err(error), Some(event)) = (&outcome, self.batch.get(at)) {
            self.held.note(event.order_key, error);
        }
        if let Some(slot) = self.outcomes.get_mut(at) {
            *slot = Some(outcome);
        }
    }

    /// Another target of the connection has lost patience, and the producer went with everything that it held.
    fn replaced(&self) -> SendError {
        let otherwise = || "the producer was replaced after another target's failure".to_owned();
        SendError::retry(format!("{}: {}", self.place, self.generation.trouble().what(otherwise)))
    }

    fn into_outcomes(self) -> Vec<Outcome> {
        let unknown = || Err(SendError::retry(format!("{}: no report came", self.place)));
        self.outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(unknown)).collect()
    }
}

/// Whether this side threw the message away, which says nothing of why.
fn was_purged(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(Code::PurgeQueue | Code::PurgeInflight))
}

/// Whether the broker refused a request because of a message in it, without saying which.
fn blames_a_message(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::MessageSizeTooLarge
                | Code::InvalidRecord
                | Code::InvalidTimestamp
                | Code::InvalidMessageSize
        )
    )
}

/// What follows from an error. `reason` is what the producer said last.
pub(super) fn classify(
    place: &str,
    config: &TargetConfig,
    error: &KafkaError,
    reason: Option<&str>,
) -> SendError {
    let said = match (error.rdkafka_error_code(), reason) {
        (_, Some(reason)) => reason.to_owned(),
        (Some(code), None) => shown(&code.to_string()),
        (None, None) => shown(&error.to_string()),
    };
    let message = format!("{place}: {said}");
    match error.rdkafka_error_code() {
        Some(
            Code::MessageSizeTooLarge
            | Code::InvalidMessageSize
            | Code::InvalidRecord
            | Code::InvalidTimestamp
            | Code::PolicyViolation,
        ) => SendError::give_up(message),
        // A topic that is the same for all events is a matter for a person; one made from the event is the event's.
        Some(
            Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition | Code::InvalidTopic,
        ) => {
            if config.topic.varies() {
                SendError::give_up(message)
            } else {
                SendError::stop(format!("{message}; create the topic, or let the brokers create topics"))
            }
        }
        Some(
            Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::Authentication
            | Code::SSL
            | Code::UnsupportedSASLMechanism
            | Code::UnsupportedCompressionType
            | Code::UnsupportedForMessageFormat
            | Code::UnsupportedVersion
            | Code::UnsupportedFeature
            | Code::SecurityDisabled
            | Code::InvalidRequiredAcks,
        ) => SendError::stop(message),
        Some(Code::QueueFull) => SendError { fault: Fault::Ours, ..SendError::retry(message) },
        _ => SendError::retry(message),
    }
}

#[cfg(test)]
mod tests {
    use tidemill_rules::yaml::{Source, parse};

    use super::super::config::ConnectionConfig;
    use super::*;
    use crate::cloudevents::Mode;
    use crate::slots::Field;
    use crate::testing;

    fn follow(topic: Field, code: Code) -> Follow {
        let config = TargetConfig { topic, topic_shown: "t".to_owned(), key: None, mode: Mode::Binary };
        classify("here", &config, &KafkaError::MessageProduction(code), None).follow
    }

    #[test]
    fn what_follows_from_an_error() {
        let fixed = || Field::Constant("t".to_owned());
        assert_eq!(follow(fixed(), Code::MessageTimedOut), Follow::Retry);
        assert_eq!(follow(fixed(), Code::NotEnoughReplicas), Follow::Retry);
        assert_eq!(follow(fixed(), Code::PurgeInflight), Follow::Retry);
        assert_eq!(follow(fixed(), Code::MessageSizeTooLarge), Follow::GiveUp);
        assert_eq!(follow(fixed(), Code::TopicAuthorizationFailed), Follow::Stop);
        assert_eq!(follow(fixed(), Code::UnknownTopicOrPartition), Follow::Stop);
        assert_eq!(follow(Field::Slot(0), Code::UnknownTopicOrPartition), Follow::GiveUp);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_goes_with_another_target_s_producer_says_what_was_the_matter() {
        // Nobody listens on port 1.
        let text = "{ brokers: \"127.0.0.1:1\" }".to_owned();
        let body = parse(Arc::new(Source { name: "test.yaml".to_owned(), text })).unwrap();
        let producers = Arc::new(Producers::new(Arc::new(ConnectionConfig::check("c", &body).unwrap())));
        let topic = Field::Constant("t".to_owned());
        let config = TargetConfig { topic, topic_shown: "t".to_owned(), key: None, mode: Mode::Binary };
        let generation = producers.current().await.unwrap();
        let sending = tokio::spawn({
            let producers = Arc::clone(&producers);
            async move { send(&producers, &config, &[testing::event("x", 0)]).await }
        });
        while !generation.trouble().what(String::new).starts_with("no broker can be reached") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        producers.retire(&generation).await;
        let outcomes = sending.await.unwrap();
        let message = outcomes[0].as_ref().unwrap_err().message.clone();
        assert!(
            message.starts_with("connection `c`: kafka topic `t`: no broker can be reached ("),
            "{message}"
        );
    }
}
