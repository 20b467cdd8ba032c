//! Whose a session is, and taking it over: from a CONNECT that may come in to the session as it is from then on.

use std::sync::Arc;

use bytestring::ByteString;
use tracing::warn;

use super::super::access::Standing;
use super::super::codec::{Connect, ReasonCode};
use super::super::limits::Limit;
use super::super::registry::Holder;
use super::super::session::{Kept, Session, Subscription, Will};
use super::super::sessions::{self, Loaded};
use super::super::shared::{Shared, now_ms};
use super::super::told::seldom;
use super::super::{unwritten, wills};
use super::handshake::Refusal;
use super::review::not_allowed;

/// What came of looking for the session of a client identifier.
struct Found {
    session: Session,
    /// Whether it was there before.
    present: bool,
    /// What the store lists it under ([`Loaded`]).
    listed_ms: Option<i64>,
}

/// Takes up the session that a CONNECT is for, as it is from then on, and writes it down; whether it was there before.
/// Whoever calls this holds the gate.
pub(super) async fn take_up(
    shared: &Shared,
    client: &ByteString,
    connect: &Connect,
    standing: Option<&mut Standing>,
    user: Option<ByteString>,
    expiry_s: u32,
) -> Result<(Session, bool), Refusal> {
    let found = find(shared, client, standing.as_deref(), connect.clean_start, expiry_s).await?;
    let Found { mut session, present, listed_ms } = found;
    session.expiry_s = expiry_s;
    if let (None, Some(standing)) = (&session.owner, &standing) {
        session.owner = standing.user().map(|user| Arc::from(&**user));
    }
    session.offline_since_ms = None;
    session.will = connect.will.as_ref().map(|last_will| Box::new(Will::copied(last_will, user)));
    let gone = match standing {
        Some(standing) => take_away(shared, standing, &mut session),
        None => Vec::new(),
    };
    if let Err(refusal) = keep(shared, &mut session, &gone, listed_ms).await {
        // As it was, or nothing.
        if session.kept == Kept::Whole {
            sessions::leave(shared, client).await;
        } else {
            sessions::end(shared, &session, None).await;
            shared.registry.offline(client);
        }
        return Err(refusal);
    }
    for subscription in &gone {
        sessions::end_subscription(shared, client, subscription, session.kept == Kept::Whole).await;
    }
    Ok((session, present))
}

/// Takes the subscriptions out of a session that its client may not have any more, or that somebody else made.
fn take_away(shared: &Shared, standing: &mut Standing, session: &mut Session) -> Vec<Subscription> {
    let denied = not_allowed(standing, session);
    shared.groups.let_go(&shared.store, session, &denied);
    let gone: Vec<Subscription> = denied.into_iter().filter_map(|key| session.unsubscribe(key)).collect();
    if !gone.is_empty() {
        let filters: Vec<&str> = gone.iter().map(|gone| &*gone.requested).collect();
        warn!(
            client = &*session.client,
            ?filters,
            "subscriptions of a session are not allowed any more and end"
        );
    }
    gone
}

/// Refuses a session to all but the user it belongs to. One that belongs to nobody is for whoever comes first, and where
/// nobody is asked who it is, everybody is the same.
fn check_owner(owner: Option<&str>, standing: Option<&Standing>) -> Result<(), Refusal> {
    match (owner, standing) {
        (Some(owner), Some(standing)) if standing.user().is_none_or(|user| **user != *owner) => {
            Err(Refusal {
                reason: ReasonCode::CLIENT_IDENTIFIER_NOT_VALID,
                what: "the session of this client identifier belongs to another user",
            })
        }
        _ => Ok(()),
    }
}

/// The session of a client: the one there is, if it is to go on, or a new one.
async fn find(
    shared: &Shared,
    client: &ByteString,
    standing: Option<&Standing>,
    clean: bool,
    expiry_s: u32,
) -> Result<Found, Refusal> {
    let (old, mut is_ahead) = match shared.registry.holder(client) {
        Holder::Nobody => (None, false),
        Holder::Connection(mail) => {
            check_owner(mail.owner.as_deref(), standing)?;
            match mail.take_over().await {
                Ok(session) => (Some(Loaded { session, listed_ms: None }), true),
                // A connection that was lost in a way that it cannot answer leaves the document.
                Err(_) => (read(shared, client).await?, false),
            }
        }
        Holder::Document => (read(shared, client).await?, false),
    };
    let new = || {
        let mut session = Session::new(client.clone(), expiry_s);
        // What the log has of this client was for a session that is no more.
        session.inbound.account_to(shared.store.next_sequence());
        Found { session, present: false, listed_ms: None }
    };
    let Some(Loaded { session: mut old, listed_ms }) = old else { return Ok(new()) };
    let now = now_ms();
    let is_due = |due: Option<i64>| due.is_some_and(|due| due <= now);
    if !is_due(old.expires_ms()) {
        check_owner(old.owner.as_deref(), standing)?;
    }
    // One whose time is over has ended, whether or not that was carried out yet (4.1).
    let goes_on = old.is_persistent() && !clean && !is_due(old.expires_ms());
    // The will of the connection before: if the session ends here, or its delay is over, now. If the session goes
    // on before the delay is over, never (3.1.3.2.2).
    let will_is_due = !goes_on || is_due(old.will_due_ms());
    if will_is_due && let Some(will) = old.will.take() {
        is_ahead = true;
        wills::publish(shared, client, will).await;
    }
    if goes_on {
        if is_ahead {
            // Should it not come to a CONNACK.
            unwritten::put_ahead(shared, &old);
        }
        old.will = None;
        return Ok(Found { session: old, present: true, listed_ms });
    }
    sessions::end(shared, &old, listed_ms).await;
    Ok(new())
}

async fn read(shared: &Shared, client: &ByteString) -> Result<Option<Loaded>, Refusal> {
    sessions::load(shared, client).await.map_err(|error| {
        seldom!(error, %error, "a session cannot be read; its client is refused");
        Refusal { reason: ReasonCode::UNSPECIFIED_ERROR, what: "the session cannot be read" }
    })
}

/// Writes a session down before its CONNACK, if it is to outlive the connection or was written before, or if it has a will
/// that is to outlive the broker. `gone` was taken out of it; `listed_ms` is what it was listed under.
async fn keep(
    shared: &Shared,
    session: &mut Session,
    gone: &[Subscription],
    listed_ms: Option<i64>,
) -> Result<(), Refusal> {
    let kept = match session.kept {
        Kept::Whole => Kept::Whole,
        _ if session.is_persistent() => Kept::Whole,
        _ if session.will.is_some() => Kept::Will,
        _ => return Ok(()),
    };
    let is_new = kept == Kept::Whole && session.kept != Kept::Whole;
    if is_new && !shared.counters.keep_session(shared.options.sessions_max) {
        shared.counters.reached(Limit::Sessions);
        let what = "there are as many sessions as sessions_max allows";
        return Err(Refusal { reason: ReasonCode::QUOTA_EXCEEDED, what });
    }
    let written = match shared.groups.keep(&shared.store, gone).await {
        Ok(()) => sessions::save(shared, session, None, listed_ms).await,
        failed => failed,
    };
    if let Err(error) = written {
        if is_new {
            shared.counters.forget_session();
        }
        seldom!(warn, client = &*session.client, %error, "a session cannot be written; its client is refused");
        let what = "the session cannot be written";
        return Err(Refusal { reason: ReasonCode::UNSPECIFIED_ERROR, what });
    }
    if session.kept == Kept::Nothing {
        shared.registry.documented(&session.client);
    }
    session.kept = kept;
    Ok(())
}
