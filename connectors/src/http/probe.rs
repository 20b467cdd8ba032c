//! Whether anything answers at the connection's URL.

use super::request::Caller;
use crate::SendError;

/// Asks with `OPTIONS`.
pub(super) async fn probe(caller: &mut Caller) -> Result<(), SendError> {
    let prepared = caller.prepared()?;
    let answer = caller.ask(&prepared).await;
    if answer.as_ref().is_err_and(|error| error.follow == crate::Follow::Stop) {
        caller.forget_secrets();
    }
    answer
}
