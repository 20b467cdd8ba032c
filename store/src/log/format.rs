//! What a record and a segment look like on disk. Version 3 is written, versions 1 and 2 are still read.
//!
//! A record is made in two steps: whoever appends it lays it out ([`lay_out`]), on a thread of its own, and the log writer stamps it with
//! what the log gives it ([`stamp`]). The checksum of the greater part is made in the first.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use uuid::Uuid;

use crate::{NewRecord, Position, Record, Retain};

/// Version of the segment format that this code writes, and the newest it reads.
pub(crate) const SEGMENT_VERSION: u32 = 3;
/// Bytes of a segment's header.
pub(crate) const SEGMENT_HEADER_BYTES: u64 = 48;
/// Bytes of a record's header.
const RECORD_HEADER_BYTES: usize = 40;
/// The same in version 1, which had no sequence.
const RECORD_HEADER_BYTES_V1: usize = 32;
/// Where the part of a record's header begins that the log gives it, and how many bytes it has.
const STAMP_START: usize = 12;
const STAMP_BYTES: usize = 4 + 8 + 8;
/// Bytes between the header and the topic of a kept record.
const KEPT_BYTES: usize = 8;

const MAGIC: [u8; 8] = *b"TIDEMILL";
const KIND_MESSAGE: u8 = 1;
const KIND_KEPT: u8 = 2;
const FLAG_RETAIN_SET: u8 = 1;
const FLAG_RETAIN_CLEAR: u8 = 2;

const _: () = assert!(SEGMENT_HEADER_BYTES == 8 + 4 + 16 + 8 + 8 + 4);
const _: () = assert!(RECORD_HEADER_BYTES == RECORD_HEADER_BYTES_V1 + size_of::<u64>());

/// The header of a segment file.
///
/// ```text
///  0  magic           8  "TIDEMILL"
///  8  version         4  u32
/// 12  log id         16  UUID of the log; a segment of another log is refused
/// 28  first position  8  u64; position of byte 0 of this file
/// 36  first sequence  8  u64; the next sequence when the segment was begun; zero in version 1
/// 44  crc             4  CRC-32C of bytes 0..44
/// ```
/// Integers are little-endian here and in records: that is what the machines are that run this.
/// The identity comes before anything that could differ between versions, so that a version that is too
/// new can be told from a file that is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) version: u32,
    pub(crate) log: Uuid,
    pub(crate) first: Position,
    pub(crate) first_sequence: u64,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES as usize] {
        let mut out = Vec::with_capacity(SEGMENT_HEADER_BYTES as usize);
        out.put_slice(&MAGIC);
        out.put_u32_le(self.version);
        out.put_slice(self.log.as_bytes());
        out.put_u64_le(self.first.to_u64());
        out.put_u64_le(self.first_sequence);
        let crc = crc32c::crc32c(&out);
        out.put_u32_le(crc);
        let mut array = [0; SEGMENT_HEADER_BYTES as usize];
        array.copy_from_slice(&out);
        array
    }

    pub(crate) fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES as usize]) -> Result<Self, String> {
        let mut rest = &bytes[..];
        if rest.copy_to_bytes(8)[..] != MAGIC {
            return Err("it does not begin as a segment does".into());
        }
        let version = rest.get_u32_le();
        if version == 0 || version > SEGMENT_VERSION {
            return Err(format!("its format is {version}, and this program reads up to {SEGMENT_VERSION}"));
        }
        let mut log = [0; 16];
        rest.copy_to_slice(&mut log);
        let first = Position::from_u64(rest.get_u64_le());
        let first_sequence = rest.get_u64_le();
        if rest.get_u32_le() != crc32c::crc32c(&bytes[..44]) {
            return Err("the checksum of its header is wrong".into());
        }
        Ok(SegmentHeader { version, log: Uuid::from_bytes(log), first, first_sequence })
    }
}

/// Bytes of a record's header in a segment of this version.
pub(crate) fn header_bytes(version: u32) -> usize {
    if version == 1 { RECORD_HEADER_BYTES_V1 } else { RECORD_HEADER_BYTES }
}

/// Bytes that a message takes in the log.
pub(crate) fn encoded_size(record: &NewRecord) -> usize {
    RECORD_HEADER_BYTES + record.topic.len() + record.properties.len() + record.payload.len()
}

/// What the log gives a record when it takes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    pub(crate) position: Position,
    pub(crate) sequence: u64,
    pub(crate) time_ms: i64,
    /// Bytes before the record that were not synced yet.
    pub(crate) undurable: u32,
}

/// Appends one record, which is as it will be on disk but for its [`stamp`]. The checksum of what comes after its header.
/// `kept`: when a retained message that is written again was stored first.
///
/// ```text
///  0  length        4  u32; of the whole record; 0 means: nothing was written here
///  4  crc           4  CRC-32C of bytes 40..length, then of the position (u64), then of bytes 8..40
///  8  kind          1  1 = message, 2 = kept: a retained message written again because its first record's segment goes
///  9  flags         1  bit 0: becomes the retained message, bit 1: clears it
/// 10  attributes    1  the caller's
/// 11  reserved      1  zero
/// 12  undurable     4  u32; bytes of the shard before this record that were not synced yet when it was written
/// 16  sequence      8  u64; counts the records of all shards in the order they were dispatched, from 1
/// 24  time          8  i64; milliseconds since the Unix epoch, never less than the record before
/// 32  properties    4  u32; length
/// 36  topic         2  u16; length
/// 38  reserved      2  zero
/// 40  (kind 2 only: time the message was stored first, i64) topic, properties, payload
/// ```
/// The length comes first because a reader must know how much to check; the checksum covers the
/// position, so that a record found at another place than it was written to is never taken for
/// good. `undurable` is what lets recovery tell a torn tail from corruption: a good record at P says that
/// everything before `P - undurable` was on disk. In versions 1 and 2 the checksum is of the position, then of
/// bytes 8..length. Version 1 has no sequence: its one shard's offset is it.
pub(crate) fn lay_out(record: &NewRecord, kept: Option<i64>, out: &mut BytesMut) -> u32 {
    let size = encoded_size(record) + kept.map_or(0, |_| KEPT_BYTES);
    let mut header = [0; RECORD_HEADER_BYTES];
    let mut rest = &mut header[..];
    rest.put_u32_le(size as u32);
    rest.put_u32_le(0);
    rest.put_u8(if kept.is_some() { KIND_KEPT } else { KIND_MESSAGE });
    rest.put_u8(match record.retain {
        Retain::No => 0,
        Retain::Set => FLAG_RETAIN_SET,
        Retain::Clear => FLAG_RETAIN_CLEAR,
    });
    rest.put_u8(record.attributes);
    rest.put_bytes(0, 1 + STAMP_BYTES);
    rest.put_u32_le(record.properties.len() as u32);
    rest.put_u16_le(record.topic.len() as u16);
    rest.put_u16_le(0);
    debug_assert!(rest.is_empty());
    let start = out.len();
    out.reserve(size);
    // In few pieces: this is done for every record there is.
    out.extend_from_slice(&header);
    if let Some(first_ms) = kept {
        out.put_i64_le(first_ms);
    }
    out.extend_from_slice(record.topic.as_bytes());
    out.extend_from_slice(&record.properties);
    out.extend_from_slice(&record.payload);
    debug_assert_eq!(out.len() - start, size);
    crc32c::crc32c(&out[start + RECORD_HEADER_BYTES..])
}

/// Completes a record that was laid out; `crc` is what that returned.
pub(crate) fn stamp(record: &mut [u8], crc: u32, stamp: &Stamp) {
    let Some(header) = record.first_chunk_mut::<RECORD_HEADER_BYTES>() else { return };
    let mut rest = &mut header[STAMP_START..];
    rest.put_u32_le(stamp.undurable);
    rest.put_u64_le(stamp.sequence);
    rest.put_i64_le(stamp.time_ms);
    let crc = checksum_of_header(crc, stamp.position, header);
    header[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Goes on with the checksum of what comes after a record's header.
fn checksum_of_header(crc: u32, position: Position, header: &[u8; RECORD_HEADER_BYTES]) -> u32 {
    // In one piece: each costs its own begin and end.
    let mut bytes = [0; RECORD_HEADER_BYTES];
    bytes[..8].copy_from_slice(&position.to_u64().to_le_bytes());
    bytes[8..].copy_from_slice(&header[8..]);
    crc32c::crc32c_append(crc, &bytes)
}

/// The checksum that a record of a segment of this version should have.
pub(crate) fn checksum(version: u32, position: Position, record: &[u8]) -> u32 {
    match record.split_first_chunk::<RECORD_HEADER_BYTES>() {
        Some((header, body)) if version > 2 => checksum_of_header(crc32c::crc32c(body), position, header),
        _ => {
            let position = crc32c::crc32c(&position.to_u64().to_le_bytes());
            crc32c::crc32c_append(position, record.get(8..).unwrap_or_default())
        }
    }
}

/// The topic of a record that was laid out.
pub(crate) fn topic_of(record: &[u8]) -> &str {
    let Some((header, body)) = record.split_first_chunk::<RECORD_HEADER_BYTES>() else { return "" };
    let start = known_kind(SEGMENT_VERSION, header[8]).unwrap_or(0);
    let length = usize::from(u16::from_le_bytes([header[36], header[37]]));
    let topic = body.get(start..start + length).unwrap_or_default();
    std::str::from_utf8(topic).unwrap_or_default()
}

/// A record as found in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub(crate) record: Record,
    /// When this record was written; for a kept one that is later than when its message was stored.
    pub(crate) stored_ms: i64,
    /// Everything before this offset of the shard was durable when the record was written.
    pub(crate) durable_before: u64,
}

impl Decoded {
    /// See [`Record::sequence`].
    pub(crate) fn sequence(&self) -> u64 {
        self.record.sequence
    }
}

/// Whether a record may begin here, told without its checksum.
pub(crate) fn plausible(version: u32, head: &[u8]) -> bool {
    let header = header_bytes(version);
    let Some(mut rest) = head.get(..header) else { return false };
    let length = rest.get_u32_le() as usize;
    let _crc = rest.get_u32_le();
    let (kind, flags) = (rest.get_u8(), rest.get_u8());
    let _attributes = rest.get_u8();
    let reserved = rest.get_u8();
    // Undurable, sequence, time.
    rest.advance(header - 20);
    let inner = rest.get_u32_le() as usize + usize::from(rest.get_u16_le());
    let more_reserved = rest.get_u16_le();
    known_kind(version, kind).is_some_and(|extra| inner + header + extra <= length)
        && flags <= FLAG_RETAIN_CLEAR
        && reserved == 0
        && more_reserved == 0
}

/// Bytes between header and topic of a record of this kind, if there is such a kind.
fn known_kind(version: u32, kind: u8) -> Option<usize> {
    match kind {
        KIND_MESSAGE => Some(0),
        KIND_KEPT if version > 1 => Some(KEPT_BYTES),
        _ => None,
    }
}

/// The length field of the record that `bytes` begins with, if it is there and fits into `room`, the bytes up to the end of
/// the file. `Ok(0)` means that nothing was written here.
pub(crate) fn peek_length(version: u32, bytes: &[u8], room: u64) -> Result<usize, String> {
    let Some(field) = bytes.first_chunk::<4>() else {
        return Err("the record's length is cut off".into());
    };
    let length = u32::from_le_bytes(*field);
    if length != 0 && (length as usize) < header_bytes(version) {
        return Err(format!("length {length} is less than a record's header"));
    }
    if u64::from(length) > room {
        return Err(format!("length {length} is more than the {room} bytes up to the end of the file"));
    }
    Ok(length as usize)
}

/// Decodes the record of a segment of this version that fills `bytes`, sharing them. With `check`, the checksum is verified:
/// for everything that was read back from a file.
pub(crate) fn decode(
    version: u32,
    bytes: &Bytes,
    position: Position,
    check: bool,
) -> Result<Decoded, String> {
    let header = header_bytes(version);
    let Some(mut head) = bytes.get(..header) else {
        return Err("the record's header is cut off".into());
    };
    let length = head.get_u32_le() as usize;
    if length != bytes.len() {
        return Err(format!("length {length} where {} was expected", bytes.len()));
    }
    let crc = head.get_u32_le();
    if check && crc != checksum(version, position, bytes) {
        return Err("the checksum is wrong".into());
    }
    let kind = head.get_u8();
    let Some(extra) = known_kind(version, kind) else {
        return Err(format!("kind {kind} is not known"));
    };
    let retain = match head.get_u8() {
        FLAG_RETAIN_SET => Retain::Set,
        FLAG_RETAIN_CLEAR => Retain::Clear,
        0 => Retain::No,
        flags => return Err(format!("flags {flags:#x} are not known")),
    };
    let attributes = head.get_u8();
    let _reserved = head.get_u8();
    let undurable = head.get_u32_le();
    let sequence = if version == 1 { position.offset() } else { head.get_u64_le() };
    let stored_ms = head.get_i64_le();
    let properties_length = head.get_u32_le() as usize;
    let topic_length = usize::from(head.get_u16_le());
    let mut body = bytes.slice(header..);
    if extra + topic_length + properties_length > body.len() {
        return Err(format!(
            "topic of {topic_length} and properties of {properties_length} bytes do not fit into {length}"
        ));
    }
    let time_ms = if extra > 0 { body.get_i64_le() } else { stored_ms };
    let topic =
        ByteString::try_from(body.slice(..topic_length)).map_err(|_| "the topic is not UTF-8".to_string())?;
    let properties = body.slice(topic_length..topic_length + properties_length);
    let payload = body.slice(topic_length + properties_length..);
    let (kept, size) = (kind == KIND_KEPT, length as u32);
    Ok(Decoded {
        record: Record {
            position,
            sequence,
            time_ms,
            topic,
            properties,
            payload,
            attributes,
            retain,
            kept,
            size,
        },
        stored_ms,
        durable_before: position.offset().saturating_sub(u64::from(undurable)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_record() -> impl Strategy<Value = NewRecord> {
        (
            ".{0,40}",
            prop::collection::vec(any::<u8>(), 0..50),
            prop::collection::vec(any::<u8>(), 0..300),
            any::<u8>(),
            0..3,
        )
            .prop_map(|(topic, properties, payload, attributes, retain)| NewRecord {
                topic: topic.into(),
                properties: properties.into(),
                payload: payload.into(),
                attributes,
                retain: [Retain::No, Retain::Set, Retain::Clear][retain as usize],
            })
    }

    fn at(position: Position) -> Stamp {
        Stamp { position, sequence: 9, time_ms: 7, undurable: 0 }
    }

    fn encoded(record: &NewRecord, kept: Option<i64>, its: &Stamp) -> BytesMut {
        let mut out = BytesMut::new();
        let crc = lay_out(record, kept, &mut out);
        assert_eq!(topic_of(&out), &*record.topic);
        stamp(&mut out, crc, its);
        out
    }

    proptest! {
        #[test]
        fn round_trips(
            record in any_record(), at in 0..1u64 << 48, sequence: u64, time_ms: i64, undurable: u32, kept: Option<i64>,
        ) {
            let position = Position::new(2, at);
            let bytes = encoded(&record, kept, &Stamp { position, sequence, time_ms, undurable }).freeze();
            prop_assert_eq!(bytes.len(), encoded_size(&record) + if kept.is_some() { 8 } else { 0 });
            prop_assert!(plausible(SEGMENT_VERSION, &bytes));
            prop_assert_eq!(peek_length(SEGMENT_VERSION, &bytes, 1 << 20), Ok(bytes.len()));
            let back = decode(SEGMENT_VERSION, &bytes, position, true).unwrap();
            prop_assert_eq!(back.durable_before, at.saturating_sub(u64::from(undurable)));
            prop_assert_eq!((back.sequence(), back.stored_ms, back.record.kept), (sequence, time_ms, kept.is_some()));
            prop_assert_eq!(&back.record.topic, &record.topic);
            prop_assert_eq!(&back.record.properties, &record.properties);
            prop_assert_eq!(&back.record.payload, &record.payload);
            prop_assert_eq!(back.record.attributes, record.attributes);
            prop_assert_eq!(back.record.retain, record.retain);
            prop_assert_eq!(back.record.time_ms, kept.unwrap_or(time_ms));
        }

        #[test]
        fn any_flipped_bit_is_noticed(record in any_record(), kept: Option<i64>, bit in any::<prop::sample::Index>()) {
            let position = Position::new(0, 4711);
            let mut out = encoded(&record, kept, &at(position));
            let bit = bit.index(out.len() * 8);
            out[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode(SEGMENT_VERSION, &out.freeze(), position, true).is_err());
        }

        #[test]
        fn another_place_is_noticed(record in any_record()) {
            let out = encoded(&record, None, &at(Position::new(0, 100))).freeze();
            prop_assert!(decode(SEGMENT_VERSION, &out, Position::new(0, 101), true).is_err());
            prop_assert!(decode(SEGMENT_VERSION, &out, Position::new(1, 100), true).is_err());
        }

        #[test]
        fn headers_round_trip_and_any_flipped_bit_is_noticed(
            version in 1..=SEGMENT_VERSION, log: u128, first: u64, first_sequence: u64, bit in 0..SEGMENT_HEADER_BYTES as usize * 8,
        ) {
            let header = SegmentHeader { version, log: Uuid::from_u128(log), first: Position::from_u64(first), first_sequence };
            let mut bytes = header.encode();
            prop_assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(SegmentHeader::decode(&bytes).is_err());
        }

        #[test]
        fn any_bytes_are_refused_or_read(bytes: Vec<u8>, version in 1..=SEGMENT_VERSION) {
            let _ = (plausible(version, &bytes), peek_length(version, &bytes, 100));
            let _ = decode(version, &bytes.into(), Position::ZERO, false);
        }
    }

    #[test]
    fn header_round_trips_and_refuses() {
        let first = Position::new(0, 4096);
        let header =
            SegmentHeader { version: SEGMENT_VERSION, log: Uuid::new_v4(), first, first_sequence: 77 };
        let mut bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        bytes[20] ^= 1;
        assert!(SegmentHeader::decode(&bytes).unwrap_err().contains("checksum"));
        let newer = SegmentHeader { version: 4, ..header }.encode();
        assert!(SegmentHeader::decode(&newer).unwrap_err().contains("format is 4"));
    }
}
