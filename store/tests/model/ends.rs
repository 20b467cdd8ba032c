//! How a store ends, what must be there when it is opened again, and what retention takes away in between.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tidemill_store::{
    CursorKey, Options, Position, QueueKind, Record, Retention, ScanRequest, Store, Watcher,
};

use crate::check;
use crate::model::Model;
use crate::random::Random;
use crate::steps::Driver;

impl Driver {
    fn open(&mut self) {
        self.store = Some(Store::open(self.options.clone()).unwrap());
        (self.watcher, self.armed) = (Watcher::new(), Vec::new());
    }

    /// An orderly end: everything is there.
    pub(crate) async fn close(&mut self, random: &mut Random) {
        self.store().close().await.unwrap();
        let empty = self.batch(random);
        assert!(self.store().append(empty).await.is_err());
        self.store = None;
        self.open();
        assert_eq!(self.store().stats().redispatched, 0);
        self.model.closed();
        recovered(self.store.as_ref().unwrap(), &mut self.model).await;
    }

    /// Old segments go, by bytes or by time, while nobody else does anything.
    pub(crate) async fn retain(&mut self, random: &mut Random) {
        self.store().close().await.unwrap();
        let ends: BTreeMap<u16, u64> =
            self.store().ends().into_iter().map(|end| (end.shard(), end.offset())).collect();
        self.store = None;
        let bytes = random.chance(60).then(|| random.number(300..6000));
        let time = bytes.is_none().then_some(Duration::from_millis(1));
        let retention = Retention { time, bytes };
        let before = firsts(self.dir.path());
        let too_much = |shard: &u16, first: u64| bytes.is_none_or(|bytes| ends[shard] - first > bytes);
        let is_over = before.iter().any(|(shard, firsts)| firsts.len() > 1 && too_much(shard, firsts[0]));
        let after = {
            let interval = Duration::from_millis(1);
            let store =
                Store::open(Options { retention, retention_interval: interval, ..self.options.clone() });
            let store = store.unwrap();
            let began = Instant::now();
            while is_over && store.stats().deleted_segments == 0 {
                assert!(
                    began.elapsed() < Duration::from_secs(20),
                    "{retention:?} deletes nothing of {before:?}"
                );
                tokio::time::sleep(interval).await;
            }
            store.close().await.unwrap();
            store.ends()
        };
        // Whole segments went, and none that had to stay.
        for (shard, left) in firsts(self.dir.path()) {
            let start = left[0];
            assert!(start >= ends[&shard] || before[&shard].contains(&start), "{start} of {before:?}");
            let end = after[usize::from(shard)].offset();
            let last = before[&shard].iter().rfind(|first| **first < start);
            let might_go = |last: &u64| bytes.is_none_or(|bytes| end - last > bytes);
            assert!(last.is_none_or(might_go), "{retention:?} took {last:?} of {before:?}");
            self.model.starts.insert(shard, start);
        }
        self.model.closed();
        self.open();
        self.model.sequence = self.store().next_sequence();
        let retained: Vec<Record> = self.model.retained().into_values().cloned().collect();
        for record in retained {
            let found = self.store().retained(&record.topic, None, 2).await.unwrap().remove(0);
            assert!(self.model.has(&found), "{record:?} went");
            if found != record {
                let (position, sequence, size) = (found.position, found.sequence, found.size);
                assert_eq!(found, Record { position, sequence, size, kept: true, ..record.clone() });
                assert!(position > record.position && sequence > record.sequence);
                let first = self.model.kept.iter().find(|(_, kept)| **kept == record);
                let first = first.map_or(record.sequence, |(first, _)| *first);
                self.model.kept.insert(first, found);
            }
        }
        recovered(self.store.as_ref().unwrap(), &mut self.model).await;
    }

    /// The end of the process: what was acknowledged is there.
    pub(crate) async fn die(&mut self, random: &mut Random) {
        let mut pending = Vec::new();
        for _ in 0..random.number(0..3) {
            let batch = self.batch(random);
            pending.extend(batch.clone());
            // Nobody waits for it.
            drop(self.store().submit(batch).await.unwrap());
        }
        self.store = None;
        self.open();
        let from: Vec<Position> = Vec::new();
        let all = ScanRequest { from, filter: Some("#".into()), records_max: 1 << 20, bytes_max: 1 << 30 };
        let mut rest = self.store().scan(all.clone()).await.unwrap().records;
        let system = ScanRequest { filter: Some("$S/#".into()), ..all };
        rest.extend(self.store().scan(system).await.unwrap().records);
        rest.sort_by_key(|record| record.sequence);
        let late = rest.split_off(self.model.there().count().min(rest.len()));
        assert!(late.len() <= pending.len());
        for (record, new) in late.into_iter().zip(pending) {
            self.stored(new, record);
        }
        self.model.reopened();
        recovered(self.store.as_ref().unwrap(), &mut self.model).await;
    }

    /// The end of the machine, tried out on a copy: what was durable is there.
    pub(crate) async fn lose_power(&mut self, random: &mut Random) {
        let dir = tempfile::tempdir().unwrap();
        copy_quiet(self.dir.path(), dir.path());
        // Looked at after the copy: what the copied databases know was durable by then.
        let durable = self.store().durable_ends();
        let mut left = Vec::new();
        for (end, durable) in self.store().ends().into_iter().zip(durable) {
            left.push(cut(dir.path(), end, durable, random));
        }
        let mut model = self.model.clone();
        only(&mut model, |position, size| {
            position.offset() + u64::from(size) <= left[usize::from(position.shard())]
        });
        model.reopened();
        let options = Options { dir: dir.path().to_owned(), ..self.options.clone() };
        let store = Store::open(options).unwrap();
        recovered(&store, &mut model).await;
        for (key, places) in &model.cursors {
            let Some(queue) = model.queues.get(&key.queue) else { continue };
            let place = places.last().unwrap();
            if place.sequence > 0 && queue.kind != QueueKind::Derived {
                let done = model.entries(key.queue).find(|(offset, _)| offset + 1 == place.offset);
                assert!(
                    done.is_none_or(|(_, record)| record.sequence == place.sequence),
                    "{key:?} {place:?}"
                );
            }
        }
    }
}

/// What an end may have taken: cursors back to where they were, derived queues with their place, and what was in memory only.
async fn recovered(store: &Store, model: &mut Model) {
    for (key, places) in &mut model.cursors {
        let found = store.cursors(&key.owner, None, 1000).await.unwrap();
        let place = found.iter().find(|(found, _)| found == key).map(|(_, place)| *place);
        let place = place.unwrap_or_else(|| panic!("{key:?} is gone"));
        assert!(places.contains(&place), "{key:?} is at {place:?}, and was at {places:?}");
        *places = vec![place];
    }
    if let Some(queue) = model.named(&QueueKind::Union(Vec::new()), "router") {
        let key = CursorKey { owner: "router".into(), queue };
        let place = store.derived_to(&key).await.unwrap();
        let counts = model.derived_surely..=model.derivations.len();
        let is_place = |count: usize| count.checked_sub(1).map(|last| model.derivations[last].place) == place;
        let mut counts = counts.filter(|count| is_place(*count));
        let count = counts.next().unwrap_or_else(|| panic!("derived to {place:?}: {:?}", model.derivations));
        model.derived_only(count);
    }
    for (id, queue) in model.queues.iter_mut().filter(|(_, queue)| queue.soft > 0) {
        let first = store.queue(*id).await.unwrap().first;
        if first != queue.first {
            assert_eq!(first, queue.first + queue.soft as u64, "{queue:?}");
            queue.first = first;
            queue.entries.drain(..queue.soft);
        }
        queue.soft = 0;
    }
    check::all(store, model).await;
}

/// Where the segments of each shard begin, in order.
fn firsts(dir: &Path) -> BTreeMap<u16, Vec<u64>> {
    let mut firsts: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
    for (first, _) in segments(dir) {
        firsts.entry(first.shard()).or_default().push(first.offset());
    }
    firsts
}

/// Where each segment begins and its file, in order.
fn segments(dir: &Path) -> Vec<(Position, PathBuf)> {
    let files = std::fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path());
    let named = files.filter_map(|path| {
        let first = path.file_name()?.to_str()?.strip_suffix(".seg")?.parse();
        Some((first.unwrap(), path))
    });
    let mut named: Vec<_> = named.collect();
    named.sort();
    named
}

/// Leaves only these records.
fn only(model: &mut Model, is_left: impl Fn(Position, u32) -> bool) {
    let mut places = Vec::new();
    let mut count = 0;
    for record in &model.records {
        let left = is_left(record.position, record.size);
        places.push(left.then_some(count));
        count += usize::from(left);
    }
    model.records.retain(|record| is_left(record.position, record.size));
    for queue in model.queues.values_mut() {
        let soft = queue.entries.iter().take(queue.soft).filter(|place| places[**place].is_some());
        queue.soft = soft.count();
        queue.entries = queue.entries.iter().filter_map(|place| places[*place]).collect();
    }
}

/// Copies a directory whose databases change only now and then.
fn copy_quiet(from: &Path, to: &Path) {
    loop {
        let before = listing(from);
        let copied = copy(from, to);
        if copied.is_ok() && listing(from) == before {
            return;
        }
        std::fs::remove_dir_all(to).unwrap();
    }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &to)?,
            false => std::fs::copy(entry.path(), to).map(drop)?,
        }
    }
    Ok(())
}

/// Files of the databases and their sizes.
fn listing(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut files = Vec::new();
    for name in ["index", "meta"] {
        for entry in std::fs::read_dir(dir.join(name)).unwrap().flatten() {
            files.extend(entry.metadata().map(|data| (entry.path(), data.len())));
        }
    }
    files.sort();
    files
}

/// Takes bytes from the end of a shard that were not durable; up to where all of it is left.
fn cut(dir: &Path, end: Position, durable: Position, random: &mut Random) -> u64 {
    let last = segments(dir).into_iter().rfind(|(first, _)| first.shard() == end.shard()).unwrap();
    let first = last.0.offset();
    // The header is synced before anything else is written.
    let from = durable.offset().max(first + 48);
    let left = random.number(from..end.offset().max(from) + 1);
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&last.1).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(left - first).unwrap();
    if random.chance(50) {
        // The file's size was durable, these bytes were not.
        file.set_len(length).unwrap();
    }
    left
}
