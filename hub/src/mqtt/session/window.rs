//! [`Window`]: messages that were sent with QoS 1 or 2 and are not acknowledged yet.

use std::collections::VecDeque;

use smallvec::SmallVec;
use tidemill_store::Pointer;

use super::super::codec::{PacketId, Qos};
use super::SubscriptionKey;

/// A place in a subscription's queue from which a message came: when it is acknowledged, the cursor may move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The subscription.
    pub subscription: SubscriptionKey,
    /// The offset in its queue.
    pub offset: u64,
}

/// Where a message came from: mostly one subscription, several where they overlap. None at all is a retained message, or
/// one whose subscriptions are gone: nothing moves.
pub type Sources = SmallVec<[Source; 1]>;

// As many as the window lets through are in memory for each client.
const _: () = assert!(size_of::<Option<InFlight>>() <= 64);

/// What the client has to send next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// PUBACK (QoS 1).
    Puback,
    /// PUBREC (QoS 2, the message was sent).
    Pubrec,
    /// PUBCOMP (QoS 2, PUBREL was sent).
    Pubcomp,
}

/// A message that was sent. The message itself is in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// Where it came from.
    pub sources: Sources,
    /// Where it is.
    pub pointer: Pointer,
    /// What the client has to send next.
    pub step: Step,
    /// Whether it was sent with the retain flag.
    pub retain: bool,
    /// Whether it is still to be sent again on this connection.
    waits: bool,
    /// Its place in the order of sending.
    sequence: u64,
}

/// Packet identifiers and what they stand for.
///
/// Identifiers are used in turn, so that one is not soon used again.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// By identifier less one. As long as the highest identifier used so far.
    slots: Vec<Option<InFlight>>,
    /// Identifiers of `slots` that are free, and perhaps some that were restored since: whoever takes one looks.
    free: VecDeque<u16>,
    in_flight: u32,
    /// Those of them that are still to be sent again.
    waiting: u16,
    sequence: u64,
    /// A QoS 2 message has come a step further since this was last asked.
    changed: bool,
}

impl Window {
    /// How many messages are in flight.
    #[must_use]
    pub fn len(&self) -> usize {
        self.in_flight as usize
    }

    /// How many of them the client has not been sent on this connection yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        usize::from(self.waiting)
    }

    /// A new connection: all that is in flight waits to be sent again, in this order ([MQTT-4.6.0-1]).
    pub fn wait(&mut self) -> Vec<PacketId> {
        self.slots.iter_mut().flatten().for_each(|sent| sent.waits = true);
        self.waiting = self.in_flight as u16;
        self.in_order().into_iter().map(|(id, _)| id).collect()
    }

    /// Sends a message again; `None` if its delivery has ended since.
    pub fn send_again(&mut self, id: PacketId) -> Option<InFlight> {
        let sent = self.slot(id)?.as_mut()?;
        let waited = std::mem::take(&mut sent.waits);
        let sent = sent.clone();
        self.waiting -= u16::from(waited);
        Some(sent)
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.in_flight == 0
    }

    /// Sends one more message with `qos` (1 or 2). `None` when every identifier is in use; how many may be
    /// in flight is for the caller to say.
    pub fn send(&mut self, sources: Sources, pointer: Pointer, qos: Qos, retain: bool) -> Option<PacketId> {
        let slots = &self.slots;
        let is_free = |id: &u16| matches!(slots.get(usize::from(*id) - 1), Some(None));
        let free = std::iter::from_fn(|| self.free.pop_front()).find(is_free);
        let id = match free {
            Some(id) => id,
            None => {
                let id = u16::try_from(self.slots.len() + 1).ok()?;
                self.slots.push(None);
                id
            }
        };
        let step = if qos == Qos::ExactlyOnce { Step::Pubrec } else { Step::Puback };
        let slot = self.slots.get_mut(usize::from(id) - 1)?;
        *slot = Some(InFlight { sources, pointer, step, retain, waits: false, sequence: self.sequence });
        self.sequence += 1;
        self.in_flight += 1;
        self.changed |= qos == Qos::ExactlyOnce;
        PacketId::new(id)
    }

    fn slot(&mut self, id: PacketId) -> Option<&mut Option<InFlight>> {
        self.slots.get_mut(usize::from(id.get()) - 1)
    }

    /// What an identifier stands for.
    #[must_use]
    pub fn get(&self, id: PacketId) -> Option<&InFlight> {
        self.slots.get(usize::from(id.get()) - 1)?.as_ref()
    }

    fn end(&mut self, id: PacketId) -> Option<InFlight> {
        let ended = self.slot(id)?.take()?;
        self.free.push_back(id.get());
        self.in_flight -= 1;
        self.waiting -= u16::from(ended.waits);
        Some(ended)
    }

    /// PUBACK: the delivery has ended. `None` if it answers nothing that was sent with QoS 1.
    pub fn puback(&mut self, id: PacketId) -> Option<InFlight> {
        self.get(id).filter(|sent| sent.step == Step::Puback)?;
        self.end(id)
    }

    /// PUBREC without an error: PUBREL is to be sent, also if it comes again. `false` if the identifier
    /// stands for nothing that was sent with QoS 2.
    pub fn pubrec(&mut self, id: PacketId) -> bool {
        match self.slot(id) {
            Some(Some(sent)) if sent.step == Step::Pubrec => {
                sent.step = Step::Pubcomp;
                self.changed = true;
                true
            }
            Some(Some(sent)) => sent.step == Step::Pubcomp,
            _ => false,
        }
    }

    /// Whether a QoS 2 message has come a step further since this was last asked. PUBLISH and PUBREL may be sent when that
    /// is written down: a message that comes again must come under the same identifier, and never after its PUBREL. That
    /// PUBCOMP came need not be: PUBREL may come again.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// PUBREC with an error: the delivery has ended (4.3.3).
    pub fn pubrec_refused(&mut self, id: PacketId) -> Option<InFlight> {
        self.get(id).filter(|sent| sent.step == Step::Pubrec)?;
        self.end(id)
    }

    /// PUBCOMP: the delivery has ended.
    pub fn pubcomp(&mut self, id: PacketId) -> Option<InFlight> {
        self.get(id).filter(|sent| sent.step == Step::Pubcomp)?;
        self.end(id)
    }

    /// Gives a delivery up that cannot be completed: its record is gone, or somebody else gets it.
    pub fn abandon(&mut self, id: PacketId) -> Option<InFlight> {
        self.end(id)
    }

    /// Everything in flight, in the order in which it was sent ([MQTT-4.6.0-1]).
    #[must_use]
    pub fn in_order(&self) -> Vec<(PacketId, InFlight)> {
        let mut all: Vec<(PacketId, InFlight)> = (1..=u16::MAX)
            .zip(&self.slots)
            .filter_map(|(id, slot)| Some((PacketId::new(id)?, slot.clone()?)))
            .collect();
        all.sort_unstable_by_key(|(_, sent)| sent.sequence);
        all
    }

    /// A subscription is gone; what is in flight from it is for the others it came from, or stands alone.
    pub fn orphan(&mut self, gone: SubscriptionKey) {
        for sent in self.slots.iter_mut().flatten() {
            sent.sources.retain(|source| source.subscription != gone);
        }
    }

    /// Puts a message of a session document back in flight, after those before it. `false` if the identifier is
    /// taken already.
    pub fn restore(
        &mut self,
        id: PacketId,
        sources: Sources,
        pointer: Pointer,
        step: Step,
        retain: bool,
    ) -> bool {
        let index = usize::from(id.get()) - 1;
        while self.slots.len() <= index {
            self.slots.push(None);
            self.free.push_back(self.slots.len() as u16);
        }
        let sequence = self.sequence;
        match self.slots.get_mut(index) {
            Some(slot @ None) => {
                *slot = Some(InFlight { sources, pointer, step, retain, waits: false, sequence })
            }
            _ => return false,
        }
        self.sequence += 1;
        self.in_flight += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidemill_store::Position;

    use super::*;

    fn pointer(at: u64) -> Pointer {
        Pointer { position: Position::from_u64(at), size: 1 }
    }

    fn id(value: u16) -> PacketId {
        PacketId::new(value).unwrap()
    }

    #[test]
    fn each_step_only_in_its_turn() {
        let mut window = Window::default();
        let one = window.send(Sources::new(), pointer(1), Qos::AtLeastOnce, false).unwrap();
        let two = window.send(Sources::new(), pointer(2), Qos::ExactlyOnce, true).unwrap();
        assert_eq!((one.get(), two.get(), window.len()), (1, 2, 2));
        assert!(!window.pubrec(one) && window.pubcomp(one).is_none() && window.puback(two).is_none());
        assert!(window.pubcomp(two).is_none(), "PUBCOMP before PUBREC");
        assert!(window.take_changed() && !window.take_changed(), "PUBLISH");
        assert!(window.pubrec(two) && window.take_changed(), "PUBREL");
        assert!(window.pubrec(two) && !window.take_changed(), "PUBREC may come again");
        assert!(window.pubrec_refused(two).is_none(), "an error after PUBREL is too late");
        assert_eq!(window.pubcomp(two).map(|sent| sent.retain), Some(true));
        assert!(!window.take_changed(), "PUBCOMP, and QoS 1");
        assert!(window.puback(one).is_some() && window.puback(one).is_none());
        assert!(window.puback(id(77)).is_none() && !window.pubrec(id(77)));
        assert!(window.is_empty());
    }

    #[test]
    fn identifiers_are_used_in_turn_and_run_out() {
        let mut window = Window::default();
        for _ in 0..u16::MAX {
            window.send(Sources::new(), pointer(1), Qos::AtLeastOnce, false).unwrap();
        }
        assert_eq!(window.send(Sources::new(), pointer(1), Qos::AtLeastOnce, false), None);
        window.puback(id(9)).unwrap();
        window.puback(id(5)).unwrap();
        assert_eq!(window.send(Sources::new(), pointer(1), Qos::AtLeastOnce, false), Some(id(9)));
    }

    #[test]
    fn a_restored_window_keeps_identifiers_and_order() {
        let mut window = Window::default();
        assert!(window.restore(id(7), Sources::new(), pointer(1), Step::Pubcomp, false));
        assert!(window.restore(id(3), Sources::new(), pointer(2), Step::Puback, false));
        assert!(!window.restore(id(3), Sources::new(), pointer(3), Step::Puback, false));
        let order: Vec<u16> = window.in_order().iter().map(|(id, _)| id.get()).collect();
        assert_eq!(order, [7, 3]);
        let next: Vec<u16> = (0..6)
            .map(|at| window.send(Sources::new(), pointer(at), Qos::AtLeastOnce, false).unwrap().get())
            .collect();
        assert_eq!(next, [1, 2, 4, 5, 6, 8]);
    }

    #[test]
    fn what_waits_to_be_sent_again_takes_no_room() {
        let mut window = Window::default();
        let send =
            |window: &mut Window| window.send(Sources::new(), pointer(1), Qos::AtLeastOnce, false).unwrap();
        let ids = [(); 3].map(|()| send(&mut window));
        assert_eq!(window.waiting(), 0);
        assert_eq!(window.wait(), ids);
        assert_eq!((window.len(), window.waiting()), (3, 3));
        // The client answers what the connection before this one sent.
        assert!(window.puback(ids[1]).is_some());
        assert_eq!((window.len(), window.waiting()), (2, 2));
        assert!(window.send_again(ids[0]).is_some() && window.send_again(ids[1]).is_none());
        assert_eq!((window.len(), window.waiting()), (2, 1));
        assert!(window.puback(ids[0]).is_some());
        assert_eq!((window.len(), window.waiting()), (1, 1));
        assert_eq!(window.wait(), [ids[2]]);
        assert!(window.send_again(ids[2]).is_some() && window.send_again(ids[2]).is_some());
        assert_eq!((window.len(), window.waiting()), (1, 0));
    }

    #[test]
    fn an_orphan_moves_no_cursor() {
        let mut window = Window::default();
        let key = SubscriptionKey(4);
        let [one, other] =
            [(key, 9), (SubscriptionKey(6), 2)].map(|(subscription, offset)| Source { subscription, offset });
        let sent =
            window.send(Sources::from_slice(&[one, other]), pointer(1), Qos::AtLeastOnce, false).unwrap();
        window.orphan(SubscriptionKey(5));
        assert_eq!(window.get(sent).unwrap().sources[..], [one, other]);
        window.orphan(key);
        assert_eq!(window.get(sent).unwrap().sources[..], [other]);
        window.orphan(SubscriptionKey(6));
        assert!(window.puback(sent).unwrap().sources.is_empty());
    }

    proptest! {
        /// No identifier is used twice at a time, and what ends is what was sent under it.
        #[test]
        fn identifiers_are_unique(steps in proptest::collection::vec((any::<bool>(), 1..20_u16), 1..200)) {
            let mut window = Window::default();
            let mut model = std::collections::BTreeMap::new();
            for (number, (send, which)) in steps.into_iter().enumerate() {
                if send {
                    let at = pointer(number as u64);
                    let sent = window.send(Sources::new(), at, Qos::AtLeastOnce, false).unwrap();
                    prop_assert_eq!(model.insert(sent, at), None);
                } else {
                    let ended = window.puback(id(which)).map(|sent| sent.pointer);
                    prop_assert_eq!(ended, model.remove(&id(which)));
                }
                prop_assert_eq!(window.len(), model.len());
            }
            let order: Vec<Pointer> = window.in_order().iter().map(|(_, sent)| sent.pointer).collect();
            prop_assert!(order.is_sorted());
        }
    }
}
