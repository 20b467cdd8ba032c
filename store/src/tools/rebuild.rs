//! [`rebuild_index`]: the index derived again from the log.
//!
//! Offsets must come out the same, or cursors would stand at other records. A queue's end in the old index, less the records of the log
//! that are in the queue, is the offset of the first of them: so the log is read twice, to count and to write. What
//! only the old index knows, derived queues and what unions have by filters of earlier days, is taken over from it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytestring::ByteString;
use foldhash::HashMap;

use super::data::{Chain, Data, INDEX_CACHE_BYTES, log_bytes};
use super::queues::{Queue, Queues};
use super::sums::Sum;
use super::walk::Walk;
use super::{Findings, Progress, Watch};
use crate::directory::Directory;
use crate::log::cut::Cut;
use crate::meta::Meta;
use crate::meta::catalogue::Kind;
use crate::queue::alive::Alive;
use crate::queue::index::Index;
use crate::{Flush, Pointer, QueueId, Record, Result, Retain, StoreError};

/// Entries written in one file.
const FILE_ENTRIES: usize = 1 << 20;
/// Retained messages written in one batch.
const RETAINED_MAX: usize = 1 << 16;
/// Records between two tellings of progress.
const TOLD_RECORDS: u64 = 1 << 16;

/// What [`rebuild_index`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Records of the log that were read.
    pub records: u64,
    /// Queues of the catalogue.
    pub queues: u64,
    /// Entries derived from the log.
    pub entries: u64,
    /// Entries taken over from the old index: of derived queues and of unions, and of all whose records are gone in one shard and not
    /// in others.
    pub copied: u64,
    /// How long it took.
    pub took: Duration,
    /// What came out otherwise than it was.
    pub notes: Vec<String>,
}

/// Derives the index of a data directory again from its log, and puts it in the place of the old one.
///
/// Offsets of queues stay as they were. If the old index cannot tell them, each queue begins at the offset that its first record had,
/// which is the same unless retention has deleted records since; the notes say so. Derived queues are taken over from the old
/// index; if that cannot be, they are left out, and whoever derives them does so again. A crash leaves the old index or the new one.
///
/// # Errors
/// The directory is none, is in use or of an earlier format, or the log or the catalogue cannot be read, or the new index not written.
pub fn rebuild_index(dir: &Path, watch: Watch<'_>) -> Result<Rebuilt> {
    let began = Instant::now();
    let directory = Directory::find(dir)?;
    if !directory.is_current() {
        let error = "it has an earlier format; `tidemill serve` derives it again when it starts".into();
        return Err(StoreError::Database { database: "index", error });
    }
    directory.settle()?;
    let mut findings = Findings::new(0);
    let data = Data::of(directory, &mut findings)?;
    let starts = data.starts();
    let Data { meta, index, chains, directory } = data;
    let queues = Queues::load(&meta)?;
    drop(meta);
    let mut notes = Vec::new();
    let mut old = Old::read(index, &queues, &starts, &mut notes);
    let (counts, end) = count(&chains, &queues, old.cut.as_ref(), &mut findings, watch)?;
    if findings.count > 0 {
        notes.push(
            "the log is damaged: see `tidemill store verify`; what cannot be read is in no queue".to_owned(),
        );
    }
    let exact = findings.count == 0 && starts.iter().all(|start| *start == 0);
    if old.cut.is_none() && !exact {
        notes.push(
            "the old index could not tell where queues ended, and records are gone: offsets are counted from the first \
             that is left, so that cursors may stand too far ahead"
                .to_owned(),
        );
    }
    let retained = match old.cut {
        Some(_) => None,
        None => {
            // Everything counts as dispatched afterwards, so it has to be on disk, and retained messages as well.
            chains.iter().filter_map(|chain| chain.segments.last()).try_for_each(|last| last.sync())?;
            Some(Meta::open(&directory.part("meta"), Flush::Sync)?)
        }
    };
    let plans: Vec<Plan> = (0..)
        .zip(queues.queues.iter().zip(&counts))
        .map(|(place, (queue, count))| old.plan((place, queue), *count, (exact, starts.len()), &mut notes))
        .collect();

    let (path, staging) = directory.begin_index()?;
    let alive = Alive::default();
    queues.queues.iter().for_each(|queue| alive.insert(queue.id));
    let index = Index::open(&path, staging, INDEX_CACHE_BYTES, Arc::new(alive))?;
    let copied = old.copy(&index, &queues, &plans)?;
    let mut writer = Writer { index: &index, queues: &queues, plans, waiting: Vec::new(), entries: 0 };
    let records = write(&mut writer, &chains, (old.cut.as_ref(), retained.as_ref()), watch)?;
    let cut = old.cut.take().unwrap_or(end);
    let Writer { plans, entries, .. } = writer;
    let ends =
        queues.queues.iter().zip(&plans).filter(|(queue, plan)| plan.next != queue.base || plan.had_end);
    let ends: Vec<(QueueId, u64)> = ends.map(|(queue, plan)| (queue.id, plan.next)).collect();
    index.write(|file| {
        file.cut(&cut)?;
        file.places(&old.places)?;
        file.ends(&ends)
    })?;
    // Both are closed before they change places.
    drop((index, old));
    directory.replace_index()?;
    let queues = queues.queues.len() as u64;
    Ok(Rebuilt { records, queues, entries, copied, took: began.elapsed(), notes })
}

/// Records of the log that are in a queue.
#[derive(Clone, Copy, Default)]
struct Count {
    /// By its filters.
    entered: u64,
    /// From before its filters counted: its history, or what it may have had while it was in memory only.
    before: u64,
    /// What it should have, its history included.
    sum: Sum,
}

/// How a queue is written.
struct Plan {
    /// From the old index.
    copy: bool,
    /// Records from before its filters counted that it does not have.
    skip: u64,
    /// Offset of the next entry.
    next: u64,
    had_end: bool,
}

/// What the old index had of a queue.
#[derive(Clone, Copy, Default)]
struct OldQueue {
    /// Offset of the first entry whose record is there.
    first: Option<u64>,
    /// Behind the last entry.
    last: Option<u64>,
    end: Option<u64>,
    /// Its entries whose records are there, but for what it had while it was in memory only.
    sum: Sum,
    broken: bool,
}

/// The old index, as far as it can be read.
struct Old {
    index: Option<Index>,
    /// Nothing if it or the ends of queues cannot be read.
    cut: Option<Cut>,
    queues: Vec<OldQueue>,
    /// Places of those who derive queues, unless these cannot be read.
    places: Vec<(crate::CursorKey, crate::CursorPlace)>,
    keeps_derived: bool,
}

impl Old {
    fn read(index: Result<Index>, queues: &Queues, starts: &[u64], notes: &mut Vec<String>) -> Self {
        let mut old = Old {
            index: None,
            cut: None,
            queues: vec![OldQueue::default(); queues.queues.len()],
            places: Vec::new(),
            keeps_derived: false,
        };
        let read = index.and_then(|index| old.take_in(index, queues, starts));
        if let Err(error) = read {
            notes.push(format!("the old index cannot be read: {error}"));
            old.cut = None;
        }
        let has_derived = queues.queues.iter().any(|queue| queue.kind == Kind::Derived);
        let broken = queues
            .queues
            .iter()
            .zip(&old.queues)
            .any(|(queue, old)| queue.kind == Kind::Derived && old.broken);
        old.keeps_derived = old.cut.is_some() && !broken;
        if !old.keeps_derived {
            old.places.clear();
            if has_derived {
                notes.push(
                    "derived queues are left out: they are derived again from the log's begin".to_owned(),
                );
            }
        }
        old
    }

    fn take_in(&mut self, index: Index, queues: &Queues, starts: &[u64]) -> Result<()> {
        let cut = index.cut()?;
        let found = &mut self.queues;
        index.ends(|queue, end| {
            if let Some(old) = queues.place(queue).and_then(|place| found.get_mut(place)) {
                old.end = Some(end);
            }
        })?;
        self.places = index.every_place()?;
        index.every_block(|key, block| {
            let Some(old) = queues.place(key.queue).and_then(|place| found.get_mut(place)) else {
                return Ok(());
            };
            let Ok(block) = block else {
                old.broken = true;
                return Ok(());
            };
            let first = key.base + block.first;
            let there = block.entries.iter().position(|entry| {
                let start = starts.get(usize::from(entry.position.shard()));
                start.is_some_and(|start| entry.position.offset() >= *start)
            });
            if let Some(queue) = queues.place(key.queue).and_then(|place| queues.queues.get(place)) {
                for (offset, entry) in
                    (first..).zip(&block.entries).skip(there.unwrap_or(block.entries.len()))
                {
                    let start = starts.get(usize::from(entry.position.shard()));
                    let is_there = start.is_some_and(|start| entry.position.offset() >= *start);
                    if is_there
                        && offset >= queue.counts_from()
                        && (queue.is_filled() || offset >= queue.base)
                    {
                        old.sum.add(*entry);
                    }
                }
            }
            // Holes among entries whose records are gone are compaction's.
            old.broken |=
                old.first.is_some() && starts.iter().all(|start| *start == 0) && old.last != Some(first);
            old.first = old.first.or(there.map(|there| first + there as u64));
            old.last = Some(first + block.entries.len() as u64);
            Ok(())
        })?;
        for old in found.iter_mut() {
            old.broken |= old.last > old.end && old.end.is_some();
        }
        self.cut = Some(cut);
        self.index = Some(index);
        Ok(())
    }

    fn plan(
        &self,
        (place, queue): (usize, &Queue),
        count: Count,
        (exact, shards): (bool, usize),
        notes: &mut Vec<String>,
    ) -> Plan {
        let old = self.queues.get(place).copied().unwrap_or_default();
        let row = old.end.unwrap_or(queue.base);
        let plan = |copy, skip, next| Plan { copy, skip, next, had_end: copy && old.end.is_some() };
        match queue.kind {
            Kind::Derived if self.keeps_derived => return plan(true, 0, row),
            Kind::Derived => return plan(false, 0, 0),
            Kind::Union if self.cut.is_some() && !old.broken => return plan(true, 0, row),
            _ => {}
        }
        let interleaved = !exact && shards > 1;
        if interleaved && self.cut.is_some() && !old.broken && old.sum == count.sum {
            // Records of one shard are gone from between those of others: only the old index knows at which offsets. It
            // has what the log says.
            return plan(true, 0, row);
        }
        if interleaved {
            notes.push(format!(
                "queue {} gets larger offsets for records that are older than those another shard has lost: consumers may \
                 get some of them again",
                queue.id.0
            ));
        }
        // A queue that was in memory only has entries before its base.
        let was_live = queue.base > 0 && queue.past.is_none();
        let counted = queue.base + count.entered;
        let is_certain = exact && queue.kind == Kind::Filter && !was_live;
        let end = if self.cut.is_none() || is_certain || row < count.entered { counted } else { row };
        if self.cut.is_some() && end != row {
            notes
                .push(format!("queue {} ended at offset {row}, and by the log it ends at {end}", queue.id.0));
        }
        let first = end - count.entered;
        let before = if queue.is_filled() {
            count.before
        } else if was_live {
            old.first.map_or(0, |old| first.saturating_sub(old))
        } else {
            0
        };
        let before = before.min(count.before).min(first);
        plan(false, count.before - before, first - before)
    }

    /// Writes what is taken over. How many entries.
    fn copy(&self, to: &Index, queues: &Queues, plans: &[Plan]) -> Result<u64> {
        let Some(index) = &self.index else { return Ok(0) };
        let mut copied = 0;
        let mut waiting: Vec<(QueueId, u64, Vec<Pointer>)> = Vec::new();
        let mut entries = 0;
        let flush = |waiting: &mut Vec<(QueueId, u64, Vec<Pointer>)>| -> Result<()> {
            if waiting.is_empty() {
                return Ok(());
            }
            to.write(|file| {
                waiting.iter().try_for_each(|(queue, from, entries)| file.entries(*queue, *from, entries))
            })?;
            waiting.clear();
            Ok(())
        };
        index.every_block(|key, block| {
            let plan = queues.place(key.queue).and_then(|place| plans.get(place));
            let Some(block) = block.ok().filter(|_| plan.is_some_and(|plan| plan.copy)) else {
                return Ok(());
            };
            copied += block.entries.len() as u64;
            entries += block.entries.len();
            waiting.push((key.queue, key.base + block.first, block.entries));
            if entries >= FILE_ENTRIES {
                entries = 0;
                return flush(&mut waiting);
            }
            Ok(())
        })?;
        flush(&mut waiting)?;
        Ok(copied)
    }
}

/// Counts the records of each queue, up to a cut or of the whole log. Where the log ends.
fn count(
    chains: &[Chain],
    queues: &Queues,
    cut: Option<&Cut>,
    findings: &mut Findings,
    watch: Watch<'_>,
) -> Result<(Vec<Count>, Cut)> {
    let mut counts = vec![Count::default(); queues.queues.len()];
    let none = Cut::default();
    let total = log_bytes(chains)?;
    let mut walk = Walk::new(chains, cut.unwrap_or(&none));
    let (mut matching, mut records) = (Vec::new(), 0u64);
    while let Some(decoded) = walk.next(findings)? {
        let record = &decoded.record;
        records += 1;
        if records % TOLD_RECORDS == 0 {
            watch(Progress { what: "counting", done: walk.bytes, total });
        }
        if record.kept || cut.is_some_and(|cut| !cut.holds(record.position)) {
            continue;
        }
        queues.matching(&record.topic, &mut matching);
        for place in &matching {
            let (Some(queue), Some(count)) = (queues.get(*place), counts.get_mut(*place as usize)) else {
                continue;
            };
            let part = part(queue, record);
            if queue.entered(record) || queue.has_in_history(record) {
                count.sum.add(record.pointer());
            }
            match part {
                Part::Entered => count.entered += 1,
                Part::Before => count.before += 1,
                Part::None => {}
            }
        }
    }
    Ok((counts, walk.end))
}

/// How a record whose topic matches is in a queue.
enum Part {
    Entered,
    Before,
    None,
}

fn part(queue: &Queue, record: &Record) -> Part {
    if queue.entered(record) {
        return Part::Entered;
    }
    let may_be = if queue.past.is_some() { queue.has_in_history(record) } else { queue.kind == Kind::Filter };
    if may_be { Part::Before } else { Part::None }
}

/// Writes entries, many queues in one file.
struct Writer<'a> {
    index: &'a Index,
    queues: &'a Queues,
    plans: Vec<Plan>,
    waiting: Vec<(u32, Pointer)>,
    entries: u64,
}

impl Writer<'_> {
    fn enter(&mut self, place: u32, record: &Record) {
        let (Some(queue), Some(plan)) = (self.queues.get(place), self.plans.get_mut(place as usize)) else {
            return;
        };
        let part = part(queue, record);
        match part {
            Part::None => return,
            _ if plan.copy => return,
            Part::Before if plan.skip > 0 => {
                plan.skip -= 1;
                return;
            }
            Part::Before | Part::Entered => {}
        }
        self.waiting.push((place, record.pointer()));
    }

    fn flush(&mut self) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        // Stable: the order of records stays. Places are in the order of queues.
        self.waiting.sort_by_key(|(place, _)| *place);
        let (plans, queues, waiting) = (&mut self.plans, self.queues, &self.waiting);
        let mut pointers = Vec::new();
        self.index.write(|file| {
            for run in waiting.chunk_by(|(a, _), (b, _)| a == b) {
                let Some((place, _)) = run.first() else { continue };
                let (Some(queue), Some(plan)) = (queues.get(*place), plans.get_mut(*place as usize)) else {
                    continue;
                };
                pointers.clear();
                pointers.extend(run.iter().map(|(_, pointer)| *pointer));
                file.entries(queue.id, plan.next, &pointers)?;
                plan.next += pointers.len() as u64;
            }
            Ok(())
        })?;
        self.entries += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }
}

/// Writes the entries of every queue, up to a cut or of the whole log; then retained messages too. How many records there were.
fn write(
    writer: &mut Writer<'_>,
    chains: &[Chain],
    (cut, meta): (Option<&Cut>, Option<&Meta>),
    watch: Watch<'_>,
) -> Result<u64> {
    let none = Cut::default();
    let total = log_bytes(chains)?;
    // What is wrong was told when it was counted.
    let mut told = Findings::new(0);
    let mut walk = Walk::new(chains, cut.unwrap_or(&none));
    let mut retained: HashMap<ByteString, Option<Pointer>> = HashMap::default();
    let (mut matching, mut records) = (Vec::new(), 0u64);
    while let Some(decoded) = walk.next(&mut told)? {
        let record = &decoded.record;
        records += 1;
        if records % TOLD_RECORDS == 0 {
            watch(Progress { what: "writing the index", done: walk.bytes, total });
        }
        if cut.is_some_and(|cut| !cut.holds(record.position)) {
            continue;
        }
        if let (Some(meta), Retain::Set | Retain::Clear) = (meta, record.retain) {
            let pointer = (record.retain == Retain::Set).then(|| record.pointer());
            retained.insert(ByteString::from(&*record.topic), pointer);
            if retained.len() >= RETAINED_MAX {
                meta.put_retained(&retained.drain().collect::<Vec<_>>())?;
            }
        }
        if record.kept {
            continue;
        }
        writer.queues.matching(&record.topic, &mut matching);
        for place in &matching {
            writer.enter(*place, record);
        }
        if writer.waiting.len() >= FILE_ENTRIES {
            writer.flush()?;
        }
    }
    writer.flush()?;
    if let Some(meta) = meta
        && !retained.is_empty()
    {
        meta.put_retained(&retained.into_iter().collect::<Vec<_>>())?;
    }
    Ok(records)
}
