//! The server's side of SCRAM-SHA-256 (RFC 5802, RFC 7677), without I/O and without channel binding.
//!
//! Who has no credentials gets an answer of the same shape as everybody else, the same one each time, and fails at the
//! end as with a wrong password.

use std::fmt::Write;
use std::num::NonZeroU32;

use aws_lc_rs::{constant_time, hmac, pbkdf2, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::digest::{self, HASH_BYTES, Hash, hash};

/// The method's name in CONNECT and AUTH.
pub const METHOD: &str = "SCRAM-SHA-256";
/// Rounds for new credentials. RFC 7677 asks for at least 4,096; each login costs a device this many.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(15_000).expect("it is not 0");
/// Bytes of the salt of new credentials.
const SALT_BYTES: usize = 16;
/// Bytes of randomness in the server's part of a nonce.
const NONCE_BYTES: usize = 18;
/// Longest message of a client in bytes.
const MESSAGE_BYTES_MAX: usize = 4 << 10;

/// Why an exchange fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// What the client sent is no message of SCRAM, or asks for what there is not.
    #[error("{0}")]
    Message(&'static str),
    /// The proof is wrong, or there is no such user.
    #[error("the proof is wrong")]
    Proof,
}

/// What is kept of a password: enough to check a proof, not enough to make one.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: Hash,
    server_key: Hash,
}

impl Credentials {
    /// New credentials; `None` for a password that SCRAM would have to change first (RFC 4013): one with anything but
    /// printable ASCII.
    #[must_use]
    pub fn of_password(password: &str) -> Option<Credentials> {
        let mut salt = vec![0; SALT_BYTES];
        rand::fill(&mut salt).ok()?;
        Credentials::derive(password, salt, ITERATIONS)
    }

    fn derive(password: &str, salt: Vec<u8>, iterations: NonZeroU32) -> Option<Credentials> {
        if !password.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
            return None;
        }
        let mut salted = [0; HASH_BYTES];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password.as_bytes(), &mut salted);
        let server_key = sign(&salted, b"Server Key");
        let stored_key = hash(&sign(&salted, b"Client Key"));
        Some(Credentials { iterations: iterations.get(), salt, stored_key, server_key })
    }

    /// What somebody who is not known would have: always the same, and no proof fits.
    fn of_nobody(user: &str, secret: &[u8]) -> Credentials {
        let part = |name: &str| sign(secret, format!("{name} {user}").as_bytes());
        let salt = part("salt").into_iter().take(SALT_BYTES).collect();
        Credentials {
            iterations: ITERATIONS.get(),
            salt,
            stored_key: part("stored"),
            server_key: part("server"),
        }
    }

    /// Reads what [`Credentials::to_text`] wrote (the form of RFC 5803).
    #[must_use]
    pub fn parse(text: &str) -> Option<Credentials> {
        let (round, keys) = text.strip_prefix(METHOD)?.strip_prefix('$')?.split_once('$')?;
        let ((iterations, salt), (stored, server)) = (round.split_once(':')?, keys.split_once(':')?);
        let key = |text: &str| BASE64.decode(text).ok()?.try_into().ok();
        Some(Credentials {
            iterations: iterations.parse().ok().filter(|iterations| *iterations > 0)?,
            salt: BASE64.decode(salt).ok().filter(|salt| !salt.is_empty())?,
            stored_key: key(stored)?,
            server_key: key(server)?,
        })
    }

    /// `SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY`.
    #[must_use]
    pub fn to_text(&self) -> String {
        let Credentials { iterations, salt, stored_key, server_key } = self;
        let [salt, stored, server] = [&salt[..], stored_key, server_key].map(|bytes| BASE64.encode(bytes));
        format!("{METHOD}${iterations}:{salt}${stored}:{server}")
    }
}

fn sign(key: &[u8], data: &[u8]) -> Hash {
    digest::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data)
}

/// An exchange whose first message was answered.
pub struct Exchange {
    user: String,
    credentials: Credentials,
    gs2_header: String,
    nonce: String,
    /// `client-first-message-bare,server-first-message`.
    so_far: String,
}

impl Exchange {
    /// Takes the client's first message; says what to answer. `lookup` finds a user's credentials; `secret` is the same
    /// for as long as others are not to learn from changes who is not known.
    ///
    /// # Errors
    /// The message is none, or asks for channel binding or for another's name.
    pub fn begin(
        message: &[u8],
        secret: &[u8],
        lookup: impl FnOnce(&str) -> Option<Credentials>,
    ) -> Result<(Exchange, String), ScramError> {
        let mut nonce = [0; NONCE_BYTES];
        rand::fill(&mut nonce).map_err(|_| ScramError::Message("the server has no randomness"))?;
        Exchange::begin_with(message, secret, &BASE64.encode(nonce), lookup)
    }

    fn begin_with(
        message: &[u8],
        secret: &[u8],
        server_nonce: &str,
        lookup: impl FnOnce(&str) -> Option<Credentials>,
    ) -> Result<(Exchange, String), ScramError> {
        let message = text(message)?;
        let broken = ScramError::Message("the client's first message is not laid out as RFC 5802 says");
        let mut parts = message.splitn(3, ',');
        let (Some(binding), Some(authzid), Some(bare)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(broken);
        };
        if binding.starts_with("p=") {
            return Err(ScramError::Message("channel binding is not supported"));
        }
        if !matches!(binding, "n" | "y") {
            return Err(broken);
        }
        let mut fields = bare.split(',');
        let name = fields.next().and_then(|field| field.strip_prefix("n=")).ok_or(broken)?;
        let client_nonce = fields.next().and_then(|field| field.strip_prefix("r=")).ok_or(broken)?;
        let user = unescape(name).filter(|user| !user.is_empty()).ok_or(broken)?;
        if client_nonce.is_empty() || !client_nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(broken);
        }
        if !authzid.is_empty() {
            let other = authzid.strip_prefix("a=").and_then(unescape).ok_or(broken)?;
            if other != user {
                return Err(ScramError::Message("nobody may act under another's name"));
            }
        }
        let credentials = lookup(&user).unwrap_or_else(|| Credentials::of_nobody(&user, secret));
        let nonce = format!("{client_nonce}{server_nonce}");
        let salt = BASE64.encode(&credentials.salt);
        let answer = format!("r={nonce},s={salt},i={}", credentials.iterations);
        let gs2_header = format!("{binding},{authzid},");
        let so_far = format!("{bare},{answer}");
        Ok((Exchange { user, credentials, gs2_header, nonce, so_far }, answer))
    }

    /// Takes the client's final message; says who it is and what to answer.
    ///
    /// # Errors
    /// The message is none, or the proof is wrong.
    pub fn finish(self, message: &[u8]) -> Result<(String, String), ScramError> {
        let message = text(message)?;
        let broken = ScramError::Message("the client's final message is not laid out as RFC 5802 says");
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or(broken)?;
        let mut fields = without_proof.split(',');
        let binding = fields.next().and_then(|field| field.strip_prefix("c=")).ok_or(broken)?;
        let nonce = fields.next().and_then(|field| field.strip_prefix("r=")).ok_or(broken)?;
        if BASE64.decode(binding).ok().as_deref() != Some(self.gs2_header.as_bytes()) || nonce != self.nonce {
            return Err(ScramError::Message("the client's final message does not go with its first"));
        }
        let proof = BASE64.decode(proof).ok().filter(|proof| proof.len() == HASH_BYTES).ok_or(broken)?;
        let mut so_far = self.so_far;
        let _ = write!(so_far, ",{without_proof}");
        let signature = sign(&self.credentials.stored_key, so_far.as_bytes());
        let mut client_key = [0; HASH_BYTES];
        for ((to, one), other) in client_key.iter_mut().zip(proof).zip(signature) {
            *to = one ^ other;
        }
        constant_time::verify_slices_are_equal(&hash(&client_key), &self.credentials.stored_key)
            .map_err(|_| ScramError::Proof)?;
        let verifier = BASE64.encode(sign(&self.credentials.server_key, so_far.as_bytes()));
        Ok((self.user, format!("v={verifier}")))
    }
}

fn text(message: &[u8]) -> Result<&str, ScramError> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(ScramError::Message("the message is too long"));
    }
    std::str::from_utf8(message).map_err(|_| ScramError::Message("the message is not UTF-8"))
}

/// A name as it is meant: `=2C` is a comma, `=3D` an equals sign, and no other `=` may be.
fn unescape(name: &str) -> Option<String> {
    let mut plain = String::new();
    let mut parts = name.split('=');
    plain.push_str(parts.next()?);
    for part in parts {
        let (sign, rest) = part.split_at_checked(2)?;
        plain.push(match sign {
            "2C" => ',',
            "3D" => '=',
            _ => return None,
        });
        plain.push_str(rest);
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector() -> Credentials {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        Credentials::derive("pencil", salt, NonZeroU32::new(4096).unwrap()).unwrap()
    }

    /// RFC 7677, section 3.
    #[test]
    fn the_standards_example() {
        let server_nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let first = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
        let lookup = |user: &str| (user == "user").then(vector);
        let (exchange, answer) = Exchange::begin_with(first, b"", server_nonce, lookup).unwrap();
        assert_eq!(
            answer,
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let last = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                     p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let (user, verifier) = exchange.finish(last).unwrap();
        assert_eq!((&*user, &*verifier), ("user", "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
    }

    #[test]
    fn credentials_are_written_and_read() {
        assert!(Credentials::parse(&vector().to_text()).is_some_and(|read| read == vector()));
        assert!(
            Credentials::of_password("p4ss word").is_some() && Credentials::of_password("pässword").is_none()
        );
        for bad in
            ["", "SCRAM-SHA-1$1:YQ==$a:b", "SCRAM-SHA-256$0:YQ==$a:b", "SCRAM-SHA-256$1:YQ==$YQ==:YQ=="]
        {
            assert!(Credentials::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn who_is_not_known_gets_an_answer_of_the_same_shape() {
        let answer = |secret: &[u8], user: &str| {
            let first = format!("n,,n={user},r=abc");
            let (exchange, answer) = Exchange::begin(first.as_bytes(), secret, |_| None).unwrap();
            let proof = BASE64.encode([7; 32]);
            let last = format!("c=biws,r={},p={proof}", exchange.nonce);
            assert_eq!(exchange.finish(last.as_bytes()), Err(ScramError::Proof));
            answer.split_once(",s=").unwrap().1.to_owned()
        };
        assert_eq!(answer(b"s", "x"), answer(b"s", "x"));
        assert_ne!(answer(b"s", "x"), answer(b"s", "y"));
        let known = Credentials::of_password("x").unwrap();
        let salt = BASE64.encode(&known.salt);
        assert_eq!(answer(b"s", "x").len(), format!("{salt},i={}", known.iterations).len());
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let begin =
            |message: &str| Exchange::begin(message.as_bytes(), b"", |_| Some(vector())).map(|_| ()).err();
        assert_eq!(begin("n,,n=a=2Cb=3D,r=x"), None);
        assert_eq!(begin("n,a=user,n=user,r=x"), None);
        for bad in [
            "",
            "n",
            "n,,",
            "n,,n=,r=x",
            "n,,n=a,r=",
            "n,,n=a=2c,r=x",
            "n,,n=a=,r=x",
            "x,,n=a,r=x",
            "p=tls,,n=a,r=x",
            "n,a=b,n=a,r=x",
            "n,,m=1,n=a,r=x",
        ] {
            assert!(begin(bad).is_some(), "{bad}");
        }
        let finish = |last: &str| {
            let (exchange, _) = Exchange::begin_with(b"n,,n=a,r=x", b"", "y", |_| Some(vector())).unwrap();
            exchange.finish(last.as_bytes()).err()
        };
        let proof = BASE64.encode([1; 32]);
        assert_eq!(finish(&format!("c=biws,r=xy,p={proof}")), Some(ScramError::Proof));
        for bad in [
            "",
            "c=biws,r=xy",
            "c=biws,r=xz,p=AAAA",
            "c=eSws,r=xy,p=AAAA",
            "c=biws,r=xy,p=AAAA",
            "c=biws,r=xy,p=!",
        ] {
            assert!(matches!(finish(bad), Some(ScramError::Message(_))), "{bad}");
        }
    }
}
