//! One client's connection: a task that lives on one network thread from the accepted socket to the end.
//!
//! It works in turns ([`Connection::turn`]): everything readable is read, every packet in it is handled and all its
//! PUBLISHes go to the store as one batch; receipts that have resolved become acknowledgements; queues are
//! read as far as there is room; then everything is written with one call. Only then does it wait.
//!
//! # Layout
//! - `admission`: between CONNECT and session: who is this?
//! - `review`: who a connection is while it lasts: rules that change, tokens that expire, AUTH
//! - `bounds`: rates; what becomes of slow subscribers
//! - `handshake`: CONNECT to CONNACK
//! - `takeover`: whose a session is, and taking it over
//! - `content`: what a message may be, of a PUBLISH and of a will
//! - `inbound`: packets from the client; batches and their receipts
//! - `subscribe`: SUBSCRIBE, UNSUBSCRIBE
//! - `delivery`: resending, retained messages, queues
//! - `output`: what waits for the socket
//! - `close`: why a connection ends, and what follows

mod admission;
mod bounds;
mod close;
mod content;
mod delivery;
mod handshake;
mod inbound;
mod output;
mod review;
mod subscribe;
mod takeover;

use std::collections::VecDeque;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use futures_util::FutureExt;
use tidemill_store::{Appended, NewRecord, StoreError};
use tokio::io::{Interest, Ready};
use tokio::time::Instant;
use tracing::{debug, error};

use self::bounds::Bounds;
use self::close::Close;
use self::delivery::Delivery;
use self::inbound::{AckDue, Pending};
use self::output::Output;
use self::subscribe::Change;
use super::access::Standing;
use super::clients::{ClientInfo, ClientState, ConnectionInfo, SessionInfo, Totals};
use super::codec::{Decoder, Packet, ReasonCode, Version};
use super::limits::Limit;
use super::listener::Place;
use super::peer::Peer;
use super::registry::{MAIL, Mail};
use super::session::Session;
use super::sessions;
use super::shared::Shared;
use super::stats::Tally;
use super::told::seldom;
use super::transport::Transport;

/// Room that is made before each read. What is there already for a large packet is used as well.
const READ_BYTES: usize = 16 << 10;
/// Bytes read in one turn: then what was read gets its answers.
const READ_BYTES_PER_TURN: usize = 256 << 10;
/// Batches that may wait for their receipt; with more, the client is not read.
const RECEIPTS_MAX: usize = 256;

/// What a client accepts and was told.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Largest packet it accepts.
    packet_bytes_max: usize,
    /// QoS 1 and 2 messages to it that may be in flight.
    window_max: u16,
    /// Highest topic alias that it is sent.
    topic_alias_max: u16,
    /// Whether reason strings may come on any packet.
    problem_information: bool,
}

// With what the allocator adds, an idle client takes this much memory whatever it does.
const _: () = assert!(size_of::<Connection>() <= 896);

/// See the module's text.
struct Connection {
    shared: Arc<Shared>,
    stream: Transport,
    peer: Arc<Peer>,
    version: Version,
    limits: Limits,
    session: Session,
    user: Option<ByteString>,
    /// Who it is and what it may do; `None` where everybody may do everything.
    standing: Option<Box<Standing>>,
    mail: Arc<Mail>,
    /// Whether the session is to be written down in this turn.
    write_asked: bool,
    /// Whether the session holds a place in the log ([`super::accounts`]).
    holds: bool,
    /// The Keep Alive that holds; 0 is none.
    keep_alive_s: u16,
    last_heard: Instant,

    decoder: Decoder,
    input: BytesMut,
    /// Whether `input` may begin with a whole packet: handling it was stopped, not starved.
    held_back: bool,
    /// Topics by alias less one; empty where there is none.
    aliases: Vec<ByteString>,
    /// Stored with every message that has no properties of its own.
    plain_properties: Bytes,
    /// Messages of this turn, and what is owed for them.
    batch: Vec<NewRecord>,
    batch_acks: Vec<AckDue>,
    /// Batches on their way to the disk.
    pending: VecDeque<Pending>,
    /// Acknowledgements owed in `pending`.
    pending_acks: usize,

    delivery: Delivery,
    output: Output,
    tally: Tally,

    /// `None` when nothing bounds it beside the protocol.
    bounds: Option<Box<Bounds>>,
    /// When it was accepted, in milliseconds since the Unix epoch.
    since_ms: i64,
    totals: Totals,
}

/// What a connection waits for.
enum Event {
    /// The socket.
    Socket(io::Result<Ready>),
    /// The first batch's receipt.
    Stored(Result<Option<Appended>, StoreError>),
    /// Queues have something, or somebody left a message: tokens of subscriptions, and [`MAIL`].
    Bell(Vec<u64>),
    /// Nothing came for too long.
    Silence,
    /// Others have had their turn.
    More,
}

/// Serves an accepted connection until it ends. Never fails: what goes wrong ends this connection only.
///
/// Beginning and end are boxed: an idle connection should not keep their room, nor that of what it was begun with. Its
/// place is given back however that ends.
pub(super) fn serve(
    shared: Arc<Shared>,
    stream: std::net::TcpStream,
    peer: Peer,
    place: Place,
) -> impl Future<Output = ()> + Send + 'static {
    let accepted = Box::pin(async move {
        let address = peer.address;
        let accepted = AssertUnwindSafe(handshake::accept(shared, stream, peer)).catch_unwind().await;
        accepted.unwrap_or_else(|_| {
            error!(peer = %address, "a connection failed with a panic before it had a session; only it is closed");
            None
        })
    });
    async move {
        let Some(mut connection) = accepted.await else { return };
        let ran = AssertUnwindSafe(connection.run()).catch_unwind().await;
        Box::pin(connection.end(ran)).await;
        drop(place);
    }
}

/// Waits for the first batch's receipt.
async fn next_receipt(pending: &mut VecDeque<Pending>) -> Result<Option<Appended>, StoreError> {
    match pending.front_mut() {
        Some(Pending { receipt: Some(receipt), .. }) => Pin::new(receipt).await.map(Some),
        Some(Pending { receipt: None, .. }) => Ok(None),
        None => std::future::pending().await,
    }
}

impl Connection {
    /// Ends the connection for what its run came to.
    async fn end(self: Box<Self>, ran: std::thread::Result<Close>) {
        let (client, address) = (&*self.session.client, self.peer.address);
        let close = ran.unwrap_or_else(|_| {
            error!(peer = %address, client, "a connection failed with a panic; only it is closed");
            Close::Refused { reason: ReasonCode::UNSPECIFIED_ERROR, what: "internal error" }
        });
        let listener = &self.peer.listener.options.name;
        debug!(peer = %address, listener, client, reason = %close, "connection closed");
        let (shared, client) = (Arc::clone(&self.shared), self.session.client.clone());
        if AssertUnwindSafe(self.finish(close)).catch_unwind().await.is_err() {
            error!(
                client = &*client,
                "a connection failed with a panic as it ended; its session is what was written last"
            );
            sessions::abandoned(&shared, &client).await;
        }
    }

    /// Works until the connection is to end.
    async fn run(&mut self) -> Close {
        // The broker may have begun to let connections go before it could find this one.
        if self.shared.is_draining() {
            return Close::ShuttingDown;
        }
        loop {
            if let Err(close) = self.turn().await {
                return close;
            }
        }
    }

    /// Whether the client may be read: it is not while it owes us the reading of its answers, or while we owe
    /// it too many acknowledgements.
    fn may_read(&self) -> bool {
        self.has_room() && !self.owes() && self.pause().is_none()
    }

    /// The Receive Maximum that the client was told; `None` in 3.1.1.
    fn receive_maximum(&self) -> Option<u16> {
        (self.version == Version::V5).then_some(self.shared.options.receive_maximum)
    }

    /// Whether we owe the client too many acknowledgements to take more from it.
    fn owes(&self) -> bool {
        self.pending.len() >= RECEIPTS_MAX
            || self.pending_acks >= usize::from(self.shared.options.receive_maximum)
    }

    /// From when on a rate lets the client be read; `None` if it may be now.
    fn pause(&self) -> Option<(Instant, Limit)> {
        self.bounds.as_ref()?.pause()
    }

    /// How long the client may be silent: one and a half times the Keep Alive ([MQTT-3.1.2-22]).
    fn silence_max(&self) -> Option<Duration> {
        (self.keep_alive_s > 0).then(|| Duration::from_millis(u64::from(self.keep_alive_s) * 1500))
    }

    async fn turn(&mut self) -> Result<(), Close> {
        self.settle()?;
        // A client that is always readable must not keep the rest from being heard.
        self.hear(&self.mail.bell.take())?;
        // What was left in the buffer when reading stopped.
        self.handle_input().await?;
        self.deliver().await?;
        if self.bounds.as_ref().is_some_and(|bounds| bounds.look_is_due()) {
            // Boxed as all that is rare.
            Box::pin(self.look_at_lag()).await?;
        }
        self.write_down().await?;
        self.flush()?;
        if !self.has_room() {
            self.shared.counters.reached(Limit::OutBuffer);
        }
        self.count();
        let ready = self.wait().await?;
        if ready.is_readable() && self.may_read() {
            self.read().await?;
        }
        Ok(())
    }

    /// Waits until there is something to do; says what the socket is ready for.
    async fn wait(&mut self) -> Result<Ready, Close> {
        // Looked at once: if it is over while we look, what waits for its end would not be woken.
        let pause = self.pause();
        let reading = self.has_room() && !self.owes() && pause.is_none();
        let more = (self.has_room() && self.delivery.has_work()) || (reading && self.held_back);
        // What keeps us from listening is no silence of the client's.
        let listening = pause.is_none() && !self.owes();
        if !listening {
            self.last_heard = Instant::now();
        }
        let written = self.output.is_empty() && !self.stream.has_unsent();
        let interest = match (reading, written) {
            (true, true) => Some(Interest::READABLE),
            (true, false) => Some(Interest::READABLE | Interest::WRITABLE),
            (false, false) => Some(Interest::WRITABLE),
            (false, true) => None,
        };
        self.check_expiry()?;
        let silence = self.silence_max().filter(|_| listening).map(|silence| self.last_heard + silence);
        let bounds = if self.bounds.is_some() { self.bounds_wake_at(pause) } else { None };
        let deadline = silence.into_iter().chain(bounds).chain(self.expires()).min();
        let is_silence = deadline == silence;
        let Self { stream, mail, pending, .. } = self;
        let event = tokio::select! {
            biased;
            ready = stream.ready(interest.unwrap_or(Interest::READABLE)), if interest.is_some() => Event::Socket(ready),
            stored = next_receipt(pending), if !pending.is_empty() => Event::Stored(stored),
            tokens = mail.bell.ready() => Event::Bell(tokens),
            () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                if is_silence { Event::Silence } else { Event::More }
            }
            () = tokio::task::yield_now(), if more => Event::More,
        };
        self.on_event(event)
    }

    /// Notes what happened; says what the socket is ready for.
    fn on_event(&mut self, event: Event) -> Result<Ready, Close> {
        match event {
            Event::Socket(ready) => return ready.map_err(Close::Lost),
            Event::Bell(tokens) => self.hear(&tokens)?,
            Event::Stored(stored) => self.acknowledge(stored)?,
            Event::Silence => {
                return Err(Close::GivenUp {
                    reason: ReasonCode::KEEP_ALIVE_TIMEOUT,
                    what: "nothing came for one and a half times the keep alive",
                });
            }
            Event::More => {}
        }
        Ok(Ready::EMPTY)
    }

    /// Takes up what the bell was rung for.
    fn hear(&mut self, tokens: &[u64]) -> Result<(), Close> {
        if tokens.contains(&MAIL) {
            self.read_mail()?;
        }
        self.delivery.wake(tokens, &self.session);
        Ok(())
    }

    /// Looks what others want.
    fn read_mail(&mut self) -> Result<(), Close> {
        self.mail.look();
        if self.shared.is_draining() {
            return Err(Close::ShuttingDown);
        }
        if let Some(reply) = self.mail.taken_over() {
            return Err(Close::TakenOver(reply));
        }
        if let Some(kick) = self.mail.kicked() {
            return Err(Close::Kicked(kick));
        }
        self.tell();
        if self.mail.review_nudged() {
            self.review()?;
        }
        if self.mail.share_nudged() {
            self.delivery.wake_shared(&self.session);
        }
        self.write_asked |= self.mail.asked_to_write();
        Ok(())
    }

    /// Reads what is there, up to a turn's worth, and handles it.
    async fn read(&mut self) -> Result<(), Close> {
        let mut left = READ_BYTES_PER_TURN;
        let mut ended = false;
        // With packets left in the buffer, the end of the connection would come before them.
        while left > 0 && !ended && !self.held_back && !self.mail.has_rung() && self.may_read() {
            self.input.reserve(READ_BYTES);
            match self.stream.try_read_buf(&mut self.input) {
                Ok(0) => ended = true,
                Ok(count) => {
                    left = left.saturating_sub(count);
                    self.tally.bytes_in += count as u64;
                    if let Some(bounds) = &self.bounds {
                        bounds.bytes(count);
                    }
                    self.handle_packets().await?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(Close::Lost(error)),
            }
        }
        self.submit().await?;
        if self.input.is_empty() {
            // An idle connection has no buffer.
            self.input = BytesMut::new();
        }
        if ended { Err(Close::Gone) } else { Ok(()) }
    }

    /// Handles what is in the buffer, now that it may be.
    async fn handle_input(&mut self) -> Result<(), Close> {
        if !self.input.is_empty() && self.may_read() {
            self.handle_packets().await?;
            self.submit().await?;
        }
        Ok(())
    }

    /// Handles the whole packets in the buffer, as long as the client may be read and nobody wants anything else.
    async fn handle_packets(&mut self) -> Result<(), Close> {
        while let Some(change) = self.handle_until_change()? {
            // Boxed: changes are rare, and every connection would keep room for them.
            Box::pin(self.change(change)).await?;
            // Each takes its time, and thousands of them fit into the buffer.
            if self.mail.has_rung() {
                self.held_back = !self.input.is_empty();
                break;
            }
        }
        Ok(())
    }

    /// Handles whole packets up to one that changes subscriptions, for which the store has to be asked.
    fn handle_until_change(&mut self) -> Result<Option<Change>, Close> {
        self.held_back = true;
        while self.pending_acks + self.batch_acks.len() < usize::from(self.shared.options.receive_maximum)
            || self.version == Version::V5
        {
            if self.bounds.as_ref().is_some_and(|bounds| !bounds.message_may_come()) {
                break;
            }
            match self.decoder.decode(&mut self.input) {
                Ok(Some(packet)) => {
                    self.last_heard = Instant::now();
                    self.tally.packets_in += 1;
                    if let Some(change) = self.handle(packet)? {
                        return Ok(Some(change));
                    }
                }
                Ok(None) => {
                    self.held_back = false;
                    break;
                }
                Err(error) => {
                    debug!(client = &*self.session.client, %error, "a packet was refused");
                    if error.reason == ReasonCode::PACKET_TOO_LARGE {
                        self.shared.counters.reached(Limit::PacketBytes);
                    }
                    return Err(Close::Refused { reason: error.reason, what: error.what });
                }
            }
        }
        self.held_back &= !self.input.is_empty();
        Ok(None)
    }

    /// Adds what this turn has counted.
    fn count(&mut self) {
        let Tally { published, delivered, bytes_in, bytes_out, .. } = self.tally;
        self.totals.messages_in += published;
        self.totals.messages_out += u64::from(delivered);
        self.totals.bytes_in += bytes_in;
        self.totals.bytes_out += bytes_out;
        self.shared.counters.add(&mut self.tally);
    }

    /// Answers those who want to know how this connection is doing.
    fn tell(&self) {
        for question in self.mail.questions() {
            let connection = ConnectionInfo {
                user: self.user.as_ref().map(ToString::to_string),
                address: self.peer.address,
                listener: self.peer.listener.options.name.clone(),
                version: self.version,
                since_ms: self.since_ms,
                keep_alive_s: self.keep_alive_s,
                waiting_bytes: self.output.len(),
                totals: self.totals,
            };
            // Whoever asked may have gone.
            let _ = question.send(ClientInfo {
                client: self.session.client.to_string(),
                state: ClientState::Online(connection),
                session: Some(SessionInfo::of(&self.session, &self.shared.store, &self.shared.groups)),
            });
        }
    }

    /// Queues a packet for the client.
    fn send(&mut self, packet: &Packet) {
        match self.output.packet(packet, self.version) {
            Ok(()) => self.tally.packets_out += 1,
            // Every packet sent through here is small and made of parts that were read from packets.
            Err(error) => error!(client = &*self.session.client, %error, "a packet cannot be written"),
        }
    }

    /// Writes the session down if what is about to be sent depends on it: QoS 2 messages whose steps must not be forgotten
    /// once the client has heard of them (4.3.3).
    async fn write_down(&mut self) -> Result<(), Close> {
        let asked = std::mem::take(&mut self.write_asked);
        // What ends with its connection has nobody to be told again.
        if !(self.session.take_changed() | asked) || !self.session.is_persistent() {
            return Ok(());
        }
        // Boxed as all that is rare.
        Box::pin(self.save()).await.map_err(|error| {
            seldom!(warn, client = &*self.session.client, %error, "a session cannot be written; its connection is closed");
            // It still is to be, before anything else is sent.
            self.write_asked = true;
            Close::Refused { reason: ReasonCode::UNSPECIFIED_ERROR, what: "the session cannot be written" }
        })
    }

    /// Writes the session down.
    async fn save(&mut self) -> Result<(), StoreError> {
        let rest = self.pending.iter().find_map(|pending| pending.mark);
        sessions::save(&self.shared, &mut self.session, rest, None).await?;
        self.holds &= rest.is_some();
        Ok(())
    }

    /// The session has something to write down, soon.
    fn hold(&mut self) {
        if !self.holds {
            self.shared.accounts.hold(&self.session.client, &self.mail);
            self.holds = true;
        }
    }

    /// Writes what the socket takes.
    fn flush(&mut self) -> Result<(), Close> {
        if !self.output.is_empty() || self.stream.has_unsent() {
            let full = !self.has_room();
            let written = self.output.write(&mut self.stream).map_err(Close::Lost)?;
            self.tally.bytes_out += written as u64;
            if full && written > 0 {
                // We did not listen while it was full, and the client is there: it reads.
                self.last_heard = Instant::now();
            }
        }
        Ok(())
    }
}
