//! An HTTP endpoint that is asked about each client. Whatever is not a clear yes is a no.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytestring::ByteString;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use tidemill_connectors::Secret;
use tidemill_rules::units;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::acl::Grants;
use super::cache::Memory;
use super::identity::{Identity, Login};

/// Most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// The keys of `http:` below `authentication`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct HookSettings {
    /// Where to ask.
    pub url: String,
    /// Headers of the request.
    pub headers: BTreeMap<String, Secret>,
    /// Time for an answer, the wait for room included. Default: 3 s.
    #[serde(deserialize_with = "units::duration")]
    pub timeout: Duration,
    /// Requests at a time. Default: 64.
    pub requests_max: usize,
    /// How long a yes is remembered if the answer does not say. Default: 60 s.
    #[serde(deserialize_with = "units::duration")]
    pub ttl: Duration,
    /// Answers that are remembered. Default: 10,000.
    pub cache_max: usize,
}

impl Default for HookSettings {
    fn default() -> Self {
        HookSettings {
            url: String::new(),
            headers: BTreeMap::new(),
            timeout: Duration::from_secs(3),
            requests_max: 64,
            ttl: Duration::from_secs(60),
            cache_max: 10_000,
        }
    }
}

/// What is asked.
#[derive(Serialize)]
struct Question<'a> {
    client: &'a str,
    user: Option<&'a str>,
    /// A password that is not UTF-8 comes in base64, in the other one.
    password: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password_base64: Option<String>,
    address: String,
    listener: &'a str,
    certificate: Option<Certificate<'a>>,
}

#[derive(Serialize)]
struct Certificate<'a> {
    common_name: Option<&'a str>,
    subject: &'a str,
}

impl<'a> Question<'a> {
    fn of(login: &Login<'a>) -> Question<'a> {
        use base64::Engine;
        let text = login.password.and_then(|password| std::str::from_utf8(password).ok());
        let other = login.password.filter(|_| text.is_none());
        Question {
            client: login.client,
            user: login.user,
            password: text,
            password_base64: other.map(|bytes| base64::engine::general_purpose::STANDARD.encode(bytes)),
            address: login.address.to_canonical().to_string(),
            listener: login.listener,
            certificate: login.certificate.map(|named| Certificate {
                common_name: named.common_name.as_deref(),
                subject: &named.subject,
            }),
        }
    }
}

/// What is answered.
#[derive(Clone, Debug, Deserialize)]
struct Answer {
    allow: bool,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    permissions: Option<Grants>,
    /// Seconds for which the answer need not be asked for again.
    #[serde(default)]
    ttl: Option<u64>,
    /// Seconds after which a connection that it lets in ends.
    #[serde(default)]
    expires: Option<u64>,
}

/// An answer, and when it came.
#[derive(Clone)]
struct Answered {
    answer: Arc<Answer>,
    at: Instant,
}

/// What came of asking.
#[derive(Clone, Debug)]
pub(super) enum Asked {
    /// It may come in.
    Allowed(Identity),
    /// It may not.
    Denied,
    /// Nobody knows.
    Failed(String),
}

/// See the module's text.
pub(super) struct Hook {
    settings: HookSettings,
    headers: HeaderMap,
    http: reqwest::Client,
    room: Semaphore,
    answers: Arc<Memory<Answered>>,
}

impl Hook {
    pub(super) fn open(settings: HookSettings) -> Result<Hook, String> {
        let mut headers = HeaderMap::new();
        for (name, secret) in &settings.headers {
            let failed = |error: &dyn std::fmt::Display| format!("header `{name}`: {error}");
            let value = secret.reveal().map_err(|error| failed(&error))?;
            let mut value = HeaderValue::from_str(&value).map_err(|error| failed(&error))?;
            value.set_sensitive(true);
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| failed(&error))?;
            headers.insert(name, value);
        }
        Ok(Hook {
            headers,
            http: http_client(settings.timeout)?,
            room: Semaphore::new(settings.requests_max),
            answers: Arc::new(Memory::new(settings.cache_max)?),
            settings,
        })
    }

    /// Takes over what another remembers, if it was set alike. Whether both ask the same place in the same way, so that what
    /// the other said counts here: how long and how often they ask does not matter for that, nor what a secret is by now.
    pub(super) fn follow(&mut self, before: &Hook) -> bool {
        let (own, old) = (&self.settings, &before.settings);
        if own == old {
            self.answers = Arc::clone(&before.answers);
        }
        (&own.url, &own.headers) == (&old.url, &old.headers)
    }

    /// Answers remembered.
    pub(super) fn remembered(&self) -> usize {
        self.answers.len()
    }

    /// Asks, or remembers.
    pub(super) async fn admit(&self, login: &Login<'_>) -> Asked {
        let question = match serde_json::to_vec(&Question::of(login)) {
            Ok(question) => question,
            Err(error) => return Asked::Failed(error.to_string()),
        };
        let key = self.answers.key(&[&question]);
        if let Some(answered) = self.answers.get(&key) {
            return answered.identity(login);
        }
        let began = Instant::now();
        let answer = match timeout(self.settings.timeout, self.ask(question)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {:?}", self.settings.timeout)),
        };
        metrics::histogram!("tidemill_mqtt_access_hook_seconds").record(began.elapsed().as_secs_f64());
        let answer = match answer {
            Ok(answer) => Answered { answer: Arc::new(answer), at: Instant::now() },
            Err(error) => return Asked::Failed(error),
        };
        // A no is remembered only where the answer says for how long: who was just let in should not wait.
        let Answer { ttl, allow, expires, .. } = *answer.answer;
        let ttl = match (ttl, allow) {
            (Some(seconds), _) => Duration::from_secs(seconds),
            (None, true) => self.settings.ttl,
            (None, false) => Duration::ZERO,
        };
        let ttl = expires.map_or(ttl, |seconds| ttl.min(Duration::from_secs(seconds)));
        if let Some(until) = answer.at.checked_add(ttl).filter(|_| !ttl.is_zero()) {
            self.answers.put(key, answer.clone(), until);
        }
        answer.identity(login)
    }

    async fn ask(&self, question: Vec<u8>) -> Result<Answer, String> {
        let told = |error: reqwest::Error| error.without_url().to_string();
        let _permit = self.room.acquire().await.map_err(|error| error.to_string())?;
        let request = self.http.post(&self.settings.url).headers(self.headers.clone());
        let request = request.header("content-type", "application/json").body(question);
        let answer = request.send().await.map_err(told)?;
        if answer.status() != reqwest::StatusCode::OK {
            return Err(format!("the answer is {}", answer.status()));
        }
        let body = read_body(answer, ANSWER_BYTES_MAX).await?;
        serde_json::from_slice(&body).map_err(|error| format!("the answer cannot be read: {error}"))
    }
}

impl Answered {
    fn identity(&self, login: &Login<'_>) -> Asked {
        let Answered { answer, at } = self;
        if !answer.allow {
            return Asked::Denied;
        }
        let user = answer.user.as_deref().or(login.user).map(ByteString::from);
        let groups = answer.groups.iter().map(|group| ByteString::from(&**group)).collect();
        let good_for =
            answer.expires.map(|seconds| Duration::from_secs(seconds).saturating_sub(at.elapsed()));
        Asked::Allowed(Identity { user, groups, grants: answer.permissions.clone(), key: None, good_for })
    }
}

/// A client that follows no redirection and asks no proxy that the environment names: an answer from elsewhere is none, and
/// passwords are for nobody else.
pub(super) fn http_client(timeout: Duration) -> Result<reqwest::Client, String> {
    let builder = reqwest::Client::builder().timeout(timeout).no_proxy();
    let builder = builder.redirect(reqwest::redirect::Policy::none());
    builder.build().map_err(|error| format!("no HTTP client can be made: {error}"))
}

/// The body of an answer, if it is not too long.
pub(super) async fn read_body(mut answer: reqwest::Response, bytes_max: usize) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(|error| error.without_url().to_string())? {
        if body.len() + part.len() > bytes_max {
            return Err(format!("the answer has more than {bytes_max} bytes"));
        }
        body.extend_from_slice(&part);
    }
    Ok(body)
}
