//! `KeyRing`: the keys that tokens are checked with: of a file, of a secret, or of a URL that is asked again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use tidemill_connectors::Secret;
use tidemill_rules::units;
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::digest::{Hash, hash};

/// Most bytes of a file or an answer with keys.
const BYTES_MAX: usize = 1 << 20;
/// Most keys taken from one place.
const KEYS_MAX: usize = 100;
/// A URL is asked at most this often, whoever sends tokens with whatever key.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Time for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// The keys of `keys:`; one of the first three.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct KeySettings {
    /// A PEM file with a public key, or a JSON file with a JWK or a JWK set.
    pub file: Option<PathBuf>,
    /// A URL that answers with a JWK set.
    pub url: Option<String>,
    /// The secret of HS256, HS384 and HS512.
    pub secret: Option<Secret>,
    /// How often the URL is asked again. Default: 10 min.
    #[serde(deserialize_with = "units::duration")]
    pub refresh: Duration,
}

impl Default for KeySettings {
    fn default() -> Self {
        KeySettings { file: None, url: None, secret: None, refresh: Duration::from_secs(600) }
    }
}

/// One key.
#[derive(Clone)]
pub(super) struct Key {
    id: Option<String>,
    algorithm: Option<Algorithm>,
    pub(super) key: DecodingKey,
    /// Tells it from others, whatever it is called.
    pub(super) hash: Hash,
}

impl Key {
    /// A key that says no more of itself, as it is written.
    fn plain(key: DecodingKey, written: &[u8]) -> Key {
        Key { id: None, algorithm: None, key, hash: hash(written) }
    }

    /// A key of a set, if it is one to check signatures with.
    fn of_jwk(value: &Value) -> Option<Key> {
        let jwk = Jwk::deserialize(value).ok()?;
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        let algorithm = match jwk.common.key_algorithm {
            Some(KeyAlgorithm::UNKNOWN_ALGORITHM) => return None,
            Some(named) => Some(Algorithm::try_from(named).ok()?),
            None => None,
        };
        let hash = hash(&serde_json::to_vec(&jwk.algorithm).ok()?);
        Some(Key { id: jwk.common.key_id.clone(), algorithm, key: DecodingKey::from_jwk(&jwk).ok()?, hash })
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        self.key.family() == algorithm.family() && self.algorithm.is_none_or(|own| own == algorithm)
    }
}

/// Keys at a time.
#[derive(Clone, Default)]
pub(crate) struct Keys(Vec<Key>);

impl Keys {
    /// Reads a JWK set, a JWK or a PEM. Keys of a set that are of no use here are passed over.
    pub(super) fn parse(bytes: &[u8]) -> Result<Keys, &'static str> {
        if !bytes.trim_ascii_start().starts_with(b"{") {
            let kinds = [DecodingKey::from_rsa_pem, DecodingKey::from_ec_pem, DecodingKey::from_ed_pem];
            let key = kinds.iter().find_map(|read| read(bytes).ok());
            let key = key.ok_or("neither a PEM with a public key nor a JWK set")?;
            return Ok(Keys(vec![Key::plain(key, bytes)]));
        }
        let value: Value = serde_json::from_slice(bytes).map_err(|_| "not JSON")?;
        let keys: Vec<Key> = match value.get("keys") {
            Some(Value::Array(keys)) => keys.iter().take(KEYS_MAX).filter_map(Key::of_jwk).collect(),
            Some(_) => return Err("its `keys` are no list"),
            None => vec![Key::of_jwk(&value).ok_or("neither a JWK set nor a JWK that can check signatures")?],
        };
        Ok(Keys(keys))
    }

    fn has(&self, hash: &Hash) -> bool {
        self.0.iter().any(|key| key.hash == *hash)
    }

    fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Vec<Key> {
        let fits =
            |key: &&Key| key.fits(algorithm) && (id.is_none() || key.id.is_none() || key.id.as_deref() == id);
        self.0.iter().filter(fits).cloned().collect()
    }
}

/// Where keys are asked for.
struct Remote {
    url: String,
    http: reqwest::Client,
    refresh: Duration,
    /// When it was asked last, or answered.
    asked: Mutex<Option<Instant>>,
}

/// See the module's text.
pub(super) struct KeyRing {
    /// `None` until a URL has answered.
    keys: ArcSwapOption<Keys>,
    remote: Option<Remote>,
    /// A key has gone since this was last looked at.
    lost: AtomicBool,
}

impl KeyRing {
    /// Reads the keys that are here, or gets ready to ask for them. Blocks.
    pub(super) fn open(settings: &KeySettings) -> Result<KeyRing, String> {
        if let Some(url) = &settings.url {
            let http = super::hook::http_client(ANSWER_MAX)?;
            let (url, refresh) = (url.clone(), settings.refresh.max(ASK_AGAIN));
            let remote = Remote { url, http, refresh, asked: Mutex::new(None) };
            return Ok(KeyRing {
                keys: ArcSwapOption::empty(),
                remote: Some(remote),
                lost: AtomicBool::new(false),
            });
        }
        if let Some(secret) = &settings.secret {
            let secret = secret.reveal().map_err(|error| error.to_string())?;
            let key = DecodingKey::from_secret(secret.as_bytes());
            return Ok(KeyRing::fixed(Keys(vec![Key::plain(key, secret.as_bytes())])));
        }
        read(settings.file.as_deref().unwrap_or(Path::new(""))).map(KeyRing::fixed)
    }

    pub(super) fn fixed(keys: Keys) -> KeyRing {
        KeyRing { keys: ArcSwapOption::from_pointee(keys), remote: None, lost: AtomicBool::new(false) }
    }

    /// Takes over the keys that another has from the same URL.
    pub(super) fn follow(&self, before: &KeyRing) {
        let url = |ring: &KeyRing| ring.remote.as_ref().map(|remote| remote.url.clone());
        if self.remote.is_some() && url(self) == url(before) {
            self.keys.store(before.keys.load_full());
        }
    }

    /// Whether it is not known yet which keys there are.
    pub(super) fn is_unknown(&self) -> bool {
        self.keys.load().is_none()
    }

    /// Whether a key is among them.
    pub(super) fn has(&self, hash: &Hash) -> bool {
        self.keys.load().as_ref().is_some_and(|keys| keys.has(hash))
    }

    /// Keys that a token may be signed with. Asks for new ones if there are none.
    pub(super) async fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Vec<Key> {
        let find = || self.keys.load().as_ref().map(|keys| keys.find(id, algorithm)).unwrap_or_default();
        let found = find();
        let Some(remote) = self.remote.as_ref().filter(|_| found.is_empty()) else { return found };
        self.ask(remote, ASK_AGAIN).await;
        find()
    }

    /// Asks for the keys again if it is time; whether one has gone since it was last called.
    pub(super) async fn refresh(&self) -> bool {
        if let Some(remote) = &self.remote {
            let after = if self.is_unknown() { ASK_AGAIN } else { remote.refresh };
            self.ask(remote, after).await;
        }
        self.lost.swap(false, Ordering::AcqRel)
    }

    /// Asks, if nobody has within `after`. One asks at a time. Without a good answer the keys stay as they are.
    async fn ask(&self, remote: &Remote, after: Duration) {
        let mut asked = remote.asked.lock().await;
        if asked.is_some_and(|at| at.elapsed() < after) {
            return;
        }
        // Noted before, for one who gives up meanwhile, and after: who waited for this answer does not ask again.
        *asked = Some(Instant::now());
        let fetched = fetch(remote).await;
        *asked = Some(Instant::now());
        match fetched {
            Ok(keys) => {
                info!(url = remote.url, keys = keys.0.len(), "keys for tokens were fetched");
                let keys = Arc::new(keys);
                let before = self.keys.swap(Some(Arc::clone(&keys)));
                if before.is_some_and(|before| before.0.iter().any(|key| !keys.has(&key.hash))) {
                    self.lost.store(true, Ordering::Release);
                }
            }
            Err(error) => {
                let kept = self.keys.load().as_ref().map_or(0, |keys| keys.0.len());
                warn!(
                    url = remote.url,
                    error, kept, "keys for tokens could not be fetched; those from before count"
                );
            }
        }
    }
}

/// Reads a file with keys.
///
/// # Errors
/// There is none, or it has no key to check signatures with.
pub(crate) fn read(path: &Path) -> Result<Keys, String> {
    let failed = |what: &dyn std::fmt::Display| format!("key file {}: {what}", path.display());
    let bytes = std::fs::read(path).map_err(|error| failed(&error))?;
    match Keys::parse(&bytes) {
        Ok(keys) if keys.0.is_empty() => Err(failed(&"no key in it can check signatures")),
        Ok(keys) => Ok(keys),
        Err(what) => Err(failed(&what)),
    }
}

async fn fetch(remote: &Remote) -> Result<Keys, String> {
    let told = |error: reqwest::Error| error.without_url().to_string();
    let answer = remote.http.get(&remote.url).send().await.map_err(told)?;
    if !answer.status().is_success() {
        return Err(format!("the answer is {}", answer.status()));
    }
    let bytes = super::hook::read_body(answer, BYTES_MAX).await?;
    Keys::parse(&bytes).map_err(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_by_what_they_are_for() {
        let set = r#"{"keys": [
            {"kty": "EC", "crv": "P-256", "kid": "e", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
             "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
            {"kty": "oct", "kid": "h", "alg": "HS256", "k": "b25l"},
            {"kty": "oct", "kid": "enc", "use": "enc", "k": "b25l"},
            {"kty": "oct", "kid": "odd", "alg": "X", "k": "b25l"}
        ]}"#;
        let keys = Keys::parse(set.as_bytes()).unwrap();
        let count = |id, algorithm| keys.find(id, algorithm).len();
        assert_eq!((count(Some("e"), Algorithm::ES256), count(None, Algorithm::ES256)), (1, 1));
        assert_eq!(count(Some("e"), Algorithm::HS256), 0, "a public key is no secret");
        assert_eq!((count(Some("h"), Algorithm::HS256), count(Some("h"), Algorithm::HS512)), (1, 0));
        assert_eq!((count(Some("enc"), Algorithm::HS256), count(Some("odd"), Algorithm::HS256)), (0, 0));
        for none in ["{\"keys\": []}", "{\"keys\": [{\"kty\": \"odd\"}]}"] {
            assert!(Keys::parse(none.as_bytes()).unwrap().0.is_empty(), "{none}");
        }
        for bad in ["", "{}", "{\"keys\": 1}", "{", "-----BEGIN PUBLIC KEY-----"] {
            assert!(Keys::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let pair = rcgen::KeyPair::generate().unwrap();
        assert_eq!(
            Keys::parse(pair.public_key_pem().as_bytes()).unwrap().find(Some("x"), Algorithm::ES256).len(),
            1
        );
    }
}
