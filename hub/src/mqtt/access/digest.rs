//! SHA-256 and HMAC with it, as arrays.

use aws_lc_rs::{digest, hmac};

/// Bytes of a SHA-256.
pub(super) const HASH_BYTES: usize = digest::SHA256_OUTPUT_LEN;

/// A SHA-256, or an HMAC with it.
pub(super) type Hash = [u8; HASH_BYTES];

/// The hash of some bytes.
pub(super) fn hash(data: &[u8]) -> Hash {
    array(digest::digest(&digest::SHA256, data).as_ref())
}

/// The HMAC of some bytes.
pub(super) fn sign(key: &hmac::Key, data: &[u8]) -> Hash {
    array(hmac::sign(key, data).as_ref())
}

/// The HMAC of several parts, each with its length, so that they cannot be cut in another way.
pub(super) fn sign_parts(key: &hmac::Key, parts: &[&[u8]]) -> Hash {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    array(context.sign().as_ref())
}

/// Bytes of which there are as many as a hash has.
fn array(bytes: &[u8]) -> Hash {
    let mut hash = [0; HASH_BYTES];
    for (to, from) in hash.iter_mut().zip(bytes) {
        *to = *from;
    }
    hash
}
