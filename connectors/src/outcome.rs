//! Outcomes of a batch, and the rule that keeps the order of a key honest.

use std::collections::HashMap;

use crate::{OutEvent, SendError};

/// What became of one event.
pub(crate) type Outcome = Result<(), SendError>;

/// The same outcome for every event of a batch.
pub(crate) fn all(batch: &[OutEvent], error: &SendError) -> Vec<Outcome> {
    batch.iter().map(|_| Err(error.clone())).collect()
}

/// The order keys that have to wait, each with the failure it waits for.
#[derive(Default)]
pub(crate) struct Held(HashMap<u64, SendError>);

impl Held {
    /// The failure for which events of `key` wait.
    pub(crate) fn get(&self, key: u64) -> Option<&SendError> {
        if self.0.is_empty() { None } else { self.0.get(&key) }
    }

    /// Takes note of an event's failure: later events of its key wait if the event will be tried again.
    pub(crate) fn note(&mut self, key: u64, error: &SendError) {
        if error.holds_back() {
            self.0.entry(key).or_insert_with(|| error.clone());
        }
    }
}

/// After the first event of an order key that will be tried again, every later event of that key gets the same
/// outcome, even one the destination has confirmed: it is sent again behind the one that failed.
pub(crate) fn hold_back(batch: &[OutEvent], outcomes: &mut [Outcome]) {
    let mut held = Held::default();
    for (event, outcome) in batch.iter().zip(outcomes) {
        match (held.get(event.order_key), &outcome) {
            (Some(error), _) => *outcome = Err(error.clone()),
            (None, Err(error)) => held.note(event.order_key, error),
            (None, Ok(())) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn later_events_of_a_failed_key_wait_and_others_do_not() {
        let batch: Vec<_> = [1, 2, 1, 2, 1].iter().map(|key| testing::event("x", *key)).collect();
        let mut outcomes = vec![Ok(()), Ok(()), Err(SendError::retry("down")), Ok(()), Ok(())];
        hold_back(&batch, &mut outcomes);
        let ok: Vec<_> = outcomes.iter().map(Result::is_ok).collect();
        assert_eq!(ok, [true, true, false, true, false]);
        assert_eq!(outcomes[4], Err(SendError::retry("down")));
    }

    #[test]
    fn an_event_given_up_holds_nothing_back() {
        let batch: Vec<_> = [1, 1].iter().map(|key| testing::event("x", *key)).collect();
        let mut outcomes = vec![Err(SendError::give_up("bad")), Ok(())];
        hold_back(&batch, &mut outcomes);
        assert_eq!(outcomes, [Err(SendError::give_up("bad")), Ok(())]);
    }
}
