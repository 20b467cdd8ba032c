//! [`Follow`]: entries of some queues, beside the records of the log as they come.

use foldhash::HashMap;

use super::queues::Queues;
use super::{Findings, Place};
use crate::meta::catalogue::Kind;
use crate::queue::index::Index;
use crate::{Pointer, Position, Record, Result};

/// Entries read at a time.
const PAGE_ENTRIES: usize = 512;

/// The queues that are followed.
pub(super) struct Follow<'a> {
    index: &'a Index,
    queues: &'a Queues,
    followed: Vec<Followed>,
    /// Followed queues by their place among all.
    by_place: HashMap<u32, usize>,
    /// Followed queues by the record that their next entry points at.
    next: HashMap<Position, Vec<usize>>,
    /// By shard: where the log begins.
    starts: Vec<u64>,
}

struct Followed {
    place: u32,
    /// The rest of what was read, the last one first.
    page: Vec<(u64, Pointer)>,
    from: u64,
    /// It has no more entries, or is given up.
    done: bool,
    /// Something is wrong with it, and what follows may follow from that.
    given_up: bool,
}

impl Followed {
    fn give_up(&mut self) {
        (self.done, self.given_up) = (true, true);
    }
}

impl<'a> Follow<'a> {
    /// Queues by their place among all.
    pub(super) fn new(
        index: &'a Index,
        queues: &'a Queues,
        starts: Vec<u64>,
        places: impl Iterator<Item = u32>,
    ) -> Result<Self> {
        let mut follow = Follow {
            index,
            queues,
            followed: Vec::new(),
            by_place: HashMap::default(),
            next: HashMap::default(),
            starts,
        };
        for place in places {
            let Some(queue) = queues.get(place) else { continue };
            let number = follow.followed.len();
            let (page, from) = (Vec::new(), queue.counts_from());
            follow.followed.push(Followed { place, page, from, done: false, given_up: false });
            follow.by_place.insert(place, number);
            follow.read_on(number)?;
        }
        Ok(follow)
    }

    /// Finds the next entry of a queue whose record is there.
    fn read_on(&mut self, number: usize) -> Result<()> {
        let Some(followed) = self.followed.get_mut(number) else { return Ok(()) };
        let Some(queue) = self.queues.get(followed.place) else { return Ok(()) };
        let gone =
            |at: Position| self.starts.get(usize::from(at.shard())).is_some_and(|start| at.offset() < *start);
        loop {
            if followed.page.is_empty() {
                let Ok(page) = self.index.entries(queue.id, followed.from, PAGE_ENTRIES) else {
                    // Which block cannot be read, and why, is told by whoever reads all of them.
                    followed.give_up();
                    return Ok(());
                };
                let Some((last, _)) = page.last() else {
                    followed.done = true;
                    return Ok(());
                };
                followed.from = last + 1;
                followed.page = page;
                followed.page.reverse();
            }
            match followed.page.last() {
                Some((_, pointer)) if gone(pointer.position) => drop(followed.page.pop()),
                Some((_, pointer)) => {
                    self.next.entry(pointer.position).or_default().push(number);
                    return Ok(());
                }
                None => {}
            }
        }
    }

    /// Compares with a record that is before the index's cut, and the queues its topic matches. `damaged` says whether the record
    /// at a position, which should have come before, cannot be read.
    pub(super) fn record(
        &mut self,
        record: &Record,
        matching: &[u32],
        damaged: impl Fn(Position) -> bool,
        findings: &mut Findings,
    ) -> Result<()> {
        let mut here = self.next.remove(&record.position).unwrap_or_default();
        if !record.kept {
            for place in matching {
                let Some(number) = self.by_place.get(place).filter(|number| !here.contains(number)) else {
                    continue;
                };
                let queue = self.queues.get(*place);
                let belongs =
                    queue.is_some_and(|queue| queue.entered(record) || queue.has_in_history(record));
                if belongs {
                    let number = *number;
                    self.pass_damaged(number, &damaged)?;
                    if self.next.get(&record.position).is_some_and(|next| next.contains(&number)) {
                        here.extend(self.next.remove(&record.position).unwrap_or_default());
                    } else {
                        self.lacks(number, record, findings);
                    }
                }
            }
        }
        for number in here {
            let Some(followed) = self.followed.get_mut(number).filter(|followed| !followed.done) else {
                continue;
            };
            let Some((offset, pointer)) = followed.page.pop() else { continue };
            let Some(queue) = self.queues.get(followed.place) else { continue };
            let wrong = if pointer.size != record.size {
                Some(format!(
                    "it says that its record has {} bytes, and it has {}",
                    pointer.size, record.size
                ))
            } else if queue.kind == Kind::Filter && !matching.contains(&followed.place) {
                Some(format!("its record's topic `{}` does not match the queue's filter", record.topic))
            } else if record.kept && queue.kind != Kind::Derived {
                Some("its record is a retained message that was written again".to_owned())
            } else {
                None
            };
            match wrong {
                Some(what) => {
                    followed.give_up();
                    let what = format!("{what} (position {})", record.position);
                    findings.problem(Place::Entry { queue: queue.id, offset }, what);
                }
                None => self.read_on(number)?,
            }
        }
        Ok(())
    }

    /// Passes over entries whose records cannot be read.
    fn pass_damaged(&mut self, number: usize, damaged: &impl Fn(Position) -> bool) -> Result<()> {
        while let Some(followed) = self.followed.get_mut(number).filter(|followed| !followed.done)
            && let Some((_, pointer)) = followed.page.last().copied()
            && damaged(pointer.position)
        {
            followed.page.pop();
            if let Some(waiting) = self.next.get_mut(&pointer.position) {
                waiting.retain(|other| *other != number);
            }
            self.read_on(number)?;
        }
        Ok(())
    }

    fn lacks(&mut self, number: usize, record: &Record, findings: &mut Findings) {
        let Some(followed) = self.followed.get_mut(number) else { return };
        let Some(queue) = self.queues.get(followed.place) else { return };
        // One whose entries ended lacks everything that follows: told once.
        let (offset, at) = match followed.page.last() {
            Some((offset, pointer)) if !followed.done => {
                (*offset, format!("its entry there is of {}", pointer.position))
            }
            _ if !followed.given_up => (followed.from, "it has no more entries".to_owned()),
            _ => return,
        };
        followed.give_up();
        let what = format!("the record at position {} should be in this queue here; {at}", record.position);
        findings.problem(Place::Entry { queue: queue.id, offset }, what);
    }

    /// Entries that no record came for. `damaged` says whether there can be none.
    pub(super) fn finish(self, damaged: impl Fn(Position) -> bool, findings: &mut Findings) {
        for followed in self.followed.iter().filter(|followed| !followed.done) {
            let (Some((offset, pointer)), Some(queue)) =
                (followed.page.last(), self.queues.get(followed.place))
            else {
                continue;
            };
            if damaged(pointer.position) {
                findings.note(format!(
                    "queue {} is not compared from offset {offset} on: the log is damaged at {}",
                    queue.id.0, pointer.position
                ));
                continue;
            }
            let what = format!("it points at {}, and no record of the log comes there", pointer.position);
            findings.problem(Place::Entry { queue: queue.id, offset: *offset }, what);
        }
    }
}
