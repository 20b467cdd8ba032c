//! Documents of the caller.
//!
//! ```text
//! key    4 ‖ collection (u8) ‖ key
//! value  the caller's
//!
//! key    11 ‖ collection (u8) ‖ when something is due (i64, its sign turned, big-endian) ‖ key
//! value  nothing
//! ```
//! Both rows of a document change in one write, so that whatever survives a crash is in both.

use bytes::Bytes;
use rocksdb::WriteBatch;

use super::{Meta, bad_value, prefix};
use crate::{Collection, Documents, Due, Result};

/// What becomes of a document.
pub(crate) struct Change {
    pub(crate) collection: Collection,
    pub(crate) key: String,
    /// Nothing: it is deleted.
    pub(crate) value: Option<Bytes>,
    pub(crate) due: Due,
}

fn row_key(collection: Collection, key: &str) -> Vec<u8> {
    let mut out = vec![prefix::DOCUMENT, collection as u8];
    out.extend_from_slice(key.as_bytes());
    out
}

/// Bytes of a row of what is due before the document's key.
const DUE_BYTES: usize = 2 + 8;

fn due_key(collection: Collection, due_ms: i64, key: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(DUE_BYTES + key.len());
    out.extend([prefix::DOCUMENT_DUE, collection as u8]);
    // With its sign turned, so that negative numbers come first.
    out.extend((due_ms ^ i64::MIN).to_be_bytes());
    out.extend_from_slice(key.as_bytes());
    out
}

fn decode_due_key(row: &[u8]) -> Option<(i64, &str)> {
    let (due, key) = row.split_at_checked(DUE_BYTES)?;
    let due_ms = i64::from_be_bytes(due.get(2..)?.try_into().ok()?) ^ i64::MIN;
    Some((due_ms, std::str::from_utf8(key).ok()?))
}

impl Meta {
    /// Writes and deletes documents with one sync, all or none: of one, the last change counts.
    pub(crate) fn change_documents<'a>(&self, changes: impl Iterator<Item = &'a Change>) -> Result<()> {
        let mut batch = WriteBatch::default();
        for Change { collection, key, value, due } in changes {
            match value {
                Some(value) => batch.put(row_key(*collection, key), value),
                None => batch.delete(row_key(*collection, key)),
            }
            if due.was != due.is {
                due.was.iter().for_each(|was| batch.delete(due_key(*collection, *was, key)));
            }
            due.is.iter().for_each(|is| batch.put(due_key(*collection, *is, key), []));
        }
        if batch.is_empty() { Ok(()) } else { self.write(batch) }
    }

    pub(crate) fn document(&self, collection: Collection, key: &str) -> Result<Option<Bytes>> {
        Ok(self.get(row_key(collection, key))?.map(Bytes::from))
    }

    pub(crate) fn documents(
        &self,
        collection: Collection,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Documents> {
        let mut found = Vec::new();
        self.scan_documents(collection, "", after, limit, |key, value| {
            found.push((key, Bytes::copy_from_slice(value)));
        })?;
        Ok(found)
    }

    /// Keys of documents that begin with `key_prefix`, after `after`.
    pub(crate) fn document_keys(
        &self,
        collection: Collection,
        key_prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>> {
        let mut found = Vec::new();
        self.scan_documents(collection, key_prefix, after, limit, |key, _| found.push(key))?;
        Ok(found)
    }

    fn scan_documents(
        &self,
        collection: Collection,
        key_prefix: &str,
        after: Option<&str>,
        limit: usize,
        mut each: impl FnMut(String, &[u8]),
    ) -> Result<()> {
        let all = row_key(collection, key_prefix);
        let from = all.clone().max(row_key(collection, after.unwrap_or_default()));
        let mut count = 0;
        let is_behind = after.is_some_and(|after| after >= key_prefix);
        self.scan(&all, &from, is_behind, |row, value| {
            if count == limit {
                return Ok(false);
            }
            count += 1;
            let key = row.get(2..).and_then(|key| std::str::from_utf8(key).ok());
            each(key.ok_or_else(|| bad_value("a document", row))?.to_owned(), value);
            Ok(true)
        })
    }

    pub(crate) fn documents_due(
        &self,
        collection: Collection,
        from_ms: i64,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(i64, String)>> {
        let all = [prefix::DOCUMENT_DUE, collection as u8];
        let from = due_key(collection, from_ms, after.unwrap_or_default());
        let mut found = Vec::new();
        self.scan(&all, &from, after.is_some(), |row, _| {
            if found.len() == limit {
                return Ok(false);
            }
            let (due_ms, key) = decode_due_key(row).ok_or_else(|| bad_value("what is due", row))?;
            found.push((due_ms, key.to_owned()));
            Ok(true)
        })?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_due_comes_back_in_its_order(rows: Vec<(i64, String)>) {
            let encode = |(due_ms, key): &(i64, String)| due_key(Collection::Sessions, *due_ms, key);
            let mut keys: Vec<Vec<u8>> = rows.iter().map(encode).collect();
            keys.sort();
            let mut sorted = rows;
            sorted.sort();
            let decoded: Vec<_> = keys.iter().map(|key| decode_due_key(key).unwrap()).collect();
            prop_assert_eq!(decoded, sorted.iter().map(|(due_ms, key)| (*due_ms, &**key)).collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_are_refused_or_read(row: Vec<u8>) {
            let _ = decode_due_key(&row);
        }
    }
}
