//! Queues of a [`Store`]: found, made, filled with history and deleted.

use tokio::sync::oneshot;

use crate::catalogue::{self, Change, OpenQueue, References};
use crate::fault::{self, Call};
use crate::meta::catalogue::Kind;
use crate::queue::filter;
use crate::{FilterRequest, History, Keep, QueueId, QueueInfo, Result, Store, StoreError};

impl Store {
    /// [`Store::open_filters`] for one durable queue.
    ///
    /// # Errors
    /// Those of [`Store::open_filters`].
    pub async fn open_filter(&self, filter: &str) -> Result<QueueInfo> {
        let request =
            FilterRequest { filter: filter.to_owned(), keep: Keep::Durable, history: History::None };
        self.open_filters(vec![request]).await?.pop().ok_or(StoreError::Closed)
    }

    /// Finds or makes the queues of topic filters, and takes a reference to each. Each is durable, if that was asked for, and
    /// filled from here on when this returns; its `end` is the first offset of what is published afterwards. A
    /// queue that is new has the history that was asked for then as well, before that offset.
    ///
    /// A live queue that is found becomes durable if that is asked for now; a durable one stays so.
    ///
    /// # Errors
    /// A filter is none, the catalogue cannot be written, or the history cannot be read: the queue then exists, without a reference,
    /// and is filled when it is opened again. Dropping this before it is done leaves no reference either.
    pub async fn open_filters(&self, requests: Vec<FilterRequest>) -> Result<Vec<QueueInfo>> {
        let wants_history = requests.iter().any(|request| request.history != History::None);
        let queues = requests.into_iter().map(|FilterRequest { filter, keep, history }| {
            let filters = vec![filter.clone()];
            OpenQueue { kind: Kind::Filter, name: filter, filters, keep, history, refer: true }
        });
        let (mut infos, references) = self.open_queues(queues.collect()).await?;
        if wants_history {
            for info in &mut infos {
                self.fill_with_history(info.id).await?;
                *info = self.queue(info.id).await?;
            }
        }
        references.hand_over();
        Ok(infos)
    }

    /// Finds or creates the queue `name` of all records that match any of `filters`; an existing one
    /// gets these filters from here on.
    ///
    /// # Errors
    /// A filter is none, or the catalogue cannot be written.
    pub async fn open_union(&self, name: &str, filters: &[String]) -> Result<QueueInfo> {
        self.open_queue(Kind::Union, name, filters.to_vec()).await
    }

    /// Finds or creates a queue that is filled with [`Store::derive`].
    ///
    /// # Errors
    /// The catalogue cannot be written.
    pub async fn open_derived(&self, name: &str) -> Result<QueueInfo> {
        self.open_queue(Kind::Derived, name, Vec::new()).await
    }

    async fn open_queue(&self, kind: Kind, name: &str, filters: Vec<String>) -> Result<QueueInfo> {
        let (keep, history) = (Keep::Durable, History::None);
        let queue = OpenQueue { kind, name: name.to_owned(), filters, keep, history, refer: false };
        // It refers to none.
        let (mut infos, _) = self.open_queues(vec![queue]).await?;
        infos.pop().ok_or(StoreError::Closed)
    }

    async fn open_queues(&self, queues: Vec<OpenQueue>) -> Result<(Vec<QueueInfo>, References)> {
        for text in queues.iter().flat_map(|queue| &queue.filters) {
            filter::check(text).map_err(|what| StoreError::BadFilter { filter: text.clone(), what })?;
        }
        self.change(|reply| Change::Open { queues, reply }).await
    }

    /// Has the catalogue's thread carry out a change, which it does to its end even if the caller goes away.
    pub(crate) async fn change<T>(
        &self,
        change: impl FnOnce(oneshot::Sender<Result<T>>) -> Change,
    ) -> Result<T> {
        let changes = self.0.threads.lock().as_ref().and_then(|threads| threads.changes.clone());
        let changes = changes.ok_or(StoreError::Closed)?;
        let (reply, answer) = oneshot::channel();
        changes.send(change(reply)).await.map_err(|_| StoreError::Closed)?;
        drop(changes);
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Takes a reference to each of these queues that there is, of those of filters; whether there is each. Asks no disk.
    ///
    /// # Errors
    /// The store is closed. Dropping this before it is done leaves no reference.
    pub async fn refer_filters(&self, queues: Vec<QueueId>) -> Result<Vec<bool>> {
        let (are_there, references) = self.change(|reply| Change::Refer { queues, reply }).await?;
        references.hand_over();
        Ok(are_there)
    }

    /// Gives back references to filter queues. A live queue goes with the last one, a durable one [`crate::Options::queue_ttl`] later.
    ///
    /// # Errors
    /// The catalogue cannot be written.
    pub async fn release_filters(&self, queues: Vec<QueueId>) -> Result<()> {
        fault::called(Call::Release, &self.0.shared.options.dir);
        self.change(|reply| Change::Release { queues, reply }).await
    }

    /// Deletes a queue of any kind and its entries. Cursors in it are their owners' to delete.
    ///
    /// # Errors
    /// There is no such queue, or the catalogue cannot be written.
    pub async fn delete_queue(&self, queue: QueueId) -> Result<()> {
        self.change(|reply| Change::Delete { queue, reply }).await
    }

    /// Gives up on filter queues nobody took a reference to since the store was opened: they go as those do
    /// whose last reference was given back. Their number.
    ///
    /// # Errors
    /// The catalogue cannot be read or written.
    pub async fn sweep(&self) -> Result<usize> {
        self.change(|reply| Change::Sweep { reply }).await
    }

    /// The queue, if it exists. Reads the disk: not for every message.
    ///
    /// # Errors
    /// There is no such queue, or its index cannot be read.
    pub async fn queue(&self, queue: QueueId) -> Result<QueueInfo> {
        self.run(move |shared| catalogue::info(shared, catalogue::entry(shared, queue)?)).await
    }

    /// The offset that the queue's next entry will get; `None` if there is no such queue. Answers from memory.
    #[must_use]
    pub fn queue_end(&self, queue: QueueId) -> Option<u64> {
        self.0.shared.table.read().end(queue)
    }

    /// Derived queues whose names begin with `name_prefix`, by name after `after`. Reads the disk.
    ///
    /// # Errors
    /// The catalogue or an index cannot be read.
    pub async fn derived_queues(
        &self,
        name_prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<QueueInfo>> {
        let (prefix, after) = (name_prefix.to_owned(), after.map(str::to_owned));
        self.run(move |shared| {
            let entries = shared.meta.queues_named(Kind::Derived, &prefix, after.as_deref(), limit)?;
            entries.into_iter().map(|entry| catalogue::info(shared, entry)).collect()
        })
        .await
    }

    /// Queues by number, after `after`. Reads the disk.
    ///
    /// # Errors
    /// The catalogue or an index cannot be read.
    pub async fn queues(&self, after: Option<QueueId>, limit: usize) -> Result<Vec<QueueInfo>> {
        self.run(move |shared| {
            let entries = catalogue::page(shared, after, limit)?;
            entries.into_iter().map(|entry| catalogue::info(shared, entry)).collect()
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Poll, Waker};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::fault::{Point, fail_nth};
    use crate::{NewRecord, Options, Retain};

    /// Waits until something holds.
    async fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < Duration::from_secs(20), "{what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    #[tokio::test]
    async fn who_goes_away_while_a_queue_is_opened_leaves_no_reference() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { queue_ttl: Duration::ZERO, ..Options::new(dir.path()) };
        let options = Options { retention_interval: Duration::from_millis(5), ..options };
        let store = Store::open(options).unwrap();
        let record = NewRecord {
            topic: "t".into(),
            properties: Default::default(),
            payload: "1".into(),
            attributes: 0,
            retain: Retain::No,
        };
        store.append(vec![record]).await.unwrap();
        let request = |keep, history| vec![FilterRequest { filter: "t".into(), keep, history }];
        let table = || store.0.shared.table.read();
        for (keep, history) in
            [(Keep::Durable, History::None), (Keep::Durable, History::Earliest), (Keep::Live, History::None)]
        {
            {
                // The queue cannot be filled meanwhile.
                let _filling = store.0.shared.filling.lock().await;
                let mut opening = pin!(store.open_filters(request(keep, history)));
                let mut context = Context::from_waker(Waker::noop());
                if let Poll::Ready(infos) = opening.as_mut().poll(&mut context) {
                    // The catalogue was as fast as this.
                    assert_eq!(history, History::None);
                    store.release_filters(vec![infos.unwrap().remove(0).id]).await.unwrap();
                    continue;
                }
                let is_referred_to = || {
                    let table = table();
                    table.len() == 1 && table.unreferenced().is_empty()
                };
                until("the queue is not made", is_referred_to).await;
                if history != History::None {
                    // It has its reference and waits for its history.
                    assert!(opening.as_mut().poll(&mut context).is_pending());
                }
            }
            until("the queue stays", || table().len() == 0).await;
        }
        // Who stays has a reference, and gives it back.
        let queue = store.open_filters(request(Keep::Durable, History::Earliest)).await.unwrap().remove(0);
        assert_eq!((queue.end - queue.first, table().unreferenced()), (1, Vec::new()));
        store.release_filters(vec![queue.id]).await.unwrap();
        assert_eq!(table().len(), 0);
    }

    #[tokio::test]
    async fn a_queue_says_which_records_come_behind_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Options::new(dir.path())).unwrap();
        let record = NewRecord {
            topic: "t".into(),
            properties: Default::default(),
            payload: "1".into(),
            attributes: 0,
            retain: Retain::No,
        };
        let (known, done) = (store.open_filter("t").await.unwrap(), AtomicBool::new(false));
        let append = async {
            while !done.load(Ordering::Relaxed) {
                store.append(vec![record.clone(); 3]).await.unwrap();
            }
        };
        let look = async {
            for round in 0..30 {
                let filter = ["#", "+", "t/#"][round % 3];
                let new = store.open_filter(filter).await.unwrap();
                for before in [&known, &new] {
                    // All records are in both.
                    let now = store.queue(before.id).await.unwrap();
                    assert_eq!(
                        now.end - before.end,
                        now.sequence - before.sequence,
                        "{filter}, round {round}"
                    );
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            done.store(true, Ordering::Relaxed);
        };
        tokio::join!(append, look);
    }

    #[tokio::test]
    async fn a_queue_that_could_not_be_deleted_is_later() {
        for queue_ttl in [Duration::ZERO, Duration::from_millis(20)] {
            let dir = tempfile::tempdir().unwrap();
            let options = Options { queue_ttl, ..Options::new(dir.path()) };
            let options = Options { retention_interval: Duration::from_millis(5), ..options };
            let store = Store::open(options).unwrap();
            let (gone, wanted) =
                (store.open_filter("a").await.unwrap(), store.open_filter("b").await.unwrap());
            let faults = [1, 2].map(|_| fail_nth(dir.path(), Point::MetaWrite, 1, 28));
            let released = store.release_filters(vec![gone.id, wanted.id]).await;
            assert_eq!(released.is_err(), queue_ttl.is_zero());
            // One that somebody wants again meanwhile stays.
            let again = loop {
                // Its own write may be one of those that fail.
                if let Ok(info) = store.open_filter("b").await {
                    break info;
                }
            };
            until("the queue stays", || store.0.shared.table.read().len() == 1).await;
            assert!(faults.iter().all(|fault| fault.struck()));
            assert!(store.0.shared.table.read().is_referred_to(again.id));
        }
    }

    #[tokio::test]
    async fn of_very_many_queues_those_that_could_not_be_deleted_are_later() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { queue_ttl: Duration::ZERO, ..Options::new(dir.path()) };
        let options = Options { retention_interval: Duration::from_millis(5), ..options };
        let store = Store::open(options).unwrap();
        let request =
            |n| FilterRequest { filter: format!("t/{n}"), keep: Keep::Durable, history: History::None };
        let queues = store.open_filters((0..5000).map(request).collect()).await.unwrap();
        let fault = fail_nth(dir.path(), Point::MetaWrite, 2, 28);
        store.release_filters(queues.iter().map(|queue| queue.id).collect()).await.unwrap_err();
        assert!(fault.struck());
        until("the queues stay", || store.0.shared.table.read().len() == 0).await;
        assert_eq!(store.sweep().await.unwrap(), 0);
        assert!(!store.takes("t/1") && !store.takes("t/4999"));
        assert_eq!(store.queues(None, 9).await.unwrap(), []);
    }
}
