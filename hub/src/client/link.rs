//! [`Link`]: what a client and the task that drives its connection share.

use std::sync::Arc;

use bytes::BytesMut;
use foldhash::HashMap;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::ClientError;
use crate::mqtt::codec::{Packet, PacketId, Qos, ReasonCode, Version};

/// Who waits for an answer.
pub(super) enum Waiting {
    /// A message; its place in the server's Receive Maximum goes with it.
    Publish {
        qos: Qos,
        reply: oneshot::Sender<Result<ReasonCode, ClientError>>,
        _permit: OwnedSemaphorePermit,
    },
    /// A SUBSCRIBE.
    Subscribe { reply: oneshot::Sender<Result<ReasonCode, ClientError>> },
}

/// How a connection is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// With a DISCONNECT, after everything before it.
    Goodbye,
    /// At once and without a word.
    Cut,
}

struct State {
    out: BytesMut,
    last_id: u16,
    waiting: HashMap<PacketId, Waiting>,
    ending: Option<Ending>,
    /// Why it has ended.
    error: Option<ClientError>,
}

/// See the module's text.
pub(super) struct Link {
    state: Mutex<State>,
    /// Rung when the task has something to write or to end.
    pub(super) work: Notify,
    /// Rung when the buffer has room again.
    room: Notify,
    window: Arc<Semaphore>,
    ended: watch::Sender<bool>,
    packet_bytes_max: usize,
    out_buffer_bytes_max: usize,
}

impl Link {
    pub(super) fn new(window: usize, packet_bytes_max: usize, out_buffer_bytes_max: usize) -> Arc<Link> {
        Arc::new(Link {
            state: Mutex::new(State {
                out: BytesMut::new(),
                last_id: 0,
                waiting: HashMap::default(),
                ending: None,
                error: None,
            }),
            work: Notify::new(),
            room: Notify::new(),
            window: Arc::new(Semaphore::new(window)),
            ended: watch::Sender::new(false),
            packet_bytes_max,
            out_buffer_bytes_max,
        })
    }

    /// Refuses what the server would refuse.
    pub(super) fn check_size(&self, bytes: usize) -> Result<(), ClientError> {
        let max = self.packet_bytes_max;
        if bytes > max { Err(ClientError::TooLarge { bytes, max }) } else { Ok(()) }
    }

    /// Waits for a place in the server's Receive Maximum.
    pub(super) async fn window_room(&self) -> Result<OwnedSemaphorePermit, ClientError> {
        Arc::clone(&self.window).acquire_owned().await.map_err(|_| self.error())
    }

    /// Waits for room in the buffer. A packet larger than the buffer goes when that is empty.
    pub(super) async fn room_for(&self, bytes: usize) -> Result<(), ClientError> {
        loop {
            let notified = self.room.notified();
            tokio::pin!(notified);
            // Registered before looking, so that no ring is missed.
            notified.as_mut().enable();
            {
                let state = self.state.lock();
                if let Some(error) = &state.error {
                    return Err(error.clone());
                }
                if state.out.is_empty() || state.out.len() + bytes <= self.out_buffer_bytes_max {
                    return Ok(());
                }
            }
            notified.await;
        }
    }

    /// Queues a packet.
    pub(super) fn send(&self, packet: &Packet) -> Result<(), ClientError> {
        let mut state = self.state.lock();
        if let Some(error) = &state.error {
            return Err(error.clone());
        }
        let was_empty = state.out.is_empty();
        packet.encode(Version::V5, &mut state.out)?;
        drop(state);
        if was_empty {
            self.work.notify_one();
        }
        Ok(())
    }

    /// Queues a packet with an identifier of its own, for which somebody waits.
    pub(super) fn send_waiting(
        &self,
        waiting: Waiting,
        packet: impl FnOnce(PacketId) -> Packet,
    ) -> Result<(), ClientError> {
        let mut state = self.state.lock();
        if let Some(error) = &state.error {
            return Err(error.clone());
        }
        let id = loop {
            state.last_id = state.last_id.wrapping_add(1);
            // The Receive Maximum leaves identifiers over.
            match PacketId::new(state.last_id) {
                Some(id) if !state.waiting.contains_key(&id) => break id,
                _ => {}
            }
        };
        let was_empty = state.out.is_empty();
        packet(id).encode(Version::V5, &mut state.out)?;
        state.waiting.insert(id, waiting);
        drop(state);
        if was_empty {
            self.work.notify_one();
        }
        Ok(())
    }

    /// The server answered: whoever waits under this identifier is told, if the answer is one to what was sent.
    pub(super) fn answer(&self, id: PacketId, reason: ReasonCode, is_answer: impl FnOnce(&Waiting) -> bool) {
        let mut state = self.state.lock();
        if !state.waiting.get(&id).is_some_and(is_answer) {
            return;
        }
        if let Some(Waiting::Publish { reply, .. } | Waiting::Subscribe { reply }) = state.waiting.remove(&id)
        {
            // Whoever asked may no longer care.
            let _ = reply.send(Ok(reason));
        }
    }

    /// Moves what is to be written to the end of the task's own buffer.
    pub(super) fn take_output(&self, out: &mut BytesMut) {
        let mut state = self.state.lock();
        if state.out.is_empty() {
            return;
        }
        if out.is_empty() {
            std::mem::swap(out, &mut state.out);
        } else {
            out.unsplit(state.out.split());
        }
        drop(state);
        self.room.notify_waiters();
    }

    /// Asks the task to end the connection.
    pub(super) fn end(&self, ending: Ending) {
        // The first one to say so decides: a client is dropped after its goodbye, too.
        self.state.lock().ending.get_or_insert(ending);
        self.work.notify_one();
    }

    /// How the connection is to end, if it is.
    pub(super) fn ending(&self) -> Option<Ending> {
        self.state.lock().ending
    }

    /// The connection has ended: everybody who waits is told why.
    pub(super) fn fail(&self, error: &ClientError) {
        let waiting = {
            let mut state = self.state.lock();
            state.error.get_or_insert_with(|| error.clone());
            state.out = BytesMut::new();
            std::mem::take(&mut state.waiting)
        };
        for (_, Waiting::Publish { reply, .. } | Waiting::Subscribe { reply }) in waiting {
            let _ = reply.send(Err(error.clone()));
        }
        self.window.close();
        self.room.notify_waiters();
        self.ended.send_replace(true);
    }

    /// Waits until the connection has ended.
    pub(super) async fn ended(&self) {
        let mut ended = self.ended.subscribe();
        // The sender lives as long as we do.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Why it has ended.
    pub(super) fn error(&self) -> ClientError {
        self.state.lock().error.clone().unwrap_or(ClientError::Closed(None))
    }
}
