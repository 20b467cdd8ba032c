//! [`Merge`]: several shards read side by side, in the order of sequences.

use std::sync::Arc;

use super::format::Decoded;
use super::scan::{Scanner, Step};
use super::segment::Segment;
use crate::{Position, Result, StoreError};

/// A walk over several shards.
pub(crate) struct Merge<'a> {
    walks: Vec<Walk<'a>>,
}

/// The walk over one of them.
struct Walk<'a> {
    shard: u16,
    scanner: Scanner<'a>,
    /// Records from this offset on are left out.
    limit: u64,
    /// After the last record that was given out; the limit, once there is no more.
    at: u64,
    /// The next record.
    head: Option<Box<Decoded>>,
    /// Smaller than that of every later record.
    sequence: u64,
    ended: bool,
}

impl<'a> Merge<'a> {
    /// Walks over shards: for each its number and segments, from where and up to where.
    pub(crate) fn new(shards: Vec<(u16, &'a [Arc<Segment>], u64, u64)>) -> Self {
        let count = shards.len();
        let walks = shards.into_iter().map(|(shard, segments, from, limit)| Walk {
            shard,
            scanner: Scanner::new(shard, segments, from).among(count),
            limit,
            at: from,
            head: None,
            sequence: 0,
            ended: false,
        });
        Merge { walks: walks.collect() }
    }

    /// The next record of all shards. Where one ends before its limit, `end` is told, once, and says whether that may be.
    pub(crate) fn next(
        &mut self,
        mut end: impl FnMut(u16, Step) -> Result<()>,
    ) -> Result<Option<Box<Decoded>>> {
        for walk in &mut self.walks {
            if walk.head.is_none() && !walk.ended {
                walk.step(&mut end)?;
            }
        }
        let heads = self.walks.iter_mut().filter(|walk| walk.head.is_some());
        let first = heads.min_by_key(|walk| walk.head.as_ref().map_or(u64::MAX, |head| head.sequence()));
        Ok(first.and_then(Walk::take))
    }

    /// Where each shard goes on after what was given out.
    pub(crate) fn places(&self) -> impl Iterator<Item = Position> {
        self.walks.iter().map(|walk| Position::new(walk.shard, walk.at))
    }
}

impl Walk<'_> {
    fn step(&mut self, end: &mut impl FnMut(u16, Step) -> Result<()>) -> Result<()> {
        if self.at >= self.limit {
            self.ended = true;
            return Ok(());
        }
        match self.scanner.step()? {
            Step::Record(decoded) if decoded.record.position.offset() >= self.limit => {
                self.ended = true;
                self.at = self.limit;
            }
            Step::Record(decoded) => {
                let (position, sequence) = (decoded.record.position, decoded.sequence());
                if sequence <= self.sequence {
                    let what =
                        format!("its sequence is {sequence}, and the record before has {}", self.sequence);
                    return Err(StoreError::Corrupt { position, what });
                }
                self.sequence = sequence;
                self.head = Some(decoded);
            }
            ended => {
                self.ended = true;
                self.at = self.limit;
                end(self.shard, ended)?;
            }
        }
        Ok(())
    }

    fn take(&mut self) -> Option<Box<Decoded>> {
        let head = self.head.take()?;
        self.at = head.record.position.offset() + u64::from(head.record.size);
        Some(head)
    }
}
