//! Between CONNECT and session: who is this, and may it come in? Nothing of a session is touched before.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use tokio::time::timeout;
use tracing::debug;

use super::super::access::identity::Login;
use super::super::access::{Access, Standing};
use super::super::codec::{Auth, AuthProperties, Connect, Decoder, Packet, ReasonCode, Version};
use super::super::limits::Limit;
use super::super::peer::Peer;
use super::super::shared::Shared;
use super::super::transport::Transport;
use super::Output;
use super::close::write_out;
use super::handshake::{Refusal, packet_bytes_max, read_packet};

/// The method a client came with, and the last word of it.
type Proof = (&'static str, Bytes);

/// Somebody who may come in.
#[derive(Default)]
pub(super) struct Admitted {
    /// What is known of it; `None` where nobody is asked and everything is allowed.
    pub(super) standing: Option<Box<Standing>>,
    /// What CONNACK carries of enhanced authentication.
    pub(super) proof: Option<Proof>,
    /// How often everybody had been looked at again before.
    pub(super) reviews: u64,
}

/// What a CONNECT and its connection say.
pub(super) fn login<'a>(peer: &'a Peer, connect: &'a Connect) -> Login<'a> {
    Login {
        client: &connect.client_id,
        user: connect.username.as_deref(),
        password: connect.password.as_deref(),
        address: peer.address.ip(),
        listener: &peer.listener.options.name,
        certificate: peer.certificate.as_deref(),
    }
}

/// Lets somebody in, or does not.
pub(super) async fn admit(
    shared: &Arc<Shared>,
    stream: &mut Transport,
    peer: &Peer,
    decoder: &mut Decoder,
    input: &mut BytesMut,
    connect: &Connect,
) -> Result<Admitted, Refusal> {
    // First of all: rules that come after are noticed.
    let reviews = shared.registry.reviews();
    let access = shared.access.load_full();
    let login = login(peer, connect);
    let method = connect.properties.authentication_method.as_ref();
    if method.is_some_and(|method| !access.takes_method(method, login.listener)) {
        let what = "this authentication method is not supported";
        return Err(Refusal { reason: ReasonCode::BAD_AUTHENTICATION_METHOD, what });
    }
    if access.is_open() {
        return Ok(Admitted { reviews, ..Admitted::default() });
    }
    // Boxed: connections to a hub that lets everybody in have no use for the room.
    let finding_out = Box::pin(async {
        match method {
            None => Ok((access.admit(&login).await?, None)),
            Some(method) => prove(&access, &login, method, stream, decoder, input, connect).await,
        }
    });
    let found_out = timeout(shared.options.connect_timeout, finding_out).await.map_err(|_| {
        shared.counters.reached(Limit::ConnectTimeout);
        // Whoever is slow, nothing was found to be wrong: the client may try again.
        let what = "who the client is was not found out within connect_timeout";
        Refusal { reason: ReasonCode::SERVER_UNAVAILABLE, what }
    })?;
    let (mut standing, proof) = found_out?;
    if let Some(will) = &connect.will
        && !standing.may_publish(&will.topic, will.retain)
    {
        let what = "the will may not be published to its topic";
        return Err(Refusal { reason: ReasonCode::NOT_AUTHORIZED, what });
    }
    Ok(Admitted { standing: Some(standing), proof, reviews })
}

/// Enhanced authentication (4.12): AUTH packets until the client has proven who it is.
async fn prove(
    access: &Access,
    login: &Login<'_>,
    method: &ByteString,
    stream: &mut Transport,
    decoder: &mut Decoder,
    input: &mut BytesMut,
    connect: &Connect,
) -> Result<(Box<Standing>, Option<Proof>), Refusal> {
    let room = packet_bytes_max(connect);
    let first = match &connect.properties.authentication_data {
        Some(first) => first.clone(),
        // The client has said how it wants to begin, and not begun.
        None => ask(stream, decoder, input, method, None, room).await?,
    };
    let (exchange, answer) = access.begin(&first, login.listener).map_err(|error| {
        debug!(client = &**login.client, %error, "an authentication was refused");
        Refusal { reason: ReasonCode::NOT_AUTHORIZED, what: "authentication failed" }
    })?;
    let last = ask(stream, decoder, input, method, Some(answer.into()), room).await?;
    let (standing, answer) = access.finish(login, exchange, &last)?;
    let proof = standing.method.map(|method| (method, answer.into()));
    Ok((standing, proof))
}

/// Sends an AUTH that asks to go on, and waits for what the client says to it.
async fn ask(
    stream: &mut Transport,
    decoder: &mut Decoder,
    input: &mut BytesMut,
    method: &ByteString,
    data: Option<Bytes>,
    packet_bytes_max: usize,
) -> Result<Bytes, Refusal> {
    let mut output = Output::default();
    let wrong = |what| Refusal { reason: ReasonCode::PROTOCOL_ERROR, what };
    let auth = Auth::going_on(method.clone(), data);
    // [MQTT-3.1.2-24]
    if output.packet_within(&Packet::Auth(auth), Version::V5, packet_bytes_max) != Ok(true) {
        let what = "the AUTH is larger than the client's Maximum Packet Size";
        return Err(Refusal { reason: ReasonCode::PACKET_TOO_LARGE, what });
    }
    write_out(stream, &mut output).await;
    let read = read_packet(stream, decoder, input).await;
    let packet = read.map_err(|error| Refusal { reason: error.reason, what: error.what })?;
    match packet {
        Some(Packet::Auth(auth)) if auth.reason == ReasonCode::CONTINUE_AUTHENTICATION => {
            let AuthProperties { authentication_method, authentication_data, .. } = auth.properties;
            // [MQTT-4.12.0-5]
            if authentication_method.as_ref() != Some(method) {
                return Err(wrong("AUTH has another method than CONNECT"));
            }
            Ok(authentication_data.unwrap_or_default())
        }
        Some(_) => Err(wrong("a packet other than AUTH before CONNACK")),
        None => Err(wrong("the client went in the middle of its authentication")),
    }
}
