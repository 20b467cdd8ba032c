//! [`verify`]: is everything whole?
//!
//! The log is read once, in the order of sequences. What it says must be in a filter queue is kept as one number for each queue ([`Sum`]);
//! unions, which may have entries by filters of earlier days, and derived queues are followed entry by entry ([`Follow`]). Then the
//! index is read once, in the order of queues. Only queues whose numbers differ are followed in a second pass over the log, which finds
//! the place.

use std::hash::BuildHasher;
use std::path::Path;

use foldhash::HashMap;
use foldhash::fast::FixedState;

use super::data::{Data, log_bytes};
use super::follow::Follow;
use super::queues::{Queue, Queues};
use super::sums::Sum;
use super::walk::Walk;
use super::{Findings, Place, Problem, Progress, Watch};
use crate::log::cut::Cut;
use crate::meta::catalogue::Kind;
use crate::queue::block::Block;
use crate::queue::block_key::BlockKey;
use crate::queue::index::Index;
use crate::{Position, Result};

/// Filter queues that are followed at a time to find where they differ from the log.
const LOCATED_MAX: usize = 256;
/// Records between two tellings of progress.
const TOLD_RECORDS: u64 = 1 << 16;

/// What [`verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// The first problems.
    pub problems: Vec<Problem>,
    /// How many there are in all.
    pub problem_count: u64,
    /// What is not as usual, and no problem: a torn tail, say.
    pub notes: Vec<String>,
    /// Shards of the log.
    pub shards: u64,
    /// Good records of the log.
    pub records: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Queues of the catalogue.
    pub queues: u64,
    /// Entries of these in the index.
    pub entries: u64,
    /// Cursors.
    pub cursors: u64,
    /// Retained messages.
    pub retained: u64,
}

/// What is known of a queue while it is verified.
#[derive(Clone, Copy, Default)]
struct Tally {
    /// What should be in the index.
    expected: Sum,
    /// Records behind the cut that enter it.
    later: u64,
    /// Where its row of ends says that it ends.
    end: Option<u64>,
    /// Something was told of it already.
    told: bool,
}

/// Reads everything and compares it: the log's checksums, sequences and times; each entry of the index with the log, and the log
/// with the index; cursors; retained messages. Up to `problems_max` problems are returned in full.
///
/// # Errors
/// The directory is none, is in use, or a file or the catalogue cannot be read. What can be read and is wrong is no error.
pub fn verify(dir: &Path, problems_max: usize, watch: Watch<'_>) -> Result<Verified> {
    let mut findings = Findings::new(problems_max);
    let data = Data::open(dir, &mut findings)?;
    let index = match &data.index {
        Ok(index) => Some(index),
        Err(error) => {
            findings.problem(Place::Index, error.to_string());
            None
        }
    };
    let cut = match index.map(Index::cut) {
        Some(Ok(cut)) => cut,
        Some(Err(error)) => {
            findings.problem(Place::Index, error.to_string());
            Cut::default()
        }
        None => Cut::default(),
    };
    let queues = Queues::load(&data.meta)?;
    let mut work = Work {
        data: &data,
        cut: &cut,
        tallies: vec![Tally::default(); queues.queues.len()],
        queues: &queues,
        found: Verified {
            shards: data.chains.len() as u64,
            queues: queues.queues.len() as u64,
            ..Verified::default()
        },
        exact: data.chains.len() == 1 || data.starts().iter().all(|start| *start == 0),
    };
    let walk = work.read_log(index, &mut findings, watch)?;
    if let Some(index) = index {
        let suspects = work.read_index(index, &walk, &mut findings, watch)?;
        work.locate(index, &suspects, &mut findings, watch)?;
        work.check_cursors(&mut findings)?;
    }
    let Findings { problems, count, notes, .. } = findings;
    Ok(Verified { problems, problem_count: count, notes, ..work.found })
}

struct Work<'a> {
    data: &'a Data,
    cut: &'a Cut,
    queues: &'a Queues,
    tallies: Vec<Tally>,
    found: Verified,
    /// Of one queue, entries whose records are gone come before all others.
    exact: bool,
}

fn topic_hash(topic: &str) -> u64 {
    FixedState::default().hash_one(topic)
}

impl<'a> Work<'a> {
    fn read_log(
        &mut self,
        index: Option<&'a Index>,
        findings: &mut Findings,
        watch: Watch<'_>,
    ) -> Result<Walk<'a>> {
        let mut retained: HashMap<Position, (u32, u64)> = HashMap::default();
        self.data.meta.every_retained(|topic, pointer| {
            self.found.retained += 1;
            retained.insert(pointer.position, (pointer.size, topic_hash(topic)));
        })?;
        let followed = (0..).zip(&self.queues.queues).filter(|(_, queue)| queue.kind != Kind::Filter);
        let followed = followed.map(|(place, _): (u32, _)| place);
        let mut follow = match index {
            Some(index) => Some(Follow::new(index, self.queues, self.data.starts(), followed)?),
            None => None,
        };
        let total = log_bytes(&self.data.chains)?;
        let mut walk = Walk::new(&self.data.chains, self.cut);
        let mut matching = Vec::new();
        while let Some(decoded) = walk.next(findings)? {
            let record = &decoded.record;
            self.found.records += 1;
            if self.found.records.is_multiple_of(TOLD_RECORDS) {
                watch(Progress { what: "reading the log", done: walk.bytes, total });
            }
            if record.retain == crate::Retain::Set
                && retained.get(&record.position) == Some(&(record.size, topic_hash(&record.topic)))
            {
                retained.remove(&record.position);
            }
            self.queues.matching(&record.topic, &mut matching);
            let known = self.cut.holds(record.position);
            if !record.kept {
                for place in &matching {
                    self.count(*place, &decoded.record, known);
                }
            }
            if known && let Some(follow) = &mut follow {
                follow.record(record, &matching, |at| walk.is_damaged(at), findings)?;
            }
        }
        self.found.bytes = walk.bytes;
        if let Some(follow) = follow {
            follow.finish(|position| walk.is_damaged(position), findings);
        }
        self.check_sequences(&walk, findings);
        if !retained.is_empty() {
            self.data.meta.every_retained(|topic, pointer| {
                if retained.contains_key(&pointer.position) {
                    let what = format!(
                        "it should be the record of {} bytes at {}, which is none that sets it",
                        pointer.size, pointer.position
                    );
                    findings.problem(Place::Retained(topic.to_owned()), what);
                }
            })?;
        }
        Ok(walk)
    }

    fn count(&mut self, place: u32, record: &crate::Record, known: bool) {
        let (Some(queue), Some(tally)) = (self.queues.get(place), self.tallies.get_mut(place as usize))
        else {
            return;
        };
        let belongs = queue.entered(record) || queue.has_in_history(record);
        match (belongs, known) {
            (true, true) => tally.expected.add(record.pointer()),
            (true, false) => tally.later += 1,
            (false, _) => {}
        }
    }

    fn check_sequences(&self, walk: &Walk<'_>, findings: &mut Findings) {
        let Some(position) = walk.missing_before else { return };
        let count = walk.missing;
        let mut segments = self.data.chains.iter().flat_map(|chain| &chain.segments);
        if segments.any(|segment| segment.version == 1) || walk.damage.iter().any(|damage| !damage.is_empty())
        {
            // An offset was its record's sequence then; or it was told where they were.
            return;
        }
        if self.data.chains.len() == 1 {
            let what =
                format!("{count} records are missing by their sequences, the first of them before this one");
            findings.problem(Place::Log(position), what);
        } else {
            findings.note(format!(
                "{count} sequences have no record, the first before {position}: records that a power cut took from one \
                 shard before they were acknowledged, or that retention did"
            ));
        }
    }

    /// Reads every block. Filter queues whose entries are not those of the log.
    fn read_index(
        &mut self,
        index: &Index,
        walk: &Walk<'_>,
        findings: &mut Findings,
        watch: Watch<'_>,
    ) -> Result<Vec<u32>> {
        let (queues, mut unknown) = (self.queues, 0u64);
        let ends = index.ends(|queue, end| {
            match queues.place(queue).and_then(|place| self.tallies.get_mut(place)) {
                Some(tally) => tally.end = Some(end),
                None => unknown += 1,
            }
        });
        let ends_known = match ends {
            Ok(()) => true,
            Err(error) => {
                findings.problem(Place::Index, error.to_string());
                false
            }
        };
        let mut suspects = Vec::new();
        // The first queue that no blocks were seen of yet.
        let mut at = 0;
        let mut reading: Option<Reading> = None;
        let (mut dead, mut read) = (0u64, 0u64);
        index.every_block(|key, block| {
            read += 1;
            if read % TOLD_RECORDS == 0 {
                watch(Progress { what: "reading the index", done: self.found.entries, total: 0 });
            }
            if reading.as_ref().is_none_or(|reading| reading.queue.id != key.queue) {
                if let Some(reading) = reading.take() {
                    self.settle(reading, ends_known, findings, &mut suspects);
                }
                let Some(place) = queues.place(key.queue) else {
                    dead += 1;
                    return Ok(());
                };
                self.settle_empty(at..place, ends_known, findings, &mut suspects);
                at = place + 1;
                let Some(queue) = queues.queues.get(place) else { return Ok(()) };
                reading = Some(Reading::new(place, queue, self.data.chains.len()));
            }
            if let Some(reading) = &mut reading {
                self.found.entries += reading.block(key, block, self, walk, findings);
            }
            Ok(())
        })?;
        if let Some(reading) = reading {
            self.settle(reading, ends_known, findings, &mut suspects);
        }
        self.settle_empty(at..queues.queues.len(), ends_known, findings, &mut suspects);
        if dead > 0 || unknown > 0 {
            findings.note(format!(
                "the index still has {dead} blocks and {unknown} ends of queues that were deleted: compaction drops them"
            ));
        }
        Ok(suspects)
    }

    fn settle_empty(
        &mut self,
        places: std::ops::Range<usize>,
        ends_known: bool,
        findings: &mut Findings,
        suspects: &mut Vec<u32>,
    ) {
        for place in places {
            if let Some(queue) = self.queues.queues.get(place) {
                self.settle(Reading::new(place, queue, 0), ends_known, findings, suspects);
            }
        }
    }

    /// All blocks of a queue were read: is that what should be there?
    fn settle(
        &mut self,
        reading: Reading<'a>,
        ends_known: bool,
        findings: &mut Findings,
        suspects: &mut Vec<u32>,
    ) {
        let Reading { place, queue, end, last_gone, sum, mut told, .. } = reading;
        let Some(tally) = self.tallies.get_mut(place) else { return };
        let row = tally.end.unwrap_or(queue.base);
        // What is gone at a queue's end, compaction may have dropped.
        let may_differ = end.is_none() && (tally.expected.count == 0 || queue.kind != Kind::Filter)
            || end.is_some_and(|end| end < row) && (last_gone || !self.exact);
        let end_at = end.unwrap_or(queue.base);
        // Blocks that are there without a row are history, which ends where the others begin.
        if ends_known && row != end_at && !may_differ && !told {
            let what = format!("its last entry is before offset {end_at}, and its row of ends says {row}");
            findings.problem(Place::Entry { queue: queue.id, offset: row.min(end_at) }, what);
            told = end.is_none();
        }
        if queue.kind == Kind::Filter && !told && sum != tally.expected {
            suspects.push(place as u32);
        }
        tally.told |= told;
    }

    /// Finds where queues differ from the log.
    fn locate(
        &self,
        index: &Index,
        suspects: &[u32],
        findings: &mut Findings,
        watch: Watch<'_>,
    ) -> Result<()> {
        if suspects.is_empty() {
            return Ok(());
        }
        let (now, others) = suspects.split_at(suspects.len().min(LOCATED_MAX));
        for place in others {
            if let Some(queue) = self.queues.get(*place) {
                let place = Place::Entry { queue: queue.id, offset: queue.counts_from() };
                findings.problem(
                    place,
                    "its entries are not those that the log gives, from here or a later offset on",
                );
            }
        }
        let mut follow = Follow::new(index, self.queues, self.data.starts(), now.iter().copied())?;
        // What is wrong with the log was told.
        let mut told = Findings::new(0);
        let total = log_bytes(&self.data.chains)?;
        let mut walk = Walk::new(&self.data.chains, self.cut);
        let mut matching = Vec::new();
        let mut records = 0u64;
        while let Some(decoded) = walk.next(&mut told)? {
            records += 1;
            if records.is_multiple_of(TOLD_RECORDS) {
                watch(Progress { what: "looking for the places", done: walk.bytes, total });
            }
            if self.cut.holds(decoded.record.position) {
                self.queues.matching(&decoded.record.topic, &mut matching);
                follow.record(&decoded.record, &matching, |at| walk.is_damaged(at), findings)?;
            }
        }
        follow.finish(|position| walk.is_damaged(position), findings);
        Ok(())
    }

    fn check_cursors(&mut self, findings: &mut Findings) -> Result<()> {
        let mut orphans = 0u64;
        // Until the index has the whole log, nobody knows where derived queues end.
        let is_whole = self.tallies.iter().all(|tally| tally.later == 0);
        self.data.meta.every_cursor(|key, cursor| {
            self.found.cursors += 1;
            let Some(place) = self.queues.place(key.queue) else {
                orphans += 1;
                return;
            };
            let (Some(queue), Some(tally)) = (self.queues.queues.get(place), self.tallies.get(place)) else {
                return;
            };
            let end = tally.end.unwrap_or(queue.base) + tally.later;
            if cursor.offset > end && (is_whole || queue.kind != Kind::Derived) {
                let what = format!("it is at offset {}, and the queue ends at {end}", cursor.offset);
                findings.problem(Place::Cursor(key), what);
            }
        })?;
        if orphans > 0 {
            findings.note(format!(
                "{orphans} cursors are in queues that do not exist any more: their owners delete them"
            ));
        }
        Ok(())
    }
}

/// A queue whose blocks are being read.
struct Reading<'a> {
    place: usize,
    queue: &'a Queue,
    /// Behind its last entry.
    end: Option<u64>,
    /// Whether the record of that is gone.
    last_gone: bool,
    /// By shard: where the record of its last entry ends.
    ends: Vec<u64>,
    sum: Sum,
    told: bool,
}

impl<'a> Reading<'a> {
    fn new(place: usize, queue: &'a Queue, shards: usize) -> Self {
        Reading {
            place,
            queue,
            end: None,
            last_gone: false,
            ends: vec![0; shards],
            sum: Sum::default(),
            told: false,
        }
    }

    /// Takes the next block. How many entries it has.
    fn block(
        &mut self,
        key: BlockKey,
        block: Result<Block, &'static str>,
        work: &Work<'_>,
        walk: &Walk<'_>,
        findings: &mut Findings,
    ) -> u64 {
        let queue = self.queue;
        let at = |offset| Place::Entry { queue: queue.id, offset };
        let block = match block {
            Ok(block) => block,
            Err(what) => {
                let what = format!("block of queue {} at offset {}: {what}", queue.id.0, key.base);
                findings.problem(at(key.base), what);
                self.told = true;
                return 0;
            }
        };
        let first = key.base + block.first;
        if first < queue.counts_from() {
            return 0;
        }
        if let Some(end) = self.end
            && end != first
            && !self.told
            && (first < end || (work.exact && !self.last_gone))
        {
            findings.problem(
                at(end.min(first)),
                format!("the entries before end at {end}, and the next is at {first}"),
            );
            self.told = true;
        }
        let count = block.entries.len() as u64;
        for (offset, pointer) in (first..).zip(block.entries) {
            let (position, at_byte) = (pointer.position, pointer.position.offset());
            let start = work.data.chains.get(usize::from(position.shard())).map(|chain| chain.start());
            let last = self.ends.get_mut(usize::from(position.shard()));
            let (Some(start), Some(last)) = (start, last) else {
                findings.problem(at(offset), format!("it points at {position}, and there is no such shard"));
                self.told = true;
                continue;
            };
            if at_byte < *last && !self.told {
                findings.problem(
                    at(offset),
                    format!("it points at {position}, which is before the entry before it"),
                );
                self.told = true;
            }
            *last = at_byte + u64::from(pointer.size);
            self.last_gone = at_byte < start;
            let has_past = queue.is_filled() || offset >= queue.base;
            if !self.last_gone && has_past && !walk.is_damaged(position) {
                self.sum.add(pointer);
            }
        }
        self.end = Some(first + count);
        count
    }
}
