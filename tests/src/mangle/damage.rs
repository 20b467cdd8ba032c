//! What becomes of packets on their way.

use bytes::Bytes;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};

/// Bytes that often mean something.
const TELLING: [u8; 6] = [0, 1, 0x7f, 0x80, 0xfe, 0xff];
/// Lengths that cannot be, or will not come.
const LENGTHS: [&[u8]; 7] = [
    &[0],
    &[1],
    &[0x7f],
    &[0xff, 0x7f],
    &[0xff, 0xff, 0xff, 0x7f],
    &[0xff, 0xff, 0xff, 0xff, 0x7f],
    &[0x82, 0x80, 0x00],
];

/// Bits are flipped.
pub(super) fn flip(packets: &[Bytes], random: &mut StdRng) -> Vec<u8> {
    let (mut bytes, from) = joined(packets, random);
    for _ in 0..random.random_range(1..8) {
        let at = random.random_range(from..bytes.len());
        bytes[at] ^= 1 << random.random_range(0..8);
    }
    bytes
}

/// Bytes are replaced.
pub(super) fn set(packets: &[Bytes], random: &mut StdRng) -> Vec<u8> {
    let (mut bytes, from) = joined(packets, random);
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(from..bytes.len());
        bytes[at] = TELLING[random.random_range(0..TELLING.len())];
    }
    bytes
}

/// The end is missing.
pub(super) fn cut(packets: &[Bytes], random: &mut StdRng) -> Vec<u8> {
    let (mut bytes, _) = joined(packets, random);
    bytes.truncate(random.random_range(1..bytes.len()));
    bytes
}

/// One packet comes again, be it CONNECT.
pub(super) fn double(packets: &[Bytes], random: &mut StdRng) -> Vec<u8> {
    let mut packets = packets.to_vec();
    let packet = packets[random.random_range(0..packets.len())].clone();
    packets.insert(random.random_range(0..=packets.len()), packet);
    packets.concat()
}

/// Packets come in another order, sometimes one before CONNECT.
pub(super) fn shuffle(packets: &[Bytes], random: &mut StdRng) -> Vec<u8> {
    let mut packets = packets.to_vec();
    let from = usize::from(random.random_bool(0.8));
    packets[from..].shuffle(random);
    packets.concat()
}

/// A part of one packet is put into another, or in its place.
pub(super) fn splice(packets: &[Bytes], random: &mut StdRng) -> Vec<u8> {
    let (mut bytes, from) = joined(packets, random);
    for _ in 0..random.random_range(1..4) {
        let donor = packets.choose(random).expect("a CONNECT at least");
        let begin = random.random_range(0..donor.len());
        let end = random.random_range(begin..=donor.len());
        let at = random.random_range(from..=bytes.len());
        let gone = if random.random_bool(0.5) { at } else { (at + end - begin).min(bytes.len()) };
        bytes.splice(at..gone, donor[begin..end].iter().copied());
    }
    bytes
}

/// A packet says that it is longer or shorter than it is.
pub(super) fn lie(packets: &[Bytes], random: &mut StdRng) -> Vec<u8> {
    let mut packets = packets.to_vec();
    let at = random.random_range(0..packets.len());
    let packet = &packets[at];
    let header = 2 + packet[1..].iter().take_while(|byte| **byte & 0x80 != 0).count();
    let near = [packet[1].wrapping_add(random.random_range(1..9)) & 0x7f];
    let length: &[u8] =
        if random.random_bool(0.5) { &near } else { LENGTHS[random.random_range(0..LENGTHS.len())] };
    packets[at] = [&packet[..1], length, &packet[header..]].concat().into();
    packets.concat()
}

/// No MQTT at all.
pub(super) fn noise(random: &mut StdRng) -> Vec<u8> {
    match random.random_range(0..5) {
        0 => b"GET / HTTP/1.1\r\nHost: tidemill\r\n\r\n".to_vec(),
        1 => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        2 => b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec(),
        _ => {
            let length = random.random_range(1..2000);
            (0..length).map(|_| random.random()).collect()
        }
    }
}

/// What a layer below MQTT writes: bytes are changed, missing, repeated, or new among them. Often near its beginning,
/// where lengths and kinds stand.
pub(super) fn layer(bytes: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if bytes.is_empty() {
        return bytes;
    }
    let near = if random.random_bool(0.5) { bytes.len().min(16) } else { bytes.len() };
    let at = random.random_range(0..near);
    match random.random_range(0..7) {
        0..2 => bytes[at] ^= 1 << random.random_range(0..8),
        2 => bytes[at] = TELLING[random.random_range(0..TELLING.len())],
        3 => bytes.truncate(at),
        4 => {
            bytes.remove(at);
        }
        5 => bytes.extend_from_within(at..),
        _ => {
            bytes.splice(at..at, noise(random));
        }
    }
    bytes
}

/// All packets, and from where on they are damaged: mostly after CONNECT, which else would be all that is tried.
fn joined(packets: &[Bytes], random: &mut StdRng) -> (Vec<u8>, usize) {
    let connect = packets.first().map_or(0, Bytes::len);
    (packets.concat(), if random.random_bool(0.7) { connect } else { 0 })
}
