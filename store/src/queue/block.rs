//! Packed blocks of index entries.

use crate::{Pointer, Position};

/// Most entries of one block: what is decoded to find one of them.
pub(crate) const ENTRIES_MAX: usize = 512;

const _: () = assert!(ENTRIES_MAX > 0);

/// Packs up to [`ENTRIES_MAX`] entries, whose positions must grow.
///
/// ```text
///    version           1  1
///    count                varint
///    first position       varint
///    size                 varint
///    then for each further entry:
///      distance           varint; from the end of the record before to this one
///      size               varint
/// ```
/// Records of one queue are near to each other in the log, often adjoining: the distance is then 0, and an entry takes two or
/// three bytes.
pub(crate) fn encode(entries: &[Pointer]) -> Vec<u8> {
    debug_assert!(entries.len() <= ENTRIES_MAX);
    let mut out = Vec::with_capacity(12 + entries.len() * 4);
    out.push(VERSION);
    put_varint(&mut out, entries.len() as u64);
    let mut end = 0;
    for entry in entries {
        let at = entry.position.to_u64();
        debug_assert!(at >= end);
        put_varint(&mut out, at.saturating_sub(end));
        put_varint(&mut out, u64::from(entry.size));
        end = at + u64::from(entry.size);
    }
    out
}

const VERSION: u8 = 1;

/// How many entries a block has.
pub(crate) fn count(block: &[u8]) -> Result<usize, &'static str> {
    let mut rest = block;
    header(&mut rest)
}

/// Unpacks a block.
pub(crate) fn decode(block: &[u8]) -> Result<Vec<Pointer>, &'static str> {
    let mut rest = block;
    let count = header(&mut rest)?;
    let mut entries = Vec::with_capacity(count);
    let mut end = 0u64;
    for _ in 0..count {
        let at = end.checked_add(varint(&mut rest)?).ok_or("a position overflows")?;
        let size = u32::try_from(varint(&mut rest)?).map_err(|_| "a size overflows")?;
        end = at.checked_add(u64::from(size)).ok_or("a position overflows")?;
        entries.push(Pointer { position: Position::from_u64(at), size });
    }
    if rest.is_empty() { Ok(entries) } else { Err("bytes follow the last entry") }
}

fn header(rest: &mut &[u8]) -> Result<usize, &'static str> {
    let (version, after) = rest.split_first().ok_or("it is empty")?;
    if *version != VERSION {
        return Err("its version is not known");
    }
    *rest = after;
    let count = varint(rest)? as usize;
    if count > ENTRIES_MAX { Err("it has too many entries") } else { Ok(count) }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint(rest: &mut &[u8]) -> Result<u64, &'static str> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first().ok_or("it is cut off")?;
        *rest = after;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err("a number overflows");
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number is too long")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips(steps in prop::collection::vec((0u64..1 << 30, any::<u32>()), 0..ENTRIES_MAX)) {
            let mut at = 0;
            let entries: Vec<Pointer> = steps.into_iter().map(|(distance, size)| {
                let position = Position::from_u64(at + distance);
                at += distance + u64::from(size);
                Pointer { position, size }
            }).collect();
            let block = encode(&entries);
            prop_assert_eq!(count(&block), Ok(entries.len()));
            prop_assert_eq!(decode(&block), Ok(entries));
        }

        #[test]
        fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn adjoining_records_take_few_bytes() {
        let entries: Vec<_> =
            (0..512).map(|i| Pointer { position: Position::new(0, i * 300), size: 300 }).collect();
        assert!(encode(&entries).len() < 512 * 4);
    }
}
