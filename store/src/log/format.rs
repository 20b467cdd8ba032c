//! What a record and a segment look like on disk. Version 1.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use uuid::Uuid;

use crate::{NewRecord, Position, Record, Retain};

/// Version of the segment format that this code writes, and the newest it reads.
pub(crate) const SEGMENT_VERSION: u32 = 1;
/// Bytes of a segment's header.
pub(crate) const SEGMENT_HEADER_BYTES: u64 = 48;
/// Bytes of a record before its topic.
pub(crate) const RECORD_HEADER_BYTES: usize = 32;

const MAGIC: [u8; 8] = *b"TIDEMILL";
const KIND_MESSAGE: u8 = 1;
const FLAG_RETAIN_SET: u8 = 1;
const FLAG_RETAIN_CLEAR: u8 = 2;

const _: () = assert!(SEGMENT_HEADER_BYTES == 8 + 4 + 16 + 8 + 8 + 4);

/// The header of a segment file.
///
/// ```text
///  0  magic           8  "TIDEMILL"
///  8  version         4  u32
/// 12  log id         16  UUID of the log; a segment of another log is refused
/// 28  first position  8  u64; position of byte 0 of this file
/// 36  reserved        8  zero
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
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES as usize] {
        let mut out = Vec::with_capacity(SEGMENT_HEADER_BYTES as usize);
        out.put_slice(&MAGIC);
        out.put_u32_le(self.version);
        out.put_slice(self.log.as_bytes());
        out.put_u64_le(self.first.to_u64());
        out.put_u64_le(0);
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
        if version > SEGMENT_VERSION {
            return Err(format!("its format is {version}, and this program reads up to {SEGMENT_VERSION}"));
        }
        let mut log = [0; 16];
        rest.copy_to_slice(&mut log);
        let first = Position::from_u64(rest.get_u64_le());
        let _reserved = rest.get_u64_le();
        if rest.get_u32_le() != crc32c::crc32c(&bytes[..44]) {
            return Err("the checksum of its header is wrong".into());
        }
        Ok(SegmentHeader { version, log: Uuid::from_bytes(log), first })
    }
}

/// Bytes that `record` takes in the log.
pub(crate) fn encoded_size(record: &NewRecord) -> usize {
    RECORD_HEADER_BYTES + record.topic.len() + record.properties.len() + record.payload.len()
}

/// Appends one record.
///
/// ```text
///  0  length        4  u32; of the whole record; 0 means: nothing was written here
///  4  crc           4  CRC-32C of the position (u64) and of bytes 8..length
///  8  kind          1  1 = message
///  9  flags         1  bit 0: becomes the retained message, bit 1: clears it
/// 10  attributes    1  the caller's
/// 11  reserved      1  zero
/// 12  undurable     4  u32; bytes before this record that were not synced yet when it was written
/// 16  time          8  i64; milliseconds since the Unix epoch, never less than the record before
/// 24  properties    4  u32; length
/// 28  topic         2  u16; length
/// 30  reserved      2  zero
/// 32  topic, properties, payload
/// ```
/// The length comes first because a reader must know how much to check; the checksum covers the
/// position, so that a record found at another place than it was written to is never taken for
/// good. `undurable` is what lets recovery tell a torn tail from corruption: a good record at P says that
/// everything before `P - undurable` was on disk.
pub(crate) fn encode(
    record: &NewRecord,
    position: Position,
    time_ms: i64,
    undurable: u32,
    out: &mut BytesMut,
) {
    let start = out.len();
    let size = encoded_size(record);
    out.put_u32_le(size as u32);
    out.put_u32_le(0);
    out.put_u8(KIND_MESSAGE);
    out.put_u8(match record.retain {
        Retain::No => 0,
        Retain::Set => FLAG_RETAIN_SET,
        Retain::Clear => FLAG_RETAIN_CLEAR,
    });
    out.put_u8(record.attributes);
    out.put_u8(0);
    out.put_u32_le(undurable);
    out.put_i64_le(time_ms);
    out.put_u32_le(record.properties.len() as u32);
    out.put_u16_le(record.topic.len() as u16);
    out.put_u16_le(0);
    out.put_slice(record.topic.as_bytes());
    out.put_slice(&record.properties);
    out.put_slice(&record.payload);
    debug_assert_eq!(out.len() - start, size);
    let crc = checksum(position, &out[start + 8..]);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

fn checksum(position: Position, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&position.to_u64().to_le_bytes()), body)
}

/// A record as found in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub(crate) record: Record,
    /// Everything before this position was durable when the record was written.
    pub(crate) durable_before: u64,
}

/// Whether a record may begin here, told without its checksum.
pub(crate) fn plausible(head: &[u8]) -> bool {
    let Some(head) = head.first_chunk::<RECORD_HEADER_BYTES>() else { return false };
    let mut rest = &head[..];
    let length = rest.get_u32_le() as usize;
    let _crc = rest.get_u32_le();
    let (kind, flags) = (rest.get_u8(), rest.get_u8());
    let _attributes = rest.get_u8();
    let reserved = rest.get_u8();
    rest.advance(12);
    let inner = rest.get_u32_le() as usize + usize::from(rest.get_u16_le());
    let more_reserved = rest.get_u16_le();
    kind == KIND_MESSAGE
        && flags <= FLAG_RETAIN_CLEAR
        && reserved == 0
        && more_reserved == 0
        && inner + RECORD_HEADER_BYTES <= length
}

/// The length field of the record that `bytes` begins with, if it is there and fits into `room`, the bytes up to the end of
/// the file. `Ok(0)` means that nothing was written here.
pub(crate) fn peek_length(bytes: &[u8], room: u64) -> Result<usize, String> {
    let Some(field) = bytes.first_chunk::<4>() else {
        return Err("the record's length is cut off".into());
    };
    let length = u32::from_le_bytes(*field);
    if length != 0 && (length as usize) < RECORD_HEADER_BYTES {
        return Err(format!("length {length} is less than a record's header"));
    }
    if u64::from(length) > room {
        return Err(format!("length {length} is more than the {room} bytes up to the end of the file"));
    }
    Ok(length as usize)
}

/// Decodes the record that fills `bytes`, sharing them. With `check`, the checksum is verified: for
/// everything that was read back from a file.
pub(crate) fn decode(bytes: &Bytes, position: Position, check: bool) -> Result<Decoded, String> {
    if bytes.len() < RECORD_HEADER_BYTES {
        return Err("the record's header is cut off".into());
    }
    let mut head = &bytes[..RECORD_HEADER_BYTES];
    let length = head.get_u32_le() as usize;
    if length != bytes.len() {
        return Err(format!("length {length} where {} was expected", bytes.len()));
    }
    let crc = head.get_u32_le();
    if check && crc != checksum(position, &bytes[8..]) {
        return Err("the checksum is wrong".into());
    }
    let kind = head.get_u8();
    if kind != KIND_MESSAGE {
        return Err(format!("kind {kind} is not known"));
    }
    let retain = match head.get_u8() {
        FLAG_RETAIN_SET => Retain::Set,
        FLAG_RETAIN_CLEAR => Retain::Clear,
        0 => Retain::No,
        flags => return Err(format!("flags {flags:#x} are not known")),
    };
    let attributes = head.get_u8();
    let _reserved = head.get_u8();
    let undurable = head.get_u32_le();
    let time_ms = head.get_i64_le();
    let properties_length = head.get_u32_le() as usize;
    let topic_length = usize::from(head.get_u16_le());
    let body = bytes.slice(RECORD_HEADER_BYTES..);
    if topic_length + properties_length > body.len() {
        return Err(format!(
            "topic of {topic_length} and properties of {properties_length} bytes do not fit into {length}"
        ));
    }
    let topic =
        ByteString::try_from(body.slice(..topic_length)).map_err(|_| "the topic is not UTF-8".to_string())?;
    let properties = body.slice(topic_length..topic_length + properties_length);
    let payload = body.slice(topic_length + properties_length..);
    let size = length as u32;
    Ok(Decoded {
        record: Record { position, time_ms, topic, properties, payload, attributes, retain, size },
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

    proptest! {
        #[test]
        fn round_trips(record in any_record(), at in 0..1u64 << 48, time in any::<i64>(), undurable in any::<u32>()) {
            let position = Position::new(2, at);
            let mut out = BytesMut::new();
            encode(&record, position, time, undurable, &mut out);
            prop_assert_eq!(out.len(), encoded_size(&record));
            let bytes = out.freeze();
            prop_assert_eq!(peek_length(&bytes, 1 << 20), Ok(bytes.len()));
            let back = decode(&bytes, position, true).unwrap();
            prop_assert_eq!(back.durable_before, at.saturating_sub(u64::from(undurable)));
            prop_assert_eq!(&back.record.topic, &record.topic);
            prop_assert_eq!(&back.record.properties, &record.properties);
            prop_assert_eq!(&back.record.payload, &record.payload);
            prop_assert_eq!(back.record.attributes, record.attributes);
            prop_assert_eq!(back.record.retain, record.retain);
            prop_assert_eq!(back.record.time_ms, time);
        }

        #[test]
        fn any_flipped_bit_is_noticed(record in any_record(), bit in any::<prop::sample::Index>()) {
            let position = Position::new(0, 4711);
            let mut out = BytesMut::new();
            encode(&record, position, 7, 0, &mut out);
            let bit = bit.index(out.len() * 8);
            out[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode(&out.freeze(), position, true).is_err());
        }

        #[test]
        fn another_place_is_noticed(record in any_record()) {
            let mut out = BytesMut::new();
            encode(&record, Position::new(0, 100), 7, 0, &mut out);
            prop_assert!(decode(&out.freeze(), Position::new(0, 101), true).is_err());
        }
    }

    #[test]
    fn header_round_trips_and_refuses() {
        let header = SegmentHeader { version: 1, log: Uuid::new_v4(), first: Position::new(0, 4096) };
        let mut bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        bytes[20] ^= 1;
        assert!(SegmentHeader::decode(&bytes).unwrap_err().contains("checksum"));
        let newer = SegmentHeader { version: 2, ..header }.encode();
        assert!(SegmentHeader::decode(&newer).unwrap_err().contains("format is 2"));
    }
}
