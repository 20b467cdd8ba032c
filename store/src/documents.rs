//! Documents of the caller: those that wait to be written share a sync.

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::fault::{self, Call};
use crate::meta::document;
use crate::shared::Shared;
use crate::{Collection, Documents, Due, Result, Store, StoreError};

/// Documents that wait to be written, in order.
#[derive(Default)]
pub(crate) struct Waiting(Mutex<Vec<Put>>);

struct Put {
    collection: Collection,
    key: String,
    value: Bytes,
    due: Due,
    reply: oneshot::Sender<Result<()>>,
}

impl Store {
    /// Writes a document, as durable as the store promises when this returns. It may name records and offsets: those there are
    /// when this is called are durable before it is.
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
        let (reply, answer) = oneshot::channel();
        let put = Put { collection, key: key.to_owned(), value, due, reply };
        self.0.shared.documents.0.lock().push(put);
        // Whoever's turn it is writes for all: while it does, the next ones gather.
        self.run(|shared| {
            write_waiting(shared);
            Ok(())
        })
        .await?;
        // Nobody answers if the one whose turn it was failed with a panic.
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
        let key = key.to_owned();
        self.run(move |shared| shared.meta.delete_document(collection, &key, was_due)).await
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

/// Writes what waits, if somebody else has not done so.
fn write_waiting(shared: &Shared) {
    let waiting = std::mem::take(&mut *shared.documents.0.lock());
    if waiting.is_empty() {
        return;
    }
    // After a power cut, a document must not name a record that is gone, and whose place another one gets.
    let durable = shared.log.wait_durable(&shared.log.cut());
    let all = waiting.iter().map(|put| document::Put {
        collection: put.collection,
        key: &put.key,
        value: &put.value,
        due: put.due,
    });
    let written = durable.and_then(|()| shared.meta.put_documents(all));
    for put in waiting {
        // Whoever went away does not need the answer.
        let _ = put.reply.send(written.clone());
    }
}
