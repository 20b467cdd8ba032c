//! AUTH and enhanced authentication (5.0: 3.15, 4.12). The proofs are rsasl's, the packets our own.

use tidemill_tests::mqtt::Level;
use tidemill_tests::scram::{METHOD, Proof};
use tidemill_tests::services::Tidemill;
use tidemill_tests::services::tidemill::folder_of;

use crate::wire::*;

/// A hub that knows bob by his password.
async fn hub() -> Tidemill {
    let access =
        "access: { authentication: [ { name: users, passwords: { file: passwords } } ], default: allow }\n";
    let dir = folder_of(&[("bob", "secret")]);
    Tidemill::start_with_config_in(dir, &format!("flush: async\n{access}")).await
}

fn method(name: &str) -> Build {
    bytes().u8(property::AUTHENTICATION_METHOD).text(name)
}

fn data(data: &[u8]) -> Build {
    bytes().u8(property::AUTHENTICATION_DATA).text(data)
}

/// An AUTH with a method and data.
fn auth(reason: u8, name: &str, said: &[u8]) -> Vec<u8> {
    bytes().u8(reason).section(&method(name).raw(data(said))).packet(0xf0)
}

fn proving(said: &[u8]) -> Connect {
    connect(Level::V5, "auth").with(&method(METHOD)).with(&data(said))
}

/// The data of properties that name the method, and have no more than is needed.
fn said(properties: &Properties) -> Vec<u8> {
    assert_eq!(properties.one(property::AUTHENTICATION_METHOD), Some(bytes().text(METHOD).as_ref()));
    assert!(properties.all(property::USER_PROPERTY).is_empty());
    assert!(!properties.has(property::REASON_STRING));
    Cut(properties.one(property::AUTHENTICATION_DATA).expect("data")).text().to_vec()
}

/// The server's challenge: an AUTH that asks to go on.
async fn challenge(wire: &mut Wire) -> Vec<u8> {
    let answer = wire.answer(0xf0).await;
    assert_eq!(answer.reason, 0x18);
    said(&answer.properties)
}

/// Connects as far as to the CONNACK.
async fn connected(hub: &Tidemill, password: &str) -> (Wire, Connack, Proof) {
    let mut proof = Proof::new("bob", password);
    let mut wire = Wire::open(hub, Level::V5).await;
    wire.send(&proving(&proof.say(None))).await;
    let asked = challenge(&mut wire).await;
    wire.send(&auth(0x18, METHOD, &proof.say(Some(&asked)))).await;
    let connack = wire.connack().await;
    (wire, connack, proof)
}

#[tokio::test]
async fn a_challenge_comes_with_0x18_and_the_method_and_so_does_success() {
    let hub = hub().await;
    let (mut wire, connack, mut proof) = connected(&hub, "secret").await;
    assert_eq!(connack.reason, 0);
    let last = said(&connack.properties);
    // The server has proved that it knows the password as well.
    proof.say(Some(&last));
    wire.silent().await;
}

#[tokio::test]
async fn a_wrong_proof_is_refused_and_closed() {
    let hub = hub().await;
    let (mut wire, connack, _) = connected(&hub, "wrong").await;
    assert_eq!((connack.session_present, connack.reason), (false, 0x87));
    wire.closed().await;
    let mut wire = Wire::open(&hub, Level::V5).await;
    wire.send(&proving(b"no message of the method")).await;
    assert_eq!(wire.connack().await.reason, 0x87);
    wire.closed().await;
}

#[tokio::test]
async fn an_unknown_method_is_refused_and_closed() {
    let hub = hub().await;
    let mut wire = Wire::open(&hub, Level::V5).await;
    wire.send(&connect(Level::V5, "auth").with(&method("GS2-KRB5")).with(&data(b"x"))).await;
    assert_eq!(wire.connack().await.reason, 0x8c);
    wire.closed().await;
}

#[tokio::test]
async fn nothing_but_auth_and_disconnect_may_come_before_connack() {
    let hub = hub().await;
    let others = [PINGREQ.to_vec(), publish("a", "x").at(Level::V5), subscribe(1, &[("a", 0)]).at(Level::V5)];
    for packet in others {
        let mut wire = Wire::open(&hub, Level::V5).await;
        wire.send(&proving(&Proof::new("bob", "secret").say(None))).await;
        challenge(&mut wire).await;
        wire.send(&packet).await;
        assert_eq!(wire.connack().await.reason, 0x82);
        wire.closed().await;
    }
    let mut wire = Wire::open(&hub, Level::V5).await;
    wire.send(&proving(&Proof::new("bob", "secret").say(None))).await;
    challenge(&mut wire).await;
    wire.send(&DISCONNECT).await;
    // It has gone: whether it is told anything is the server's business.
    while wire.next().await.is_some() {}
}

#[tokio::test]
async fn an_answer_with_another_code_or_method_is_refused() {
    let hub = hub().await;
    for (reason, name, refused) in [(0x19, METHOD, 0x82), (0x00, METHOD, 0x82), (0x18, "OTHER", 0x82)] {
        let mut proof = Proof::new("bob", "secret");
        let mut wire = Wire::open(&hub, Level::V5).await;
        wire.send(&proving(&proof.say(None))).await;
        let asked = challenge(&mut wire).await;
        wire.send(&auth(reason, name, &proof.say(Some(&asked)))).await;
        assert_eq!(wire.connack().await.reason, refused);
        wire.closed().await;
    }
}

#[tokio::test]
async fn a_client_may_prove_anew_who_it_is() {
    let hub = hub().await;
    let (mut wire, ..) = connected(&hub, "secret").await;
    let mut again = Proof::new("bob", "secret");
    wire.send(&auth(0x19, METHOD, &again.say(None))).await;
    let asked = challenge(&mut wire).await;
    // Meanwhile all goes on.
    wire.publish(publish("auth/anew", "x")).await;
    wire.send(&auth(0x18, METHOD, &again.say(Some(&asked)))).await;
    let answer = wire.answer(0xf0).await;
    assert_eq!(answer.reason, 0);
    again.say(Some(&said(&answer.properties)));
    wire.silent().await;
}

#[tokio::test]
async fn failing_anew_closes() {
    let hub = hub().await;
    let (mut wire, ..) = connected(&hub, "secret").await;
    let mut again = Proof::new("bob", "wrong");
    wire.send(&auth(0x19, METHOD, &again.say(None))).await;
    let asked = challenge(&mut wire).await;
    wire.send(&auth(0x18, METHOD, &again.say(Some(&asked)))).await;
    wire.closed_with(0x87).await;
}

#[tokio::test]
async fn another_method_anew_is_refused() {
    let hub = hub().await;
    let (mut wire, ..) = connected(&hub, "secret").await;
    wire.send(&auth(0x19, "OTHER", b"x")).await;
    wire.closed_with(0x82).await;
}

#[tokio::test]
async fn without_a_method_in_connect_auth_is_refused() {
    let hub = crate::hubs::hub().await;
    for reason in [0x00, 0x18, 0x19] {
        let mut wire = Wire::nobody(&hub, Level::V5).await;
        wire.send(&auth(reason, METHOD, b"x")).await;
        wire.closed_with(0x82).await;
    }
}

#[tokio::test]
async fn codes_that_are_not_those_of_auth_are_refused() {
    let hub = crate::hubs::hub().await;
    for reason in [0x01, 0x17, 0x1a, 0x80, 0x87] {
        let mut wire = Wire::nobody(&hub, Level::V5).await;
        wire.send(&auth(reason, METHOD, b"x")).await;
        wire.closed_with(0x81).await;
    }
}

#[tokio::test]
async fn no_auth_is_larger_than_the_client_takes() {
    let hub = hub().await;
    let mut wire = Wire::open(&hub, Level::V5).await;
    wire.send(&proving(&Proof::new("bob", "secret").say(None)).with(&maximum_packet_size(40))).await;
    // The challenge has more, and cannot be shortened.
    let frame = wire.frame().await;
    assert!(frame.len() <= 40, "{} bytes", frame.len());
    assert_eq!(Connack::read(Level::V5, &frame).reason, 0x95);
    wire.closed().await;
}
