//! Packed blocks of index entries.

use smallvec::SmallVec;

use super::varint;
use crate::position::OFFSET_MAX;
use crate::{Pointer, Position};

/// Offsets of a queue that share one key: what is decoded to find one of them.
pub(crate) const BLOCK_ENTRIES: u64 = 512;

const _: () = assert!(BLOCK_ENTRIES.is_power_of_two());

/// First byte of a block.
const VERSION: u8 = 2;
/// First byte of what a merge leaves of blocks that do not fit together: they are kept for whoever looks into it.
const BROKEN: u8 = 0xff;

/// Offset at which the block begins that holds `offset`.
pub(crate) const fn base_of(offset: u64) -> u64 {
    offset - offset % BLOCK_ENTRIES
}

/// Entries of one queue that follow each other, all in one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    /// Place of the first entry, counted from the block's base offset.
    pub(crate) first: u64,
    pub(crate) entries: Vec<Pointer>,
}

/// Where the last record of each shard ended, as far as the block has any.
type Ends = SmallVec<[(u16, u64); 4]>;

/// Sets where the last record of a shard ended, and says where it ended before.
fn replace_end(ends: &mut Ends, shard: u16, end: impl FnOnce(u64) -> Option<u64>) -> Option<u64> {
    if let Some((_, known)) = ends.iter_mut().find(|(number, _)| *number == shard) {
        let before = *known;
        *known = end(before)?;
        return Some(before);
    }
    ends.push((shard, end(0)?));
    Some(0)
}

/// Packs entries; of those that are in one shard, positions must grow.
///
/// ```text
///    version        1  2
///    first             varint; place of the first entry in the block
///    count             varint
///    then for each entry:
///      distance        varint; bit 0: the shard is not that of the entry before (for the first entry: not 0) and
///                      follows; the rest: bytes from the end of the block's record before it in the same shard
///                      (from the shard's begin if there is none) to this one
///      shard           varint; only where bit 0 of the distance is set
///      size            varint; bytes of the record
/// ```
/// Records of one queue are near to each other in the log, often adjoining: the distance is then 0, and an entry takes two or
/// three bytes. Several such parts of one block, each written by its own checkpoint, are merged by RocksDB ([`merge`]).
pub(crate) fn encode(first: u64, entries: &[Pointer], out: &mut Vec<u8>) {
    debug_assert!(first + entries.len() as u64 <= BLOCK_ENTRIES);
    out.push(VERSION);
    varint::put(out, first);
    varint::put(out, entries.len() as u64);
    let mut ends = Ends::new();
    let mut shard = 0;
    for entry in entries {
        let (at, its_shard) = (entry.position.offset(), entry.position.shard());
        let before = replace_end(&mut ends, its_shard, |_| Some(at + u64::from(entry.size))).unwrap_or(0);
        debug_assert!(at >= before);
        let distance = at.saturating_sub(before) << 1;
        if its_shard == shard {
            varint::put(out, distance);
        } else {
            varint::put(out, distance | 1);
            varint::put(out, u64::from(its_shard));
            shard = its_shard;
        }
        varint::put(out, u64::from(entry.size));
    }
}

/// Unpacks a block.
pub(crate) fn decode(block: &[u8]) -> Result<Block, &'static str> {
    let (version, mut rest) = block.split_first().ok_or("it is empty")?;
    match *version {
        VERSION => {}
        BROKEN => return Err("its parts do not follow each other"),
        _ => return Err("its version is not known"),
    }
    let rest = &mut rest;
    let (first, count) = (varint::get(rest)?, varint::get(rest)?);
    if first.checked_add(count).is_none_or(|end| end > BLOCK_ENTRIES) {
        return Err("it has too many entries");
    }
    let mut entries = Vec::with_capacity(count as usize);
    let mut ends = Ends::new();
    let mut shard = 0;
    for _ in 0..count {
        let distance = varint::get(rest)?;
        if distance & 1 == 1 {
            shard = u16::try_from(varint::get(rest)?).map_err(|_| "a shard overflows")?;
        }
        let size = u32::try_from(varint::get(rest)?).map_err(|_| "a size overflows")?;
        let end = |before: u64| {
            before.checked_add((distance >> 1) + u64::from(size)).filter(|end| *end <= OFFSET_MAX)
        };
        let before = replace_end(&mut ends, shard, end).ok_or("a position overflows")?;
        entries.push(Pointer { position: Position::new(shard, before + (distance >> 1)), size });
    }
    if rest.is_empty() { Ok(Block { first, entries }) } else { Err("bytes follow the last entry") }
}

/// One block of parts that follow each other, as RocksDB holds them until it merges them.
pub(crate) fn merge<'a>(parts: impl Iterator<Item = &'a [u8]> + Clone) -> Vec<u8> {
    let mut whole: Option<Block> = None;
    for part in parts.clone() {
        match (decode(part), &mut whole) {
            (Ok(part), None) => whole = Some(part),
            (Ok(part), Some(whole)) if whole.first + whole.entries.len() as u64 == part.first => {
                whole.entries.extend(part.entries);
            }
            _ => return broken(parts),
        }
    }
    let mut out = Vec::new();
    if let Some(whole) = whole {
        if !grows(&whole.entries) {
            return broken(parts);
        }
        encode(whole.first, &whole.entries, &mut out);
    }
    out
}

/// Whether records of the same shard follow each other: other entries cannot be packed.
fn grows(entries: &[Pointer]) -> bool {
    let mut ends = Ends::new();
    entries.iter().all(|entry| {
        let at = entry.position.offset();
        let end = |before| (before <= at).then_some(at + u64::from(entry.size));
        replace_end(&mut ends, entry.position.shard(), end).is_some()
    })
}

fn broken<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = vec![BROKEN];
    for part in parts {
        varint::put(&mut out, part.len() as u64);
        out.extend_from_slice(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_entries() -> impl Strategy<Value = Vec<Pointer>> {
        let step = (0u16..3, 0u64..1 << 30, any::<u32>());
        prop::collection::vec(step, 0..BLOCK_ENTRIES as usize).prop_map(|steps| {
            let mut ends = [0u64; 3];
            let place = |(shard, distance, size): (u16, u64, u32)| {
                let end = &mut ends[usize::from(shard)];
                let position = Position::new(shard, *end + distance);
                *end = position.offset() + u64::from(size);
                Pointer { position, size }
            };
            steps.into_iter().map(place).collect()
        })
    }

    fn packed(first: u64, entries: &[Pointer]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(first, entries, &mut out);
        out
    }

    proptest! {
        #[test]
        fn round_trips(entries in any_entries()) {
            let first = BLOCK_ENTRIES - entries.len() as u64;
            prop_assert_eq!(decode(&packed(first, &entries)), Ok(Block { first, entries }));
        }

        #[test]
        fn parts_merge_to_the_whole(entries in any_entries(), cuts in prop::collection::vec(0..512usize, 0..4)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(entries.len())).chain([0, entries.len()]).collect();
            cuts.sort_unstable();
            let parts: Vec<Vec<u8>> = cuts.windows(2).map(|pair| packed(pair[0] as u64, &entries[pair[0]..pair[1]])).collect();
            prop_assert_eq!(merge(parts.iter().map(Vec::as_slice)), packed(0, &entries));
            // In any grouping: RocksDB merges what it meets.
            let some = merge(parts.iter().skip(1).map(Vec::as_slice));
            if parts.len() > 1 {
                prop_assert_eq!(merge([parts[0].as_slice(), &some].into_iter()), packed(0, &entries));
            }
        }

        #[test]
        fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
            let _ = merge([bytes.as_slice(), &bytes].into_iter());
        }
    }

    #[test]
    fn parts_with_a_hole_are_kept_and_refused() {
        let entry = [Pointer { position: Position::new(0, 48), size: 10 }];
        let merged = merge([packed(0, &entry).as_slice(), &packed(2, &entry)].into_iter());
        assert!(decode(&merged).unwrap_err().contains("do not follow"));
    }

    #[test]
    fn parts_that_go_back_in_the_log_are_kept_and_refused() {
        let entry = |at| [Pointer { position: Position::new(0, at), size: 10 }];
        let merged = merge([packed(0, &entry(48)).as_slice(), &packed(1, &entry(50))].into_iter());
        assert!(decode(&merged).unwrap_err().contains("do not follow"));
    }

    #[test]
    fn adjoining_records_take_few_bytes() {
        let entries: Vec<_> =
            (0..512).map(|i| Pointer { position: Position::new(0, i * 300), size: 300 }).collect();
        assert!(packed(0, &entries).len() < 512 * 4);
    }
}
