//! The thread that owns the catalogue: queues are found, made and deleted here, what waits in its mailbox as one change: one
//! message to the log writer, one durable write.

use std::time::Instant;

use foldhash::HashMap;
use smallvec::SmallVec;
use tokio::sync::{mpsc, oneshot};

use crate::log::writer::{Command, ask};
use crate::meta::catalogue::{Entry, Kind, Past};
use crate::queue::table::{Fill, SlotIndex};
use crate::shared::SharedRef;
use crate::{History, Keep, QueueId, QueueInfo, QueueKind, Result, StoreError};

/// Changes carried out together.
const BATCH_CHANGES: usize = 256;
/// Queues deleted together.
const BATCH_QUEUES: usize = 4096;

/// A change of the catalogue, and who waits for it.
#[derive(Debug)]
pub(crate) enum Change {
    /// Finds or makes queues. Answers in the same order.
    Open { queues: Vec<OpenQueue>, reply: OpenReply },
    /// Takes references to queues that the log writer fills; whether there is each.
    Refer { queues: Vec<QueueId>, reply: oneshot::Sender<Result<(Vec<bool>, References)>> },
    /// Gives references back.
    Release { queues: Vec<QueueId>, reply: oneshot::Sender<Result<()>> },
    /// Deletes a queue, whoever refers to it.
    Delete { queue: QueueId, reply: oneshot::Sender<Result<()>> },
    /// Gives up on queues nobody refers to; answers how many there are.
    Sweep { reply: oneshot::Sender<Result<usize>> },
    /// The queue has its history.
    Filled { queue: QueueId, reply: oneshot::Sender<Result<()>> },
    /// Deletes what nobody has referred to for long enough.
    Expire,
}

/// A queue that should be there.
#[derive(Debug, Clone)]
pub(crate) struct OpenQueue {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) filters: Vec<String>,
    pub(crate) keep: Keep,
    pub(crate) history: History,
    /// Takes a reference.
    pub(crate) refer: bool,
}

/// References to queues on their way to who asked for them. Those that never get there, because the caller went away or something
/// failed, are given back.
pub(crate) struct References {
    shared: SharedRef,
    queues: Vec<QueueId>,
}

impl std::fmt::Debug for References {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.queues.fmt(formatter)
    }
}

impl References {
    /// They are the caller's to give back.
    pub(crate) fn hand_over(mut self) {
        self.queues.clear();
    }
}

impl Drop for References {
    fn drop(&mut self) {
        // Wherever this is, it does not wait: the catalogue's thread looks every moment.
        self.shared.returned.lock().append(&mut self.queues);
    }
}

/// Names of live queues: they are in no database.
#[derive(Debug, Default)]
pub(crate) struct LiveNames {
    by_name: HashMap<String, QueueId>,
    by_id: HashMap<QueueId, String>,
    /// Of those that are durable already but for their row, which could not be written: what [`crate::queue::table::Table::promote`] said.
    promoted: HashMap<QueueId, (u64, u64)>,
}

impl LiveNames {
    fn insert(&mut self, name: &str, id: QueueId) {
        self.by_name.insert(name.to_owned(), id);
        self.by_id.insert(id, name.to_owned());
    }

    fn remove(&mut self, id: QueueId) {
        self.promoted.remove(&id);
        if let Some(name) = self.by_id.remove(&id) {
            self.by_name.remove(&name);
        }
    }

    /// Whether a queue is live.
    pub(crate) fn has(&self, id: QueueId) -> bool {
        self.by_id.contains_key(&id)
    }
}

/// A live queue as the catalogue would have it.
fn live_entry(id: QueueId, name: &str) -> Entry {
    Entry {
        id,
        kind: Kind::Filter,
        name: name.to_owned(),
        base: 0,
        past: None,
        routes: vec![(name.to_owned(), 0)],
    }
}

/// The queue, as the catalogue has it.
pub(crate) fn entry(shared: &SharedRef, id: QueueId) -> Result<Entry> {
    if let Some(name) = shared.live_names.read().by_id.get(&id) {
        return Ok(live_entry(id, name));
    }
    shared.meta.queue(id)?.ok_or(StoreError::NoQueue(id))
}

/// Up to `limit` queues by number after `after`.
pub(crate) fn page(shared: &SharedRef, after: Option<QueueId>, limit: usize) -> Result<Vec<Entry>> {
    let mut found = shared.meta.queues(after, limit)?;
    let names = shared.live_names.read();
    let live = names.by_id.iter().filter(|(id, _)| after.is_none_or(|after| **id > after));
    found.extend(live.map(|(id, name)| live_entry(*id, name)));
    drop(names);
    found.sort_unstable_by_key(|entry| entry.id);
    found.truncate(limit);
    Ok(found)
}

/// A queue as it stands. Reads the index.
pub(crate) fn info(shared: &SharedRef, entry: Entry) -> Result<QueueInfo> {
    let table = shared.table.read();
    let end = table.end(entry.id).ok_or(StoreError::NoQueue(entry.id))?;
    let sequence = table.cut().sequence;
    drop(table);
    let first = shared.first(entry.id)?.min(end);
    let live = shared.live_names.read().has(entry.id);
    Ok(described(entry, (first, end), sequence, live))
}

fn described(entry: Entry, (first, end): (u64, u64), sequence: u64, live: bool) -> QueueInfo {
    let kind = match entry.kind {
        Kind::Filter => QueueKind::Filter,
        Kind::Union => QueueKind::Union(entry.routes.into_iter().map(|(filter, _)| filter).collect()),
        Kind::Derived => QueueKind::Derived,
    };
    QueueInfo { id: entry.id, kind, name: entry.name, first, end, sequence, live }
}

/// The thread's own state.
pub(crate) struct Catalogue {
    shared: SharedRef,
    mailbox: mpsc::Receiver<Change>,
    writer: mpsc::Sender<Command>,
    /// Queues nobody refers to, and since when.
    idle: HashMap<QueueId, Instant>,
    /// Queues whose time is over and that could not be deleted.
    undeleted: Vec<QueueId>,
}

/// What became of one queue of an [`Change::Open`].
struct Opened {
    entry: Entry,
    refer: bool,
    /// Its index need not be looked at.
    is_new: bool,
}

/// What a batch of opens changes.
#[derive(Default)]
struct Changes {
    /// Queues that are new in the catalogue's database, or changed.
    rows: HashMap<QueueId, Entry>,
    /// What was there before, of those that were.
    before: HashMap<QueueId, Entry>,
    /// Queues that exist only since this batch, by name.
    made: HashMap<(Kind, String), QueueId>,
    made_live: Vec<(QueueId, String)>,
    promoted: Vec<QueueId>,
    added: Vec<(QueueId, String, SlotIndex)>,
    removed: Vec<(String, SlotIndex)>,
}

type OpenReply = oneshot::Sender<Result<(Vec<QueueInfo>, References)>>;

impl Catalogue {
    pub(crate) fn new(
        shared: SharedRef,
        mailbox: mpsc::Receiver<Change>,
        writer: mpsc::Sender<Command>,
    ) -> Self {
        Catalogue { shared, mailbox, writer, idle: HashMap::default(), undeleted: Vec::new() }
    }

    /// Runs until the store is closed or dropped.
    pub(crate) fn run(mut self) {
        while let Some(first) = self.mailbox.blocking_recv() {
            let mut opens = Vec::new();
            let mut releases = Vec::new();
            let mut next = Some(first);
            let mut taken = 0;
            while let Some(change) = next {
                taken += 1;
                // What is of one kind is carried out together, as long as the order among kinds is kept.
                match change {
                    Change::Open { queues, reply } => {
                        self.release(&mut releases);
                        opens.push((queues, reply));
                    }
                    Change::Release { queues, reply } => {
                        self.open(&mut opens);
                        releases.push((queues, reply));
                    }
                    other => {
                        self.open(&mut opens);
                        self.release(&mut releases);
                        self.change(other);
                    }
                }
                next = if taken < BATCH_CHANGES { self.mailbox.try_recv().ok() } else { None };
            }
            self.open(&mut opens);
            self.release(&mut releases);
            self.take_back_references();
        }
    }

    /// Takes back the references that did not get to who asked for them.
    fn take_back_references(&mut self) {
        let returned = std::mem::take(&mut *self.shared.returned.lock());
        if let Err(error) = self.let_go(returned.into_iter()) {
            tracing::warn!(%error, "queues that nobody uses could not be deleted; it is tried again");
        }
    }

    fn change(&mut self, change: Change) {
        // Whoever went away does not need the answer.
        match change {
            Change::Refer { queues, reply } => drop(reply.send(Ok(self.refer(&queues)))),
            Change::Delete { queue, reply } => drop(reply.send(self.delete_one(queue))),
            Change::Sweep { reply } => drop(reply.send(self.sweep())),
            Change::Filled { queue, reply } => drop(reply.send(self.filled(queue))),
            Change::Expire => self.expire(),
            Change::Open { .. } | Change::Release { .. } => {}
        }
    }

    fn open(&mut self, opens: &mut Vec<(Vec<OpenQueue>, OpenReply)>) {
        if opens.is_empty() {
            return;
        }
        let (wanted, replies): (Vec<_>, Vec<_>) = std::mem::take(opens).into_iter().unzip();
        let mut changes = Changes::default();
        let planned: Vec<Result<Vec<Opened>>> = wanted
            .into_iter()
            .map(|queues| queues.into_iter().map(|queue| self.plan(queue, &mut changes)).collect())
            .collect();
        let done = self.carry_out(changes);
        for (opened, reply) in planned.into_iter().zip(replies) {
            let answer = match &done {
                Err(error) => Err(error.clone()),
                Ok(sequence) => opened.and_then(|opened| self.opened(opened, *sequence)),
            };
            // Whoever went away does not need the answer.
            drop(reply.send(answer));
        }
    }

    /// Takes the references that were asked for, and describes the queues; new ones take records of this sequence and later ones.
    fn opened(&mut self, opened: Vec<Opened>, sequence: u64) -> Result<(Vec<QueueInfo>, References)> {
        let mut references = References { shared: self.shared.clone(), queues: Vec::new() };
        for id in opened.iter().filter(|opened| opened.refer).map(|opened| opened.entry.id) {
            self.shared.table.write().refer(id);
            self.idle.remove(&id);
            references.queues.push(id);
        }
        let infos =
            opened.into_iter().map(|opened| self.described(opened, sequence)).collect::<Result<_>>()?;
        Ok((infos, references))
    }

    fn described(&self, opened: Opened, sequence: u64) -> Result<QueueInfo> {
        let id = opened.entry.id;
        if opened.is_new {
            let live = self.shared.live_names.read().has(id);
            let base = opened.entry.base;
            return Ok(described(opened.entry, (base, base), sequence, live));
        }
        info(&self.shared, opened.entry)
    }

    /// Takes references to queues that are there.
    fn refer(&mut self, queues: &[QueueId]) -> (Vec<bool>, References) {
        let mut references = References { shared: self.shared.clone(), queues: Vec::new() };
        let mut table = self.shared.table.write();
        let mut take = |id: &QueueId| {
            let is_there = matches!(table.fill(*id), Some(Fill::Routed | Fill::Live));
            if is_there {
                table.refer(*id);
                self.idle.remove(id);
                references.queues.push(*id);
            }
            is_there
        };
        let are_there = queues.iter().map(&mut take).collect();
        drop(table);
        (are_there, references)
    }

    /// Finds a queue or prepares that it is made.
    fn plan(&mut self, wanted: OpenQueue, changes: &mut Changes) -> Result<Opened> {
        let OpenQueue { kind, name, filters, keep, history, refer } = wanted;
        let opened = |entry, is_new| Ok(Opened { entry, refer, is_new });
        let known = self.find(kind, &name, changes)?;
        let durable = kind != Kind::Filter || keep == Keep::Durable;
        match known {
            Some(entry) if kind == Kind::Filter => {
                // One of this batch has no name yet.
                let is_live = self.shared.live_names.read().has(entry.id)
                    || self.shared.table.read().fill(entry.id) == Some(Fill::Live);
                if is_live && durable && !changes.promoted.contains(&entry.id) {
                    changes.promoted.push(entry.id);
                    changes.made.insert((kind, name), entry.id);
                    changes.rows.insert(entry.id, entry.clone());
                }
                opened(entry, false)
            }
            Some(before) => opened(self.reroute(before, &filters, changes)?, false),
            None => {
                let id = QueueId(self.shared.meta.new_queues(1)?);
                let fill = match (kind, durable) {
                    (Kind::Derived, _) => Fill::Derived,
                    (_, true) => Fill::Routed,
                    (_, false) => Fill::Live,
                };
                let since_ms = match history {
                    History::None => None,
                    History::Earliest => Some(i64::MIN),
                    History::Since(time_ms) => Some(time_ms),
                };
                let past = since_ms.filter(|_| durable).map(|since_ms| Past { since_ms, filled: false });
                let base = if past.is_some() { self.shared.room_for_history() } else { 0 };
                let index = self.shared.table.write().insert(id, fill, base);
                self.shared.alive.insert(id);
                changes.added.extend(filters.iter().map(|filter| (id, filter.clone(), index)));
                let routes = filters.into_iter().map(|filter| (filter, 0)).collect();
                let entry = Entry { id, kind, name: name.clone(), base, past, routes };
                changes.made.insert((kind, name.clone()), id);
                if durable {
                    changes.rows.insert(id, entry.clone());
                } else {
                    changes.made_live.push((id, name));
                }
                opened(entry, true)
            }
        }
    }

    fn find(&self, kind: Kind, name: &str, changes: &Changes) -> Result<Option<Entry>> {
        if let Some(id) = changes.made.get(&(kind, name.to_owned())) {
            let row = changes.rows.get(id).cloned();
            return Ok(Some(row.unwrap_or_else(|| live_entry(*id, name))));
        }
        if kind == Kind::Filter
            && let Some(id) = self.shared.live_names.read().by_name.get(name)
        {
            return Ok(Some(live_entry(*id, name)));
        }
        self.shared.meta.queue_named(kind, name)
    }

    /// Prepares that a union has these filters and no others.
    fn reroute(&self, before: Entry, filters: &[String], changes: &mut Changes) -> Result<Entry> {
        let index = self.shared.table.read().index(before.id).ok_or(StoreError::NoQueue(before.id))?;
        let mut entry = before.clone();
        entry.routes.retain(|(filter, _)| filters.contains(filter));
        let gone = before.routes.iter().filter(|(filter, _)| !filters.contains(filter));
        for (filter, _) in gone {
            // What another open of the same batch wanted was not done yet.
            let added = changes.added.len();
            changes.added.retain(|(id, new, _)| (*id, new) != (entry.id, filter));
            if changes.added.len() == added {
                changes.removed.push((filter.clone(), index));
            }
        }
        for filter in filters {
            if entry.routes.iter().any(|(have, _)| have == filter) {
                continue;
            }
            let removed = changes.removed.iter().position(|old| *old == (filter.clone(), index));
            let start = match removed.map(|at| changes.removed.swap_remove(at)) {
                Some(_) => {
                    let routes = changes.before.get(&entry.id).into_iter().flat_map(|entry| &entry.routes);
                    routes
                        .filter(|(had, _)| had == filter)
                        .map(|(_, start)| *start)
                        .next()
                        .unwrap_or_default()
                }
                None => {
                    changes.added.push((entry.id, filter.clone(), index));
                    0
                }
            };
            entry.routes.push((filter.clone(), start));
        }
        if entry != before {
            changes.made.insert((entry.kind, entry.name.clone()), entry.id);
            changes.before.entry(entry.id).or_insert(before);
            changes.rows.insert(entry.id, entry.clone());
        }
        Ok(entry)
    }

    /// Tells the log writer, then the disk; takes everything back if the disk refuses. The sequence of the first record that is routed so.
    fn carry_out(&mut self, mut changes: Changes) -> Result<u64> {
        let sequence = match self.write(&mut changes) {
            Ok(sequence) => sequence,
            Err(error) => {
                self.take_back(changes);
                return Err(error);
            }
        };
        let mut names = self.shared.live_names.write();
        for (id, name) in &changes.made_live {
            names.insert(name, *id);
        }
        for id in &changes.promoted {
            names.remove(*id);
        }
        Ok(sequence)
    }

    fn write(&self, changes: &mut Changes) -> Result<u64> {
        let routes = changes.added.iter().map(|(_, filter, index)| (filter.clone(), *index)).collect();
        let start = ask(&self.writer, |reply| Command::AddRoutes { routes, reply })?;
        if !changes.removed.is_empty() {
            let routes = changes.removed.clone();
            ask(&self.writer, |reply| Command::RemoveRoutes { routes, reply })?;
            // What these filters brought is dispatched without them after a crash: offsets would come out differently.
            self.shared.indexer.checkpoint()?;
        }
        for (id, filter, _) in &changes.added {
            let routes = changes.rows.get_mut(id).into_iter().flat_map(|row| &mut row.routes);
            routes.filter(|(have, _)| have == filter).for_each(|(_, from)| *from = start.sequence);
        }
        for id in &changes.promoted {
            if let (Some(row), Some((end, sequence))) = (changes.rows.get_mut(id), self.promote(*id)) {
                row.base = end;
                row.routes.iter_mut().for_each(|(_, from)| *from = sequence);
            }
        }
        let rows: Vec<Entry> = changes.rows.values().cloned().collect();
        self.shared.meta.put_queues(&rows)?;
        Ok(start.sequence)
    }

    /// Makes a live queue durable before its row is written: from here on it is in every flush, as re-dispatch will have it. It stays so
    /// if the row cannot be written, for a flush may have it already; the row that is written some day then begins where it did here.
    fn promote(&self, id: QueueId) -> Option<(u64, u64)> {
        let earlier = self.shared.live_names.read().promoted.get(&id).copied();
        let promoted = earlier.or_else(|| self.shared.table.write().promote(id))?;
        self.shared.live_names.write().promoted.insert(id, promoted);
        Some(promoted)
    }

    fn take_back(&self, changes: Changes) {
        let routes = changes.added.iter().map(|(_, filter, index)| (filter.clone(), *index)).collect();
        // A log writer that is gone has no routes.
        let _ = ask(&self.writer, |reply| Command::RemoveRoutes { routes, reply });
        if !changes.removed.is_empty() {
            let _ = ask(&self.writer, |reply| Command::AddRoutes { routes: changes.removed, reply });
        }
        let mut table = self.shared.table.write();
        let mut names = self.shared.live_names.write();
        for id in changes.made.into_values() {
            let was_there = changes.before.contains_key(&id) || names.has(id);
            if !was_there {
                table.delete(id);
                self.shared.alive.remove(id);
                names.remove(id);
            }
        }
        drop((names, table));
        if !changes.before.is_empty() {
            // What routes that were taken back brought would not be dispatched again.
            let _ = self.shared.indexer.checkpoint();
        }
    }

    fn release(&mut self, releases: &mut Vec<(Vec<QueueId>, oneshot::Sender<Result<()>>)>) {
        if releases.is_empty() {
            return;
        }
        let (queues, replies): (Vec<_>, Vec<_>) = std::mem::take(releases).into_iter().unzip();
        let result = self.let_go(queues.into_iter().flatten());
        for reply in replies {
            let _ = reply.send(result.clone());
        }
    }

    /// Gives references back, and deletes the queues that nobody waits for.
    fn let_go(&mut self, queues: impl Iterator<Item = QueueId>) -> Result<()> {
        let now = Instant::now();
        let mut gone = Vec::new();
        let mut table = self.shared.table.write();
        let names = self.shared.live_names.read();
        for queue in queues {
            if !table.release(queue) {
                continue;
            }
            if names.has(queue) || self.shared.options.queue_ttl.is_zero() {
                gone.push(queue);
            } else {
                self.idle.insert(queue, now);
            }
        }
        drop((names, table));
        let deleted = self.delete(&gone);
        if deleted.is_err() {
            // They were given back all the same.
            self.undeleted.append(&mut gone);
        }
        deleted
    }

    fn sweep(&mut self) -> Result<usize> {
        let unreferenced = self.shared.table.read().unreferenced();
        let mut filters = Vec::new();
        for id in unreferenced {
            // Unions are kept by whoever gave them their name.
            if entry(&self.shared, id)?.kind == Kind::Filter {
                filters.push(id);
            }
        }
        let count = filters.len();
        if self.shared.options.queue_ttl.is_zero() {
            self.delete(&filters)?;
        } else {
            let now = Instant::now();
            for id in filters {
                self.idle.entry(id).or_insert(now);
            }
        }
        Ok(count)
    }

    fn expire(&mut self) {
        let ttl = self.shared.options.queue_ttl;
        let is_news = self.undeleted.is_empty();
        let mut over = std::mem::take(&mut self.undeleted);
        over.extend(self.idle.iter().filter(|(_, since)| since.elapsed() >= ttl).map(|(id, _)| *id));
        if over.is_empty() {
            return;
        }
        self.idle.retain(|_, since| since.elapsed() < ttl);
        // One may be there twice: it was wanted again meanwhile, and given back.
        over.sort_unstable();
        over.dedup();
        over.retain(|id| !self.shared.table.read().is_referred_to(*id));
        if let Err(error) = self.delete(&over) {
            if is_news {
                tracing::warn!(%error, "queues that nobody uses could not be deleted; it is tried again");
            }
            self.undeleted = over;
        }
    }

    fn delete_one(&mut self, id: QueueId) -> Result<()> {
        entry(&self.shared, id)?;
        self.delete(&[id])
    }

    /// Deletes queues; after an error some of them are there still, and can be deleted again with the others.
    fn delete(&mut self, ids: &[QueueId]) -> Result<()> {
        // A part is gone from everywhere before the next is begun: what the catalogue has no row of, nobody would look for again.
        ids.chunks(BATCH_QUEUES).try_for_each(|ids| self.delete_part(ids))
    }

    fn delete_part(&mut self, ids: &[QueueId]) -> Result<()> {
        // One that is gone already holds none of the others up.
        let found = ids.iter().map(|id| entry(&self.shared, *id));
        let found = found.filter(|entry| !matches!(entry, Err(StoreError::NoQueue(_))));
        let entries: SmallVec<[Entry; 1]> = found.collect::<Result<_>>()?;
        if entries.is_empty() {
            return Ok(());
        }
        // First from the catalogue on disk: entries of a queue that is in none do no harm, a queue without its entries would.
        self.shared.meta.delete_queues(&entries)?;
        let table = self.shared.table.read();
        let routes = entries.iter().filter_map(|entry| Some((table.index(entry.id)?, entry)));
        let routes = routes
            .flat_map(|(index, entry)| entry.routes.iter().map(move |(filter, _)| (filter.clone(), index)));
        let routes = routes.collect();
        drop(table);
        ask(&self.writer, |reply| Command::RemoveRoutes { routes, reply })?;
        let mut table = self.shared.table.write();
        let mut names = self.shared.live_names.write();
        for entry in &entries {
            table.delete(entry.id);
            self.shared.alive.remove(entry.id);
            names.remove(entry.id);
            self.idle.remove(&entry.id);
        }
        Ok(())
    }

    fn filled(&self, id: QueueId) -> Result<()> {
        let mut row = entry(&self.shared, id)?;
        row.past = row.past.map(|past| Past { filled: true, ..past });
        self.shared.meta.put_queues(&[row])
    }
}
