//! Beside mqtt-protocol-core: what one writes the other reads to the same values, and what one refuses so does the
//! other, but for the differences named here.

use mqtt_protocol_core::mqtt::packet::GenericPacketTrait;

use super::corpus::{damaged, damages};
use super::theirs::{Theirs, build, parse};
use super::*;

/// A difference: the version and the packet in which it shows, and what the specification says.
struct Difference {
    version: Version,
    first: u8,
    body: &'static [u8],
    /// The section that ours refuses it with; `None` if it is theirs that refuses.
    section: Option<&'static str>,
    /// Who is right, and why.
    why: &'static str,
}

const fn ours_refuses(
    version: Version,
    first: u8,
    body: &'static [u8],
    section: &'static str,
    why: &'static str,
) -> Difference {
    Difference { version, first, body, section: Some(section), why }
}

const fn theirs_refuses(version: Version, first: u8, body: &'static [u8], why: &'static str) -> Difference {
    Difference { version, first, body, section: None, why }
}

use Version::{V5, V311};

/// All differences. The specification is with ours, but where a line says that it allows both.
const DIFFERENCES: &[Difference] = &[
    ours_refuses(V311, 0x32, b"\0\x02a\0\0\x01", "MQTT-1.5.4-2", "theirs lets U+0000 pass in all strings"),
    ours_refuses(
        V5,
        0xb0,
        b"\0\x01\x80\0\0",
        "MQTT-1.5.5-1",
        "theirs takes integers longer than they need be",
    ),
    ours_refuses(
        V311,
        0x82,
        b"\0\0\0\x01a\0",
        "MQTT-2.2.1-3",
        "theirs looks for identifier 0 in acknowledgements only",
    ),
    ours_refuses(
        V5,
        0x10,
        b"\0\x04MQTT\x05\x03\0\0\0\0\0",
        "MQTT-3.1.2-3",
        "theirs does not look at the reserved flag",
    ),
    ours_refuses(
        V311,
        0x10,
        b"\0\x04MQTT\x04\x0a\0\0\0\0",
        "MQTT-3.1.2-11",
        "nor at flags of a will that is not there",
    ),
    ours_refuses(
        V311,
        0x10,
        b"\0\x04MQTT\x04\x1e\0\0\0\0\0\x01w\0\0",
        "MQTT-3.1.2-12",
        "nor at QoS 3 of one that is",
    ),
    ours_refuses(V311, 0x10, b"\0\x04MQTT\x04\x22\0\0\0\0", "MQTT-3.1.2-13", "nor at its retain flag"),
    ours_refuses(
        V311,
        0x10,
        b"\0\x04MQTT\x04\x06\0\0\0\0\0\0\0\0",
        "MQTT-4.7.3-1",
        "theirs takes a will to no topic",
    ),
    ours_refuses(
        V5,
        0x10,
        b"\0\x04MQTT\x05\x02\0\0\x03\x16\0\0\0\0",
        "3.1.2.11.10",
        "theirs takes authentication data without a method in CONNECT",
    ),
    ours_refuses(V5, 0x20, b"\x02\0\0", "MQTT-3.2.2-1", "theirs ignores reserved flags of CONNACK"),
    ours_refuses(V5, 0x20, b"\x01\x80\0", "MQTT-3.2.2-6", "and that a refused client has no session"),
    ours_refuses(V5, 0x30, b"\0\x01+\0", "MQTT-3.3.2-2", "theirs leaves topic names to whoever uses them"),
    ours_refuses(V311, 0x30, b"\0\0", "3.3.2.1", "also empty ones"),
    ours_refuses(V311, 0x82, b"\0\x01\0\x01a\x04", "MQTT-3.8.3-5", "theirs reads options of 5.0 in 3.1.1"),
    ours_refuses(V311, 0x40, b"\0\x01\0", "4.13.1", "theirs reads reason codes in acknowledgements of 3.1.1"),
    ours_refuses(V5, 0x30, b"\0\x01a", "4.13.1", "theirs takes a PUBLISH without a Property Length"),
    theirs_refuses(
        V5,
        0x10,
        b"\0\x04MQTT\x05\x42\0\0\0\0\0\0\x01p",
        "5.0 allows a password without a user name (3.1.2.9)",
    ),
    theirs_refuses(
        V5,
        0x82,
        b"\0\x01\0\0\x09$share//a\0",
        "ours refuses the one filter in SUBACK (3.9.3), theirs the packet (4.8.2); both may be",
    ),
];

/// Whether this is one of the differences: `section` refused by ours, or `None` if theirs refuses.
fn is_known(version: Version, first: u8, section: Option<&str>) -> bool {
    DIFFERENCES.iter().any(|known| {
        // An end too early or too late is told of every packet, and they differ in some only.
        let there = match known.section {
            Some("4.13.1") if known.first == 0x40 => (4..=7).contains(&(first >> 4)) && version == V311,
            Some("4.13.1") | None => known.first >> 4 == first >> 4 && known.version == version,
            Some(_) => true,
        };
        known.section == section && there
    })
}

/// A packet that ours wrote: its first byte and what follows the Remaining Length.
fn first_and_body(version: Version, packet: &Packet) -> (u8, Vec<u8>) {
    let mut bytes = BytesMut::new();
    packet.encode(version, &mut bytes).unwrap();
    let header = 2 + bytes[1..].iter().take_while(|byte| **byte & 0x80 != 0).count();
    (bytes[0], bytes[header..].to_vec())
}

/// What ours reads.
fn read(version: Version, bytes: &[u8]) -> Result<Packet, DecodeError> {
    let mut decoder = match bytes[0] >> 4 {
        1 => Decoder::server(usize::MAX),
        _ => Decoder::client(version, usize::MAX),
    };
    let (mut packets, error) = feed(&mut decoder, bytes, &[]);
    match error {
        None => Ok(packets.pop().expect("a whole packet")),
        Some(error) => Err(error),
    }
}

fn read_body(version: Version, first: u8, body: &[u8]) -> Result<Packet, DecodeError> {
    let mut bytes = BytesMut::new();
    super::super::writer::Writer::packet(&mut bytes, first, |writer| writer.raw(body)).unwrap();
    read(version, &bytes)
}

/// The version of a body, which CONNECT says itself.
fn version_of(version: Version, first: u8, body: &[u8]) -> Version {
    match body.get(6) {
        Some(5) if first >> 4 == 1 => Version::V5,
        Some(_) if first >> 4 == 1 => Version::V311,
        _ => version,
    }
}

fn any_packet() -> impl Strategy<Value = (Version, Packet)> {
    prop_oneof![Just(Version::V311), Just(Version::V5)]
        .prop_flat_map(|version| (Just(version), prop_oneof![4 => packet(version), 1 => connect(version)]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn each_reads_what_the_other_writes((version, packet) in any_packet()) {
        let built = build(version, &packet).map_err(|error| TestCaseError::fail(format!("{packet:?}: {error:?}")))?;
        let (first, body) = first_and_body(version, &packet);
        prop_assert_eq!(&parse(version, first, &body), &Ok(built.clone()));
        prop_assert_eq!(read(version, &built.to_continuous_buffer()), Ok(packet));
    }

    #[test]
    fn both_refuse_the_same((version, packet) in any_packet(), damages in damages()) {
        let (first, body) = first_and_body(version, &packet);
        let body = damaged(&body, &damages);
        let version = version_of(version, first, &body);
        match (read_body(version, first, &body), parse(version, first, &body)) {
            (Err(_), Err(_)) => {}
            (Ok(ours), Ok(theirs)) => {
                prop_assert_eq!(read(version, &theirs.to_continuous_buffer()), Ok(ours));
            }
            (Err(error), Ok(theirs)) => {
                let known = is_known(version, first, Some(error.section));
                prop_assert!(known, "only ours refuses {}: {}", show(&theirs), error);
            }
            (Ok(ours), Err(error)) => {
                prop_assert!(is_known(version, first, None), "only theirs refuses {:?}: {:?}", ours, error);
            }
        }
    }
}

#[test]
fn the_differences_are_there() {
    for Difference { version, first, body, section, why } in DIFFERENCES {
        let (ours, theirs) = (read_body(*version, *first, body), parse(*version, *first, body));
        assert_eq!(ours.err().map(|error| error.section), *section, "{why}");
        assert_eq!(theirs.is_err(), section.is_none(), "{why}");
    }
}

fn show(theirs: &Theirs) -> String {
    serde_json::to_string(theirs).unwrap_or_default()
}
