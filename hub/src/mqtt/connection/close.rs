//! Why a connection ends, and what follows: acknowledgements still owed, the will, the session.

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::io::Interest;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::super::codec::{Disconnect, DisconnectProperties, Packet, ReasonCode, Version};
use super::super::guard::alone;
use super::super::registry::Kick;
use super::super::session::Session;
use super::super::shared::now_ms;
use super::super::transport::Transport;
use super::super::{sessions, share, unwritten, wills};
use super::{Connection, Output, READ_BYTES, READ_BYTES_PER_TURN};

/// How long the last packets may take to be written.
const LAST_WRITE_MAX: Duration = Duration::from_millis(500);
/// How long a client that was told why may take to end the connection.
const LINGER_MAX: Duration = Duration::from_millis(500);
/// How long receipts of what the client sent last may take.
const LAST_RECEIPTS_MAX: Duration = Duration::from_secs(5);

/// Why a connection ends.
pub(super) enum Close {
    /// The client said goodbye; whether it wants its will published all the same.
    Goodbye {
        /// Whether the will is to be published.
        with_will: bool,
    },
    /// The client is gone without a goodbye.
    Gone,
    /// The network is.
    Lost(io::Error),
    /// It did what it must not, or something cannot be done.
    Refused {
        /// The reason code.
        reason: ReasonCode,
        /// The reason for people.
        what: &'static str,
    },
    /// It is silent, or does not read, for longer than it may.
    GivenUp {
        /// The reason code.
        reason: ReasonCode,
        /// The reason for people.
        what: &'static str,
    },
    /// Another connection wants the session.
    TakenOver(oneshot::Sender<Session>),
    /// Somebody who runs the hub wants it.
    Kicked(Kick),
    /// The broker stops.
    ShuttingDown,
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Close::Goodbye { with_will: false } => f.write_str("disconnected"),
            Close::Goodbye { with_will: true } => f.write_str("disconnected with its will"),
            Close::Gone => f.write_str("closed by the client without DISCONNECT"),
            Close::Lost(error) => write!(f, "{error}"),
            Close::Refused { reason, what } | Close::GivenUp { reason, what } => {
                write!(f, "{reason}: {what}")
            }
            Close::TakenOver(_) => f.write_str("session taken over"),
            Close::Kicked(_) => f.write_str("sent away"),
            Close::ShuttingDown => f.write_str("server shutting down"),
        }
    }
}

impl Close {
    /// What a DISCONNECT says.
    fn reason(&self) -> Option<(ReasonCode, &'static str)> {
        match self {
            Close::Goodbye { .. } | Close::Gone | Close::Lost(_) => None,
            Close::Refused { reason, what } | Close::GivenUp { reason, what } => Some((*reason, what)),
            Close::TakenOver(_) => {
                Some((ReasonCode::SESSION_TAKEN_OVER, "another connection uses this client identifier"))
            }
            Close::Kicked(_) => Some((
                ReasonCode::ADMINISTRATIVE_ACTION,
                "the server's administrator has closed the connection",
            )),
            Close::ShuttingDown => Some((ReasonCode::SERVER_SHUTTING_DOWN, "the server is shutting down")),
        }
    }
}

impl Connection {
    /// Ends the connection in order: what the client sent is acknowledged, it is told why, and its
    /// session is handed over, written down or ended. Each part of that is done even if one before it fails with a panic: others wait for
    /// what this connection has.
    pub(super) async fn finish(mut self: Box<Self>, close: Close) {
        if matches!(close, Close::Refused { .. } | Close::GivenUp { .. })
            && let Some((reason, _)) = close.reason()
        {
            self.shared.counters.refuse(reason);
        }
        let client = self.session.client.clone();
        // Whatever else ends it: who is not allowed any more takes its will with it, and is not listened to.
        let is_cut = self.judge_again().await;
        let goodbye = match close {
            Close::Goodbye { with_will } => !with_will,
            Close::Gone | Close::Refused { .. } => false,
            Close::GivenUp { .. }
            | Close::Lost(_)
            | Close::TakenOver(_)
            | Close::Kicked(_)
            | Close::ShuttingDown => {
                !is_cut && alone(&client, "what it sent last", async { self.read_rest() }).await == Some(true)
            }
        };
        if goodbye {
            self.session.will = None;
        }
        alone(&client, "its receipts", self.wait_for_receipts()).await;
        alone(&client, "its last packets", async {
            if self.write_down().await.is_ok() {
                self.say_goodbye(&close).await;
            }
        })
        .await;
        alone(&client, "its cursors", async { self.commit_cursors() }).await;
        self.leave_queues().await;
        self.session.inbound.disconnect();
        self.shared.counters.add(&mut self.tally);
        let told = close.reason().is_some() && self.output.is_empty();
        let patience =
            if matches!(close, Close::Gone | Close::Lost(_)) { Duration::ZERO } else { LAST_WRITE_MAX };
        match close {
            Close::TakenOver(reply) => {
                if !self.hand_over(reply) {
                    self.put_down().await;
                }
            }
            Close::Kicked(Kick { end_session, done }) => {
                if end_session {
                    self.session.expiry_s = 0;
                }
                self.put_down().await;
                for done in done {
                    // Whoever wanted it may have gone.
                    let _ = done.send(());
                }
            }
            _ => self.put_down().await,
        }
        // Last, so that nobody who wants the session waits for a client that is gone, and whoever finds the connection closed finds
        // its session put down.
        end_layers(&mut self.stream, &mut self.output, Instant::now() + patience).await;
        if told {
            linger(&mut self.stream).await;
        }
    }

    /// Acknowledges what is stored in time.
    async fn wait_for_receipts(&mut self) {
        // A batch that was not taken is not acknowledged; those before it are.
        let _ = self.submit().await;
        let receipts_until = Instant::now() + LAST_RECEIPTS_MAX;
        while !self.pending.is_empty() {
            match timeout_at(receipts_until, super::next_receipt(&mut self.pending)).await {
                Ok(stored) => {
                    let _ = self.acknowledge(stored);
                }
                // Of what is sent again it must be known whether it is stored.
                Err(_) if self.pending.iter().any(|pending| pending.mark.is_some()) => {
                    let stored = super::next_receipt(&mut self.pending).await;
                    let _ = self.acknowledge(stored);
                }
                Err(_) => break,
            }
        }
    }

    /// Takes what the client has sent already, though there is no room for answers; whether it said goodbye in it, and wants no
    /// will: it does not have to read everything before it may go ([MQTT-3.14.4-3]). Changes of its subscriptions are not
    /// acknowledged and not made: whoever wants the session would wait for each.
    fn read_rest(&mut self) -> bool {
        let mut left = READ_BYTES_PER_TURN;
        loop {
            match self.handle_until_change() {
                Err(Close::Goodbye { with_will }) => return !with_will,
                Err(_) => return false,
                Ok(Some(_)) => continue,
                Ok(None) if self.held_back || left == 0 => return false,
                Ok(None) => {}
            }
            self.input.reserve(READ_BYTES);
            match self.stream.try_read_buf(&mut self.input) {
                Ok(count) if count > 0 => {
                    self.tally.bytes_in += count as u64;
                    left = left.saturating_sub(count);
                }
                _ => return false,
            }
        }
    }

    /// Writes what is left, and in MQTT 5 why it ends.
    async fn say_goodbye(&mut self, close: &Close) {
        if matches!(close, Close::Gone | Close::Lost(_)) {
            // One that has only ended its own direction may still read.
            self.tally.bytes_out += self.output.write(&mut self.stream).unwrap_or(0) as u64;
            return;
        }
        if let Some((reason, what)) = close.reason()
            && self.version == Version::V5
        {
            let properties = DisconnectProperties { reason_string: Some(what.into()), ..Default::default() };
            let with_text = Packet::Disconnect(Disconnect { reason, properties });
            let room = self.limits.packet_bytes_max;
            // A reason string only where the client takes packets that long ([MQTT-3.14.2-3]).
            if what.len() + 16 <= room {
                self.send(&with_text);
            } else {
                self.send(&Packet::Disconnect(Disconnect { reason, properties: Default::default() }));
            }
        }
        self.tally.bytes_out += write_out(&mut self.stream, &mut self.output).await;
    }

    /// Takes the watches and memberships away.
    async fn leave_queues(&mut self) {
        let client = self.session.client.clone();
        let given_back = alone(&client, "what it gives back", async { share::give_back(&mut self.session) });
        let given_back = given_back.await.unwrap_or_default();
        for (key, subscription) in self.session.subscriptions.iter() {
            if let Some(group) = self.delivery.group(key) {
                let unfinished = given_back.iter().filter(|(of, _)| *of == key);
                let leave = async { group.leave(&self.mail, unfinished.map(|(_, offset)| *offset)) };
                alone(&client, "its place in a group", leave).await;
            }
            let token = Some(key.0 as u64);
            let unwatch = async { self.shared.store.unwatch(subscription.queue, &self.mail.bell, token) };
            alone(&client, "the watch of a queue", unwatch).await;
        }
    }

    /// Looks at what the client may do, if that has changed since it was looked at; whether it may not go on.
    async fn judge_again(&mut self) -> bool {
        let client = self.session.client.clone();
        let look = async { self.mail.review_nudged() && self.judge().is_some() };
        alone(&client, "a look at what it may do", look).await != Some(false)
    }

    /// Gives the session to the connection that wants it; whether that was still there to take it. If it was not, the session
    /// stays here.
    fn hand_over(&mut self, reply: oneshot::Sender<Session>) -> bool {
        self.session.offline_since_ms = Some(now_ms());
        let empty = Session::new(self.session.client.clone(), 0);
        let session = std::mem::replace(&mut self.session, empty);
        match self.mail.hand_over(reply, session) {
            None => true,
            Some(session) => {
                self.session = session;
                false
            }
        }
    }

    /// Writes the session down, or ends it.
    async fn put_down(&mut self) {
        let shared = std::sync::Arc::clone(&self.shared);
        let client = self.session.client.clone();
        // Whoever takes the session over holds the gate and waits for us.
        let gate = shared.registry.gate(&client);
        tokio::pin!(gate);
        let _gate = loop {
            // Before each wait, the first too: what the bell was rung for may have been taken from it, and the letter left
            // unread, when something else ended the connection.
            self.mail.look();
            if let Some(reply) = self.mail.taken_over()
                && self.hand_over(reply)
            {
                return;
            }
            tokio::select! {
                gate = &mut gate => break gate,
                _ = self.mail.bell.ready() => {}
            }
        };
        self.mail.close();
        self.session.offline_since_ms = Some(now_ms());
        let ends = !self.session.is_persistent();
        // Since it began to end, it may have waited.
        self.judge_again().await;
        if self.session.will_due_ms().is_some_and(|due| due <= now_ms())
            && let Some(will) = self.session.will.take()
        {
            alone(&client, "its will", wills::publish(&shared, &client, will)).await;
        }
        if ends {
            alone(&client, "the end of its session", sessions::end(&shared, &self.session, None)).await;
            shared.registry.offline(&client);
            return;
        }
        let saved = alone(&client, "its session", self.save()).await;
        let listed_ms = self.session.due_ms().filter(|_| matches!(saved, Some(Ok(()))));
        match saved {
            Some(Ok(())) => {}
            Some(Err(error)) => unwritten::put_off(&shared, &self.session, &error),
            None => unwritten::put_off(&shared, &self.session, &"a panic"),
        }
        sessions::let_go(&shared, &self.session, listed_ms);
    }
}

impl Drop for Connection {
    /// However the task ends, nobody waits for an answer from it.
    fn drop(&mut self) {
        self.mail.close();
    }
}

/// Writes what is left to be written, for a short while; how many bytes that was.
pub(super) async fn write_out(stream: &mut Transport, output: &mut Output) -> u64 {
    write_until(stream, output, Instant::now() + LAST_WRITE_MAX).await
}

/// The same, and that it was the last.
pub(super) async fn write_last(stream: &mut Transport, output: &mut Output) {
    let until = Instant::now() + LAST_WRITE_MAX;
    write_until(stream, output, until).await;
    end_layers(stream, output, until).await;
}

/// Says goodbye in each layer's own way, if nothing is left to be written before it.
async fn end_layers(stream: &mut Transport, output: &mut Output, until: Instant) {
    if output.is_empty() {
        stream.close();
        write_until(stream, output, until).await;
    }
}

/// Ends the connection, and waits until the client ends it as well, for a short while: closed before, with something
/// unread, it would take from the client what it was sent last (RFC 1122, 4.2.2.13).
pub(super) async fn linger(stream: &mut Transport) {
    stream.end_writing();
    // Whoever does not end it in time is closed all the same.
    let _ = timeout(LINGER_MAX, stream.discard()).await;
}

async fn write_until(stream: &mut Transport, output: &mut Output, until: Instant) -> u64 {
    let mut written = 0;
    while let Ok(count) = output.write(stream) {
        written += count as u64;
        if output.is_empty() && !stream.has_unsent()
            || !matches!(timeout_at(until, stream.ready(Interest::WRITABLE)).await, Ok(Ok(_)))
        {
            break;
        }
    }
    written
}
