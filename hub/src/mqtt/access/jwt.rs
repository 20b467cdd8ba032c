//! JSON Web Tokens as passwords (RFC 7519): signature, times, issuer and audience are checked, and claims say who
//! the client is and what it may do.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytestring::ByteString;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::Value;
use tidemill_rules::units;

use super::acl::Grants;
use super::identity::Identity;
use super::jwks::{Key, KeyRing, KeySettings};

/// Longest token in bytes.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Groups taken from a token.
const GROUPS_MAX: usize = 64;

/// The keys of `jwt:`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct JwtSettings {
    /// Where the keys come from.
    pub keys: KeySettings,
    /// Signatures that count. Default: all that need no shared secret.
    pub algorithms: Vec<Algorithm>,
    /// Who may have issued a token; any one if there is none here.
    pub issuers: Vec<String>,
    /// Whom a token must be meant for; one that is meant for somebody is refused if there is none here.
    pub audiences: Vec<String>,
    /// How far clocks may differ. Default: 30 s.
    #[serde(deserialize_with = "units::duration")]
    pub leeway: Duration,
    /// The claim that is the user name. Default: `sub`.
    pub user: String,
    /// The claim that lists groups. Default: `groups`.
    pub groups: String,
    /// The claim that has to be the client identifier, if any.
    pub client: Option<String>,
    /// The claim with topics, as in `{"publish": ["a/#"], "subscribe": [], "retain": []}`. Default: `tidemill`.
    pub permissions: String,
}

impl Default for JwtSettings {
    fn default() -> Self {
        use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        JwtSettings {
            keys: KeySettings::default(),
            algorithms: vec![RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA],
            issuers: Vec::new(),
            audiences: Vec::new(),
            leeway: Duration::from_secs(30),
            user: "sub".to_owned(),
            groups: "groups".to_owned(),
            client: None,
            permissions: "tidemill".to_owned(),
        }
    }
}

/// Why a token does not let anybody in.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenError {
    /// It is none.
    #[error("the password is no token")]
    None,
    /// Where the keys are has not answered yet.
    #[error("it is not known yet which keys there are to check tokens with")]
    NoKeys,
    /// It does not count.
    #[error("{0}")]
    Refused(String),
}

/// Tokens of one kind.
pub(super) struct Jwt {
    settings: JwtSettings,
    pub(super) keys: KeyRing,
}

impl Jwt {
    pub(super) fn new(settings: JwtSettings, keys: KeyRing) -> Self {
        Jwt { settings, keys }
    }

    /// Takes over the keys that another has from the same URL. Whether both make the same of a token; keys do not matter
    /// for that.
    pub(super) fn follow(&self, before: &Jwt) -> bool {
        self.keys.follow(&before.keys);
        let keys = self.settings.keys.clone();
        JwtSettings { keys, ..before.settings.clone() } == self.settings
    }

    /// Whom a token says a client is.
    pub(super) async fn admit(&self, client: &str, token: &[u8]) -> Result<Identity, TokenError> {
        let refused = |what: String| Err(TokenError::Refused(what));
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::None);
        }
        let header = decode_header(token).map_err(|_| TokenError::None)?;
        // Whatever it says has to be understood (RFC 7515, section 4.1.11), and there is nothing of that kind here.
        if let Some(extensions) = header.crit {
            return refused(format!("the token demands extensions that are not known here: {extensions:?}"));
        }
        if !self.settings.algorithms.contains(&header.alg) {
            return refused(format!(
                "the token is signed with {:?}, which is not among `algorithms`",
                header.alg
            ));
        }
        let keys = self.keys.find(header.kid.as_deref(), header.alg).await;
        if keys.is_empty() {
            return match self.keys.is_unknown() {
                true => Err(TokenError::NoKeys),
                false => refused("no key fits the token".to_owned()),
            };
        }
        let mut error = String::new();
        for key in keys {
            match self.check(token, header.alg, &key) {
                Ok(claims) => return self.identity(client, &claims, &key),
                Err(why) => error = format!("the token is not good: {why}"),
            }
        }
        refused(error)
    }

    fn check(
        &self,
        token: &[u8],
        algorithm: Algorithm,
        key: &Key,
    ) -> Result<Value, jsonwebtoken::errors::Error> {
        let mut validation = Validation::new(algorithm);
        validation.leeway = self.settings.leeway.as_secs();
        validation.validate_nbf = true;
        let mut required = vec!["exp"];
        if !self.settings.issuers.is_empty() {
            validation.set_issuer(&self.settings.issuers);
            required.push("iss");
        }
        if !self.settings.audiences.is_empty() {
            validation.set_audience(&self.settings.audiences);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        decode::<Value>(token, &key.key, &validation).map(|token| token.claims)
    }

    fn identity(&self, client: &str, claims: &Value, key: &Key) -> Result<Identity, TokenError> {
        let refused = |what: String| Err(TokenError::Refused(what));
        let text = |name: &str| claim(claims, name).and_then(Value::as_str).map(ByteString::from);
        if let Some(name) = &self.settings.client
            && text(name).as_deref() != Some(client)
        {
            return refused(format!("the token's claim `{name}` is not the client identifier"));
        }
        let Some(user) = text(&self.settings.user).filter(|user| !user.is_empty()) else {
            return refused(format!("the token has no claim `{}`", self.settings.user));
        };
        let groups = match claim(claims, &self.settings.groups) {
            Some(Value::Array(groups)) => {
                groups.iter().filter_map(Value::as_str).take(GROUPS_MAX).map(ByteString::from).collect()
            }
            Some(Value::String(groups)) => {
                groups.split_whitespace().take(GROUPS_MAX).map(ByteString::from).collect()
            }
            _ => Vec::new(),
        };
        let grants = match claim(claims, &self.settings.permissions) {
            None => None,
            Some(value) => match Grants::deserialize(value) {
                Ok(grants) => Some(grants),
                Err(error) => return refused(format!("the token's permissions cannot be read: {error}")),
            },
        };
        // It was found to be there when the token was checked.
        let expires_s = claims.get("exp").and_then(Value::as_f64).unwrap_or(0.0).max(0.0);
        let left = Duration::try_from_secs_f64(expires_s)
            .ok()
            .map(|since| (since + self.settings.leeway).saturating_sub(since_epoch()));
        Ok(Identity { user: Some(user), groups, grants, key: Some(key.hash), good_for: left })
    }
}

/// A claim by its name, or by the names on the way to it: `realm_access.roles`.
fn claim<'a>(claims: &'a Value, name: &str) -> Option<&'a Value> {
    claims.get(name).or_else(|| name.split('.').try_fold(claims, |value, name| value.get(name)))
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::super::jwks::Keys;
    use super::*;

    fn jwt(settings: JwtSettings) -> Jwt {
        let set = json!({"keys": [
            {"kty": "oct", "kid": "one", "k": "b25l"},
            {"kty": "oct", "kid": "two", "alg": "HS256", "k": "dHdv"},
            {"kty": "nonsense"},
        ]});
        let keys = Keys::parse(set.to_string().as_bytes()).unwrap();
        Jwt::new(JwtSettings { algorithms: vec![Algorithm::HS256], ..settings }, KeyRing::fixed(keys))
    }

    fn token(kid: Option<&str>, secret: &[u8], claims: &Value) -> Vec<u8> {
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(Algorithm::HS256) };
        encode(&header, claims, &EncodingKey::from_secret(secret)).unwrap().into_bytes()
    }

    fn in_s(seconds: i64) -> i64 {
        since_epoch().as_secs() as i64 + seconds
    }

    #[tokio::test]
    async fn a_good_token_says_who_it_is() {
        let jwt = jwt(JwtSettings { groups: "realm.roles".into(), ..JwtSettings::default() });
        let claims = json!({"sub": "bob", "exp": in_s(60), "realm": {"roles": ["a", 1, "b"]}, "tidemill": {"publish": ["x"]}});
        let identity = jwt.admit("c", &token(Some("two"), b"two", &claims)).await.unwrap();
        assert_eq!((identity.user.as_deref(), identity.groups.len()), (Some("bob"), 2));
        assert!(identity.grants.is_some());
        let left = identity.good_for.unwrap().as_secs();
        assert!((88..=90).contains(&left), "{left}");
        assert!(
            jwt.admit("c", &token(None, b"one", &claims)).await.is_ok(),
            "without kid every key is tried"
        );
    }

    #[tokio::test]
    async fn what_is_not_good_is_refused() {
        let jwt = jwt(JwtSettings {
            issuers: vec!["me".into()],
            audiences: vec!["you".into()],
            client: Some("cid".into()),
            ..JwtSettings::default()
        });
        let good = json!({"sub": "bob", "exp": in_s(60), "iss": "me", "aud": ["you", "x"], "cid": "c"});
        assert!(jwt.admit("c", &token(Some("one"), b"one", &good)).await.is_ok());
        for (key, value) in [
            ("exp", json!(in_s(-60))),
            ("exp", Value::Null),
            ("nbf", json!(in_s(60))),
            ("iss", json!("other")),
            ("iss", Value::Null),
            ("aud", json!("other")),
            ("aud", Value::Null),
            ("cid", json!("other")),
            ("sub", Value::Null),
            ("tidemill", json!({"publish": "x"})),
        ] {
            let mut claims = good.clone();
            claims[key] = value;
            let answer = jwt.admit("c", &token(Some("one"), b"one", &claims)).await;
            assert!(matches!(answer, Err(TokenError::Refused(_))), "{key}: {answer:?}");
        }
        for (kid, secret) in [(Some("one"), b"two"), (Some("three"), b"one"), (None, b"bad")] {
            let answer = jwt.admit("c", &token(kid, secret, &good)).await;
            assert!(matches!(answer, Err(TokenError::Refused(_))), "{kid:?}: {answer:?}");
        }
        let none = b"eyJhbGciOiJub25lIn0.eyJzdWIiOiJib2IifQ.";
        for password in [&none[..], b"password", b"a.b.c", b""] {
            assert_eq!(jwt.admit("c", password).await.err(), Some(TokenError::None));
        }
        let plain = Header { kid: Some("one".into()), ..Header::new(Algorithm::HS256) };
        for header in [
            Header { alg: Algorithm::HS512, ..plain.clone() },
            Header { crit: Some(vec!["b64".into()]), ..plain.clone() },
            Header { crit: Some(Vec::new()), ..plain },
        ] {
            let other = encode(&header, &good, &EncodingKey::from_secret(b"one")).unwrap();
            let answer = jwt.admit("c", other.as_bytes()).await;
            assert!(matches!(answer, Err(TokenError::Refused(_))), "{header:?}: {answer:?}");
        }
    }
}
