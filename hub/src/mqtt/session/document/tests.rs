//! Documents there and back, those of every version, and what a session has of one after a crash.

use std::collections::HashMap;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use tidemill_store::Position;

use super::super::super::codec::{LastWill, WillProperties};
use super::layout::{SHORT, VERSION};
use super::*;

fn will() -> impl Strategy<Value = Will> {
    (0..3_u8, any::<bool>(), "[a-z/]{1,9}", vec(any::<u8>(), 0..90), option::of(any::<u32>()), "[a-z]{0,5}")
        .prop_map(|(qos, retain, topic, payload, delay_s, user)| Will {
            last_will: LastWill {
                topic: topic.into(),
                payload: payload.into(),
                qos: Qos::from_bits(qos).unwrap(),
                retain,
                properties: WillProperties {
                    delay_s,
                    user_properties: vec![("a".into(), "b".into())],
                    ..Default::default()
                },
            },
            user: (!user.is_empty()).then(|| user.into()),
        })
}

fn subscription() -> impl Strategy<Value = StoredSubscription> {
    let retained = option::of((any::<u64>(), "[a-z/]{0,9}"));
    ("[a-z/]{1,9}", 0..0x30_u8, any::<u16>(), (any::<u64>(), any::<u64>()), retained).prop_filter_map(
        "options",
        |(requested, options, id, (queue, next), retained)| {
            let retained = retained.map(|(before, after)| RetainedPlace { before, after: after.into() });
            Some(StoredSubscription {
                requested: requested.into(),
                options: SubscriptionOptions::from_bits(options)?,
                id: SubscriptionId::new(u32::from(id)),
                queue: QueueId(queue),
                next,
                retained,
            })
        },
    )
}

fn in_flight() -> impl Strategy<Value = StoredInFlight> {
    let step = prop_oneof![Just(Step::Puback), Just(Step::Pubrec), Just(Step::Pubcomp)];
    (any::<PacketId>(), step, any::<bool>(), (any::<u64>(), any::<u32>()), vec((0..4_u32, 0..99_u64), 0..4))
        .prop_map(|(id, step, retain, (position, size), from)| StoredInFlight {
            id,
            step,
            retain,
            pointer: Pointer { position: Position::from_u64(position), size },
            from: from.into(),
        })
}

proptest! {
    #[test]
    fn documents_come_back(
        (expiry_s, offline_since_ms, owner) in (any::<u32>(), option::of(any::<i64>()), option::of("[a-z]{0,5}")),
        will in option::of(will()),
        subscriptions in vec(subscription(), 0..5),
        (unreleased, accounts_to, is_for_will) in (vec(any::<PacketId>(), 0..5), any::<u64>(), any::<bool>()),
        in_flight in vec(in_flight(), 0..5),
        cut in any::<usize>(),
    ) {
        let owner = owner.map(Arc::from);
        let stored = Stored { expiry_s, offline_since_ms, owner, will: will.map(Box::new), subscriptions, unreleased, accounts_to, in_flight, is_for_will, listed_ms: None };
            let stored = Stored { listed_ms: stored.due_ms(), ..stored };
        let bytes = stored.encode();
        prop_assert_eq!(Stored::decode(bytes.clone()), Ok(stored));
        let short = bytes.slice(..cut % bytes.len());
        prop_assert!(Stored::decode(short).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in vec(any::<u8>(), 0..90)) {
        if let Some(version) = bytes.first_mut() {
            *version = 1 + *version % VERSION;
        }
        if let Ok(stored) = Stored::decode(bytes.into()) {
            let _ = stored.into_session("c".into(), Vec::new());
        }
    }
}

#[test]
fn a_session_comes_back_with_what_is_not_done() {
    let mut session = Session::new("c".into(), 60);
    let place = |offset| CursorPlace { offset, sequence: offset };
    let make = |filter: &str| {
        let cursor = Cursor::at(place(10));
        Subscription::new(filter.into(), SubscriptionOptions::default(), None, QueueId(3), cursor).unwrap()
    };
    let gone = session.subscriptions.insert(make("gone"));
    let key = session.subscriptions.insert(make("a/#"));
    let pointer = Pointer { position: Position::from_u64(7), size: 1 };
    for offset in 10..14 {
        let source = Source { subscription: key, offset };
        session.window.send(Sources::from_buf([source]), pointer, Qos::ExactlyOnce, false).unwrap();
        session.subscriptions.get_mut(key).unwrap().cursor.take(offset, offset);
    }
    session.unsubscribe(gone);
    let second = PacketId::new(2).unwrap();
    session.window.pubrec(second);
    let done = session.window.pubcomp(second).unwrap();
    session.finish(&done);
    session.inbound.restore(PacketId::new(9).unwrap());

    // Offset 10 was done after the document was written.
    let stored = Stored::decode(Stored::of(&session).encode()).unwrap();
    let mut back = stored
        .into_session(
            "c".into(),
            vec![tidemill_store::Cursor { id: tidemill_store::CursorId(0), place: place(11) }],
        )
        .unwrap();
    let ids: Vec<u16> = back.window.in_order().iter().map(|(id, _)| id.get()).collect();
    assert_eq!(ids, [3, 4], "11 was done out of order, 10 since");
    assert_eq!(back.inbound.unreleased().count(), 1);
    let (_, subscription) = back.subscriptions.iter().next().unwrap();
    assert_eq!((subscription.cursor.next(), subscription.cursor.place().offset), (14, 12));
    for (id, _) in back.window.in_order() {
        back.window.pubrec(id);
        let done = back.window.pubcomp(id).unwrap();
        back.finish(&done);
    }
    let (_, subscription) = back.subscriptions.iter().next().unwrap();
    assert_eq!(subscription.cursor.place().offset, 14);
}

#[test]
fn a_message_of_several_subscriptions_waits_for_those_that_have_it_left() {
    let mut session = Session::new("c".into(), 60);
    let make = |filter: &str, queue| {
        let cursor = Cursor::at(CursorPlace { offset: 5, sequence: 0 });
        Subscription::new(filter.into(), SubscriptionOptions::default(), None, QueueId(queue), cursor)
            .unwrap()
    };
    let keys =
        ["a/#", "a/b", "+/b"].map(|filter| session.subscriptions.insert(make(filter, filter.len() as u64)));
    let pointer = Pointer { position: Position::from_u64(7), size: 1 };
    let sources = keys.map(|subscription| Source { subscription, offset: 5 });
    session.window.send(Sources::from_slice(&sources), pointer, Qos::AtLeastOnce, false).unwrap();
    for key in keys {
        session.subscriptions.get_mut(key).unwrap().cursor.take(5, 9);
    }
    let bytes = Stored::of(&session).encode();
    let back = |offsets: [u64; 3]| {
        let place = |offset| CursorPlace { offset, sequence: 9 };
        let kept =
            |offset| tidemill_store::Cursor { id: tidemill_store::CursorId(offset), place: place(offset) };
        let stored = Stored::decode(bytes.clone()).unwrap();
        stored.into_session("c".into(), offsets.map(kept).to_vec()).unwrap()
    };
    let mut one_left = back([6, 5, 6]);
    let (id, sent) = one_left.window.in_order().pop().unwrap();
    assert_eq!(sent.sources.len(), 1, "the others' cursors have passed it");
    let done = one_left.window.puback(id).unwrap();
    one_left.finish(&done);
    let places: Vec<u64> = one_left.subscriptions.iter().map(|(_, of)| of.cursor.place().offset).collect();
    assert_eq!(places, [6, 6, 6]);
    assert!(back([6, 6, 6]).window.is_empty(), "all have passed it");
    assert_eq!(back([5, 5, 5]).window.in_order().pop().map(|(_, sent)| sent.sources.len()), Some(3));
}

/// A document of version 1 as the program wrote it; never to be changed.
const VERSION_1: &[u8] = b"\x01\x03\0\0\0\x3c\0\0\0\0\0\0\x03\xe8\
    \0\0\0\x02\
    \0\x03a/#\x01\0\0\0\x07\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x0e\
    \0\x0c$share/g/b/+\x02\0\0\0\0\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\x05\
    \0\x01\0\x09\
    \0\x02\
    \0\x02\x42\0\0\0\0\0\0\0\x07\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\x0c\
    \0\x03\x80\0\0\0\0\0\0\0\x08\0\0\0\x02\
    \x05\0\x01w\0\x01u\0\0\0\x02hi\0\0\0\x05\x18\0\0\0\x1e";

#[test]
fn version_1_is_read() {
    let stored = Stored::decode(Bytes::from_static(VERSION_1)).unwrap();
    assert_eq!((stored.expiry_s, stored.offline_since_ms, &stored.owner), (60, Some(1000), &None));
    let names: Vec<&str> = stored.subscriptions.iter().map(|of| &*of.requested).collect();
    assert_eq!(names, ["a/#", "$share/g/b/+"]);
    let froms: Vec<&[(u32, u64)]> = stored.in_flight.iter().map(|sent| &sent.from[..]).collect();
    assert_eq!(froms, [&[(0, 12)][..], &[]]);
    let steps: Vec<(Step, bool)> = stored.in_flight.iter().map(|sent| (sent.step, sent.retain)).collect();
    assert_eq!(steps, [(Step::Pubcomp, false), (Step::Puback, true)]);
    let will = stored.will.as_ref().unwrap();
    assert_eq!((&*will.last_will.topic, will.last_will.properties.delay_s), ("w", Some(30)));
    assert_eq!((stored.due_ms(), stored.listed_ms), (Some(31_000), None), "it was not listed then");
    // What is written next is the same in the version of today.
    let written = Stored { listed_ms: stored.due_ms(), ..stored };
    assert_eq!(Stored::decode(written.encode()), Ok(written));
}

/// A document of version 2 as the program wrote it; never to be changed.
const VERSION_2: &[u8] = b"\x02\x04\0\0\0\x3c\0\x03bob\
    \0\0\0\x02\
    \0\x03a/#\x01\0\0\0\x07\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x0e\x01\0\0\0\0\0\0\0\x2a\0\x03a/b\
    \0\x01b\x02\0\0\0\0\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\x05\0\
    \0\x01\0\x09\0\0\0\0\0\0\0\x64\
    \0\x01\
    \0\x02\x01\0\0\0\0\0\0\0\x07\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\x0c\
    \0\0\0\x01\0\0\0\0\0\0\0\x04";

#[test]
fn version_2_is_read() {
    let stored = Stored::decode(Bytes::from_static(VERSION_2)).unwrap();
    assert_eq!(stored.owner.as_deref(), Some("bob"));
    let retained: Vec<_> = stored.subscriptions.iter().map(|of| of.retained.clone()).collect();
    assert_eq!(retained, [Some(RetainedPlace { before: 42, after: "a/b".into() }), None]);
    assert_eq!((stored.unreleased.len(), stored.accounts_to), (1, 100));
    assert_eq!(stored.in_flight[0].from[..], [(0, 12), (1, 4)]);
    assert_eq!(stored.encode()[1..], VERSION_2[1..], "all but the version");
}

/// A document of version 3 as the program wrote it; never to be changed.
const VERSION_3: &[u8] = b"\x03\x02\0\0\0\x3c\0\0\0\0\0\0\x03\xe8\
    \0\0\0\x01\
    \0\x03a/#\x01\0\0\0\0\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x0e\0\
    \0\0\0\0\0\0\0\0\0\x64\
    \0\0";

#[test]
fn version_3_is_read() {
    let stored = Stored::decode(Bytes::from_static(VERSION_3)).unwrap();
    assert_eq!((stored.due_ms(), stored.listed_ms), (Some(61_000), Some(61_000)));
    assert_eq!(stored.encode(), VERSION_3);
    let old = Bytes::from([&[2], &VERSION_3[1..]].concat());
    assert_eq!(Stored::decode(old), Ok(Stored { listed_ms: None, ..stored }));
}

#[test]
fn a_session_that_was_to_last_is_whole_though_it_is_to_end_now() {
    let kept = |kept, expiry_s| {
        let session = Session { kept, ..Session::new("c".into(), expiry_s) };
        let stored = Stored::decode(Stored::of(&session).encode()).unwrap();
        stored.into_session("c".into(), Vec::new()).unwrap().kept
    };
    // As it is written first, before it is known to be written, and later.
    assert_eq!([kept(Kept::Nothing, 0), kept(Kept::Will, 0)], [Kept::Will; 2]);
    assert_eq!([kept(Kept::Nothing, 9), kept(Kept::Whole, 9), kept(Kept::Whole, 0)], [Kept::Whole; 3]);
}

#[test]
fn what_the_log_has_is_accounted_for_once() {
    let mut stored = Stored::decode(Bytes::from_static(VERSION_2)).unwrap();
    let id = |value| PacketId::new(value).unwrap();
    assert!(
        !stored.account_for([(id(3), 99), (id(9), 80)]),
        "both were there when it was written; 3 is released"
    );
    assert!(stored.account_for([(id(4), 100), (id(9), 130), (id(5), 120)]), "9 came again since");
    let unreleased: Vec<u16> = stored.unreleased.iter().map(|id| id.get()).collect();
    assert_eq!((&unreleased[..], stored.accounts_to), (&[9, 4, 5][..], 131));
    assert!(!stored.account_for([(id(6), 130)]));
    assert!(!stored.limit_to(131) && stored.limit_to(125));
    assert_eq!(stored.accounts_to, 125);
}

proptest! {
    /// Against a client that publishes, has receipts and releases in any order that the protocol allows, a document
    /// written at any moment, and a log that is read from its place on.
    #[test]
    fn identifiers_after_a_crash_are_those_not_released(
        steps in vec((0..4_u8, 1..6_u16), 0..80),
    ) {
        let mut session = Session::new("c".into(), 60);
        let mut written = Stored::of(&session);
        let (mut log, mut sequence) = (HashMap::new(), 10_u64);
        // Identifiers on their way to the disk, in order; and those that the client has not released.
        let (mut submitted, mut open) = (std::collections::VecDeque::new(), std::collections::BTreeSet::new());
        for (step, value) in steps {
            let id = PacketId::new(value).unwrap();
            match step {
                0 | 1 => {
                    if session.inbound.arrive(Qos::ExactlyOnce, id, None) == Ok(super::super::Arrival::New) {
                        sequence += 1 + u64::from(value);
                        log.insert(id, sequence);
                        open.insert(id);
                        submitted.push_back((id, sequence));
                    }
                }
                2 => {
                    if let Some((id, at)) = submitted.pop_front() {
                        session.inbound.account_to(at + 1);
                        session.inbound.received(id, true);
                    }
                }
                _ => {
                    // A client releases what PUBREC came for.
                    if session.inbound.unreleased().any(|of| of == id) && session.inbound.release(id) {
                        open.remove(&id);
                    }
                    if session.take_changed() {
                        written = Stored::of(&session);
                    }
                }
            }
            let mut back = written.clone();
            back.account_for(log.iter().map(|(id, sequence)| (*id, *sequence)));
            let unreleased: std::collections::BTreeSet<PacketId> = back.unreleased.iter().copied().collect();
            prop_assert_eq!(&unreleased, &open);
        }
    }
}

#[test]
fn other_versions_are_refused() {
    assert_eq!(Stored::decode(Bytes::from_static(&[9, 0])), Err(DocumentError::Version(9)));
    assert_eq!(Stored::decode(Bytes::new()), Err(SHORT));
}
