//! What the fuzz targets of `fuzz/` call: bytes as they may be found on disk, whatever they are, are refused or read, and what was read
//! is written as it was. Not a part of the interface.

use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::BytesMut;
use rustix::fs::{MemfdFlags, memfd_create};
use uuid::Uuid;

use crate::log::cut::Cut;
use crate::log::format::{self, SEGMENT_HEADER_BYTES, SEGMENT_VERSION, SegmentHeader, Stamp};
use crate::log::scan::{Scanner, Step, proof_of_corruption, written_after};
use crate::log::segment::Segment;
use crate::queue::block;
use crate::queue::block_key::BlockKey;
use crate::queue::ends;
use crate::{NewRecord, Position, QueueId};

/// The segment is of version 1, or of version 2.
const OLD: u8 = 1;
const LATER: u8 = 4;
/// Checksums are made right, so that what comes after them is reached.
const CHECKED: u8 = 2;

/// A segment: a byte that says how it is to be taken, and what follows its header.
///
/// # Panics
/// Something was read that is not there.
pub fn record(data: &[u8]) {
    if let Some(header) = data.first_chunk() {
        let _ = SegmentHeader::decode(header);
    }
    let Some((how, body)) = data.split_first() else { return };
    let version = match how & (OLD | LATER) {
        0 => SEGMENT_VERSION,
        LATER => 2,
        _ => 1,
    };
    let first = Position::new(u16::from(how >> 3), 0);
    let header = SegmentHeader { version, log: Uuid::nil(), first, first_sequence: 0 };
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(body);
    if how & CHECKED != 0 {
        check_all(version, first.shard(), &mut bytes);
    }
    let Some((segment, _file)) = segment(&bytes, first) else { return };
    let segments = [Arc::new(segment)];
    let mut scanner = Scanner::new(first.shard(), &segments, 0);
    let mut at = SEGMENT_HEADER_BYTES;
    while let Ok(step) = scanner.step() {
        match step {
            Step::Record(decoded) => {
                let record = &decoded.record;
                assert_eq!(record.position, Position::new(first.shard(), at), "nothing is passed over");
                let end = at + u64::from(record.size);
                let found = bytes.get(at as usize..end as usize);
                let found = found.unwrap_or_else(|| panic!("{at}..{end} of {}", bytes.len()));
                if version == SEGMENT_VERSION {
                    assert_eq!(again(&decoded), without_reserved(found));
                }
                at = end;
            }
            Step::End { at: end } => {
                assert_eq!(end, at);
                let _ = segments.first().map(|segment| written_after(segment, at));
                break;
            }
            Step::Bad { at: bad, .. } => {
                assert_eq!(bad, at);
                let proof = segments.first().and_then(|s| proof_of_corruption(first.shard(), s, at).ok());
                assert!(proof.flatten().is_none_or(|proof| proof > at));
                break;
            }
        }
    }
}

/// The bytes that such a record is written as, without its checksum.
fn again(decoded: &format::Decoded) -> Vec<u8> {
    let record = decoded.record.clone();
    let new = NewRecord {
        topic: record.topic,
        properties: record.properties,
        payload: record.payload,
        attributes: record.attributes,
        retain: record.retain,
    };
    let stamp = Stamp {
        position: record.position,
        sequence: record.sequence,
        time_ms: decoded.stored_ms,
        // What is before the shard's begin is not told.
        undurable: 0,
    };
    let mut out = BytesMut::new();
    let crc = format::lay_out(&new, record.kept.then_some(record.time_ms), &mut out);
    format::stamp(&mut out, crc, &stamp);
    without_reserved(&out)
}

/// A record without checksum, reserved bytes and how much of it was not durable.
fn without_reserved(record: &[u8]) -> Vec<u8> {
    let skipped = [4..8, 11..16, 38..40];
    let kept = record.iter().enumerate().filter(|(at, _)| !skipped.iter().any(|range| range.contains(at)));
    kept.map(|(_, byte)| *byte).collect()
}

/// Gives each record the checksum that its bytes have.
fn check_all(version: u32, shard: u16, bytes: &mut [u8]) {
    let mut at = SEGMENT_HEADER_BYTES as usize;
    while let Some(rest) = bytes.get_mut(at..)
        && let Ok(length) = format::peek_length(version, rest, rest.len() as u64)
        && length > 0
        && let Some(record) = rest.get_mut(..length)
    {
        let crc = format::checksum(version, Position::new(shard, at as u64), record);
        if let Some(field) = record.get_mut(4..8) {
            field.copy_from_slice(&crc.to_le_bytes());
        }
        at += length;
    }
}

/// A segment in memory, and the file that it is.
fn segment(bytes: &[u8], first: Position) -> Option<(Segment, std::fs::File)> {
    let file = std::fs::File::from(memfd_create("segment", MemfdFlags::CLOEXEC).ok()?);
    std::os::unix::fs::FileExt::write_all_at(&file, bytes, 0).ok()?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    Some((Segment::open(path, Uuid::nil(), first).ok()?, file))
}

/// Values of the index: the lengths of two parts of a value, these parts, and a third one.
///
/// # Panics
/// Parts come out differently when they are merged in another order, or are not written as they were read.
pub fn block(data: &[u8]) {
    let Some((lengths, mut rest)) = data.split_first_chunk::<2>() else { return };
    let mut parts: Vec<&[u8]> = Vec::new();
    for length in lengths {
        let (part, later) = rest.split_at(usize::from(*length).min(rest.len()));
        parts.push(part);
        rest = later;
    }
    parts.push(rest);
    for part in &parts {
        if let Ok(found) = block::decode(part) {
            let mut again = Vec::new();
            block::encode(found.first, &found.entries, &mut again);
            assert_eq!(block::decode(&again), Ok(found));
        }
        let _ = (BlockKey::decode(part), Cut::decode(part).map(|cut| assert_eq!(cut.encode(), **part)));
        let key = ends::key(QueueId(0));
        if let Ok(found) = ends::decode(&key, part) {
            let mut last = std::collections::BTreeMap::new();
            last.extend(found.0);
            let merged = ends::merge([*part].into_iter());
            assert_eq!(ends::decode(&key, &merged), Ok(ends::Ends(last.into_iter().collect())));
        }
        let _ = ends::decode(part, part);
    }
    same_in_any_order(
        &parts,
        |parts| block::merge(parts.iter().copied()),
        |value| block::decode(value).is_ok(),
    );
    let reads = |value: &[u8]| ends::decode(&ends::key(QueueId(0)), value).is_ok();
    same_in_any_order(&parts, |parts| ends::merge(parts.iter().copied()), reads);
}

/// RocksDB merges parts of a value as it meets them.
fn same_in_any_order(parts: &[&[u8]], merge: impl Fn(&[&[u8]]) -> Vec<u8>, is_good: impl Fn(&[u8]) -> bool) {
    let [first, second, third] = parts else { return };
    let whole = merge(parts);
    let left = merge(&[&merge(&[first, second]), third]);
    let right = merge(&[first, &merge(&[second, third])]);
    if parts.iter().all(|part| is_good(part)) {
        assert_eq!(is_good(&whole), is_good(&left));
        assert_eq!(is_good(&whole), is_good(&right));
        if is_good(&whole) {
            assert!(whole == left && whole == right);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Mutations of each file of a corpus.
    const MUTATIONS: u64 = 1500;

    fn number(state: &mut u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *state >> 33
    }

    fn mutate(bytes: &mut Vec<u8>, state: &mut u64) {
        for _ in 0..=number(state) % 4 {
            let length = bytes.len() as u64;
            let at = (number(state) % length.max(1)) as usize;
            match number(state) % 6 {
                _ if bytes.is_empty() => bytes.push(number(state) as u8),
                0 => bytes[at] ^= 1 << (number(state) % 8),
                1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][number(state) as usize % 5],
                2 => bytes.truncate(at),
                3 => bytes.insert(at, number(state) as u8),
                4 => drop(bytes.remove(at)),
                _ => {
                    let part = bytes[at..].to_vec();
                    bytes.extend(part.into_iter().take(200));
                }
            }
        }
    }

    fn run(name: &str, target: fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
        let mut files: Vec<_> =
            std::fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(files.len() > 2);
        for (seed, file) in (1..).zip(files) {
            let bytes = std::fs::read(file).unwrap();
            target(&bytes);
            for mutation in 0..MUTATIONS {
                let mut state = mutation * 1000 + seed;
                let mut bytes = bytes.clone();
                mutate(&mut bytes, &mut state);
                if std::panic::catch_unwind(|| target(&bytes)).is_err() {
                    panic!("{name} {seed}, mutation {mutation}: {}", bytes.escape_ascii());
                }
            }
        }
    }

    #[test]
    fn segments() {
        run("record", super::record);
    }

    #[test]
    fn blocks_and_ends() {
        run("block", super::block);
    }
}
