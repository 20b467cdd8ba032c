//! What the fuzz targets of `fuzz/` call: bytes as they may come from a network, whatever they are, are refused or read, and
//! what was read is written so that it is read the same again. Not a part of the interface.

use bytes::{Bytes, BytesMut};
use tidemill_store::filter;

use super::topic::{self, Requested};
use super::{DecodeError, Decoder, Forwarded, Packet, Version, connack, disconnect};

/// The low bits of the first byte: a server's decoder, or one of a connection that speaks a version already.
const V311: u8 = 1;
const V5: u8 = 2;
/// Packets may have this many bytes, and not any number.
const LIMITED: u8 = 4;
const LIMIT: usize = 1_000;

/// A connection: a byte that says how it is to be taken, one that says how it is cut, and what comes over it.
///
/// # Panics
/// It is read differently when it is cut, what was read is not written so that it is read the same, or an error has a
/// reason that cannot be told.
pub fn decode(data: &[u8]) {
    let Some(([how, cut], bytes)) = data.split_first_chunk::<2>() else { return };
    let limit = if how & LIMITED == 0 { usize::MAX } else { LIMIT };
    let fresh = || match how & (V311 | V5) {
        V311 => Decoder::client(Version::V311, limit),
        V5 => Decoder::client(Version::V5, limit),
        _ => Decoder::server(limit),
    };
    let (mut decoder, mut of_pieces) = (fresh(), fresh());
    let whole = feed(&mut decoder, bytes, usize::MAX);
    assert_eq!(whole, feed(&mut of_pieces, bytes, usize::from(*cut) % 64 + 1));
    assert_eq!(decoder.version(), of_pieces.version());
    let (packets, error) = whole;
    if let Some(version) = decoder.version() {
        packets.iter().for_each(|packet| again(packet, version));
    } else {
        assert!(packets.is_empty(), "no packet comes before the version is known");
    }
    if let Some(error) = error {
        let connected = fresh().version().is_some() || !packets.is_empty();
        let reasons = if connected { disconnect::REASONS } else { connack::REASONS };
        assert!(reasons.contains(&error.reason.0), "{error} cannot be told");
    }
    let bytes = Bytes::copy_from_slice(bytes);
    if let Some(forwarded) = Forwarded::from_wire(bytes.clone()) {
        let mut wire = BytesMut::new();
        let written = forwarded.put_wire(&mut wire);
        assert!(written.is_ok() && wire.len() <= bytes.len());
        assert_eq!(Forwarded::from_wire(wire.freeze()), Some(forwarded));
    }
}

/// What comes out of a decoder that gets `bytes` in pieces of this length.
fn feed(decoder: &mut Decoder, bytes: &[u8], length: usize) -> (Vec<Packet>, Option<DecodeError>) {
    let (mut buffer, mut packets) = (BytesMut::new(), Vec::new());
    for piece in bytes.chunks(length) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => break,
                Err(error) => return (packets, Some(error)),
            }
        }
    }
    (packets, None)
}

/// A packet that was read is written, and read again.
fn again(packet: &Packet, version: Version) {
    let mut bytes = BytesMut::new();
    let written = packet.encode(version, &mut bytes);
    assert!(written.is_ok(), "{packet:?}: {written:?}");
    let mut decoder = match packet {
        Packet::Connect(_) => Decoder::server(usize::MAX),
        _ => Decoder::client(version, usize::MAX),
    };
    assert_eq!(decoder.decode(&mut bytes).as_ref().map(Option::as_ref), Ok(Some(packet)));
    assert!(bytes.is_empty());
}

/// A topic filter as a client may write it, and a topic name, with a line feed between them.
///
/// # Panics
/// A filter is taken that cannot be, is not what was written, or matches what it must not.
pub fn topic(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // The reader of strings has refused U+0000 and what is longer.
    if text.contains('\0') || text.len() > usize::from(u16::MAX) {
        return;
    }
    let (written, name) = text.split_once('\n').unwrap_or((text, ""));
    let requested = Requested::parse(written);
    match requested {
        Some(Requested { group: None, filter }) => assert_eq!(filter, written),
        Some(Requested { group: Some(group), filter }) => {
            assert_eq!(format!("$share/{group}/{filter}"), written);
            assert!(!group.is_empty() && !group.contains(['/', '+', '#']), "{group}");
        }
        None => assert!(!topic::is_filter(written) || written.starts_with("$share"), "{written}"),
    }
    let filter = requested.map_or(written, |requested| requested.filter);
    assert_eq!(topic::is_filter(filter), is_filter(filter), "{filter}");
    let is_name = topic::check_name(name).is_ok();
    assert_eq!(is_name, !name.is_empty() && !name.contains(['+', '#']), "{name}");
    if is_name {
        assert!(
            topic::is_filter(name) && filter::matches(name, name),
            "a name is a filter of itself: {name}"
        );
        assert!(topic::levels(name) == name.split('/').count());
        if topic::is_filter(filter) {
            let of_server = name.starts_with('$') && filter.starts_with(['+', '#']);
            let levels: (Vec<_>, Vec<_>) = (filter.split('/').collect(), name.split('/').collect());
            let expected = !of_server && is_match(&levels.0, &levels.1);
            assert_eq!(filter::matches(filter, name), expected, "{filter} {name}");
        }
    }
}

/// 4.7.1, said as shortly as it can be.
fn is_filter(text: &str) -> bool {
    let levels: Vec<&str> = text.split('/').collect();
    let last = levels.len() - 1;
    let good = |(at, level): (usize, &&str)| match *level {
        "+" => true,
        "#" => at == last,
        level => !level.contains(['+', '#']),
    };
    !text.is_empty() && levels.iter().enumerate().all(good)
}

/// 4.7.1 level by level; without what 4.7.2 says of `$`.
fn is_match(filter: &[&str], name: &[&str]) -> bool {
    match (filter, name) {
        (["#"], _) | ([], []) => true,
        ([level, filter @ ..], [of_name, name @ ..]) if *level == "+" || level == of_name => {
            is_match(filter, name)
        }
        _ => false,
    }
}
