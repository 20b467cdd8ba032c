//! Who may connect, and who may do what.
//!
//! A client is asked about at its CONNECT, before anything of a session is touched (`Access::admit`): each source of
//! authentication in its order, until one knows it. What comes of it stays with the connection as a `Standing`; rules
//! are looked at for each message and each subscription through its [`Permissions`]. At a reload another `Access` takes
//! the place, and every connection looks again (`Access::review`).
//!
//! # Layout
//! - `acl`: rules, and what they come to for one client
//! - `cover`: topic filters beside each other
//! - `pattern`: topic filters with a client's names in them
//! - `network`: addresses that begin alike
//! - `identity`: who somebody is, and what there is to find out from
//! - `settings`: what can be set
//! - `source`: a source of authentication, of one of these kinds
//! - `passwords`, [`jwt`], [`certificates`], [`hook`]: the kinds
//! - `jwks`: keys for tokens
//! - `scram`: SCRAM-SHA-256, with the credentials of the password file
//! - `standing`: what a connection knows of who it is
//! - `cache`: answers that are good for a while
//! - `decoy`: what unknown users are answered from
//! - `digest`: hashes
//! - `stats`: what is counted

pub mod acl;
mod cache;
pub mod certificates;
pub mod cover;
mod decoy;
mod digest;
pub mod hook;
pub(super) mod identity;
pub mod jwks;
pub mod jwt;
pub mod network;
pub mod passwords;
pub mod pattern;
pub mod scram;
pub mod settings;
mod source;
mod standing;
pub(super) mod stats;

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use futures_util::future::join_all;
use tidemill_store::{Store, StoreError};
use tokio::sync::Semaphore;
use tracing::{info, warn};

pub(super) use self::standing::Standing;

use self::acl::{Acl, Permissions, Subject};
use self::digest::Hash;
use self::identity::{Identity, Login};
use self::scram::{Exchange, ScramError};
use self::settings::{Policy, Settings, groups_of};
use self::source::{Kind, Source, Word};
use super::codec::ReasonCode;
use super::shared::Shared;

/// How often files and URLs are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why access cannot be controlled as configured.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AccessError(String);

/// Why somebody is not let in, or not any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Denied {
    pub(super) reason: ReasonCode,
    pub(super) what: &'static str,
}

impl Denied {
    const fn new(reason: ReasonCode, what: &'static str) -> Self {
        Denied { reason, what }
    }
}

/// See the module's text.
pub struct Access {
    sources: Vec<Arc<Source>>,
    groups: Vec<(String, Vec<String>)>,
    acl: Option<Arc<Acl>>,
    anonymous: bool,
    listeners: Vec<(String, Policy)>,
    /// Argon2 at a time: it takes a core each, and half of them are left to those who are in.
    room: Arc<Semaphore>,
    /// What answers to those who are not known are made from.
    decoy: Hash,
}

impl Access {
    /// Reads files and secrets. Blocks.
    ///
    /// # Errors
    /// A file or a secret is not there, or is none.
    pub fn open(settings: &Settings) -> Result<Access, AccessError> {
        stats::describe();
        let sources = settings.authentication.iter().map(|source| Source::open(source).map(Arc::new));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Access {
            sources: sources.collect::<Result<_, _>>().map_err(AccessError)?,
            groups: settings.groups.clone(),
            acl: settings.acl.clone().map(Arc::new),
            anonymous: settings.anonymous,
            listeners: settings.listeners.clone(),
            room: Arc::new(Semaphore::new((cores / 2).max(1))),
            decoy: secret().map_err(|error| AccessError(error.to_owned()))?,
        })
    }

    /// Whether everybody may do everything, and nobody is asked who it is.
    pub(super) fn is_open(&self) -> bool {
        self.sources.is_empty() && self.acl.is_none()
    }

    /// Takes over from a store what is to outlive the process.
    ///
    /// # Errors
    /// The store fails.
    pub(super) async fn settle(&mut self, store: &Store) -> Result<(), StoreError> {
        self.decoy = decoy::kept(store, self.decoy).await?;
        Ok(())
    }

    /// Takes over from the one before what would have to be asked for again.
    pub fn follow(&mut self, before: &Access) {
        self.decoy = before.decoy;
        // Nobody else has them yet.
        for source in self.sources.iter_mut().filter_map(Arc::get_mut) {
            if let Some(old) = before.sources.iter().find(|old| old.name == source.name) {
                source.follow(old);
            }
        }
    }

    /// The sources of a listener.
    fn sources(&self, listener: &str) -> impl Iterator<Item = &Arc<Source>> {
        let named = self.policy(listener).and_then(|policy| policy.authentication.as_ref());
        let all = self.sources.iter().filter(move |_| named.is_none());
        let own = named.into_iter().flatten();
        all.chain(own.filter_map(|name| self.sources.iter().find(|source| source.name == *name)))
    }

    fn policy(&self, listener: &str) -> Option<&Policy> {
        self.listeners.iter().find(|(name, _)| name == listener).map(|(_, policy)| policy)
    }

    /// Whether somebody may come in without saying who it is. Where nobody could say it, everybody may.
    fn lets_anybody_in(&self, listener: &str) -> bool {
        let own = self.policy(listener).and_then(|policy| policy.anonymous);
        own.unwrap_or(self.anonymous || self.sources.is_empty())
    }

    /// Finds out who a client is.
    pub(super) async fn admit(&self, login: &Login<'_>) -> Result<Box<Standing>, Denied> {
        for source in self.sources(login.listener) {
            match source.ask(login, &self.room).await {
                Word::Known(identity) => {
                    stats::decided(&source.name, "accepted");
                    return Ok(self.standing(login, identity, Some(source.number), None));
                }
                Word::Pass => {}
                Word::Refused(what) => {
                    self.told(login, &source.name, &what);
                    stats::decided(&source.name, "refused");
                    return Err(match source.kind {
                        Kind::Http(_) => Denied::new(ReasonCode::NOT_AUTHORIZED, "not authorized"),
                        _ => WRONG,
                    });
                }
                Word::Unavailable(what) => {
                    warn!(
                        source = source.name,
                        client = &**login.client,
                        user = login.user,
                        what,
                        "nobody can say who a client is; it is refused"
                    );
                    stats::decided(&source.name, "unavailable");
                    return Err(Denied::new(
                        ReasonCode::SERVER_UNAVAILABLE,
                        "the server cannot find out who this is",
                    ));
                }
            }
        }
        let nothing_said = login.user.is_none() && login.password.is_none();
        let (source, denied) = if self.lets_anybody_in(login.listener)
            && (nothing_said || self.sources(login.listener).next().is_none())
        {
            stats::decided("anonymous", "accepted");
            return Ok(self.standing(login, Identity::default(), None, None));
        } else if nothing_said {
            ("anonymous", Denied::new(ReasonCode::NOT_AUTHORIZED, "this server wants to know who connects"))
        } else {
            if let Some(password) = login.password
                && self.sources(login.listener).any(|source| matches!(source.kind, Kind::Passwords(_)))
            {
                passwords::verify_nobody(password, &self.room).await;
            }
            ("none", WRONG)
        };
        self.told(login, source, denied.what);
        stats::decided(source, "refused");
        Err(denied)
    }

    fn told(&self, login: &Login<'_>, source: &str, what: &str) {
        let Login { client, user, address, listener, .. } = login;
        info!(source, client = &***client, user, %address, listener, what, "a client was refused");
    }

    fn standing(
        &self,
        login: &Login<'_>,
        identity: Identity,
        source: Option<u64>,
        method: Option<&'static str>,
    ) -> Box<Standing> {
        let subject = Subject {
            // A copy: a slice would keep the whole CONNECT, password and all, for as long as the connection.
            client: ByteString::from(&**login.client),
            user: identity.user.clone(),
            groups: Vec::new(),
            listener: login.listener.to_owned(),
            address: login.address,
            common_name: login.certificate.and_then(|shown| shown.common_name.as_deref()).map(Into::into),
        };
        let mut standing = Box::new(Standing::new(subject, identity, source, method));
        self.judge(&mut standing);
        standing
    }

    /// Puts the rules as they are now to a client.
    fn judge(&self, standing: &mut Standing) {
        let mut groups = standing.identity.groups.clone();
        let user = standing.subject.user.as_deref();
        groups.extend(groups_of(&self.groups, user).map(ByteString::from));
        standing.subject.groups = groups;
        let grants = standing.identity.grants.as_ref();
        let acl = self.acl.clone().or_else(|| grants.is_some().then(Arc::default));
        standing.permissions = acl.map(|acl| Arc::new(Permissions::new(&acl, &standing.subject, grants)));
    }

    /// Looks again at somebody who was let in before; `login` has no password.
    pub(super) fn review(&self, login: &Login<'_>, standing: &mut Standing) -> Result<(), Denied> {
        let known = match standing.source {
            None => self.lets_anybody_in(login.listener),
            Some(number) => {
                let mut sources = self.sources(login.listener);
                let source = sources.find(|source| source.number == number);
                source.is_some_and(|source| source.still_knows(login, &standing.identity))
            }
        };
        if !known {
            return Err(Denied::new(ReasonCode::NOT_AUTHORIZED, "this user is not known any more"));
        }
        self.judge(standing);
        Ok(())
    }

    /// Whether a listener takes an authentication method.
    pub(super) fn takes_method(&self, method: &str, listener: &str) -> bool {
        let has_scram = |source: &Arc<Source>| match &source.kind {
            Kind::Passwords(passwords) => passwords.has_any_scram(),
            _ => false,
        };
        method == scram::METHOD && self.sources(listener).any(has_scram)
    }

    /// Takes the first message of SCRAM; says what to answer.
    pub(super) fn begin(&self, message: &[u8], listener: &str) -> Result<(Exchange, String), ScramError> {
        Exchange::begin(message, &self.decoy, |user| {
            self.sources(listener).find_map(|source| match &source.kind {
                Kind::Passwords(passwords) => passwords.scram(user),
                _ => None,
            })
        })
    }

    /// Takes the last message of SCRAM; says who it was, and what to answer.
    pub(super) fn finish(
        &self,
        login: &Login<'_>,
        exchange: Exchange,
        message: &[u8],
    ) -> Result<(Box<Standing>, String), Denied> {
        let (user, answer) = exchange.finish(message).map_err(|error| {
            self.told(login, scram::METHOD, &error.to_string());
            stats::decided(scram::METHOD, "refused");
            NOT_PROVEN
        })?;
        let of_user = |source: &&Arc<Source>| match &source.kind {
            Kind::Passwords(passwords) => passwords.scram(&user).is_some(),
            _ => false,
        };
        // The user may have gone between the messages.
        let source = self.sources(login.listener).find(of_user).ok_or(NOT_PROVEN)?;
        stats::decided(&source.name, "accepted");
        let identity = Identity { user: Some(user.as_str().into()), ..Identity::default() };
        Ok((self.standing(login, identity, Some(source.number), Some(scram::METHOD)), answer))
    }

    /// Looks at files; whether somebody may not be known any more.
    async fn refresh_files(&self) -> bool {
        let refreshed = join_all(self.sources.iter().map(Source::refresh_file)).await;
        for source in &self.sources {
            if let Some(entries) = source.remembered() {
                stats::remembered(&source.name, entries);
            }
        }
        refreshed.contains(&true)
    }

    /// Asks URLs for keys; whether somebody may not be known any more.
    async fn refresh_keys(&self) -> bool {
        join_all(self.sources.iter().map(|source| source.refresh_keys())).await.contains(&true)
    }
}

const WRONG: Denied = Denied::new(ReasonCode::BAD_USER_NAME_OR_PASSWORD, "user name or password is wrong");
const NOT_PROVEN: Denied = Denied::new(ReasonCode::NOT_AUTHORIZED, "authentication failed");

/// Keeps what files say as it is now, for as long as the broker runs.
pub(super) async fn watch_files(shared: Arc<Shared>) {
    loop {
        if shared.access.load_full().refresh_files().await {
            shared.registry.review_all();
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Keeps keys as they are now, for as long as the broker runs. Apart from files, because a URL may take its time.
pub(super) async fn watch_keys(shared: Arc<Shared>) {
    loop {
        if shared.access.load_full().refresh_keys().await {
            shared.registry.review_all();
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Randomness that only this process knows.
fn secret() -> Result<Hash, &'static str> {
    let mut secret = [0; digest::HASH_BYTES];
    aws_lc_rs::rand::fill(&mut secret).map_err(|_| "the system has no randomness")?;
    Ok(secret)
}

#[cfg(test)]
mod tests;
