//! Waiting for conditions, never for time.

use std::fmt::Debug;
use std::future::Future;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until `look` gives a value.
///
/// # Panics
/// When `limit` has passed, saying `what` was waited for.
#[track_caller]
pub fn until<T, F, Fut>(what: &str, limit: Duration, mut look: F) -> impl Future<Output = T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let place = std::panic::Location::caller();
    async move {
        let began = Instant::now();
        loop {
            if let Some(value) = look().await {
                return value;
            }
            assert!(began.elapsed() < limit, "{place}: waited {limit:?} for {what}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Waits until `look` gives `wanted`.
///
/// # Panics
/// When `limit` has passed, with the value that was seen last.
#[track_caller]
pub fn until_eq<T, F, Fut>(what: &str, limit: Duration, wanted: T, mut look: F) -> impl Future<Output = ()>
where
    T: PartialEq + Debug,
    F: FnMut() -> Fut,
    Fut: Future<Output = T>,
{
    let place = std::panic::Location::caller();
    async move {
        let began = Instant::now();
        loop {
            let seen = look().await;
            if seen == wanted {
                return;
            }
            assert!(
                began.elapsed() < limit,
                "{place}: waited {limit:?} for {what} to be {wanted:?}; it is {seen:?}"
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Waits for a future.
///
/// # Panics
/// When `limit` has passed, saying `what` was waited for.
#[track_caller]
pub fn within<T>(what: &str, limit: Duration, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(limit, future).await {
            Ok(value) => value,
            Err(_) => panic!("{place}: waited {limit:?} for {what}"),
        }
    }
}
