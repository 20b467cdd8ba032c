//! [`Walk`]: every record of the log in the order of sequences, past what is damaged.

use std::sync::Arc;

use super::data::Chain;
use super::{Findings, Place};
use crate::log::cut::Cut;
use crate::log::format::{Decoded, SEGMENT_HEADER_BYTES};
use crate::log::scan::{Scanner, Step, good_after, proof_of_corruption, written_after};
use crate::log::segment::Segment;
use crate::{Position, Result};

/// A walk over all shards.
pub(super) struct Walk<'a> {
    shards: Vec<ShardWalk<'a>>,
    /// Of the record before, over all shards.
    sequence: u64,
    time_ms: i64,
    /// Offsets without good records, by shard: from, to.
    pub(super) damage: Vec<Vec<(u64, u64)>>,
    /// Records that there should be by their sequences and are not.
    pub(super) missing: u64,
    /// The first record behind such a gap.
    pub(super) missing_before: Option<Position>,
    /// Bytes read.
    pub(super) bytes: u64,
    /// The log behind its last record.
    pub(super) end: Cut,
}

/// The walk over one shard.
struct ShardWalk<'a> {
    shard: u16,
    segments: &'a [Arc<Segment>],
    /// Records before this offset are in the index: they were durable.
    known: u64,
    index: usize,
    scanner: Option<Scanner<'a>>,
    head: Option<Box<Decoded>>,
    sequence: u64,
    /// After the last good record.
    at: u64,
    ended: bool,
}

impl<'a> Walk<'a> {
    /// From the log's begin; before `cut`, a torn tail is corruption.
    pub(super) fn new(chains: &'a [Chain], cut: &Cut) -> Self {
        let shards = chains.iter().map(|chain| ShardWalk {
            shard: chain.shard,
            segments: &chain.segments,
            known: cut.end(chain.shard),
            index: 0,
            scanner: None,
            head: None,
            sequence: 0,
            at: chain.start(),
            ended: false,
        });
        Walk {
            shards: shards.collect(),
            sequence: 0,
            time_ms: i64::MIN,
            damage: chains.iter().map(|chain| chain.holes.clone()).collect(),
            missing: 0,
            missing_before: None,
            bytes: 0,
            end: Cut::default(),
        }
    }

    /// The next record; what is wrong on the way to it is told.
    pub(super) fn next(&mut self, findings: &mut Findings) -> Result<Option<Box<Decoded>>> {
        for shard in &mut self.shards {
            while shard.head.is_none() && !shard.ended {
                let damage = self.damage.get_mut(usize::from(shard.shard));
                if let Some((from, to)) = shard.step(findings)?
                    && let Some(damage) = damage
                {
                    damage.push((from, to));
                }
            }
        }
        let heads = self.shards.iter_mut().filter(|shard| shard.head.is_some());
        let first = heads.min_by_key(|shard| shard.head.as_ref().map_or(u64::MAX, |head| head.sequence()));
        let Some(decoded) = first.and_then(|shard| shard.head.take()) else {
            self.finish();
            return Ok(None);
        };
        let (place, sequence) = (Place::Log(decoded.record.position), decoded.sequence());
        if sequence == self.sequence {
            findings.problem(place.clone(), format!("another record has its sequence {sequence} too"));
        } else if self.sequence > 0 && sequence > self.sequence + 1 {
            self.missing += sequence - self.sequence - 1;
            self.missing_before.get_or_insert(decoded.record.position);
        }
        if decoded.stored_ms < self.time_ms {
            let what = format!(
                "it was stored at {} ms, and the record before at {} ms",
                decoded.stored_ms, self.time_ms
            );
            findings.problem(place, what);
        }
        self.sequence = self.sequence.max(sequence);
        self.time_ms = self.time_ms.max(decoded.stored_ms);
        self.bytes += u64::from(decoded.record.size);
        Ok(Some(decoded))
    }

    fn finish(&mut self) {
        self.end = Cut {
            sequence: self.sequence + 1,
            time_ms: self.time_ms.max(0),
            ends: self.shards.iter().map(|shard| (shard.shard, shard.at)).collect(),
        };
    }

    /// Whether the record at a position cannot be read.
    pub(super) fn is_damaged(&self, position: Position) -> bool {
        let at = position.offset();
        let damage = self.damage.get(usize::from(position.shard()));
        damage.is_some_and(|damage| damage.iter().any(|(from, to)| (*from..*to).contains(&at)))
    }
}

impl ShardWalk<'_> {
    /// One step. Where it met no good record, from and to where there is none.
    fn step(&mut self, findings: &mut Findings) -> Result<Option<(u64, u64)>> {
        let segments = self.segments;
        let Some(segment) = segments.get(self.index) else {
            self.ended = true;
            return Ok(self.lacks_known(findings));
        };
        let next = segments.get(self.index + 1);
        // By itself: what is between segments was told when they were opened.
        let own = std::slice::from_ref(segment);
        let scanner = self
            .scanner
            .get_or_insert_with(|| Scanner::new(self.shard, own, segment.first).among(SHARED_WINDOWS));
        match scanner.step()? {
            Step::Record(decoded) => {
                let (record, sequence) = (&decoded.record, decoded.sequence());
                if sequence <= self.sequence {
                    let what =
                        format!("its sequence is {sequence}, and the record before has {}", self.sequence);
                    findings.problem(Place::Log(record.position), what);
                }
                self.sequence = self.sequence.max(sequence);
                self.at = record.position.offset() + u64::from(record.size);
                self.head = Some(decoded);
                Ok(None)
            }
            Step::End { at } => {
                let bytes = written_after(segment, at)?;
                let file_end = segment.first + segment.file_bytes()?;
                if next.is_some() && at < file_end {
                    let what = "nothing was written here, and the log goes on in the next segment".to_owned();
                    return self.bad(segment, at, what, findings);
                }
                if bytes > 0 {
                    return self.bad(
                        segment,
                        at,
                        "nothing was written here, and bytes follow".into(),
                        findings,
                    );
                }
                self.at = self.at.max(at);
                self.next_segment();
                Ok(None)
            }
            Step::Bad { at, what } => self.bad(segment, at, what, findings),
        }
    }

    /// Something that is not a record: a torn tail, or corruption.
    fn bad(
        &mut self,
        segment: &Arc<Segment>,
        at: u64,
        what: String,
        findings: &mut Findings,
    ) -> Result<Option<(u64, u64)>> {
        let place = Position::new(self.shard, at);
        let end = segment.first + segment.file_bytes()?;
        let is_last = self.index + 1 == self.segments.len();
        if is_last && at >= self.known && proof_of_corruption(self.shard, segment, at)?.is_none() {
            let bytes = written_after(segment, at)?;
            findings.note(format!(
                "shard {} has a torn tail of {bytes} bytes at {place}, never acknowledged as durable: the next start cuts it",
                self.shard
            ));
            self.next_segment();
            return Ok(None);
        }
        let good = good_after(self.shard, segment, at, |_| true)?;
        let goes_on = match good {
            Some(good) => format!("the next good record is at {}", Position::new(self.shard, good)),
            None => "no good record follows in this segment".to_owned(),
        };
        findings.problem(Place::Log(place), format!("{what}; {goes_on}"));
        match good {
            Some(good) => {
                self.scanner = Some(Scanner::new(self.shard, self.one_segment(), good).among(SHARED_WINDOWS));
            }
            None => self.next_segment(),
        }
        let to = good.unwrap_or_else(|| if is_last { end.max(self.known) } else { end });
        self.at = self.at.max(to.min(end));
        Ok(Some((at, to)))
    }

    fn next_segment(&mut self) {
        self.index += 1;
        self.scanner = None;
    }

    /// The index knows records that are not there.
    fn lacks_known(&mut self, findings: &mut Findings) -> Option<(u64, u64)> {
        let at = self.at.max(SEGMENT_HEADER_BYTES);
        if self.known <= at {
            return None;
        }
        let known = Position::new(self.shard, self.known);
        let what = format!("the log ends here, and the index knows records up to {known}");
        findings.problem(Place::Log(Position::new(self.shard, at)), what);
        Some((at, self.known))
    }
}

impl<'a> ShardWalk<'a> {
    fn one_segment(&self) -> &'a [Arc<Segment>] {
        self.segments.get(self.index..=self.index).unwrap_or_default()
    }
}

/// Scanners that share the memory of one, about: of shards that are read side by side.
const SHARED_WINDOWS: usize = 4;
