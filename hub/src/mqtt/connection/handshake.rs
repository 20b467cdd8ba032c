//! From an accepted socket to a CONNACK.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use bytes::BytesMut;
use bytestring::ByteString;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::super::access::Denied;
use super::super::clients::Totals;
use super::super::codec::{Connack, ConnackProperties, Connect, Decoder, Packet, ReasonCode, Version};
use super::super::guard::alone;
use super::super::limits::Limit;
use super::super::peer::Peer;
use super::super::registry::Mail;
use super::super::session::{Kept, Session};
use super::super::sessions;
use super::super::shared::{Phase, Shared, now_ms};
use super::super::transport::{Transport, establish};
use super::admission::{Admitted, admit};
use super::bounds::Bounds;
use super::close::{linger, write_last};
use super::content;
use super::delivery::Delivery;
use super::inbound::plain_properties;
use super::takeover::take_up;
use super::{Connection, Limits, Output, Tally};

/// Bytes read at a time until there is a CONNECT, which is rarely longer.
const CONNECT_BYTES: usize = 512;

/// A CONNECT that is not accepted.
pub(super) struct Refusal {
    pub(super) reason: ReasonCode,
    pub(super) what: &'static str,
}

/// What is said to who comes while the broker lets its connections go.
const SHUTTING_DOWN: Refusal =
    Refusal { reason: ReasonCode::SERVER_UNAVAILABLE, what: "the server is shutting down" };

impl From<Denied> for Refusal {
    fn from(Denied { reason, what }: Denied) -> Self {
        Refusal { reason, what }
    }
}

impl From<content::Refusal> for Refusal {
    /// Of a will.
    fn from(content::Refusal { ack, what, .. }: content::Refusal) -> Self {
        Refusal { reason: ack, what }
    }
}

/// Reads a CONNECT, opens its session and answers. `None` if it comes to nothing, of which the client was told
/// what it can be told.
pub(super) async fn accept(
    shared: Arc<Shared>,
    socket: std::net::TcpStream,
    mut peer: Peer,
) -> Option<Box<Connection>> {
    let socket = match TcpStream::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => {
            debug!(peer = %peer.address, %error, "a connection could not be used");
            return None;
        }
    };
    let until = Instant::now() + shared.options.connect_timeout;
    let from_client_max = shared.options.packet_bytes_max as usize;
    let mut stream = if peer.listener.is_plain() {
        Transport::Tcp(socket)
    } else {
        // Boxed: plain connections need no room for it.
        let established = Box::pin(establish(socket, &mut peer, from_client_max));
        match unless_draining(&shared, timeout_at(until, established)).await? {
            Ok(established) => established?,
            Err(_) => return late(&shared, &peer, "the handshake of its transport is not done"),
        }
    };
    let peer = Arc::new(peer);
    let mut decoder = Decoder::server(from_client_max);
    let mut input = BytesMut::new();
    let reading = timeout_at(until, read_packet(&mut stream, &mut decoder, &mut input));
    let Ok(read) = unless_draining(&shared, reading).await? else {
        return late(&shared, &peer, "no CONNECT came");
    };
    // What a client takes is not known of one that could not be read.
    let mut room = usize::MAX;
    let refused = match read {
        Ok(Some(Packet::Connect(connect))) => {
            let version = connect.version;
            room = packet_bytes_max(&connect);
            match let_in(&shared, stream, &peer, decoder, input, connect).await? {
                Ok(connection) => return Some(connection),
                Err((stream, refusal)) => (stream, Some(version), refusal),
            }
        }
        // A server's decoder lets nothing else through first.
        Ok(_) => return None,
        Err(error) => {
            debug!(peer = %peer.address, %error, "a CONNECT was refused");
            if error.reason == ReasonCode::PACKET_TOO_LARGE {
                shared.counters.reached(Limit::PacketBytes);
            }
            // 3.1.1 has no answer to a malformed CONNECT, and an MQTT 5 server MAY close without one.
            let version = decoder.version();
            (stream, version, Refusal { reason: error.reason, what: error.what })
        }
    };
    let (mut stream, version, refusal) = refused;
    debug!(peer = %peer.address, reason = %refusal.reason, what = refusal.what, "a connection was refused");
    shared.counters.refuse(refusal.reason);
    if let Some(version) = version {
        refuse(&mut stream, version, &refusal, room).await;
    }
    None
}

/// Notes that a client did not get as far as to a CONNECT in time.
fn late<T>(shared: &Shared, peer: &Peer, what: &'static str) -> Option<T> {
    debug!(peer = %peer.address, listener = peer.listener.options.name, what, "connect_timeout is over; closed");
    shared.counters.refuse(ReasonCode::KEEP_ALIVE_TIMEOUT);
    shared.counters.reached(Limit::ConnectTimeout);
    None
}

/// Looks at a CONNECT, and opens the session that it is for. `None` if the client has gone meanwhile, or if that failed with a
/// panic.
async fn let_in(
    shared: &Arc<Shared>,
    mut stream: Transport,
    peer: &Arc<Peer>,
    mut decoder: Decoder,
    mut input: BytesMut,
    mut connect: Box<Connect>,
) -> Option<Result<Box<Connection>, (Transport, Refusal)>> {
    if let Err(refusal) = check(shared, &connect) {
        return Some(Err((stream, refusal)));
    }
    let assigned = connect.client_id.is_empty();
    if assigned {
        connect.client_id = uuid::Uuid::new_v4().to_string().into();
    }
    let admitting = admit(shared, &mut stream, peer, &mut decoder, &mut input, &connect);
    let admitted = match unless_draining(shared, admitting).await.unwrap_or(Err(SHUTTING_DOWN)) {
        Ok(admitted) => admitted,
        Err(refusal) => return Some(Err((stream, refusal))),
    };
    // A copy: a slice would keep the read buffer for as long as the session.
    let client = ByteString::from(&*connect.client_id);
    let opening = open(shared, stream, peer, decoder, input, *connect, &client, assigned, admitted);
    if let Some(opened) = alone(&client, "its CONNECT", opening).await {
        return opened;
    }
    // The connection that had its session may have been ended for this one.
    sessions::abandoned(shared, &client).await;
    None
}

/// Waits for a part of a handshake that leaves nothing to be undone; `None` when the broker lets its connections go first.
async fn unless_draining<T>(shared: &Shared, part: impl Future<Output = T>) -> Option<T> {
    let mut phase = shared.phase.subscribe();
    tokio::select! {
        biased;
        done = part => Some(done),
        _ = phase.wait_for(|phase| *phase != Phase::Running) => None,
    }
}

/// Reads until a whole packet is there; `None` if the client went before.
pub(super) async fn read_packet(
    stream: &mut Transport,
    decoder: &mut Decoder,
    input: &mut BytesMut,
) -> Result<Option<Packet>, super::super::codec::DecodeError> {
    loop {
        if let Some(packet) = decoder.decode(input)? {
            return Ok(Some(packet));
        }
        if stream.ready(Interest::READABLE).await.is_err() {
            return Ok(None);
        }
        input.reserve(CONNECT_BYTES);
        match stream.try_read_buf(input) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return Ok(None),
        }
    }
}

/// Largest packet a client takes.
pub(super) fn packet_bytes_max(connect: &Connect) -> usize {
    connect.properties.packet_bytes_max.map_or(usize::MAX, |max| max.get() as usize)
}

/// Answers with a refusal, where the version has one for it and the client takes packets that long.
async fn refuse(stream: &mut Transport, version: Version, refusal: &Refusal, room: usize) {
    if version == Version::V311 && refusal.reason.to_v311_connack().is_none() {
        return;
    }
    let properties = ConnackProperties {
        reason_string: Some(ByteString::from_static(refusal.what)),
        ..Default::default()
    };
    let mut output = Output::default();
    // The reason for people only where there is room for it ([MQTT-3.2.2-19]).
    for properties in [properties, ConnackProperties::default()] {
        let connack = Connack { session_present: false, reason: refusal.reason, properties };
        if let Ok(true) = output.packet_within(&Packet::Connack(Box::new(connack)), version, room) {
            write_last(stream, &mut output).await;
            linger(stream).await;
            return;
        }
    }
}

/// Refuses what this server does not do.
fn check(shared: &Shared, connect: &Connect) -> Result<(), Refusal> {
    let refuse = |reason, what| Err(Refusal { reason, what });
    if shared.is_draining() {
        return Err(SHUTTING_DOWN);
    }
    // [MQTT-3.1.3-8] of 3.1.1; in 5.0 the server gives a name in any case.
    if connect.version == Version::V311 && connect.client_id.is_empty() && !connect.clean_start {
        return refuse(
            ReasonCode::CLIENT_IDENTIFIER_NOT_VALID,
            "a session that is kept needs a client identifier",
        );
    }
    if let Some(will) = &connect.will {
        let is_text = will.properties.payload_is_text == Some(true);
        content::check(shared, &will.topic, &will.payload, is_text)?;
    }
    Ok(())
}

/// Whether a client that waited is still there, as far as the thread has heard. One that has sent more is answered, whether or not it
/// will send anything again. Of a plain socket that nothing came from, the system is not asked.
fn is_there(stream: &mut Transport, input: &mut BytesMut) -> bool {
    if !input.is_empty() {
        return true;
    }
    match stream.try_read_buf(input) {
        Ok(count) => count > 0,
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
    }
}

/// Opens the session and sends the CONNACK. `None` if the client has gone.
#[expect(clippy::too_many_arguments, reason = "the parts that a connection is made of, each once")]
async fn open(
    shared: &Arc<Shared>,
    mut stream: Transport,
    peer: &Arc<Peer>,
    decoder: Decoder,
    mut input: BytesMut,
    connect: Connect,
    client: &ByteString,
    assigned: bool,
    admitted: Admitted,
) -> Option<Result<Box<Connection>, (Transport, Refusal)>> {
    let Admitted { mut standing, proof, reviews } = admitted;
    let assigned = assigned.then(|| client.clone());
    let expiry_max_s = shared.options.session_expiry_max_s();
    let asked_s = match connect.version {
        Version::V5 => connect.properties.session_expiry_s.unwrap_or(0),
        Version::V311 if connect.clean_start => 0,
        Version::V311 => u32::MAX,
    };
    let expiry_s = asked_s.min(expiry_max_s);
    if expiry_s < asked_s {
        shared.counters.reached(Limit::SessionExpiry);
    }
    let user = match &standing {
        Some(standing) => standing.user().cloned(),
        None => connect.username.as_ref().map(|user| ByteString::from(&**user)),
    };

    let mut connack = connack(shared, &connect, assigned, asked_s, expiry_s);
    if let Some((method, data)) = proof {
        connack.properties.authentication_method = Some(ByteString::from_static(method));
        connack.properties.authentication_data = Some(data);
    }
    // Nothing of it can be left out, so that it is sent whole or not at all ([MQTT-3.1.2-24]).
    if !fits(&connack, &connect) {
        let what = "the CONNACK is larger than the client's Maximum Packet Size";
        return Some(Err((stream, Refusal { reason: ReasonCode::PACKET_TOO_LARGE, what })));
    }

    let gate = shared.registry.gate(client).await;
    // Who gave up has often come again by now, and has the session: it must not lose it to its own past.
    if !is_there(&mut stream, &mut input) {
        debug!(peer = %peer.address, client = &**client, "a client went before its CONNECT was answered");
        return None;
    }
    if standing.is_none() && shared.registry.reviews() != reviews && !shared.access.load().is_open() {
        let what = "clients have to say who they are now; connect again";
        return Some(Err((stream, Refusal { reason: ReasonCode::NOT_AUTHORIZED, what })));
    }
    let taken = take_up(shared, client, &connect, standing.as_deref_mut(), user.clone(), expiry_s).await;
    let (session, present) = match taken {
        Ok(taken) => taken,
        Err(refusal) => return Some(Err((stream, refusal))),
    };
    let mail = Arc::new(Mail::of(session.owner.clone(), session.kept != Kept::Nothing));
    let mut connection =
        connection(shared, stream, peer, decoder, input, &connect, session, Arc::clone(&mail), user);
    // From here on, whoever wants the session finds somebody who reads the mail, or closes it.
    shared.registry.online(client, Arc::clone(&mail));
    if shared.registry.reviews() != reviews {
        mail.nudge_review();
    }
    drop(gate);

    connack.session_present = present;
    connection.standing = standing;
    connection.send(&Packet::Connack(Box::new(connack)));
    connection.tally.packets_in += 1;
    connection.tally.accepted += 1;
    connection.resume();
    Some(Ok(connection))
}

#[expect(clippy::too_many_arguments, reason = "the parts that a connection is made of, each once")]
fn connection(
    shared: &Arc<Shared>,
    stream: Transport,
    peer: &Arc<Peer>,
    decoder: Decoder,
    input: BytesMut,
    connect: &Connect,
    session: Session,
    mail: Arc<Mail>,
    user: Option<ByteString>,
) -> Box<Connection> {
    let options = &shared.options;
    let asked = &connect.properties;
    let window_max = asked.receive_maximum.map_or(u16::MAX, NonZeroU16::get).min(options.inflight_max);
    let is_v5 = connect.version == Version::V5;
    let limits = Limits {
        packet_bytes_max: packet_bytes_max(connect),
        window_max,
        topic_alias_max: asked.topic_alias_maximum.unwrap_or(0).min(options.topic_alias_out_max),
        problem_information: asked.request_problem_information.unwrap_or(true),
    };
    let keep_alive_s = match options.keep_alive_instead_s(connect.keep_alive_s) {
        Some(instead_s) if is_v5 => {
            shared.counters.reached(Limit::KeepAlive);
            instead_s
        }
        _ => connect.keep_alive_s,
    };
    Box::new(Connection {
        shared: Arc::clone(shared),
        stream,
        peer: Arc::clone(peer),
        version: connect.version,
        limits,
        plain_properties: plain_properties(&session.client, user.as_ref()),
        session,
        user,
        standing: None,
        mail,
        write_asked: false,
        holds: false,
        keep_alive_s,
        last_heard: Instant::now(),
        decoder,
        held_back: !input.is_empty(),
        // An idle connection has no buffer.
        input: if input.is_empty() { BytesMut::new() } else { input },
        aliases: Vec::new(),
        batch: Vec::new(),
        batch_acks: Vec::new(),
        pending: std::collections::VecDeque::new(),
        pending_acks: 0,
        delivery: Delivery::default(),
        output: Output::default(),
        tally: Tally::default(),
        bounds: Bounds::new(shared, peer),
        since_ms: now_ms(),
        totals: Totals::default(),
    })
}

/// What the client is told, but for whether there is a session. Only what differs from the protocol's defaults is said.
fn connack(
    shared: &Shared,
    connect: &Connect,
    assigned_client_id: Option<ByteString>,
    asked_s: u32,
    expiry_s: u32,
) -> Connack {
    let options = &shared.options;
    let properties = ConnackProperties {
        session_expiry_s: (asked_s != expiry_s).then_some(expiry_s),
        receive_maximum: NonZeroU16::new(options.receive_maximum),
        packet_bytes_max: u32::try_from(options.packet_bytes_max).ok().and_then(NonZeroU32::new),
        assigned_client_id,
        topic_alias_maximum: Some(options.topic_alias_max).filter(|max| *max > 0),
        server_keep_alive_s: options.keep_alive_instead_s(connect.keep_alive_s),
        ..Default::default()
    };
    Connack { session_present: false, reason: ReasonCode::SUCCESS, properties }
}

/// Whether a client takes a CONNACK that long.
fn fits(connack: &Connack, connect: &Connect) -> bool {
    if connect.properties.packet_bytes_max.is_none() {
        return true;
    }
    let packet = Packet::Connack(Box::new(connack.clone()));
    Output::default().packet_within(&packet, connect.version, packet_bytes_max(connect)) == Ok(true)
}
