//! How a store ends, and what must be there when it is opened again.

use std::path::Path;

use tidemill_store::{CursorKey, Options, Position, QueueKind, ScanRequest, Store, Watcher};

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
        let model = &mut self.model;
        model.derived_surely = model.derivations.len();
        model.queues.values_mut().for_each(|queue| queue.soft = 0);
        model.cursors.values_mut().for_each(|places| drop(places.drain(..places.len() - 1)));
        model.reopened();
        recovered(self.store.as_ref().unwrap(), model).await;
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
        let all = ScanRequest { from, filter: "#".into(), records_max: 1 << 20, bytes_max: 1 << 30 };
        let mut rest = self.store().scan(all.clone()).await.unwrap().records;
        let system = ScanRequest { filter: "$S/#".into(), ..all };
        rest.extend(self.store().scan(system).await.unwrap().records);
        rest.sort_by_key(|record| record.sequence);
        let late = rest.split_off(self.model.records.len().min(rest.len()));
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
fn listing(dir: &Path) -> Vec<(std::path::PathBuf, u64)> {
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
    let files = std::fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path());
    let named = files.filter_map(|path| {
        let first = path.file_name()?.to_str()?.strip_suffix(".seg")?.parse::<Position>();
        Some((first.unwrap(), path))
    });
    let last = named.filter(|(first, _)| first.shard() == end.shard()).max().unwrap();
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
