//! Sources that change while somebody is in.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;
use tidemill_connectors::Secret;

use super::super::peer::Certificate;
use super::certificates::{CertificateSettings, Part};
use super::hook::HookSettings;
use super::jwks::KeySettings;
use super::jwt::JwtSettings;
use super::settings::{SourceKind, SourceSettings};
use super::*;

/// What is done with somebody who came by one source and meets another after a reload: `true` if it stays.
async fn stays(before: SourceKind, after: SourceKind, password: &str) -> bool {
    let open = |kind| {
        let authentication = vec![SourceSettings { name: "s".to_owned(), kind }];
        Access::open(&Settings { authentication, ..Settings::default() }).unwrap()
    };
    let (client, before, mut after) = (ByteString::from("c"), open(before), open(after));
    let certificate = Certificate {
        common_name: Some("bob".to_owned()),
        subject: "CN=bob".to_owned(),
        dns_names: Vec::new(),
    };
    let mut login = Login {
        client: &client,
        user: Some("bob"),
        password: Some(password.as_bytes()),
        address: Ipv4Addr::LOCALHOST.into(),
        listener: "l",
        certificate: Some(&certificate),
    };
    let mut standing = before.admit(&login).await.unwrap();
    login.password = None;
    assert_eq!(before.review(&login, &mut standing), Ok(()));
    after.follow(&before);
    after.review(&login, &mut standing).is_ok()
}

fn jwt(secret: &str, issuers: &[&str], refresh: Duration) -> SourceKind {
    let keys =
        KeySettings { secret: Some(Secret::parse(secret).unwrap()), refresh, ..KeySettings::default() };
    SourceKind::Jwt(Box::new(JwtSettings {
        keys,
        algorithms: vec![Algorithm::HS256],
        issuers: issuers.iter().map(|&issuer| issuer.to_owned()).collect(),
        ..JwtSettings::default()
    }))
}

fn token(secret: &str) -> String {
    let claims = json!({"sub": "bob", "iss": "i", "exp": 4_000_000_000_u32});
    encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

#[tokio::test]
async fn tokens_count_as_long_as_their_key_and_what_is_asked_of_them() {
    let (refresh, token) = (Duration::from_secs(600), token("one"));
    let before = || jwt("one", &["i"], refresh);
    assert!(stays(before(), jwt("one", &["i"], refresh * 2), &token).await);
    assert!(!stays(before(), jwt("two", &["i"], refresh), &token).await);
    assert!(!stays(before(), jwt("one", &["i", "j"], refresh), &token).await);
    let certificates = SourceKind::Certificates(CertificateSettings::default());
    assert!(!stays(before(), certificates, &token).await, "the name alone says nothing");
}

#[tokio::test]
async fn certificates_are_looked_at_again() {
    let by = |user| SourceKind::Certificates(CertificateSettings { user });
    assert!(stays(by(Part::CommonName), by(Part::CommonName), "").await);
    assert!(!stays(by(Part::CommonName), by(Part::Subject), "").await);
}

#[tokio::test]
async fn users_may_be_in_another_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, user: &str| {
        let path = dir.path().join(name);
        let mut users = passwords::Users::default();
        users.set(user, "p", false).unwrap();
        users.write(&path).unwrap();
        SourceKind::Passwords(path)
    };
    assert!(stays(file("a", "bob"), file("b", "bob"), "p").await);
    assert!(!stays(file("a", "bob"), file("b", "eve"), "p").await);
}

#[test]
fn an_endpoint_is_the_same_by_where_and_how_it_is_asked() {
    let open = |settings: &HookSettings| hook::Hook::open(settings.clone()).unwrap();
    let settings = HookSettings { url: "http://localhost/".to_owned(), ..HookSettings::default() };
    let before = open(&settings);
    assert!(open(&settings).follow(&before));
    assert!(open(&HookSettings { timeout: Duration::from_secs(1), ..settings.clone() }).follow(&before));
    assert!(
        !open(&HookSettings { url: "http://localhost/x".to_owned(), ..settings.clone() }).follow(&before)
    );
    let headers = BTreeMap::from([("x".to_owned(), Secret::parse("y").unwrap())]);
    assert!(!open(&HookSettings { headers, ..settings }).follow(&before));
}

#[tokio::test]
async fn a_password_that_was_right_costs_nothing_after_a_reload() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("passwords");
    let mut users = passwords::Users::default();
    users.set("bob", "p", false).unwrap();
    users.write(&path).unwrap();
    let open = || passwords::Passwords::open(&path).unwrap();
    let (before, mut after) = (open(), open());
    let room = Arc::new(Semaphore::new(1));
    assert_eq!(before.verify("bob", b"p", &room).await, passwords::Verified::Right);
    after.follow(&before);
    // Without room nothing is looked up.
    room.close();
    assert_eq!(after.verify("bob", b"p", &room).await, passwords::Verified::Right);
    assert_eq!(after.verify("bob", b"q", &room).await, passwords::Verified::Wrong);
}
