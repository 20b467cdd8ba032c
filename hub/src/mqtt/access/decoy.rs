//! What the SCRAM credentials of those who are not known are made from.
//!
//! It is made once and kept in the store: if it changed, at a reload or a restart, whoever asks before and after would learn
//! who is not known. Nobody else may know it, so that it is not the log's identifier, which every event shows.
//!
//! ```text
//! u8   version of this layout: 1
//! 32   random bytes
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use tidemill_store::{Collection, Due, Store, StoreError};
use tracing::warn;

use super::digest::{HASH_BYTES, Hash};

const VERSION: u8 = 1;
/// The document's key.
const KEY: &str = "decoy";

/// The secret of this store; `new` if it has none yet.
pub(super) async fn kept(store: &Store, new: Hash) -> Result<Hash, StoreError> {
    if let Some(document) = store.document(Collection::Broker, KEY).await? {
        if let Some(kept) = decode(&document) {
            return Ok(kept);
        }
        warn!("what SCRAM answers to unknown users cannot be read; it is made anew");
    }
    store.put_document(Collection::Broker, KEY, encode(&new), Due::default()).await?;
    Ok(new)
}

fn encode(secret: &Hash) -> Bytes {
    let mut out = BytesMut::with_capacity(1 + HASH_BYTES);
    out.put_u8(VERSION);
    out.put_slice(secret);
    out.freeze()
}

fn decode(document: &[u8]) -> Option<Hash> {
    let (version, secret) = document.split_first()?;
    secret.try_into().ok().filter(|_| *version == VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read() {
        let secret = [7; HASH_BYTES];
        let written = encode(&secret);
        assert_eq!(decode(&written), Some(secret));
        assert_eq!((decode(&written[1..]), decode(b""), decode(&[2; 33])), (None, None, None));
    }
}
