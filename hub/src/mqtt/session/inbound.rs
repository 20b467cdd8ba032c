//! [`Inbound`]: messages from a client, until both sides are done with them.

use foldhash::HashMap;

use super::super::codec::{PacketId, Qos};

/// What a PUBLISH is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A message to store.
    New,
    /// A QoS 2 message that is stored, or being stored, already: to be acknowledged again and not stored again.
    Repeated,
}

/// The client has more messages in flight than the Receive Maximum it was told (DISCONNECT 0x93).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {0} messages in flight, which is the Receive Maximum")]
pub struct ReceiveMaximumExceeded(pub u16);

/// The receiving side of QoS 1 and 2. The identifiers of QoS 2 belong to the session and survive the
/// connection; the count of what waits for an acknowledgement belongs to the connection.
#[derive(Clone, Debug, Default)]
pub struct Inbound {
    /// QoS 2 messages that were not released yet.
    exactly_once: Option<Box<HashMap<PacketId, ExactlyOnce>>>,
    /// Messages of this connection that count against the Receive Maximum.
    in_flight: u32,
    /// Sequence of the first record that `exactly_once` does not account for: of what is stored from there on it knows
    /// nothing.
    accounts_to: u64,
    /// A message was released since this was last asked.
    changed: bool,
}

/// A QoS 2 message that was not released yet.
#[derive(Clone, Copy, Debug)]
struct ExactlyOnce {
    /// Whether it is stored: its PUBREC was written, or would have been.
    stored: bool,
    /// Whether it came on this connection. What is left of an earlier one does not count against the
    /// Receive Maximum, which starts anew (4.9).
    counted: bool,
}

impl Inbound {
    /// A PUBLISH with QoS 1 or 2 came in. `maximum` is the Receive Maximum that the client was told; `None`
    /// in 3.1.1, which has none.
    pub fn arrive(
        &mut self,
        qos: Qos,
        id: PacketId,
        maximum: Option<u16>,
    ) -> Result<Arrival, ReceiveMaximumExceeded> {
        if qos == Qos::ExactlyOnce && self.exactly_once.as_ref().is_some_and(|ids| ids.contains_key(&id)) {
            return Ok(Arrival::Repeated);
        }
        if let Some(maximum) = maximum
            && self.in_flight >= u32::from(maximum)
        {
            return Err(ReceiveMaximumExceeded(maximum));
        }
        if qos == Qos::ExactlyOnce {
            let arrived = ExactlyOnce { stored: false, counted: true };
            self.exactly_once.get_or_insert_default().insert(id, arrived);
        }
        self.in_flight += 1;
        Ok(Arrival::New)
    }

    /// Messages that count against the Receive Maximum: until PUBACK, PUBCOMP or a PUBREC with an error.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight as usize
    }

    /// A PUBACK was written, whatever it said.
    pub fn acknowledged(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Whether a QoS 2 identifier is in use.
    #[must_use]
    pub fn knows(&self, id: PacketId) -> bool {
        self.exactly_once.as_ref().is_some_and(|ids| ids.contains_key(&id))
    }

    /// A PUBREC was written. With an error the message is forgotten and its identifier free (4.3.3).
    pub fn received(&mut self, id: PacketId, stored: bool) {
        if stored {
            if let Some(arrived) = self.exactly_once.as_mut().and_then(|ids| ids.get_mut(&id)) {
                arrived.stored = true;
            }
        } else {
            self.release(id);
        }
    }

    /// PUBREL came in: the identifier is free. `false` if it stood for nothing.
    pub fn release(&mut self, id: PacketId) -> bool {
        let Some(ids) = self.exactly_once.as_mut() else { return false };
        let released = ids.remove(&id);
        if ids.is_empty() {
            self.exactly_once = None;
        }
        if released.is_some_and(|released| released.counted) {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        self.changed |= released.is_some_and(|released| released.stored);
        released.is_some()
    }

    /// The receipt has come of messages stored before a sequence, and of all that were sent before them.
    pub fn account_to(&mut self, sequence: u64) {
        self.accounts_to = self.accounts_to.max(sequence);
    }

    /// Sequence of the first record that the identifiers here do not account for.
    #[must_use]
    pub fn accounts_to(&self) -> u64 {
        self.accounts_to
    }

    /// Whether a message was released since this was last asked. Only then may its PUBCOMP be sent when that is
    /// written down: otherwise the next message under its identifier could be taken for this one.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The connection has ended: what was not stored will be sent again, and is forgotten.
    pub fn disconnect(&mut self) {
        self.in_flight = 0;
        if let Some(ids) = self.exactly_once.as_mut() {
            ids.retain(|_, arrived| {
                arrived.counted = false;
                arrived.stored
            });
            if ids.is_empty() {
                self.exactly_once = None;
            }
        }
    }

    /// QoS 2 messages that are stored and were not released yet.
    pub fn unreleased(&self) -> impl Iterator<Item = PacketId> {
        let all = self.exactly_once.iter().flat_map(|ids| ids.iter());
        all.filter(|(_, arrived)| arrived.stored).map(|(id, _)| *id)
    }

    /// Puts a QoS 2 message of a session document back.
    pub fn restore(&mut self, id: PacketId) {
        let arrived = ExactlyOnce { stored: true, counted: false };
        self.exactly_once.get_or_insert_default().insert(id, arrived);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(value: u16) -> PacketId {
        PacketId::new(value).unwrap()
    }

    #[test]
    fn a_repeated_qos_2_message_is_not_stored_again() {
        let mut inbound = Inbound::default();
        assert_eq!(inbound.arrive(Qos::ExactlyOnce, id(1), None), Ok(Arrival::New));
        assert_eq!(inbound.arrive(Qos::ExactlyOnce, id(1), None), Ok(Arrival::Repeated));
        inbound.received(id(1), true);
        inbound.disconnect();
        assert_eq!(inbound.arrive(Qos::ExactlyOnce, id(1), None), Ok(Arrival::Repeated));
        assert!(!inbound.take_changed(), "the log knows that it was stored");
        assert!(inbound.release(id(1)) && !inbound.release(id(1)));
        assert!(inbound.take_changed() && !inbound.take_changed());
        assert_eq!(inbound.arrive(Qos::ExactlyOnce, id(1), None), Ok(Arrival::New));
        assert_eq!(inbound.arrive(Qos::AtLeastOnce, id(1), None), Ok(Arrival::New), "QoS 1 has no memory");
    }

    #[test]
    fn what_was_not_acknowledged_is_forgotten_with_the_connection() {
        let mut inbound = Inbound::default();
        inbound.arrive(Qos::ExactlyOnce, id(1), None).unwrap();
        inbound.arrive(Qos::ExactlyOnce, id(2), None).unwrap();
        inbound.received(id(2), true);
        inbound.arrive(Qos::AtLeastOnce, id(3), None).unwrap();
        assert_eq!(inbound.in_flight(), 3);
        inbound.disconnect();
        assert_eq!(inbound.unreleased().collect::<Vec<_>>(), [id(2)]);
        assert_eq!(inbound.in_flight(), 0, "Receive Maximum starts anew");
        assert!(inbound.knows(id(2)) && inbound.release(id(2)) && !inbound.knows(id(2)));
        assert_eq!(inbound.in_flight(), 0);
    }

    #[test]
    fn receive_maximum_counts_until_the_last_acknowledgement() {
        let mut inbound = Inbound::default();
        inbound.arrive(Qos::AtLeastOnce, id(1), Some(2)).unwrap();
        inbound.arrive(Qos::ExactlyOnce, id(2), Some(2)).unwrap();
        assert_eq!(inbound.arrive(Qos::AtLeastOnce, id(3), Some(2)), Err(ReceiveMaximumExceeded(2)));
        assert_eq!(inbound.arrive(Qos::ExactlyOnce, id(2), Some(2)), Ok(Arrival::Repeated));
        inbound.received(id(2), true);
        assert_eq!(inbound.in_flight(), 2, "PUBREC does not end it");
        inbound.acknowledged();
        inbound.arrive(Qos::ExactlyOnce, id(3), Some(2)).unwrap();
        inbound.received(id(3), false);
        assert_eq!(inbound.in_flight(), 1, "PUBREC with an error does");
        assert!(inbound.release(id(2)));
        assert_eq!(inbound.in_flight(), 0);
    }
}
