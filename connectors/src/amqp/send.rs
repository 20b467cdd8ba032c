//! A batch, its confirms and returns.
//!
//! The whole batch is published before the first confirm is awaited. A channel keeps the order, and a lost channel
//! loses a tail of the batch, so a retry cannot be overtaken. One thing can: a message that the broker refuses with
//! `nack` (a queue at its limit, for example) while it takes later ones; those are sent again behind it.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation, Error, PublisherConfirm};
use tokio::time::{Instant, timeout_at};

use super::config::TargetConfig;
use super::encode::encode;
use super::errors::{blames_a_message, classify, is_said_by_broker};
use super::link::{Links, OpenChannel};
use crate::outcome::{self, Held, Outcome};
use crate::text::shown;
use crate::{OutEvent, SendError};

/// A message on its way: first until lapin has written it, then until the broker confirms it.
type Publishing<'a> = Pin<Box<dyn Future<Output = Result<Confirmation, Error>> + Send + 'a>>;

/// Sends a batch and waits for the confirm of each event.
pub(super) async fn send(
    links: &Links,
    config: &TargetConfig,
    channel: &mut Option<OpenChannel>,
    batch: &[OutEvent],
) -> Vec<Outcome> {
    let mut wave = Wave::new(links, config, batch);
    let everything: Vec<usize> = (0..batch.len()).collect();
    wave.publish(channel, &everything).await;
    // The broker closed the channel for one bad message without saying which: send the rest one by one.
    for at in std::mem::take(&mut wave.suspects) {
        wave.publish(channel, &[at]).await;
        if wave.suspects.pop().is_some() {
            let why = "the broker refuses this event, perhaps because of its size";
            wave.conclude(at, Err(SendError::give_up(format!("{}: {why}", wave.place))));
        }
    }
    let mut outcomes = wave.into_outcomes();
    outcome::hold_back(batch, &mut outcomes);
    outcomes
}

struct Wave<'a> {
    links: &'a Links,
    config: &'a TargetConfig,
    batch: &'a [OutEvent],
    place: String,
    outcomes: Vec<Option<Outcome>>,
    held: Held,
    /// Events that may have made the broker close the channel.
    suspects: Vec<usize>,
}

/// What became of the messages of one run over a channel.
#[derive(Default)]
struct Run {
    confirmed: Vec<usize>,
    refused: Vec<usize>,
    /// Not confirmed, and why the channel failed.
    unconfirmed: Vec<usize>,
    failure: Option<Failure>,
    /// `message-id` of what the broker returned, with its reason.
    returned: HashMap<String, String>,
}

enum Failure {
    Amqp(Error),
    Silence,
}

impl<'a> Wave<'a> {
    fn new(links: &'a Links, config: &'a TargetConfig, batch: &'a [OutEvent]) -> Self {
        let outcomes = batch.iter().map(|_| None).collect();
        let place = links.place(config);
        Self { links, config, batch, place, outcomes, held: Held::default(), suspects: Vec::new() }
    }

    /// Publishes the events at `positions` and notes their outcomes, or that they are suspects.
    async fn publish(&mut self, channel: &mut Option<OpenChannel>, positions: &[usize]) {
        let open = match usable(self.links, channel).await {
            Ok(open) => open,
            Err(error) => return positions.iter().for_each(|at| self.conclude(*at, Err(error.clone()))),
        };
        if open.connection.status().blocked() {
            // What is published now would wait inside lapin; the next attempt finds out whether it is over.
            let error = self.links.blocked();
            return positions.iter().for_each(|at| self.conclude(*at, Err(error.clone())));
        }
        let messages = self.start(&open.channel, positions).await;
        let run = self.settle(messages).await;
        let broken = run.failure.is_some();
        let silent = matches!(run.failure, Some(Failure::Silence));
        self.judge(run, open.connection.status().blocked());
        if let Some(open) = channel.take_if(|_| broken).filter(|_| silent) {
            self.links.lost(&open.connection).await;
        }
    }

    /// Hands the messages to lapin in order.
    async fn start(&mut self, channel: &Channel, positions: &[usize]) -> VecDeque<(usize, Publishing<'a>)> {
        let mut started = VecDeque::with_capacity(positions.len());
        for at in positions {
            let Some(event) = self.batch.get(*at) else { continue };
            if let Some(error) = self.held.get(event.order_key) {
                let error = error.clone();
                self.conclude(*at, Err(error));
                continue;
            }
            let message = match encode(self.config, event) {
                Ok(message) => message,
                Err(error) => {
                    self.conclude(*at, Err(error));
                    continue;
                }
            };
            let (channel, exchange) = (channel.clone(), self.config.exchange.clone());
            let options = BasicPublishOptions { mandatory: self.config.mandatory, immediate: false };
            let mut publishing: Publishing<'a> = Box::pin(async move {
                let written = channel.basic_publish(
                    exchange,
                    message.routing_key,
                    options,
                    &message.payload,
                    message.properties,
                );
                let confirm: PublisherConfirm = written.await?;
                confirm.await
            });
            // The first poll puts the frames into lapin's queue, which fixes the order. A poll that ends at once
            // found the channel gone; its result is kept for `settle`.
            if let Poll::Ready(result) = poll_fn(|cx| Poll::Ready(publishing.as_mut().poll(cx))).await {
                publishing = Box::pin(std::future::ready(result));
            }
            started.push_back((*at, publishing));
        }
        started
    }

    /// Waits for the confirms, as long as one comes within the connection's timeout.
    async fn settle(&self, messages: VecDeque<(usize, Publishing<'a>)>) -> Run {
        let mut run = Run::default();
        let mut progress = Instant::now();
        for (at, publishing) in messages {
            if matches!(run.failure, Some(Failure::Silence)) {
                run.unconfirmed.push(at);
                continue;
            }
            match timeout_at(progress + self.links.config().timeout, publishing).await {
                Ok(Ok(confirmation)) => {
                    progress = Instant::now();
                    run.note(at, confirmation);
                }
                Ok(Err(error)) => {
                    run.unconfirmed.push(at);
                    // The broker's own words say more than what follows from them.
                    let better = match &run.failure {
                        Some(Failure::Amqp(known)) => !is_said_by_broker(known) && is_said_by_broker(&error),
                        _ => true,
                    };
                    if better {
                        run.failure = Some(Failure::Amqp(error));
                    }
                }
                Err(_) => {
                    run.unconfirmed.push(at);
                    run.failure = Some(Failure::Silence);
                }
            }
        }
        run
    }

    fn judge(&mut self, run: Run, blocked: bool) {
        for at in run.confirmed {
            let id = self.batch.get(at).map_or("", |event| event.event.id.as_str());
            match run.returned.get(id) {
                Some(why) => self.conclude(at, Err(self.unroutable(why))),
                None => self.conclude(at, Ok(())),
            }
        }
        let nack = SendError::retry(format!("{}: the broker did not take the event (nack)", self.place));
        for at in run.refused {
            self.conclude(at, Err(nack.clone()));
        }
        let Some(failure) = run.failure else { return };
        let error = match failure {
            Failure::Amqp(error) if blames_a_message(&error) => return self.suspects.extend(run.unconfirmed),
            Failure::Amqp(error) => classify(&self.place, &error),
            Failure::Silence => {
                let timeout = self.links.config().timeout;
                let why = if blocked { " (the broker is short of memory or disk)" } else { "" };
                SendError::retry(format!("{}: nothing was confirmed for {timeout:?}{why}", self.place))
            }
        };
        for at in run.unconfirmed {
            self.conclude(at, Err(error.clone()));
        }
    }

    /// No queue took the message. With one routing key for all events somebody has to bind a queue; with one made
    /// from the event it is this event that has no taker.
    fn unroutable(&self, why: &str) -> SendError {
        let message = format!("{}: no queue takes it ({})", self.place, shown(why));
        if self.config.routing_key.varies() {
            SendError::give_up(message)
        } else {
            SendError::stop(format!("{message}; bind a queue, or set `mandatory: false`"))
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

    fn into_outcomes(self) -> Vec<Outcome> {
        let unknown = || Err(SendError::retry(format!("{}: no confirm came", self.place)));
        self.outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(unknown)).collect()
    }
}

impl Run {
    fn note(&mut self, at: usize, confirmation: Confirmation) {
        if confirmation.is_nack() {
            self.refused.push(at);
        } else {
            self.confirmed.push(at);
        }
        // lapin hands a returned message to whichever confirm comes next, which need not be its own when the broker
        // confirms several at once: what was returned is told by its `message-id`.
        if let Some(returned) = confirmation.take_message()
            && let Some(id) = returned.properties.message_id()
        {
            self.returned.insert(id.as_str().to_owned(), returned.reply_text.as_str().to_owned());
        }
    }
}

/// The channel of the sink, opened anew if it was lost.
async fn usable<'c>(
    links: &Links,
    channel: &'c mut Option<OpenChannel>,
) -> Result<&'c OpenChannel, SendError> {
    match channel.take().filter(OpenChannel::is_usable) {
        Some(open) => Ok(channel.insert(open)),
        None => Ok(channel.insert(links.open().await?)),
    }
}
