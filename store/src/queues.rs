//! Queues of a [`Store`]: found, made and deleted, one change at a time.

use std::future::Future;

use tokio::sync::oneshot;

use crate::log::writer::Command;
use crate::meta::catalogue::{Entry, Kind};
use crate::queue::filter;
use crate::shared::SharedRef;
use crate::{QueueId, QueueInfo, Result, Store, StoreError};

impl Store {
    /// Finds or creates the queue of a topic filter and takes a reference to it. Durable and filled
    /// from here on when this returns; `end` is the first offset of what is published afterwards.
    ///
    /// # Errors
    /// The filter is none, or the catalogue cannot be written.
    pub async fn open_filter(&self, filter: &str) -> Result<QueueInfo> {
        let filter = filter.to_owned();
        self.change(|store| async move {
            let info = store.open_queue(Kind::Filter, &filter, std::slice::from_ref(&filter)).await?;
            store.0.catalogue.refer(info.id);
            Ok(info)
        })
        .await
    }

    /// Finds or creates the queue `name` of all records that match any of `filters`; an existing one
    /// gets these filters from here on.
    ///
    /// # Errors
    /// A filter is none, or the catalogue cannot be written.
    pub async fn open_union(&self, name: &str, filters: &[String]) -> Result<QueueInfo> {
        let (name, filters) = (name.to_owned(), filters.to_vec());
        self.change(|store| async move { store.open_queue(Kind::Union, &name, &filters).await }).await
    }

    /// Finds or creates a queue that is filled with [`Store::derive`].
    ///
    /// # Errors
    /// The catalogue cannot be written.
    pub async fn open_derived(&self, name: &str) -> Result<QueueInfo> {
        let name = name.to_owned();
        self.change(|store| async move { store.open_queue(Kind::Derived, &name, &[]).await }).await
    }

    /// Carries out a change of the catalogue, one at a time, and to its end even if the caller goes away.
    async fn change<T, F>(&self, change: impl FnOnce(Store) -> F + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send,
    {
        let store = self.clone();
        let changed = tokio::spawn(async move {
            let _one = store.0.catalogue.changes.lock().await;
            change(store.clone()).await
        });
        changed.await.unwrap_or(Err(StoreError::Closed))
    }

    async fn open_queue(&self, kind: Kind, name: &str, filters: &[String]) -> Result<QueueInfo> {
        for text in filters {
            filter::check(text).map_err(|what| StoreError::BadFilter { filter: text.clone(), what })?;
        }
        let known = self.0.catalogue.by_name(kind, name);
        let mut entry = match known.clone() {
            Some(entry) => entry,
            None => {
                let id = self.run(|shared| shared.meta.new_queue()).await?;
                Entry { id, kind, name: name.to_owned(), routes: Vec::new() }
            }
        };
        let (kept, gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut entry.routes).into_iter().partition(|(filter, _)| filters.contains(filter));
        entry.routes = kept;
        for (filter, _) in gone {
            self.remove_route(entry.id, filter).await?;
        }
        for filter in filters {
            if !entry.routes.iter().any(|(have, _)| have == filter) {
                let (reply, start) = oneshot::channel();
                self.send(Command::AddRoute { filter: filter.clone(), queue: entry.id, reply })?;
                let start = start.await.map_err(|_| StoreError::Closed)?;
                entry.routes.push((filter.clone(), start.offset()));
            }
        }
        if known.as_ref() != Some(&entry) {
            let row = entry.clone();
            if let Err(error) = self.run(move |shared| shared.meta.put_queue(&row)).await {
                self.withdraw(known.as_ref(), &entry).await?;
                return Err(error);
            }
            self.0.catalogue.insert(entry.clone());
        }
        self.run(move |shared| info(shared, &entry)).await
    }

    /// Takes back the routes of a change that could not be written.
    async fn withdraw(&self, known: Option<&Entry>, entry: &Entry) -> Result<()> {
        for route in &entry.routes {
            if known.is_none_or(|known| !known.routes.contains(route)) {
                self.remove_route(entry.id, route.0.clone()).await?;
            }
        }
        if known.is_none() {
            self.0.shared.table.write().delete(entry.id);
        }
        Ok(())
    }

    async fn remove_route(&self, queue: QueueId, filter: String) -> Result<()> {
        let (reply, done) = oneshot::channel();
        self.send(Command::RemoveRoute { filter, queue, reply })?;
        done.await.map_err(|_| StoreError::Closed)
    }

    /// Gives back a reference to a filter queue; the last one deletes the queue and its entries.
    ///
    /// # Errors
    /// The catalogue cannot be written.
    pub async fn release_filter(&self, queue: QueueId) -> Result<()> {
        self.change(move |store| async move {
            if store.0.catalogue.release(queue) { store.delete_now(queue).await } else { Ok(()) }
        })
        .await
    }

    /// Deletes a queue of any kind and its entries. Cursors in it are their owners' to delete.
    ///
    /// # Errors
    /// The catalogue cannot be written.
    pub async fn delete_queue(&self, queue: QueueId) -> Result<()> {
        self.change(move |store| async move { store.delete_now(queue).await }).await
    }

    async fn delete_now(&self, queue: QueueId) -> Result<()> {
        let Some(entry) = self.0.catalogue.get(queue) else { return Err(StoreError::NoQueue(queue)) };
        // First from the catalogue on disk: entries of a queue that is in none do no harm, a queue without its entries would.
        self.run(move |shared| shared.meta.delete_queue(queue)).await?;
        for (filter, _) in entry.routes {
            self.remove_route(queue, filter).await?;
        }
        self.0.catalogue.remove(queue);
        self.0.shared.table.write().delete(queue);
        Ok(())
    }

    /// Deletes filter queues nobody took a reference to since the store was opened; their number.
    ///
    /// # Errors
    /// The catalogue cannot be written.
    pub async fn sweep(&self) -> Result<usize> {
        self.change(|store| async move {
            let queues = store.0.catalogue.unreferenced();
            for queue in &queues {
                store.delete_now(*queue).await?;
            }
            Ok(queues.len())
        })
        .await
    }

    /// The queue, if it exists. May read from the disk: not for every message.
    ///
    /// # Errors
    /// There is no such queue, or its index cannot be read.
    pub fn queue(&self, queue: QueueId) -> Result<QueueInfo> {
        let entry = self.0.catalogue.get(queue).ok_or(StoreError::NoQueue(queue))?;
        info(&self.0.shared, &entry)
    }

    /// Queues by number, after `after`. May read from the disk.
    ///
    /// # Errors
    /// An index cannot be read.
    pub fn queues(&self, after: Option<QueueId>, limit: usize) -> Result<Vec<QueueInfo>> {
        self.0.catalogue.page(after, limit).iter().map(|entry| info(&self.0.shared, entry)).collect()
    }
}

fn info(shared: &SharedRef, entry: &Entry) -> Result<QueueInfo> {
    let first = shared.first(entry.id)?;
    let end = shared.table.write().end(&shared.index, entry.id)?;
    Ok(QueueInfo { id: entry.id, kind: entry.queue_kind(), name: entry.name.clone(), first, end })
}
