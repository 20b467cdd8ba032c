//! Documents of the caller: they change in the order in which that is asked for, and those that wait to be written share a sync.

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::fault::{self, Call};
use crate::meta::document::Change;
use crate::shared::Shared;
use crate::{Collection, Documents, Due, Result, Store, StoreError};

/// Changes of documents that wait to be written.
#[derive(Default)]
pub(crate) struct Waiting(Mutex<List>);

#[derive(Default)]
struct List {
    /// In order.
    changes: Vec<(Change, oneshot::Sender<Result<()>>)>,
    /// It is somebody's turn, who looks here again before it is over.
    has_turn: bool,
}

impl Store {
    /// Writes a document, as durable as the store promises when this returns. It may name records and offsets: those there are
    /// when this is called are durable before it is. Documents are written and deleted in the order in which that is asked for, also
    /// by those who go away before it is done: theirs may then wait for the next one.
    ///
    /// # Errors
    /// The database cannot be written, or the log cannot be made durable.
    pub async fn put_document(
        &self,
        collection: Collection,
        key: &str,
        value: Bytes,
        due: Due,
    ) -> Result<()> {
        fault::called(Call::PutDocument, &self.0.shared.options.dir);
        self.change_document(Change { collection, key: key.to_owned(), value: Some(value), due }).await
    }

    async fn change_document(&self, change: Change) -> Result<()> {
        let (reply, mut answer) = oneshot::channel();
        self.0.shared.documents.0.lock().changes.push((change, reply));
        // Whoever's turn it is writes for all: while it does, the next ones gather.
        let turn = self.run(|shared| {
            write_waiting(shared);
            Ok(())
        });
        // Nobody answers if the one whose turn it was failed with a panic.
        tokio::select! {
            biased;
            // Another one's turn may have come before, and this one's goes on as long as there are others.
            written = &mut answer => return written.unwrap_or(Err(StoreError::Panicked)),
            over = turn => over?,
        }
        answer.await.unwrap_or(Err(StoreError::Panicked))
    }

    /// Reads a document.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn document(&self, collection: Collection, key: &str) -> Result<Option<Bytes>> {
        let key = key.to_owned();
        self.run(move |shared| shared.meta.document(collection, &key)).await
    }

    /// Deletes a document. `was_due`: as [`Due`] said when it was written last.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn delete_document(
        &self,
        collection: Collection,
        key: &str,
        was_due: Option<i64>,
    ) -> Result<()> {
        fault::called(Call::DeleteDocument, &self.0.shared.options.dir);
        let due = Due { was: was_due, is: None };
        self.change_document(Change { collection, key: key.to_owned(), value: None, due }).await
    }

    /// Documents in key order after `after`.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn documents(
        &self,
        collection: Collection,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Documents> {
        let after = after.map(str::to_owned);
        self.run(move |shared| shared.meta.documents(collection, after.as_deref(), limit)).await
    }

    /// Keys of documents that begin with `prefix`, in their order after `after`.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn document_keys(
        &self,
        collection: Collection,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.run(move |shared| shared.meta.document_keys(collection, &prefix, after.as_deref(), limit)).await
    }

    /// Documents for which something is due at `from_ms` or later, and of those of `from_ms` itself the ones after `after`: when
    /// ([`Due`]) and key, by time and then by key.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn documents_due(
        &self,
        collection: Collection,
        from_ms: i64,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(i64, String)>> {
        let after = after.map(str::to_owned);
        self.run(move |shared| shared.meta.documents_due(collection, from_ms, after.as_deref(), limit)).await
    }
}

/// Writes what waits, unless somebody else does.
fn write_waiting(shared: &Shared) {
    let Some(mut turn) = Turn::begin(&shared.documents) else { return };
    while let Some(changes) = turn.next() {
        let is_put = |change: &Change| change.value.is_some();
        // After a power cut, a document must not name a record that is gone, and whose place another one gets. One that is deleted
        // names none.
        let durable = match changes.iter().any(|(change, _)| is_put(change)) {
            true => shared.log.wait_durable(&shared.log.cut()),
            false => Ok(()),
        };
        let writable = changes.iter().map(|(change, _)| change);
        let written =
            shared.meta.change_documents(writable.filter(|change| durable.is_ok() || !is_put(change)));
        for (change, reply) in changes {
            let durable = if is_put(&change) { durable.clone() } else { Ok(()) };
            // Whoever went away does not need the answer.
            let _ = reply.send(durable.and(written.clone()));
        }
    }
}

/// Nobody else writes documents as long as this is there: an older change would come after a newer one.
struct Turn<'a> {
    waiting: &'a Waiting,
    is_over: bool,
}

impl<'a> Turn<'a> {
    /// Nothing if it is another one's, who sees to what is in the list now.
    fn begin(waiting: &'a Waiting) -> Option<Self> {
        let had_turn = std::mem::replace(&mut waiting.0.lock().has_turn, true);
        (!had_turn).then(|| Turn { waiting, is_over: false })
    }

    /// What waits; the turn is over once nothing does.
    fn next(&mut self) -> Option<Vec<(Change, oneshot::Sender<Result<()>>)>> {
        let mut list = self.waiting.0.lock();
        self.is_over = list.changes.is_empty();
        list.has_turn = !self.is_over;
        (!self.is_over).then(|| std::mem::take(&mut list.changes))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // A panic: those who left their changes to this turn hear of it.
        if !self.is_over {
            *self.waiting.0.lock() = List::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Options;
    use crate::fault::{Point, hold_nth};

    async fn put(store: &Store, key: &str, value: &'static str) -> Result<()> {
        store.put_document(Collection::Sessions, key, value.into(), Due::default()).await
    }

    async fn value(store: &Store, key: &str) -> Option<Bytes> {
        let read = store.document(Collection::Sessions, key);
        tokio::time::timeout(Duration::from_secs(20), read).await.expect("the pool is occupied").unwrap()
    }

    #[tokio::test]
    async fn documents_change_in_the_order_in_which_that_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Options::new(dir.path())).unwrap();
        let held = hold_nth(dir.path(), Point::MetaWrite, 1);
        let first = async { tokio::join!(put(&store, "a", "1"), put(&store, "b", "1")) };
        let second = async {
            while !held.struck() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // Whoever gives up leaves a change that is older than what follows, as all others are.
            let given_up = tokio::time::timeout(Duration::ZERO, put(&store, "b", "2")).await;
            assert!(given_up.is_err());
            let rest = async {
                tokio::join!(
                    put(&store, "a", "2"),
                    store.delete_document(Collection::Sessions, "b", None),
                    put(&store, "c", "1"),
                )
            };
            let reads = async {
                for _ in 0..10 {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    assert_eq!(value(&store, "a").await, None);
                }
                drop(held);
            };
            tokio::join!(rest, reads).0
        };
        let (first, second) = tokio::join!(first, second);
        first.0.and(first.1).and(second.0).and(second.1).and(second.2).unwrap();
        assert_eq!(value(&store, "a").await, Some("2".into()));
        assert_eq!(value(&store, "b").await, None);
        assert_eq!(value(&store, "c").await, Some("1".into()));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn everyone_of_many_is_answered() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Options { flush: crate::Flush::Async, ..Options::new(dir.path()) }).unwrap();
        let one = |n: usize| {
            let store = store.clone();
            async move {
                let key = n.to_string();
                for round in 0..50 {
                    if (n + round).is_multiple_of(7) {
                        let _ = tokio::time::timeout(Duration::ZERO, put(&store, &key, "0")).await;
                    }
                    put(&store, &key, "1").await.unwrap();
                    store.delete_document(Collection::Sessions, &key, None).await.unwrap();
                    assert_eq!(value(&store, &key).await, None);
                }
            }
        };
        let all = all_of(400, one);
        tokio::time::timeout(Duration::from_secs(60), all).await.expect("somebody was forgotten");
    }

    /// Runs so many at a time.
    async fn all_of<F: Future<Output = ()> + Send + 'static>(count: usize, one: impl Fn(usize) -> F) {
        let tasks: Vec<_> = (0..count).map(|n| tokio::spawn(one(n))).collect();
        for task in tasks {
            task.await.unwrap();
        }
    }
}
