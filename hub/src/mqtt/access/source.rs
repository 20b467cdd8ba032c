//! [`Source`]: one source of authentication at work.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::certificates::CertificateSettings;
use super::hook::{Asked, Hook};
use super::identity::{Identity, Login};
use super::jwks::KeyRing;
use super::jwt::{Jwt, TokenError};
use super::passwords::{Passwords, Verified};
use super::settings::{SourceKind, SourceSettings};

/// Numbers given so far.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

/// See the module's text.
pub(super) struct Source {
    pub(super) name: String,
    /// Its own, also after a reload, as long as what it said of somebody before can be looked at again, or counts anyway.
    pub(super) number: u64,
    pub(super) kind: Kind,
}

/// What it is.
pub(super) enum Kind {
    Passwords(Box<Passwords>),
    Jwt(Box<Jwt>),
    Certificates(CertificateSettings),
    Http(Box<Hook>),
}

/// What a source says of somebody.
pub(super) enum Word {
    /// It knows who that is.
    Known(Identity),
    /// It is for this source to say, and the answer is no.
    Refused(String),
    /// The next one is to be asked. If none knows, there was a user name and a password to know.
    Pass,
    /// It cannot say.
    Unavailable(String),
}

impl Source {
    /// Gets a source ready. Blocks.
    pub(super) fn open(settings: &SourceSettings) -> Result<Source, String> {
        let name = settings.name.clone();
        let kind = match &settings.kind {
            SourceKind::Passwords(path) => Passwords::open(path)
                .map(|passwords| Kind::Passwords(Box::new(passwords)))
                .map_err(|error| error.to_string()),
            SourceKind::Jwt(settings) => KeyRing::open(&settings.keys)
                .map(|keys| Kind::Jwt(Box::new(Jwt::new((**settings).clone(), keys)))),
            SourceKind::Certificates(settings) => Ok(Kind::Certificates(*settings)),
            SourceKind::Http(settings) => {
                Hook::open((**settings).clone()).map(|hook| Kind::Http(Box::new(hook)))
            }
        };
        match kind {
            Ok(kind) => Ok(Source { name, number: NUMBERS.fetch_add(1, Ordering::Relaxed), kind }),
            Err(error) => Err(format!("access: `{name}`: {error}")),
        }
    }

    /// Says who somebody is.
    pub(super) async fn ask(&self, login: &Login<'_>, room: &Arc<Semaphore>) -> Word {
        match &self.kind {
            Kind::Passwords(passwords) => match (login.user, login.password) {
                (Some(user), Some(password)) => match passwords.verify(user, password, room).await {
                    Verified::Right => {
                        Word::Known(Identity { user: Some(user.into()), ..Identity::default() })
                    }
                    Verified::Wrong => Word::Refused("the password is wrong".to_owned()),
                    Verified::Unknown => Word::Pass,
                },
                _ => Word::Pass,
            },
            Kind::Jwt(jwt) => match login.password {
                Some(token) => match jwt.admit(login.client, token).await {
                    Ok(identity) => Word::Known(identity),
                    Err(TokenError::None) => Word::Pass,
                    Err(error @ TokenError::NoKeys) => Word::Unavailable(error.to_string()),
                    Err(TokenError::Refused(what)) => Word::Refused(what),
                },
                None => Word::Pass,
            },
            Kind::Certificates(settings) => settings.admit(login).map_or(Word::Pass, Word::Known),
            Kind::Http(hook) => match hook.admit(login).await {
                Asked::Allowed(identity) => Word::Known(identity),
                Asked::Denied => Word::Refused("the endpoint says no".to_owned()),
                Asked::Failed(error) => Word::Unavailable(error),
            },
        }
    }

    /// Takes the place of the source of its name at a reload.
    pub(super) fn follow(&mut self, before: &Source) {
        let goes_on = match (&mut self.kind, &before.kind) {
            // Another file is looked into for the same user.
            (Kind::Passwords(own), Kind::Passwords(old)) => {
                own.follow(old);
                true
            }
            (Kind::Jwt(own), Kind::Jwt(old)) => own.follow(old),
            (Kind::Certificates(_), Kind::Certificates(_)) => true,
            (Kind::Http(own), Kind::Http(old)) => own.follow(old),
            _ => false,
        };
        if goes_on {
            self.number = before.number;
        }
    }

    /// Whether somebody whom it has let in is still known to it, as far as that can be found out without a password: the
    /// user is in the file, the key that signed the token is among the keys, the certificate still names the user. An endpoint
    /// is not asked again.
    pub(super) fn still_knows(&self, login: &Login<'_>, identity: &Identity) -> bool {
        match &self.kind {
            Kind::Passwords(passwords) => identity.user.as_deref().is_some_and(|user| passwords.has(user)),
            Kind::Jwt(jwt) => identity.key.is_some_and(|key| jwt.keys.has(&key)),
            Kind::Certificates(settings) => {
                settings.admit(login).is_some_and(|named| named.user == identity.user)
            }
            Kind::Http(_) => true,
        }
    }

    /// Looks whether the file it reads has changed; whether somebody may not be known any more.
    pub(super) async fn refresh_file(self: &Arc<Self>) -> bool {
        let Kind::Passwords(_) = &self.kind else { return false };
        let source = Arc::clone(self);
        tokio::task::spawn_blocking(move || source.read_again()).await.unwrap_or(false)
    }

    /// Asks for its keys again if it is time; whether somebody may not be known any more.
    pub(super) async fn refresh_keys(&self) -> bool {
        match &self.kind {
            Kind::Jwt(jwt) => jwt.keys.refresh().await,
            Kind::Passwords(_) | Kind::Certificates(_) | Kind::Http(_) => false,
        }
    }

    fn read_again(&self) -> bool {
        let Kind::Passwords(passwords) = &self.kind else { return false };
        let began = Instant::now();
        match passwords.refresh() {
            Ok(true) => {
                info!(source = self.name, took = ?began.elapsed(), "the password file is read again");
                true
            }
            Ok(false) => false,
            Err(error) => {
                warn!(source = self.name, %error, "the users from before count");
                false
            }
        }
    }

    /// Answers it remembers.
    pub(super) fn remembered(&self) -> Option<usize> {
        match &self.kind {
            Kind::Passwords(passwords) => Some(passwords.remembered()),
            Kind::Http(hook) => Some(hook.remembered()),
            Kind::Jwt(_) | Kind::Certificates(_) => None,
        }
    }
}
