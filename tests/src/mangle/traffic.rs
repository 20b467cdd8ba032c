//! Valid sessions, in small random variety.

use bytes::{BufMut, Bytes, BytesMut};
use rand::Rng;
use rand::rngs::StdRng;

use crate::mqtt::Level;
use crate::mqtt::encode::{self, packet, string, varint};

/// Topics are `mangled/0` and so on. Few enough that sessions hear each other, many enough that not each hears all.
const TOPICS: u32 = 40;

/// A session's CONNECT and what follows it, without a DISCONNECT. A server takes all of it.
pub(super) fn session(level: Level, client: &str, random: &mut StdRng) -> Vec<Bytes> {
    let mut packets = vec![connect(level, client, random)];
    for id in 1..=random.random_range(2..12) {
        packets.push(match random.random_range(0..10) {
            0..2 => subscribe(level, id, random),
            2 => unsubscribe(level, id, random),
            3 => Bytes::from_static(&encode::PINGREQ),
            4 => encode::acknowledgement([4, 5, 6, 7][random.random_range(0..4)], id),
            _ => publish(level, id, random),
        });
    }
    packets
}

fn topic(random: &mut StdRng) -> String {
    format!("mangled/{}", random.random_range(0..TOPICS))
}

fn connect(level: Level, client: &str, random: &mut StdRng) -> Bytes {
    let mut body = BytesMut::new();
    string(&mut body, "MQTT");
    body.put_u8(level as u8);
    let (clean, will, user) = (random.random_bool(0.7), random.random_bool(0.3), random.random_bool(0.3));
    let qos = random.random_range(0..3);
    let will_flags = if will { 1 << 2 | qos << 3 | u8::from(random.random_bool(0.2)) << 5 } else { 0 };
    body.put_u8(u8::from(clean) << 1 | will_flags | u8::from(user) << 7);
    body.put_u16(random.random_range(5..100));
    properties(level, &mut body, |properties| {
        if random.random_bool(0.5) {
            properties.put_u8(0x11);
            properties.put_u32(random.random_range(0..1000));
        }
        if random.random_bool(0.3) {
            properties.put_u8(0x21);
            properties.put_u16(random.random_range(1..100));
        }
        if random.random_bool(0.3) {
            user_property(properties, random);
        }
    });
    string(&mut body, client);
    if will {
        properties(level, &mut body, |properties| {
            properties.put_u8(0x18);
            properties.put_u32(random.random_range(0..3));
        });
        string(&mut body, &topic(random));
        string(&mut body, "gone");
    }
    if user {
        string(&mut body, "somebody");
    }
    packet(0x10, &body)
}

fn publish(level: Level, id: u16, random: &mut StdRng) -> Bytes {
    let mut body = BytesMut::new();
    let qos = random.random_range(0..3);
    string(&mut body, &topic(random));
    if qos > 0 {
        body.put_u16(id);
    }
    properties(level, &mut body, |properties| {
        if random.random_bool(0.3) {
            properties.put_u8(0x23);
            properties.put_u16(random.random_range(1..=64));
        }
        if random.random_bool(0.2) {
            properties.put_u8(0x02);
            properties.put_u32(random.random_range(0..10));
        }
        if random.random_bool(0.2) {
            properties.put_u8(0x08);
            string(properties, "mangled/answers");
        }
        while random.random_bool(0.2) {
            user_property(properties, random);
        }
    });
    let payload = random.random_range(0..200);
    body.extend((0..payload).map(|_| random.random::<u8>()));
    let retain = u8::from(random.random_bool(0.05));
    packet(0x30 | qos << 1 | retain, &body)
}

fn subscribe(level: Level, id: u16, random: &mut StdRng) -> Bytes {
    let mut body = BytesMut::new();
    body.put_u16(id);
    properties(level, &mut body, |properties| {
        if random.random_bool(0.3) {
            properties.put_u8(0x0b);
            varint(properties, random.random_range(1..100_000));
        }
    });
    for _ in 0..random.random_range(1..4) {
        let (topic, group) = (topic(random), random.random_range(0..4));
        let filter = match random.random_range(0..20) {
            0 => "mangled/+".to_owned(),
            1..4 => format!("$share/group-{group}/{topic}"),
            _ => topic,
        };
        string(&mut body, &filter);
        let options = if level == Level::V5 { random.random_range(0..3) << 4 } else { 0 };
        body.put_u8(options | random.random_range(0..3));
    }
    packet(0x82, &body)
}

fn unsubscribe(level: Level, id: u16, random: &mut StdRng) -> Bytes {
    let mut body = BytesMut::new();
    body.put_u16(id);
    properties(level, &mut body, |_| ());
    string(&mut body, &topic(random));
    packet(0xa2, &body)
}

/// The properties that `write` writes and their length, where the level has them.
fn properties(level: Level, body: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    let mut properties = BytesMut::new();
    write(&mut properties);
    if level == Level::V5 {
        varint(body, properties.len());
        body.put(properties);
    }
}

fn user_property(properties: &mut BytesMut, random: &mut StdRng) {
    properties.put_u8(0x26);
    string(properties, "key");
    string(properties, &"x".repeat(random.random_range(0..40)));
}
