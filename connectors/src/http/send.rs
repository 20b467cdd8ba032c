//! A batch: lanes of one order key each, or documents of many events.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use futures_util::StreamExt;
use futures_util::stream;
use reqwest::Url;

use super::DOCUMENT_BYTES_MAX;
use super::config::Mode;
use super::encode;
use super::request::{Caller, Cause, Prepared, Refusal};
use crate::outcome::{self, Held, Outcome};
use crate::{Follow, OutEvent, SendError};

/// Sends a batch and waits for the answer to each event.
pub(super) async fn send(caller: &mut Caller, batch: &[OutEvent]) -> Vec<Outcome> {
    let prepared = match caller.prepared() {
        Ok(prepared) => prepared,
        Err(error) => return outcome::all(batch, &error),
    };
    let mut outcomes = match caller.config.mode {
        Mode::Batched => send_documents(caller, &prepared, batch).await,
        Mode::Binary | Mode::Structured => send_lanes(caller, &prepared, batch).await,
    };
    if outcomes.iter().any(|outcome| outcome.as_ref().is_err_and(|error| error.follow == Follow::Stop)) {
        caller.forget_secrets();
    }
    outcome::hold_back(batch, &mut outcomes);
    outcomes
}

/// One lane for each order key: lanes run at once, the events of a lane one after the other.
async fn send_lanes(caller: &Caller, prepared: &Prepared, batch: &[OutEvent]) -> Vec<Outcome> {
    let mut lane_of = HashMap::new();
    let mut lanes: Vec<Vec<usize>> = Vec::new();
    for (at, event) in batch.iter().enumerate() {
        let lane = *lane_of.entry(event.order_key).or_insert_with(|| {
            lanes.push(Vec::new());
            lanes.len() - 1
        });
        if let Some(lane) = lanes.get_mut(lane) {
            lane.push(at);
        }
    }
    let breaker = &Breaker::default();
    let concurrency = caller.config.concurrency;
    let running =
        lanes.into_iter().map(|lane| async move { send_lane(caller, prepared, batch, breaker, lane).await });
    let mut finished = stream::iter(running).buffer_unordered(concurrency);
    let mut outcomes: Vec<Outcome> = batch.iter().map(|_| Ok(())).collect();
    while let Some(lane) = finished.next().await {
        for (at, outcome) in lane {
            if let Some(slot) = outcomes.get_mut(at) {
                *slot = outcome;
            }
        }
    }
    outcomes
}

async fn send_lane(
    caller: &Caller,
    prepared: &Prepared,
    batch: &[OutEvent],
    breaker: &Breaker,
    lane: Vec<usize>,
) -> Vec<(usize, Outcome)> {
    let mut outcomes = Vec::with_capacity(lane.len());
    let mut ended: Option<SendError> = None;
    for at in lane {
        let outcome = match (&ended, batch.get(at)) {
            (Some(error), _) => Err(error.clone()),
            (None, Some(event)) => send_one(caller, prepared, breaker, event).await,
            (None, None) => continue,
        };
        if let Err(error) = &outcome
            && error.holds_back()
        {
            ended = Some(error.clone());
        }
        outcomes.push((at, outcome));
    }
    outcomes
}

async fn send_one(caller: &Caller, prepared: &Prepared, breaker: &Breaker, event: &OutEvent) -> Outcome {
    breaker.check()?;
    let sent = async {
        let url = caller.url(prepared, event)?;
        let encoded = match caller.config.mode {
            Mode::Binary => {
                encode::binary(&event.event).map_err(|error| Refusal { error, cause: Cause::Event })?
            }
            Mode::Structured | Mode::Batched => encode::structured(&event.event),
        };
        caller.call(prepared, url, encoded).await
    };
    match sent.await {
        Ok(()) => {
            breaker.succeeded();
            Ok(())
        }
        Err(refusal) => {
            breaker.failed(&refusal, caller.config.concurrency);
            Err(refusal.error)
        }
    }
}

/// Ends a batch early when the destination is plainly away: otherwise every lane would find it out for itself, and a
/// batch would take as many timeouts as it has rounds of lanes.
#[derive(Default)]
struct Breaker {
    open: Mutex<Option<SendError>>,
    timeouts: AtomicUsize,
    successes: AtomicUsize,
}

impl Breaker {
    fn check(&self) -> Result<(), SendError> {
        match &*self.open.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    fn succeeded(&self) {
        self.successes.fetch_add(1, Ordering::Relaxed);
    }

    fn failed(&self, refusal: &Refusal, concurrency: usize) {
        let away = match refusal.cause {
            Cause::Connect => true,
            // One slow answer may be the event's doing; a whole round of them, and nothing else, is not.
            Cause::Timeout => {
                self.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= concurrency
                    && self.successes.load(Ordering::Relaxed) == 0
            }
            // Asked to wait, or refused for something that is the same for all.
            Cause::Answer => refusal.error.retry_after.is_some() || refusal.error.follow == Follow::Stop,
            Cause::Lost | Cause::Event => false,
        };
        if away {
            *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal.error.clone());
        }
    }
}

/// Documents of many events, one after the other, each of events with one address.
async fn send_documents(caller: &Caller, prepared: &Prepared, batch: &[OutEvent]) -> Vec<Outcome> {
    let mut outcomes: Vec<Outcome> = batch.iter().map(|_| Ok(())).collect();
    let mut held = Held::default();
    let mut documents = documents(caller, prepared, batch, &mut outcomes, &mut held);
    // A stack: the halves of a refused document come before what stands behind it.
    documents.reverse();
    let mut away: Option<SendError> = None;
    while let Some(mut document) = documents.pop() {
        if let Some(error) = &away {
            conclude(batch, &mut outcomes, &mut held, &document.events, &Err(error.clone()));
            continue;
        }
        document.events.retain(|at| match batch.get(*at).and_then(|event| held.get(event.order_key)) {
            Some(error) => {
                if let Some(slot) = outcomes.get_mut(*at) {
                    *slot = Err(error.clone());
                }
                false
            }
            None => true,
        });
        let events = document.events.iter().filter_map(|at| batch.get(*at)).map(|event| &event.event);
        let encoded = encode::batched(events);
        if document.events.is_empty() {
            continue;
        }
        let Err(refusal) = caller.call(prepared, document.url.clone(), encoded).await else { continue };
        // The answer speaks of the document as a whole: halve it until the event at fault stands alone.
        if refusal.error.follow == Follow::GiveUp && document.events.len() > 1 {
            let second = document.events.split_off(document.events.len() / 2);
            documents.push(Document { url: document.url.clone(), events: second });
            documents.push(document);
            continue;
        }
        conclude(batch, &mut outcomes, &mut held, &document.events, &Err(refusal.error.clone()));
        if refusal.error.holds_back() {
            away = Some(refusal.error);
        }
    }
    outcomes
}

/// Events for one request.
struct Document {
    url: Url,
    events: Vec<usize>,
}

/// Cuts a batch into documents of neighbours with one address, within the limits of a document.
fn documents(
    caller: &Caller,
    prepared: &Prepared,
    batch: &[OutEvent],
    outcomes: &mut [Outcome],
    held: &mut Held,
) -> Vec<Document> {
    let mut documents: Vec<Document> = Vec::new();
    let mut bytes = 0;
    for (at, event) in batch.iter().enumerate() {
        let url = match caller.url(prepared, event) {
            Ok(url) => url,
            Err(refusal) => {
                conclude(batch, outcomes, held, &[at], &Err(refusal.error));
                continue;
            }
        };
        let size = event.event.data.as_ref().map_or(0, |data| data.len());
        match documents.last_mut() {
            Some(last)
                if last.url == url
                    && last.events.len() < caller.config.batch_max
                    && bytes + size <= DOCUMENT_BYTES_MAX =>
            {
                last.events.push(at);
                bytes += size;
            }
            _ => {
                documents.push(Document { url, events: vec![at] });
                bytes = size;
            }
        }
    }
    documents
}

fn conclude(
    batch: &[OutEvent],
    outcomes: &mut [Outcome],
    held: &mut Held,
    events: &[usize],
    outcome: &Outcome,
) {
    for at in events {
        if let (Err(error), Some(event)) = (outcome, batch.get(*at)) {
            held.note(event.order_key, error);
        }
        if let Some(slot) = outcomes.get_mut(*at) {
            *slot = outcome.clone();
        }
    }
}
