//! [`alone`]: a part of something that goes on without it if it fails with a panic.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use tracing::error;

/// Does a part of what is to be done for a client; `None` if it fails with a panic, which is told. What it leaves half done, nobody may need
/// afterwards.
pub(super) async fn alone<T>(client: &str, part: &'static str, work: impl Future<Output = T>) -> Option<T> {
    let done = AssertUnwindSafe(work).catch_unwind().await.ok();
    if done.is_none() {
        error!(client, part, "a part of the work for a client failed with a panic; the rest of it goes on");
    }
    done
}
