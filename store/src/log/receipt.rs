//! [`Receipt`]: the answer to one append, which several shards may have to give.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{Appended, Result, StoreError};

/// Who waits for an append.
pub(crate) type Reply = oneshot::Sender<Result<Appended>>;

/// A shard's part in the answer to an append. It is not given by letting go of it: a thread that dies
/// acknowledges nothing.
#[derive(Debug, Clone)]
pub(crate) struct Receipt(Arc<State>);

#[derive(Debug)]
struct State {
    /// Shards that are to say that they have it.
    left: AtomicUsize,
    answer: Mutex<Option<(Reply, Appended)>>,
}

impl Receipt {
    /// An answer that `shards` shards give together.
    pub(crate) fn new(shards: usize, reply: Reply, appended: Appended) -> Self {
        Receipt(Arc::new(State {
            left: AtomicUsize::new(shards),
            answer: Mutex::new(Some((reply, appended))),
        }))
    }

    /// One shard has its part durably; the last one answers.
    pub(crate) fn confirm(self) {
        if self.0.left.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some((reply, appended)) = self.0.answer.lock().take()
        {
            // Whoever does not wait any more needs no answer.
            let _ = reply.send(Ok(appended));
        }
    }

    /// One shard does not have it: the first error is the answer.
    pub(crate) fn fail(self, error: StoreError) {
        if let Some((reply, _)) = self.0.answer.lock().take() {
            let _ = reply.send(Err(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_confirm_or_the_first_error_answers() {
        let receipt = |shards| {
            let (reply, answer) = oneshot::channel();
            (Receipt::new(shards, reply, Appended { positions: Vec::new(), sequence: 0 }), answer)
        };
        let (both, mut answer) = receipt(2);
        both.clone().confirm();
        assert!(answer.try_recv().is_err());
        both.confirm();
        assert!(matches!(answer.try_recv(), Ok(Ok(_))));

        let (failed, mut answer) = receipt(2);
        failed.clone().fail(StoreError::Closed);
        failed.confirm();
        assert!(matches!(answer.try_recv(), Ok(Err(StoreError::Closed))));

        let (left, mut answer) = receipt(1);
        drop(left);
        assert!(answer.try_recv().is_err(), "nothing is confirmed by letting go");
    }
}
