//! Where queues end: many of them in one row, so that a million are read in a moment when a store is opened.

use super::varint;
use crate::QueueId;

/// First byte of every key.
pub(crate) const PREFIX: u8 = 4;
/// Numbers of queues that share a row.
pub(crate) const ROW_QUEUES: u64 = 256;

const LENGTH: usize = 1 + 8;

/// Ends of the queues with numbers `row * ROW_QUEUES` and following:
///
/// ```text
/// key    prefix (4) ‖ row (u64, big-endian)
/// value  for each queue, by number:
///          place    varint; the queue's number, counted from the row's first
///          end      varint; offset of its next entry
/// ```
/// A checkpoint writes only what changed; RocksDB merges it into the row ([`merge`]).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Ends(pub(crate) Vec<(QueueId, u64)>);

/// The key of the row that has a queue.
pub(crate) fn key(queue: QueueId) -> [u8; LENGTH] {
    let mut key = [PREFIX; LENGTH];
    key[1..].copy_from_slice(&(queue.0 / ROW_QUEUES).to_be_bytes());
    key
}

fn row(key: &[u8]) -> Option<u64> {
    let (prefix, row) = key.split_first()?;
    (*prefix == PREFIX).then_some(u64::from_be_bytes(row.try_into().ok()?))
}

/// Packs ends of queues of one row, sorted by number.
pub(crate) fn encode(ends: &[(QueueId, u64)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(ends.len() * 4);
    for (queue, end) in ends {
        varint::put(&mut out, queue.0 % ROW_QUEUES);
        varint::put(&mut out, *end);
    }
    out
}

/// Unpacks a row.
pub(crate) fn decode(key: &[u8], mut value: &[u8]) -> Result<Ends, &'static str> {
    let first = row(key).and_then(|row| row.checked_mul(ROW_QUEUES)).ok_or("its key is none")?;
    let mut ends = Ends::default();
    while !value.is_empty() {
        let place = varint::get(&mut value)?;
        if place >= ROW_QUEUES {
            return Err("a queue is not of this row");
        }
        ends.0.push((QueueId(first + place), varint::get(&mut value)?));
    }
    Ok(ends)
}

/// One row of several: later ends replace earlier ones. What cannot be read is left as it is, behind what can, so that the row cannot
/// be read either.
pub(crate) fn merge<'a>(parts: impl Iterator<Item = &'a [u8]> + Clone) -> Vec<u8> {
    let mut whole = std::collections::BTreeMap::new();
    for mut part in parts.clone() {
        while !part.is_empty() {
            let pair = varint::get(&mut part).and_then(|place| Ok((place, varint::get(&mut part)?)));
            match pair {
                Ok((place, end)) => drop(whole.insert(place, end)),
                Err(_) => return parts.flatten().copied().collect(),
            }
        }
    }
    let mut out = Vec::with_capacity(whole.len() * 4);
    for (place, end) in whole {
        varint::put(&mut out, place);
        varint::put(&mut out, end);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips(row in 0..1u64 << 50, ends in prop::collection::btree_map(0..ROW_QUEUES, any::<u64>(), 0..50)) {
            let ends: Vec<_> = ends.into_iter().map(|(place, end)| (QueueId(row * ROW_QUEUES + place), end)).collect();
            prop_assert_eq!(decode(&key(QueueId(row * ROW_QUEUES)), &encode(&ends)), Ok(Ends(ends)));
        }

        #[test]
        fn the_last_end_counts(steps in prop::collection::vec(prop::collection::btree_map(0..ROW_QUEUES, any::<u64>(), 0..20), 1..5)) {
            let rows: Vec<Vec<u8>> = steps.iter().map(|step| {
                encode(&step.iter().map(|(place, end)| (QueueId(*place), *end)).collect::<Vec<_>>())
            }).collect();
            let mut expected = std::collections::BTreeMap::new();
            steps.into_iter().for_each(|step| expected.extend(step));
            let expected: Vec<_> = expected.into_iter().map(|(place, end)| (QueueId(place), end)).collect();
            prop_assert_eq!(decode(&key(QueueId(0)), &merge(rows.iter().map(Vec::as_slice))), Ok(Ends(expected)));
        }

        #[test]
        fn any_bytes_are_refused_or_read(key: Vec<u8>, value: Vec<u8>) {
            let _ = decode(&key, &value);
            let _ = merge([value.as_slice(), &value].into_iter());
        }
    }
}
