//! Who a connection is, while it lasts: looked at again when rules or users change, until a token expires, and proven
//! anew when the client wishes (4.12.1).

use tokio::time::Instant;
use tracing::{debug, warn};

use super::super::access::identity::Login;
use super::super::access::{Standing, stats};
use super::super::codec::topic::Requested;
use super::super::codec::{Auth, Packet, ReasonCode};
use super::super::peer::Peer;
use super::super::session::{Session, SubscriptionKey};
use super::{Close, Connection};

/// Subscriptions of a session that are not allowed to it.
pub(super) fn not_allowed(standing: &mut Standing, session: &Session) -> Vec<SubscriptionKey> {
    let denied = session.subscriptions.iter().filter(|(_, subscription)| {
        Requested::parse(&subscription.requested)
            .is_some_and(|requested| !standing.may_subscribe(requested.filter))
    });
    denied.map(|(key, _)| key).collect()
}

/// What is still there of what a client came with.
fn login_without_password<'a>(session: &'a Session, peer: &'a Peer) -> Login<'a> {
    Login {
        client: &session.client,
        user: None,
        password: None,
        address: peer.address.ip(),
        listener: &peer.listener.options.name,
        certificate: peer.certificate.as_deref(),
    }
}

impl Connection {
    /// When the client is not who it is any more.
    pub(super) fn expires(&self) -> Option<Instant> {
        self.standing.as_ref()?.expires
    }

    /// Ends the connection of a client whose token, or whose endpoint's answer, has expired.
    pub(super) fn check_expiry(&self) -> Result<(), Close> {
        match self.expires() {
            Some(at) if at <= Instant::now() => Err(Close::Refused {
                reason: ReasonCode::NOT_AUTHORIZED,
                what: "what the client was let in with has expired; connect anew",
            }),
            _ => Ok(()),
        }
    }

    /// Looks again at who the client is and what it does. If not all of it is allowed any more, the connection ends:
    /// MQTT has no way to take one subscription away. What is not allowed leaves the session when the client returns.
    pub(super) fn review(&mut self) -> Result<(), Close> {
        let Some(what) = self.judge() else { return Ok(()) };
        stats::cut();
        // Of those who never said who they are there may be very many, and nothing to tell.
        if self.standing.is_some() {
            warn!(
                client = &*self.session.client,
                user = self.user.as_deref(),
                what,
                "a connection is cut because what is allowed has changed"
            );
        }
        Err(Close::Refused { reason: ReasonCode::NOT_AUTHORIZED, what })
    }

    /// What of the client and of what it does is not allowed any more. If that is the client or its will, the will is gone.
    pub(super) fn judge(&mut self) -> Option<&'static str> {
        let access = self.shared.access.load();
        let Some(standing) = &mut self.standing else {
            if access.is_open() {
                return None;
            }
            // Nobody was asked when it came.
            self.session.will = None;
            return Some("clients have to say who they are now; connect again");
        };
        let login = login_without_password(&self.session, &self.peer);
        if let Err(denied) = access.review(&login, standing) {
            self.session.will = None;
            Some(denied.what)
        } else if let Some(will) = &self.session.will
            && !standing.may_publish(&will.last_will.topic, will.last_will.retain)
        {
            self.session.will = None;
            Some("the will is not allowed any more")
        } else if not_allowed(standing, &self.session).is_empty() {
            None
        } else {
            Some("a subscription is not allowed any more")
        }
    }

    /// A step of an authentication anew.
    pub(super) fn on_auth(&mut self, auth: &Auth) -> Result<(), Close> {
        let wrong = |what| Close::Refused { reason: ReasonCode::PROTOCOL_ERROR, what };
        let failed = || Close::Refused { reason: ReasonCode::NOT_AUTHORIZED, what: "authentication failed" };
        let access = self.shared.access.load_full();
        let Some((standing, method)) =
            self.standing.as_mut().and_then(|standing| standing.method.map(|method| (standing, method)))
        else {
            return Err(wrong("AUTH without an authentication method in CONNECT"));
        };
        // [MQTT-4.12.1-1]
        if auth.properties.authentication_method.as_deref() != Some(method) {
            return Err(wrong("AUTH has another method than CONNECT"));
        }
        let message = auth.properties.authentication_data.clone().unwrap_or_default();
        let listener = &self.peer.listener.options.name;
        match (auth.reason, standing.exchange.take()) {
            (ReasonCode::REAUTHENTICATE, None) => {
                let (exchange, answer) = access.begin(&message, listener).map_err(|error| {
                    debug!(client = &*self.session.client, %error, "an authentication was refused");
                    failed()
                })?;
                standing.exchange = Some(exchange);
                self.send(&Packet::Auth(Auth::going_on(method.into(), Some(answer.into()))));
                Ok(())
            }
            (ReasonCode::CONTINUE_AUTHENTICATION, Some(exchange)) => {
                let login = login_without_password(&self.session, &self.peer);
                let (proven, answer) = access
                    .finish(&login, exchange, &message)
                    .map_err(|denied| Close::Refused { reason: denied.reason, what: denied.what })?;
                // What it published bears its name, and so does its session.
                if proven.user() != standing.user() {
                    return Err(failed());
                }
                *standing = proven;
                let auth = Auth {
                    reason: ReasonCode::SUCCESS,
                    ..Auth::going_on(method.into(), Some(answer.into()))
                };
                self.send(&Packet::Auth(auth));
                Ok(())
            }
            _ => Err(wrong("an AUTH that is out of its turn")),
        }
    }
}
