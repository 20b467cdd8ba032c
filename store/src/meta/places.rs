//! [`Places`]: places of cursors in memory, as many to a row as on disk.

use foldhash::HashMap;

use crate::{CursorId, CursorPlace};

/// Numbers of cursors that share a row.
pub(super) const ROW_CURSORS: u64 = 256;

const WORD_BITS: u64 = u64::BITS as u64;
const WORDS: usize = (ROW_CURSORS / WORD_BITS) as usize;

/// The last place of each of some cursors. A million of them are four thousand rows: moving one costs a look into a small table, and none
/// need be sorted to be written row by row.
#[derive(Debug, Default)]
pub(super) struct Places {
    rows: HashMap<u64, Box<Row>>,
}

#[derive(Debug)]
struct Row {
    /// Which of the places count, one bit each.
    taken: [u64; WORDS],
    places: [CursorPlace; ROW_CURSORS as usize],
}

/// The row of a cursor, its place in it, and the word and bit that say whether it counts.
fn split(cursor: CursorId) -> (u64, usize, usize, u64) {
    let inside = cursor.0 % ROW_CURSORS;
    (cursor.0 / ROW_CURSORS, inside as usize, (inside / WORD_BITS) as usize, 1 << (inside % WORD_BITS))
}

impl Row {
    fn new() -> Box<Self> {
        Box::new(Row { taken: [0; WORDS], places: [CursorPlace::default(); ROW_CURSORS as usize] })
    }

    fn has(&self, word: usize, bit: u64) -> bool {
        self.taken.get(word).is_some_and(|word| word & bit != 0)
    }
}

impl Places {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn set(&mut self, cursor: CursorId, place: CursorPlace) {
        let (row, inside, word, bit) = split(cursor);
        let row = self.rows.entry(row).or_insert_with(Row::new);
        if let (Some(slot), Some(word)) = (row.places.get_mut(inside), row.taken.get_mut(word)) {
            *slot = place;
            *word |= bit;
        }
    }

    pub(super) fn get(&self, cursor: CursorId) -> Option<CursorPlace> {
        let (row, inside, word, bit) = split(cursor);
        let row = self.rows.get(&row).filter(|row| row.has(word, bit))?;
        row.places.get(inside).copied()
    }

    pub(super) fn remove(&mut self, cursor: CursorId) {
        let (number, _, word, bit) = split(cursor);
        let Some(row) = self.rows.get_mut(&number) else { return };
        if let Some(word) = row.taken.get_mut(word) {
            *word &= !bit;
        }
        if row.taken.iter().all(|word| *word == 0) {
            self.rows.remove(&number);
        }
    }

    /// Numbers of the rows, in order.
    pub(super) fn rows(&self) -> Vec<u64> {
        let mut rows: Vec<u64> = self.rows.keys().copied().collect();
        rows.sort_unstable();
        rows
    }

    /// The places of a row, in the order of their cursors.
    pub(super) fn of_row(&self, number: u64) -> impl Iterator<Item = (CursorId, CursorPlace)> {
        let row = self.rows.get(&number);
        let places = row
            .into_iter()
            .flat_map(|row| (0..).zip(&row.places).map(move |(inside, place)| (row, inside, place)));
        places.filter_map(move |(row, inside, place)| {
            let cursor = CursorId(number * ROW_CURSORS + inside);
            let (_, _, word, bit) = split(cursor);
            row.has(word, bit).then_some((cursor, *place))
        })
    }

    /// All places.
    pub(super) fn iter(&self) -> impl Iterator<Item = (CursorId, CursorPlace)> {
        self.rows.keys().flat_map(|row| self.of_row(*row))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_a_map(steps in prop::collection::vec((0..1000u64, prop::option::of(any::<u64>())), 0..300)) {
            let (mut places, mut expected) = (Places::default(), BTreeMap::new());
            for (cursor, offset) in steps {
                let cursor = CursorId(cursor);
                match offset {
                    Some(offset) => {
                        places.set(cursor, CursorPlace { offset, sequence: 1 });
                        expected.insert(cursor, CursorPlace { offset, sequence: 1 });
                    }
                    None => {
                        places.remove(cursor);
                        expected.remove(&cursor);
                    }
                }
            }
            for cursor in (0..1000).map(CursorId) {
                prop_assert_eq!(places.get(cursor), expected.get(&cursor).copied());
            }
            let in_order: Vec<_> = places.rows().into_iter().flat_map(|row| places.of_row(row)).collect();
            prop_assert_eq!(in_order, expected.iter().map(|(cursor, place)| (*cursor, *place)).collect::<Vec<_>>());
            prop_assert_eq!(places.iter().count(), expected.len());
            prop_assert_eq!(places.is_empty(), expected.is_empty());
        }
    }
}
