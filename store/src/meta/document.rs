//! Documents of the caller.
//!
//! ```text
//! key    4 ‖ collection (u8) ‖ key
//! value  the caller's
//! ```

use bytes::Bytes;
use rocksdb::WriteBatch;

use super::{Meta, bad_value, prefix};
use crate::{Collection, Documents, Result};

fn row_key(collection: Collection, key: &str) -> Vec<u8> {
    let mut out = vec![prefix::DOCUMENT, collection as u8];
    out.extend_from_slice(key.as_bytes());
    out
}

impl Meta {
    /// Writes documents with one sync.
    pub(crate) fn put_documents<'a>(
        &self,
        documents: impl Iterator<Item = (Collection, &'a str, &'a [u8])>,
    ) -> Result<()> {
        let mut batch = WriteBatch::default();
        documents.for_each(|(collection, key, value)| batch.put(row_key(collection, key), value));
        self.write(batch)
    }

    pub(crate) fn document(&self, collection: Collection, key: &str) -> Result<Option<Bytes>> {
        Ok(self.get(row_key(collection, key))?.map(Bytes::from))
    }

    pub(crate) fn delete_document(&self, collection: Collection, key: &str) -> Result<()> {
        self.delete(row_key(collection, key))
    }

    pub(crate) fn documents(
        &self,
        collection: Collection,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Documents> {
        let all = row_key(collection, "");
        let from = row_key(collection, after.unwrap_or_default());
        let mut found = Vec::new();
        self.scan(&all, &from, after.is_some(), |key, value| {
            if found.len() == limit {
                return Ok(false);
            }
            let name = key.get(all.len()..).and_then(|name| std::str::from_utf8(name).ok());
            let name = name.ok_or_else(|| bad_value("a document", key))?;
            found.push((name.to_owned(), Bytes::copy_from_slice(value)));
            Ok(true)
        })?;
        Ok(found)
    }
}
