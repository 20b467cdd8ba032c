//! [`Standing`]: what a connection knows of who it is and what it may do.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::{debug, warn};

use super::acl::{Action, Permissions, Subject};
use super::identity::Identity;
use super::scram::Exchange;
use super::stats;

/// See the module's text.
pub(in super::super) struct Standing {
    pub(super) subject: Subject,
    pub(super) identity: Identity,
    /// The number of the source that knows it; `None` if nobody in particular was let in.
    pub(super) source: Option<u64>,
    /// What it may do; everything if there are no rules.
    pub(super) permissions: Option<Arc<Permissions>>,
    /// When it is not so any more.
    pub(in super::super) expires: Option<Instant>,
    /// The authentication method it came with.
    pub(in super::super) method: Option<&'static str>,
    /// An authentication anew that is under way.
    pub(in super::super) exchange: Option<Exchange>,
    /// Something it was not allowed was told already.
    told: bool,
}

impl Standing {
    pub(super) fn new(
        subject: Subject,
        identity: Identity,
        source: Option<u64>,
        method: Option<&'static str>,
    ) -> Self {
        let expires = identity.good_for.and_then(|left| Instant::now().checked_add(left));
        Standing {
            subject,
            identity,
            source,
            permissions: None,
            expires,
            method,
            exchange: None,
            told: false,
        }
    }

    /// Who it is.
    pub(in super::super) fn user(&self) -> Option<&bytestring::ByteString> {
        self.subject.user.as_ref()
    }

    /// Whether a message may be published.
    pub(in super::super) fn may_publish(&mut self, topic: &str, retain: bool) -> bool {
        let Some(permissions) = &self.permissions else { return true };
        if permissions.may_publish(topic, retain) {
            return true;
        }
        let publish = permissions.explain(Action::Publish, topic).0;
        self.denied(if publish { Action::Retain } else { Action::Publish }, topic);
        false
    }

    /// Whether a filter may be subscribed to, without the group of a shared one.
    pub(in super::super) fn may_subscribe(&mut self, filter: &str) -> bool {
        let allowed = self.permissions.as_ref().is_none_or(|permissions| permissions.may_subscribe(filter));
        if !allowed {
            self.denied(Action::Subscribe, filter);
        }
        allowed
    }

    /// Tells of what was not allowed: of the first of a connection as a warning, as it may be told what to do about it.
    fn denied(&mut self, action: Action, topic: &str) {
        stats::denied(action);
        let Some(permissions) = &self.permissions else { return };
        let (_, by) = permissions.explain(action, topic);
        let Subject { client, user, address, .. } = &self.subject;
        let (client, user, action) = (&**client, user.as_deref(), action.name());
        if self.told {
            debug!(client, user, %address, action, topic, %by, "not allowed");
        } else {
            warn!(client, user, %address, action, topic, %by, "not allowed; more of this connection is told at level debug");
            self.told = true;
        }
    }
}
